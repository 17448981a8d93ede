//! IPv4 headers (RFC 791).

use super::address::V4;
use super::checksum::{sum, update};
use super::{Family, Fragment, Hops, IpHeader, WireError};
use crate::bytes::index;

/// Length of a header without options.
pub(crate) const HEADER: usize = 20;

/// Longest packet.
const MAX_LEN: usize = 0xffff;
/// The first word without the type of service.
const VERSION_AND_LENGTHS: u32 = 0xff00_ffff;

/// Flag beside the fragment offset.
const MORE_FRAGMENTS: u16 = 0x2000;
/// That flag and the offset: none is set in a whole packet.
const FRAGMENT: u16 = 0x3fff;

const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

/// An IPv4 header.
#[derive(Debug)]
pub(crate) struct Ipv4<'a> {
    header: &'a mut [u8; HEADER],
    payload_len: usize,
}

impl Ipv4<'_> {
    /// First byte of a packet without options: the version, and the header's length in words.
    pub const PLAIN: u8 = 0x45;

    /// Both addresses as one word.
    #[inline]
    fn address_pair(&self) -> u64 {
        self.header.last_chunk().map_or(0, |addresses| u64::from_ne_bytes(*addresses))
    }
}

/// The first word of a packet of this length without options and without type of service.
#[expect(clippy::cast_possible_truncation, reason = "the length of two headers")]
const fn plain_start(len: usize) -> u32 {
    ((Ipv4::PLAIN as u32) << 24).wrapping_add(len as u32)
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
const fn low_half(word: u64) -> u32 {
    word as u32
}

impl<'a> IpHeader<'a> for Ipv4<'a> {
    type Address = V4;

    #[inline]
    fn new_checked(bytes: &'a mut [u8]) -> Result<(Self, &'a mut [u8]), WireError> {
        let (header, rest) = bytes.split_first_chunk_mut::<HEADER>().ok_or(WireError::Malformed)?;
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let len = len.checked_sub(HEADER).ok_or(WireError::Malformed)?;
        let rest = rest.get_mut(..len).ok_or(WireError::Malformed)?;
        if header[0] == Self::PLAIN {
            return Ok((Self { header, payload_len: len }, rest));
        }
        let (options, payload) = split_options(header[0], rest)?;
        if is_source_routed(options) {
            return Err(WireError::SourceRouted);
        }
        Ok((Self { header, payload_len: payload.len() }, payload))
    }

    #[inline(always)]
    fn new_plain<const N: usize>(bytes: &'a mut [u8], protocol: u8) -> Option<(Self, &'a mut [u8; N])> {
        let least = const { HEADER.saturating_add(N) };
        let beyond = bytes.len().wrapping_sub(least);
        if beyond > const { MAX_LEN.saturating_sub(HEADER.saturating_add(N)) } {
            return None;
        }
        let (header, rest) = bytes.split_first_chunk_mut::<HEADER>()?;
        // Version, header length and total length at once: where one of the first two is another, or the third is below
        // the least, the difference is more than any packet's length.
        let start = u32::from_be_bytes(*header.first_chunk()?) & VERSION_AND_LENGTHS;
        let more = index(start.wrapping_sub(const { plain_start(HEADER.saturating_add(N)) }));
        // a whole packet of the protocol, whatever the TTL between
        let kind = u32::from_be_bytes(*header.split_first_chunk::<6>()?.1.first_chunk()?)
            & const { (FRAGMENT as u32) << 16 | 0xff };
        if more > beyond || kind != protocol.into() {
            return None;
        }
        Some((Self { header, payload_len: more.wrapping_add(N) }, rest.first_chunk_mut()?))
    }

    fn new_quoted(bytes: &'a mut [u8]) -> Result<(Self, &'a mut [u8]), WireError> {
        let (header, rest) = bytes.split_first_chunk_mut::<HEADER>().ok_or(WireError::Malformed)?;
        let (options, payload) = split_options(header[0], rest)?;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let payload_len = total.checked_sub(HEADER).and_then(|len| len.checked_sub(options.len()));
        let payload_len = payload_len.ok_or(WireError::Malformed)?;
        // an error's data may be padded, or followed by extensions (RFC 4884)
        let there = payload.len().min(payload_len);
        let payload = payload.get_mut(..there).ok_or(WireError::Malformed)?;
        Ok((Self { header, payload_len }, payload))
    }

    #[inline]
    fn source(&self) -> V4 {
        let [.., a, b, c, d, _, _, _, _] = *self.header;
        V4::from_bytes([a, b, c, d])
    }

    #[inline]
    fn destination(&self) -> V4 {
        let [.., a, b, c, d] = *self.header;
        V4::from_bytes([a, b, c, d])
    }

    #[inline]
    fn addresses(&self) -> (V4, V4) {
        let pair = self.address_pair();
        let (low, high) = (V4(low_half(pair)), V4(low_half(pair >> 32)));
        if cfg!(target_endian = "little") { (low, high) } else { (high, low) }
    }

    #[inline]
    fn is_between(&self, source: V4, destination: V4) -> bool {
        let (source, destination) = (u64::from(source.0), u64::from(destination.0));
        let wanted =
            if cfg!(target_endian = "little") { destination << 32 | source } else { source << 32 | destination };
        self.address_pair() == wanted
    }

    #[inline]
    fn protocol(&self) -> u8 {
        self.header[9]
    }

    #[inline]
    fn hop_limit(&self) -> u8 {
        self.header[8]
    }

    #[inline]
    fn fragment(&self) -> Option<Fragment> {
        let field = u16::from_be_bytes([self.header[6], self.header[7]]) & FRAGMENT;
        let id = || u16::from_be_bytes([self.header[4], self.header[5]]).into();
        (field != 0).then(|| Fragment { id: id(), first: field == MORE_FRAGMENTS })
    }

    fn payload_len(&self) -> usize {
        self.payload_len
    }

    fn total_len(&self) -> usize {
        u16::from_be_bytes([self.header[2], self.header[3]]).into()
    }

    #[inline(always)]
    fn rewrite(&mut self, source: V4, destination: V4, delta: u16, hops: Hops) {
        let [_, _, _, _, _, _, _, _, ttl, _, c0, c1, s0, s1, s2, s3, d0, d1, d2, d3] = &mut *self.header;
        *ttl = ttl.wrapping_sub(hops.count);
        [*c0, *c1] = update(update([*c0, *c1], delta), hops.delta);
        [*s0, *s1, *s2, *s3] = source.to_bytes();
        [*d0, *d1, *d2, *d3] = destination.to_bytes();
    }
}

