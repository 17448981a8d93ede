//! `iptables-save` text with kube-proxy's KUBE-* chains.
//!
//! Services under policy Cluster are written as kube-proxy wrote them when KUBE-FW- and KUBE-SVC- chains were all there
//! was; external policy Local takes the later KUBE-EXT- and KUBE-SVL- chains, which the older form has no equal for.
//! What iptables has no rule for (unallocated service addresses, other ports of ClusterIPs) is left out.

use super::chain_names;
use crate::view::{FrontendView, ServicePort, service_ports};
use natlet_core::{FrontendKind, Policy, Program};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

/// Largest `--comment` that xtables takes, in bytes.
const MAX_COMMENT: usize = 255;

/// The listing for one family: `iptables-save` without, `ip6tables-save` with `v6`.
pub fn export(program: &Program<'_>, v6: bool) -> String {
    let mut out = Listing::new(program, v6);
    for port in service_ports(program) {
        out.service(&port);
    }
    out.finish()
}

/// Rules by chain, in the order in which the chains are first named.
struct Listing<'p, 'a> {
    program: &'p Program<'a>,
    v6: bool,
    services: Vec<String>,
    node_ports: Vec<String>,
    /// KUBE-SVC- and the like, sorted by name as kube-proxy's map of chains is.
    chains: BTreeMap<String, Vec<String>>,
    rejects: Vec<String>,
    external_rejects: Vec<String>,
}

impl<'p, 'a> Listing<'p, 'a> {
    fn new(program: &'p Program<'a>, v6: bool) -> Self {
        Self {
            program,
            v6,
            services: vec![],
            node_ports: vec![],
            chains: BTreeMap::new(),
            rejects: vec![],
            external_rejects: vec![],
        }
    }

    fn service(&mut self, port: &ServicePort<'_>) {
        let Some(record) = port.records.iter().find(|r| r.is_v6() == self.v6) else { return };
        let frontends: Vec<&FrontendView> = port.frontends.iter().filter(|f| f.address.is_ipv6() == self.v6).collect();
        if !record.any_usable() {
            for f in frontends {
                self.reject(port, f);
            }
            return;
        }
        let hash = chain_names::service(&port.name, port.protocol);
        let svc = format!("KUBE-SVC-{hash}");
        let local_chain = format!("KUBE-SVL-{hash}");
        let external = frontends.iter().any(|f| f.kind.is_external());
        let local_external = external && record.external_policy() == Policy::Local;
        let local_internal = record.internal_policy() == Policy::Local;
        if !record.cluster().is_empty() {
            self.list(port, &svc, record.cluster().iter().map(|e| (e.address, e.weight)));
        }
        if local_external || local_internal {
            if record.local().is_empty() {
                let comment = format!("{} has no local endpoints", port.name);
                let comment = clip(&comment, MAX_COMMENT);
                self.rule(&local_chain, &format!("-m comment --comment \"{comment}\" -j KUBE-MARK-DROP"));
            } else {
                self.list(port, &local_chain, record.local().iter().map(|e| (e.address, e.weight)));
            }
        }
        let internal = if local_internal { &local_chain } else { &svc };
        let ext = format!("KUBE-EXT-{hash}");
        if local_external {
            self.external_chain(port, &ext, &svc, &local_chain);
        }
        let outer = if local_external { &ext } else { &svc };
        for f in frontends {
            match f.kind {
                FrontendKind::ClusterIp => self.cluster_ip(port, f, internal),
                FrontendKind::NodePort => self.node_port(port, f, outer, !local_external),
                FrontendKind::LoadBalancer => self.load_balancer(port, f, outer, !local_external, &hash),
                FrontendKind::ExternalIp => self.external_ip(port, f, outer, !local_external),
            }
        }
    }

    fn rule(&mut self, chain: &str, rule: &str) {
        self.chains.entry(chain.to_owned()).or_default().push(format!("-A {chain} {rule}"));
    }

