//! Random tables and packets whose addresses come from small pools, so that they meet.

use super::{NodeSpec, ServiceSpec, cidr, ip};
use natlet_core::{Choice, Cidr, Endpoint, FrontendKind, Policy, Protocol, ServiceType};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Clone, Debug)]
pub struct TableSpec {
    pub node: NodeSpec,
    pub services: Vec<ServiceSpec>,
}

fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

fn v6(net: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host))
}

pub fn protocol() -> impl Strategy<Value = Protocol> {
    proptest::sample::select(&Protocol::ALL[..])
}

fn policy() -> impl Strategy<Value = Policy> {
    any::<bool>().prop_map(|local| if local { Policy::Local } else { Policy::Cluster })
}

pub fn port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(80), Just(443), 30000_u16..30008]
}

/// Where endpoints and pods are.
fn pod_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        6 => (0_u8..3, 1_u8..5).prop_map(|(c, d)| v4(10, 244, c, d)),
        3 => (1_u16..5).prop_map(|h| v6(0x244, h)),
        1 => (1_u8..3).prop_map(|d| v4(172, 16, 0, d)),
    ]
}

fn frontend_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        6 => (0_u8..12).prop_map(|d| v4(10, 96, 0, d)),
        3 => (1_u16..8).prop_map(|h| v6(0x96, h)),
        1 => Just(v4(10, 0, 0, 0)),
        1 => Just(v4(192, 0, 2, 1)),
        1 => (1_u8..4).prop_map(|d| v4(198, 51, 100, d)),
    ]
}

pub fn address() -> impl Strategy<Value = IpAddr> {
    let fixed =
        ["192.0.2.1", "192.0.2.2", "2001:db8::1", "127.0.0.1", "127.0.0.9", "::1", "203.0.113.9", "2001:db8:9::9"];
    let fixed: Vec<IpAddr> = fixed.into_iter().map(ip).collect();
    prop_oneof![2 => pod_address(), 4 => frontend_address(), 3 => proptest::sample::select(fixed)]
}

fn frontend() -> impl Strategy<Value = (FrontendKind, IpAddr, u16)> {
    use FrontendKind::{ClusterIp, ExternalIp, LoadBalancer, NodePort};
    let kind = proptest::sample::select(vec![ClusterIp, ClusterIp, ExternalIp, LoadBalancer, LoadBalancer, NodePort]);
    (kind, frontend_address(), port()).prop_map(|(kind, address, port)| match (kind, address) {
        (NodePort, IpAddr::V4(_)) => (kind, ip("0.0.0.0"), port),
        (NodePort, IpAddr::V6(_)) => (kind, ip("::"), port),
        _ => (kind, address, port),
    })
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let port = prop_oneof![4 => Just(8080), 1 => 8081_u16..8083];
    let weight = prop_oneof![4 => Just(1_u16), 1 => 0_u16..7];
    let yes = || proptest::bool::weighted(0.6);
    (pod_address(), port, weight, yes(), any::<bool>(), any::<bool>(), yes()).prop_map(
        |(address, port, weight, ready, fallback, local, hinted)| Endpoint {
            address,
            port,
            weight,
            ready,
            fallback,
            local,
            hinted,
        },
    )
}

fn range() -> impl Strategy<Value = Cidr> {
    let all = ["203.0.113.0/24", "192.0.2.0/24", "10.244.0.0/24", "0.0.0.0/0", "2001:db8:9::/48", "2001:db8::1/128"];
    proptest::sample::select(all.into_iter().map(cidr).collect::<Vec<_>>())
}

fn service() -> impl Strategy<Value = ServiceSpec> {
    let choice = proptest::sample::select(vec![Choice::Random, Choice::Random, Choice::SourceHash]);
    let service_type =
        proptest::sample::select(vec![ServiceType::ClusterIp, ServiceType::NodePort, ServiceType::LoadBalancer]);
    let affinity = prop_oneof![2 => Just(0_u32), 1 => Just(10_800)];
    let details =
        (policy(), policy(), affinity, choice, service_type, prop_oneof![Just(0_u16), Just(32_000)], "[a-z,.]{0,9}");
    (protocol(), vec(frontend(), 0..6), vec(endpoint(), 0..9), vec(range(), 0..3), details).prop_map(
        |(protocol, frontends, endpoints, ranges, details)| {
            let (internal, external, affinity, choice, service_type, health_check, hosts) = details;
            ServiceSpec {
                name: String::new(),
                protocol,
                frontends,
                endpoints,
                internal,
                external,
                ranges,
                affinity,
                choice,
                service_type,
                health_check,
                hosts,
            }
        },
    )
}

fn node() -> impl Strategy<Value = NodeSpec> {
    let some = |all: &[&str]| {
        let all: Vec<Cidr> = all.iter().map(|c| cidr(c)).collect();
        let most = all.len();
        proptest::sample::subsequence(all, 0..=most)
    };
    let addresses: Vec<IpAddr> = ["192.0.2.1", "192.0.2.2", "2001:db8::1"].into_iter().map(ip).collect();
    (
        proptest::sample::subsequence(addresses, 0..=3),
        some(&["10.244.0.0/16", "2001:db8:244::/48"]),
        some(&["10.96.0.0/12", "2001:db8:96::/48"]),
        some(&["192.0.2.1/32", "127.0.0.0/29", "0.0.0.0/0", "2001:db8:ffff::/48"]),
        proptest::bool::weighted(0.2),
        any::<bool>(),
    )
        .prop_map(|(addresses, cluster, service, node_port, masquerade_all, localhost)| NodeSpec {
            addresses,
            cluster,
            service,
            node_port,
            masquerade_all,
            localhost,
        })
}

/// A valid table: names and frontends are unique.
pub fn table() -> impl Strategy<Value = TableSpec> {
    (node(), prop_oneof![3 => vec(service(), 0..6), 1 => vec(service(), 6..30)]).prop_map(|(node, mut services)| {
        let mut taken = HashSet::new();
        for (i, s) in services.iter_mut().enumerate() {
            s.name = format!("ns/service-{i}:port");
            let protocol = s.protocol;
            s.frontends.retain(|&(_, address, port)| taken.insert((address, protocol, port)));
        }
        TableSpec { node, services }
    })
}

/// A source, a destination, a protocol and a port.
pub fn packet() -> impl Strategy<Value = (IpAddr, IpAddr, Protocol, u16)> {
    (address(), address(), protocol(), port())
}
