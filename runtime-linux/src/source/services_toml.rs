//! `services.toml`: a service table written by hand, for nodes without Kubernetes.
//!
//! ```toml
//! [node]                                  # optional; command-line flags of the same names win over it
//! name = "gw-1"                           # --node-name: endpoints with node = "gw-1" are local
//! ip = ["192.0.2.1"]                      # --node-ip: the node's addresses, the primary of each family first
//! cluster-cidr = ["10.0.0.0/8"]           # --cluster-cidr: sources in it are not masqueraded towards a cluster-ip
//! service-cidr = ["192.168.0.0/16"]       # --service-cidr: unallocated addresses in it are dropped
//! node-port-address = ["192.0.2.0/24"]    # --node-port-address: where node ports accept; none: every address of the node
//! masquerade-all = false                  # --masquerade-all
//! localhost-node-ports = false            # --localhost-node-ports: node ports on 127.0.0.1 too
//!
//! [[service]]
//! name = "shop/web:https"                 # namespace/name:port; "web" is default/web. Required
//! protocol = "tcp"                        # tcp (default), udp or sctp
//! type = "load-balancer"                  # for people; follows from the frontends where it is not given
//! port = 443                              # required with cluster-ip, load-balancer or external-ip
//! cluster-ip = "192.168.5.65"             # or a list with one of each family
//! node-port = 31512                       # the same port on every address of the node
//! families = ["ipv4"]                     # where the node port answers, if not in the families said below
//! load-balancer = ["10.82.0.97"]          # addresses of a load balancer, or of the node, that bring traffic here
//! external-ip = ["198.51.100.7"]          # further addresses that are routed to this node
//! endpoints = [                           # none: connections are rejected at once
//!   "10.82.0.10:443",                     # "[2001:db8::1]:443" for IPv6
//!   { address = "10.82.0.82:443", weight = 2, node = "gw-1", state = "ready" },
//! ]
//! affinity = "3h"                         # same client, same endpoint; "90s", "10m", seconds, or true for 3 hours
//! internal-policy = "cluster"             # or "local": only endpoints of this node, for the cluster-ip
//! external-policy = "cluster"             # or "local": the same for all other frontends; keeps client addresses
//! source-ranges = ["192.0.2.0/24"]        # who may use the load-balancer addresses; none: everybody
//! choice = "random"                       # or "source-hash": the endpoint follows from the client's address
//! health-check-node-port = 30000          # the agent answers here whether this node has endpoints
//! hosts = ["www.example.com"]             # for people: shown by show and trace
//! ```
//!
//! A service needs at least one of `cluster-ip`, `node-port`, `load-balancer` and `external-ip`. Each list may be a
//! single value. `node-port` answers in the families of the service's other frontends; if it has none, in those of its
//! endpoints; if it has none of these either, in IPv4.
//!
//! An endpoint is `"address:port"` or a table: `address`, `weight` (0 to 65535, default 1: its share of new connections),
//! `local = true` or `node` (whether it is on this node), `state` (`ready`; `terminating`: used only where nothing is
//! ready; `not-ready`: not used), `hinted = false` (passed over where the policy is cluster and others are ready: what
//! Kubernetes' topology hints come to).

mod endpoint;
mod tree;

pub(super) use tree::parse;

use super::address::{self, Role};
use super::diagnostic::Place;
use super::document::{Node, Value, Walker};
use super::manifest::join::unspecified;
use super::manifest::service::{DEFAULT_AFFINITY, LONGEST_AFFINITY};
use super::table_buf::{Draft, NodeBuf, ServiceBuf};
use natlet_core::table::{Choice, FrontendKind, Policy, Protocol, ServiceType};
use std::net::IpAddr;

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// `[node]`: what it says, and where.
    pub node: Option<(NodeBuf, Place)>,
    pub services: Vec<TomlService>,
}

