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
mod building;
mod delta;
mod elements;
mod features;
mod lists;
mod matching;
mod needs;
mod part;
mod ranges;
mod route;
mod rules;

pub use delta::{Delta, Detail, delta, delta_knowing};
pub use needs::Needs;

use crate::nft::model::{Family, Ruleset, Table};
use features::Features;
use natlet_core::Program;
use part::Part;

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
    lower_part(program, info, &Needs::of_program(program), None)
}

/// As [`lower`], with all chains, rules and sets, and of the elements those of a part of the program (`None`: all).
fn lower_part(program: &Program<'_>, info: &str, needs: &Needs, part: Option<&Part<'_>>) -> Ruleset {
    let mut families: Vec<Family> = [Family::Ip, Family::Ip6].into_iter().filter(|f| is_used(program, *f)).collect();
    if families.is_empty() {
        families.push(Family::Ip);
    }
    let tables = families.into_iter().map(|family| lower_family(program, family, info, needs, part)).collect();
    Ruleset { tables, ..Ruleset::default() }
}

fn is_used(program: &Program<'_>, family: Family) -> bool {
    let v6 = family == Family::Ip6;
    program.context().service_cidrs().any(|c| c.address.is_ipv6() == v6) || program.has_frontends(v6)
}

fn lower_family(program: &Program<'_>, family: Family, info: &str, needs: &Needs, part: Option<&Part<'_>>) -> Table {
    let mut filled = elements::fill(program, family, info, needs, part);
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
