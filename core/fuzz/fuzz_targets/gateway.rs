//! What the translator's targets share: a translator in little memory, and what must hold of each packet.

use crate::common::packet::{Read, icmp_error, read, sctp, tcp, transport_is_valid, udp};
use crate::common::rig::{Out, Rig};
use natlet_core::Program;
use natlet_core::translate::{
    AffinityV4, AffinityV6, Bucket, Config, FlowV4, FlowV6, FragmentsV4, FragmentsV6, Hook, Memory, PortRange,
    buckets_for,
};
use std::cell::Cell;

/// Little memory, so that it is soon full.
pub struct Room {
    flows_v4: [FlowV4; 12],
    flows_v6: [FlowV6; 12],
    buckets: [[Bucket; buckets_for(12)]; 2],
    affinity_v4: [AffinityV4; 8],
    affinity_v6: [AffinityV6; 4],
    fragments_v4: [FragmentsV4; 8],
    fragments_v6: [FragmentsV6; 8],
}

impl Room {
    pub const fn new() -> Self {
        Self {
            flows_v4: [FlowV4::EMPTY; 12],
            flows_v6: [FlowV6::EMPTY; 12],
            buckets: [[Bucket::EMPTY; buckets_for(12)]; 2],
            affinity_v4: [AffinityV4::EMPTY; 8],
            affinity_v6: [AffinityV6::EMPTY; 4],
            fragments_v4: [FragmentsV4::EMPTY; 8],
            fragments_v6: [FragmentsV6::EMPTY; 8],
        }
    }

    /// A translator in this memory. It masquerades to eight ports, fewer than it has flows.
    pub fn gateway<'m, 'p>(&'m mut self, program: Program<'p>) -> Gateway<'m, 'p> {
        let [buckets_v4, buckets_v6] = &mut self.buckets;
        let memory = Memory {
            flows_v4: &mut self.flows_v4,
            buckets_v4,
            flows_v6: &mut self.flows_v6,
            buckets_v6,
            affinity_v4: &mut self.affinity_v4,
            affinity_v6: &mut self.affinity_v6,
            fragments_v4: &mut self.fragments_v4,
            fragments_v6: &mut self.fragments_v6,
        };
        let config = Config { ports: PortRange::new(40_000, 40_007).unwrap(), ..Config::new([1, 2]) };
        Gateway { rig: Rig::over(program, memory, &config), sent: 0 }
    }
}

/// A translator under test.
pub struct Gateway<'m, 'p> {
    pub rig: Rig<'m, 'p>,
    sent: u64,
}

