//! What a family's sets say about services: the lowering, read backwards. It takes the wanted and the loaded sets alike.

use super::affinity::{self, Numbered};
use crate::nft::model::{Element, Family, Field, Set, Verdict, width};
use crate::nft::text::Concat;
use natlet_core::Protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A frontend by what a packet is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub v6: bool,
    /// `None` for a NodePort.
    pub address: Option<IpAddr>,
    pub protocol: Protocol,
    pub port: u16,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{}/{}", SocketAddr::new(address, self.port), self.protocol),
            None => write!(f, "node port {}/{}{}", self.port, self.protocol, if self.v6 { " (IPv6)" } else { "" }),
        }
    }
}

/// Endpoints with their numbers of slots.
pub(super) type List = BTreeMap<SocketAddr, u32>;

/// What happens at a frontend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Frontend {
    /// `namespace/name:port`, as far as a comment holds it.
    pub service: String,
    /// What the map of frontends says, in words.
    pub outcome: String,
    /// How an endpoint is drawn: empty for none, else the parts of the chain's name that say it.
    pub drawn: String,
    pub cluster: List,
    /// The list for sources outside; `None` where there is none of its own.
    pub local: Option<List>,
    pub masquerade: Masquerade,
    /// Sources that may use it; `None`: all.
    pub ranges: Option<BTreeSet<String>>,
}

/// Which connections of a frontend are masqueraded by its kind and policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Masquerade {
    /// As ClusterIPs: what is from no pod.
    #[default]
    AsClusterIp,
    Always,
    FromNode,
}

impl fmt::Display for Masquerade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AsClusterIp => "as for a ClusterIP",
            Self::Always => "always (external policy Cluster)",
            Self::FromNode => "only from this node (external policy Local)",
        })
    }
}

/// All of a family.
#[derive(Clone, Debug, Default)]
pub(super) struct Meaning {
    pub frontends: BTreeMap<Key, Frontend>,
    /// A frontend of each service port that has a number, by family.
    pub numbers: BTreeMap<(bool, u32), Key>,
    /// Prefixes by the flag that sets them.
    pub settings: BTreeMap<&'static str, BTreeSet<String>>,
}

/// Sets whose keys start with a frontend: of each, what its elements say.
const PER_FRONTEND: [(&str, Says); 18] = [
    ("services", Says::Outcome),
    ("node-ports", Says::Outcome),
    ("local-services", Says::LocalOutcome),
    ("local-node-ports", Says::LocalOutcome),
    ("endpoints", Says::Cluster),
    ("node-port-endpoints", Says::Cluster),
    ("local-endpoints", Says::Local),
    ("local-node-port-endpoints", Says::Local),
    ("affinity-ids", Says::Number { local: false }),
    ("node-port-affinity-ids", Says::Number { local: false }),
    ("local-affinity-ids", Says::Number { local: true }),
    ("local-node-port-affinity-ids", Says::Number { local: true }),
    ("masquerade-always", Says::Masquerade(Masquerade::Always)),
    ("masquerade-node-ports", Says::Masquerade(Masquerade::Always)),
    ("masquerade-node", Says::Masquerade(Masquerade::FromNode)),
    ("masquerade-local-node-ports", Says::Masquerade(Masquerade::FromNode)),
    ("restricted", Says::Restricted),
    ("allowed", Says::Range),
];

/// Sets of prefixes, with the flag that fills them.
const SETTINGS: [(&str, &str); 3] =
    [("pods", "cluster-cidr"), ("service-cidrs", "service-cidr"), ("node-port-addresses", "node-port-address")];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Outcome,
    LocalOutcome,
    Cluster,
    Local,
    /// The number of its list of endpoints.
    Number {
        local: bool,
    },
    Masquerade(Masquerade),
    Restricted,
    Range,
}

/// Whether the elements of a set belong to frontends.
pub(super) fn is_per_frontend(set: &str) -> bool {
    PER_FRONTEND.iter().any(|(name, _)| *name == set)
}

/// The flag that fills a set.
pub(super) fn setting(set: &str) -> Option<&'static str> {
    SETTINGS.iter().find(|(name, _)| *name == set).map(|(_, flag)| *flag)
}

