//! Any program and any packets through it: a table made of the input, the same with other endpoints, and the table's
//! program with bytes changed, where it still opens; packets to their frontends, packets of live flows, and any bytes,
//! while time runs and the programs are swapped. What holds of each packet is in `gateway.rs`.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
mod gateway;
mod random;

use common::packet::{sctp, tcp, udp};
use common::{checks, try_build};
use gateway::{Gateway, Room, put_right};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use natlet_core::translate::Hook;
use natlet_core::{FrontendKind, Program, Protocol};
use std::net::{IpAddr, SocketAddr};

fuzz_target!(init: gateway::quiet(), |input: &[u8]| {
    // the table's bytes come first, and packets keep theirs when the table takes more or fewer of them
    let [len, rest @ ..] = input else { return };
    let (table, packets) = rest.split_at((usize::from(*len) * 2).min(rest.len()));
    let Ok(Some(bytes)) = programs(&mut Unstructured::new(table)) else { return };
    let mut u = Unstructured::new(packets);
    let _ = changed(&bytes[0], &mut u).and_then(|changed| run(&bytes, &changed, &mut u));
});

/// A table's program, and that of fewer services with fewer endpoints; `None` where the table is refused.
fn programs(u: &mut Unstructured<'_>) -> Result<Option<[Vec<u8>; 2]>> {
    let (node, mut services) = (random::node(u)?, random::services(u)?);
    let Ok(before) = try_build(&node, &services) else { return Ok(None) };
    services.pop();
    for service in services.iter_mut().step_by(2) {
        let _ = service.endpoints.pop();
    }
    Ok(try_build(&node, &services).ok().map(|after| [before, after]))
}

/// A program with some bytes changed and its checksum put right: mostly refused.
fn changed(program: &[u8], u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut bytes = program.to_vec();
    for _ in 0..u.int_in_range(0..=3)? {
        let at = u.choose_index(bytes.len())?;
        bytes[at] = u.arbitrary()?;
    }
    checks::fix_checksum(&mut bytes);
    Ok(bytes)
}

/// Runs until the input is used up, which is the only error.
fn run(bytes: &[Vec<u8>], changed: &[u8], u: &mut Unstructured<'_>) -> Result<()> {
    let mut programs: Vec<Program<'_>> =
        bytes.iter().map(|b| Program::new_checked(b).expect("what compiles opens")).collect();
    programs.extend(Program::new_checked(changed).ok());
    let mut room = Room::new();
    // the changed one comes first where it opens
    let mut gateway = room.gateway(*programs.last().expect("there are at least two"));
    while !u.is_empty() {
        let at: u8 = u.arbitrary()?;
        gateway.wait(u.arbitrary()?);
        let hook = if at & 1 == 0 { Hook::Arriving } else { Hook::Local };
        match at >> 1 & 7 {
            0 => gateway.replace(*u.choose(&programs)?),
            1 => gateway.sweep(),
            2 => {
                let len = u.int_in_range(0..=200)?;
                let mut packet = u.bytes(len.min(u.len()))?.to_vec();
                put_right(&mut packet);
                gateway.check(hook, &packet);
            }
            3 | 4 => {
                if let Some((protocol, from, to)) = of_a_flow(&gateway, u)? {
                    gateway.check(hook, &packet(protocol, from, to, u)?);
                }
            }
            _ => {
                let (protocol, from, to) = to_a_frontend(&gateway, u)?;
                gateway.check(hook, &packet(protocol, from, to, u)?);
            }
        }
    }
    gateway.finish();
    Ok(())
}

type Ends = (Protocol, SocketAddr, SocketAddr);

/// One direction of a live flow.
fn of_a_flow(gateway: &Gateway<'_, '_>, u: &mut Unstructured<'_>) -> Result<Option<Ends>> {
    let flows: Vec<_> = gateway.rig.t.flows(gateway.rig.time()).collect();
    if flows.is_empty() {
        return Ok(None);
    }
    let flow = u.choose(&flows)?;
    let is_reply = u.arbitrary()?;
    Ok(Some(if is_reply {
        (flow.protocol, flow.endpoint, flow.source)
    } else {
        (flow.protocol, flow.client, flow.frontend)
    }))
}

/// From one of a few clients to a frontend of the program, or to where there is none.
fn to_a_frontend(gateway: &Gateway<'_, '_>, u: &mut Unstructured<'_>) -> Result<Ends> {
    let program = gateway.rig.t.program();
    let (source, elsewhere) = (random::address(u)?, random::address(u)?);
    let frontends = program.frontend_count() as usize;
    let number = u.int_in_range(0..=frontends)?;
    let (protocol, to) = match program.frontends().nth(number) {
        Some(f) if f.kind == FrontendKind::NodePort => {
            let own = program.context().addresses().find(|a| a.is_ipv4() == f.address.is_ipv4());
            (f.protocol, SocketAddr::new(own.unwrap_or(elsewhere), f.port))
        }
        Some(f) => (f.protocol, SocketAddr::new(f.address, f.port)),
        None => (*u.choose(&Protocol::ALL)?, SocketAddr::new(elsewhere, random::port(u)?)),
    };
    let source = match (source, to.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => source,
        (_, IpAddr::V4(_)) => IpAddr::from([203, 0, 113, 9]),
        (_, IpAddr::V6(_)) => IpAddr::from([0x2001, 0xdb8, 9, 0, 0, 0, 0, 9]),
    };
    Ok((protocol, SocketAddr::new(source, u.int_in_range(1_000..=1_007)?), to))
}

fn packet(protocol: Protocol, from: SocketAddr, to: SocketAddr, u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let payload = u.int_in_range(0..=60).and_then(|len: usize| u.bytes(len.min(u.len())))?;
    Ok(match protocol {
        Protocol::Tcp => tcp(from, to, *u.choose(&["S", "A", "SA", "FA", "R", "P", "SF"])?, payload),
        Protocol::Udp => udp(from, to, payload),
        Protocol::Sctp => sctp(from, to, u.int_in_range(0..=14)?, payload),
    })
}
