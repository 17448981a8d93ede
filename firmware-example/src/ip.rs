//! What the gateway itself reads of an IP packet: addresses, and the payload of what is for it. Everything else is the
//! translator's.

use crate::bytes::{checksum, concat};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP protocol numbers that the gateway answers itself.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMP6: u8 = 58;
}

/// An IPv4 or IPv6 packet, its lengths checked.
#[derive(Clone, Copy, Debug)]
pub struct Ip<'a> {
    /// From whom.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// The next protocol; a fragment's or an extension header's is not looked behind.
    pub protocol: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Part of a larger IPv4 packet.
    pub fragment: bool,
    /// Length of the packet: what is behind it in the frame is padding.
    pub len: usize,
    /// What is behind the header.
    pub payload: &'a [u8],
}

impl<'a> Ip<'a> {
    /// Reads a header; `None` if the packet is cut or no IP.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::read4(bytes),
            6 => Self::read6(bytes),
            _ => None,
        }
    }

    fn read4(bytes: &'a [u8]) -> Option<Self> {
        let &[v, _, l0, l1, _, _, f0, f1, hop_limit, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            bytes.first_chunk::<20>()?;
        let header = usize::from(v & 0xf).saturating_mul(4);
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        if header < 20 {
            return None;
        }
        Some(Self {
            source: Ipv4Addr::new(s0, s1, s2, s3).into(),
            destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
            protocol,
            hop_limit,
            fragment: u16::from_be_bytes([f0, f1]) & 0x3fff != 0,
            len,
            payload: bytes.get(header..len)?,
        })
    }

    fn read6(bytes: &'a [u8]) -> Option<Self> {
        let (&[_, _, _, _, l0, l1, protocol, hop_limit], rest) = bytes.split_first_chunk::<8>()?;
        let (&source, rest) = rest.split_first_chunk::<16>()?;
        let (&destination, _) = rest.split_first_chunk::<16>()?;
        let len = usize::from(u16::from_be_bytes([l0, l1])).saturating_add(40);
        Some(Self {
            source: Ipv6Addr::from(source).into(),
            destination: Ipv6Addr::from(destination).into(),
            protocol,
            hop_limit,
            fragment: false,
            len,
            payload: bytes.get(40..len)?,
        })
    }
}

/// Takes one off a packet's TTL or hop limit, and keeps IPv4's checksum right (RFC 1624); false if none is left.
pub fn take_hop(packet: &mut [u8]) -> bool {
    match packet.first().map(|b| b >> 4) {
        Some(4) => {
            let Some([_, _, _, _, _, _, _, _, ttl, _, c0, c1]) = packet.first_chunk_mut::<12>() else { return false };
            let Some(less @ 1..) = ttl.checked_sub(1) else { return false };
            *ttl = less;
            // the checksum's complement grows by what the word with the TTL in its high half lost
            let (sum, carry) = u16::from_be_bytes([*c0, *c1]).overflowing_add(0x0100);
            [*c0, *c1] = sum.wrapping_add(carry.into()).to_be_bytes();
            true
        }
        Some(6) => match packet.first_chunk_mut::<8>() {
            Some([.., hop_limit]) if *hop_limit > 1 => {
                *hop_limit = hop_limit.saturating_sub(1);
                true
            }
            _ => false,
        },
        _ => false,
    }
}

/// A packet of the gateway's own, without payload yet.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    /// From whom: an address of the gateway.
    pub source: IpAddr,
    /// To whom, in the same family.
    pub destination: IpAddr,
    /// The next protocol.
    pub protocol: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
}

