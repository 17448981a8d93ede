//! The path of a packet through one address family: look its flow up, else open one, then rewrite.

use super::affinity::Affinity;
use super::cache::Cache;
use super::drop_reason::{Counters, DropReason, count_one};
use super::flow::{Direction, Flow, Tuple};
use super::fragment::{Fragments, follow};
use super::keys::HashKeys;
use super::limit::Limiter;
use super::ports::PortRange;
use super::reply::Answer;
use super::state::{Segment, State, Step, sctp_step};
use super::table::Table;
use super::time::Instant;
use super::wire::icmp::{self, ICMPV6};
use super::wire::sctp::Sctp;
use super::wire::tcp::Tcp;
use super::wire::transport::{Ports, header_len, rewrite};
use super::wire::{Family, Fragment, Hops, IpHeader, WireError};
use super::{Hook, icmp_error};
use crate::decide::Verdict;
use crate::program::Program;
use crate::table::Protocol;
use core::net::IpAddr;

/// What is kept for one address family.
#[derive(Debug)]
pub(crate) struct Lane<'m, A> {
    pub flows: Table<'m, A>,
    pub affinity: Cache<'m, Affinity<A>>,
    pub fragments: Cache<'m, Fragments<A>>,
    /// The node's address: the source of masqueraded packets and of ICMP errors.
    pub source: Option<A>,
}

/// What both families share.
#[derive(Debug)]
pub(crate) struct Shared<'p> {
    pub program: Program<'p>,
    pub keys: HashKeys,
    pub timeouts: [u32; State::COUNT],
    pub fragment_timeout: u32,
    pub ports: PortRange,
    /// Hops that forwarding a packet takes off, by [`Hook`].
    pub hops: [Hops; 2],
    pub counters: Counters,
    pub limiter: Limiter,
}

/// A packet's tuple.
pub(crate) struct Asked<A> {
    pub tuple: Tuple<A>,
    pub protocol: Protocol,
    /// The tuple's hash.
    pub hash: u32,
}

/// How and when a packet came.
pub(crate) struct Arrival<'r> {
    pub now: Instant,
    pub hook: Hook,
    pub random: &'r mut dyn FnMut() -> u32,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Forward,
    Pass,
    Drop(DropReason),
    Answer(Answer),
}

impl Shared<'_> {
    #[inline]
    pub fn is_expired<A>(&self, flow: &Flow<A>, now: Instant) -> bool {
        now.since(flow.seen) >= self.timeout(flow.state)
    }

    #[inline]
    pub fn timeout(&self, state: State) -> u32 {
        self.timeouts.get(usize::from(state as u8)).copied().unwrap_or(0)
    }

    /// Hops that forwarding a packet takes off.
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "there are two hooks")]
    pub fn hops(&self, hook: Hook) -> Hops {
        self.hops[hook as usize]
    }
}

