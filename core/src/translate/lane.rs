//! The path of a packet through one address family: look its flow up, else decide and open one, then rewrite.

use super::affinity::Affinity;
use super::cache::Cache;
use super::choose::choose;
use super::drop_reason::{Counters, DropReason, count_one};
use super::flow::{Direction, Flow, Tuple};
use super::fragment::{Fragments, follow};
use super::keys::HashKeys;
use super::limit::Limiter;
use super::ports::PortRange;
use super::reply::{Answer, is_host};
use super::state::{Segment, State, Step, sctp_opens, sctp_step};
use super::table::{Gone, Table};
use super::time::{Instant, millis};
use super::wire::sctp::Sctp;
use super::wire::tcp::Tcp;
use super::wire::transport::{Ports, header_len, rewrite};
use super::wire::{Family, Fragment, IpHeader, WireError};
use super::{Hook, icmp_error};
use crate::decide::{Decision, Reason, Verdict};
use crate::program::{Program, RecordEndpoint};
use crate::table::Protocol;

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
    pub decrement_hop_limit: bool,
    pub counters: Counters,
    pub limiter: Limiter,
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
    fn timeout(&self, state: State) -> u32 {
        self.timeouts.get(usize::from(state as u8)).copied().unwrap_or(0)
    }
}

impl Arrival<'_> {
    /// Whether forwarding this packet takes a hop off. What the node sends itself has not travelled yet.
    #[inline]
    pub fn takes_hop(&self, shared: &Shared<'_>) -> bool {
        shared.decrement_hop_limit && self.hook == Hook::Arriving
    }
}

