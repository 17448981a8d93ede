//! The compiled program as its users see it: look-ups, sizes, identity, and what it refuses.
#![allow(clippy::pedantic, clippy::type_complexity, reason = "tests read better short")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]
#![allow(missing_docs)]

mod common;

use common::{NodeSpec, ServiceSpec, build, ip, try_build};
use natlet_core::{CompileError, Endpoint, FrontendKind, KeyV4, Program, ProgramError, Protocol, strip_names};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn seed() -> Vec<ServiceSpec> {
    let name = "workshop-development/ciq-ingress-workshop-development-nginx-ingress-controller";
    [("http", 80, 30512), ("https", 443, 31512)]
        .map(|(port_name, port, node_port)| {
            ServiceSpec::new(&format!("{name}:{port_name}"))
                .frontend(FrontendKind::ClusterIp, "192.168.5.65", port)
                .frontend(FrontendKind::LoadBalancer, "10.82.0.97", port)
                .frontend(FrontendKind::NodePort, "0.0.0.0", node_port)
                .endpoint("10.82.0.10", port)
                .endpoint("10.82.0.82", port)
        })
        .to_vec()
}

/// In a table whose frontends share their first octet, and in one whose do not: then a slot has another form.
#[test]
fn a_packed_key_finds_what_its_parts_find() {
    let one_octet = [ServiceSpec::new("n/s")
        .frontend(FrontendKind::ClusterIp, "10.0.0.1", 80)
        .frontend(FrontendKind::ExternalIp, "10.9.0.255", 65_535)
        .frontend(FrontendKind::NodePort, "0.0.0.0", 30_080)
        .endpoint("10.82.0.10", 80)];
    for services in [&one_octet[..], &seed()] {
        let bytes = build(&NodeSpec::default(), services);
        let program = Program::new_checked(&bytes).unwrap();
        let mut found = 0;
        for frontend in services.iter().flat_map(|s| &s.frontends) {
            let IpAddr::V4(address) = frontend.1 else { unreachable!("all are IPv4") };
            let near = [address, Ipv4Addr::from_bits(address.to_bits() ^ 1 << 24), Ipv4Addr::UNSPECIFIED];
            for (address, port) in near.into_iter().flat_map(|a| [(a, frontend.2), (a, frontend.2 ^ 1)]) {
                for protocol in Protocol::ALL {
                    let key = KeyV4::new(address, protocol, port);
                    assert_eq!(key.parts(), (address, protocol, port));
                    assert_eq!(program.find_v4(key), program.find(address.into(), protocol, port), "{key:?}");
                    found += usize::from(program.find_v4(key).is_some());
                }
            }
        }
        let node_ports = services.iter().flat_map(|s| &s.frontends).filter(|f| f.0 == FrontendKind::NodePort).count();
        assert_eq!(found, program.frontend_count() as usize - node_ports);
    }
}

#[test]
fn the_articles_service_is_found_at_each_of_its_frontends() {
    let bytes = build(&NodeSpec::default(), &seed());
    let program = Program::new_checked(&bytes).unwrap();
    assert_eq!(program.frontend_count(), 6);
    let https = program.find(ip("192.168.5.65"), Protocol::Tcp, 443).unwrap();
    assert_eq!(https.kind, FrontendKind::ClusterIp);
    let endpoints: Vec<String> = https.record.cluster().iter().map(|e| e.address.to_string()).collect();
    assert_eq!(endpoints, ["10.82.0.10:443", "10.82.0.82:443"]);
    assert_eq!(program.find(ip("10.82.0.97"), Protocol::Tcp, 443).unwrap().record, https.record);
    assert_eq!(program.find_node_port(ip("192.0.2.1"), Protocol::Tcp, 31512).unwrap().record, https.record);
    assert_eq!(program.name_of(&https.record).unwrap().name, seed()[1].name);
    assert_eq!(program.find(ip("192.168.5.65"), Protocol::Udp, 443), None);
    assert_eq!(program.find(ip("192.168.5.65"), Protocol::Tcp, 444), None);
    assert_eq!(program.find(ip("0.0.0.0"), Protocol::Tcp, 31512), None, "a NodePort has no address of its own");
    assert!(program.is_cluster_ip(ip("192.168.5.65")) && !program.is_cluster_ip(ip("10.82.0.97")));
}

