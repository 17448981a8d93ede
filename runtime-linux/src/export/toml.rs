//! The program as natlet's own `services.toml`; [`crate::source::services_toml`] describes it.

use super::recover::{Recovered, is_placeholder, recover};
use super::{ExportError, check};
use crate::source::{NodeBuf, ServiceBuf};
use natlet_core::{Choice, Endpoint, FrontendKind, Policy, Program, Protocol, ServiceType};
use std::fmt::{Display, Write as _};
use std::net::IpAddr;

/// The text; read back, it gives the same content id.
pub fn export(program: &Program<'_>) -> Result<String, ExportError> {
    let recovered = recover(program)?;
    let text = write(&recovered);
    check::reads_back(&text, program, &recovered)?;
    Ok(text)
}

fn write(recovered: &Recovered) -> String {
    let mut out = String::new();
    if recovered.node != NodeBuf::default() {
        write_node(&mut out, &recovered.node);
    }
    for service in &recovered.services {
        write_service(&mut out, service);
    }
    if out.is_empty() { "service = []\n".into() } else { out }
}

fn line(out: &mut String, key: &str, value: impl Display) {
    let _ = writeln!(out, "{key} = {value}");
}

/// A key with a value, or a list of several; nothing for none.
fn values(out: &mut String, key: &str, items: &[String]) {
    match items {
        [] => {}
        [one] => line(out, key, quoted(one)),
        many => line(out, key, list(many)),
    }
}

fn list(items: &[String]) -> String {
    let quoted: Vec<String> = items.iter().map(|i| quoted(i)).collect();
    format!("[{}]", quoted.join(", "))
}

/// A basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => _ = write!(out, "\\u{:04X}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn texts<T: Display>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn write_node(out: &mut String, node: &NodeBuf) {
    out.push_str("[node]\n");
    if !node.name.is_empty() {
        line(out, "name", quoted(&node.name));
    }
    let lists = [
        ("ip", texts(&node.addresses)),
        ("cluster-cidr", texts(&node.cluster_cidrs)),
        ("service-cidr", texts(&node.service_cidrs)),
        ("node-port-address", texts(&node.node_port_cidrs)),
    ];
    for (key, items) in lists.iter().filter(|(_, items)| !items.is_empty()) {
        line(out, key, list(items));
    }
    for (key, set) in [("masquerade-all", node.masquerade_all), ("localhost-node-ports", node.localhost_node_ports)] {
        if set {
            line(out, key, set);
        }
    }
}

fn write_service(out: &mut String, service: &ServiceBuf) {
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str("[[service]]\n");
    line(out, "name", quoted(&service.name));
    if service.protocol != Protocol::Tcp {
        line(out, "protocol", quoted(service.protocol.name()));
    }
    let of_kind = |kind: FrontendKind| service.frontends.iter().filter(move |f| f.kind == kind);
    let addresses = |kind| of_kind(kind).map(|f| f.address.to_string()).collect::<Vec<_>>();
    let node_port = of_kind(FrontendKind::NodePort).next().map(|f| f.port);
    let has_load_balancer = of_kind(FrontendKind::LoadBalancer).next().is_some();
    let usual = match (has_load_balancer, node_port) {
        (true, _) => ServiceType::LoadBalancer,
        (false, Some(_)) => ServiceType::NodePort,
        (false, None) => ServiceType::ClusterIp,
    };
    if service.service_type != usual {
        line(out, "type", quoted(type_name(service.service_type)));
    }
    if let Some(f) = service.frontends.iter().find(|f| f.kind != FrontendKind::NodePort) {
        line(out, "port", f.port);
    }
    values(out, "cluster-ip", &addresses(FrontendKind::ClusterIp));
    if let Some(port) = node_port {
        line(out, "node-port", port);
        write_families(out, service);
    }
    values(out, "load-balancer", &addresses(FrontendKind::LoadBalancer));
    values(out, "external-ip", &addresses(FrontendKind::ExternalIp));
    write_endpoints(out, &service.endpoints);
    if service.affinity_timeout != 0 {
        line(out, "affinity", service.affinity_timeout);
    }
    for (key, policy) in [("internal-policy", service.internal_policy), ("external-policy", service.external_policy)] {
        if policy == Policy::Local {
            line(out, key, quoted("local"));
        }
    }
    if !service.source_ranges.is_empty() {
        line(out, "source-ranges", list(&texts(&service.source_ranges)));
    }
    if service.choice == Choice::SourceHash {
        line(out, "choice", quoted("source-hash"));
    }
    if service.health_check_node_port != 0 {
        line(out, "health-check-node-port", service.health_check_node_port);
    }
    if !service.hosts.is_empty() {
        line(out, "hosts", list(&service.hosts));
    }
}

const fn type_name(service_type: ServiceType) -> &'static str {
    match service_type {
        ServiceType::ClusterIp => "cluster-ip",
        ServiceType::NodePort => "node-port",
        ServiceType::LoadBalancer => "load-balancer",
    }
}

/// `families`, where the node port does not answer in the families that it would without it.
fn write_families(out: &mut String, service: &ServiceBuf) {
    let own = |kind: bool, v4: bool| {
        service.frontends.iter().any(|f| (f.kind == FrontendKind::NodePort) == kind && f.address.is_ipv4() == v4)
    };
    let has_vip = own(false, true) || own(false, false);
    let usual = |v4: bool| match (has_vip, service.endpoints.is_empty()) {
        (true, _) => own(false, v4),
        (false, false) => service.endpoints.iter().any(|e| e.address.is_ipv4() == v4),
        (false, true) => v4,
    };
    if [true, false].iter().any(|&v4| own(true, v4) != usual(v4)) {
        let families = [(true, "ipv4"), (false, "ipv6")].into_iter().filter(|(v4, _)| own(true, *v4));
        values(out, "families", &families.map(|(_, name)| name.to_owned()).collect::<Vec<_>>());
    }
}

fn write_endpoints(out: &mut String, endpoints: &[Endpoint]) {
    if endpoints.is_empty() {
        return;
    }
    out.push_str("endpoints = [\n");
    for e in endpoints {
        let note =
            if is_placeholder(e) { " # stands for endpoints on other nodes, which are not known here" } else { "" };
        let _ = writeln!(out, "  {},{note}", endpoint(e));
    }
    out.push_str("]\n");
}

fn endpoint(e: &Endpoint) -> String {
    let address = quoted(&socket(e.address, e.port));
    let mut fields = vec![format!("address = {address}")];
    if e.weight != 1 {
        fields.push(format!("weight = {}", e.weight));
    }
    if e.local {
        fields.push("local = true".into());
    }
    match (e.ready, e.fallback) {
        (true, _) => {}
        (false, true) => fields.push("state = \"terminating\"".into()),
        (false, false) => fields.push("state = \"not-ready\"".into()),
    }
    if !e.hinted {
        fields.push("hinted = false".into());
    }
    if fields.len() == 1 { address } else { format!("{{ {} }}", fields.join(", ")) }
}

fn socket(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}