impl<A: Family> Lane<'_, A> {
    /// Handles one packet. What nearly all packets are is dealt with here: a whole packet of a flow that it neither opens
    /// nor moves to another state. The rest goes the long way.
    #[inline]
    pub fn run(&mut self, shared: &mut Shared<'_>, at: &mut Arrival<'_>, packet: &mut [u8]) -> Outcome {
        let (mut ip, payload) = match A::Header::new_checked(packet) {
            Ok(parts) => parts,
            Err(error) => return refused(error),
        };
        let takes_hop = at.takes_hop(shared);
        let out_of_hops = takes_hop && ip.hop_limit() <= 1;
        let (Some(protocol), None, false) = (Protocol::from_number(ip.protocol()), ip.fragment(), out_of_hops) else {
            return self.unusual(shared, at, &mut ip, payload, out_of_hops);
        };
        let Some(ports) = Ports::of(payload) else { return Outcome::Drop(DropReason::Malformed) };
        let tuple = Tuple { source: ip.source(), destination: ip.destination(), ports };
        let hash = shared.keys.tuple(tuple.source, tuple.destination, ports, protocol);
        let known = self.flows.find(hash, &tuple, protocol);
        if let Some((number, direction)) = known
            && let Some(flow) = self.flows.get_mut(number)
            && is_steady(flow, direction, payload)
            && !shared.is_expired(flow, at.now)
        {
            flow.seen = at.now;
            let out = flow.rewriting(direction);
            rewrite(protocol, payload, out.tuple.ports, out.transport_delta, ip.payload_len());
            ip.rewrite(out.tuple.source, out.tuple.destination, out.address_delta, takes_hop);
            return Outcome::Forward;
        }
        self.long_way(shared, at, &mut ip, payload, protocol, (&tuple, known), false)
    }

    /// Fragments, packets that are out of hops, protocols without ports.
    #[cold]
    #[inline(never)]
    fn unusual(
        &mut self,
        shared: &mut Shared<'_>,
        at: &mut Arrival<'_>,
        ip: &mut A::Header<'_>,
        payload: &mut [u8],
        out_of_hops: bool,
    ) -> Outcome {
        let fragment = ip.fragment();
        if let Some(fragment) = fragment
            && !fragment.first
        {
            return self.later_fragment(shared, at, ip, fragment);
        }
        let Some(protocol) = Protocol::from_number(ip.protocol()) else {
            return self.other_protocol(shared, at, ip, payload, fragment);
        };
        let Some(ports) = Ports::of(payload) else { return Outcome::Drop(DropReason::Malformed) };
        let tuple = Tuple { source: ip.source(), destination: ip.destination(), ports };
        let hash = shared.keys.tuple(tuple.source, tuple.destination, ports, protocol);
        let known = self.flows.find(hash, &tuple, protocol);
        self.long_way(shared, at, ip, payload, protocol, (&tuple, known), out_of_hops)
    }

    /// A packet with ports, whatever it does to its flow.
    #[cold]
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "what the short way has found out by then")]
    fn long_way(
        &mut self,
        shared: &mut Shared<'_>,
        at: &mut Arrival<'_>,
        ip: &mut A::Header<'_>,
        payload: &mut [u8],
        protocol: Protocol,
        (tuple, known): (&Tuple<A>, Option<(u32, Direction)>),
        out_of_hops: bool,
    ) -> Outcome {
        if payload.len() < header_len(protocol) {
            // also a first fragment that ends within the transport header (RFC 1858 §3)
            return Outcome::Drop(DropReason::Malformed);
        }
        let fragment = ip.fragment();
        let known = known.filter(|&(number, direction)| {
            out_of_hops || self.use_flow(shared, at.now, number, direction, protocol, payload)
        });
        let (number, direction) = match known {
            Some(_) if out_of_hops => return Outcome::Answer(Answer::TimeExceeded),
            Some(known) => known,
            None => match self.open(shared, at, tuple, protocol, payload, out_of_hops) {
                Ok(number) => (number, Direction::Original),
                Err(outcome) => return self.not_translated(shared, at, ip, fragment, outcome),
            },
        };
        let Some(out) = self.flows.get(number).map(|f| f.rewriting(direction)) else { return Outcome::Pass };
        if let Some(fragment) = fragment {
            if protocol == Protocol::Sctp && out.tuple.ports != tuple.ports {
                return Outcome::Drop(DropReason::FragmentSctp);
            }
            if !self.fragments.is_usable() {
                return Outcome::Drop(DropReason::FragmentUntracked);
            }
            self.note(shared, at, follow(note_of(shared, at, ip, fragment), &out));
        }
        rewrite(protocol, payload, out.tuple.ports, out.transport_delta, ip.payload_len());
        ip.rewrite(out.tuple.source, out.tuple.destination, out.address_delta, at.takes_hop(shared));
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

    /// Opens a flow for the first packet of a connection; returns its number.
    fn open(
        &mut self,
        shared: &mut Shared<'_>,
        at: &mut Arrival<'_>,
        tuple: &Tuple<A>,
        protocol: Protocol,
        payload: &mut [u8],
        out_of_hops: bool,
    ) -> Result<u32, Outcome> {
        let (source, destination) = (tuple.source.to_ip(), tuple.destination.to_ip());
        let mut question = shared.program.packet(source, destination, protocol, tuple.ports.destination());
        question.from_node |= at.hook == Hook::Local;
        let decision = shared.program.decide(&question);
        if decision.verdict == Verdict::Accept {
            return Err(Outcome::Pass);
        }
        let is_loopback = source.is_loopback() || destination.is_loopback();
        if !is_host(source) || is_loopback && at.hook == Hook::Arriving {
            return Err(Outcome::Drop(DropReason::Martian));
        }
        match decision.verdict {
            Verdict::Reject => return Err(Outcome::Answer(Answer::rejecting(protocol))),
            Verdict::Drop => return Err(Outcome::Drop(drop_reason(decision.reason))),
            Verdict::Dnat | Verdict::Accept => {}
        }
        let state = match protocol {
            Protocol::Tcp => Tcp::new_checked(payload).and_then(|h| Segment::of(h.flags()).opens()),
            Protocol::Udp => Some(State::UdpOneWay),
            Protocol::Sctp => sctp_opens(Sctp::new_checked(payload).and_then(|s| s.chunk)),
        };
        let state = state.ok_or(Outcome::Drop(DropReason::NoFlow))?;
        if out_of_hops {
            return Err(Outcome::Answer(Answer::TimeExceeded));
        }
        self.connect(shared, at, tuple, protocol, state, &decision).map_err(Outcome::Drop)
    }

    /// Chooses the endpoint and the source, and enters the flow.
    fn connect(
        &mut self,
        shared: &mut Shared<'_>,
        at: &mut Arrival<'_>,
        tuple: &Tuple<A>,
        protocol: Protocol,
        state: State,
        decision: &Decision<'_>,
    ) -> Result<u32, DropReason> {
        let affinity = affinity_key(decision, tuple, protocol, at.now);
        let remembered = affinity.and_then(|key| self.affinity.find(key.hash(&shared.keys), &key, at.now).copied());
        let endpoint = choose(decision, remembered.map(|e| e.endpoint()), at.random).ok_or(DropReason::NoFlow)?;
        let reply = self.reply_tuple(shared, at, tuple, protocol, decision, &endpoint)?;
        let flow = Flow::new(*tuple, reply, protocol, state, at.now);
        let (keys, now) = (&shared.keys, at.now);
        let mut gone = Gone::default();
        let inserted = self.flows.insert(flow, keys, |f| shared.is_expired(f, now), &mut gone);
        shared.counters.count_gone(gone);
        let number = inserted.ok_or(DropReason::TableFull)?;
        count_one(&mut shared.counters.flows_opened);
        if let Some(entry) = affinity.and_then(|key| key.with_endpoint(&endpoint))
            && self.affinity.put(entry.hash(&shared.keys), entry, at.now)
        {
            count_one(&mut shared.counters.affinity_evicted);
        }
        Ok(number)
    }

    /// The tuple of the endpoint's answers. It must be nobody else's, so the source port may have to change even where the
    /// client's address is kept: one client may come from one port by two frontends to one endpoint.
    fn reply_tuple(
        &mut self,
        shared: &mut Shared<'_>,
        at: &mut Arrival<'_>,
        tuple: &Tuple<A>,
        protocol: Protocol,
        decision: &Decision<'_>,
        endpoint: &RecordEndpoint,
    ) -> Result<Tuple<A>, DropReason> {
        let source = A::from_ip(endpoint.address.ip()).ok_or(DropReason::NoFlow)?;
        let masquerade = decision.masquerades(endpoint);
        let destination = if masquerade {
            let own = || shared.program.context().addresses().find_map(A::from_ip);
            self.source.or_else(own).ok_or(DropReason::NoSourceAddress)?
        } else {
            tuple.source
        };
        let reply = |port| Tuple { source, destination, ports: Ports::new(endpoint.address.port(), port) };
        let now = at.now;
        let mut gone = Gone::default();
        let mut is_free = |port| {
            let reply = reply(port);
            if reply == *tuple {
                return false;
            }
            let hash = shared.keys.tuple(reply.source, reply.destination, reply.ports, protocol);
            let Some((number, _)) = self.flows.find(hash, &reply, protocol) else { return true };
            let is_over = self.flows.get(number).is_none_or(|f| shared.is_expired(f, now));
            if is_over {
                self.flows.remove(number, &shared.keys);
                gone.expired = gone.expired.saturating_add(1);
            }
            is_over
        };
        let kept = Some(tuple.ports.source()).filter(|&port| !masquerade && is_free(port));
        let port = kept.or_else(|| shared.ports.pick(at.random, is_free));
        shared.counters.count_gone(gone);
        port.map(reply).ok_or(DropReason::PortsExhausted)
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
        let takes_hop = at.takes_hop(shared);
        if takes_hop && ip.hop_limit() <= 1 {
            return Outcome::Drop(DropReason::Unanswerable);
        }
        ip.rewrite(source, destination, delta, takes_hop);
        Outcome::Forward
    }

    /// What has no ports: ICMP errors are about packets that have, all else passes.
    fn other_protocol(
        &mut self,
        shared: &Shared<'_>,
        at: &Arrival<'_>,
        ip: &mut A::Header<'_>,
        payload: &mut [u8],
        fragment: Option<Fragment>,
    ) -> Outcome {
        if fragment.is_none() && ip.protocol() == A::ICMP {
            return icmp_error::translate(self, shared, at, ip, payload);
        }
        self.not_translated(shared, at, ip, fragment, Outcome::Pass)
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

/// Whether a packet surely leaves its flow's state as it is. A header that is cut off is for the long way to refuse.
#[inline]
fn is_steady<A>(flow: &Flow<A>, direction: Direction, payload: &mut [u8]) -> bool {
    match flow.state {
        State::Established => {
            flow.protocol == Protocol::Tcp && Tcp::new_checked(payload).is_some_and(|h| Segment::is_plain(h.flags()))
        }
        State::Udp => payload.len() >= header_len(Protocol::Udp),
        State::UdpOneWay => direction == Direction::Original && payload.len() >= header_len(Protocol::Udp),
        _ => false,
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
    Fragments::new(addresses, ip.protocol(), fragment, shared.fragment_timeout, at.now)
}

/// The key of the client's affinity to the service, if the service has any.
fn affinity_key<A: Family>(
    decision: &Decision<'_>,
    tuple: &Tuple<A>,
    protocol: Protocol,
    now: Instant,
) -> Option<Affinity<A>> {
    let record = decision.frontend?.record;
    let timeout = millis(record.affinity_timeout()?);
    let frontend = (tuple.destination, tuple.ports.destination());
    Some(Affinity::new(tuple.source, frontend, protocol, &record, timeout, now))
}

fn drop_reason(reason: Reason) -> DropReason {
    match reason {
        Reason::SourceRange => DropReason::SourceRange,
        Reason::UnallocatedAddress => DropReason::UnallocatedAddress,
        _ => DropReason::NoLocalEndpoints,
    }
}