impl Family for V4 {
    type Header<'a> = Ipv4<'a>;
    const ICMP: u8 = super::icmp::ICMP;
    const HEADER_LEN: usize = HEADER;
    /// RFC 1812 §4.3.2.3.
    const MAX_ERROR: usize = 576;

    fn write_header(out: &mut [u8], source: V4, destination: V4, protocol: u8, payload_len: u16) -> Option<()> {
        let header = out.first_chunk_mut::<HEADER>()?;
        let [l0, l1] = payload_len.checked_add(20)?.to_be_bytes();
        // RFC 1812 §4.3.2.5: errors have precedence 6, Internetwork Control
        let tos = if protocol == Self::ICMP { 0xc0 } else { 0 };
        let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (source.to_bytes(), destination.to_bytes());
        // not to be fragmented, so it needs no identification (RFC 6864 §4.1); TTL 64 (RFC 1700)
        *header = [0x45, tos, l0, l1, 0, 0, 0x40, 0, 64, protocol, 0, 0, s0, s1, s2, s3, d0, d1, d2, d3];
        let [c0, c1] = (!sum(&header[..])).to_ne_bytes();
        (header[10], header[11]) = (c0, c1);
        Some(())
    }
}

/// Splits options from the payload behind them.
fn split_options(version_and_length: u8, rest: &mut [u8]) -> Result<(&mut [u8], &mut [u8]), WireError> {
    if version_and_length >> 4 != 4 {
        return Err(WireError::Malformed);
    }
    let words = (version_and_length & 15).checked_sub(5).ok_or(WireError::Malformed)?;
    rest.split_at_mut_checked(usize::from(words).saturating_mul(4)).ok_or(WireError::Malformed)
}

