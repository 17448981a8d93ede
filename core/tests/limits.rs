//! Each limit of a program, on both sides; and what ten thousand services take.
#![allow(clippy::pedantic, reason = "tests read better short")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::print_stdout
)]
#![allow(missing_docs)]

mod common;

use common::checks::check_program;
use common::{NodeSpec, ServiceSpec, Tables, build, cidr, compile_table, ip, strip, try_build};
use natlet_core::{CompileError, Endpoint, FrontendKind, Program, Protocol, Span, compile, max_len, scratch_len};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

fn v4(bits: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(bits))
}

/// A service at 10.96.0.1:80.
fn with(endpoints: impl IntoIterator<Item = Endpoint>) -> ServiceSpec {
    let mut s = ServiceSpec::new("a/b").frontend(FrontendKind::ClusterIp, "10.96.0.1", 80);
    s.endpoints.extend(endpoints);
    s
}

fn some_endpoints(n: u32) -> impl Iterator<Item = Endpoint> {
    (0..n).map(|i| Endpoint::new(v4(0x0a80_0001 + i), 8080))
}

fn weighted(weights: &[u16]) -> ServiceSpec {
    with(some_endpoints(weights.len() as u32).zip(weights).map(|(e, &weight)| Endpoint { weight, ..e }))
}

fn try_one(s: ServiceSpec) -> Result<Vec<u8>, CompileError> {
    try_build(&NodeSpec::default(), &[s])
}

#[test]
fn counts_of_endpoints_are_a_byte_up_to_255_and_two_up_to_65535() {
    for n in [0, 1, 255, 256, 65_535] {
        let bytes = try_one(with(some_endpoints(n))).unwrap();
        let program = Program::new_checked(&bytes).unwrap();
        let list = program.find(ip("10.96.0.1"), Protocol::Tcp, 80).unwrap().record.cluster();
        assert_eq!((list.len(), list.slots()), (n as usize, n));
        if n > 0 {
            assert_eq!(list.get(n as usize - 1).unwrap().address.ip(), v4(0x0a80_0000 + n));
            assert_eq!(list.draw(u32::MAX).unwrap().address.ip(), v4(0x0a80_0000 + n));
        }
    }
    let len = |n| strip(&try_one(with(some_endpoints(n))).unwrap()).len();
    assert_eq!(len(256) - len(255), 3 + 1, "a wider count costs one byte once");
    assert_eq!(try_one(with(some_endpoints(65_536))), Err(CompileError::TooMany { service: 0 }));
    // duplicates do not count
    assert!(try_one(with(some_endpoints(65_535).chain(some_endpoints(1)))).is_ok());
}

#[test]
fn weights_add_up_to_65535_once_their_common_divisor_is_out() {
    let slots = |weights: &[u16]| {
        let bytes = try_one(weighted(weights)).unwrap();
        Program::new_checked(&bytes).unwrap().records().next().unwrap().cluster().slots()
    };
    let limit = CompileError::TooMany { service: 0 };
    assert_eq!(slots(&[1, 65_534]), 65_535);
    assert_eq!(try_one(weighted(&[1, 65_535])), Err(limit));
    assert_eq!(slots(&[65_535, 65_535]), 2);
    assert_eq!(slots(&[0, 65_535]), 1);
    let mut many = vec![2_u16; 32_700];
    many[0] = 1;
    assert_eq!(slots(&many), 65_399);
    let mut many = vec![1_u16; 32_768];
    many[0] = 2;
    assert_eq!(try_one(weighted(&many)), Err(limit), "the weights' entry has a 16-bit length");
}

#[test]
fn a_node_has_255_addresses_and_prefixes_of_a_kind() {
    let s = || [with(some_endpoints(1))];
    let node = |addresses: u32, cidrs: usize| NodeSpec {
        addresses: (0..addresses).map(|i| v4(0xc000_0200 + i)).collect(),
        cluster: vec![cidr("2001:db8::/32"); cidrs],
        service: vec![cidr("2001:db8::/32"); cidrs],
        node_port: vec![cidr("192.0.2.0/24"); cidrs],
        ..NodeSpec::default()
    };
    let bytes = build(&node(255, 255), &s());
    let program = Program::new_checked(&bytes).unwrap();
    assert_eq!(program.context().addresses().last(), Some(ip("192.0.2.254")));
    assert_eq!(program.context().cluster_cidrs().count(), 255);
    assert_eq!(program.context().service_cidrs().count(), 255);
    assert_eq!(program.context().node_port_cidrs().last(), Some(cidr("192.0.2.0/24")));
    assert_eq!(try_build(&node(256, 0), &s()), Err(CompileError::Node));
    assert_eq!(try_build(&node(0, 256), &s()), Err(CompileError::Node));

    let name = "n".repeat(256);
    let tables = Tables::new(&NodeSpec::default(), &s());
    let mut table = tables.as_table();
    table.node.name = &name[..255];
    let bytes = compile_table(&table).unwrap();
    assert_eq!(Program::new_checked(&bytes).unwrap().node_name(), &name[..255]);
    table.node.name = &name;
    assert_eq!(compile_table(&table), Err(CompileError::Node));
}

