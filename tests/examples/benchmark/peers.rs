//! What natlet is compared with, each given the same table.

use crate::table::{PODS, PORT, TARGET, Table};
use crate::{Bench, Result};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The files of one table, one for each peer.
pub struct Files {
    /// services.toml, which the others are made of.
    pub toml: PathBuf,
    /// natlet's program.
    pub program: PathBuf,
    /// Services and EndpointSlices as JSON.
    pub manifests: PathBuf,
    /// natlet's own rules as text for `nft -f`.
    pub nft: PathBuf,
    /// kube-proxy's KUBE-* chains for iptables-restore.
    pub iptables: PathBuf,
    /// kube-proxy's nftables layout: a chain for each service and each endpoint.
    pub chains: PathBuf,
}

impl Files {
    /// Writes them to `bench.work`, their names starting with `name`.
    pub fn write(bench: &Bench, name: &str, table: &Table) -> Result<Self> {
        let path = |kind: &str| bench.work.join(format!("{name}.{kind}"));
        let files = Self {
            toml: path("toml"),
            program: path("natp"),
            manifests: path("json"),
            nft: path("nft"),
            iptables: path("iptables"),
            chains: path("chains"),
        };
        std::fs::write(&files.toml, table.toml())?;
        std::fs::write(&files.manifests, table.manifests())?;
        std::fs::write(&files.chains, chains(table))?;
        natlet(bench, &["compile", text(&files.toml), "-o", text(&files.program)], None)?;
        natlet(bench, &["export", "--format", "nft", text(&files.program)], Some(&files.nft))?;
        natlet(bench, &["export", "--format", "iptables-save", text(&files.program)], Some(&files.iptables))?;
        Ok(files)
    }

    /// natlet's own rules but for those that decide about masquerading.
    pub fn without_postrouting(&self) -> Result<PathBuf> {
        let all = std::fs::read_to_string(&self.nft)?;
        let at = all.find("\tchain postrouting").ok_or("natlet's rules have no chain postrouting")?;
        let path = self.nft.with_extension("without-postrouting");
        std::fs::write(&path, format!("{}}}\n", &all[..at]))?;
        Ok(path)
    }
}

/// The text of a path; those of this program are all plain.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path made of ASCII")
}

fn natlet(bench: &Bench, arguments: &[&str], output: Option<&Path>) -> Result<()> {
    let stdout = output.map(std::fs::File::create).transpose()?.map_or_else(Stdio::null, Stdio::from);
    let status = Command::new(&bench.natlet).args(arguments).stdout(stdout).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("natlet {}: {status}", arguments.join(" ")).into()) }
}

/// Names of the chains of a service and of an endpoint, as kube-proxy makes them but for the hash.
fn chain(service: &crate::table::Service, protocol: &str) -> String {
    format!("service-{}/{}/{}/http", service.namespace, service.name, protocol.to_lowercase())
}

fn endpoint_chain(service: &crate::table::Service, protocol: &str, endpoint: std::net::Ipv4Addr) -> String {
    format!("endpoint-{}/{}/{}/http__{endpoint}/{TARGET}", service.namespace, service.name, protocol.to_lowercase())
}

/// kube-proxy's nftables layout as its design has it (KEP-3866): a verdict map from frontends to a chain a service, which
/// picks a chain an endpoint.
fn chains(table: &Table) -> String {
    let protocol = table.protocol.to_lowercase();
    let mut text =
        "table ip kube-proxy {\n\
         \tset cluster-ips { type ipv4_addr; }\n\
         \tmap service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }\n\
         \tchain mark-for-masquerade { meta mark set meta mark | 0x4000; }\n\
         \tchain masquerading { meta mark & 0x4000 == 0 return; meta mark set meta mark ^ 0x4000; masquerade fully-random; }\n\
         \tchain services { ip daddr . meta l4proto . th dport vmap @service-ips; }\n\
         \tchain reject-chain { reject; }\n\
         \tchain cluster-ips-check { ip daddr @cluster-ips reject; }\n\
         \tchain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }\n\
         \tchain nat-output { type nat hook output priority -100; jump services; }\n\
         \tchain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }\n\
         \tchain filter-forward { type filter hook forward priority -110; ct state new jump cluster-ips-check; }\n\
         \tchain filter-output { type filter hook output priority -110; ct state new jump cluster-ips-check; }\n"
    .to_owned();
    for s in &table.services {
        for e in &s.endpoints {
            let name = endpoint_chain(s, table.protocol, *e);
            let _ = writeln!(
                text,
                "\tchain {name} {{ ip saddr {e} jump mark-for-masquerade; meta l4proto {protocol} dnat to {e}:{TARGET}; }}"
            );
        }
        let name = chain(s, table.protocol);
        let _ = writeln!(text, "\tchain {name} {{ {} }}", select(s, table.protocol));
    }
    text.push_str("}\n");
    let elements =
        |of: &dyn Fn(&crate::table::Service) -> String| table.services.iter().map(of).collect::<Vec<_>>().join(", ");
    let addresses = elements(&|s| s.address.to_string());
    let frontends = elements(&|s| format!("{} . {protocol} . {PORT} : goto {}", s.address, chain(s, table.protocol)));
    let _ = writeln!(text, "add element ip kube-proxy cluster-ips {{ {addresses} }}");
    let _ = writeln!(text, "add element ip kube-proxy service-ips {{ {frontends} }}");
    text
}

