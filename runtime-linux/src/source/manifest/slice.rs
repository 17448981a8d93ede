//! `discovery.k8s.io/v1` EndpointSlice.

use super::super::Report;
use super::super::address::{self, Role};
use super::super::document::{Node, Walker};
use super::{Meta, PROTOCOLS, annotation, label, meta};
use natlet_core::table::Protocol;
use std::collections::HashMap;
use std::net::IpAddr;

/// An EndpointSlice that belongs to a Service.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct RawSlice {
    pub meta: Meta,
    /// Name of the Service, in the same namespace.
    pub service: String,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<RawEndpoint>,
}

/// A port that every endpoint of the slice has.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct SlicePort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

/// An endpoint of a slice.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct RawEndpoint {
    pub address: IpAddr,
    pub ready: bool,
    pub fallback: bool,
    pub node_name: Option<String>,
    /// Zones and nodes that the topology hints name.
    pub for_zones: Vec<String>,
    pub for_nodes: Vec<String>,
    pub weight: u16,
}

/// Reads a slice; `None` for one that kube-proxy ignores, which is counted.
pub(in super::super) fn read(node: &Node<'_>, walker: &mut Walker<'_>, report: &mut Report) -> Option<RawSlice> {
    let meta = meta(node, "EndpointSlice", walker)?;
    let mut ignored = |reason: &str| *report.ignored.entry(reason.to_owned()).or_default() += 1;
    if label(node, "service.kubernetes.io/headless").is_some() {
        ignored("headless EndpointSlice");
        return None;
    }
    let Some(service) = label(node, "kubernetes.io/service-name").filter(|name| !name.is_empty()) else {
        walker.warning(
            node.get("metadata").map_or(node.span, |metadata| metadata.span),
            format!("EndpointSlice {}/{} belongs to no Service and is left out", meta.namespace, meta.name),
            "",
            "add the label kubernetes.io/service-name",
        );
        ignored("EndpointSlice without Service");
        return None;
    };
    let Some(kind) = node.get("addressType") else {
        walker.problem(
            node.span,
            format!("EndpointSlice {} has no addressType", meta.name),
            "",
            "add addressType: IPv4 or IPv6",
        );
        return None;
    };
    let families = [("IPv4", Some(true)), ("IPv6", Some(false)), ("FQDN", None)];
    let Some(v4) = walker.word(kind, "addressType", &families)? else {
        ignored("FQDN EndpointSlice");
        return None;
    };
    let weights = weights(node, walker);
    let items = walker.seq_at(node, "endpoints");
    let mut endpoints: Vec<RawEndpoint> =
        items.iter().filter_map(|item| endpoint(item, v4, &weights, walker)).collect();
    endpoints.shrink_to_fit(); // they are most of what is kept of a cluster, until all slices are joined
    let items = walker.seq_at(node, "ports");
    let ports = items.iter().filter_map(|item| port(item, walker)).collect();
    Some(RawSlice { service: service.to_owned(), ports, endpoints, meta })
}

/// A port of the slice. The API server turns an absent name into the empty one; one that is written as null is skipped,
/// as is a port without a number.
fn port(item: &Node<'_>, walker: &mut Walker<'_>) -> Option<SlicePort> {
    let item = walker.map(item, "a port")?;
    if item.get_even_null("name").is_some_and(Node::is_null) {
        return None;
    }
    let name = walker.text_at(item, "name").unwrap_or("").to_owned();
    let protocol = match item.get("protocol") {
        Some(protocol) => walker.word(protocol, "protocol", &PROTOCOLS)?,
        None => Protocol::Tcp,
    };
    let port = walker.port_or_none(item, "port")?;
    Some(SlicePort { name, protocol, port })
}

fn endpoint(item: &Node<'_>, v4: bool, weights: &HashMap<IpAddr, u16>, walker: &mut Walker<'_>) -> Option<RawEndpoint> {
    let item = walker.map(item, "an endpoint")?;
    let Some(first) = walker.seq_at(item, "addresses").first() else {
        walker.problem(item.span, "an endpoint has no addresses", "", "add addresses with one address");
        return None;
    };
    let address = walker.address(first, "endpoint", Role::Endpoint)?;
    if address.is_ipv4() != v4 {
        walker.problem(
            first.span,
            format!("endpoint {address} is not of the slice's addressType"),
            "",
            "put it into a slice of its own family",
        );
        return None;
    }
    let none = Node { value: super::super::document::Value::Map(Vec::new()), span: item.span };
    let conditions = walker.map_at(item, "conditions").unwrap_or(&none);
    let ready = walker.boolean_at(conditions, "ready").unwrap_or(true);
    let serving = walker.boolean_at(conditions, "serving").unwrap_or(true);
    let terminating = walker.boolean_at(conditions, "terminating").unwrap_or(false);
    let hints = walker.map_at(item, "hints").unwrap_or(&none);
    Some(RawEndpoint {
        address,
        ready,
        fallback: serving && terminating,
        node_name: walker.text_at(item, "nodeName").map(str::to_owned),
        for_zones: hint_names(hints, "forZones", walker),
        for_nodes: hint_names(hints, "forNodes", walker),
        weight: weights.get(&address).copied().unwrap_or(1),
    })
}

fn hint_names(hints: &Node<'_>, key: &str, walker: &mut Walker<'_>) -> Vec<String> {
    let items = walker.seq_at(hints, key);
    items.iter().filter_map(|item| walker.text_at(item, "name").map(str::to_owned)).collect()
}

/// `natlet.dev/weights`: `address=weight`, comma-separated.
fn weights(node: &Node<'_>, walker: &mut Walker<'_>) -> HashMap<IpAddr, u16> {
    let mut found = HashMap::new();
    let Some(value) = annotation(node, "natlet.dev/weights") else { return found };
    let Some(text) = walker.text(value, "natlet.dev/weights") else { return found };
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let parsed = part
            .split_once('=')
            .and_then(|(address, weight)| Some((address::parse(address).ok()?, weight.trim().parse::<u16>().ok()?)));
        match parsed {
            Some((address, weight)) => {
                found.insert(address, weight);
            }
            None => walker.problem(
                value.span,
                format!("natlet.dev/weights: {} is no address=weight", super::super::diagnostic::quote(part)),
                "",
                "write it as \"10.0.0.1=3,10.0.0.2=1\", weights from 0 to 65535",
            ),
        }
    }
    found
}
