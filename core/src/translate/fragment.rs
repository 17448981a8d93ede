//! Fragments: those behind the first have no ports and follow it.
//!
//! The policy: the first fragment of a packet is translated like a packet and leaves a note, which its later fragments
//! follow; the first fragment of a packet that passes leaves a note too. A later fragment without a note is dropped and
//! counted, whomever it is for: whether it belongs to a connection of a service cannot be told, and an untranslated one
//! must not leak. So fragments that overtake their first are lost, and the transport protocol sends again. Without
//! memory for notes, first fragments that need translation are dropped as well.

use super::cache::Entry;
use super::flow::Rewriting;
use super::keys::HashKeys;
use super::time::Instant;
use super::wire::address::{Address, V4, V6};
use super::wire::{Fragment, checksum};

/// Memory for one IPv4 packet in fragments.
pub type FragmentsV4 = Fragments<V4>;
/// Memory for one IPv6 packet in fragments.
pub type FragmentsV6 = Fragments<V6>;

/// Memory for one packet in fragments.
#[derive(Clone, Copy, Debug)]
pub struct Fragments<A> {
    source: A,
    destination: A,
    new_source: A,
    new_destination: A,
    id: u32,
    seen: Instant,
    /// Milliseconds; 0 in an entry that is not in use.
    timeout: u32,
    /// Part of the key in IPv4 (RFC 791 §3.2); 0 in IPv6.
    protocol: u8,
}

impl<A: Address> Fragments<A> {
    /// An entry that is not in use, to fill arrays with.
    pub const EMPTY: Self = Self {
        source: A::ZERO,
        destination: A::ZERO,
        new_source: A::ZERO,
        new_destination: A::ZERO,
        id: 0,
        seen: Instant::ZERO,
        timeout: 0,
        protocol: 0,
    };

    /// The note on a packet whose fragments pass as they are.
    pub(crate) const fn new(
        (source, destination): (A, A),
        protocol: u8,
        fragment: Fragment,
        timeout: u32,
        now: Instant,
    ) -> Self {
        let id = fragment.id;
        Self { source, destination, new_source: source, new_destination: destination, id, seen: now, timeout, protocol }
    }

    /// The same for a packet that leaves with other addresses.
    pub(crate) const fn leaving(self, new_source: A, new_destination: A) -> Self {
        Self { new_source, new_destination, ..self }
    }

    pub(crate) fn hash(&self, keys: &HashKeys) -> u32 {
        keys.other(self.source, self.destination, self.id ^ u32::from(self.protocol).rotate_right(8))
    }

    /// Where a later fragment goes, and the change of its addresses' sum; `None` for one that passes as it is.
    pub(crate) fn rewriting(&self) -> Option<(A, A, u16)> {
        if (self.new_source, self.new_destination) == (self.source, self.destination) {
            return None;
        }
        let sum = |a: A, b: A| a.sum().wrapping_add(b.sum());
        let delta = checksum::delta(sum(self.source, self.destination), sum(self.new_source, self.new_destination));
        Some((self.new_source, self.new_destination, delta))
    }
}

impl<A: Address> Entry for Fragments<A> {
    const EMPTY: Self = Self::EMPTY;

    fn life(&self) -> (Instant, u32) {
        (self.seen, self.timeout)
    }

    fn same_key(&self, other: &Self) -> bool {
        (self.source, self.destination, self.id, self.protocol)
            == (other.source, other.destination, other.id, other.protocol)
    }
}

/// The note of a first fragment that is rewritten.
pub(crate) const fn follow<A: Address>(note: Fragments<A>, rewriting: &Rewriting<A>) -> Fragments<A> {
    note.leaving(rewriting.tuple.source, rewriting.tuple.destination)
}
