//! `natlet show`: services as people know them.

use super::args::{Output, ShowArgs};
use super::failure::{Failure, lines, print, print_document};
use super::input;
use crate::view::{FrontendView, ServicePort, service_ports, split_name, type_name};
use comfy_table::{Table, presets};
use natlet_core::{FrontendKind, Policy, Program};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Endpoints of a service port that the plain table prints.
const FEW: usize = 3;

pub fn run(args: &ShowArgs) -> Result<(), Failure> {
    let (image, report) = input::read_with_report(&args.input)?;
    let program = image.program();
    let ports = service_ports(&program);
    match args.output {
        Output::Json | Output::Yaml => {
            let mut document = document(&program, &ports);
            if let Some(report) = report {
                document["skipped"] =
                    json!({ "objects": report.skipped, "ignored": report.ignored, "lines": report.skipped_lines });
            }
            print_document(&document, args.output)
        }
        Output::Table => print(&table(&ports, false)),
        Output::Wide => print(&table(&ports, true)),
    }
}

fn policy_name(policy: Policy) -> &'static str {
    match policy {
        Policy::Cluster => "Cluster",
        Policy::Local => "Local",
    }
}

/// One row a Service, as kubectl prints them.
fn table(ports: &[ServicePort<'_>], wide: bool) -> String {
    let mut services: BTreeMap<(&str, &str), Vec<&ServicePort<'_>>> = BTreeMap::new();
    for port in ports {
        let (namespace, name, _) = split_name(&port.name);
        services.entry((namespace, name)).or_default().push(port);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut header = vec!["NAMESPACE", "NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "ENDPOINTS"];
    if wide {
        header.extend(["INTERNAL", "EXTERNAL", "AFFINITY", "HOSTS"]);
    }
    table.set_header(header);
    for ((namespace, name), ports) in services {
        let mut row = vec![
            namespace.to_owned(),
            name.to_owned(),
            type_name(ports[0].service_type).to_owned(),
            addresses(&ports, |kind| kind == FrontendKind::ClusterIp),
            addresses(&ports, |kind| matches!(kind, FrontendKind::LoadBalancer | FrontendKind::ExternalIp)),
            ports.iter().map(|p| port_text(p)).collect::<Vec<_>>().join(","),
            ports.iter().map(|p| endpoints_text(p, wide)).collect::<Vec<_>>().join("\n"),
        ];
        if wide {
            row.extend(wide_columns(&ports));
        }
        table.add_row(row);
    }
    lines(&table)
}

fn wide_columns(ports: &[&ServicePort<'_>]) -> [String; 4] {
    let record = ports[0].records.first();
    let internal = record.map_or("", |r| policy_name(r.internal_policy()));
    let external = record.map_or("", |r| policy_name(r.external_policy()));
    let affinity = record.and_then(|r| r.affinity_timeout()).map_or("<none>".into(), |s| format!("ClientIP {s}s"));
    let mut hosts: Vec<&str> = ports.iter().flat_map(|p| p.hosts.iter().copied()).collect();
    hosts.dedup();
    let hosts = if hosts.is_empty() { "<none>".into() } else { hosts.join(",") };
    [internal.into(), external.into(), affinity, hosts]
}

fn addresses(ports: &[&ServicePort<'_>], wanted: impl Fn(FrontendKind) -> bool) -> String {
    let mut all: Vec<String> = Vec::new();
    for f in ports.iter().flat_map(|p| &p.frontends).filter(|f| wanted(f.kind)) {
        let text = f.address.to_string();
        if !all.contains(&text) {
            all.push(text);
        }
    }
    if all.is_empty() { "<none>".into() } else { all.join(",") }
}

/// `443:31512/TCP`.
fn port_text(port: &ServicePort<'_>) -> String {
    let protocol = port.protocol.name().to_uppercase();
    match port.node_port() {
        Some(node_port) if node_port != port.port() => format!("{}:{node_port}/{protocol}", port.port()),
        _ => format!("{}/{protocol}", port.port()),
    }
}

/// `https 10.82.0.10:443 0.5, 10.82.0.82:443 0.5`.
fn endpoints_text(port: &ServicePort<'_>, all: bool) -> String {
    let endpoints = port.endpoints();
    if endpoints.is_empty() {
        return "<none>".into();
    }
    let shown = if all { endpoints.len() } else { FEW };
    let mut texts: Vec<String> =
        endpoints.iter().take(shown).map(|(e, share)| format!("{} {}", e.address, share_text(*share))).collect();
    if endpoints.len() > shown {
        texts.push(format!("+ {} more...", endpoints.len() - shown));
    }
    let (_, _, name) = port.parts();
    let label = if name.is_empty() { String::new() } else { format!("{name} ") };
    format!("{label}{}", texts.join(", "))
}

/// A share of connections, to four digits: `0.5`, `0.3333`.
fn share_text(share: f64) -> String {
    let text = format!("{share:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn document(program: &Program<'_>, ports: &[ServicePort<'_>]) -> Value {
    let context = program.context();
    let texts = |cidrs: &mut dyn Iterator<Item = natlet_core::Cidr>| cidrs.map(|c| c.to_string()).collect::<Vec<_>>();
    json!({
        "content_id": program.content_id().to_string(),
        "node": {
            "name": program.node_name(),
            "addresses": context.addresses().map(|a| a.to_string()).collect::<Vec<_>>(),
            "cluster_cidrs": texts(&mut context.cluster_cidrs()),
            "service_cidrs": texts(&mut context.service_cidrs()),
            "node_port_addresses": texts(&mut context.node_port_cidrs()),
            "masquerade_all": context.masquerade_all(),
            "localhost_node_ports": context.localhost_node_ports(),
        },
        "services": ports.iter().map(service_json).collect::<Vec<_>>(),
    })
}

fn service_json(port: &ServicePort<'_>) -> Value {
    let (namespace, name, port_name) = port.parts();
    let record = port.records.first();
    let local: Vec<_> = port.local_endpoints().collect();
    let frontend = |f: &FrontendView| {
        let address = (f.kind != FrontendKind::NodePort).then(|| f.address.to_string());
        json!({ "kind": f.kind.name(), "address": address, "port": f.port, "ipv6": f.address.is_ipv6() })
    };
    let endpoints: Vec<Value> = port
        .endpoints()
        .iter()
        .map(|(e, share)| {
            json!({
                "endpoint": e.address.to_string(),
                "probability": share,
                "weight": e.weight,
                "in_local_list": local.contains(&e.address),
            })
        })
        .collect();
    json!({
        "service": port.name,
        "namespace": namespace,
        "name": name,
        "port_name": port_name,
        "protocol": port.protocol.name(),
        "type": type_name(port.service_type),
        "port": port.port(),
        "node_port": port.node_port(),
        "frontends": port.frontends.iter().map(frontend).collect::<Vec<_>>(),
        "endpoints": endpoints,
        "internal_traffic_policy": record.map(|r| policy_name(r.internal_policy())),
        "external_traffic_policy": record.map(|r| policy_name(r.external_policy())),
        "session_affinity_seconds": record.and_then(|r| r.affinity_timeout()),
        "source_ranges": record
            .and_then(|r| r.source_ranges())
            .map(|ranges| ranges.map(|r| r.to_string()).collect::<Vec<_>>()),
        "hosts": port.hosts,
    })
}
