//! The translator: a program and the connections through it, applied to whole packets.
//!
//! ```text
//! packet ─▶ known flow? ──yes─▶ rewrite addresses, ports, checksums ─▶ Forward
//!              │ no
//!              ▼
//!        Program::decide ─▶ Pass │ Drop(reason) │ Reply(ICMP error, TCP reset)
//!              │ DNAT
//!              ▼
//!        choose an endpoint, a source, remember the flow ─▶ rewrite …
//! ```
//!
//! It has no clock, no randomness and no memory of its own: all three are the caller's. Work per packet is bounded: eight
//! links for a lookup, 16 entries for one to give up, 512 tries for a port, one pass over a service's endpoints for
//! affinity.
//!
//! What it does not do: it does not verify checksums (an update keeps a wrong one wrong, and the receiver finds it), does
//! not track TCP sequence numbers, and does not reassemble fragments. Packets that it passes are untouched, TTL included,
//! and it does not know their connections: a client that talks to an endpoint directly and by its service, both from one
//! port, gets the answers of both from the service.

mod affinity;
mod cache;
mod choose;
mod connect;
mod drop_reason;
mod flow;
mod fragment;
mod icmp_error;
mod keys;
mod lane;
mod limit;
mod ports;
mod reply;
mod short_way;
mod state;
mod table;
mod time;
mod timeout;
mod wire;

use crate::program::Program;
use cache::Cache;
use core::net::{Ipv4Addr, Ipv6Addr};
use keys::HashKeys;
use lane::{Arrival, Lane, Outcome, Shared};
use limit::Limiter;
use table::Table;
use wire::address::{V4, V6};
use wire::{Family, Hops};

pub use affinity::{Affinity, AffinityV4, AffinityV6};
pub use drop_reason::{Counters, DropReason};
pub use flow::{Direction, Flow, FlowInfo, FlowV4, FlowV6};
pub use fragment::{Fragments, FragmentsV4, FragmentsV6};
pub use limit::ReplyLimit;
pub use ports::PortRange;
pub use state::State;
pub use table::{Bucket, buckets_for};
pub use time::Instant;
pub use timeout::Timeouts;

/// Bytes that the longest answer needs.
pub const MAX_REPLY: usize = V6::MAX_ERROR;

/// How a packet came to be here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)] // an index
pub enum Hook {
    /// It arrived from a network.
    Arriving,
    /// The node itself sent it.
    Local,
}

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Send it on: it was rewritten in place.
    Forward,
    /// Send the answer instead: this many bytes of the memory for it.
    Reply(usize),
    /// Forget it.
    Drop(DropReason),
    /// It is nobody's here, and as it was.
    Pass,
}

/// Memory that is lent to a translator. Whatever may be empty is switched off by that.
#[derive(Debug, Default)]
pub struct Memory<'m> {
    /// IPv4 flows; none: IPv4 connections find no room.
    pub flows_v4: &'m mut [FlowV4],
    /// Their index: [`buckets_for`] that many.
    pub buckets_v4: &'m mut [Bucket],
    /// IPv6 flows.
    pub flows_v6: &'m mut [FlowV6],
    /// Their index.
    pub buckets_v6: &'m mut [Bucket],
    /// IPv4 clients of services with session affinity, in sets of four; none: affinity is forgotten at once.
    pub affinity_v4: &'m mut [AffinityV4],
    /// IPv6 clients of services with session affinity.
    pub affinity_v6: &'m mut [AffinityV6],
    /// IPv4 packets in fragments, in sets of four; none: fragments are dropped where one would be translated, and all
    /// later fragments.
    pub fragments_v4: &'m mut [FragmentsV4],
    /// IPv6 packets in fragments.
    pub fragments_v6: &'m mut [FragmentsV6],
}

/// Settings of a translator.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// A secret, random for each boot: with it nobody can aim at the flow table's buckets.
    pub hash_key: [u64; 2],
    /// Source of masqueraded IPv4 packets and of ICMP errors; `None`: the first IPv4 address of the program's node.
    pub source_v4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub source_v6: Option<Ipv6Addr>,
    /// Where masqueraded connections leave from.
    pub ports: PortRange,
    /// Idle times.
    pub timeouts: Timeouts,
    /// How many answers may be sent.
    pub reply_limit: ReplyLimit,
    /// Take a hop off packets that are forwarded, as a router does. Off where a kernel routes them before or after.
    pub decrement_hop_limit: bool,
}