    /// A chain that draws among endpoints, and their own chains. Duplicated rules carry the weights.
    fn list(&mut self, port: &ServicePort<'_>, chain: &str, endpoints: impl Iterator<Item = (SocketAddr, u16)>) {
        let mut sorted: Vec<(SocketAddr, u16)> = endpoints.collect();
        sorted.sort_by_cached_key(|(address, _)| address.to_string());
        let mut left: u32 = sorted.iter().map(|(_, w)| u32::from(*w)).sum();
        for (address, weight) in sorted {
            let endpoint = format!("KUBE-SEP-{}", chain_names::endpoint(&port.name, port.protocol, address));
            let affinity = self.affinity(port);
            if let Some(seconds) = affinity {
                let recent = format!(
                    "-m recent --rcheck --seconds {seconds} --reap --name {endpoint} --mask {} --rsource",
                    self.mask()
                );
                let rules = self.chains.entry(chain.to_owned()).or_default();
                let at = rules
                    .iter()
                    .position(|r| r.contains("-m statistic") || !r.contains("-m recent"))
                    .unwrap_or(rules.len());
                rules.insert(at, format!("-A {chain} {recent} -j {endpoint}"));
            }
            if u32::from(weight) == left {
                self.rule(chain, &format!("-j {endpoint}"));
            } else {
                let probability = format!("{:.11}", f64::from(weight) / f64::from(left));
                self.rule(chain, &format!("-m statistic --mode random --probability {probability} -j {endpoint}"));
            }
            left -= u32::from(weight);
            if !self.chains.contains_key(&endpoint) {
                self.endpoint(port, &endpoint, address, affinity.is_some());
            }
        }
    }

    fn affinity(&self, port: &ServicePort<'_>) -> Option<u32> {
        port.records.iter().find(|r| r.is_v6() == self.v6).and_then(|r| r.affinity_timeout())
    }

