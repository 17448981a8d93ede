//! A translator with its memory, a clock and a random sequence, that checks everything that leaves it.

use super::packet::{Read, read_valid};
use super::{NodeSpec, ServiceSpec, build};
use natlet_core::Program;
use natlet_core::translate::{
    Action, AffinityV4, AffinityV6, Bucket, Config, DropReason, FlowV4, FlowV6, FragmentsV4, FragmentsV6, Hook,
    Instant, MAX_REPLY, Memory, Translator, buckets_for,
};

#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub flows: usize,
    pub affinity: usize,
    pub fragments: usize,
}

pub const ROOM: Room = Room { flows: 64, affinity: 32, fragments: 16 };

fn lend<T: Clone>(value: T, len: usize) -> &'static mut [T] {
    Box::leak(vec![value; len].into_boxed_slice())
}

pub fn memory(room: Room) -> Memory<'static> {
    Memory {
        flows_v4: lend(FlowV4::EMPTY, room.flows),
        buckets_v4: lend(Bucket::EMPTY, buckets_for(room.flows)),
        flows_v6: lend(FlowV6::EMPTY, room.flows),
        buckets_v6: lend(Bucket::EMPTY, buckets_for(room.flows)),
        affinity_v4: lend(AffinityV4::EMPTY, room.affinity),
        affinity_v6: lend(AffinityV6::EMPTY, room.affinity),
        fragments_v4: lend(FragmentsV4::EMPTY, room.fragments),
        fragments_v6: lend(FragmentsV6::EMPTY, room.fragments),
    }
}

pub fn program(node: &NodeSpec, services: &[ServiceSpec]) -> Program<'static> {
    Program::new_checked(Box::leak(build(node, services).into_boxed_slice())).unwrap()
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    Forward(Vec<u8>),
    Reply(Vec<u8>),
    Drop(DropReason),
    Pass,
}

impl Out {
    /// The forwarded packet, read and checked.
    pub fn forwarded(&self) -> Read {
        match self {
            Self::Forward(packet) => read_valid(packet),
            other => panic!("not forwarded: {other:?}"),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Forward(packet) | Self::Reply(packet) => packet.clone(),
            other => panic!("no packet: {other:?}"),
        }
    }

    pub fn replied(&self) -> Read {
        match self {
            Self::Reply(packet) => read_valid(packet),
            other => panic!("no reply: {other:?}"),
        }
    }
}

pub struct Rig<'m, 'p> {
    pub t: Translator<'m, 'p>,
    /// Milliseconds.
    pub now: u64,
    random: u64,
}

impl Rig<'static, 'static> {
    pub fn new(node: &NodeSpec, services: &[ServiceSpec]) -> Self {
        Self::with(program(node, services), ROOM, Config::new([1, 2]))
    }

    pub fn with(program: Program<'static>, room: Room, config: Config) -> Self {
        Self::over(program, memory(room), &config)
    }
}

impl<'m, 'p> Rig<'m, 'p> {
    pub fn over(program: Program<'p>, memory: Memory<'m>, config: &Config) -> Self {
        Self { t: Translator::new(program, memory, config), now: 1_000, random: 7 }
    }

    pub fn time(&self) -> Instant {
        Instant::from_millis(self.now)
    }

    pub fn send(&mut self, packet: &[u8]) -> Out {
        self.send_from(Hook::Arriving, packet)
    }

    /// Sends a packet; what leaves must have right checksums in the IP header, and one hop less.
    pub fn send_from(&mut self, hook: Hook, packet: &[u8]) -> Out {
        let mut bytes = packet.to_vec();
        let mut reply = vec![0xaa; MAX_REPLY];
        let state = &mut self.random;
        let mut random = || {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*state >> 33) as u32 ^ (*state >> 13) as u32
        };
        let action = self.t.process(Instant::from_millis(self.now), hook, &mut random, &mut bytes, &mut reply);
        match action {
            Action::Forward => Out::Forward(bytes),
            Action::Reply(len) => {
                assert_eq!(bytes, packet, "an answered packet is as it was");
                Out::Reply(reply[..len].to_vec())
            }
            Action::Drop(reason) => Out::Drop(reason),
            Action::Pass => {
                assert_eq!(bytes, packet, "a packet that passes is as it was");
                Out::Pass
            }
        }
    }
}
