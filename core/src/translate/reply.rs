//! Answers to packets that are refused or out of hops: ICMP errors and TCP resets.

use super::drop_reason::DropReason;
use super::wire::tcp::{self, ACK, FIN, RST, SYN};
use super::wire::{Family, IpHeader, checksum, icmp};
use crate::table::Protocol;
use core::net::IpAddr;

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A TCP connection is refused: a reset.
    Reset,
    /// Anything else is refused: port unreachable.
    Unreachable,
    /// The packet is out of hops: time exceeded.
    TimeExceeded,
}

impl Answer {
    /// The answer to a packet of a protocol that is rejected.
    pub const fn rejecting(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Reset,
            Protocol::Udp | Protocol::Sctp => Self::Unreachable,
        }
    }

    /// Type and code of the ICMP message; `None` for a reset.
    const fn icmp<A: Family>(self) -> Option<(u8, u8)> {
        match (self, A::ICMP) {
            (Self::Reset, _) => None,
            (Self::Unreachable, icmp::ICMP) => Some((icmp::V4_UNREACHABLE, icmp::V4_PORT)),
            (Self::Unreachable, _) => Some((icmp::V6_UNREACHABLE, icmp::V6_PORT)),
            (Self::TimeExceeded, icmp::ICMP) => Some((icmp::V4_TIME_EXCEEDED, 0)),
            (Self::TimeExceeded, _) => Some((icmp::V6_TIME_EXCEEDED, 0)),
        }
    }
}

/// What an answer has to know of the packet it answers.
struct Question<A> {
    source: A,
    destination: A,
    protocol: u8,
    fragmented: bool,
    total_len: usize,
    payload_len: usize,
    /// Start of the payload, zeros where it is shorter.
    head: [u8; tcp::HEADER],
}

impl<A: Family> Question<A> {
    fn read(packet: &mut [u8]) -> Option<Self> {
        let (ip, payload) = A::Header::new_checked(packet).ok()?;
        let mut head = [0; tcp::HEADER];
        head.iter_mut().zip(payload.iter()).for_each(|(to, from)| *to = *from);
        Some(Self {
            source: ip.source(),
            destination: ip.destination(),
            protocol: ip.protocol(),
            fragmented: ip.fragment().is_some(),
            total_len: ip.total_len(),
            payload_len: ip.payload_len(),
            head,
        })
    }

    /// RFC 1122 §3.2.2 and RFC 4443 §2.4 (e): no answer to errors, to fragments, to or from what is not one host. A reset
    /// is never answered (RFC 9293 §3.10.7.1).
    fn is_answerable(&self) -> bool {
        let is_reset = self.protocol == Protocol::Tcp.number() && self.head[13] & RST != 0;
        let is_error = icmp::is_error(self.protocol, self.head[0]);
        !self.fragmented && !is_reset && !is_error && is_host(self.source.to_ip()) && is_host(self.destination.to_ip())
    }
}

/// Whether an address can be that of one host.
pub(crate) fn is_host(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(a) if a.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !is_broadcast
}

/// Builds the answer to a packet, as it came, in `out`; returns its length. `from` is the node's own address; `may` is
/// asked once there is something to answer, before work is put into it.
pub(crate) fn build<A: Family>(
    packet: &mut [u8],
    answer: Answer,
    from: Option<A>,
    out: &mut [u8],
    may: impl FnOnce() -> bool,
) -> Result<usize, DropReason> {
    let question = Question::<A>::read(packet).ok_or(DropReason::Malformed)?;
    if !question.is_answerable() {
        return Err(DropReason::Unanswerable);
    }
    if !may() {
        return Err(DropReason::ReplyLimited);
    }
    let built = match answer.icmp::<A>() {
        None => reset(&question, out),
        Some(kind) => error(&question, packet, kind, from.unwrap_or(question.destination), out),
    };
    built.ok_or(DropReason::ReplyRoom)
}

/// A reset, as the one asked would send it (RFC 9293 §3.10.7.1).
fn reset<A: Family>(question: &Question<A>, out: &mut [u8]) -> Option<usize> {
    let [sp0, sp1, dp0, dp1, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, ..] = question.head;
    let sequence = u32::from_be_bytes([s0, s1, s2, s3]);
    let (sequence, acknowledged, flags) = if flags & ACK != 0 {
        (u32::from_be_bytes([a0, a1, a2, a3]), 0, RST)
    } else {
        let header = usize::from(offset >> 4).saturating_mul(4);
        let data = crate::bytes::count(question.payload_len.saturating_sub(header));
        let marks = u32::from(flags & SYN != 0).wrapping_add(u32::from(flags & FIN != 0));
        (0, sequence.wrapping_add(data).wrapping_add(marks), RST | ACK)
    };
    let ([s0, s1, s2, s3], [a0, a1, a2, a3]) = (sequence.to_be_bytes(), acknowledged.to_be_bytes());
    let segment = [dp0, dp1, sp0, sp1, s0, s1, s2, s3, a0, a1, a2, a3, 0x50, flags, 0, 0, 0, 0, 0, 0];
    let (source, destination) = (question.destination, question.source);
    A::write_header(out, source, destination, Protocol::Tcp.number(), 20)?;
    let (_, body) = out.split_at_mut_checked(A::HEADER_LEN)?;
    let body = body.first_chunk_mut::<{ tcp::HEADER }>()?;
    *body = segment;
    let sum = pseudo_sum(source, destination, Protocol::Tcp.number(), 20);
    let [c0, c1] = (!checksum::add(sum, checksum::sum(&body[..]))).to_ne_bytes();
    (body[16], body[17]) = (c0, c1);
    A::HEADER_LEN.checked_add(tcp::HEADER)
}

/// An ICMP error that quotes as much of the packet as may be.
fn error<A: Family>(
    question: &Question<A>,
    packet: &[u8],
    (kind, code): (u8, u8),
    source: A,
    out: &mut [u8],
) -> Option<usize> {
    let room = A::MAX_ERROR.saturating_sub(A::HEADER_LEN).saturating_sub(icmp::HEADER);
    let quote = packet.get(..question.total_len.min(room))?;
    let len = quote.len().checked_add(icmp::HEADER)?;
    let wire_len = u16::try_from(len).ok()?;
    A::write_header(out, source, question.source, A::ICMP, wire_len)?;
    let body = out.get_mut(A::HEADER_LEN..)?.get_mut(..len)?;
    let (header, rest) = body.split_first_chunk_mut::<{ icmp::HEADER }>()?;
    *header = [kind, code, 0, 0, 0, 0, 0, 0];
    rest.copy_from_slice(quote);
    // ICMPv6's checksum covers the addresses, ICMP's does not
    let start = if A::ICMP == icmp::ICMPV6 { pseudo_sum(source, question.source, A::ICMP, wire_len) } else { 0 };
    let field = (!checksum::add(start, checksum::sum(body))).to_ne_bytes();
    body.get_mut(2..4)?.copy_from_slice(&field);
    A::HEADER_LEN.checked_add(len)
}

/// Sum of the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1).
fn pseudo_sum<A: Family>(source: A, destination: A, protocol: u8, len: u16) -> u16 {
    let words = [u16::from_ne_bytes(len.to_be_bytes()), u16::from_ne_bytes([0, protocol])];
    let sum = words.into_iter().fold(source.sum().wrapping_add(destination.sum()), |s, w| s.wrapping_add(w.into()));
    checksum::fold(sum)
}
