//! Session affinity, weights, and programs that are swapped under live flows.
#![allow(clippy::pedantic, reason = "tests read better short")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    missing_docs
)]

mod common;

use common::packet::{socket, tcp, udp};
use common::rig::{Out, ROOM, Rig, Room, memory, program};
use common::{NodeSpec, ServiceSpec, cidr, ip};
use natlet_core::translate::{Config, Replaced, Translator};
use natlet_core::{Endpoint, FrontendKind, Policy, Protocol};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

fn node() -> NodeSpec {
    NodeSpec { addresses: vec![ip("192.0.2.1")], cluster: vec![cidr("10.244.0.0/16")], ..NodeSpec::default() }
}

fn service(endpoints: u8) -> ServiceSpec {
    let mut s = ServiceSpec::new("shop/web")
        .frontend(FrontendKind::ClusterIp, "10.96.0.10", 80)
        .frontend(FrontendKind::NodePort, "0.0.0.0", 30080)
        .frontend(FrontendKind::LoadBalancer, "198.51.100.1", 80);
    s.protocol = Protocol::Udp;
    for i in 0..endpoints {
        s = s.endpoint(&format!("10.244.9.{}", i + 1), 8080);
    }
    s
}

fn sticky(endpoints: u8) -> ServiceSpec {
    ServiceSpec { affinity: 60, ..service(endpoints) }
}

/// The endpoint of a new connection from a client's next port.
fn connect(rig: &mut Rig<'_, '_>, client: &str, frontend: &str, port: u16) -> SocketAddr {
    rig.send(&udp(SocketAddr::new(ip(client), port), socket(frontend), b"")).forwarded().to()
}

#[test]
fn affinity_is_shared_by_frontends_and_lasts_from_the_last_connection() {
    let mut rig = Rig::new(&node(), &[sticky(9)]);
    let first = connect(&mut rig, "10.244.3.3", "10.96.0.10:80", 1);
    for port in 2..20 {
        rig.now += 59_999;
        for frontend in ["10.96.0.10:80", "192.0.2.1:30080", "198.51.100.1:80"] {
            assert_eq!(connect(&mut rig, "10.244.3.3", frontend, port), first);
        }
    }
    let others: BTreeSet<_> =
        (1..30).map(|i| connect(&mut rig, &format!("10.244.4.{i}"), "10.96.0.10:80", 1)).collect();
    assert!(others.len() > 4, "other clients are elsewhere");
    let mut later = BTreeSet::new();
    for port in 100..120 {
        rig.now += 60_000;
        later.insert(connect(&mut rig, "10.244.3.3", "10.96.0.10:80", port));
    }
    assert!(later.len() > 4, "after the timeout it is drawn anew");
}

#[test]
fn affinity_of_two_services_is_apart_and_packets_of_a_flow_do_not_refresh() {
    let mut other = sticky(9);
    other.name = "shop/other".into();
    other.frontends = vec![(FrontendKind::ClusterIp, ip("10.96.0.11"), 80)];
    let mut rig = Rig::new(&node(), &[sticky(9), other]);
    let differ = (1..20).filter(|i| {
        let client = format!("10.244.4.{i}");
        connect(&mut rig, &client, "10.96.0.10:80", 1) != connect(&mut rig, &client, "10.96.0.11:80", 2)
    });
    assert!(differ.count() > 5);
    let first = connect(&mut rig, "10.244.3.3", "10.96.0.10:80", 1);
    for _ in 0..3 {
        rig.now += 30_000;
        assert_eq!(connect(&mut rig, "10.244.3.3", "10.96.0.10:80", 1), first, "an old flow goes on");
    }
    let new: BTreeSet<_> = (2..30)
        .map(|p| {
            rig.now += 60_000;
            connect(&mut rig, "10.244.3.3", "10.96.0.10:80", p)
        })
        .collect();
    assert!(new.len() > 3, "but is no new connection");
}

