//! The short way through the translator, for what nearly all packets are: whole segments without options in the IP header,
//! of a TCP flow that is established and stays so.
//!
//! It asks as little as proves that, and leaves every doubt to the long way ([`Lane::run`]), which decides about each kind
//! of packet alike.

use super::Hook;
use super::drop_reason::count_one;
use super::flow::Flow;
use super::lane::{Lane, Shared};
use super::state::{Segment, State};
use super::time::Instant;
use super::wire::tcp::{self, Tcp};
use super::wire::transport::Ports;
use super::wire::{Family, IpHeader};
use crate::table::Protocol;

impl<A: Family> Lane<'_, A> {
    /// Rewrites a packet of an established flow, and takes note of it; `false`, and nothing was touched, where the packet
    /// has to go the long way.
    #[inline(always)]
    pub fn short_way(&mut self, shared: &mut Shared<'_>, now: Instant, hook: Hook, packet: &mut [u8]) -> bool {
        let opened = A::Header::new_plain::<{ tcp::HEADER }>(packet, Protocol::Tcp.number());
        let Some((mut ip, segment)) = opened else { return false };
        let Some(ports) = Ports::of(segment) else { return false };
        let mut tcp = Tcp(segment);
        let takes_hop = shared.takes_hop(hook);
        // also one that arrives without any, and that hooks which take none let pass
        let out_of_hops = ip.hop_limit() <= u8::from(takes_hop);
        if !Segment::is_plain(tcp.flags()) || out_of_hops {
            return false;
        }
        let hash = shared.keys.tuple(ip.source(), ip.destination(), ports, Protocol::Tcp);
        let is_it = |flow: &Flow<A>, direction| {
            let tuple = flow.arriving(direction);
            ip.is_between(tuple.source, tuple.destination) && tuple.ports == ports && flow.is_established_tcp()
        };
        let (flow, direction) = match self.flows.promised_first(hash) {
            Some((flow, direction)) if is_it(flow, direction) => (flow, direction),
            _ => match self.flows.promised_second(hash) {
                Some((flow, direction)) if is_it(flow, direction) => (flow, direction),
                _ => return false,
            },
        };
        if now.since(flow.seen) >= shared.timeout(State::Established) {
            return false;
        }
        flow.seen = now;
        let out = flow.rewriting(direction);
        tcp.rewrite(out.tuple.ports, out.transport_delta);
        ip.rewrite(out.tuple.source, out.tuple.destination, out.address_delta, takes_hop);
        count_one(&mut shared.counters.forwarded);
        true
    }
}
