//! The program as a picture for Graphviz: frontends, services, endpoints, from left to right; a box for each namespace.
//!
//! ```sh
//! natlet export --format dot services.yaml | dot -Tsvg -o services.svg
//! ```

use crate::view::{FrontendView, ServicePort, service_ports, split_name};
use natlet_core::{Choice, FrontendKind, Policy, Program, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;

/// Most endpoints of a service port that are drawn one by one.
const DRAWN: usize = 12;
/// Grey of what is said in small print.
const SMALL: &str = "#5f6b7a";

/// The graph, in DOT.
pub fn export(program: &Program<'_>) -> String {
    let mut picture = Picture::default();
    for port in service_ports(program) {
        picture.service(&port);
    }
    picture.write(program)
}

const fn colour(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::ClusterIp => "#cfe2ff",
        FrontendKind::NodePort => "#ffe5b4",
        FrontendKind::LoadBalancer => "#d1f0d1",
        FrontendKind::ExternalIp => "#ead6f5",
    }
}

const fn kind_name(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::ClusterIp => "ClusterIP",
        FrontendKind::NodePort => "NodePort",
        FrontendKind::LoadBalancer => "load balancer",
        FrontendKind::ExternalIp => "external IP",
    }
}

/// The text with what HTML-like labels and quoted names cannot hold replaced.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\\' => out.push_str("&#92;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A label of a main line and small print below it.
fn label(main: &str, small: &[String]) -> String {
    let mut out = format!("<{main}");
    for line in small {
        let _ = write!(out, "<br/><font point-size=\"9\" color=\"{SMALL}\">{}</font>", escaped(line));
    }
    out.push('>');
    out
}

/// Statements by where they stand.
#[derive(Default)]
struct Picture {
    /// Of each namespace's box.
    namespaces: BTreeMap<String, String>,
    /// Which namespaces use an endpoint, and whether it is known to be on this node.
    endpoints: BTreeMap<SocketAddr, (BTreeSet<String>, bool)>,
    edges: String,
    services: usize,
}

/// One family of a service port on its way into the picture.
struct Part<'p, 'a> {
    record: &'p Record<'a>,
    /// The service's node.
    id: String,
    namespace: &'p str,
}

impl Picture {
    fn inside(&mut self, namespace: &str) -> &mut String {
        self.namespaces.entry(namespace.to_owned()).or_default()
    }

    fn service(&mut self, port: &ServicePort<'_>) {
        self.services += 1;
        let (namespace, name, port_name) = split_name(&port.name);
        let id = format!("s{}", self.services);
        let shown = if port_name.is_empty() { name.to_owned() } else { format!("{name}:{port_name}") };
        let main = format!("<b>{}</b>", escaped(&shown));
        let node = format!("    {id} [shape=box, style=\"rounded,filled\", fillcolor=white, penwidth=1.5, ");
        let label = label(&main, &about(port));
        let _ = writeln!(self.inside(namespace), "{node}label={label}];");
        for (number, f) in (1..).zip(&port.frontends) {
            self.frontend(port, f, &id, namespace, number);
        }
        for record in &port.records {
            self.endpoints(&Part { record, id: id.clone(), namespace });
        }
    }

    fn frontend(&mut self, port: &ServicePort<'_>, f: &FrontendView, service: &str, namespace: &str, number: usize) {
        let id = format!("{service}f{number}");
        let address = match f.kind {
            FrontendKind::NodePort => {
                let family = if f.address.is_ipv6() { " (IPv6)" } else { "" };
                format!("*:{}{family}", f.port)
            }
            _ => SocketAddr::new(f.address, f.port).to_string(),
        };
        let small = [format!("{}, {}", kind_name(f.kind), port.protocol)];
        let text = label(&escaped(&address), &small);
        let style = format!("shape=box, style=filled, fillcolor=\"{}\", color=\"{SMALL}\"", colour(f.kind));
        let _ = writeln!(self.inside(namespace), "    {id} [{style}, label={text}];");
        let Some(record) = port.records.iter().find(|r| r.is_v6() == f.address.is_ipv6()) else { return };
        let policy = if f.kind.is_external() { record.external_policy() } else { record.internal_policy() };
        let mut words = Vec::new();
        if policy == Policy::Local {
            words.push("Local".to_owned());
        }
        if f.kind == FrontendKind::LoadBalancer
            && let Some(ranges) = record.source_ranges()
        {
            words.push("only from".into());
            words.extend(some_of(ranges.map(|r| r.to_string()).collect(), 4));
        }
        let _ = writeln!(self.edges, "  {id} -> {service} [{}];", edge_label(&words));
    }