#[test]
fn names_have_255_bytes_and_hosts_65535() {
    let named = |name: usize, hosts: usize| ServiceSpec {
        name: "é".repeat(name / 2) + &"n".repeat(name % 2),
        hosts: "h".repeat(hosts),
        ..with(None)
    };
    let bytes = try_one(named(255, 65_535)).unwrap();
    let program = Program::new_checked(&bytes).unwrap();
    let name = program.services().next().unwrap().1.unwrap();
    assert_eq!((name.name.len(), name.hosts.len()), (255, 65_535));
    assert_eq!(try_one(named(256, 0)), Err(CompileError::Name { service: 0 }));
    assert_eq!(try_one(named(0, 0)), Err(CompileError::Name { service: 0 }));
    assert_eq!(try_one(named(1, 65_536)), Err(CompileError::Name { service: 0 }));
}

#[test]
fn a_service_has_3800_source_ranges() {
    let ranged = |n: usize| ServiceSpec {
        ranges: vec![cidr("2001:db8::/32"); n],
        ..with(None).frontend(FrontendKind::LoadBalancer, "2001:db8::1", 80)
    };
    let bytes = try_one(ranged(3_800)).unwrap();
    let program = Program::new_checked(&bytes).unwrap();
    let lb = program.find(ip("2001:db8::1"), Protocol::Tcp, 80).unwrap();
    assert_eq!(lb.record.source_ranges().unwrap().count(), 3_800);
    assert_eq!(try_one(ranged(3_801)), Err(CompileError::TooMany { service: 0 }));
}

#[test]
fn a_shard_has_16384_frontends_on_average() {
    for (n, shards, pilots) in
        [(1_u32, 1, 2), (2, 1, 2), (3, 1, 3), (17, 1, 7), (16_383, 1, 5_463), (16_384, 2, 2 * 2_732)]
    {
        let services: Vec<ServiceSpec> = (0..n)
            .map(|i| {
                let port = 1000 + i as u16;
                ServiceSpec::new(&format!("a/{i:05}")).frontend(FrontendKind::ExternalIp, "10.0.0.1", port)
            })
            .collect();
        let bytes = build(&NodeSpec::default(), &services);
        let program = Program::new_checked(&bytes).unwrap();
        // header; slots of 20 bits, 24 of address and 12 or 20 of record, in shards of one size; pilots; records of a byte
        let slots = usize::from(u16::from_le_bytes([bytes[36], bytes[37]])) * shards;
        assert!(slots <= n as usize + n as usize / 50 + shards, "{n} frontends, {slots} slots");
        let width = if n < 0x1000 { 7 } else { 8 };
        let map = (n as usize - 1) / 255;
        assert_eq!(strip(&bytes).len(), 48 + slots * width + pilots + map + n as usize, "{n} frontends");
        for port in (1000..65_535).step_by(if n > 100 { 97 } else { 1 }) {
            let is_there = (1000..1000 + n).contains(&port);
            assert_eq!(program.find(ip("10.0.0.1"), Protocol::Tcp, port as u16).is_some(), is_there);
        }
    }
}

#[test]
fn a_plain_record_has_31_endpoints() {
    let len = |n| strip(&try_one(with(some_endpoints(n))).unwrap()).len();
    assert_eq!(len(31) - len(30), 3);
    assert_eq!(len(32) - len(31), 3 + 1, "a number of its own behind the flags");
    for n in [30, 31, 32] {
        let bytes = try_one(with(some_endpoints(n))).unwrap();
        let program = Program::new_checked(&bytes).unwrap();
        check_program(&program);
        let last = program.records().next().unwrap().cluster().draw(u32::MAX).unwrap();
        assert_eq!(last.address.ip(), v4(0x0a80_0000 + n));
    }
}

