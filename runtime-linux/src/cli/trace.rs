//! `natlet trace`: what happens to a packet and why, from the program alone.

use super::args::{Output, TraceArgs};
use super::failure::{Failure, print, print_document};
use super::{flows, input};
use natlet_core::{
    Class, Decision, FrontendKind, ListKind, Packet, Policy, Program, ProgramFrontend, Protocol, Reason, Verdict,
};
use serde::Serialize;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// The answer for programs; DESIGN's contract.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    pub verdict: &'static str,
    pub service: Option<String>,
    pub frontend: Option<&'static str>,
    pub endpoints: Vec<AnswerEndpoint>,
    pub reason: String,
}

#[derive(Debug, Serialize)]
pub(super) struct AnswerEndpoint {
    pub endpoint: String,
    pub probability: f64,
    pub masquerade: bool,
}

pub fn run(args: &TraceArgs) -> Result<(), Failure> {
    if let Some(path) = &args.flows {
        return flows::run(path, args);
    }
    let (Some(from), Some(to)) = (args.from, args.to) else {
        return Err(Failure::input("give --from and --to, or --flows"));
    };
    if from.is_ipv6() != to.is_ipv6() {
        return Err(Failure::input("--from and --to are of different families; a packet has one"));
    }
    let image = input::read(&args.input)?;
    let program = image.program();
    let (packet, assumed) = packet(&program, from, to, args.proto);
    let decision = program.decide(&packet);
    let answer = answer(&program, &packet, &decision, assumed);
    match args.output {
        Output::Json => {
            let json = serde_json::to_string(&answer).map_err(|e| Failure::operation("writing JSON", e))?;
            print(&format!("{json}\n"))
        }
        Output::Yaml => print_document(&answer, args.output),
        Output::Table | Output::Wide => print(&explain(&program, &packet, &decision, &answer, assumed)),
    }
}

/// The packet, and whether its destination was taken for an address of the node for want of knowledge.
pub(super) fn packet(program: &Program<'_>, from: IpAddr, to: SocketAddr, protocol: Protocol) -> (Packet, bool) {
    let packet = program.packet(from, to.ip(), protocol, to.port());
    let known = program.context().addresses().any(|a| a.is_ipv6() == to.is_ipv6());
    let taken = program.find(packet.destination, packet.protocol, packet.port).is_some()
        || program.is_cluster_ip(packet.destination);
    let assumed = !known
        && !taken
        && !packet.to_node
        && program.find_node_port(packet.destination, packet.protocol, packet.port).is_some();
    (Packet { to_node: packet.to_node || assumed, ..packet }, assumed)
}

fn service_name(program: &Program<'_>, frontend: &ProgramFrontend<'_>) -> String {
    program
        .name_of(&frontend.record)
        .map_or_else(|| format!("service-{}", frontend.record.offset()), |name| name.name.into())
}

pub(super) fn answer(program: &Program<'_>, packet: &Packet, decision: &Decision<'_>, assumed: bool) -> Answer {
    let mut endpoints: Vec<AnswerEndpoint> = Vec::new();
    if let Some(list) = decision.endpoints() {
        let slots = f64::from(list.slots());
        let share = |e: &natlet_core::RecordEndpoint| AnswerEndpoint {
            endpoint: e.address.to_string(),
            probability: f64::from(e.weight) / slots,
            masquerade: decision.masquerades(e),
        };
        endpoints = match decision.hashed() {
            Some(one) => vec![AnswerEndpoint { probability: 1.0, ..share(&one) }],
            None => list.iter().map(|e| share(&e)).collect(),
        };
        endpoints.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    }
    Answer {
        verdict: decision.verdict.name(),
        service: decision.frontend.map(|f| service_name(program, &f)),
        frontend: decision.frontend.map(|f| f.kind.name()),
        endpoints,
        reason: reason(packet, decision, assumed),
    }
}

