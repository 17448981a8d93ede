//! The first packet of a connection: decide, choose an endpoint and a source, enter the flow.

use super::Hook;
use super::affinity::Affinity;
use super::choose::choose;
use super::drop_reason::{DropReason, count_one};
use super::flow::{Flow, Tuple};
use super::lane::{Arrival, Lane, Outcome, Shared};
use super::reply::{Answer, is_host};
use super::state::{Segment, State, sctp_opens};
use super::table::Gone;
use super::time::{Instant, millis};
use super::wire::Family;
use super::wire::sctp::Sctp;
use super::wire::tcp::Tcp;
use super::wire::transport::Ports;
use crate::decide::{Decision, Reason, Verdict};
use crate::program::RecordEndpoint;
use crate::table::Protocol;

impl<A: Family> Lane<'_, A> {
    /// Opens a flow for the first packet of a connection; returns its number.
    pub fn open(
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
}

/// The key of the client's affinity to the service, if the service has any.
fn affinity_key<A: Family>(
    decision: &Decision<'_>,
    tuple: &Tuple<A>,
    protocol: Protocol,
    now: Instant,
) -> Option<Affinity<A>> {
    let record = decision.frontend?.record;
    let timeout = millis(decision.affinity_timeout()?);
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
