//! Why a packet was not forwarded, and how often.

use super::table::Gone;
use core::fmt;

/// Why a packet vanished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DropReason {
    /// A length is wrong or a header cut off.
    Malformed,
    /// An IPv4 source-route option (RFC 7126 §4.3).
    SourceRouted,
    /// Arriving from or for a loopback address.
    Martian,
    /// The source is in none of the service's source ranges.
    SourceRange,
    /// The policy is Local and no usable endpoint is on this node.
    NoLocalEndpoints,
    /// An address of the service CIDRs that no service has.
    UnallocatedAddress,
    /// No connection has this packet, and none starts with it.
    NoFlow,
    /// No room for the flow, and none that could be given up was found.
    TableFull,
    /// No source port is free for a masqueraded connection.
    PortsExhausted,
    /// Nothing to masquerade with: no source address of the family is known.
    NoSourceAddress,
    /// A fragment that needs translation, and no memory to remember its packet by.
    FragmentUntracked,
    /// A fragment that came before its packet's first, or whose first was dropped.
    FragmentWithoutFirst,
    /// A fragment of an SCTP packet whose ports change: its checksum lies in another fragment's hands.
    FragmentSctp,
    /// An ICMP error that quotes a known connection, but was not sent to whom it quotes.
    IcmpMismatch,
    /// Refused, or out of hops, but an answer must not be sent (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)).
    Unanswerable,
    /// Refused, or out of hops; the limit on answers is reached.
    ReplyLimited,
    /// Refused, or out of hops; the caller's memory for the answer is too short.
    ReplyRoom,
}

impl DropReason {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 17] = [
        Self::Malformed,
        Self::SourceRouted,
        Self::Martian,
        Self::SourceRange,
        Self::NoLocalEndpoints,
        Self::UnallocatedAddress,
        Self::NoFlow,
        Self::TableFull,
        Self::PortsExhausted,
        Self::NoSourceAddress,
        Self::FragmentUntracked,
        Self::FragmentWithoutFirst,
        Self::FragmentSctp,
        Self::IcmpMismatch,
        Self::Unanswerable,
        Self::ReplyLimited,
        Self::ReplyRoom,
    ];

    /// A name for counters: `malformed`, `source-range`, …
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::SourceRouted => "source-routed",
            Self::Martian => "martian",
            Self::SourceRange => "source-range",
            Self::NoLocalEndpoints => "no-local-endpoints",
            Self::UnallocatedAddress => "unallocated-address",
            Self::NoFlow => "no-flow",
            Self::TableFull => "table-full",
            Self::PortsExhausted => "ports-exhausted",
            Self::NoSourceAddress => "no-source-address",
            Self::FragmentUntracked => "fragment-untracked",
            Self::FragmentWithoutFirst => "fragment-without-first",
            Self::FragmentSctp => "fragment-sctp",
            Self::IcmpMismatch => "icmp-mismatch",
            Self::Unanswerable => "unanswerable",
            Self::ReplyLimited => "reply-limited",
            Self::ReplyRoom => "reply-room",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happened since the start. Every packet is in exactly one of `forwarded`, `passed`, `answered` and the drops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that were rewritten.
    pub forwarded: u64,
    /// Packets that are nobody's here.
    pub passed: u64,
    /// Packets that were answered with an ICMP error or a TCP reset.
    pub answered: u64,
    /// Flows that began.
    pub flows_opened: u64,
    /// Flows that were idle for too long, or were followed by a new connection with the same addresses and ports.
    pub flows_expired: u64,
    /// Flows that were given up for newer ones.
    pub flows_evicted: u64,
    /// Flows that a new program ended.
    pub flows_replaced: u64,
    /// Clients whose endpoint was forgotten early for others'.
    pub affinity_evicted: u64,
    drops: [u64; DropReason::ALL.len()],
}

impl Counters {
    /// Packets that vanished for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(usize::from(reason as u8)).copied().unwrap_or(0)
    }

    /// All reasons with their counters.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().zip(self.drops)
    }

    pub(crate) fn count_gone(&mut self, gone: Gone) {
        self.flows_evicted = self.flows_evicted.wrapping_add(gone.evicted.into());
        self.flows_expired = self.flows_expired.wrapping_add(gone.expired.into());
    }

    pub(crate) fn count_drop(&mut self, reason: DropReason) {
        if let Some(counter) = self.drops.get_mut(usize::from(reason as u8)) {
            *counter = counter.wrapping_add(1);
        }
    }
}

/// Adds one to a counter.
#[inline]
pub(crate) fn count_one(counter: &mut u64) {
    *counter = counter.wrapping_add(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter() {
        let mut counters = Counters::default();
        for (i, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
            for _ in 0..=i {
                counters.count_drop(reason);
            }
        }
        for (i, (reason, n)) in counters.drops().enumerate() {
            assert_eq!((n, counters.dropped(reason)), (i as u64 + 1, i as u64 + 1), "{reason}");
        }
    }
}