    fn endpoints(&mut self, part: &Part<'_, '_>) {
        let (record, id) = (part.record, &part.id);
        let all = record.endpoints();
        let family = if record.is_v6() { 6 } else { 4 };
        if all.is_empty() {
            let (text, small) = if record.any_usable() {
                ("none on this node", "connections are dropped")
            } else {
                ("no endpoints", "connections are rejected")
            };
            let node = format!("{id}n{family}");
            let text = label(text, &[small.into()]);
            let style = "shape=box, style=\"rounded,dashed\", color=\"#c0392b\", fontcolor=\"#c0392b\"";
            let _ = writeln!(self.inside(part.namespace), "    {node} [{style}, label={text}];");
            let _ = writeln!(self.edges, "  {id} -> {node} [style=dashed, color=\"#c0392b\"];");
            return;
        }
        if all.len() > DRAWN {
            return self.many(part, &format!("{id}m{family}"));
        }
        let slots = f64::from(record.cluster().slots());
        let cluster = record.cluster().len();
        let local_from = all.len() - record.local().len();
        let equal = all.iter().all(|e| e.weight == 1);
        for (i, e) in all.iter().enumerate() {
            let local = i >= local_from;
            let place = self.endpoints.entry(e.address).or_default();
            place.0.insert(part.namespace.to_owned());
            place.1 |= local;
            let mut words = Vec::new();
            if i >= cluster {
                words.push("Local only".to_owned());
            } else if !equal {
                words.push(format!("weight {} ({:.0} %)", e.weight, f64::from(e.weight) / slots * 100.0));
            }
            let style = if i >= cluster { ", style=dashed" } else { "" };
            let _ = writeln!(self.edges, "  {id} -> {} [{}{style}];", endpoint_id(e.address), edge_label(&words));
        }
    }

    /// One node for all endpoints of a large service.
    fn many(&mut self, part: &Part<'_, '_>, node: &str) {
        let all = part.record.endpoints();
        let mut addresses: Vec<SocketAddr> = all.iter().map(|e| e.address).collect();
        addresses.sort_unstable();
        let mut addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let last = addresses.pop().unwrap_or_default();
        addresses.truncate(3);
        addresses.extend(["…".into(), last]);
        let local = part.record.local().len();
        if local > 0 {
            addresses.push(format!("{local} of them on this node"));
        }
        let text = label(&format!("<b>{} endpoints</b>", all.len()), &addresses);
        let style = "shape=box3d, style=filled, fillcolor=\"#f4f4f4\"";
        let _ = writeln!(self.inside(part.namespace), "    {node} [{style}, label={text}];");
        let _ = writeln!(self.edges, "  {} -> {node} [penwidth=2];", part.id);
    }

    fn write(mut self, program: &Program<'_>) -> String {
        let endpoints = std::mem::take(&mut self.endpoints);
        let mut shared = String::new();
        for (address, (namespaces, local)) in &endpoints {
            let small = if *local { vec!["on this node".to_owned()] } else { vec![] };
            let fill = if *local { "#fff3b0" } else { "#f4f4f4" };
            let id = endpoint_id(*address);
            let text = label(&escaped(&address.to_string()), &small);
            let line = format!(
                "{id} [shape=box, style=\"rounded,filled\", fillcolor=\"{fill}\", color=\"{SMALL}\", label={text}];"
            );
            // what several namespaces use belongs to none
            match namespaces.first().filter(|_| namespaces.len() == 1) {
                Some(namespace) => _ = writeln!(self.inside(namespace), "    {line}"),
                None => _ = writeln!(shared, "  {line}"),
            }
        }
        let mut out = String::from("digraph natlet {\n");
        out.push_str("  rankdir=LR; ranksep=1.1; nodesep=0.18; fontname=\"Helvetica\"; labelloc=b;\n");
        out.push_str("  node [fontname=\"Helvetica\", fontsize=11, margin=\"0.12,0.06\", height=0.3];\n");
        let _ = writeln!(
            out,
            "  edge [fontname=\"Helvetica\", fontsize=9, fontcolor=\"{SMALL}\", color=\"#7f8c99\", arrowsize=0.7];"
        );
        let _ = writeln!(out, "  label={};", legend(program, self.services));
        for (number, (namespace, statements)) in self.namespaces.iter().enumerate() {
            let _ = writeln!(out, "  subgraph cluster_{number} {{");
            let name = escaped(namespace);
            let _ = writeln!(
                out,
                "    label=<<b>{name}</b>>; labeljust=l; labelloc=t; style=rounded; color=\"#b0b8c1\"; bgcolor=\"#fafbfc\";"
            );
            out.push_str(statements);
            out.push_str("  }\n");
        }
        out.push_str(&shared);
        out.push_str(&self.edges);
        out.push_str("}\n");
        out
    }
}