impl<A: Family> Lane<'_, A> {
    /// Handles one packet: the long way, which knows every kind. [`Lane::short_way`] is for what nearly all packets are.
    pub fn run(&mut self, shared: &mut Shared<'_>, at: &mut Arrival<'_>, packet: &mut [u8]) -> Outcome {
        let (mut ip, payload) = match A::Header::new_checked(packet) {
            Ok(parts) => parts,
            Err(error) => return refused(error),
        };
        let fragment = ip.fragment();
        if let Some(fragment) = fragment
            && !fragment.first
        {
            return self.later_fragment(shared, at, &mut ip, fragment);
        }
        let Some(protocol) = Protocol::from_number(ip.protocol()) else {
            return self.other_protocol(shared, at, &mut ip, payload, fragment);
        };
        let Some(ports) = Ports::of(payload) else { return Outcome::Drop(DropReason::Malformed) };
        if payload.len() < header_len(protocol) {
            // also a first fragment that ends within the transport header (RFC 1858 §3)
            return Outcome::Drop(DropReason::Malformed);
        }
        let tuple = Tuple { source: ip.source(), destination: ip.destination(), ports };
        let hash = shared.keys.tuple(tuple.source, tuple.destination, ports, protocol);
        let known = self.flows.find(hash, &tuple, protocol);
        let hops = shared.hops(at.hook);
        let out_of_hops = hops.use_up(ip.hop_limit());
        let known = known.filter(|&(number, direction)| {
            out_of_hops || self.use_flow(shared, at.now, number, direction, protocol, payload)
        });
        let (number, direction) = match known {
            Some(_) if out_of_hops => return Outcome::Answer(Answer::TimeExceeded),
            Some(known) => known,
            None => match self.open(shared, at, &Asked { tuple, protocol, hash }, payload, out_of_hops) {
                Ok(number) => (number, Direction::Original),
                Err(outcome) => return self.not_translated(shared, at, &ip, fragment, outcome),
            },
        };
        let Some(flow) = self.flows.get(number) else { return Outcome::Pass };
        let out = flow.rewriting(direction);
        if let Some(fragment) = fragment {
            if protocol == Protocol::Sctp && out.tuple.ports != tuple.ports {
                return Outcome::Drop(DropReason::FragmentSctp);
            }
            if !self.fragments.is_usable() {
                return Outcome::Drop(DropReason::FragmentUntracked);
            }
            self.note(shared, at, follow(note_of(shared, at, &ip, fragment), &out));
        }
        rewrite(protocol, payload, out.tuple.ports, out.transport_delta, ip.payload_len());
        ip.rewrite(out.tuple.source, out.tuple.destination, out.address_delta, hops);
        Outcome::Forward
    }

    /// Takes note of a packet in its flow. `false`, and the flow is gone, if the flow is over and the packet is not its.
    fn use_flow(
        &mut self,
        shared: &mut Shared<'_>,
        now: Instant,
        number: u32,
        direction: Direction,
        protocol: Protocol,
        payload: &mut [u8],
    ) -> bool {
        let Some(flow) = self.flows.get_mut(number) else { return false };
        let step = if now.since(flow.seen) >= shared.timeout(flow.state) {
            Step::Reopen
        } else {
            match protocol {
                Protocol::Tcp => {
                    let flags = Tcp::new_checked(payload).map_or(0, |h| h.flags());
                    Segment::of(flags).step(flow.state, direction)
                }
                Protocol::Udp if direction == Direction::Reply => Step::To(State::Udp),
                Protocol::Udp => Step::To(flow.state),
                Protocol::Sctp => sctp_step(Sctp::new_checked(payload).and_then(|s| s.chunk), flow.state, direction),
            }
        };
        match step {
            Step::To(state) => {
                flow.state = state;
                flow.seen = now;
                true
            }
            Step::Keep => true,
            Step::Reopen => {
                self.flows.remove(number, &shared.keys);
                count_one(&mut shared.counters.flows_expired);
                false
            }
        }
    }

    /// A fragment without ports follows its packet's first.
    fn later_fragment(
        &mut self,
        shared: &Shared<'_>,
        at: &Arrival<'_>,
        ip: &mut A::Header<'_>,
        fragment: Fragment,
    ) -> Outcome {
        let wanted = note_of(shared, at, ip, fragment);
        let Some(note) = self.fragments.find(wanted.hash(&shared.keys), &wanted, at.now) else {
            return Outcome::Drop(DropReason::FragmentWithoutFirst);
        };
        let Some((source, destination, delta)) = note.rewriting() else { return Outcome::Pass };
        let hops = shared.hops(at.hook);
        if hops.use_up(ip.hop_limit()) {
            return Outcome::Drop(DropReason::Unanswerable);
        }
        ip.rewrite(source, destination, delta, hops);
        Outcome::Forward
    }

    /// What has no ports: ICMP errors are about packets that have; what asks for an answer is refused where a service's
    /// address has nothing but ports; all else passes.
    fn other_protocol(
        &mut self,
        shared: &Shared<'_>,
        at: &Arrival<'_>,
        ip: &mut A::Header<'_>,
        payload: &mut [u8],
        fragment: Option<Fragment>,
    ) -> Outcome {
        let first = payload.first().copied();
        if fragment.is_none() && ip.protocol() == A::ICMP && first.is_some_and(|kind| icmp::is_error(A::ICMP, kind)) {
            return icmp_error::translate(self, shared, at, ip, payload);
        }
        let asks = first.is_some_and(|kind| icmp::asks(ip.protocol(), kind));
        let outcome =
            if asks { without_ports(shared, ip.source().to_ip(), ip.destination().to_ip()) } else { Outcome::Pass };
        self.not_translated(shared, at, ip, fragment, outcome)
    }

    /// Later fragments of a packet that passes have to pass too.
    fn not_translated(
        &mut self,
        shared: &Shared<'_>,
        at: &Arrival<'_>,
        ip: &A::Header<'_>,
        fragment: Option<Fragment>,
        outcome: Outcome,
    ) -> Outcome {
        if let Some(fragment) = fragment
            && outcome == Outcome::Pass
        {
            self.note(shared, at, note_of(shared, at, ip, fragment));
        }
        outcome
    }

    fn note(&mut self, shared: &Shared<'_>, at: &Arrival<'_>, note: Fragments<A>) {
        // an older packet's fragments may lose their way; they are dropped and counted then
        let _ = self.fragments.put(note.hash(&shared.keys), note, at.now);
    }
}

/// What becomes of a packet of another protocol: what becomes of a port that no service has.
#[cold]
#[inline(never)]
fn without_ports(shared: &Shared<'_>, source: IpAddr, destination: IpAddr) -> Outcome {
    let question = shared.program.packet(source, destination, Protocol::Udp, 0);
    match shared.program.rule(&question, None).verdict {
        Verdict::Reject => Outcome::Answer(Answer::Unreachable),
        Verdict::Drop => Outcome::Drop(DropReason::UnallocatedAddress),
        _ => Outcome::Pass,
    }
}

#[cold]
const fn refused(error: WireError) -> Outcome {
    match error {
        WireError::Malformed => Outcome::Drop(DropReason::Malformed),
        WireError::SourceRouted => Outcome::Drop(DropReason::SourceRouted),
        WireError::Foreign => Outcome::Pass,
    }
}

fn note_of<A: Family>(shared: &Shared<'_>, at: &Arrival<'_>, ip: &A::Header<'_>, fragment: Fragment) -> Fragments<A> {
    let addresses = (ip.source(), ip.destination());
    // RFC 8200 §4.5: the Next Header of later fragments may differ from the first's, and is not part of the key
    let protocol = if A::ICMP == ICMPV6 { 0 } else { ip.protocol() };
    Fragments::new(addresses, protocol, fragment, shared.fragment_timeout, at.now)
}