/// Large services and then a small one, so that the last record's offset is about as large as a slot can hold.
#[test]
fn record_offsets_grow_with_the_records() {
    for (records, width) in [(0xfff_usize, 0), (0x1000, 1), (0xf_ffff, 1), (0x10_0000, 2)] {
        // A record of n endpoints has 3 + 3n bytes, a byte more above 31 and another above 255; an empty one 1.
        let mut sizes = vec![];
        let mut left = records - 1;
        while left > 1_000 {
            let most = (left.min(150_000) - 5) / 3;
            sizes.push(most);
            left -= 5 + 3 * most;
        }
        sizes.resize(sizes.len() + left, 0);
        let mut services: Vec<ServiceSpec> = (0_u32..)
            .zip(&sizes)
            .map(|(i, &size)| {
                let mut s = ServiceSpec::new(&format!("a/{i}"));
                s.frontends.push((FrontendKind::ClusterIp, v4(0x0a60_0001 + i), 80));
                s.endpoints.extend(some_endpoints(size as u32));
                s
            })
            .collect();
        services.push(ServiceSpec::new("z/last").frontend(FrontendKind::ClusterIp, "10.99.0.1", 80));
        let bytes = build(&NodeSpec::default(), &services);
        let records_len = u32::from_le_bytes(bytes[40..44].try_into().unwrap());
        assert_eq!((records_len as usize, bytes[5] >> 4 & 3), (records, width));
        let program = Program::new_checked(&bytes).unwrap();
        let last = program.find(ip("10.99.0.1"), Protocol::Tcp, 80).unwrap();
        assert_eq!(program.name_of(&last.record).unwrap().name, "z/last");
        assert_eq!(program.frontends().count(), services.len());
    }
}

/// Gaps of every size: all forms that a gap has, and blocks that end everywhere.
#[test]
fn cluster_ips_are_found_among_neighbours_near_and_far() {
    let mut addresses: Vec<u32> = (0..31).map(|bit| 1 << bit).chain([u32::MAX, u32::MAX - 1]).collect();
    addresses.extend((0..700).map(|i| 0x0a60_0000 + i)); // a block holds 473 neighbours
    addresses.extend((0..400).map(|i| 0xac10_0000 + i * i * 3));
    for taken in [1, 2, 7, 40, 500, addresses.len()] {
        let addresses = &addresses[..taken];
        let services: Vec<ServiceSpec> = (0..)
            .zip(addresses)
            .map(|(i, &a)| {
                let mut s = ServiceSpec::new(&format!("a/{i}"));
                s.frontends.push((FrontendKind::ClusterIp, v4(a), 80));
                s
            })
            .collect();
        let bytes = build(&NodeSpec::default(), &services);
        let program = Program::new_checked(&bytes).unwrap();
        let mut sorted = addresses.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert!(program.cluster_ips().eq(sorted.iter().map(|&a| v4(a))), "{taken}");
        for &address in addresses {
            for near in [address.wrapping_sub(1), address, address.wrapping_add(1)] {
                assert_eq!(
                    program.is_cluster_ip(v4(near)),
                    sorted.binary_search(&near).is_ok(),
                    "{near:#x} of {taken}"
                );
            }
        }
    }
}

#[test]
fn an_address_whose_last_three_octets_are_zero_is_no_node_port() {
    let spec = |address: &str| {
        [ServiceSpec::new("a/b")
            .frontend(FrontendKind::ClusterIp, address, 80)
            .frontend(FrontendKind::NodePort, "0.0.0.0", 30_080)
            .endpoint("10.0.0.0", 80)
            .endpoint("10.255.255.255", 80)]
    };
    for address in ["10.0.0.0", "10.0.0.1"] {
        let bytes = build(&NodeSpec::default(), &spec(address));
        assert_ne!(bytes[5] & 2, 0, "{address} is stored in three bytes");
        let program = Program::new_checked(&bytes).unwrap();
        check_program(&program);
        assert_eq!(program.find(ip(address), Protocol::Tcp, 80).unwrap().kind, FrontendKind::ClusterIp);
        assert_eq!(program.find(ip(address), Protocol::Tcp, 30_080), None);
        assert_eq!(program.find_node_port(ip(address), Protocol::Tcp, 80), None);
        assert!(!program.is_cluster_ip(ip("0.0.0.0")) && program.is_cluster_ip(ip(address)));
        let list = program.records().next().unwrap().cluster();
        assert_eq!(list.get(0).unwrap().address.to_string(), "10.0.0.0:80");
    }
}