impl Config {
    /// The usual settings with a secret.
    pub const fn new(hash_key: [u64; 2]) -> Self {
        Self {
            hash_key,
            source_v4: None,
            source_v6: None,
            ports: PortRange::DEFAULT,
            timeouts: Timeouts::DEFAULT,
            reply_limit: ReplyLimit::DEFAULT,
            decrement_hop_limit: true,
        }
    }
}

/// What a new program did to the flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// Flows that go on.
    pub kept: u32,
    /// Flows whose endpoint is no longer behind their frontend.
    pub ended: u32,
}

/// Translates packets. See the [module documentation](self).
///
/// ```
/// use natlet_core::translate::{
///     Action, Bucket, Config, FlowV4, Hook, Instant, MAX_REPLY, Memory, Translator, buckets_for,
/// };
/// # use natlet_core::{Endpoint, Frontend, FrontendKind, Program, Service, ServiceTable, Span, compile};
/// # let one = Span { start: 0, len: 1 };
/// # let table = ServiceTable {
/// #     services: &[Service { name: Span { start: 0, len: 3 }, frontends: one, endpoints: one, ..Service::default() }],
/// #     frontends: &[Frontend { kind: FrontendKind::ClusterIp, address: "10.96.0.10".parse()?, port: 80 }],
/// #     endpoints: &[Endpoint::new("10.244.2.9".parse()?, 8080)],
/// #     text: "a/b",
/// #     ..ServiceTable::default()
/// # };
/// # let (mut scratch, mut bytes) = ([0; 4_000], [0; 4_000]);
/// # let len = compile(&table, &mut scratch, &mut bytes).map_err(|e| e.to_string())?;
/// # let program = Program::new_checked(&bytes[..len]).map_err(|e| e.to_string())?;
/// // memory for 64 flows: 64 * 36 + 48 * 16 bytes
/// let (mut flows, mut buckets) = ([FlowV4::EMPTY; 64], [Bucket::EMPTY; buckets_for(64)]);
/// let memory = Memory { flows_v4: &mut flows, buckets_v4: &mut buckets, ..Memory::default() };
/// let mut translator = Translator::new(program, memory, &Config::new([0x5eed, 0x5eed])); // a random key
///
/// // a SYN from 10.244.3.3:40000 to the ClusterIP 10.96.0.10:80
/// let mut packet = *b"\x45\0\0\x28\0\0\x40\0\x40\x06\x22\x70\x0a\xf4\x03\x03\x0a\x60\0\x0a\
///     \x9c\x40\0\x50\0\0\0\x01\0\0\0\0\x50\x02\xff\xff\x64\xb9\0\0";
/// let mut reply = [0; MAX_REPLY];
/// let mut random = || 4; // a random generator
/// let now = Instant::from_millis(1_000);
/// let action = translator.process(now, Hook::Arriving, &mut random, &mut packet, &mut reply);
/// assert_eq!(action, Action::Forward);
/// assert_eq!((&packet[16..20], &packet[22..24]), (&[10, 244, 2, 9][..], &8080_u16.to_be_bytes()[..]));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Translator<'m, 'p> {
    shared: Shared<'p>,
    v4: Lane<'m, V4>,
    v6: Lane<'m, V6>,
}

