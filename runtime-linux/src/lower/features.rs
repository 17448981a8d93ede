//! What a family's table needs rules for: the part of a program that decides about chains, rules and which sets are there.

use super::Select;
use super::needs::{Needs, Place};
use crate::nft::model::Family;
use natlet_core::{Cidr, Program, Protocol};
use std::collections::BTreeSet;

/// What a family's table needs rules for.
#[expect(clippy::struct_excessive_bools, reason = "each says whether a kind of rule is there")]
#[derive(Clone, Debug)]
pub(super) struct Features {
    /// Numbers of slots, by the map that they are drawn from and the way of drawing.
    pub(super) selects: BTreeSet<Select>,
    /// Some list or service cannot be reached: chain `refuse` is used.
    pub(super) cluster_ips: bool,
    pub(super) node_ports: bool,
    pub(super) local_services: bool,
    pub(super) local_node_ports: bool,
    /// Some address and port is left to NodePorts: chain `passed-over` is used.
    pub(super) passed_over: bool,
    /// Protocols of the frontends in each masquerade set.
    pub(super) masquerade: BTreeSet<Protocol>,
    pub(super) masquerade_node: BTreeSet<Protocol>,
    pub(super) masquerade_node_ports: BTreeSet<Protocol>,
    pub(super) masquerade_local_node_ports: BTreeSet<Protocol>,
    /// Some service remembers clients, with endpoints in both of its lists.
    pub(super) siblings: bool,
    pub(super) restricted: bool,
    pub(super) hairpin: bool,
    pub(super) pods: bool,
    pub(super) node_port_addresses: bool,
    pub(super) service_cidrs: bool,
    pub(super) masquerade_all: bool,
    pub(super) localhost_node_ports: bool,
}

impl Features {
    /// Whether a set is referred to; one that is not is left out.
    pub(super) fn keeps(&self, set: &str) -> bool {
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

    /// Those of the node and of what the program has, of which the frontends need this.
    pub(super) fn of(program: &Program<'_>, family: Family, needs: &Needs) -> Self {
        let v6 = family == Family::Ip6;
        let context = program.context();
        let in_family = |c: Cidr| c.address.is_ipv6() == v6;
        let needs = needs.of(v6);
        let masquerade = |node_port, local| needs.protocols(Place::Masquerade { node_port, local });
        Self {
            selects: needs.selects(),
            node_ports: needs.has(Place::NodePorts),
            local_services: needs.has(Place::LocalServices),
            local_node_ports: needs.has(Place::LocalNodePorts),
            restricted: needs.has(Place::Restricted),
            passed_over: needs.has(Place::PassedOver),
            masquerade: masquerade(false, false),
            masquerade_node: masquerade(false, true),
            masquerade_node_ports: masquerade(true, false),
            masquerade_local_node_ports: masquerade(true, true),
            siblings: false,
            node_port_addresses: false,
            cluster_ips: program.cluster_ips().any(|ip| ip.is_ipv6() == v6),
            hairpin: program.records().any(|r| r.is_v6() == v6 && !r.endpoints().is_empty()),
            pods: context.cluster_cidrs().any(in_family),
            service_cidrs: context.service_cidrs().any(in_family),
            masquerade_all: context.masquerade_all(),
            localhost_node_ports: context.localhost_node_ports() && !v6,
        }
    }
}
