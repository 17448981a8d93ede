//! IPv6 headers with their extension headers (RFC 8200).

use super::address::V6;
use super::{Family, Fragment, Hops, IpHeader, WireError};

/// Length of a header without extensions.
pub(crate) const HEADER: usize = 40;
/// Most extension headers that are walked; a packet with more is malformed. RFC 8200 §4.1 knows an order of seven.
const MAX_EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// An IPv6 header and what its extension headers say.
#[derive(Debug)]
pub(crate) struct Ipv6<'a> {
    header: &'a mut [u8; HEADER],
    protocol: u8,
    fragment: Option<Fragment>,
    payload_len: usize,
}

impl<'a> IpHeader<'a> for Ipv6<'a> {
    type Address = V6;

    fn new_checked(bytes: &'a mut [u8]) -> Result<(Self, &'a mut [u8]), WireError> {
        let (ip, rest) = Self::open(bytes)?;
        let rest = rest.get_mut(..ip.payload_len).ok_or(WireError::Malformed)?;
        ip.walk(rest)
    }

    #[inline]
    fn new_plain<const N: usize>(bytes: &'a mut [u8], protocol: u8) -> Option<(Self, &'a mut [u8; N])> {
        let (ip, rest) = Self::open(bytes).ok()?;
        if ip.protocol != protocol {
            return None;
        }
        let transport = rest.get_mut(..ip.payload_len)?.first_chunk_mut()?;
        Some((ip, transport))
    }

    fn new_quoted(bytes: &'a mut [u8]) -> Result<(Self, &'a mut [u8]), WireError> {
        let (ip, rest) = Self::open(bytes)?;
        let there = rest.len().min(ip.payload_len);
        let rest = rest.get_mut(..there).ok_or(WireError::Malformed)?;
        ip.walk(rest)
    }

    fn source(&self) -> V6 {
        let [_, _, _, _, _, _, _, _, addresses @ ..] = &*self.header;
        addresses.first_chunk().map_or(V6([0; 16]), |a| V6(*a))
    }

    fn destination(&self) -> V6 {
        self.header.last_chunk().map_or(V6([0; 16]), |a| V6(*a))
    }

    fn addresses(&self) -> (V6, V6) {
        (self.source(), self.destination())
    }

    fn is_between(&self, source: V6, destination: V6) -> bool {
        self.source() == source && self.destination() == destination
    }

    fn protocol(&self) -> u8 {
        self.protocol
    }

    fn hop_limit(&self) -> u8 {
        self.header[7]
    }

    fn fragment(&self) -> Option<Fragment> {
        self.fragment
    }

    fn payload_len(&self) -> usize {
        self.payload_len
    }

    fn total_len(&self) -> usize {
        usize::from(u16::from_be_bytes([self.header[4], self.header[5]])).saturating_add(HEADER)
    }

    fn rewrite(&mut self, source: V6, destination: V6, _: u16, hops: Hops) {
        let [_, _, _, _, _, _, _, limit, addresses @ ..] = &mut *self.header;
        *limit = limit.wrapping_sub(hops.count);
        if let Some((first, second)) = addresses.split_first_chunk_mut::<16>() {
            *first = source.0;
            second.copy_from_slice(&destination.0);
        }
    }
}

impl<'a> Ipv6<'a> {
    fn open(bytes: &'a mut [u8]) -> Result<(Self, &'a mut [u8]), WireError> {
        let (header, rest) = bytes.split_first_chunk_mut::<HEADER>().ok_or(WireError::Malformed)?;
        if header[0] >> 4 != 6 {
            return Err(WireError::Malformed);
        }
        let payload_len = u16::from_be_bytes([header[4], header[5]]).into();
        let protocol = header[6];
        Ok((Self { header, protocol, fragment: None, payload_len }, rest))
    }