/// The rules of a service's chain.
fn select(s: &crate::table::Service, protocol: &str) -> String {
    let slots: Vec<String> = s
        .endpoints
        .iter()
        .enumerate()
        .map(|(i, e)| format!("{i} : goto {}", endpoint_chain(s, protocol, *e)))
        .collect();
    format!(
        "ip daddr {} {} dport {PORT} ip saddr != {PODS} jump mark-for-masquerade; numgen random mod {} vmap {{ {} }};",
        s.address,
        protocol.to_lowercase(),
        slots.len(),
        slots.join(", ")
    )
}

/// What kube-proxy's nftables layout needs to have the first service's endpoints changed from those of `old` to those of
/// `new`: one transaction.
pub fn changed_chains(old: &Table, new: &Table) -> String {
    let (from, to) = (&old.services[0], &new.services[0]);
    let protocol = new.protocol;
    let (gone, come) = (from.endpoints[0], to.endpoints[0]);
    let quoted = |name: String| format!("ip kube-proxy {name}");
    let service = quoted(chain(to, protocol));
    let (old, new) = (quoted(endpoint_chain(from, protocol, gone)), quoted(endpoint_chain(to, protocol, come)));
    let rules = select(to, protocol);
    let rules: Vec<&str> = rules.split(';').map(str::trim).filter(|r| !r.is_empty()).collect();
    let mut text = format!(
        "add chain {new}\nadd rule {new} ip saddr {come} jump mark-for-masquerade\n\
         add rule {new} meta l4proto {} dnat to {come}:{TARGET}\nflush chain {service}\n",
        protocol.to_lowercase()
    );
    for rule in rules {
        let _ = writeln!(text, "add rule {service} {rule}");
    }
    let _ = writeln!(text, "flush chain {old}\ndelete chain {old}");
    text
}

/// What iptables-restore --noflush needs for the same: the chains of `new` that `old` has not, those that name them, and the
/// chains that nothing names any more.
pub fn changed_iptables(old: &str, new: &str) -> String {
    let declared = |text: &str| -> std::collections::BTreeSet<String> {
        text.lines().filter_map(|l| l.strip_prefix(':')?.split_whitespace().next()).map(str::to_owned).collect()
    };
    let (before, after) = (declared(old), declared(new));
    let come: Vec<&String> = after.difference(&before).collect();
    let gone: Vec<&String> = before.difference(&after).collect();
    let names = |line: &str, chain: &str| line.split_whitespace().any(|w| w == chain);
    let caller = |chain: &str| {
        let line =
            new.lines().find(|l| l.starts_with("-A") && names(l, chain) && !l.starts_with(&format!("-A {chain} ")));
        line.and_then(|l| l.split_whitespace().nth(1)).map(str::to_owned)
    };
    let callers: std::collections::BTreeSet<String> = come.iter().filter_map(|c| caller(c)).collect();
    let mut text = "*nat\n".to_owned();
    for chain in come.iter().chain(&gone).map(|c| c.as_str()).chain(callers.iter().map(String::as_str)) {
        let _ = writeln!(text, ":{chain} - [0:0]");
    }
    for line in new.lines().filter(|l| l.starts_with("-A")) {
        let chain = line.split_whitespace().nth(1).unwrap_or_default();
        if come.iter().any(|c| *c == chain) || callers.contains(chain) {
            let _ = writeln!(text, "{line}");
        }
    }
    for chain in gone {
        let _ = writeln!(text, "-X {chain}");
    }
    text.push_str("COMMIT\n");
    text
}
