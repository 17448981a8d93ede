//! `v1` Service.

use super::super::Report;
use super::super::address::{self, Role};
use super::super::diagnostic::Place;
use super::super::document::{Node, Walker};
use super::{Meta, PROTOCOLS, annotation, label, meta};
use natlet_core::table::{Choice, Cidr, Policy, Protocol, ServiceType};
use std::net::IpAddr;

/// The timeout of `sessionAffinity: ClientIP` that gives none.
pub(in super::super) const DEFAULT_AFFINITY: u32 = 3 * 60 * 60;
/// The longest timeout that the API server allows.
pub(in super::super) const LONGEST_AFFINITY: u32 = 24 * 60 * 60;

/// A Service that has frontends, its fields checked and defaulted.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct RawService {
    pub meta: Meta,
    pub service_type: ServiceType,
    /// At most one of each family.
    pub cluster_ips: Vec<(IpAddr, Place)>,
    pub external_ips: Vec<(IpAddr, Place)>,
    pub load_balancer_ips: Vec<(IpAddr, Place)>,
    pub ports: Vec<RawPort>,
    pub internal_policy: Policy,
    pub external_policy: Policy,
    pub affinity_timeout: u32,
    pub source_ranges: Vec<Cidr>,
    pub health_check_node_port: u16,
    pub choice: Choice,
    /// `natlet.dev/hosts`: the port's name and protocol, and the host.
    pub hosts: Vec<(String, Protocol, String)>,
}

/// One of a Service's ports.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct RawPort {
    /// Empty if it has none.
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<(u16, Place)>,
    pub place: Place,
}

/// Reads a Service; `None` for one that kube-proxy ignores, which is counted, and for one without a name.
pub(in super::super) fn read(node: &Node<'_>, walker: &mut Walker<'_>, report: &mut Report) -> Option<RawService> {
    let meta = meta(node, "Service", walker)?;
    let spec = if let Some(spec) = node.get("spec") {
        walker.map(spec, "spec")?
    } else {
        walker.problem(
            node.span,
            format!("Service {} has no spec", meta.name),
            "",
            "add spec with clusterIP and ports",
        );
        return None;
    };
    let mut ignored = |reason: &str| *report.ignored.entry(reason.to_owned()).or_default() += 1;
    if label(node, "service.kubernetes.io/service-proxy-name").is_some() {
        ignored("Service of another proxy");
        return None;
    }
    let types = [
        ("ClusterIP", Some(ServiceType::ClusterIp)),
        ("NodePort", Some(ServiceType::NodePort)),
        ("LoadBalancer", Some(ServiceType::LoadBalancer)),
        ("ExternalName", None),
    ];
    let service_type = match spec.get("type") {
        None => ServiceType::ClusterIp,
        Some(value) => {
            if let Some(service_type) = walker.word(value, "type", &types)? {
                service_type
            } else {
                ignored("ExternalName Service");
                return None;
            }
        }
    };
    if spec.get("clusterIP").and_then(Node::as_text) == Some("None") {
        ignored("headless Service");
        return None;
    }
    let (cluster_ips, faulty) = cluster_ips(spec, walker);
    if cluster_ips.is_empty() && !faulty {
        walker.warning(
            node.get("spec").map_or(node.span, |spec| spec.span),
            format!("Service {}/{} has no clusterIP and is left out", meta.namespace, meta.name),
            "",
            "the API server assigns one: read the Service back with kubectl get -o yaml, or write spec.clusterIP",
        );
        ignored("Service without clusterIP");
        return None;
    }
    let external_ips = addresses(spec, "externalIPs", walker);
    Some(RawService {
        service_type,
        external_policy: external_policy(spec, service_type, !external_ips.is_empty(), walker),
        internal_policy: walker.word_at(spec, "internalTrafficPolicy", &POLICIES),
        cluster_ips,
        external_ips,
        load_balancer_ips: load_balancer_ips(node, walker),
        ports: ports(spec, &meta, walker),
        affinity_timeout: affinity(spec, walker),
        source_ranges: source_ranges(spec, walker),
        health_check_node_port: walker.port_or_none(spec, "healthCheckNodePort").unwrap_or(0),
        choice: annotation(node, "natlet.dev/choice")
            .and_then(|value| walker.word(value, "natlet.dev/choice", &CHOICES))
            .unwrap_or_default(),
        hosts: hosts(node, walker),
        meta,
    })
}

