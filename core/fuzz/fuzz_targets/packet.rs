//! Any bytes as a packet, after any packets: the translator never panics, what it says is what it did, and what it
//! rewrites has valid checksums if the input had them; the first answer to a forwarded packet is translated back.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use common::packet::{read, transport_is_valid};
use common::rig::{Out, Rig, Room, program};
use common::{NodeSpec, ServiceSpec, cidr, ip};
use libfuzzer_sys::fuzz_target;
use natlet_core::translate::{Config, Hook, PortRange};
use natlet_core::{FrontendKind, Program, Protocol};
use std::sync::LazyLock;

static PROGRAM: LazyLock<Program<'static>> = LazyLock::new(|| {
    let node = NodeSpec {
        addresses: vec![ip("192.0.2.1"), ip("2001:db8::1")],
        cluster: vec![cidr("10.244.0.0/16"), cidr("2001:db8:244::/48")],
        service: vec![cidr("10.96.0.0/12")],
        ..NodeSpec::default()
    };
    let services = Protocol::ALL.map(|protocol| {
        let mut s = ServiceSpec::new(&format!("shop/{protocol}"))
            .frontend(FrontendKind::ClusterIp, "10.96.0.10", 80)
            .frontend(FrontendKind::NodePort, "0.0.0.0", 30080)
            .frontend(FrontendKind::ClusterIp, "2001:db8:96::10", 80)
            .endpoint("10.244.2.9", 8080)
            .endpoint("10.244.2.10", 8081)
            .endpoint("2001:db8:244::9", 8080);
        s.protocol = protocol;
        s.affinity = if protocol == Protocol::Udp { 60 } else { 0 };
        s
    });
    program(&node, &services)
});

fn is_valid(packet: &[u8]) -> bool {
    std::panic::catch_unwind(|| transport_is_valid(&read(packet))).unwrap_or(false)
}

fuzz_target!(init: { std::panic::set_hook(Box::new(|_| ())); }, |input: &[u8]| {
    // the memory of a rig is leaked by design of the test helper: a small one
    thread_local!(static RIG: std::cell::RefCell<Option<Rig>> = const { std::cell::RefCell::new(None) });
    RIG.with_borrow_mut(|rig| {
        let rig = rig.get_or_insert_with(|| {
            let config = Config { ports: PortRange::new(40_000, 40_031).unwrap(), ..Config::new([1, 2]) };
            Rig::with(*PROGRAM, Room { flows: 24, affinity: 8, fragments: 8 }, config)
        });
        let mut rest = input;
        while let [kind, step, len, tail @ ..] = rest {
            let (packet, next) = tail.split_at((*len as usize).min(tail.len()));
            rest = next;
            rig.now += u64::from(*step) * u64::from(*step) * 10;
            let mut packet = packet.to_vec();
            if kind & 1 != 0 {
                put_right(&mut packet);
            }
            check(rig, if kind & 2 == 0 { Hook::Arriving } else { Hook::Local }, &packet);
            if kind & 4 != 0 {
                rig.t.expire(rig.time(), 4);
            }
        }
        let c = rig.t.counters();
        let ended = c.flows_evicted + c.flows_expired + c.flows_replaced;
        if c.flows_opened != u64::from(rig.t.live_flows()) + ended {
            std::process::abort();
        }
    });
});

/// Makes lengths and the header's checksum fit, so that more is reached.
fn put_right(packet: &mut [u8]) {
    if packet.len() >= 20 && packet[0] >> 4 == 4 {
        let len = (packet.len() as u16).to_be_bytes();
        packet[2..4].copy_from_slice(&len);
        packet[10..12].fill(0);
        let header = (packet[0] & 15) as usize * 4;
        if (20..=packet.len()).contains(&header) {
            let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&packet[..header]);
            packet[10..12].copy_from_slice(&sum.ones_complement().to_ne_bytes());
        }
    } else if packet.len() >= 40 && packet[0] >> 4 == 6 {
        let len = ((packet.len() - 40) as u16).to_be_bytes();
        packet[4..6].copy_from_slice(&len);
    }
}

fn check(rig: &mut Rig, hook: Hook, packet: &[u8]) {
    let was_valid = is_valid(packet);
    match rig.send_from(hook, packet) {
        Out::Forward(out) => {
            if out.len() != packet.len() || was_valid && !is_valid(&out) {
                std::process::abort();
            }
            identity(rig, packet, &out);
        }
        Out::Reply(out) if !is_valid(&out) => std::process::abort(),
        _ => {}
    }
}

/// A TCP or UDP packet's answer comes back with the original addresses and ports, reversed.
fn identity(rig: &mut Rig, packet: &[u8], out: &[u8]) {
    let ends = |p: &[u8]| std::panic::catch_unwind(|| {
        let r = read(p);
        (matches!(r.protocol, 6 | 17) && !r.fragmented && r.body.len() >= 20).then(|| (r.from(), r.to(), r.protocol))
    }).ok().flatten();
    let (Some((from, to, protocol)), Some((new_from, new_to, _))) = (ends(packet), ends(out)) else { return };
    let answer = match protocol {
        6 => common::packet::tcp(new_to, new_from, "A", b"answer"),
        _ => common::packet::udp(new_to, new_from, b"a longer answer"),
    };
    let Out::Forward(back) = rig.send(&answer) else { std::process::abort() };
    if ends(&back).map(|(a, b, _)| (a, b)) != Some((to, from)) {
        std::process::abort();
    }
}
