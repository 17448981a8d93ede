//! Real packets: built with `etherparse`, and their checksums computed from scratch by it and by `crc`.

use etherparse::checksum::Sum16BitWords;
use etherparse::{Ipv4Header, Ipv6Header, PacketBuilder, TcpHeader, UdpHeader};
use std::net::{IpAddr, SocketAddr};

pub const CRC32C: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

pub fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn builder(from: SocketAddr, to: SocketAddr, ttl: u8) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    match (from.ip(), to.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => PacketBuilder::ipv4(a.octets(), b.octets(), ttl),
        (IpAddr::V6(a), IpAddr::V6(b)) => PacketBuilder::ipv6(a.octets(), b.octets(), ttl),
        _ => panic!("one family"),
    }
}

/// A TCP segment; flags are letters of "SAFRP".
pub fn tcp(from: SocketAddr, to: SocketAddr, flags: &str, payload: &[u8]) -> Vec<u8> {
    let mut header = TcpHeader::new(from.port(), to.port(), 0x0102_0304, 1_000);
    for flag in flags.chars() {
        match flag {
            'S' => header.syn = true,
            'A' => (header.ack, header.acknowledgment_number) = (true, 0x0a0b_0c0d),
            'F' => header.fin = true,
            'R' => header.rst = true,
            'P' => header.psh = true,
            _ => panic!("flag {flag}"),
        }
    }
    let mut out = vec![];
    builder(from, to, 64).tcp_header(header).write(&mut out, payload).unwrap();
    out
}

pub fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    builder(from, to, 64).udp(from.port(), to.port()).write(&mut out, payload).unwrap();
    out
}

/// An SCTP packet with one chunk of this type.
pub fn sctp(from: SocketAddr, to: SocketAddr, chunk: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    body.extend([1, 2, 3, 4, 0, 0, 0, 0, chunk, 0]);
    body.extend((payload.len() as u16 + 4).to_be_bytes());
    body.extend(payload);
    let sum = CRC32C.checksum(&body).to_le_bytes();
    body[8..12].copy_from_slice(&sum);
    raw(from, to, 132, &body)
}

/// A packet of any protocol.
pub fn raw(from: SocketAddr, to: SocketAddr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    builder(from, to, 64).write(&mut out, etherparse::IpNumber(protocol), body).unwrap();
    out
}

/// An ICMP error of the family's kind ("port", "frag", "ttl") that quotes the first `len` bytes of a packet.
pub fn icmp_error(from: IpAddr, to: IpAddr, kind: &str, quoted: &[u8], len: usize) -> Vec<u8> {
    let (kind, code, word) = match (kind, from.is_ipv4()) {
        ("port", true) => (3, 3, 0_u32),
        ("frag", true) => (3, 4, 1_400),
        ("ttl", true) => (11, 0, 0),
        ("port", false) => (1, 4, 0),
        ("frag", false) => (2, 0, 1_400),
        ("ttl", false) => (3, 0, 0),
        _ => panic!("kind {kind}"),
    };
    let mut body = vec![kind, code, 0, 0];
    body.extend(word.to_be_bytes());
    body.extend(&quoted[..len.min(quoted.len())]);
    let mut sum = Sum16BitWords::new();
    if let (IpAddr::V6(a), IpAddr::V6(b)) = (from, to) {
        sum = pseudo6(a.octets(), b.octets(), 58, body.len());
    }
    let checksum = sum.add_slice(&body).ones_complement().to_ne_bytes();
    body[2..4].copy_from_slice(&checksum);
    raw(SocketAddr::new(from, 0), SocketAddr::new(to, 0), if from.is_ipv4() { 1 } else { 58 }, &body)
}

fn pseudo6(from: [u8; 16], to: [u8; 16], protocol: u8, len: usize) -> Sum16BitWords {
    Sum16BitWords::new()
        .add_16bytes(from)
        .add_16bytes(to)
        .add_4bytes((len as u32).to_be_bytes())
        .add_4bytes([0, 0, 0, protocol])
}