/// `natlet.dev/hosts`: `port/protocol=host`, comma-separated; the port's name may be empty.
fn hosts(node: &Node<'_>, walker: &mut Walker<'_>) -> Vec<(String, Protocol, String)> {
    let mut found = Vec::new();
    let Some(value) = annotation(node, "natlet.dev/hosts") else { return found };
    let Some(text) = walker.text(value, "natlet.dev/hosts") else { return found };
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let parsed = part.split_once('=').and_then(|(port, host)| {
            let (name, protocol) = port.split_once('/')?;
            let protocol = Protocol::ALL.into_iter().find(|p| p.name() == protocol)?;
            address::check_host(host).ok()?;
            Some((name.to_owned(), protocol, host.to_owned()))
        });
        match parsed {
            Some(entry) => found.push(entry),
            None => walker.problem(
                value.span,
                format!("natlet.dev/hosts: {} is no port/protocol=host", super::super::diagnostic::quote(part)),
                "",
                "write it as \"https/tcp=www.example.com,https/tcp=example.com\"",
            ),
        }
    }
    found
}

const POLICIES: [(&str, Policy); 2] = [("Cluster", Policy::Cluster), ("Local", Policy::Local)];
const CHOICES: [(&str, Choice); 2] = [("random", Choice::Random), ("source-hash", Choice::SourceHash)];

/// The ClusterIP of each family, and whether one was faulty: `clusterIPs[i]` where `ipFamilies[i]` names the family;
/// without `ipFamilies` only `clusterIP`.
fn cluster_ips(spec: &Node<'_>, walker: &mut Walker<'_>) -> (Vec<(IpAddr, Place)>, bool) {
    let mut nodes: Vec<&Node<'_>> = walker.seq_at(spec, "clusterIPs").iter().collect();
    let single = spec.get("clusterIP").filter(|ip| ip.as_text() != Some(""));
    let families = walker.seq_at(spec, "ipFamilies");
    if nodes.is_empty() {
        nodes.extend(single);
    } else if families.is_empty() {
        if let Some(ignored) = nodes.get(1) {
            walker.warning(
                ignored.span,
                "without ipFamilies only the first ClusterIP counts",
                "",
                "add ipFamilies, such as [IPv4, IPv6], in the order of clusterIPs",
            );
        }
        nodes.truncate(1);
        if let (Some(single), Some(first)) = (single, nodes.first_mut()) {
            *first = single;
        }
    }
    let mut found: Vec<(IpAddr, Place)> = Vec::new();
    let mut faulty = false;
    for (index, node) in nodes.into_iter().enumerate() {
        if node.as_text() == Some("None") {
            continue;
        }
        let Some(address) = walker.address(node, "ClusterIP", Role::Virtual) else {
            faulty = true;
            continue;
        };
        if !families.is_empty() {
            let Some(family) = families.get(index) else { continue };
            let Some(v4) = walker.word(family, "IP family", &[("IPv4", true), ("IPv6", false)]) else {
                faulty = true;
                continue;
            };
            if v4 != address.is_ipv4() {
                let help = "give ipFamilies in the order of clusterIPs";
                walker.problem(
                    node.span,
                    format!("ClusterIP {address} is not of the family that ipFamilies says"),
                    "",
                    help,
                );
                faulty = true;
                continue;
            }
        }
        if found.iter().any(|(other, _)| other.is_ipv4() == address.is_ipv4()) {
            walker.problem(node.span, "a Service has one ClusterIP of each family", "", "remove one");
            continue;
        }
        found.push((address, walker.place(node.span)));
    }
    (found, faulty)
}

