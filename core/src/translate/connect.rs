//! The first packet of a connection: decide, choose an endpoint and a source, enter the flow.

use super::Hook;
use super::affinity::Affinity;
use super::choose::choose;
use super::drop_reason::{DropReason, count_one};
use super::flow::{Flow, Tuple};
use super::lane::{Arrival, Asked, Lane, Outcome, Shared};
use super::reply::{Answer, is_host};
use super::state::{Segment, State, sctp_opens};
use super::table::Gone;
use super::time::{Instant, millis};
use super::wire::Family;
use super::wire::sctp::Sctp;
use super::wire::tcp::Tcp;
use super::wire::transport::Ports;
use crate::decide::{ListKind, Reason, Verdict};
use crate::program::Record;
use crate::table::Protocol;
use core::net::SocketAddr;

/// Where a connection goes, as far as the program decides it.
struct Service<'f, 'p> {
    record: &'f Record<'p>,
    list: ListKind,
    /// Whether the source is rewritten whichever endpoint is drawn.
    masquerade: bool,
}

impl<A: Family> Lane<'_, A> {
    /// Opens a flow for the first packet of a connection; returns its number.
    pub fn open(
        &mut self,
        shared: &mut Shared<'_>,
        at: &mut Arrival<'_>,
        asked: &Asked<A>,
        payload: &mut [u8],
        out_of_hops: bool,
    ) -> Result<u32, Outcome> {
        let (tuple, protocol) = (&asked.tuple, asked.protocol);
        let (source, destination) = (tuple.source.to_ip(), tuple.destination.to_ip());
        let mut question = shared.program.packet(source, destination, protocol, tuple.ports.destination());
        question.from_node |= at.hook == Hook::Local;
        let exact = shared.program.find(destination, protocol, question.port);
        let node_port = shared.program.node_port_instead(&question, exact.as_ref());
        let frontend = node_port.as_ref().or(exact.as_ref());
        let ruling = shared.program.rule(&question, frontend);
        if ruling.verdict == Verdict::Accept {
            return Err(Outcome::Pass);
        }
        let is_loopback = source.is_loopback() || destination.is_loopback();
        if !is_host(source) || is_loopback && at.hook == Hook::Arriving {
            return Err(Outcome::Drop(DropReason::Martian));
        }
        let service = match (ruling.verdict, ruling.list, frontend) {
            (Verdict::Dnat, Some(list), Some(frontend)) => {
                Service { record: &frontend.record, list, masquerade: ruling.masquerade.is_yes() }
            }
            (Verdict::Reject, ..) => return Err(Outcome::Answer(Answer::rejecting(protocol))),
            _ => return Err(Outcome::Drop(drop_reason(ruling.reason))),
        };
        let state = match protocol {
            Protocol::Tcp => Tcp::new_checked(payload).and_then(|h| Segment::of(h.flags()).opens()),
            Protocol::Udp => Some(State::UdpOneWay),
            Protocol::Sctp => sctp_opens(Sctp::new_checked(payload).and_then(|s| s.chunk)),
        };
        let state = state.ok_or(Outcome::Drop(DropReason::NoFlow))?;
        if out_of_hops {
            return Err(Outcome::Answer(Answer::TimeExceeded));
        }
        self.connect(shared, at, asked, state, &service).map_err(Outcome::Drop)
    }

    /// Chooses the endpoint and the source, and enters the flow.
    fn connect(
        &mut self,
        shared: &mut Shared<'_>,
        at: &mut Arrival<'_>,
        asked: &Asked<A>,
        state: State,
        service: &Service<'_, '_>,
    ) -> Result<u32, DropReason> {
        let record = service.record;
        let (now, source) = (at.now, asked.tuple.source.to_ip());
        let affinity = affinity_key(record, asked, now);
        let remembered = affinity.and_then(|key| self.affinity.find(key.hash(&shared.keys), &key, now).copied());
        let remembered = remembered.map(|e| e.endpoint());
        let endpoint =
            choose(record, &service.list.of(record), source, remembered, at.random).ok_or(DropReason::NoFlow)?;
        // an endpoint that would reach itself is masqueraded too (hairpin)
        let masquerade = service.masquerade || endpoint.address.ip() == source;
        let mut gone = Gone::default();
        let reply = self.reply_tuple(shared, at, asked, masquerade, endpoint.address, &mut gone);
        let entered = reply.and_then(|(reply, reply_hash)| {
            let flow = || Flow::new(&asked.tuple, &reply, asked.protocol, state, now);
            let hashes = [asked.hash, reply_hash];
            let expired = |f: &Flow<A>| shared.is_expired(f, now);
            self.flows.insert(flow, hashes, (now, &shared.keys), expired, &mut gone).ok_or(DropReason::TableFull)
        });
        if gone != Gone::default() {
            shared.counters.count_gone(gone);
        }
        let number = entered?;
        count_one(&mut shared.counters.flows_opened);
        if let Some(entry) = affinity.and_then(|key| key.with_endpoint(&endpoint))
            && self.affinity.put(entry.hash(&shared.keys), entry, now)
        {
            count_one(&mut shared.counters.affinity_evicted);
        }
        Ok(number)
    }

    /// The tuple of the endpoint's answers, and its hash. It must be nobody else's, so the source port may have to change
    /// even where the client's address is kept: one client may come from one port by two frontends to one endpoint.
    fn reply_tuple(
        &mut self,
        shared: &Shared<'_>,
        at: &mut Arrival<'_>,
        asked: &Asked<A>,
        masquerade: bool,
        endpoint: SocketAddr,
        gone: &mut Gone,
    ) -> Result<(Tuple<A>, u32), DropReason> {
        let tuple = &asked.tuple;
        let source = A::from_ip(endpoint.ip()).ok_or(DropReason::NoFlow)?;
        let destination = if masquerade {
            let own = || shared.program.context().addresses().find_map(A::from_ip);
            self.source.or_else(own).ok_or(DropReason::NoSourceAddress)?
        } else {
            tuple.source
        };
        let now = at.now;
        let mut found = None;
        let mut take = |port| {
            let reply = Tuple { source, destination, ports: Ports::new(endpoint.port(), port) };
            let hash = shared.keys.tuple(source, destination, reply.ports, asked.protocol);
            let is_free = reply != *tuple && self.is_free(shared, hash, &reply, asked.protocol, now, gone);
            if is_free {
                found = Some((reply, hash));
            }
            is_free
        };
        if masquerade || !take(tuple.ports.source()) {
            shared.ports.pick(at.random, take);
        }
        found.ok_or(DropReason::PortsExhausted)
    }

    /// Whether no flow has this tuple. One that was idle for too long goes.
    fn is_free(
        &mut self,
        shared: &Shared<'_>,
        hash: u32,
        tuple: &Tuple<A>,
        protocol: Protocol,
        now: Instant,
        gone: &mut Gone,
    ) -> bool {
        let Some((number, _)) = self.flows.find(hash, tuple, protocol) else { return true };
        let is_over = self.flows.get(number).is_none_or(|f| shared.is_expired(f, now));
        if is_over {
            self.flows.remove(number, &shared.keys);
            gone.expired = gone.expired.saturating_add(1);
        }
        is_over
    }
}

/// The key of the client's affinity to the service, if the service has any.
fn affinity_key<A: Family>(record: &Record<'_>, asked: &Asked<A>, now: Instant) -> Option<Affinity<A>> {
    let timeout = millis(record.affinity_timeout()?);
    let frontend = (asked.tuple.destination, asked.tuple.ports.destination());
    Some(Affinity::new(asked.tuple.source, frontend, asked.protocol, record, timeout, now))
}

fn drop_reason(reason: Reason) -> DropReason {
    match reason {
        Reason::SourceRange => DropReason::SourceRange,
        Reason::UnallocatedAddress => DropReason::UnallocatedAddress,
        _ => DropReason::NoLocalEndpoints,
    }
}