impl Meaning {
    /// Reads one family's sets.
    pub fn add<'s>(&mut self, family: Family, sets: impl Iterator<Item = &'s Set> + Clone) {
        let says = |set: &Set| PER_FRONTEND.iter().find(|(name, _)| *name == set.name).map(|(_, says)| *says);
        let numbered = affinity::lists(family, &sets);
        // the maps of frontends come first: the rest is about frontends that they have
        for main in [true, false] {
            for set in sets.clone() {
                match says(set) {
                    Some(says) if (says == Says::Outcome) == main => {
                        for element in set.elements.iter() {
                            self.element(family, set, &element, says, &numbered);
                        }
                    }
                    _ => {}
                }
            }
        }
        for set in sets {
            if let Some(flag) = setting(&set.name) {
                let texts = set.elements.iter().map(|e| crate::nft::text::key(set, e.key, e.data));
                self.settings.entry(flag).or_default().extend(texts);
            }
        }
    }

    fn element(&mut self, family: Family, set: &Set, e: &Element<'_>, says: Says, numbered: &Numbered) {
        let Some((key, rest)) = frontend(family, set, e.key) else { return };
        if says == Says::Outcome {
            let (outcome, drawn) = outcome(set.verdict(e.data));
            let frontend = Frontend { service: e.comment.into(), outcome, drawn, ..Frontend::default() };
            self.frontends.insert(key, frontend);
            return;
        }
        let Some(frontend) = self.frontends.get_mut(&key) else { return };
        match says {
            Says::Outcome => {}
            Says::LocalOutcome => _ = frontend.local.get_or_insert_default(),
            Says::Cluster => count(&mut frontend.cluster, family, e.data),
            Says::Local => count(frontend.local.get_or_insert_default(), family, e.data),
            Says::Number { local } => {
                let Some(number) = affinity::number(e.data) else { return };
                let list = numbered.get(&number).cloned().unwrap_or_default();
                *if local { frontend.local.get_or_insert_default() } else { &mut frontend.cluster } = list;
                self.numbers.insert((key.v6, number & !1), key);
            }
            Says::Masquerade(masquerade) => frontend.masquerade = masquerade,
            Says::Restricted => _ = frontend.ranges.get_or_insert_default(),
            Says::Range => {
                let field = if family == Family::Ip { Field::Ip4Saddr } else { Field::Ip6Saddr };
                let end = e.data.get(e.key.len() - rest.len()..);
                let range = Concat { fields: &[field], bytes: rest, end };
                frontend.ranges.get_or_insert_default().insert(range.to_string());
            }
        }
    }
}

/// The frontend that an element's key starts with, and what follows it.
pub(super) fn frontend<'e>(family: Family, set: &Set, key: &'e [u8]) -> Option<(Key, &'e [u8])> {
    if width(&set.key) != key.len() {
        return None;
    }
    let (address, rest) = if *set.key.first()? == Field::L4Proto {
        (None, key)
    } else {
        let (address, rest) = address(family, key)?;
        (Some(address), rest)
    };
    let &[protocol, _, _, _, high, low, _, _, ref rest @ ..] = rest else { return None };
    let protocol = Protocol::from_number(protocol)?;
    Some((Key { v6: family == Family::Ip6, address, protocol, port: u16::from_be_bytes([high, low]) }, rest))
}

/// The address that bytes start with.
pub(super) fn address(family: Family, bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    match family {
        Family::Ip => bytes.split_first_chunk::<4>().map(|(a, rest)| (IpAddr::from(*a), rest)),
        Family::Ip6 => bytes.split_first_chunk::<16>().map(|(a, rest)| (IpAddr::from(*a), rest)),
    }
}

fn count(list: &mut List, family: Family, data: &[u8]) {
    if let Some((address, &[high, low, ..])) = address(family, data) {
        *list.entry(SocketAddr::new(address, u16::from_be_bytes([high, low]))).or_default() += 1;
    }
}

/// A verdict in words, and how an endpoint is drawn.
fn outcome(verdict: Option<&Verdict>) -> (String, String) {
    match verdict {
        Some(Verdict::Goto(chain)) if chain == "refuse" || chain == "passed-over" => {
            ("rejected: no endpoint".into(), String::new())
        }
        Some(Verdict::Drop) => ("dropped: no endpoint on this node".into(), String::new()),
        Some(Verdict::Goto(chain)) if chain.starts_with("select-") => ("translated".into(), drawing(chain)),
        Some(other) => (other.to_string(), String::new()),
        None => ("a verdict that natlet never gives".into(), String::new()),
    }
}

/// `random` for `select-local-node-port-3`, `hash` for `select-hash-3`, `hash with affinity of 90 s` for
/// `select-affinity-90-hash-3`.
fn drawing(chain: &str) -> String {
    let rest = chain.trim_start_matches("select-").trim_end_matches(|c: char| c.is_ascii_digit());
    let rest = rest.trim_start_matches("local-").trim_start_matches("node-port-").trim_end_matches('-');
    let (affinity, rest) = match rest.strip_prefix("affinity-") {
        Some(rest) => {
            let (seconds, rest) = rest.split_once('-').unwrap_or((rest, ""));
            (format!(" with affinity of {seconds} s"), rest)
        }
        None => (String::new(), rest),
    };
    format!("{}{affinity}", if rest.is_empty() { "random" } else { rest })
}