#[test]
fn a_span_of_a_table_from_a_wire_asks_for_no_memory_that_the_table_has_not() {
    let mut tables = Tables::new(&NodeSpec::default(), &[with(some_endpoints(3))]);
    let (scratch, out) = (scratch_len(&tables.as_table()), max_len(&tables.as_table()));
    for span in [Span { start: 0, len: u32::MAX }, Span { start: u32::MAX, len: u32::MAX }] {
        tables.services[0].endpoints = span;
        tables.services[0].frontends = span;
        tables.services[0].source_ranges = span;
        tables.services[0].hosts = span;
        assert!(scratch_len(&tables.as_table()) <= scratch && max_len(&tables.as_table()) <= out + 64);
        assert_eq!(compile_table(&tables.as_table()), Err(CompileError::Span { service: 0 }));
    }
}

#[test]
fn too_little_memory_is_an_error_at_every_length() {
    let services: Vec<ServiceSpec> =
        (1..30).map(|i| ServiceSpec { name: format!("a/{i}"), ..with(some_endpoints(3)) }).collect();
    let services: Vec<ServiceSpec> = (1..30)
        .zip(services)
        .map(|(i, mut s)| {
            s.frontends[0].2 = i;
            s
        })
        .collect();
    let tables = Tables::new(&NodeSpec::default(), &services);
    let table = tables.as_table();
    let whole = compile_table(&table).unwrap();
    let mut out = vec![0; max_len(&table)];
    for words in 0..scratch_len(&table) {
        match compile(&table, &mut vec![0; words], &mut out) {
            Ok(len) => assert_eq!(out[..len], whole),
            Err(e) => assert_eq!(e, CompileError::ScratchTooSmall, "{words} words"),
        }
    }
    let mut scratch = vec![0; scratch_len(&table)];
    for len in 0..max_len(&table) {
        let out = &mut out[..len];
        match compile(&table, &mut scratch, out) {
            Ok(len) => assert_eq!(out[..len], whole),
            Err(e) => assert_eq!(e, CompileError::OutputTooSmall, "{len} bytes"),
        }
    }
}

/// 10,000 services, a ClusterIP each, ten endpoints each; addresses in 10/8; in every fifth service the endpoints' ports
/// differ.
fn ten_thousand() -> Tables {
    let services: Vec<ServiceSpec> = (0..10_000_u32)
        .map(|i| {
            let mut s = ServiceSpec::new(&format!("namespace-{}/service-{i}:http", i % 50));
            s.frontends.push((
                FrontendKind::ClusterIp,
                v4(0x0a00_0001 + i.wrapping_mul(0x9e37_79b9) % 0x00ff_ffff),
                80,
            ));
            s.endpoints.extend((0..10).map(|j| {
                let port = if i % 5 == 0 { 8080 + j as u16 } else { 8080 };
                Endpoint::new(v4(0x0a80_0000 + i * 10 + j), port)
            }));
            s
        })
        .collect();
    Tables::new(&NodeSpec::default(), &services)
}

#[test]
fn ten_thousand_services_of_ten_endpoints_take_at_most_47_bytes_each() {
    let bytes = strip(&compile_table(&ten_thousand().as_table()).unwrap());
    let each = bytes.len() as f64 / 10_000.0;
    println!("{} bytes, {each:.2} bytes a service", bytes.len());
    assert!(each <= 47.0, "{each} bytes a service");
}

/// `cargo test --release -p natlet-core --test limits -- --ignored --nocapture`
#[test]
#[ignore = "measures; says nothing in debug"]
fn speed_of_ten_thousand_services() {
    let tables = ten_thousand();
    let table = tables.as_table();
    let (mut scratch, mut out) = (vec![0; scratch_len(&table)], vec![0; max_len(&table)]);
    for _ in 0..3 {
        let start = Instant::now();
        let len = compile(&table, &mut scratch, &mut out).unwrap();
        let compiled = start.elapsed();
        let start = Instant::now();
        let program = Program::new_checked(&out[..len]).unwrap();
        let opened = start.elapsed();
        let start = Instant::now();
        let mut found = 0;
        for _ in 0..100 {
            for f in &tables.frontends {
                found += usize::from(program.find(f.address, Protocol::Tcp, f.port).is_some());
            }
        }
        let each = start.elapsed() / 1_000_000;
        assert_eq!(found, 1_000_000);
        let source = ip("203.0.113.1");
        let start = Instant::now();
        let mut drawn = 0_u32;
        for i in 0..100_u32 {
            for f in &tables.frontends {
                let packet = program.packet(source, f.address, Protocol::Tcp, f.port);
                let endpoint = program.decide(&packet).endpoints().unwrap().draw(i << 24).unwrap();
                drawn = drawn.wrapping_add(endpoint.address.port().into());
            }
        }
        let decided = start.elapsed() / 1_000_000;
        println!("compile {compiled:?}, check {opened:?}, find {each:?}, decide and draw {decided:?} ({drawn})");
    }
}
