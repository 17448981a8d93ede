//! `v1` Node: who this node is, if the input says so.

use super::super::address::Role;
use super::super::diagnostic::Diagnostic;
use super::super::diagnostic::Sink;
use super::super::document::{Node, Walker};
use super::{Meta, label, meta};
use std::net::IpAddr;

/// A Node object.
#[derive(Debug)]
pub(in super::super) struct RawNode {
    pub meta: Meta,
    /// Internal addresses, then external ones.
    pub addresses: Vec<IpAddr>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
}

/// Reads a Node. Its pod CIDRs are not the cluster's and are not used.
pub(super) fn read(node: &Node, walker: &mut Walker<'_>) -> Option<RawNode> {
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
    Some(RawNode { meta, addresses: internal, zone })
}

/// The Node that the table is for: the one with this name, or the only one.
pub(in super::super) fn pick<'n>(nodes: &'n [RawNode], name: Option<&str>, sink: &mut Sink) -> Option<&'n RawNode> {
    match (name, nodes) {
        (_, []) => None,
        (Some(name), _) => {
            let found = nodes.iter().find(|node| node.meta.name == name);
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
