//! Verdicts on packets, section by section of kube-proxy's behaviour.
#![allow(clippy::pedantic, clippy::cloned_ref_to_slice_refs, reason = "tests read better short")]
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{NodeSpec, ServiceSpec, build, cidr, ip};
use natlet_core::{FrontendKind, Policy, Program, Protocol};

const POD: &str = "10.244.1.9";
const NODE: &str = "192.0.2.1";
const OUTSIDE: &str = "203.0.113.9";

fn node() -> NodeSpec {
    NodeSpec {
        addresses: vec![ip(NODE)],
        cluster: vec![cidr("10.244.0.0/16")],
        service: vec![cidr("10.96.0.0/12")],
        ..NodeSpec::default()
    }
}

fn service() -> ServiceSpec {
    ServiceSpec::new("shop/web:http")
        .frontend(FrontendKind::ClusterIp, "10.96.0.10", 80)
        .frontend(FrontendKind::NodePort, "0.0.0.0", 30080)
        .frontend(FrontendKind::LoadBalancer, "198.51.100.1", 80)
        .frontend(FrontendKind::ExternalIp, "198.51.100.2", 80)
}

/// "verdict; endpoints drawn from; masqueraded or not", or "verdict; reason" without endpoints.
fn ask(bytes: &[u8], from: &str, to: &str) -> String {
    let program = Program::new_checked(bytes).unwrap();
    let (to, port) = to.rsplit_once(':').unwrap();
    let packet = program.packet(ip(from), ip(to), Protocol::Tcp, port.parse().unwrap());
    let d = program.decide(&packet);
    match d.endpoints() {
        None => format!("{}; {:?}", d.verdict, d.reason),
        Some(list) => list
            .iter()
            .map(|e| format!("{}{}", e.address, if d.masquerades(&e) { " masq" } else { "" }))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn check(node: &NodeSpec, services: &[ServiceSpec], cases: &[(&str, &str, &str)]) {
    let bytes = build(node, services);
    for (from, to, expected) in cases {
        assert_eq!(ask(&bytes, from, to), *expected, "{from} -> {to}");
    }
}

#[test]
fn cluster_policy() {
    let s = service().endpoint("10.244.1.9", 8080).endpoint("10.244.2.9", 8080);
    let both = "10.244.1.9:8080, 10.244.2.9:8080";
    let both_masq = "10.244.1.9:8080 masq, 10.244.2.9:8080 masq";
    check(
        &node(),
        &[s],
        &[
            ("10.244.3.3", "10.96.0.10:80", both),
            // an endpoint that draws itself is masqueraded, whatever else holds
            (POD, "10.96.0.10:80", "10.244.1.9:8080 masq, 10.244.2.9:8080"),
            (NODE, "10.96.0.10:80", both_masq),
            (OUTSIDE, "10.96.0.10:80", both_masq),
            (OUTSIDE, "192.0.2.1:30080", both_masq),
            (POD, "198.51.100.1:80", both_masq),
            (OUTSIDE, "198.51.100.2:80", both_masq),
            (OUTSIDE, "127.0.0.1:30080", "accept; NodePortAddress"),
            (OUTSIDE, "192.0.2.2:30080", "accept; NoFrontend"),
            (OUTSIDE, "10.96.0.10:81", "reject; UnknownPort"),
            (OUTSIDE, "10.96.0.11:80", "drop; UnallocatedAddress"),
            (OUTSIDE, "198.51.100.1:81", "accept; NoFrontend"),
        ],
    );
}

#[test]
fn without_cluster_cidrs_cluster_ips_keep_the_source() {
    let s = service().endpoint("10.244.1.9", 8080);
    let unknown = NodeSpec { cluster: vec![], service: vec![], ..node() };
    let cases = [
        (OUTSIDE, "10.96.0.10:80", "10.244.1.9:8080"),
        (OUTSIDE, "198.51.100.1:80", "10.244.1.9:8080 masq"),
        (OUTSIDE, "10.96.0.11:80", "accept; NoFrontend"),
    ];
    check(&unknown, &[s.clone()], &cases);
    let all = NodeSpec { masquerade_all: true, ..unknown };
    check(&all, &[s], &[("10.244.3.3", "10.96.0.10:80", "10.244.1.9:8080 masq")]);
}

#[test]
fn external_policy_local() {
    let mut s = service().endpoint("10.244.2.9", 8080).local_endpoint("10.244.1.9", 8080);
    s.external = Policy::Local;
    let cluster = "10.244.2.9:8080, 10.244.1.9:8080";
    check(
        &node(),
        &[s.clone()],
        &[
            (OUTSIDE, "198.51.100.1:80", "10.244.1.9:8080"),
            (OUTSIDE, "192.0.2.1:30080", "10.244.1.9:8080"),
            ("10.244.3.3", "198.51.100.1:80", cluster),
            (NODE, "198.51.100.1:80", "10.244.2.9:8080 masq, 10.244.1.9:8080 masq"),
            ("10.244.3.3", "10.96.0.10:80", cluster),
        ],
    );
    s.endpoints.truncate(1);
    let cases = [
        (OUTSIDE, "198.51.100.1:80", "drop; NoLocalEndpoints"),
        (POD, "198.51.100.1:80", "10.244.2.9:8080"),
        (OUTSIDE, "10.96.0.10:80", "10.244.2.9:8080 masq"),
    ];
    check(&node(), &[s], &cases);
}

#[test]
fn internal_policy_local() {
    let mut s = service().endpoint("10.244.2.9", 8080);
    s.internal = Policy::Local;
    let cases =
        [(POD, "10.96.0.10:80", "drop; NoLocalEndpoints"), (OUTSIDE, "198.51.100.1:80", "10.244.2.9:8080 masq")];
    check(&node(), &[s.clone()], &cases);
    s.endpoints.clear();
    check(&node(), &[s], &[(POD, "10.96.0.10:80", "reject; NoEndpoints")]);
}

#[test]
fn source_ranges_bind_load_balancer_addresses_only() {
    let mut s = service().endpoint("10.244.2.9", 8080);
    s.ranges = vec![cidr("203.0.113.0/29"), cidr("2001:db8::/32")];
    let cases = [
        ("203.0.113.7", "198.51.100.1:80", "10.244.2.9:8080 masq"),
        (OUTSIDE, "198.51.100.1:80", "drop; SourceRange"),
        (POD, "198.51.100.1:80", "drop; SourceRange"),
        (OUTSIDE, "198.51.100.2:80", "10.244.2.9:8080 masq"),
        ("198.51.100.1", "198.51.100.1:80", "drop; SourceRange"),
    ];
    check(&node(), &[s.clone()], &cases);
    // a range that holds the node's address lets the service's own address in
    s.ranges.push(cidr("192.0.2.0/24"));
    check(&node(), &[s.clone()], &[("198.51.100.1", "198.51.100.1:80", "10.244.2.9:8080 masq")]);
    // ranges of the other family only restrict nothing
    s.ranges = vec![cidr("2001:db8::/32")];
    check(&node(), &[s.clone()], &[(OUTSIDE, "198.51.100.1:80", "10.244.2.9:8080 masq")]);
    s.endpoints.clear();
    s.ranges = vec![cidr("203.0.113.0/29")];
    let cases =
        [(OUTSIDE, "198.51.100.1:80", "drop; SourceRange"), ("203.0.113.1", "198.51.100.1:80", "reject; NoEndpoints")];
    check(&node(), &[s], &cases);
}

#[test]
fn node_port_addresses() {
    let s = service().endpoint("10.244.2.9", 8080);
    let mut n =
        NodeSpec { addresses: vec![ip(NODE), ip("198.51.100.77")], node_port: vec![cidr("198.51.100.0/24")], ..node() };
    let masq = "10.244.2.9:8080 masq";
    check(
        &n,
        &[s.clone()],
        &[(OUTSIDE, "198.51.100.77:30080", masq), (OUTSIDE, "192.0.2.1:30080", "accept; NodePortAddress")],
    );
    n.node_port = vec![cidr("2001:db8::/64")];
    check(&n, &[s.clone()], &[(OUTSIDE, "192.0.2.1:30080", masq)]);
    n.node_port = vec![];
    n.localhost = true;
    check(&n, &[s.clone()], &[("127.0.0.1", "127.0.0.1:30080", masq)]);
    n.node_port = vec![cidr("192.0.2.0/24")];
    check(&n, &[s], &[("127.0.0.1", "127.0.0.1:30080", "accept; NodePortAddress")]);
}

#[test]
fn an_exact_frontend_beats_a_node_port() {
    let exact = ServiceSpec::new("a/exact").frontend(FrontendKind::ExternalIp, NODE, 30080).endpoint("10.244.7.7", 1);
    let s = service().endpoint("10.244.2.9", 8080);
    check(&node(), &[s, exact], &[(OUTSIDE, "192.0.2.1:30080", "10.244.7.7:1 masq")]);
}
