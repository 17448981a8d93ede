//! ICMP errors about translated packets: both the quoted packet and the error itself are translated, as
//! `nf_nat_icmp_reply_translation` does it (RFC 5508 REQ-4, REQ-5).

use super::drop_reason::DropReason;
use super::flow::Tuple;
use super::lane::{Arrival, Lane, Outcome, Shared};
use super::wire::icmp::{ICMPV6, IcmpError};
use super::wire::transport::{self, Ports};
use super::wire::{Family, Hops, IpHeader, checksum};
use crate::table::Protocol;

/// Translates an ICMP error; passes one that is about nothing that is known here.
pub(crate) fn translate<A: Family>(
    lane: &Lane<'_, A>,
    shared: &Shared<'_>,
    at: &Arrival<'_>,
    ip: &mut A::Header<'_>,
    payload: &mut [u8],
) -> Outcome {
    let Some(mut error) = IcmpError::new_checked(ip.protocol(), payload) else { return Outcome::Pass };
    let before = checksum::sum(error.quote);
    let Some((quoted, protocol, len)) = read_quote::<A>(error.quote) else { return Outcome::Pass };
    // the packet that is quoted left from here; its answers arrive with the reverse of its tuple
    let answers = quoted.reversed();
    let hash = shared.keys.tuple(answers.source, answers.destination, answers.ports, protocol);
    let Some((number, direction)) = lane.flows.find(hash, &answers, protocol) else { return Outcome::Pass };
    let Some(flow) = lane.flows.get(number).filter(|f| !shared.is_expired(f, at.now)) else { return Outcome::Pass };
    if ip.destination() != answers.destination {
        return Outcome::Drop(DropReason::IcmpMismatch);
    }
    let hops = shared.hops(at.hook);
    if hops.use_up(ip.hop_limit()) {
        return Outcome::Drop(DropReason::Unanswerable);
    }
    let out = flow.rewriting(direction);
    let sent = out.tuple.reversed();
    if rewrite_quote::<A>(error.quote, &sent, out.address_delta, out.transport_delta, protocol, len).is_none() {
        return Outcome::Drop(DropReason::Malformed);
    }
    // The error's source becomes the one that answers of the flow have, whichever router on the way sent it: its own
    // address may mean nothing to who reads the error. Where answers keep their source, so does the error.
    let arrived = flow.arriving(direction);
    let source = if arrived.source == out.tuple.source { ip.source() } else { out.tuple.source };
    let addresses = |a: A, b: A| a.sum().wrapping_add(b.sum());
    let outer = checksum::delta(addresses(ip.source(), ip.destination()), addresses(source, out.tuple.destination));
    let mut change = checksum::delta(before.into(), checksum::sum(error.quote).into());
    if A::ICMP == ICMPV6 {
        change = checksum::add(change, outer);
    }
    error.update_checksum(change);
    ip.rewrite(source, out.tuple.destination, outer, hops);
    Outcome::Forward
}

/// The quoted packet's tuple, protocol, and the length that its transport packet had; `None` where it has no ports.
fn read_quote<A: Family>(quote: &mut [u8]) -> Option<(Tuple<A>, Protocol, usize)> {
    let (ip, payload) = A::Header::new_quoted(quote).ok()?;
    if ip.fragment().is_some_and(|f| !f.first) {
        return None;
    }
    let protocol = Protocol::from_number(ip.protocol())?;
    let ports = Ports::of(payload)?;
    Some((Tuple { source: ip.source(), destination: ip.destination(), ports }, protocol, ip.payload_len()))
}

/// Makes the quoted packet what its sender had sent.
fn rewrite_quote<A: Family>(
    quote: &mut [u8],
    sent: &Tuple<A>,
    address_delta: u16,
    transport_delta: u16,
    protocol: Protocol,
    len: usize,
) -> Option<()> {
    let (mut ip, payload) = A::Header::new_quoted(quote).ok()?;
    transport::rewrite(protocol, payload, sent.ports, transport_delta, len);
    ip.rewrite(sent.source, sent.destination, address_delta, Hops::NONE);
    Some(())
}