#[test]
fn the_articles_service_fits_128_bytes_without_names() {
    let bytes = build(&NodeSpec::default(), &seed());
    let program = Program::new_checked(&bytes).unwrap();
    let mut out = vec![0; bytes.len()];
    let len = strip_names(&program, &mut out).unwrap();
    assert_eq!(len, 123);
    let stripped = Program::new_checked(&out[..len]).unwrap();
    assert_eq!(stripped.content_id(), program.content_id());
    assert_eq!(stripped.frontend_count(), 6);
    assert_eq!(stripped.services().filter(|(_, name)| name.is_none()).count(), 2);
}

#[test]
fn the_order_of_services_and_endpoints_in_the_table_does_not_matter() {
    let bytes = build(&NodeSpec::default(), &seed());
    let mut other = seed();
    other.reverse();
    other.iter_mut().for_each(|s| s.endpoints.reverse());
    assert_eq!(build(&NodeSpec::default(), &other), bytes);
}

#[test]
fn every_prefix_and_every_flipped_bit_is_refused() {
    let v6 =
        ServiceSpec::new("a/v6").frontend(FrontendKind::ClusterIp, "2001:db8::1", 53).endpoint("2001:db8:1::1", 53);
    let node = NodeSpec { addresses: vec![ip("192.0.2.1")], masquerade_all: true, ..NodeSpec::default() };
    let mut services = seed();
    services.push(v6);
    let bytes = build(&node, &services);
    for len in 0..bytes.len() {
        assert!(Program::new_checked(&bytes[..len]).is_err(), "prefix of {len} bytes");
    }
    let mut damaged = bytes.clone();
    for bit in 0..bytes.len() * 8 {
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Program::new_checked(&damaged).is_err(), "bit {bit}");
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
    damaged.push(0);
    assert_eq!(Program::new_checked(&damaged).unwrap_err(), ProgramError::TrailingBytes);
    damaged[4] = 3;
    assert_eq!(Program::new_checked(&damaged).unwrap_err(), ProgramError::Version(3));
    assert_eq!(Program::new_checked(b"PK\x03\x04").unwrap_err(), ProgramError::Magic);
}

#[test]
fn two_claims_on_one_frontend_are_refused_at_any_size() {
    for more in [0_u16, 100] {
        let mut services = vec![ServiceSpec::new("a/one").frontend(FrontendKind::ClusterIp, "10.0.0.1", 80)];
        for i in 0..more {
            services.push(ServiceSpec::new(&format!("b/{i}")).frontend(FrontendKind::ClusterIp, "10.0.0.2", 1 + i));
        }
        services.push(ServiceSpec::new("z/two").frontend(FrontendKind::ExternalIp, "10.0.0.1", 80));
        let expected = CompileError::DuplicateFrontend { first: 0, second: u32::from(more) + 1 };
        assert_eq!(try_build(&NodeSpec::default(), &services), Err(expected));
    }
    let twice = [seed(), seed()].concat();
    assert!(matches!(try_build(&NodeSpec::default(), &twice), Err(CompileError::DuplicateService { .. })));
}

#[test]
fn nonsense_in_the_table_is_refused_by_name() {
    let no_port = ServiceSpec::new("a/b").frontend(FrontendKind::ClusterIp, "10.0.0.1", 0);
    assert_eq!(try_build(&NodeSpec::default(), &[no_port]), Err(CompileError::Frontend { service: 0, frontend: 0 }));
    let no_address = ServiceSpec::new("a/b").frontend(FrontendKind::ClusterIp, "10.0.0.1", 1).endpoint("0.0.0.0", 1);
    assert_eq!(try_build(&NodeSpec::default(), &[no_address]), Err(CompileError::Endpoint { service: 0, endpoint: 0 }));
    assert_eq!(try_build(&NodeSpec::default(), &[ServiceSpec::new("")]), Err(CompileError::Name { service: 0 }));
}