/// A service whose endpoints wait to learn which node this is.
#[derive(Debug)]
pub(super) struct TomlService {
    draft: Draft,
    /// The `node` of each endpoint.
    nodes: Vec<Option<String>>,
}

impl TomlService {
    /// Its name, of the port too.
    pub fn name(&self) -> &str {
        &self.draft.service.name
    }

    /// Where it is named.
    pub fn place(&self) -> &Place {
        &self.draft.place
    }

    /// The service port as seen from the node of this name.
    pub fn resolve(mut self, node_name: &str) -> Draft {
        for (endpoint, node) in self.draft.service.endpoints.iter_mut().zip(&self.nodes) {
            endpoint.local |= node.as_deref().is_some_and(|node| !node_name.is_empty() && node == node_name);
        }
        self.draft
    }
}

/// Reads a parsed file.
pub(super) fn read(document: &Node<'_>, walker: &mut Walker<'_>) -> Tables {
    walker.only_keys(document, "the file", &["node", "service"]);
    let mut tables = Tables::default();
    if let Some(node) = walker.map_at(document, "node") {
        tables.node = Some((read_node(node, walker), walker.place(node.span)));
    }
    for service in walker.seq_at(document, "service") {
        tables.services.extend(read_service(service, walker));
    }
    tables
}

const NODE_KEYS: [&str; 7] =
    ["name", "ip", "cluster-cidr", "service-cidr", "node-port-address", "masquerade-all", "localhost-node-ports"];

fn read_node(node: &Node<'_>, walker: &mut Walker<'_>) -> NodeBuf {
    walker.only_keys(node, "[node]", &NODE_KEYS);
    let mut cidrs = |key| {
        let items = node.get(key).map_or(&[][..], |list| walker.one_or_many(list, key));
        items.iter().filter_map(|item| walker.cidr(item, key)).collect()
    };
    let (cluster_cidrs, service_cidrs, node_port_cidrs) =
        (cidrs("cluster-cidr"), cidrs("service-cidr"), cidrs("node-port-address"));
    let addresses = addresses(node, "ip", Role::Node, walker).into_iter().map(|(ip, _)| ip).collect();
    NodeBuf {
        name: walker.text_at(node, "name").unwrap_or("").to_owned(),
        addresses,
        cluster_cidrs,
        service_cidrs,
        node_port_cidrs,
        masquerade_all: walker.boolean_at(node, "masquerade-all").unwrap_or(false),
        localhost_node_ports: walker.boolean_at(node, "localhost-node-ports").unwrap_or(false),
    }
}

const SERVICE_KEYS: [&str; 17] = [
    "name",
    "protocol",
    "type",
    "port",
    "cluster-ip",
    "node-port",
    "families",
    "load-balancer",
    "external-ip",
    "endpoints",
    "affinity",
    "internal-policy",
    "external-policy",
    "source-ranges",
    "choice",
    "health-check-node-port",
    "hosts",
];
const PROTOCOLS: [(&str, Protocol); 3] = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)];
const TYPES: [(&str, ServiceType); 3] = [
    ("cluster-ip", ServiceType::ClusterIp),
    ("node-port", ServiceType::NodePort),
    ("load-balancer", ServiceType::LoadBalancer),
];
const POLICIES: [(&str, Policy); 2] = [("cluster", Policy::Cluster), ("local", Policy::Local)];
const CHOICES: [(&str, Choice); 2] = [("random", Choice::Random), ("source-hash", Choice::SourceHash)];

