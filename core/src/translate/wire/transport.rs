//! The three protocols of services behind one view: ports, and how a checksum follows a change.

use super::sctp::Sctp;
use super::tcp::Tcp;
use super::udp::Udp;
use super::{sctp, tcp, udp};
use crate::table::Protocol;

/// Source and destination port as one word in the packet's byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports(pub u32);

impl Ports {
    pub const fn new(source: u16, destination: u16) -> Self {
        let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
        Self(u32::from_ne_bytes([a, b, c, d]))
    }

    pub const fn source(self) -> u16 {
        let [a, b, _, _] = self.0.to_ne_bytes();
        u16::from_be_bytes([a, b])
    }

    pub const fn destination(self) -> u16 {
        let [_, _, a, b] = self.0.to_ne_bytes();
        u16::from_be_bytes([a, b])
    }

    /// The ports of the opposite direction.
    #[inline]
    pub const fn swapped(self) -> Self {
        Self(self.0.rotate_left(16))
    }

    /// Sum of both.
    pub const fn sum(self) -> u32 {
        (self.0 & 0xffff).wrapping_add(self.0 >> 16)
    }

    /// The first four bytes of a transport header; `None` where they are cut off.
    #[inline]
    pub fn of(payload: &[u8]) -> Option<Self> {
        payload.first_chunk().map(|b| Self(u32::from_ne_bytes(*b)))
    }
}

/// Length of the protocol's header without options or chunks.
pub(crate) const fn header_len(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => tcp::HEADER,
        Protocol::Udp => udp::HEADER,
        Protocol::Sctp => sctp::HEADER,
    }
}

/// Writes the ports and updates the checksum. `delta` is the change of the sum of addresses and ports, `len` the length
/// of the whole transport packet. In a quotation that ends before the checksum, the ports alone are written.
#[inline]
pub(crate) fn rewrite(protocol: Protocol, payload: &mut [u8], ports: Ports, delta: u16, len: usize) {
    let Some(field) = payload.first_chunk_mut::<4>() else { return };
    let old = *field;
    *field = ports.0.to_ne_bytes();
    match protocol {
        Protocol::Tcp => match Tcp::new_checked(payload) {
            Some(mut tcp) => tcp.update_checksum(delta),
            None => update_quoted_tcp(payload, delta),
        },
        Protocol::Udp => {
            if let Some(mut udp) = Udp::new_checked(payload) {
                udp.update_checksum(delta);
            }
        }
        Protocol::Sctp => {
            let change = u32::from_le_bytes(old) ^ u32::from_le_bytes(ports.0.to_ne_bytes());
            if let (Some(mut sctp), Ok(len)) = (Sctp::new_checked(payload), u16::try_from(len)) {
                sctp.update_checksum(change, len);
            }
        }
    }
}

/// A quotation may end between the checksum and the end of the header.
#[cold]
fn update_quoted_tcp(payload: &mut [u8], delta: u16) {
    if let Some([.., c0, c1]) = payload.first_chunk_mut::<18>() {
        [*c0, *c1] = super::checksum::update([*c0, *c1], delta);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_swap() {
        let ports = Ports::new(80, 40_000);
        assert_eq!((ports.source(), ports.destination()), (80, 40_000));
        assert_eq!(ports.swapped(), Ports::new(40_000, 80));
        assert_eq!(Ports::of(&[0, 80, 0x9c, 0x40]), Some(ports));
        assert_eq!(Ports::of(&[0, 80, 0x9c]), None);
    }
}