/// The list of the policy that applies decides whether a remembered endpoint is still good.
#[test]
fn affinity_stays_within_the_list_that_applies() {
    let mut s = sticky(8).local_endpoint("10.244.9.100", 8080);
    s.external = Policy::Local;
    let mut rig = Rig::new(&node(), &[s]);
    for i in 1..20 {
        let client = format!("203.0.113.{i}");
        connect(&mut rig, &client, "10.96.0.10:80", 1);
        assert_eq!(connect(&mut rig, &client, "198.51.100.1:80", 2), socket("10.244.9.100:8080"));
    }
}

#[test]
fn affinity_without_memory_or_with_too_little() {
    for affinity in [0, 3, 4, 8] {
        let mut rig = Rig::with(program(&node(), &[sticky(9)]), Room { affinity, ..ROOM }, Config::new([1, 2]));
        for i in 1..60_u16 {
            connect(&mut rig, &format!("10.244.4.{i}"), "10.96.0.10:80", 1);
            rig.now += 1;
        }
        let usable = affinity / 4 * 4;
        let evicted = rig.t.counters().affinity_evicted;
        assert_eq!(evicted > 0, usable > 0);
        assert!(usable == 0 || evicted >= 59 - usable as u64, "{evicted} of {usable}");
        let again = connect(&mut rig, "10.244.4.59", "10.96.0.10:80", 2);
        if usable > 0 {
            for port in 3..9 {
                assert_eq!(connect(&mut rig, "10.244.4.59", "10.96.0.10:80", port), again, "the newest is remembered");
            }
        }
    }
}

#[test]
fn source_hash_choice_is_the_decisions() {
    let s = ServiceSpec { choice: natlet_core::Choice::SourceHash, ..service(9) };
    let mut rig = Rig::new(&node(), &[s]);
    let mut all = BTreeSet::new();
    for i in 1..60 {
        let client = format!("10.244.4.{i}");
        let p = *rig.t.program();
        let expected = p.decide(&p.packet(ip(&client), ip("10.96.0.10"), Protocol::Udp, 80)).hashed().unwrap().address;
        for port in 1..4 {
            assert_eq!(connect(&mut rig, &client, "10.96.0.10:80", port), expected);
        }
        all.insert(expected);
    }
    assert!(all.len() > 5);
}

#[test]
fn weights() {
    let mut s = service(0);
    for (i, weight) in [1_u16, 3, 0].into_iter().enumerate() {
        s.endpoints.push(Endpoint { weight, ..Endpoint::new(ip(&format!("10.244.9.{}", i + 1)), 8080) });
    }
    let mut rig = Rig::with(program(&node(), &[s]), Room { flows: 4_096, ..ROOM }, Config::new([1, 2]));
    let mut counts = BTreeMap::new();
    for port in 1..=4_000 {
        *counts.entry(connect(&mut rig, "10.244.3.3", "10.96.0.10:80", port)).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 2, "weight 0 takes none");
    assert!((850..1_150).contains(&counts[&socket("10.244.9.1:8080")]), "{counts:?}");
}

