//! ICMP (RFC 792) and ICMPv6 (RFC 4443) messages that quote a packet.

use super::checksum::update;

/// Length of the part before the quoted packet.
pub(crate) const HEADER: usize = 8;

/// IP protocol number of ICMP.
pub(crate) const ICMP: u8 = 1;
/// IP protocol number of ICMPv6.
pub(crate) const ICMPV6: u8 = 58;

pub(crate) const V4_UNREACHABLE: u8 = 3;
pub(crate) const V4_TIME_EXCEEDED: u8 = 11;
/// Code of [`V4_UNREACHABLE`]: port unreachable.
pub(crate) const V4_PORT: u8 = 3;
pub(crate) const V6_UNREACHABLE: u8 = 1;
pub(crate) const V6_TIME_EXCEEDED: u8 = 3;
/// Code of [`V6_UNREACHABLE`]: port unreachable.
pub(crate) const V6_PORT: u8 = 4;

const V4_SOURCE_QUENCH: u8 = 4;
const V4_PARAMETER: u8 = 12;

/// An ICMP error: its own header, and the packet that it quotes.
#[derive(Debug)]
pub(crate) struct IcmpError<'a> {
    header: &'a mut [u8; HEADER],
    /// The quoted packet, possibly cut off, possibly followed by extensions (RFC 4884).
    pub quote: &'a mut [u8],
}

impl<'a> IcmpError<'a> {
    /// `None` where the message is no error, or is cut off. Redirects are none: they speak about this router's own routes.
    pub fn new_checked(protocol: u8, bytes: &'a mut [u8]) -> Option<Self> {
        let (header, quote) = bytes.split_first_chunk_mut::<HEADER>()?;
        is_error(protocol, header[0]).then_some(Self { header, quote })
    }

    pub fn update_checksum(&mut self, delta: u16) {
        let [_, _, c0, c1, ..] = &mut *self.header;
        [*c0, *c1] = update([*c0, *c1], delta);
    }
}

/// Whether a packet of a protocol without ports asks for an answer: all do but ICMP's that are no requests, which conntrack
/// takes for the start of a connection neither (`nf_conntrack_proto_icmp.c`, `nf_conntrack_proto_icmpv6.c`, Linux 6.1).
pub(crate) const fn asks(protocol: u8, kind: u8) -> bool {
    match protocol {
        ICMP => matches!(kind, 8 | 13 | 15 | 17), // echo, timestamp, information, address mask
        ICMPV6 => matches!(kind, 128 | 139),      // echo, node information
        _ => true,
    }
}

/// Whether a message of this type reports an error and quotes a packet.
pub(crate) const fn is_error(protocol: u8, kind: u8) -> bool {
    match protocol {
        ICMP => matches!(kind, V4_UNREACHABLE | V4_SOURCE_QUENCH | V4_TIME_EXCEEDED | V4_PARAMETER),
        ICMPV6 => kind < 128 && kind != 0,
        _ => false,
    }
}
