//! A gateway's traffic: a table of many services, a translator with room for many flows, and frames with right checksums.

use natlet_core::translate::{Action, Bucket, Config, FlowV4, FlowV6, Hook, Instant, Memory, Translator, buckets_for};
use natlet_core::{
    Endpoint, Frontend, FrontendKind, Program, Protocol, Service, ServiceTable, Span, compile, max_len, scratch_len,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes before the IP packet in a frame.
pub const ETHERNET: usize = 14;
/// Services of the table.
pub const SERVICES: u32 = 1_000;
/// Endpoints of each service.
const ENDPOINTS: u32 = 4;
/// The time at which everything happens.
pub const NOW: Instant = Instant::from_millis(1_000);

/// TCP's flags.
pub const SYN: u8 = 0x02;
/// See [`SYN`].
pub const SYN_ACK: u8 = 0x12;
/// See [`SYN`].
pub const ACK: u8 = 0x10;

/// The address family of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A kind of traffic: client `i` of many to service `i` modulo [`SERVICES`].
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Family.
    pub family: Family,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Bytes of a frame, without its checksum.
    pub frame: usize,
}

/// TCP in IPv4.
pub const fn tcp(frame: usize) -> Kind {
    Kind { family: Family::V4, protocol: Protocol::Tcp, frame }
}

impl Kind {
    /// The first packet of flow `i`, or a later one, from the client; `flags` are TCP's.
    pub fn frame(self, i: u32, flags: u8) -> Vec<u8> {
        let port = 20_000 + u16::try_from(i / SERVICES).expect("fewer flows than ports");
        self.build((client(self.family, i), port), (frontend(self.family, i), 80), flags)
    }

    /// The endpoint's answer to a frame that reached it.
    pub fn answer(self, frame: &[u8], flags: u8) -> Vec<u8> {
        let packet = &frame[ETHERNET..];
        let (addresses, transport) = match self.family {
            Family::V4 => (&packet[12..20], &packet[20..]),
            Family::V6 => (&packet[8..40], &packet[40..]),
        };
        let (source, destination) = addresses.split_at(addresses.len() / 2);
        let port = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
        self.build((address(destination), port(2)), (address(source), port(0)), flags)
    }

    fn build(self, from: (IpAddr, u16), to: (IpAddr, u16), flags: u8) -> Vec<u8> {
        let mut frame = vec![0_u8; self.frame];
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        let (kind, header) = if self.family == Family::V4 { (0x0800_u16, 20) } else { (0x86dd, 40) };
        frame[12..14].copy_from_slice(&kind.to_be_bytes());
        let (ip, transport) = frame[ETHERNET..].split_at_mut(header);
        let len = u16::try_from(transport.len()).expect("a frame is short");
        match (from.0, to.0) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ip[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, self.protocol.number(), 0, 0]);
                ip[2..4].copy_from_slice(&(len + 20).to_be_bytes());
                ip[12..16].copy_from_slice(&source.octets());
                ip[16..].copy_from_slice(&destination.octets());
                let sum = checksum(0, ip);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                ip[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, self.protocol.number(), 64]);
                ip[4..6].copy_from_slice(&len.to_be_bytes());
                ip[8..24].copy_from_slice(&source.octets());
                ip[24..].copy_from_slice(&destination.octets());
            }
            _ => panic!("one family"),
        }
        transport[..2].copy_from_slice(&from.1.to_be_bytes());
        transport[2..4].copy_from_slice(&to.1.to_be_bytes());
        let field = match self.protocol {
            Protocol::Tcp => {
                (transport[12], transport[13]) = (0x50, flags);
                16
            }
            _ => {
                transport[4..6].copy_from_slice(&len.to_be_bytes());
                6
            }
        };
        let addresses = if self.family == Family::V4 { &ip[12..] } else { &ip[8..] };
        let pseudo = sum(addresses) + u32::from(self.protocol.number()) + u32::from(len);
        let value = checksum(pseudo, transport);
        transport[field..field + 2].copy_from_slice(&value.to_be_bytes());
        frame
    }
}

/// A translator with [`SERVICES`] services and room for `flows` flows of each family, which may take a hop off what it
/// forwards. Its memory is never given back.
pub fn translator(flows: usize, decrement_hop_limit: bool) -> Translator<'static, 'static> {
    let memory = Memory {
        flows_v4: vec![FlowV4::EMPTY; flows].leak(),
        buckets_v4: vec![Bucket::EMPTY; buckets_for(flows)].leak(),
        flows_v6: vec![FlowV6::EMPTY; flows].leak(),
        buckets_v6: vec![Bucket::EMPTY; buckets_for(flows)].leak(),
        ..Memory::default()
    };
    let program = Program::new_checked(program().leak()).expect("the compiler's output is a program");
    Translator::new(program, memory, &Config { decrement_hop_limit, ..Config::new([1, 2]) })
}