fn addresses(spec: &Node<'_>, key: &str, walker: &mut Walker<'_>) -> Vec<(IpAddr, Place)> {
    let items = walker.seq_at(spec, key);
    let mut read =
        |item: &Node<'_>| Some((walker.address(item, "external IP", Role::Virtual)?, walker.place(item.span)));
    items.iter().filter_map(&mut read).collect()
}

/// Addresses of the load balancer that this node is to translate: not those whose traffic it terminates itself (`Proxy`).
fn load_balancer_ips(service: &Node<'_>, walker: &mut Walker<'_>) -> Vec<(IpAddr, Place)> {
    let mut found = Vec::new();
    let Some(status) = service.at(&["status", "loadBalancer"]) else { return found };
    for item in walker.seq_at(status, "ingress") {
        let Some(ip) = item.get("ip").filter(|ip| ip.as_text() != Some("")) else { continue };
        let vip = item
            .get("ipMode")
            .is_none_or(|mode| walker.word(mode, "ipMode", &[("VIP", true), ("Proxy", false)]).unwrap_or(false));
        if !vip {
            continue;
        }
        if let Some(address) = walker.address(ip, "load balancer IP", Role::Virtual) {
            found.push((address, walker.place(ip.span)));
        }
    }
    found
}

fn ports(spec: &Node<'_>, meta: &Meta, walker: &mut Walker<'_>) -> Vec<RawPort> {
    let items = walker.seq_at(spec, "ports");
    if items.is_empty() {
        let place = spec.get("ports").map_or(spec.span, |ports| ports.span);
        walker.problem(
            place,
            format!("Service {} has no ports", meta.name),
            "",
            "add spec.ports, or clusterIP: None if it is headless",
        );
    }
    let mut read = |item: &Node<'_>| {
        let item = walker.map(item, "a port")?;
        let Some(number) = item.get("port") else {
            walker.problem(item.span, "a service port has no port", "", "add port");
            return None;
        };
        let port = walker.port(number, "port");
        let name = walker.text_at(item, "name").unwrap_or("").to_owned();
        let protocol = match item.get("protocol") {
            Some(protocol) => walker.word(protocol, "protocol", &PROTOCOLS),
            None => Some(Protocol::Tcp),
        };
        let node_port = walker.port_or_none(item, "nodePort").zip(item.get("nodePort").map(|n| walker.place(n.span)));
        let full = if name.is_empty() {
            format!("{}/{}", meta.namespace, meta.name)
        } else {
            format!("{}/{}:{name}", meta.namespace, meta.name)
        };
        walker.found(address::check_name(&full), item, "service name", &full)?;
        Some(RawPort { name, protocol: protocol?, port: port?, node_port, place: walker.place(number.span) })
    };
    items.iter().filter_map(&mut read).collect()
}

/// `externalTrafficPolicy` counts only for types that traffic from outside is meant for.
fn external_policy(
    spec: &Node<'_>,
    service_type: ServiceType,
    has_external_ips: bool,
    walker: &mut Walker<'_>,
) -> Policy {
    let policy = walker.word_at(spec, "externalTrafficPolicy", &POLICIES);
    if service_type == ServiceType::ClusterIp && !has_external_ips { Policy::Cluster } else { policy }
}

fn affinity(spec: &Node<'_>, walker: &mut Walker<'_>) -> u32 {
    let wanted = spec
        .get("sessionAffinity")
        .and_then(|value| walker.word(value, "sessionAffinity", &[("None", false), ("ClientIP", true)]))
        .unwrap_or(false);
    if !wanted {
        return 0;
    }
    spec.at(&["sessionAffinityConfig", "clientIP", "timeoutSeconds"])
        .and_then(|value| walker.integer(value, "timeoutSeconds", 1..=LONGEST_AFFINITY.into()))
        .and_then(|seconds| u32::try_from(seconds).ok())
        .unwrap_or(DEFAULT_AFFINITY)
}

fn source_ranges(spec: &Node<'_>, walker: &mut Walker<'_>) -> Vec<Cidr> {
    let items = walker.seq_at(spec, "loadBalancerSourceRanges");
    items.iter().filter_map(|item| walker.cidr(item, "source range")).collect()
}