impl Outgoing {
    /// Writes header and payload at the start of `room`, fills in the payload's checksum at `checksum_at` (over a
    /// pseudo-header, but for ICMP) and returns the length; 0 if it does not fit.
    pub fn write(&self, room: &mut [u8], parts: &[&[u8]], checksum_at: usize) -> usize {
        let (header, pseudo) = match (self.source, self.destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) => (20, self.protocol != protocol::ICMP),
            (IpAddr::V6(_), IpAddr::V6(_)) => (40, true),
            _ => return 0,
        };
        let Some((head, body)) = room.split_at_mut_checked(header) else { return 0 };
        let len = concat(body, parts);
        let Ok(short) = u16::try_from(len) else { return 0 };
        if len == 0 || !self.write_header(head, short) {
            return 0;
        }
        let body = body.get_mut(..len).unwrap_or(&mut []);
        let [l0, l1] = short.to_be_bytes();
        let tail = [0, self.protocol, l0, l1];
        let sum = match (pseudo, self.source, self.destination) {
            (true, IpAddr::V4(s), IpAddr::V4(d)) => checksum(&[&s.octets(), &d.octets(), &tail, body]),
            (true, IpAddr::V6(s), IpAddr::V6(d)) => checksum(&[&s.octets(), &d.octets(), &tail, body]),
            _ => checksum(&[body]),
        };
        let sum = if sum == 0 && self.protocol == protocol::UDP { 0xffff } else { sum };
        if let Some(field) = body.get_mut(checksum_at..).and_then(|b| b.first_chunk_mut()) {
            *field = sum.to_be_bytes();
        }
        len.saturating_add(header)
    }

    fn write_header(&self, head: &mut [u8], payload: u16) -> bool {
        let written = match (self.source, self.destination) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                let [l0, l1] = payload.saturating_add(20).to_be_bytes();
                let first = [0x45, 0, l0, l1, 0, 0, 0x40, 0, self.hop_limit, self.protocol];
                let sum = checksum(&[&first, &[0, 0], &s.octets(), &d.octets()]).to_be_bytes();
                concat(head, &[&first, &sum, &s.octets(), &d.octets()])
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                let [l0, l1] = payload.to_be_bytes();
                let first = [0x60, 0, 0, 0, l0, l1, self.protocol, self.hop_limit];
                concat(head, &[&first, &s.octets(), &d.octets()])
            }
            _ => 0,
        };
        written != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_with_sound_checksums() {
        for (source, destination) in [("192.0.2.1", "192.0.2.9"), ("2001:db8::1", "2001:db8::9")] {
            let (source, destination): (IpAddr, IpAddr) = (source.parse().unwrap(), destination.parse().unwrap());
            let out = Outgoing { source, destination, protocol: protocol::UDP, hop_limit: 64 };
            let mut room = [0; 100];
            let len = out.write(&mut room, &[&[0, 7, 0, 9, 0, 11, 0, 0], &[1, 2, 3]], 6);
            let ip = Ip::read(&room[..len + 5]).unwrap();
            assert_eq!((ip.source, ip.destination, ip.len), (source, destination, len));
            assert_eq!(ip.payload.len(), 11);
            let tail = [0, protocol::UDP, 0, 11];
            let sum = match (source, destination) {
                (IpAddr::V4(s), IpAddr::V4(d)) => {
                    assert_eq!(checksum(&[&room[..20]]), 0);
                    checksum(&[&s.octets(), &d.octets(), &tail, ip.payload])
                }
                (IpAddr::V6(s), IpAddr::V6(d)) => checksum(&[&s.octets(), &d.octets(), &tail, ip.payload]),
                _ => unreachable!(),
            };
            assert_eq!(sum, 0);
            assert_eq!(out.write(&mut room[..len - 1], &[&[0; 11]], 6), 0);
        }
    }

    #[test]
    fn a_hop_less_keeps_the_checksum() {
        let out = |ttl: u8, id: u8| {
            let (source, destination) = ([192, 0, 2, id].into(), [198, 51, 100, 1].into());
            let mut room = [0; 24];
            let out = Outgoing { source, destination, protocol: protocol::ICMP, hop_limit: ttl };
            assert_eq!(out.write(&mut room, &[&[0; 4]], 2), 24);
            room
        };
        for id in 0..=255 {
            for ttl in 2..=255 {
                let mut packet = out(ttl, id);
                assert!(take_hop(&mut packet));
                assert_eq!((packet[8], checksum(&[&packet[..20]])), (ttl - 1, 0));
            }
            assert!(!take_hop(&mut out(1, id)) && !take_hop(&mut out(0, id)));
        }
        let mut v6 = [0; 40];
        (v6[0], v6[7]) = (0x60, 2);
        assert!(take_hop(&mut v6) && v6[7] == 1 && !take_hop(&mut v6) && !take_hop(&mut []));
    }

    #[test]
    fn cut_packets_are_none() {
        let mut v4 = [0; 20];
        (v4[0], v4[3]) = (0x45, 20);
        assert!(Ip::read(&v4).is_some());
        assert!(Ip::read(&v4[..19]).is_none());
        v4[3] = 21;
        assert!(Ip::read(&v4).is_none());
        (v4[0], v4[3]) = (0x44, 20);
        assert!(Ip::read(&v4).is_none());
        assert!(Ip::read(&[]).is_none());
        assert!(Ip::read(&[0x60; 39]).is_none());
    }
}
