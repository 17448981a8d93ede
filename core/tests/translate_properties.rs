//! What holds for any packets: identity there and back, valid checksums, no panic, counters that add up.
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

use common::packet::{read, read_valid, sctp, tcp, transport_is_valid, udp};
use common::random::{TableSpec, address, port, protocol, table};
use common::rig::{Out, ROOM, Rig, program};
use common::{NodeSpec, ServiceSpec, try_build};
use natlet_core::translate::{Config, DropReason, Hook};
use natlet_core::{FrontendKind, Protocol, Verdict};
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

fn packet(protocol: Protocol, from: SocketAddr, to: SocketAddr, flags: &str, payload: &[u8]) -> Vec<u8> {
    match protocol {
        Protocol::Tcp => tcp(from, to, flags, payload),
        Protocol::Udp => udp(from, to, payload),
        Protocol::Sctp => sctp(from, to, if flags == "S" { 1 } else { 0 }, payload),
    }
}

fn total(rig: &Rig<'_, '_>) -> u64 {
    let c = rig.t.counters();
    c.forwarded + c.passed + c.answered + c.drops().map(|(_, n)| n).sum::<u64>()
}

proptest! {
    /// Over random tables: each packet gets the verdict that the program has for it, and an answer to what was forwarded
    /// comes back from where the client had sent it.
    #[test]
    fn original_to_reply_to_original(
        spec in table(),
        packets in vec((address(), address(), protocol(), port(), 1_024_u16..1_030, vec(any::<u8>(), 0..40)), 1..20),
    ) {
        let TableSpec { node, services } = spec;
        prop_assume!(try_build(&node, &services).is_ok());
        let p = program(&node, &services);
        let mut rig = Rig::with(p, ROOM, Config::new([7, 8]));
        let mut sent = 0;
        for (source, destination, protocol, port, from_port, payload) in packets {
            if source.is_ipv4() != destination.is_ipv4() {
                continue;
            }
            let (from, to) = (SocketAddr::new(source, from_port), SocketAddr::new(destination, port));
            let known = rig.t.flows(rig.time()).any(|f| {
                let same = |a, b| f.protocol == protocol && (from, to) == (a, b);
                same(f.client, f.frontend) || same(f.endpoint, f.source)
            });
            let mut question = p.packet(source, destination, protocol, port);
            question.from_node = true;
            let decision = p.decide(&question);
            let out = rig.send_from(Hook::Local, &packet(protocol, from, to, "S", &payload));
            sent += 1;
            match (out, decision.verdict) {
                (Out::Forward(bytes), verdict) => {
                    prop_assert!(known || verdict == Verdict::Dnat);
                    let read = read_valid(&bytes);
                    if !known {
                        let list = decision.endpoints().unwrap();
                        prop_assert!(list.iter().any(|e| e.address == read.to()));
                    }
                    let back = rig.send(&packet(protocol, read.to(), read.from(), "A", b"answer"));
                    sent += 1;
                    if let Out::Forward(bytes) = back {
                        let back = read_valid(&bytes);
                        prop_assert_eq!((back.from(), back.to()), (to, from));
                    } else {
                        prop_assert!(false, "{:?}", back);
                    }
                }
                (Out::Pass, verdict) => prop_assert!(verdict == Verdict::Accept && !known),
                (Out::Reply(bytes), verdict) => {
                    let _ = read_valid(&bytes);
                    prop_assert_eq!(verdict, Verdict::Reject);
                }
                (Out::Drop(DropReason::NoSourceAddress | DropReason::Martian | DropReason::Unanswerable), _) => {}
                (Out::Drop(reason), verdict) => prop_assert!(verdict == Verdict::Drop, "{reason} {verdict}"),
            }
        }
        prop_assert_eq!(total(&rig), sent);
    }

    /// Any bytes behind a plausible header.
    #[test]
    fn any_bytes(starts in vec((0_usize..6, vec(any::<u8>(), 0..90), any::<u16>()), 1..30)) {
        let mut s = ServiceSpec::new("a/b").frontend(FrontendKind::ClusterIp, "10.96.0.10", 80).endpoint("10.244.2.9", 8080);
        s.protocol = Protocol::Udp;
        let mut rig = Rig::new(&NodeSpec::default(), &[s]);
        let n = starts.len() as u64;
        for (kind, bytes, flip) in starts {
            let (from, to) = (SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), 99), "10.96.0.10:80".parse().unwrap());
            let mut p = match kind {
                0 => bytes,
                1 => udp(from, to, &bytes),
                2 => tcp(from, to, "S", &bytes),
                3 => sctp(from, to, bytes.first().copied().unwrap_or(0), &bytes),
                4 => common::packet::icmp_error(to.ip(), from.ip(), "port", &bytes, 90),
                _ => [&[0x60, 0, 0, 0, 0, bytes.len() as u8, flip as u8, 9][..], &[0; 32], &bytes].concat(),
            };
            let before = p.clone();
            if flip & 1 != 0 && !p.is_empty() {
                let at = usize::from(flip >> 4) % p.len();
                p[at] ^= 1 << (flip >> 1 & 7);
            }
            let untouched = p == before && (1..4).contains(&kind);
            match rig.send(&p) {
                Out::Forward(out) => {
                    prop_assert_eq!(out.len(), p.len());
                    if untouched {
                        prop_assert!(transport_is_valid(&read(&out)));
                    }
                }
                Out::Reply(out) => { let _ = read_valid(&out); }
                _ => {}
            }
        }
        prop_assert_eq!(total(&rig), n);
    }
}
