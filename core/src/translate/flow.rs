//! A flow: one connection as its client and as its endpoint see it.

use super::state::State;
use super::time::Instant;
use super::wire::address::{Address, V4, V6};
use super::wire::checksum;
use super::wire::transport::Ports;
use crate::table::Protocol;
use core::net::SocketAddr;

/// Memory for one IPv4 flow: 36 bytes, to which come 12 bytes of [`super::Bucket`]s.
pub type FlowV4 = Flow<V4>;
/// Memory for one IPv6 flow: 84 bytes, to which come 12 bytes of [`super::Bucket`]s.
pub type FlowV6 = Flow<V6>;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)] // an index
pub enum Direction {
    /// From the client to the endpoint.
    Original,
    /// From the endpoint to the client.
    Reply,
}

/// One direction of a connection as its packets arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuple<A> {
    pub source: A,
    pub destination: A,
    pub ports: Ports,
}

impl<A: Address> Tuple<A> {
    pub const ZERO: Self = Self { source: A::ZERO, destination: A::ZERO, ports: Ports(0) };

    /// The tuple that an answer to a packet with this one has.
    #[inline]
    pub const fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source, ports: self.ports.swapped() }
    }

    pub fn source_socket(&self) -> SocketAddr {
        SocketAddr::new(self.source.to_ip(), self.ports.source())
    }

    pub fn destination_socket(&self) -> SocketAddr {
        SocketAddr::new(self.destination.to_ip(), self.ports.destination())
    }
}

/// Memory for one flow.
///
/// The original tuple is (client, frontend), the reply's is (endpoint, source that the endpoint sees). A packet that
/// arrives with one of them leaves with the reverse of the other. The checksums' changes are kept for the original
/// direction; the reply's are their one's complement negations.
#[derive(Clone, Copy, Debug)]
#[repr(C)] // protocol and state side by side
pub struct Flow<A> {
    /// By [`Direction`].
    tuples: [Tuple<A>; 2],
    /// When it was last used; while the entry is free, the next free one.
    pub(crate) seen: Instant,
    /// Change of the addresses' sum.
    pub(crate) address_delta: u16,
    /// Change of the sum of addresses and ports.
    pub(crate) transport_delta: u16,
    pub(crate) protocol: Protocol,
    pub(crate) state: State,
}

impl<A: Address> Flow<A> {
    /// An entry that is not in use, to fill arrays with.
    pub const EMPTY: Self = Self {
        tuples: [Tuple::ZERO; 2],
        seen: Instant::ZERO,
        address_delta: 0,
        transport_delta: 0,
        protocol: Protocol::Tcp,
        state: State::Free,
    };

    #[inline]
    pub(crate) fn new(original: &Tuple<A>, reply: &Tuple<A>, protocol: Protocol, state: State, now: Instant) -> Self {
        let after = reply.reversed();
        let addresses = |t: &Tuple<A>| t.source.sum().wrapping_add(t.destination.sum());
        let all = |t: &Tuple<A>| addresses(t).wrapping_add(t.ports.sum());
        Self {
            tuples: [*original, *reply],
            seen: now,
            address_delta: checksum::delta(addresses(original), addresses(&after)),
            transport_delta: checksum::delta(all(original), all(&after)),
            protocol,
            state,
        }
    }

    /// The tuple of packets that arrive in a direction.
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "there are two directions")]
    pub(crate) const fn arriving(&self, direction: Direction) -> &Tuple<A> {
        &self.tuples[direction as usize]
    }

    /// Whether it is of a protocol and in a state: one comparison of two neighbours.
    #[inline]
    pub(crate) const fn is_in(&self, protocol: Protocol, state: State) -> bool {
        let wanted = u16::from_ne_bytes([protocol as u8, state as u8]);
        u16::from_ne_bytes([self.protocol as u8, self.state as u8]) == wanted
    }

    /// How a packet of this direction leaves.
    #[inline]
    pub(crate) const fn rewriting(&self, direction: Direction) -> Rewriting<A> {
        let complement = (direction as u16).wrapping_neg();
        #[expect(clippy::indexing_slicing, reason = "there are two directions")]
        let opposite = &self.tuples[(direction as usize ^ 1) & 1];
        Rewriting {
            tuple: opposite.reversed(),
            address_delta: self.address_delta ^ complement,
            transport_delta: self.transport_delta ^ complement,
        }
    }
}

/// How a packet leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rewriting<A> {
    pub tuple: Tuple<A>,
    pub address_delta: u16,
    pub transport_delta: u16,
}

/// A flow, for people and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowInfo {
    /// Protocol.
    pub protocol: Protocol,
    /// Who connected.
    pub client: SocketAddr,
    /// To what.
    pub frontend: SocketAddr,
    /// Where it was sent.
    pub endpoint: SocketAddr,
    /// The source that the endpoint sees: the client, unless the flow is masqueraded.
    pub source: SocketAddr,
    /// State.
    pub state: State,
    /// Milliseconds since its last packet.
    pub idle: u32,
}

impl FlowInfo {
    pub(crate) fn of<A: Address>(flow: &Flow<A>, now: Instant) -> Self {
        let [original, reply] = &flow.tuples;
        Self {
            protocol: flow.protocol,
            client: original.source_socket(),
            frontend: original.destination_socket(),
            endpoint: reply.source_socket(),
            source: reply.destination_socket(),
            state: flow.state,
            idle: now.since(flow.seen),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size_of::<FlowV4>(), 36);
        assert_eq!(size_of::<FlowV6>(), 84);
    }
}