fn read_service(node: &Node<'_>, walker: &mut Walker<'_>) -> Option<TomlService> {
    let node = walker.map(node, "a service")?;
    walker.only_keys(node, "a service", &SERVICE_KEYS);
    let name = name(node, walker);
    let port = node.get("port").and_then(|port| walker.port(port, "port"));
    let (endpoints, nodes) = endpoint::read_all(node, walker);
    let items = node.get("source-ranges").map_or(&[][..], |list| walker.one_or_many(list, "source-ranges"));
    let source_ranges = items.iter().filter_map(|item| walker.cidr(item, "source range")).collect();
    let protocol = walker.word_at(node, "protocol", &PROTOCOLS);
    let service = ServiceBuf {
        name: name.unwrap_or_default(),
        protocol,
        endpoints,
        internal_policy: walker.word_at(node, "internal-policy", &POLICIES),
        external_policy: walker.word_at(node, "external-policy", &POLICIES),
        affinity_timeout: affinity(node, walker),
        choice: walker.word_at(node, "choice", &CHOICES),
        source_ranges,
        health_check_node_port: node
            .get("health-check-node-port")
            .and_then(|p| walker.port(p, "health-check-node-port"))
            .unwrap_or(0),
        hosts: hosts(node, walker),
        ..ServiceBuf::default()
    };
    let place = walker.place(node.get("name").map_or(node.span, |name| name.span));
    let mut draft = Draft { service, place, frontend_places: Vec::new() };
    frontends(node, port, &mut draft, walker);
    let has_load_balancer = draft.service.frontends.iter().any(|f| f.kind == FrontendKind::LoadBalancer);
    if !draft.service.source_ranges.is_empty() && !has_load_balancer {
        let span = node.get("source-ranges").map_or(node.span, |ranges| ranges.span);
        walker.warning(
            span,
            "source-ranges has no effect without load-balancer",
            "",
            "it limits load-balancer addresses only",
        );
    }
    (!draft.service.name.is_empty()).then_some(TomlService { draft, nodes })
}

fn name(node: &Node<'_>, walker: &mut Walker<'_>) -> Option<String> {
    let text = walker.required_text(node, "name", "a service")?;
    let full = if text.contains('/') { text.to_owned() } else { format!("default/{text}") };
    walker.found(address::check_name(&full), node.get("name")?, "name", text)?;
    Some(full)
}

/// Fills in the frontends. `port` is `None` where none was given, or one that is no port.
fn frontends(node: &Node<'_>, port: Option<u16>, draft: &mut Draft, walker: &mut Walker<'_>) {
    let before = walker.sink.problems.len();
    let keys = [
        ("cluster-ip", FrontendKind::ClusterIp),
        ("load-balancer", FrontendKind::LoadBalancer),
        ("external-ip", FrontendKind::ExternalIp),
    ];
    let mut found = Vec::new();
    for (key, kind) in keys {
        for (ip, place) in addresses(node, key, Role::Virtual, walker) {
            found.push((kind, ip, place));
        }
    }
    let cluster =
        |v4: bool| found.iter().filter(|(kind, ip, _)| *kind == FrontendKind::ClusterIp && ip.is_ipv4() == v4).count();
    if cluster(true) > 1 || cluster(false) > 1 {
        let span = node.get("cluster-ip").map_or(node.span, |n| n.span);
        walker.problem(
            span,
            "a service has one cluster-ip of each family",
            "",
            "put further addresses into external-ip",
        );
    }
    if !found.is_empty() && node.get("port").is_none() {
        let span = node.get("name").map_or(node.span, |n| n.span);
        walker.problem(
            span,
            format!("the service {} has no port", draft.service.name),
            "",
            "add port, such as port = 443",
        );
    }
    let port = port.unwrap_or(0);
    let node_port = node.get("node-port").map(|n| (walker.port(n, "node-port"), walker.place(n.span)));
    if found.is_empty() && node_port.is_none() && walker.sink.problems.len() == before {
        let span = node.get("name").map_or(node.span, |n| n.span);
        walker.problem(
            span,
            format!("the service {} has no frontend", draft.service.name),
            "",
            "add cluster-ip, node-port, load-balancer or external-ip",
        );
    }
    let frontend_families = |v4: bool| found.iter().any(|(_, ip, _)| ip.is_ipv4() == v4);
    let endpoint_families = |v4: bool| draft.service.endpoints.iter().any(|e| e.address.is_ipv4() == v4);
    let given = node.get("families").map_or(&[][..], |list| walker.one_or_many(list, "families"));
    let given: Vec<bool> =
        given.iter().filter_map(|item| walker.word(item, "family", &[("ipv4", true), ("ipv6", false)])).collect();
    let families: Vec<bool> = match (found.is_empty(), draft.service.endpoints.is_empty()) {
        (false, _) => [true, false].into_iter().filter(|v4| frontend_families(*v4)).collect(),
        (true, false) => [true, false].into_iter().filter(|v4| endpoint_families(*v4)).collect(),
        (true, true) => vec![true],
    };
    let families = if given.is_empty() { families } else { given };
    let has = |kind| found.iter().any(|(k, _, _)| *k == kind);
    let usual = if has(FrontendKind::LoadBalancer) {
        ServiceType::LoadBalancer
    } else if node_port.is_some() {
        ServiceType::NodePort
    } else {
        ServiceType::ClusterIp
    };
    draft.service.service_type = node.get("type").and_then(|t| walker.word(t, "type", &TYPES)).unwrap_or(usual);
    let split = found.iter().position(|(kind, _, _)| *kind != FrontendKind::ClusterIp).unwrap_or(found.len());
    let others = found.split_off(split);
    for (kind, ip, place) in found {
        draft.add_frontend(kind, ip, port, place);
    }
    if let Some((Some(node_port), place)) = node_port {
        for v4 in families {
            draft.add_frontend(FrontendKind::NodePort, unspecified(v4), node_port, place.clone());
        }
    }
    for (kind, ip, place) in others {
        draft.add_frontend(kind, ip, port, place);
    }
}