/// What a packet is, read by `etherparse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub ttl: u8,
    pub body: Vec<u8>,
    pub fragmented: bool,
    pub later_fragment: bool,
}

impl Read {
    pub fn from(&self) -> SocketAddr {
        SocketAddr::new(self.source, u16::from_be_bytes([self.body[0], self.body[1]]))
    }

    pub fn to(&self) -> SocketAddr {
        SocketAddr::new(self.destination, u16::from_be_bytes([self.body[2], self.body[3]]))
    }
}

/// Reads a packet; the header's checksum must be right.
pub fn read(packet: &[u8]) -> Read {
    if packet[0] >> 4 == 4 {
        let (header, rest) = Ipv4Header::from_slice(packet).unwrap();
        assert_eq!(header.calc_header_checksum(), header.header_checksum, "IPv4 header checksum");
        Read {
            source: IpAddr::from(header.source),
            destination: IpAddr::from(header.destination),
            protocol: header.protocol.0,
            ttl: header.time_to_live,
            body: rest[..usize::from(header.total_len) - header.header_len()].to_vec(),
            fragmented: header.is_fragmenting_payload(),
            later_fragment: header.fragment_offset.value() != 0,
        }
    } else {
        let (header, rest) = Ipv6Header::from_slice(packet).unwrap();
        let rest = &rest[..usize::from(header.payload_length)];
        let (extensions, next, body) = etherparse::Ipv6Extensions::from_slice(header.next_header, rest).unwrap();
        Read {
            source: IpAddr::from(header.source),
            destination: IpAddr::from(header.destination),
            protocol: next.0,
            ttl: header.hop_limit,
            body: body.to_vec(),
            fragmented: extensions.is_fragmenting_payload(),
            later_fragment: extensions.fragment.is_some_and(|f| f.fragment_offset.value() != 0),
        }
    }
}

/// Whether every checksum of a packet is right, computed from scratch.
pub fn transport_is_valid(r: &Read) -> bool {
    if r.fragmented {
        return true; // its checksum is over bytes that are elsewhere
    }
    let body = &r.body;
    match (r.protocol, r.source, r.destination) {
        (6, IpAddr::V4(a), IpAddr::V4(b)) => TcpHeader::from_slice(body).is_ok_and(|(header, payload)| {
            header.calc_checksum_ipv4_raw(a.octets(), b.octets(), payload).unwrap() == header.checksum
        }),
        (6, IpAddr::V6(a), IpAddr::V6(b)) => TcpHeader::from_slice(body).is_ok_and(|(header, payload)| {
            header.calc_checksum_ipv6_raw(a.octets(), b.octets(), payload).unwrap() == header.checksum
        }),
        (17, IpAddr::V4(a), IpAddr::V4(b)) => UdpHeader::from_slice(body).is_ok_and(|(header, payload)| {
            header.checksum == 0
                || header.calc_checksum_ipv4_raw(a.octets(), b.octets(), payload).unwrap() == header.checksum
        }),
        (17, IpAddr::V6(a), IpAddr::V6(b)) => UdpHeader::from_slice(body).is_ok_and(|(header, payload)| {
            header.checksum == 0
                || header.calc_checksum_ipv6_raw(a.octets(), b.octets(), payload).unwrap() == header.checksum
        }),
        (132, ..) if body.len() >= 12 => {
            let mut zeroed = body.clone();
            zeroed[8..12].fill(0);
            CRC32C.checksum(&zeroed).to_le_bytes() == body[8..12]
        }
        (1, ..) => Sum16BitWords::new().add_slice(body).ones_complement() == 0,
        (58, IpAddr::V6(a), IpAddr::V6(b)) => {
            pseudo6(a.octets(), b.octets(), 58, body.len()).add_slice(body).ones_complement() == 0
        }
        _ => true,
    }
}

/// Reads a packet whose every checksum must be right; of an ICMP error the quoted packet's too, where it is whole.
pub fn read_valid(packet: &[u8]) -> Read {
    let r = read(packet);
    assert!(transport_is_valid(&r), "transport checksum of {r:x?}");
    r
}