impl<'p> Gateway<'_, 'p> {
    /// Lets up to eleven minutes pass, mostly little.
    pub fn wait(&mut self, step: u8) {
        self.rig.now += u64::from(step) * u64::from(step) * 10;
    }

    /// Forgets some of what was idle for too long.
    pub fn sweep(&mut self) {
        self.rig.t.expire(self.rig.time(), 4);
    }

    fn send(&mut self, hook: Hook, packet: &[u8]) -> Out {
        self.sent += 1;
        self.rig.send_from(hook, packet)
    }

    /// Sends a packet. One that is rewritten keeps its length and, where it had them, valid checksums; its answer and an
    /// error about it come back to where it came from; answers are valid.
    pub fn check(&mut self, hook: Hook, packet: &[u8]) {
        let was_valid = is_valid(packet);
        match self.send(hook, packet) {
            Out::Forward(out) => {
                assert_eq!(out.len(), packet.len());
                assert!(!was_valid || is_valid(&out), "{packet:x?} became {out:x?}");
                self.identity(packet, &out);
            }
            Out::Reply(out) => assert!(is_valid(&out), "{packet:x?} was answered {out:x?}"),
            Out::Drop(_) | Out::Pass => {}
        }
    }

    /// The way back is the way there, reversed.
    fn identity(&mut self, packet: &[u8], out: &[u8]) {
        let (Some(there), Some(left)) = (with_ports(packet), with_ports(out)) else { return };
        let answer = match there.protocol {
            6 => tcp(left.to(), left.from(), "A", b"answer"),
            17 => udp(left.to(), left.from(), b"a longer answer"),
            _ => sctp(left.to(), left.from(), 0, b"answer"),
        };
        let Out::Forward(back) = self.send(Hook::Arriving, &answer) else { panic!("no way back for {out:x?}") };
        let back = with_ports(&back).expect("what is forwarded can be read");
        assert_eq!((back.from(), back.to()), (there.to(), there.from()));

        let error = icmp_error(left.destination, left.source, "port", out, 120);
        let Out::Forward(back) = self.send(Hook::Arriving, &error) else {
            panic!("no error comes back about {out:x?}")
        };
        assert!(is_valid(&back));
        let back = read(&back);
        assert_eq!(back.destination, there.source);
        // the quotation is cut off, which its reader does not mind: addresses and ports are at its start
        let quoted = quoted_ends(&back.body[8..]);
        assert_eq!(quoted, quoted_ends(packet));
    }

    /// Swaps the program: every flow that goes on has its endpoint behind its frontend. Programs of one content id are one
    /// to the translator, also where the fuzzer changed bytes behind it.
    pub fn replace(&mut self, program: Program<'p>) {
        let is_same = self.rig.t.program().content_id() == program.content_id();
        let replaced = self.rig.t.replace_program(self.rig.time(), program);
        assert_eq!(replaced.kept, self.rig.t.live_flows());
        for flow in self.rig.t.flows(self.rig.time()).filter(|_| !is_same) {
            let (address, port) = (flow.frontend.ip(), flow.frontend.port());
            // a frontend without endpoints leaves its port to a NodePort
            let found = program.find(address, flow.protocol, port).filter(|f| !f.is_passed_over());
            let found = found.or_else(|| program.find_node_port(address, flow.protocol, port));
            let endpoints = found.expect("a flow's frontend is in the program").record.endpoints();
            assert!(endpoints.iter().any(|e| e.address == flow.endpoint));
        }
    }

    /// Every packet was counted once, and every flow that was opened is live or was counted when it ended.
    pub fn finish(&self) {
        let c = self.rig.t.counters();
        let dropped: u64 = c.drops().map(|(_, n)| n).sum();
        assert_eq!(c.forwarded + c.passed + c.answered + dropped, self.sent);
        let ended = c.flows_evicted + c.flows_expired + c.flows_replaced;
        assert_eq!(c.flows_opened, u64::from(self.rig.t.live_flows()) + ended);
    }
}

thread_local! {
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// Keeps the panics of readers that are given any bytes to themselves. Those of findings are printed.
pub fn quiet() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !READING.get() {
            print(panic);
        }
    }));
}

/// A packet as `etherparse` reads it, if it does.
fn try_read(packet: &[u8]) -> Option<Read> {
    READING.set(true);
    let read = std::panic::catch_unwind(|| read(packet)).ok();
    READING.set(false);
    read
}

/// Whether a packet can be read and its checksums are right.
fn is_valid(packet: &[u8]) -> bool {
    try_read(packet).is_some_and(|read| transport_is_valid(&read))
}

/// A whole packet of a protocol that has ports, read.
fn with_ports(packet: &[u8]) -> Option<Read> {
    let read = try_read(packet)?;
    (matches!(read.protocol, 6 | 17 | 132) && !read.fragmented && read.body.len() >= 20).then_some(read)
}

/// Addresses and ports of a packet that may be cut off.
fn quoted_ends(packet: &[u8]) -> (&[u8], &[u8]) {
    let (addresses, header) = match packet[0] >> 4 {
        4 => (12..20, usize::from(packet[0] & 15) * 4),
        _ => (8..40, 40),
    };
    (&packet[addresses], &packet[header..header + 4])
}

/// Makes lengths and the header's checksum fit, so that more is reached.
pub fn put_right(packet: &mut [u8]) {
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
