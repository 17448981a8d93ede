//! `v1` Node: who this node is, if the input says so.
//!
//! What Kubernetes has no field for can be said by annotations; the command line wins over them, and so does `[node]` of a
//! services.toml:
//!
//! | annotation | is |
//! | --- | --- |
//! | `natlet.dev/cluster-cidrs: "10.244.0.0/16,2001:db8:1::/48"` | `--cluster-cidr` |
//! | `natlet.dev/service-cidrs` | `--service-cidr` |
//! | `natlet.dev/node-port-addresses` | `--node-port-address` |
//! | `natlet.dev/masquerade-all: "true"` | `--masquerade-all` |
//! | `natlet.dev/localhost-node-ports: "true"` | `--localhost-node-ports` |
//! | `natlet.dev/anonymous: "true"` | the object's name only tells which endpoints are local: the node's name is not known |

use super::super::address::{self, Role};
use super::super::diagnostic::Diagnostic;
use super::super::diagnostic::Sink;
use super::super::document::{Node, Walker};
use super::{Meta, annotation, label, meta};
use natlet_core::table::Cidr;
use std::net::IpAddr;

/// A Node object.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct RawNode {
    pub meta: Meta,
    /// Internal addresses, then external ones.
    pub addresses: Vec<IpAddr>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    pub settings: Settings,
}

/// What its annotations say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Settings {
    pub cluster_cidrs: Vec<Cidr>,
    pub service_cidrs: Vec<Cidr>,
    pub node_port_cidrs: Vec<Cidr>,
    pub masquerade_all: bool,
    pub localhost_node_ports: bool,
    /// Its name is not the node's.
    pub anonymous: bool,
}

/// Reads the annotations.
fn settings(node: &Node<'_>, walker: &mut Walker<'_>) -> Settings {
    Settings {
        cluster_cidrs: cidrs(node, "natlet.dev/cluster-cidrs", walker),
        service_cidrs: cidrs(node, "natlet.dev/service-cidrs", walker),
        node_port_cidrs: cidrs(node, "natlet.dev/node-port-addresses", walker),
        masquerade_all: truth(node, "natlet.dev/masquerade-all", walker),
        localhost_node_ports: truth(node, "natlet.dev/localhost-node-ports", walker),
        anonymous: truth(node, "natlet.dev/anonymous", walker),
    }
}

/// A comma-separated list of prefixes.
fn cidrs(node: &Node<'_>, name: &str, walker: &mut Walker<'_>) -> Vec<Cidr> {
    let Some(value) = annotation(node, name) else { return Vec::new() };
    let Some(text) = walker.text(value, name) else { return Vec::new() };
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.filter_map(|part| walker.found(address::parse_cidr(part), value, name, part)).collect()
}

fn truth(node: &Node<'_>, name: &str, walker: &mut Walker<'_>) -> bool {
    let words = [("true", true), ("false", false)];
    annotation(node, name).and_then(|value| walker.word(value, name, &words)).unwrap_or(false)
}

/// Reads a Node. Its pod CIDRs are not the cluster's and are not used.
pub(in super::super) fn read(node: &Node<'_>, walker: &mut Walker<'_>) -> Option<RawNode> {
    let meta = meta(node, "Node", walker)?;
    let mut internal = Vec::new();
    let mut external = Vec::new();
    if let Some(status) = walker.map_at(node, "status") {
        for item in walker.seq_at(status, "addresses") {
            let list = match item.get("type").and_then(Node::as_text) {
                Some("InternalIP") => &mut internal,
                Some("ExternalIP") => &mut external,
                _ => continue,
            };
            if let Some(address) = item.get("address") {
                list.extend(walker.address(address, "node address", Role::Node));
            }
        }
    }
    for address in external {
        if !internal.contains(&address) {
            internal.push(address);
        }
    }
    let zone = label(node, "topology.kubernetes.io/zone").filter(|zone| !zone.is_empty()).map(str::to_owned);
    Some(RawNode { meta, addresses: internal, zone, settings: settings(node, walker) })
}

/// The Node that the table is for: the one with this name, or the only one.
pub(in super::super) fn pick<'n>(nodes: &[&'n RawNode], name: Option<&str>, sink: &mut Sink) -> Option<&'n RawNode> {
    match (name, nodes) {
        (_, []) => None,
        (Some(name), _) => {
            let found = nodes.iter().copied().find(|node| node.meta.name == name);
            if found.is_none() {
                let names: Vec<&str> = nodes.iter().take(10).map(|node| node.meta.name.as_str()).collect();
                sink.push(
                    Diagnostic::warning(format!(
                        "the input has no Node named {name}: its addresses and zone are unknown"
                    ))
                    .help(format!("Nodes in the input: {}", names.join(", "))),
                );
            }
            found
        }
        (None, [node]) => Some(node),
        (None, [first, ..]) => {
            sink.push(
                Diagnostic::warning(format!(
                    "the input has {} Nodes and none is chosen: no endpoint counts as local",
                    nodes.len()
                ))
                .at(first.meta.place.clone(), "one of them")
                .help(format!("choose this node, such as --node-name {}", first.meta.name)),
            );
            None
        }
    }
}