/// Gives a packet to a translator and expects it to be forwarded.
#[inline(always)]
pub fn forward(translator: &mut Translator<'_, '_>, random: &mut dyn FnMut() -> u32, packet: &mut [u8]) {
    let mut reply = [];
    let action = translator.process(NOW, Hook::Arriving, random, packet, &mut reply);
    assert!(action == Action::Forward, "a packet of a service is forwarded");
}

/// Makes an IPv4 frame its receiver's answer: source and destination change places, so all checksums stay right.
#[inline]
pub fn turn(frame: &mut [u8]) {
    if let Some(tuple) = frame.get_mut(26..38) {
        let (addresses, ports) = tuple.split_at_mut(8);
        addresses.rotate_left(4);
        ports.rotate_left(2);
    }
}

/// Flows of a kind, opened and, where they are TCP, established: returns a plain frame of each, and the endpoint's
/// answer to it, as they arrive.
pub fn establish(translator: &mut Translator<'_, '_>, kind: Kind, flows: u32) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut random = random();
    let mut pass = |mut frame: Vec<u8>| {
        forward(translator, &mut random, &mut frame[ETHERNET..]);
        frame
    };
    let (mut there, mut back) = (vec![], vec![]);
    for i in 0..flows {
        let reached = pass(kind.frame(i, SYN));
        pass(kind.answer(&reached, SYN_ACK));
        let reached = pass(kind.frame(i, ACK));
        there.push(kind.frame(i, ACK));
        back.push(kind.answer(&reached, ACK));
    }
    (there, back)
}

/// A generator of random words, the same each time (xorshift32).
pub fn random() -> impl FnMut() -> u32 {
    let mut state = 0x9e37_79b9_u32;
    move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    }
}

/// The Internet checksum of bytes, from scratch.
pub fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut total = start + sum(bytes);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !u16::try_from(total).expect("folded")
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c.get(1).copied().unwrap_or(0)]))).sum()
}

fn program() -> Vec<u8> {
    let (mut services, mut frontends, mut endpoints, mut text) = (vec![], vec![], vec![], String::new());
    let span = |start: usize, len: usize| Span { start: narrow(start), len: narrow(len) };
    for i in 0..SERVICES {
        for family in [Family::V4, Family::V6] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let name = format!("bench/{i}-{family:?}-{protocol}");
                services.push(Service {
                    name: span(text.len(), name.len()),
                    protocol,
                    frontends: span(frontends.len(), 1),
                    endpoints: span(endpoints.len(), ENDPOINTS as usize),
                    ..Service::default()
                });
                text.push_str(&name);
                let address = frontend(family, i);
                frontends.push(Frontend { kind: FrontendKind::ClusterIp, address, port: 80 });
                endpoints.extend((0..ENDPOINTS).map(|n| Endpoint::new(endpoint(family, i, n), 8080)));
            }
        }
    }
    let table = ServiceTable {
        services: &services,
        frontends: &frontends,
        endpoints: &endpoints,
        text: &text,
        ..ServiceTable::default()
    };
    let (mut scratch, mut out) = (vec![0; scratch_len(&table)], vec![0; max_len(&table)]);
    let len = compile(&table, &mut scratch, &mut out).expect("the table is sound");
    out.truncate(len);
    out
}

fn frontend(family: Family, i: u32) -> IpAddr {
    of(family, 0x0a60_0000, i % SERVICES)
}

fn endpoint(family: Family, i: u32, n: u32) -> IpAddr {
    of(family, 0x0af4_0000, i * ENDPOINTS + n)
}

fn client(family: Family, i: u32) -> IpAddr {
    of(family, 0xc633_6400, i % 200)
}

fn of(family: Family, net: u32, host: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(net + host).into(),
        Family::V6 => Ipv6Addr::from_bits((0x2001_0db8 << 96) + (u128::from(net) << 32) + u128::from(host)).into(),
    }
}

fn address(bytes: &[u8]) -> IpAddr {
    match bytes.try_into() {
        Ok(v4) => IpAddr::V4(<[u8; 4]>::into(v4)),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).expect("an address")),
    }
}

fn narrow(n: usize) -> u32 {
    u32::try_from(n).expect("a table of this size")
}
