//! Any bytes as a packet, after any packets: the translator never panics, what it says is what it did, and what it
//! rewrites has valid checksums if the input had them; the first answer to a forwarded packet is translated back.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
mod gateway;

use common::rig::program;
use common::{NodeSpec, ServiceSpec, cidr, ip};
use gateway::{Room, put_right};
use libfuzzer_sys::fuzz_target;
use natlet_core::translate::Hook;
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

fuzz_target!(init: gateway::quiet(), |input: &[u8]| {
    let mut room = Room::new();
    let mut gateway = room.gateway(PROGRAMS[0]);
    let mut rest = input;
    while let [kind, step, len, tail @ ..] = rest {
        let (packet, next) = tail.split_at((*len as usize).min(tail.len()));
        rest = next;
        gateway.wait(*step);
        let mut packet = packet.to_vec();
        if kind & 1 != 0 {
            put_right(&mut packet);
        }
        gateway.check(if kind & 2 == 0 { Hook::Arriving } else { Hook::Local }, &packet);
        if kind & 4 != 0 {
            gateway.sweep();
        }
        if kind & 0x18 == 0x18 {
            gateway.replace(PROGRAMS[usize::from(kind >> 5 & 1)]);
        }
    }
    gateway.finish();
});
