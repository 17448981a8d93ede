//! What holds for every table and for every string of bytes.
#![allow(clippy::pedantic, reason = "tests read better short")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::panic
)]
#![allow(missing_docs)]

#[path = "common/mod.rs"]
mod common;
#[path = "common/oracle.rs"]
mod oracle;

use common::checks::{check_bytes, check_program, fix_checksum};
use common::random::{self, TableSpec};
use common::{ServiceSpec, Tables, build, compile_table, ip, strip};
use natlet_core::{Endpoint, FrontendKind, Policy, Program, Protocol, owned::OwnedTable};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};

/// Room for every table of `random::table`.
type Owned = OwnedTable<32, 256, 512, 128, 2048>;

fn compiled(table: &TableSpec) -> Vec<u8> {
    build(&table.node, &table.services)
}

/// The table with services, frontends and endpoints in another order.
fn shuffled(table: &TableSpec, seed: u64) -> TableSpec {
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed.to_le_bytes(); 4].concat());
    let mut other = table.clone();
    shuffle(&mut other.services, &mut rng);
    for s in &mut other.services {
        shuffle(&mut s.frontends, &mut rng);
        shuffle(&mut s.endpoints, &mut rng);
    }
    other
}

fn shuffle<T>(items: &mut [T], rng: &mut TestRng) {
    for i in (1..items.len()).rev() {
        items.swap(i, rng.next_u32() as usize % (i + 1));
    }
}

fn decide(program: &Program<'_>, packet: (IpAddr, IpAddr, Protocol, u16)) -> oracle::Answer {
    let (from, to, protocol, port) = packet;
    let d = program.decide(&program.packet(from, to, protocol, port));
    let endpoints: BTreeSet<_> =
        d.endpoints().into_iter().flat_map(|l| l.iter()).map(|e| (e.address, d.masquerades(&e))).collect();
    assert_eq!(endpoints.len(), d.endpoints().map_or(0, |l| l.len()), "no endpoint is there twice");
    oracle::Answer { verdict: d.verdict, endpoints }
}