#[test]
fn ipv6_and_large_services_survive_the_round_trip() {
    let mut services: Vec<ServiceSpec> = (0..200_u16)
        .map(|i| {
            let vip = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, i, 1));
            let mut s = ServiceSpec::new(&format!("six/{i}"));
            s.frontends.push((FrontendKind::ClusterIp, vip, 53));
            s.frontends.push((FrontendKind::NodePort, ip("::"), 30000 + i));
            s.endpoints.push(Endpoint::new(ip("2001:db8:1::1"), 5300 + i));
            s.endpoints.push(Endpoint::new(ip("2001:db8:1::2"), 5353));
            s
        })
        .collect();
    let mut large = ServiceSpec::new("large/one").frontend(FrontendKind::ClusterIp, "10.1.2.3", 80);
    large.endpoints =
        (0..5_000_u32).map(|i| Endpoint::new(IpAddr::V4(Ipv4Addr::from_bits(0x0a80_0000 + i)), 80)).collect();
    services.push(large);
    let bytes = build(&NodeSpec::default(), &services);
    let program = Program::new_checked(&bytes).unwrap();
    let hit = program.find(ip("2001:db8::7:1"), Protocol::Tcp, 53).unwrap();
    let list: Vec<_> = hit.record.cluster().iter().map(|e| e.address.to_string()).collect();
    assert_eq!(list, ["[2001:db8:1::1]:5307", "[2001:db8:1::2]:5353"]);
    assert!(program.find_node_port(ip("2001:db8::1"), Protocol::Tcp, 30007).is_some());
    assert!(program.find_node_port(ip("192.0.2.1"), Protocol::Tcp, 30007).is_none());
    let large = program.find(ip("10.1.2.3"), Protocol::Tcp, 80).unwrap();
    assert_eq!(large.record.cluster().len(), 5_000);
    assert_eq!(large.record.cluster().draw(u32::MAX).unwrap().address.to_string(), "10.128.19.135:80");
    assert_eq!(program.services().count(), 201);
}

#[test]
fn draws_follow_the_weights() {
    let mut s = ServiceSpec::new("w/w").frontend(FrontendKind::ClusterIp, "10.0.0.1", 80);
    for (last, weight) in [(1, 2), (2, 4), (3, 0)] {
        let address = ip(&format!("10.0.1.{last}"));
        s.endpoints.push(Endpoint { weight, ..Endpoint::new(address, 80) });
    }
    let bytes = build(&NodeSpec::default(), &[s]);
    let program = Program::new_checked(&bytes).unwrap();
    let list = program.find(ip("10.0.0.1"), Protocol::Tcp, 80).unwrap().record.cluster();
    assert_eq!((list.len(), list.slots()), (2, 3), "weights are reduced, weight 0 takes none");
    let drawn: Vec<_> = (0..3).map(|i| list.slot(i).unwrap().address.ip()).collect();
    assert_eq!(drawn, [ip("10.0.1.1"), ip("10.0.1.2"), ip("10.0.1.2")]);
    assert_eq!(list.slot(3), None);
}

#[test]
fn endpoints_that_nothing_leads_to_leave_no_trace() {
    let unused = |address: &str| Endpoint { ready: false, ..Endpoint::new(ip(address), 1) };
    let plain = build(&NodeSpec::default(), &seed());
    let mut with_unused = seed();
    with_unused[0].endpoints.push(unused("192.0.2.1"));
    with_unused[1].endpoints.push(unused("10.0.0.1"));
    assert_eq!(build(&NodeSpec::default(), &with_unused), plain);

    let empty = || ServiceSpec::new("a/empty").frontend(FrontendKind::ClusterIp, "10.96.0.1", 80);
    let mut only_unused = empty();
    only_unused.endpoints.push(unused("192.0.2.1"));
    assert_eq!(build(&NodeSpec::default(), &[only_unused]), build(&NodeSpec::default(), &[empty()]));
}