#[test]
fn flows_to_endpoints_that_are_gone_end_and_the_others_live() {
    let mut rig = Rig::with(program(&node(), &[service(4)]), Room { flows: 128, ..ROOM }, Config::new([1, 2]));
    let before: Vec<SocketAddr> = (1..=100).map(|p| connect(&mut rig, "10.244.3.3", "10.96.0.10:80", p)).collect();
    let same = rig.t.replace_program(rig.time(), program(&node(), &[service(4)]));
    assert_eq!(same, Replaced { kept: 100, ended: 0 });
    let mut two = service(2);
    two.frontends.push((FrontendKind::ExternalIp, ip("198.51.100.9"), 80));
    let replaced = rig.t.replace_program(rig.time(), program(&node(), &[two]));
    let kept = before.iter().filter(|e| **e == socket("10.244.9.1:8080") || **e == socket("10.244.9.2:8080")).count();
    assert_eq!(replaced, Replaced { kept: kept as u32, ended: 100 - kept as u32 });
    assert_eq!(rig.t.counters().flows_replaced, 100 - kept as u64);
    for (p, old) in (1..=100).zip(before) {
        let lives = old == socket("10.244.9.1:8080") || old == socket("10.244.9.2:8080");
        let answer = rig.send(&udp(old, SocketAddr::new(ip("10.244.3.3"), p), b""));
        assert_eq!(matches!(answer, Out::Forward(_)), lives, "answers of {old}");
        let now = connect(&mut rig, "10.244.3.3", "10.96.0.10:80", p);
        assert!(if lives { now == old } else { now.ip() < ip("10.244.9.3") });
    }
    // the frontend goes, though its endpoints stay
    let mut moved = service(2);
    moved.frontends = vec![(FrontendKind::ClusterIp, ip("10.96.0.77"), 80)];
    let replaced = rig.t.replace_program(rig.time(), program(&node(), &[moved]));
    assert_eq!((replaced.kept, rig.t.live_flows()), (0, 0));
}

#[test]
fn node_port_flows_and_affinity_survive_a_new_program() {
    let mut rig = Rig::with(program(&node(), &[sticky(9)]), Room { affinity: 256, ..ROOM }, Config::new([1, 2]));
    let first = connect(&mut rig, "203.0.113.5", "192.0.2.1:30080", 1);
    let clients: BTreeMap<String, SocketAddr> = (1..20)
        .map(|i| format!("10.244.4.{i}"))
        .map(|c| (c.clone(), connect(&mut rig, &c, "10.96.0.10:80", 1)))
        .collect();
    // services before it move its record; one endpoint goes
    let mut more: Vec<ServiceSpec> = (0..30)
        .map(|i| {
            ServiceSpec::new(&format!("a/{i}"))
                .frontend(FrontendKind::ClusterIp, &format!("10.97.0.{i}"), 1)
                .endpoint("10.244.8.8", 1)
        })
        .collect();
    let mut s = sticky(9);
    s.endpoints.retain(|e| e.address != first.ip());
    more.push(s.clone());
    rig.t.replace_program(rig.time(), program(&node(), &more));
    for (client, endpoint) in &clients {
        let again: BTreeSet<_> = (2..6).map(|p| connect(&mut rig, client, "10.96.0.10:80", p)).collect();
        assert_eq!(again.len(), 1, "sticky");
        assert_eq!(again.contains(endpoint), *endpoint != first, "remembered unless it is gone");
    }
    s.affinity = 0;
    rig.t.replace_program(rig.time(), program(&node(), &[s]));
    let free: BTreeSet<_> = (10..40).map(|p| connect(&mut rig, "10.244.4.1", "10.96.0.10:80", p)).collect();
    assert!(free.len() > 1, "affinity is off");
}

/// A device with two buffers: the old program's memory is free after the swap.
#[test]
fn the_old_programs_memory_is_free_after_a_swap() {
    let bytes = |endpoints| common::build(&node(), &[service(endpoints)]);
    let mut a = bytes(1);
    let b = bytes(2);
    let now = natlet_core::translate::Instant::from_millis(0);
    let first = natlet_core::Program::new_checked(&a).unwrap();
    let mut t = Translator::new(first, memory(ROOM), &Config::new([1, 2]));
    let mut p = tcp(socket("10.244.3.3:1"), socket("10.96.0.10:80"), "S", b"");
    let _ = t.process(now, natlet_core::translate::Hook::Arriving, &mut || 0, &mut p, &mut []);
    let (t, replaced) = t.with_program(now, natlet_core::Program::new_checked(&b).unwrap());
    a.clear();
    assert_eq!(replaced.kept, t.live_flows());
}
