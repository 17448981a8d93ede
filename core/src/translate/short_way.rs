//! The short way through the translator, for what nearly all packets are: whole ones without options in the IP header, of
//! a TCP flow that is established or a UDP flow that is answered, and that stays so.
//!
//! It asks as little as proves that, and leaves every doubt to the long way ([`Lane::run`]), which decides about each kind
//! of packet alike.

use super::Hook;
use super::drop_reason::count_one;
use super::flow::{Flow, Tuple};
use super::lane::{Lane, Shared};
use super::state::{Segment, State};
use super::time::Instant;
use super::wire::tcp::{self, Tcp};
use super::wire::transport::Ports;
use super::wire::udp::{self, Udp};
use super::wire::{Family, IpHeader};
use crate::table::Protocol;

/// A protocol's part in the short way.
trait Steady<const HEADER: usize> {
    const PROTOCOL: Protocol;
    /// The state that its flows are in, and stay in, for nearly all of their packets.
    const STATE: State;

    /// Whether a packet leaves a flow in that state.
    fn is_plain(header: &mut [u8; HEADER]) -> bool;

    /// Writes the ports and updates the checksum; `delta` is the change of the sum of addresses and ports.
    fn rewrite(header: &mut [u8; HEADER], ports: Ports, delta: u16);
}

impl Steady<{ tcp::HEADER }> for Tcp<'_> {
    const PROTOCOL: Protocol = Protocol::Tcp;
    const STATE: State = State::Established;

    #[inline]
    fn is_plain(header: &mut [u8; tcp::HEADER]) -> bool {
        Segment::is_plain(Tcp(header).flags())
    }

    #[inline]
    fn rewrite(header: &mut [u8; tcp::HEADER], ports: Ports, delta: u16) {
        Tcp(header).rewrite(ports, delta);
    }
}

impl Steady<{ udp::HEADER }> for Udp<'_> {
    const PROTOCOL: Protocol = Protocol::Udp;
    const STATE: State = State::Udp;

    #[inline]
    fn is_plain(_: &mut [u8; udp::HEADER]) -> bool {
        true
    }

    #[inline]
    fn rewrite(header: &mut [u8; udp::HEADER], ports: Ports, delta: u16) {
        let [s0, s1, d0, d1, ..] = &mut *header;
        [*s0, *s1, *d0, *d1] = ports.0.to_ne_bytes();
        Udp(header).update_checksum(delta);
    }
}

impl<A: Family> Lane<'_, A> {
    /// Rewrites a TCP packet of an established flow, and takes note of it; `false`, and nothing was touched, where the
    /// packet has to go another way.
    #[inline(always)]
    pub fn short_way(&mut self, shared: &mut Shared<'_>, now: Instant, hook: Hook, packet: &mut [u8]) -> bool {
        self.short_way_of::<Tcp<'_>, { tcp::HEADER }>(shared, now, hook, packet)
    }

    /// The same for a UDP packet of an answered flow.
    #[inline(always)]
    pub fn short_way_udp(&mut self, shared: &mut Shared<'_>, now: Instant, hook: Hook, packet: &mut [u8]) -> bool {
        self.short_way_of::<Udp<'_>, { udp::HEADER }>(shared, now, hook, packet)
    }

    #[inline(always)]
    fn short_way_of<P: Steady<N>, const N: usize>(
        &mut self,
        shared: &mut Shared<'_>,
        now: Instant,
        hook: Hook,
        packet: &mut [u8],
    ) -> bool {
        let opened = A::Header::new_plain::<N>(packet, P::PROTOCOL.number());
        let Some((mut ip, header)) = opened else { return false };
        let Some(ports) = Ports::of(header) else { return false };
        // also one that arrives without any, and that hooks which take none let pass
        let out_of_hops = ip.hop_limit() <= shared.hops(hook).count;
        if !P::is_plain(header) || out_of_hops {
            return false;
        }
        let hash = shared.keys.tuple(ip.source(), ip.destination(), ports, P::PROTOCOL);
        let is_it = |flow: &Flow<A>, direction| {
            let tuple = flow.arriving(direction);
            ip.is_between(tuple.source, tuple.destination) && tuple.ports == ports && flow.is_in(P::PROTOCOL, P::STATE)
        };
        let (flow, direction) = match self.flows.promised_first(hash) {
            Some((flow, direction)) if is_it(flow, direction) => (flow, direction),
            _ => match self.flows.promised_second(hash) {
                Some((flow, direction)) if is_it(flow, direction) => (flow, direction),
                _ => {
                    // the link of another flow with the same tag may lie in front of its own
                    let (source, destination) = ip.addresses();
                    let tuple = Tuple { source, destination, ports };
                    match self.flows.find_mut(hash, &tuple, P::PROTOCOL) {
                        Some((flow, direction)) if flow.is_in(P::PROTOCOL, P::STATE) => (flow, direction),
                        _ => return false,
                    }
                }
            },
        };
        if now.since_unchecked(flow.seen) >= shared.timeout(P::STATE) {
            return false;
        }
        flow.seen = now;
        let out = flow.rewriting(direction);
        P::rewrite(header, out.tuple.ports, out.transport_delta);
        ip.rewrite(out.tuple.source, out.tuple.destination, out.address_delta, shared.hops(hook));
        count_one(&mut shared.counters.forwarded);
        true
    }
}
