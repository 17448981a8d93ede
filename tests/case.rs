//! Case files: a table, what is known of the node, and flows with what shall become of them. `tests/cases/README.md`
//! describes them.

use crate::flow::Outcome;
use natlet_core::{Protocol, Verdict};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A case file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Case {
    /// What it is about.
    pub title: String,
    /// Sections of kube-proxy's behaviour that it covers.
    pub sections: Vec<u8>,
    /// Flags of the command line that say what is known of the node.
    #[serde(default)]
    pub flags: String,
    /// The file holds for IPv6 as well: it is run a second time with every address moved there.
    #[serde(default)]
    pub ipv6: bool,
    /// Addresses of pods on the node. All other endpoints and sources are elsewhere.
    #[serde(default)]
    pub pods: String,
    /// Addresses that the node has although nothing says so to natlet.
    #[serde(default)]
    pub node_also: String,
    /// The input, of any kind that natlet reads.
    pub table: String,
    /// The flows.
    pub flows: Vec<Line>,
}

/// A flow as the file says it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// What it shows.
    pub name: String,
    /// Source address.
    pub from: IpAddr,
    /// Destination.
    pub to: SocketAddr,
    /// `tcp` where it is left out.
    #[serde(default)]
    pub proto: String,
    /// `dnat`, `reject`, `drop` or `accept`.
    pub verdict: String,
    /// With `dnat`: all endpoints that it can reach.
    #[serde(default)]
    pub endpoints: String,
    /// With `dnat`: `all`, `none`, or the endpoints that see the node's address.
    #[serde(default)]
    pub masquerade: String,
    /// The service that it is for, if that matters.
    pub service: Option<String>,
    /// The kind of frontend that it is for, if that matters.
    pub frontend: Option<String>,
    /// Words of the reason, if they matter.
    pub reason: Option<String>,
    /// Why no host can send such a packet: `trace` and core only.
    pub unsendable: Option<String>,
}

impl Case {
    /// Reads a file; with `ipv6` every IPv4 address in it is moved into 2001:db8::/96 first.
    pub fn read(text: &str, ipv6: bool) -> Result<Self, String> {
        let moved = if ipv6 { to_ipv6(text).replace("IPv4", "IPv6") } else { text.to_owned() };
        toml::from_str(&moved).map_err(|e| e.to_string())
    }

    /// The addresses in a list of this file.
    pub fn addresses(list: &str) -> Result<Vec<IpAddr>, String> {
        list.split_whitespace().map(|a| a.parse().map_err(|_| format!("{a} is no address"))).collect()
    }
}

impl Line {
    /// Its protocol.
    pub fn protocol(&self) -> Result<Protocol, String> {
        let name = if self.proto.is_empty() { "tcp" } else { &self.proto };
        Protocol::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| format!("no protocol: {name}"))
    }

    /// What shall become of it.
    pub fn expected(&self) -> Result<Outcome, String> {
        let verdicts = [Verdict::Dnat, Verdict::Reject, Verdict::Drop, Verdict::Accept];
        let verdict = verdicts.into_iter().find(|v| v.name() == self.verdict);
        let verdict = verdict.ok_or_else(|| format!("no verdict: {}", self.verdict))?;
        let sockets = |list: &str| -> Result<Vec<SocketAddr>, String> {
            list.split_whitespace().map(|e| e.parse().map_err(|_| format!("{e} is no endpoint"))).collect()
        };
        let all = sockets(&self.endpoints)?;
        let masqueraded = match self.masquerade.as_str() {
            "all" => all.clone(),
            "none" | "" => Vec::new(),
            list => sockets(list)?,
        };
        if let Some(stray) = masqueraded.iter().find(|e| !all.contains(e)) {
            return Err(format!("{stray} is masqueraded but none of the endpoints"));
        }
        let dnat = verdict == Verdict::Dnat;
        if dnat == all.is_empty() || dnat == self.masquerade.is_empty() {
            return Err("endpoints and masquerade go with dnat, and with nothing else".into());
        }
        let endpoints: BTreeMap<_, _> = all.into_iter().map(|e| (e, masqueraded.contains(&e))).collect();
        Ok(Outcome { verdict, endpoints })
    }
}

/// The text with every IPv4 address, prefix and socket address moved into 2001:db8::/96. The prefix that holds
/// everything goes on holding everything.
fn to_ipv6(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut rest = text;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let starts = first.is_ascii_digit() && !before.is_ascii_alphanumeric() && before != '.';
        let len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let address = rest[..len].parse::<std::net::Ipv4Addr>().ok().filter(|_| starts);
        let Some(address) = address else {
            out.push(first);
            before = first;
            rest = &rest[first.len_utf8()..];
            continue;
        };
        rest = &rest[len..];
        before = '0';
        let moved = Ipv6Addr::from_bits((0x2001_0db8 << 96) | u128::from(address.to_bits()));
        let number = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
        if let Some(prefix) = rest.strip_prefix('/').map(number).filter(|n| !n.is_empty()) {
            rest = &rest[1 + prefix.len()..];
            match prefix.parse::<u8>() {
                Ok(0) => out.push_str("::/0"),
                Ok(bits) => {
                    let _ = write!(out, "{moved}/{}", bits.saturating_add(96));
                }
                Err(_) => out.push_str(&prefix),
            }
        } else if rest.strip_prefix(':').is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit())) {
            let _ = write!(out, "[{moved}]");
        } else {
            let _ = write!(out, "{moved}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn addresses_move_and_nothing_else() {
        let text = "v1.2.3 10.0.0.1, 10.0.0.1:80 \"10.0.0.0/8\" 0.0.0.0/0 [10.0.0.2] 1.5";
        let moved = "v1.2.3 2001:db8::a00:1, [2001:db8::a00:1]:80 \"2001:db8::a00:0/104\" ::/0 [2001:db8::a00:2] 1.5";
        assert_eq!(super::to_ipv6(text), moved);
    }
}