/// `PROPTEST_CASES`, which `tests/emulated.sh` sets lower.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_frontend_is_found_with_its_service_and_nothing_else_is(
        table in random::table(),
        packets in proptest::collection::vec(random::packet(), 40),
    ) {
        let bytes = compiled(&table);
        let program = Program::new_checked(&bytes).unwrap();
        check_program(&program);
        let mut all = HashMap::new();
        for s in &table.services {
            for &(kind, address, port) in &s.frontends {
                all.insert((address, s.protocol, port), (kind, s));
            }
        }
        prop_assert_eq!(program.frontend_count() as usize, all.len());
        for (&(address, protocol, port), &(kind, service)) in &all {
            let found = match kind {
                FrontendKind::NodePort => program.find_node_port(address, protocol, port),
                _ => program.find(address, protocol, port),
            };
            let found = found.unwrap();
            let name = program.name_of(&found.record).unwrap();
            prop_assert_eq!((found.kind, name.name, name.protocol), (kind, &*service.name, protocol));
            prop_assert_eq!((name.service_type, name.hosts), (service.service_type, &*service.hosts));
            prop_assert_eq!(found.record.affinity_timeout().unwrap_or(0), service.affinity);
            prop_assert_eq!(found.record.choice(), service.choice);
            prop_assert_eq!(found.record.health_check_node_port().unwrap_or(0), service.health_check);
        }
        for (_, address, protocol, port) in packets {
            let is_some = all.contains_key(&(address, protocol, port));
            prop_assert_eq!(program.find(address, protocol, port).is_some(), is_some);
            let unspecified = if address.is_ipv4() { ip("0.0.0.0") } else { ip("::") };
            let is_some = all.contains_key(&(unspecified, protocol, port));
            prop_assert_eq!(program.find_node_port(address, protocol, port).is_some(), is_some);
            let listed = all.iter().any(|(k, v)| k.0 == address && v.0 == FrontendKind::ClusterIp);
            prop_assert_eq!(program.is_cluster_ip(address), listed);
        }
    }

    #[test]
    fn decisions_are_kube_proxys(
        table in random::table(),
        packets in proptest::collection::vec(random::packet(), 40),
        sources in proptest::collection::vec(random::address(), 4),
    ) {
        let bytes = compiled(&table);
        let stripped = strip(&bytes);
        let program = Program::new_checked(&bytes).unwrap();
        let bare = Program::new_checked(&stripped).unwrap();
        prop_assert_eq!(program.content_id(), bare.content_id());
        prop_assert!(bare.services().all(|(_, name)| name.is_none()));
        let to_frontends = table.services.iter().flat_map(|s| {
            let sources = &sources;
            s.frontends.iter().flat_map(move |&(_, to, port)| sources.iter().map(move |&from| (from, to, s.protocol, port)))
        });
        for packet in packets.into_iter().chain(to_frontends) {
            // families do not mix
            if packet.0.is_ipv4() != packet.1.is_ipv4() {
                continue;
            }
            let expected = oracle::answer(&table, packet.0, packet.1, packet.2, packet.3);
            prop_assert_eq!(&decide(&program, packet), &expected, "{:?}", packet);
            prop_assert_eq!(&decide(&bare, packet), &expected, "stripped, {:?}", packet);
        }
    }

    #[test]
    fn weights_are_the_shares_of_the_slots(table in random::table()) {
        let bytes = compiled(&table);
        for list in Program::new_checked(&bytes).unwrap().records().map(|r| r.cluster()) {
            let mut drawn = HashMap::new();
            for e in (0..list.slots()).map(|i| list.slot(i).unwrap()) {
                *drawn.entry(e.address).or_insert(0_u16) += 1;
            }
            let weights: HashMap<_, _> = list.iter().map(|e| (e.address, e.weight)).collect();
            prop_assert_eq!(drawn, weights);
        }
    }

    #[test]
    fn the_same_table_in_any_order_is_the_same_bytes(table in random::table(), seed: u64) {
        prop_assert_eq!(compiled(&table), compiled(&shuffled(&table, seed)));
    }

    #[test]
    fn another_table_has_another_id(table in random::table(), what in 0..9, at: prop::sample::Index) {
        prop_assume!(table.services.iter().any(|s| !s.frontends.is_empty()));
        let mut other = table.clone();
        let visible: Vec<usize> = (0..table.services.len()).filter(|&i| !table.services[i].frontends.is_empty()).collect();
        let s = &mut other.services[visible[at.index(visible.len())]];
        let new = if s.frontends[0].1.is_ipv4() { "10.244.9.9" } else { "2001:db8:9::1" };
        match what {
            0 => s.name.push('x'),
            1 => s.frontends[0].2 = 31_999,
            2 => s.endpoints.push(Endpoint { local: true, ..Endpoint::new(ip(new), 1) }),
            3 => s.affinity += 1,
            4 => s.health_check += 1,
            5 => s.hosts.push('x'),
            6 => drop(s.frontends.pop()),
            7 => other.node.masquerade_all ^= true,
            _ => other.node.addresses.push(ip("203.0.113.77")),
        }
        let (a, b) = (compiled(&table), compiled(&other));
        let id = |bytes| Program::new_checked(bytes).unwrap().content_id();
        prop_assert_ne!(id(&a), id(&b), "change {}", what);
    }

    #[test]
    fn a_table_survives_its_wire_form(table in random::table(), cut: prop::sample::Index) {
        let tables = Tables::new(&table.node, &table.services);
        let mut wire = vec![0; 1 << 16];
        let wire = tables.as_table().to_wire(&mut wire).unwrap();
        let owned = Owned::from_wire(wire).unwrap();
        prop_assert_eq!(owned.as_table(), tables.as_table());
        prop_assert_eq!(compile_table(&owned.as_table()).unwrap(), compiled(&table));
        let cut = &wire[..cut.index(wire.len())];
        prop_assert!(Owned::from_wire(cut).is_err());
        let mut reused = owned.clone();
        prop_assert!(reused.read_wire(cut).is_err());
        reused.read_wire(wire).unwrap();
        prop_assert_eq!(&reused, &owned);
        let mut again = vec![0; wire.len()];
        prop_assert_eq!(owned.as_table().to_wire(&mut again).unwrap(), wire);
    }

    #[test]
    fn a_damaged_wire_form_never_panics(
        table in random::table(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut wire = vec![0; 1 << 16];
        let tables = Tables::new(&table.node, &table.services);
        let wire = tables.as_table().to_wire(&mut wire).unwrap();
        for (at, byte) in changes {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        if let Ok(owned) = Owned::from_wire(wire)
            && let Ok(bytes) = compile_table(&owned.as_table())
        {
            check_program(&Program::new_checked(&bytes).unwrap());
        }
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), magic: bool) {
        if magic && bytes.len() >= 5 {
            bytes[..5].copy_from_slice(b"NATP\x02");
            fix_checksum(&mut bytes);
        }
        check_bytes(&bytes);
    }

    #[test]
    fn damaged_programs_with_a_right_checksum_are_refused_or_sound(
        table in random::table(),
        names: bool,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), change()), 1..4),
    ) {
        let whole = compiled(&table);
        let mut bytes = if names { whole } else { strip(&whole) };
        for (at, change) in changes {
            let at = at.index(bytes.len());
            match change {
                Change::Set(byte) => bytes[at] = byte,
                Change::Flip(bit) => bytes[at] ^= 1 << bit,
                Change::Insert(byte) => bytes.insert(at, byte),
                Change::Copy(from) => bytes[at] = bytes[from.index(bytes.len())],
            }
        }
        fix_checksum(&mut bytes);
        check_bytes(&bytes);
    }
}