    const fn mask(&self) -> &'static str {
        if self.v6 { "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" } else { "255.255.255.255" }
    }

    const fn host_prefix(&self) -> u8 {
        if self.v6 { 128 } else { 32 }
    }

    fn endpoint(&mut self, port: &ServicePort<'_>, chain: &str, address: SocketAddr, affinity: bool) {
        let protocol = port.protocol;
        self.rule(chain, &format!("-s {}/{} -j KUBE-MARK-MASQ", address.ip(), self.host_prefix()));
        let recent = if affinity {
            format!(" -m recent --set --name {chain} --mask {} --rsource", self.mask())
        } else {
            String::new()
        };
        self.rule(chain, &format!("-p {protocol}{recent} -m {protocol} -j DNAT --to-destination {address}"));
    }

    /// External policy Local: pods and the node use the Cluster list, all others the Local one.
    fn external_chain(&mut self, port: &ServicePort<'_>, ext: &str, svc: &str, local_chain: &str) {
        let name = &port.name;
        let comment = |text: &str| format!("-m comment --comment \"{}\"", clip(&format!("{text} {name}"), MAX_COMMENT));
        if self.chains.contains_key(ext) {
            return;
        }
        let pods: Vec<String> = self.cluster_cidrs();
        for cidr in pods {
            let rule = format!("-s {cidr} {} -j {svc}", comment("pod traffic for external access to"));
            self.rule(ext, &rule);
        }
        let masquerade = comment("masquerade LOCAL traffic for");
        self.rule(ext, &format!("{masquerade} -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ"));
        let route = comment("route LOCAL traffic for");
        self.rule(ext, &format!("{route} -m addrtype --src-type LOCAL -j {svc}"));
        self.rule(ext, &format!("-j {local_chain}"));
    }

    fn cluster_cidrs(&self) -> Vec<String> {
        let cidrs = self.program.context().cluster_cidrs();
        cidrs.filter(|c| c.address.is_ipv6() == self.v6).map(|c| c.to_string()).collect()
    }

    /// `-d ADDRESS -p PROTOCOL -m comment --comment "NAME KIND" -m PROTOCOL --dport PORT`.
    fn matches(&self, port: &ServicePort<'_>, f: &FrontendView, what: &str) -> String {
        let (protocol, dport, name) = (port.protocol, f.port, &port.name);
        let destination = if f.kind == FrontendKind::NodePort {
            String::new()
        } else {
            format!("-d {}/{} ", f.address, self.host_prefix())
        };
        let comment = format!("{name}{what}");
        let comment = clip(&comment, MAX_COMMENT);
        format!("{destination}-p {protocol} -m comment --comment \"{comment}\" -m {protocol} --dport {dport}")
    }

    fn cluster_ip(&mut self, port: &ServicePort<'_>, f: &FrontendView, chain: &str) {
        let matches = self.matches(port, f, " cluster IP");
        if self.program.context().masquerade_all() {
            self.services.push(format!("-A KUBE-SERVICES {matches} -j KUBE-MARK-MASQ"));
        } else if let [cidr] = self.cluster_cidrs().as_slice() {
            self.services.push(format!("-A KUBE-SERVICES ! -s {cidr} {matches} -j KUBE-MARK-MASQ"));
        } else if !self.cluster_cidrs().is_empty() {
            self.services.push(format!("-A KUBE-SERVICES {matches} -j KUBE-MARK-NOT-POD"));
        }
        self.services.push(format!("-A KUBE-SERVICES {matches} -j {chain}"));
    }

    fn node_port(&mut self, port: &ServicePort<'_>, f: &FrontendView, chain: &str, masquerade: bool) {
        let matches = self.matches(port, f, "");
        if masquerade {
            self.node_ports.push(format!("-A KUBE-NODEPORTS {matches} -j KUBE-MARK-MASQ"));
        }
        self.node_ports.push(format!("-A KUBE-NODEPORTS {matches} -j {chain}"));
    }

    /// KUBE-FW-: masquerade, draw, and drop what was not drawn: the source ranges.
    fn load_balancer(&mut self, port: &ServicePort<'_>, f: &FrontendView, chain: &str, masquerade: bool, hash: &str) {
        let firewall = format!("KUBE-FW-{hash}");
        let matches = self.matches(port, f, " loadbalancer IP");
        self.services.push(format!("-A KUBE-SERVICES {matches} -j {firewall}"));
        if self.chains.contains_key(&firewall) {
            return;
        }
        let comment =
            format!("-m comment --comment \"{}\"", clip(&format!("{} loadbalancer IP", port.name), MAX_COMMENT));
        if masquerade {
            self.rule(&firewall, &format!("{comment} -j KUBE-MARK-MASQ"));
        }
        let record = port.records.iter().find(|r| r.is_v6() == self.v6);
        match record.and_then(|r| r.source_ranges()) {
            Some(ranges) => {
                for range in ranges {
                    self.rule(&firewall, &format!("-s {range} {comment} -j {chain}"));
                }
            }
            None => self.rule(&firewall, &format!("{comment} -j {chain}")),
        }
        self.rule(&firewall, &format!("{comment} -j KUBE-MARK-DROP"));
    }

    fn external_ip(&mut self, port: &ServicePort<'_>, f: &FrontendView, chain: &str, masquerade: bool) {
        let matches = self.matches(port, f, " external IP");
        if masquerade {
            self.services.push(format!("-A KUBE-SERVICES {matches} -j KUBE-MARK-MASQ"));
        }
        self.services.push(format!("-A KUBE-SERVICES {matches} -j {chain}"));
    }

    fn reject(&mut self, port: &ServicePort<'_>, f: &FrontendView) {
        let with = if self.v6 { "icmp6-port-unreachable" } else { "icmp-port-unreachable" };
        let matches = self.matches(port, f, " has no endpoints");
        let (rejects, chain) = match f.kind {
            FrontendKind::NodePort => {
                (&mut self.external_rejects, "KUBE-EXTERNAL-SERVICES -m addrtype --dst-type LOCAL")
            }
            FrontendKind::ExternalIp | FrontendKind::LoadBalancer => {
                (&mut self.external_rejects, "KUBE-EXTERNAL-SERVICES")
            }
            FrontendKind::ClusterIp => (&mut self.rejects, "KUBE-SERVICES"),
        };
        rejects.push(format!("-A {chain} {matches} -j REJECT --reject-with {with}"));
    }

    fn finish(self) -> String {
        let mut out = String::new();
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "# Generated by natlet {} (content id {})",
            env!("CARGO_PKG_VERSION"),
            self.program.content_id()
        )?;
        writeln!(out, "*nat")?;
        for builtin in ["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"] {
            writeln!(out, ":{builtin} ACCEPT [0:0]")?;
        }
        let not_pod = self.services.iter().any(|r| r.ends_with("KUBE-MARK-NOT-POD"));
        let fixed = ["KUBE-MARK-DROP", "KUBE-MARK-MASQ", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-SERVICES"];
        for chain in fixed.into_iter().chain(not_pod.then_some("KUBE-MARK-NOT-POD")) {
            writeln!(out, ":{chain} - [0:0]")?;
        }
        for chain in self.chains.keys() {
            writeln!(out, ":{chain} - [0:0]")?;
        }
        let portals = "-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES";
        writeln!(out, "-A PREROUTING {portals}\n-A OUTPUT {portals}")?;
        let postrouting = "-m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING";
        writeln!(out, "-A POSTROUTING {postrouting}")?;
        writeln!(out, "-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000")?;
        writeln!(out, "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000")?;
        if not_pod {
            for cidr in self.cluster_cidrs() {
                writeln!(out, "-A KUBE-MARK-NOT-POD -s {cidr} -j RETURN")?;
            }
            writeln!(out, "-A KUBE-MARK-NOT-POD -j KUBE-MARK-MASQ")?;
        }
        let masquerade = "\"kubernetes service traffic requiring SNAT\"";
        writeln!(
            out,
            "-A KUBE-POSTROUTING -m comment --comment {masquerade} -m mark --mark 0x4000/0x4000 -j MASQUERADE"
        )?;
        for rule in self.services.iter().chain(&self.node_ports) {
            writeln!(out, "{rule}")?;
        }
        // last in KUBE-SERVICES: an exact address beats a NodePort
        let last =
            "-m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\"";
        for destination in self.node_port_destinations() {
            writeln!(out, "-A KUBE-SERVICES {destination}{last} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS")?;
        }
        for rule in self.chains.values().flatten() {
            writeln!(out, "{rule}")?;
        }
        writeln!(out, "COMMIT")?;
        self.write_filter(out)
    }

    /// `-d CIDR `, or nothing for every address.
    fn node_port_destinations(&self) -> Vec<String> {
        let cidrs: Vec<_> =
            self.program.context().node_port_cidrs().filter(|c| c.address.is_ipv6() == self.v6).collect();
        let loopback = if self.v6 { "! -d ::1/128 " } else { "! -d 127.0.0.0/8 " };
        if cidrs.is_empty() || cidrs.iter().any(|c| c.prefix == 0) {
            let open = self.program.context().localhost_node_ports() && !self.v6;
            return vec![if open { String::new() } else { loopback.into() }];
        }
        cidrs.iter().map(|c| format!("-d {c} ")).collect()
    }

    fn write_filter(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]")?;
        writeln!(out, ":KUBE-EXTERNAL-SERVICES - [0:0]\n:KUBE-FIREWALL - [0:0]\n:KUBE-SERVICES - [0:0]")?;
        let portals = "-m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES";
        let external = "-m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES";
        writeln!(
            out,
            "-A INPUT {external}\n-A INPUT -j KUBE-FIREWALL\n-A FORWARD {portals}\n-A FORWARD {external}\n-A FORWARD -j KUBE-FIREWALL"
        )?;
        writeln!(out, "-A OUTPUT {portals}\n-A OUTPUT {external}\n-A OUTPUT -j KUBE-FIREWALL")?;
        for rule in self.external_rejects.iter().chain(&self.rejects) {
            writeln!(out, "{rule}")?;
        }
        let drop = "\"kubernetes firewall for dropping marked packets\"";
        writeln!(out, "-A KUBE-FIREWALL -m comment --comment {drop} -m mark --mark 0x8000/0x8000 -j DROP")?;
        writeln!(out, "COMMIT")
    }
}

fn clip(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