    /// Goes through the extension headers. A later fragment ends the walk: behind it is data.
    fn walk(mut self, rest: &'a mut [u8]) -> Result<(Self, &'a mut [u8]), WireError> {
        let mut rest = rest;
        for _ in 0..MAX_EXTENSIONS {
            let is_extension = matches!(self.protocol, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | FRAGMENT);
            if !is_extension || self.fragment.is_some_and(|f| !f.first) {
                return Ok((self, rest));
            }
            let head = *rest.first_chunk::<8>().ok_or(WireError::Malformed)?;
            let [next, len, ..] = head;
            let len = match self.protocol {
                FRAGMENT => {
                    self.read_fragment(head)?;
                    8
                }
                // the destination is a waypoint, not where the packet ends
                ROUTING if head[3] != 0 => return Err(WireError::Foreign),
                _ => usize::from(len).saturating_add(1).saturating_mul(8),
            };
            self.protocol = next;
            self.payload_len = self.payload_len.checked_sub(len).ok_or(WireError::Malformed)?;
            rest = rest.split_at_mut_checked(len).ok_or(WireError::Malformed)?.1;
        }
        Err(WireError::Malformed)
    }

    fn read_fragment(&mut self, header: [u8; 8]) -> Result<(), WireError> {
        if self.fragment.is_some() {
            return Err(WireError::Malformed);
        }
        let [_, _, offset0, offset1, id @ ..] = header;
        let field = u16::from_be_bytes([offset0, offset1]);
        // offset 0 and nothing more: an atomic fragment is a whole packet (RFC 6946)
        if field & 0xfff9 != 0 {
            self.fragment = Some(Fragment { id: u32::from_be_bytes(id), first: field & 0xfff8 == 0 });
        }
        Ok(())
    }
}

impl Family for V6 {
    type Header<'a> = Ipv6<'a>;
    const ICMP: u8 = super::icmp::ICMPV6;
    const HEADER_LEN: usize = HEADER;
    /// RFC 4443 §2.4 (c): the minimum MTU.
    const MAX_ERROR: usize = 1_280;

    fn write_header(out: &mut [u8], source: V6, destination: V6, protocol: u8, payload_len: u16) -> Option<()> {
        let [l0, l1] = payload_len.to_be_bytes();
        let (fixed, addresses) = out.split_first_chunk_mut::<8>()?;
        *fixed = [0x60, 0, 0, 0, l0, l1, protocol, 64];
        let (first, rest) = addresses.split_first_chunk_mut::<16>()?;
        *first = source.0;
        *rest.first_chunk_mut::<16>()? = destination.0;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::cast_possible_truncation, reason = "short packets")]

    use super::*;
    use std::vec::Vec;

    fn packet(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut p = std::vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, 9];
        p.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        p.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        p.extend(payload);
        p
    }

    #[test]
    fn extensions_are_walked_in_any_order() {
        let chain =
            [&[60, 1][..], &[0; 14], &[43, 0], &[0; 6], &[44, 0, 9, 0, 0, 0, 0, 0], &[6, 0, 0, 1, 1, 2, 3, 4], &[7; 5]];
        let mut bytes = packet(0, &chain.concat());
        let (ip, payload) = Ipv6::new_checked(&mut bytes).unwrap();
        assert_eq!((ip.protocol(), ip.payload_len(), ip.hop_limit()), (6, 5, 9));
        assert_eq!(ip.fragment(), Some(Fragment { id: 0x0102_0304, first: true }));
        assert_eq!(payload, [7; 5]);
        for len in 40..bytes.len() {
            let mut cut = bytes[..len].to_vec();
            assert_eq!(Ipv6::new_checked(&mut cut).err(), Some(WireError::Malformed), "{len}");
            cut[5] = (len - 40) as u8;
            assert_eq!(Ipv6::new_checked(&mut cut).is_ok(), len >= 80, "{len}");
        }
    }

    #[test]
    fn waypoints_are_not_destinations_and_chains_end() {
        let routed = [17, 0, 4, 1, 0, 0, 0, 0];
        assert_eq!(Ipv6::new_checked(&mut packet(43, &routed)).err(), Some(WireError::Foreign));
        let mut long = [60, 0, 0, 0, 0, 0, 0, 0].repeat(9);
        long[64] = 17;
        assert_eq!(Ipv6::new_checked(&mut packet(60, &long)).err(), Some(WireError::Malformed));
        let atomic = [17, 0, 0, 0, 0, 0, 0, 1];
        let mut bytes = packet(44, &atomic);
        let (ip, _) = Ipv6::new_checked(&mut bytes).unwrap();
        assert_eq!((ip.fragment(), ip.protocol()), (None, 17));
    }
}