/// Whether the options hold a source route: the destination is then not where the packet ends (RFC 7126 §4.3).
fn is_source_routed(mut options: &[u8]) -> bool {
    while let [kind, rest @ ..] = options {
        let len = match *kind {
            END_OF_OPTIONS => return false,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return true,
            NO_OPERATION => 1,
            _ => rest.first().map_or(0, |&len| usize::from(len)),
        };
        match options.get(len.max(1)..) {
            Some(behind) => options = behind,
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: [u8; 28] =
        [0x46, 0, 0, 28, 0x12, 0x34, 0x20, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7, 1, 1, 1, 0, 9, 9, 9, 9];

    #[test]
    fn fields() {
        let mut bytes = PACKET;
        let (ip, payload) = Ipv4::new_checked(&mut bytes).unwrap();
        assert_eq!(ip.source(), V4::from_bytes([192, 0, 2, 1]));
        assert_eq!(ip.destination(), V4::from_bytes([198, 51, 100, 7]));
        assert_eq!((ip.protocol(), ip.hop_limit(), ip.payload_len()), (17, 64, 4));
        assert_eq!(ip.fragment(), Some(Fragment { id: 0x1234, first: true }));
        assert_eq!(payload, [9; 4]);
    }

    #[test]
    fn lengths_that_do_not_fit() {
        for (at, value) in [(0, 0x44), (0, 0x4f), (0, 0x65), (3, 19), (3, 23), (3, 29)] {
            let mut bytes = PACKET;
            bytes[at] = value;
            assert_eq!(Ipv4::new_checked(&mut bytes).err(), Some(WireError::Malformed), "byte {at} = {value}");
        }
        for len in 0..28 {
            assert_eq!(Ipv4::new_checked(&mut PACKET.to_vec()[..len]).err(), Some(WireError::Malformed));
        }
    }

    /// The few comparisons of the short way take what all of the long way's take, and nothing else.
    #[test]
    fn plain_packets_are_the_whole_ones_without_options() {
        const TRANSPORT: usize = 20;
        let agree = |bytes: &mut [u8]| {
            let checked = Ipv4::new_checked(bytes).is_ok_and(|(ip, payload)| {
                ip.header[0] == Ipv4::PLAIN
                    && ip.fragment().is_none()
                    && ip.protocol() == 6
                    && payload.len() >= TRANSPORT
                    && payload.len() == ip.payload_len()
            });
            let len = Ipv4::new_checked(bytes).map_or(0, |(ip, _)| ip.payload_len());
            let plain = Ipv4::new_plain::<TRANSPORT>(bytes, 6).map(|(ip, _)| ip.payload_len());
            assert_eq!(plain, checked.then_some(len), "{} bytes: {:?}", bytes.len(), bytes.get(..HEADER));
            checked
        };
        let start = [0x45, 0, 0, 40, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7];
        let mut taken = 0;
        for room in [0, 19, 20, 39, 40, 41, 46, 300, 0x1_0000 - 1] {
            for at in 0..10 {
                for value in 0..=255 {
                    let mut bytes = std::vec![0; room];
                    bytes.iter_mut().zip(start).for_each(|(b, s)| *b = s);
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = value;
                    }
                    taken += u32::from(agree(&mut bytes));
                }
            }
            for len in (0..80).chain([255, 256, 299, 300, 301, 0xfffe, 0xffff]) {
                let mut bytes = std::vec![0; room];
                bytes.iter_mut().zip(start).for_each(|(b, s)| *b = s);
                let [high, low] = u16::to_be_bytes(len);
                for (at, value) in [(2, high), (3, low)] {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = value;
                    }
                }
                taken += u32::from(agree(&mut bytes));
            }
        }
        assert!(taken > 1_000, "{taken}");
        // memory that is longer than any packet goes the long way
        let mut bytes = std::vec![0; 0x1_0000];
        bytes.iter_mut().zip(start).for_each(|(b, s)| *b = s);
        assert!(Ipv4::new_plain::<TRANSPORT>(&mut bytes, 6).is_none() && Ipv4::new_checked(&mut bytes).is_ok());
    }

    #[test]
    fn source_routes_are_found_behind_other_options() {
        let mut bytes = PACKET;
        bytes[22] = LOOSE_SOURCE_ROUTE;
        assert_eq!(Ipv4::new_checked(&mut bytes).err(), Some(WireError::SourceRouted));
        for (options, expected) in [
            (&[7, 3, 0, 137][..], true),
            (&[7, 4, 0, 137], false),
            (&[7, 0, 137, 0], false),
            (&[7, 200, 0, 137], false),
        ] {
            assert_eq!(is_source_routed(options), expected, "{options:?}");
        }
    }
}