/// What the small print of a service says.
fn about(port: &ServicePort<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(record) = port.records.first() {
        if let Some(seconds) = record.affinity_timeout() {
            lines.push(format!("same client, same endpoint for {seconds} s"));
        }
        if record.choice() == Choice::SourceHash {
            lines.push("endpoint by the source's hash".into());
        }
        if let Some(port) = record.health_check_node_port() {
            lines.push(format!("health check on port {port}"));
        }
    }
    lines.extend(some_of(port.hosts.iter().map(|h| (*h).to_owned()).collect(), 3));
    lines
}

/// The first of many, and how many more there are.
fn some_of(mut items: Vec<String>, most: usize) -> Vec<String> {
    if items.len() > most {
        let more = items.len() - most;
        items.truncate(most);
        items.push(format!("and {more} more"));
    }
    items
}

fn edge_label(words: &[String]) -> String {
    let lines: Vec<String> = words.iter().map(|w| escaped(w)).collect();
    if lines.is_empty() { String::new() } else { format!("label=<{}>", lines.join("<br/>")) }
}

fn endpoint_id(address: SocketAddr) -> String {
    format!("\"e{address}\"")
}

fn legend(program: &Program<'_>, services: usize) -> String {
    let node = program.node_name();
    let of = if node.is_empty() { String::new() } else { format!(" on {}", escaped(node)) };
    let small = |text: &str| format!("<font point-size=\"10\" color=\"{SMALL}\">{text}</font>");
    let kinds = [FrontendKind::ClusterIp, FrontendKind::LoadBalancer, FrontendKind::ExternalIp, FrontendKind::NodePort];
    let cell = |kind| format!("<td bgcolor=\"{}\">{}</td>", colour(kind), small(kind_name(kind)));
    let cells: String = kinds.into_iter().map(cell).collect();
    format!(
        "<<table border=\"0\" cellborder=\"0\" cellpadding=\"4\"><tr>{cells}<td>{}</td></tr><tr><td colspan=\"5\">{}</td></tr></table>>",
        small("an edge without a word: traffic policy Cluster, equal weights"),
        small(&format!("{services} service ports{of}, content id {}", program.content_id())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;
    use crate::source::{ServiceBuf, TableBuf};
    use natlet_core::{Endpoint, Frontend};

    #[test]
    fn a_large_service_is_one_node_and_markup_in_names_is_text() {
        let mut table = TableBuf::default();
        table.push(&ServiceBuf {
            name: "a<b>/x&y:\"z\"".into(),
            frontends: vec![Frontend { kind: FrontendKind::ClusterIp, address: [10, 96, 0, 1].into(), port: 80 }],
            endpoints: (1..=20).map(|n| Endpoint::new([10, 0, 0, n].into(), 8080)).collect(),
            ..ServiceBuf::default()
        });
        let text = export(&Image::compile(&table.as_table()).unwrap().program());
        assert!(text.contains("<b>20 endpoints</b>") && text.contains("10.0.0.20:8080"), "{text}");
        assert!(!text.contains("10.0.0.9:8080"), "{text}");
        assert!(text.contains("<b>x&amp;y:&quot;z&quot;</b>") && text.contains("<b>a&lt;b&gt;</b>"), "{text}");
    }
}