fn addresses(node: &Node<'_>, key: &str, role: Role, walker: &mut Walker<'_>) -> Vec<(IpAddr, Place)> {
    let items = node.get(key).map_or(&[][..], |list| walker.one_or_many(list, key));
    let mut read = |item: &Node<'_>| Some((walker.address(item, key, role)?, walker.place(item.span)));
    items.iter().filter_map(&mut read).collect()
}

fn hosts(node: &Node<'_>, walker: &mut Walker<'_>) -> Vec<String> {
    let items = node.get("hosts").map_or(&[][..], |list| walker.one_or_many(list, "hosts"));
    let mut hosts = Vec::new();
    for item in items {
        let Some(text) = walker.text(item, "a host") else { continue };
        if walker.found(address::check_host(text), item, "host", text).is_some() {
            hosts.push(text.to_owned());
        }
    }
    hosts
}

fn affinity(node: &Node<'_>, walker: &mut Walker<'_>) -> u32 {
    let Some(value) = node.get("affinity") else { return 0 };
    let seconds = match &value.value {
        Value::Scalar { text, quoted: false } if text == "true" => Some(DEFAULT_AFFINITY),
        Value::Scalar { text, quoted: false } if text == "false" => return 0,
        Value::Scalar { text, .. } => duration(text),
        Value::Seq(_) | Value::Map(_) => None,
    };
    if let Some(seconds) = seconds.filter(|seconds| (1..=LONGEST_AFFINITY).contains(seconds)) {
        seconds
    } else {
        walker.problem(
            value.span,
            "affinity must be a time from 1 second to 1 day",
            "",
            "write \"3h\", \"10m\", a number of seconds, or true for 3 hours",
        );
        0
    }
}

/// Seconds of `90`, `90s`, `1h30m`, `1d`.
fn duration(text: &str) -> Option<u32> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let mut total = 0_u32;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u32 = rest.get(..digits)?.parse().ok()?;
        let unit = match rest.as_bytes().get(digits)? {
            b's' => 1,
            b'm' => 60,
            b'h' => 60 * 60,
            b'd' => 24 * 60 * 60,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = rest.get(digits + 1..)?;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests;