/// The whole reason in one line.
fn reason(packet: &Packet, decision: &Decision<'_>, assumed: bool) -> String {
    let mut text = decision.reason.to_string();
    if let Some(f) = decision.frontend {
        let _ = write!(text, "; {} traffic from {}", f.kind, source(decision.class));
    }
    if let Some(list) = decision.list {
        let _ = write!(text, "; {}", why_list(decision, list));
    }
    if decision.verdict == Verdict::Dnat {
        if let Some(choice) = choice(decision) {
            let _ = write!(text, "; {choice}");
        }
        let _ = write!(text, "; {}", decision.masquerade);
    }
    if assumed {
        let _ = write!(text, "; {} is taken for an address of this node, as no --node-ip is given", packet.destination);
    }
    text
}

const fn source(class: Class) -> &'static str {
    match class {
        Class::Pod => "a pod",
        Class::Node => "this node",
        Class::Outside => "outside",
    }
}

fn why_list(decision: &Decision<'_>, list: ListKind) -> &'static str {
    let external = decision.frontend.is_some_and(|f| f.kind.is_external());
    let local_policy = decision.frontend.is_some_and(|f| f.record.external_policy() == Policy::Local);
    match (list, external && local_policy) {
        (ListKind::Local, true) => "Local list: externalTrafficPolicy is Local",
        (ListKind::Local, false) => "Local list: internalTrafficPolicy is Local",
        (ListKind::Cluster, true) => {
            "Cluster list: pods and the node itself are not bound by externalTrafficPolicy Local"
        }
        (ListKind::Cluster, false) => "Cluster list: the traffic policy is Cluster",
    }
}

/// How the endpoint is chosen, where it is not simply drawn.
fn choice(decision: &Decision<'_>) -> Option<String> {
    let hashed = decision.hashed().is_some();
    match (decision.affinity_timeout(), hashed) {
        (None, false) => None,
        (None, true) => Some("chosen by a hash of the source".into()),
        (Some(seconds), _) => {
            let new = if hashed { "are given one by a hash of the source" } else { "draw" };
            Some(format!(
                "session affinity: new clients {new}; a client seen in the last {seconds} s keeps its endpoint"
            ))
        }
    }
}

/// Step by step, for people.
fn explain(program: &Program<'_>, packet: &Packet, decision: &Decision<'_>, answer: &Answer, assumed: bool) -> String {
    let mut out = String::new();
    let destination = SocketAddr::new(packet.destination, packet.port);
    let _ = writeln!(out, "{} {} -> {destination}", packet.protocol, packet.source);
    let class = match decision.class {
        Class::Pod => "a pod: the source is in a cluster CIDR",
        Class::Node => "this node: the source is one of its addresses",
        Class::Outside if program.context().cluster_cidrs().next().is_none() => {
            "outside: not an address of this node, and no --cluster-cidr tells pods apart"
        }
        Class::Outside => "outside: neither a pod nor this node",
    };
    let _ = writeln!(out, "  source    {class}");
    if let Some(f) = &decision.frontend {
        let kind = match f.kind {
            FrontendKind::ClusterIp => "ClusterIP",
            FrontendKind::NodePort => "NodePort",
            FrontendKind::LoadBalancer => "load-balancer IP",
            FrontendKind::ExternalIp => "external IP",
        };
        let assumed = if assumed { " (taking the address for this node's: no --node-ip is given)" } else { "" };
        let _ = writeln!(out, "  frontend  {kind} of {}{assumed}", service_name(program, f));
        if let Some(name) = program.name_of(&f.record).filter(|n| !n.hosts.is_empty()) {
            let _ = writeln!(out, "  hosts     {} (Ingress)", name.hosts);
        }
    }
    if let Some(list) = decision.list {
        let _ = writeln!(out, "  list      {}", why_list(decision, list));
    }
    if let Some(choice) = choice(decision) {
        let _ = writeln!(out, "  choice    {choice}");
    }
    let verdict = match decision.verdict {
        Verdict::Dnat => "dnat".to_owned(),
        other => format!("{other}: {}", decision.reason),
    };
    let _ = writeln!(out, "  verdict   {verdict}");
    if decision.reason == Reason::Frontend {
        let _ = writeln!(out, "  source address: {}", decision.masquerade);
    }
    for e in &answer.endpoints {
        let hairpin =
            if e.masquerade && !decision.masquerade.is_yes() { " (masqueraded: it reaches itself)" } else { "" };
        let _ = writeln!(out, "    {:5.1} %  {}{hairpin}", e.probability * 100.0, e.endpoint);
    }
    out
}