impl<'m, 'p> Translator<'m, 'p> {
    #[expect(clippy::needless_pass_by_value, reason = "the slices move in")]
    /// Starts without flows; whatever is in the memory is overwritten.
    pub fn new(program: Program<'p>, memory: Memory<'m>, config: &Config) -> Self {
        Self {
            shared: Shared {
                program,
                keys: HashKeys::new(config.hash_key),
                timeouts: config.timeouts.by_state(),
                fragment_timeout: time::millis(config.timeouts.fragments),
                ports: config.ports,
                // what the node sends itself has not travelled yet
                hops: [if config.decrement_hop_limit { Hops::ONE } else { Hops::NONE }, Hops::NONE],
                counters: Counters::default(),
                limiter: Limiter::new(config.reply_limit),
            },
            v4: Lane {
                flows: Table::new(memory.flows_v4, memory.buckets_v4),
                affinity: Cache::new(memory.affinity_v4),
                fragments: Cache::new(memory.fragments_v4),
                source: config.source_v4.map(|a| V4::from_bytes(a.octets())),
            },
            v6: Lane {
                flows: Table::new(memory.flows_v6, memory.buckets_v6),
                affinity: Cache::new(memory.affinity_v6),
                fragments: Cache::new(memory.fragments_v6),
                source: config.source_v6.map(|a| V6(a.octets())),
            },
        }
    }

    /// Handles one IP packet, in place. `random` is asked for new connections only, and must be hard to guess. `reply` is
    /// memory for an answer; [`MAX_REPLY`] bytes are enough for each. A packet may be followed by padding.
    #[inline(always)] // nine arguments; the short way needs five
    pub fn process(
        &mut self,
        now: Instant,
        hook: Hook,
        random: &mut dyn FnMut() -> u32,
        packet: &mut [u8],
        reply: &mut [u8],
    ) -> Action {
        if self.v4.short_way(&mut self.shared, now, hook, packet) || self.other_short_way(now, hook, packet) {
            return Action::Forward;
        }
        self.process_long(Arrival { now, hook, random }, packet, reply)
    }

    /// The short ways behind that of TCP over IPv4. UDP over IPv6 has none: it would take small machines 700 bytes of flash.
    #[inline(never)]
    fn other_short_way(&mut self, now: Instant, hook: Hook, packet: &mut [u8]) -> bool {
        match packet.first().map(|b| b >> 4) {
            Some(4) => self.v4.short_way_udp(&mut self.shared, now, hook, packet),
            Some(6) => self.v6.short_way(&mut self.shared, now, hook, packet),
            _ => false,
        }
    }

    /// The same for what is not plain.
    #[inline(never)]
    fn process_long(&mut self, at: Arrival<'_>, packet: &mut [u8], reply: &mut [u8]) -> Action {
        match packet.first().map(|b| b >> 4) {
            Some(4) => long_way(&mut self.shared, &mut self.v4, at, packet, reply),
            Some(6) => long_way(&mut self.shared, &mut self.v6, at, packet, reply),
            _ => {
                self.shared.counters.count_drop(DropReason::Malformed);
                Action::Drop(DropReason::Malformed)
            }
        }
    }

    /// Swaps the program. Flows whose endpoint is still behind their frontend go on; the others end, and so does affinity
    /// to endpoints that are gone. Time is linear in the lent memory, and for each flow in its service's endpoints.
    pub fn replace_program(&mut self, now: Instant, program: Program<'p>) -> Replaced {
        let is_same = self.shared.program.content_id() == program.content_id();
        self.shared.program = program;
        if is_same {
            return Replaced { kept: self.live_flows(), ended: 0 };
        }
        self.adopt(now)
    }

