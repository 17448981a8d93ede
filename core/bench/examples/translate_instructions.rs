//! Instructions that the translator takes for a packet. `instructions.sh` runs it.

use natlet_core::Protocol;
use natlet_core_bench::instructions::{Operation, counted, run};
use natlet_core_bench::traffic::{ETHERNET, Family, Kind, SYN, establish, forward, random, tcp, translator};
const UDP: Kind = Kind { protocol: Protocol::Udp, ..tcp(64) };
const TCP_V6: Kind = Kind { family: Family::V6, ..tcp(78) };

const OPERATIONS: &[Operation] = &[
    ("the loop around a packet, in all of these", loop_alone),
    ("established, 64 B, 1,000 flows", || established(tcp(64), 1_000, Way::There)),
    ("established, 1,500 B, 1,000 flows", || established(tcp(1_500), 1_000, Way::There)),
    ("established, 64 B, 65,536 flows", || established(tcp(64), 65_536, Way::There)),
    ("established reply, 64 B, 1,000 flows", || established(tcp(64), 1_000, Way::Back)),
    ("established UDP, 64 B, 1,000 flows", || established(UDP, 1_000, Way::There)),
    ("established IPv6, 78 B, 1,000 flows", || established(TCP_V6, 1_000, Way::There)),
    ("first of a flow, 64 B, 1,000 services", || first(tcp(64))),
    ("first of a flow, UDP, 64 B, 1,000 services", || first(UDP)),
    ("first of a flow, IPv6, 78 B, 1,000 services", || first(TCP_V6)),
];

/// From the client, or to it.
#[derive(Clone, Copy)]
enum Way {
    There,
    Back,
}

fn main() {
    run(OPERATIONS);
}

/// One packet of each of so many live flows; the table has no room for more.
fn established(kind: Kind, flows: u32, way: Way) -> u32 {
    let mut translator = translator(flows as usize, true);
    let (there, back) = establish(&mut translator, kind, flows);
    let mut frames = match way {
        Way::There => there,
        Way::Back => back,
    };
    let mut packets = packets(&mut frames);
    let (mut random, mut packets) = (random(), packets.iter_mut());
    counted(flows, |_| {
        let packet = packets.next().expect("a packet of each flow");
        forward(&mut translator, &mut random, packet);
    })
}

/// What all of the others count too: the next packet is taken.
fn loop_alone() -> u32 {
    let mut frames: Vec<_> = (0..1_000).map(|i| tcp(64).frame(i, SYN)).collect();
    let mut packets = packets(&mut frames);
    let mut packets = packets.iter_mut();
    counted(1_000, |_| {
        assert!(!packets.next().expect("a packet of each flow").is_empty());
    })
}

/// The first packets of a thousand flows, of which the table has room for 1,024.
fn first(kind: Kind) -> u32 {
    let mut translator = translator(1_024, true);
    let mut frames: Vec<_> = (0..1_000).map(|i| kind.frame(i, SYN)).collect();
    let mut packets = packets(&mut frames);
    let (mut random, mut packets) = (random(), packets.iter_mut());
    counted(1_000, |_| {
        let packet = packets.next().expect("a packet of each flow");
        forward(&mut translator, &mut random, packet);
    })
}

/// The IP packets in frames.
fn packets(frames: &mut [Vec<u8>]) -> Vec<&mut [u8]> {
    frames.iter_mut().map(|f| &mut f[ETHERNET..]).collect()
}