#[derive(Clone, Debug)]
enum Change {
    Set(u8),
    Flip(u8),
    Insert(u8),
    Copy(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        any::<u8>().prop_map(Change::Set),
        (0_u8..8).prop_map(Change::Flip),
        any::<u8>().prop_map(Change::Insert),
        any::<prop::sample::Index>().prop_map(Change::Copy),
    ]
}

/// Every byte of a program in turn becomes each of a few values that mean something, and the checksum is put right.
#[test]
fn every_byte_of_a_program_can_be_anything() {
    let table = TableSpec {
        node: common::NodeSpec {
            addresses: vec![ip("192.0.2.1"), ip("2001:db8::1")],
            cluster: vec![common::cidr("10.244.0.0/16")],
            localhost: true,
            ..common::NodeSpec::default()
        },
        services: vec![
            ServiceSpec {
                internal: Policy::Local,
                affinity: 60,
                ranges: vec![common::cidr("192.0.2.0/24")],
                ..ServiceSpec::new("a/one")
                    .frontend(FrontendKind::ClusterIp, "10.96.0.1", 80)
                    .frontend(FrontendKind::LoadBalancer, "10.97.0.1", 80)
                    .frontend(FrontendKind::NodePort, "::", 30080)
                    .endpoint("10.244.0.1", 80)
                    .local_endpoint("10.244.0.2", 81)
            },
            ServiceSpec::new("a/two").frontend(FrontendKind::ClusterIp, "10.96.0.1", 81).endpoint("10.244.0.3", 82),
        ],
    };
    let many =
        (0..20_u16).map(|i| ServiceSpec::new(&format!("b/{i}")).frontend(FrontendKind::ClusterIp, "10.96.0.2", i + 1));
    let big = TableSpec { services: table.services.iter().cloned().chain(many).collect(), ..table.clone() };
    let every = (400 / cases()).max(1) as usize;
    let (mut accepted, mut tried) = (0, 0);
    for bytes in [compiled(&table), strip(&compiled(&table)), strip(&compiled(&big))] {
        assert!(check_bytes(&bytes));
        for at in (4..bytes.len()).step_by(every) {
            let old = bytes[at];
            let flips = (0..8).map(|bit| old ^ (1 << bit));
            for new in flips.chain([0, 1, 0xff, old.wrapping_add(1), old.wrapping_sub(1)]) {
                let mut other = bytes.clone();
                other[at] = new;
                fix_checksum(&mut other);
                accepted += u32::from(check_bytes(&other));
                tried += 1;
            }
        }
    }
    // addresses, ports, names and ids may be anything; lengths, offsets and flags may not
    assert!(accepted < tried * 3 / 4, "{accepted} of {tried}");
}

/// 20,000 are enough that placing them evicts several buckets at once, whose order once followed the table.
#[test]
fn the_order_of_many_frontends_does_not_matter() {
    for (n, step) in [(17_u32, 1), (300, 1), (3_000, 256), (20_000, 1)] {
        let service = |i: u32| {
            let mut s = ServiceSpec::new(&format!("n/{i}"));
            s.frontends.push((FrontendKind::ClusterIp, IpAddr::V4(Ipv4Addr::from_bits(0x0a60_0001 + i * step)), 80));
            s.frontends.push((FrontendKind::ExternalIp, IpAddr::V4(Ipv4Addr::from_bits(0xc612_0001 + i)), 80));
            s
        };
        let table = TableSpec { node: common::NodeSpec::default(), services: (0..n / 2 + 1).map(service).collect() };
        let bytes = compiled(&table);
        for seed in 0..3 {
            assert!(compiled(&shuffled(&table, seed)) == bytes, "{n} frontends, step {step}, order {seed}");
        }
    }
}