    /// The same where the new program lives elsewhere: the old one's memory is free again afterwards. So a device with
    /// two buffers can fill one while the other is in use.
    pub fn with_program<'q>(self, now: Instant, program: Program<'q>) -> (Translator<'m, 'q>, Replaced) {
        let Shared { program: old, keys, timeouts, fragment_timeout, ports, hops, counters, limiter } = self.shared;
        let is_same = old.content_id() == program.content_id();
        let shared = Shared { program, keys, timeouts, fragment_timeout, ports, hops, counters, limiter };
        let mut next = Translator { shared, v4: self.v4, v6: self.v6 };
        let replaced = if is_same { Replaced { kept: next.live_flows(), ended: 0 } } else { next.adopt(now) };
        (next, replaced)
    }

    fn adopt(&mut self, now: Instant) -> Replaced {
        let ended = adopt(&self.shared, &mut self.v4, now).saturating_add(adopt(&self.shared, &mut self.v6, now));
        let replaced = &mut self.shared.counters.flows_replaced;
        *replaced = replaced.wrapping_add(ended.into());
        Replaced { kept: self.live_flows(), ended }
    }

    /// Forgets what was idle for too long, looking at up to `budget` entries of each kind, from where the last call
    /// stopped. Returns how many flows were forgotten. Idle flows are not used even before this finds them; calling it
    /// makes room early, and has to go around once within [`Instant::HORIZON`].
    pub fn expire(&mut self, now: Instant, budget: u32) -> u32 {
        let ended = expire(&self.shared, &mut self.v4, now, budget).saturating_add(expire(
            &self.shared,
            &mut self.v6,
            now,
            budget,
        ));
        let expired = &mut self.shared.counters.flows_expired;
        *expired = expired.wrapping_add(ended.into());
        ended
    }

    /// The program in use.
    pub fn program(&self) -> &Program<'p> {
        &self.shared.program
    }

    /// What happened since the start.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Flows in use, also those that are idle for too long and not yet found by [`Translator::expire`].
    pub fn live_flows(&self) -> u32 {
        self.v4.flows.live().saturating_add(self.v6.flows.live())
    }

    /// All flows in use, IPv4 before IPv6.
    pub fn flows(&self, now: Instant) -> impl Iterator<Item = FlowInfo> + '_ {
        let v4 = self.v4.flows.iter().map(move |f| FlowInfo::of(f, now));
        v4.chain(self.v6.flows.iter().map(move |f| FlowInfo::of(f, now)))
    }
}

/// Handles a packet of one family that is not one for a short way, and counts it.
#[inline(never)]
fn long_way<A: Family>(
    shared: &mut Shared<'_>,
    lane: &mut Lane<'_, A>,
    mut at: Arrival<'_>,
    packet: &mut [u8],
    reply: &mut [u8],
) -> Action {
    match lane.run(shared, &mut at, packet) {
        Outcome::Forward => {
            drop_reason::count_one(&mut shared.counters.forwarded);
            Action::Forward
        }
        other => finish(shared, lane, at.now, other, packet, reply),
    }
}

/// Counts what became of a packet that is not forwarded, and builds its answer.
#[cold]
#[inline(never)]
fn finish<A: Family>(
    shared: &mut Shared<'_>,
    lane: &Lane<'_, A>,
    now: Instant,
    outcome: Outcome,
    packet: &mut [u8],
    reply: &mut [u8],
) -> Action {
    let reason = match outcome {
        Outcome::Forward => return Action::Forward,
        Outcome::Pass => {
            drop_reason::count_one(&mut shared.counters.passed);
            return Action::Pass;
        }
        Outcome::Drop(reason) => reason,
        Outcome::Answer(answer) => {
            let own = || shared.program.context().addresses().find_map(A::from_ip);
            let (from, limiter) = (lane.source.or_else(own), &mut shared.limiter);
            match reply::build(packet, answer, from, reply, || limiter.take(now)) {
                Ok(len) => {
                    drop_reason::count_one(&mut shared.counters.answered);
                    return Action::Reply(len);
                }
                Err(reason) => reason,
            }
        }
    };
    shared.counters.count_drop(reason);
    Action::Drop(reason)
}

/// Ends the flows of one family that the program no longer leads to.
fn adopt<A: Family>(shared: &Shared<'_>, lane: &mut Lane<'_, A>, now: Instant) -> u32 {
    affinity::rebuild(&mut lane.affinity, &shared.program, &shared.keys, now);
    let everything = lane.flows.capacity();
    lane.flows.sweep(everything, &shared.keys, |flow| {
        let frontend = flow.arriving(Direction::Original);
        let record =
            affinity::find_frontend(&shared.program, frontend.destination, frontend.ports.destination(), flow.protocol);
        !record.is_some_and(|r| affinity::has_endpoint(&r, flow.arriving(Direction::Reply).source_socket()))
    })
}

fn expire<A: Family>(shared: &Shared<'_>, lane: &mut Lane<'_, A>, now: Instant, budget: u32) -> u32 {
    lane.affinity.sweep(budget, now);
    lane.fragments.sweep(budget, now);
    lane.flows.sweep(budget, &shared.keys, |flow| shared.is_expired(flow, now))
}
