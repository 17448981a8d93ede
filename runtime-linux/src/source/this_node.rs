//! Who this node is, of all that is said about it.

use super::diagnostic::Sink;
use super::manifest::join::Here;
use super::manifest::node::{RawNode, Settings, pick};
use super::{NodeBuf, NodeFlags};
use natlet_core::table::Cidr;
use std::net::IpAddr;

/// The node. Flags win over a `[node]` of TOML, and that over the Node object.
#[derive(Debug)]
pub(super) struct ThisNode<'a> {
    buf: NodeBuf,
    /// The name that slices have for it.
    local: String,
    zone: Option<&'a str>,
}

impl<'a> ThisNode<'a> {
    /// Settles it; `told` is the `[node]`, `nodes` are the Node objects of the input.
    pub fn new(flags: &NodeFlags, told: NodeBuf, nodes: &[&'a RawNode], sink: &mut Sink) -> Self {
        let name = flags.node_name.clone().unwrap_or(told.name);
        let object = pick(nodes, (!name.is_empty()).then_some(name.as_str()), sink);
        let none = Settings::default();
        let settings = object.map_or(&none, |object| &object.settings);
        // the object's name is what slices say; it is the node's own unless the object denies it
        let local = object.map_or(name.as_str(), |object| &object.meta.name).to_owned();
        let name = object.filter(|object| !object.settings.anonymous).map_or(name, |object| object.meta.name.clone());
        let addresses = |lists: [&[IpAddr]; 3]| lists.into_iter().find(|l| !l.is_empty()).unwrap_or(&[]).to_vec();
        let cidrs = |lists: [&[Cidr]; 3]| lists.into_iter().find(|l| !l.is_empty()).unwrap_or(&[]).to_vec();
        let of_object = object.map_or(&[][..], |object| &object.addresses);
        let buf = NodeBuf {
            name,
            addresses: addresses([&flags.node_ips, &told.addresses, of_object]),
            cluster_cidrs: cidrs([&flags.cluster_cidrs, &told.cluster_cidrs, &settings.cluster_cidrs]),
            service_cidrs: cidrs([&flags.service_cidrs, &told.service_cidrs, &settings.service_cidrs]),
            node_port_cidrs: cidrs([&flags.node_port_cidrs, &told.node_port_cidrs, &settings.node_port_cidrs]),
            masquerade_all: flags.masquerade_all || told.masquerade_all || settings.masquerade_all,
            localhost_node_ports: flags.localhost_node_ports
                || told.localhost_node_ports
                || settings.localhost_node_ports,
        };
        Self { buf, local, zone: object.and_then(|object| object.zone.as_deref()) }
    }

    /// What decides which endpoints are local and what topology hints mean.
    pub fn here(&self) -> Here<'_> {
        Here { name: (!self.local.is_empty()).then_some(self.local.as_str()), zone: self.zone }
    }

    /// The node as tables have it.
    pub fn into_buf(self) -> NodeBuf {
        self.buf
    }
}
