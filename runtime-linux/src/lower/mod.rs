//! A program as nf_tables objects: the one place where the two meet.
//!
//! Chains, rules and sets do not grow with services or endpoints; a chain `select-N` exists for each number N of slots
//! that some list has. All else is elements:
//!
//! ```text
//! prerouting, output ── daddr . proto . dport ──▶ services ── goto ──▶ select-N ── … . random mod N ──▶ endpoints ──▶ dnat
//!                    └─ local address: proto . dport ──▶ node-ports ─▶ select-node-port-N
//! postrouting ── translated? original destination ──▶ masquerade-always, masquerade-node, cluster-ips ──▶ masquerade
//! ```
//!
//! Services with session affinity go to chains of their own (`affinity.rs`).
//!
//! What decides about masquerading is read from conntrack's original tuple, so no packet mark is used. A packet that a
//! `select-N` chain cannot translate (its two look-ups straddled an update) is counted and dropped there: it never leaves
//! with a service's address, and the client's next try finds the new endpoints.

mod affinity;
mod elements;
mod ranges;
mod rules;

use crate::nft::model::{Family, Ruleset, Table};
use natlet_core::{Program, Protocol};
use std::collections::BTreeSet;

/// Name of natlet's table in either family.
pub const TABLE: &str = "natlet";

/// The maps in which a new connection's first packet finds its frontend: one element of one of them. Their counters count
/// connections, since nat chains see nothing but first packets.
pub const FRONTENDS: [&str; 4] = ["services", "local-services", "node-ports", "local-node-ports"];

/// The ruleset of a program. `info` is what the kernel keeps with it for `natlet status`, at most 120 bytes.
///
/// A family without frontends and service CIDRs has no table; a program without any has an empty IPv4 one, which
/// carries `info`.
pub fn lower(program: &Program<'_>, info: &str) -> Ruleset {
    let mut tables = Vec::new();
    for family in [Family::Ip, Family::Ip6] {
        let v6 = family == Family::Ip6;
        let used = program.frontends().any(|f| f.address.is_ipv6() == v6)
            || program.context().service_cidrs().any(|c| c.address.is_ipv6() == v6);
        if used {
            tables.push(lower_family(program, family, info));
        }
    }
    if tables.is_empty() {
        tables.push(lower_family(program, Family::Ip, info));
    }
    Ruleset { tables, ..Ruleset::default() }
}

fn lower_family(program: &Program<'_>, family: Family, info: &str) -> Table {
    let mut filled = elements::fill(program, family, info);
    let (chains, base_chains) = rules::chains(family, &filled.features);
    filled.sets.retain(|s| filled.features.keeps(&s.name));
    Table {
        family,
        name: TABLE.into(),
        comment: "Kubernetes service network by natlet; changed by natlet only".into(),
        sets: filled.sets,
        chains,
        base_chains,
    }
}

/// What a family's table needs rules for.
#[expect(clippy::struct_excessive_bools, reason = "each says whether a kind of rule is there")]
#[derive(Clone, Debug, Default)]
struct Features {
    /// Numbers of slots, by the map that they are drawn from and the way of drawing.
    selects: BTreeSet<Select>,
    /// Some list or service cannot be reached: chain `refuse` is used.
    cluster_ips: bool,
    node_ports: bool,
    local_services: bool,
    local_node_ports: bool,
    /// Protocols of the frontends in each masquerade set.
    masquerade: BTreeSet<Protocol>,
    masquerade_node: BTreeSet<Protocol>,
    masquerade_node_ports: BTreeSet<Protocol>,
    masquerade_local_node_ports: BTreeSet<Protocol>,
    /// Some service remembers clients, with endpoints in both of its lists.
    siblings: bool,
    restricted: bool,
    hairpin: bool,
    pods: bool,
    node_port_addresses: bool,
    service_cidrs: bool,
    masquerade_all: bool,
    localhost_node_ports: bool,
}

impl Features {
    /// Whether a set is referred to; one that is not is left out.
    fn keeps(&self, set: &str) -> bool {
        let from = |map: &str| self.selects.iter().any(|s| s.map() == map);
        match set {
            "local-services" => self.local_services,
            "node-ports" => self.node_ports,
            "local-node-ports" => self.local_node_ports,
            "affinity-ids" | "local-affinity-ids" | "node-port-affinity-ids" | "local-node-port-affinity-ids" => {
                from(set)
            }
            "affinity" | "affinity-draws" | "affinity-endpoints" => self.selects.iter().any(|s| s.affinity.is_some()),
            "affinity-siblings" => self.siblings,
            "endpoints" | "local-endpoints" | "node-port-endpoints" | "local-node-port-endpoints" => from(set),
            "masquerade-always" => !self.masquerade.is_empty(),
            "masquerade-node" => !self.masquerade_node.is_empty(),
            "masquerade-node-ports" => !self.masquerade_node_ports.is_empty(),
            "masquerade-local-node-ports" => !self.masquerade_local_node_ports.is_empty(),
            "restricted" | "allowed" => self.restricted,
            "hairpin" => self.hairpin,
            "pods" => self.pods,
            "node-port-addresses" => self.node_port_addresses,
            "service-cidrs" => self.service_cidrs,
            "cluster-ips" => self.cluster_ips,
            _ => true,
        }
    }
}

/// A chain that draws an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Select {
    /// The frontend is a NodePort: the key has no address.
    node_port: bool,
    /// From the Local list.
    local: bool,
    /// By a hash of the source instead of at random.
    hash: bool,
    /// Clients are remembered for so many seconds.
    affinity: Option<u32>,
    /// Slots to draw from.
    slots: u32,
}

impl Select {
    /// The map that the frontend leads to: with affinity its number, else the endpoint.
    const fn map(self) -> &'static str {
        if self.affinity.is_some() {
            return affinity::ids_map(self.node_port, self.local);
        }
        match (self.node_port, self.local) {
            (false, false) => "endpoints",
            (false, true) => "local-endpoints",
            (true, false) => "node-port-endpoints",
            (true, true) => "local-node-port-endpoints",
        }
    }

    /// The chain's name, `select-N` in the plainest case.
    fn chain(self) -> String {
        let local = if self.local { "local-" } else { "" };
        let node_port = if self.node_port { "node-port-" } else { "" };
        let hash = if self.hash { "hash-" } else { "" };
        let affinity = self.affinity.map_or(String::new(), |timeout| format!("affinity-{timeout}-"));
        format!("select-{local}{node_port}{affinity}{hash}{}", self.slots)
    }
}
