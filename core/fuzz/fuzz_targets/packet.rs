//! Any bytes as a packet, after any packets: the translator never panics, what it says is what it did, and what it
//! rewrites has valid checksums if the input had them; the first answer to a forwarded packet is translated back.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use common::packet::{read, transport_is_valid};
use common::rig::{Out, Rig, program};
use common::{NodeSpec, ServiceSpec, cidr, ip};
use libfuzzer_sys::fuzz_target;
use natlet_core::translate::{
    AffinityV4, AffinityV6, Bucket, Config, FlowV4, FlowV6, FragmentsV4, FragmentsV6, Hook, Memory, PortRange, buckets_for,
};
use natlet_core::{FrontendKind, Program, Protocol};
use std::sync::LazyLock;

static PROGRAMS: LazyLock<[Program<'static>; 2]> = LazyLock::new(|| [build(1), build(2)]);

/// Services with this many IPv4 endpoints.
fn build(endpoints: usize) -> Program<'static> {
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
        s.endpoints.drain(..2 - endpoints);
        s.affinity = if protocol == Protocol::Udp { 60 } else { 0 };
        s
    });
    program(&node, &services)
}

fn is_valid(packet: &[u8]) -> bool {
    std::panic::catch_unwind(|| transport_is_valid(&read(packet))).unwrap_or(false)
}

fuzz_target!(init: { std::panic::set_hook(Box::new(|_| ())); }, |input: &[u8]| {
    let mut flows_v4 = [FlowV4::EMPTY; 12];
    let mut flows_v6 = [FlowV6::EMPTY; 12];
    let (mut buckets_v4, mut buckets_v6) = ([Bucket::EMPTY; buckets_for(12)], [Bucket::EMPTY; buckets_for(12)]);
    let (mut affinity_v4, mut affinity_v6) = ([AffinityV4::EMPTY; 8], [AffinityV6::EMPTY; 4]);
    let (mut fragments_v4, mut fragments_v6) = ([FragmentsV4::EMPTY; 8], [FragmentsV6::EMPTY; 8]);
    let memory = Memory {
        flows_v4: &mut flows_v4,
        buckets_v4: &mut buckets_v4,
        flows_v6: &mut flows_v6,
        buckets_v6: &mut buckets_v6,
        affinity_v4: &mut affinity_v4,
        affinity_v6: &mut affinity_v6,
        fragments_v4: &mut fragments_v4,
        fragments_v6: &mut fragments_v6,
    };
    let config = Config { ports: PortRange::new(40_000, 40_007).unwrap(), ..Config::new([1, 2]) };
    let mut rig = Rig::over(PROGRAMS[0], memory, &config);
    let mut rest = input;
    while let [kind, step, len, tail @ ..] = rest {
        let (packet, next) = tail.split_at((*len as usize).min(tail.len()));
        rest = next;
        rig.now += u64::from(*step) * u64::from(*step) * 10;
        let mut packet = packet.to_vec();
        if kind & 1 != 0 {
            put_right(&mut packet);
        }
        check(&mut rig, if kind & 2 == 0 { Hook::Arriving } else { Hook::Local }, &packet);
        if kind & 4 != 0 {
            rig.t.expire(rig.time(), 4);
        }
        if kind & 0x18 == 0x18 {
            let replaced = rig.t.replace_program(rig.time(), PROGRAMS[usize::from(kind >> 5 & 1)]);
            assert_eq!(replaced.kept, rig.t.live_flows());
        }
    }
    let c = rig.t.counters();
    let ended = c.flows_evicted + c.flows_expired + c.flows_replaced;
    assert_eq!(c.flows_opened, u64::from(rig.t.live_flows()) + ended, "every flow is somewhere");
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
                panic!();
            }
            identity(rig, packet, &out);
        }
        Out::Reply(out) if !is_valid(&out) => panic!(),
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
    let Out::Forward(back) = rig.send(&answer) else { panic!() };
    if ends(&back).map(|(a, b, _)| (a, b)) != Some((to, from)) {
        panic!();
    }
}
