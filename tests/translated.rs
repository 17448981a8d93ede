//! A flow as real packet bytes through the translator: what becomes of its first packets, and whether the replies come back
//! to the tuple that they answer. Packets are made, taken apart and summed by `etherparse` and `crc`, not by natlet.

use crate::flow::Outcome;
use crc::{CRC_32_ISCSI, Crc};
use etherparse::{
    IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, NetHeaders, PacketBuilder, PacketHeaders, TcpHeader,
    TransportHeader,
};
use natlet_core::translate::{
    Action, AffinityV4, AffinityV6, Bucket, Config, FlowV4, FlowV6, Hook, Instant, MAX_REPLY, Memory, ReplyLimit,
    Translator, buckets_for,
};
use natlet_core::{Program, Protocol, Verdict};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Flows that are asked for at most, and so remembered.
const FLOWS: usize = 4096;
/// What masquerades where the program knows no address of its node.
const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xfe);
const HOPS: u8 = 64;
const PAYLOAD: &[u8] = b"natlet\n";

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    protocol: Protocol,
    source: SocketAddr,
    destination: SocketAddr,
}

impl Tuple {
    const fn reversed(self) -> Self {
        Self { protocol: self.protocol, source: self.destination, destination: self.source }
    }
}

/// Sends first packets from `source` to `destination` until every expected endpoint has had its chance, and each endpoint's
/// answer back.
///
/// # Errors
/// Says what was not as expected, or not right in a packet.
pub fn check(
    program: Program<'_>,
    protocol: Protocol,
    source: IpAddr,
    destination: SocketAddr,
    expected: &Outcome,
) -> Result<(), String> {
    let own = |v6: bool| program.context().addresses().find(|a| a.is_ipv6() == v6);
    let masquerade =
        own(destination.is_ipv6()).unwrap_or(if destination.is_ipv6() { SOURCE_V6.into() } else { SOURCE_V4.into() });
    let config = Config {
        source_v4: Some(SOURCE_V4).filter(|_| own(false).is_none()),
        source_v6: Some(SOURCE_V6).filter(|_| own(true).is_none()),
        reply_limit: ReplyLimit { rate: u32::MAX, burst: u32::MAX / 1_000 },
        ..Config::new([1, 2])
    };
    let (mut v4, mut v6) = (vec![FlowV4::EMPTY; FLOWS], vec![FlowV6::EMPTY; FLOWS]);
    let mut buckets = [vec![Bucket::EMPTY; buckets_for(FLOWS)], vec![Bucket::EMPTY; buckets_for(FLOWS)]];
    let (mut affinity_v4, mut affinity_v6) = ([AffinityV4::EMPTY; 16], [AffinityV6::EMPTY; 16]);
    let [buckets_v4, buckets_v6] = &mut buckets;
    let memory = Memory {
        flows_v4: &mut v4,
        buckets_v4,
        flows_v6: &mut v6,
        buckets_v6,
        affinity_v4: &mut affinity_v4,
        affinity_v6: &mut affinity_v6,
        ..Memory::default()
    };
    let context = program.context();
    // what the node itself sends has not travelled; a loopback address is only there
    let local = source.is_loopback() || context.is_node_address(source);
    let hook = if local { Hook::Local } else { Hook::Arriving };
    let mut engine = Engine { translator: Translator::new(program, memory, &config), state: 88_172_645_463_325_252 };

    let first = |port| Tuple { protocol, source: SocketAddr::new(source, port), destination };
    let mut seen = BTreeSet::new();
    for port in 20_000..20_000 + if expected.endpoints.len() > 1 { 1_000 } else { 4 } {
        let sent = first(port);
        let mut packet = build(sent, Step::First)?;
        let before = packet.clone();
        let mut reply = [0; MAX_REPLY];
        match (expected.verdict, engine.process(hook, &mut packet, &mut reply)) {
            (Verdict::Accept, Action::Pass) if packet == before => {}
            (Verdict::Drop, Action::Drop(_)) => {}
            (Verdict::Reject, Action::Reply(length)) => refusal(sent, &before, &reply[..length])?,
            (Verdict::Dnat, Action::Forward) => {
                let hops = if local { HOPS } else { HOPS - 1 };
                let left = parse(&packet, hops)?;
                let endpoint = left.destination;
                let Some(masqueraded) = expected.endpoints.get(&endpoint) else {
                    return Err(format!("sent to {endpoint}"));
                };
                let sees = if *masqueraded { masquerade } else { source };
                if left.source.ip() != sees || (!masqueraded && left.source.port() != port) {
                    return Err(format!("{endpoint} sees {}, expected {sees}", left.source));
                }
                seen.insert(endpoint);
                let mut answer = build(left.reversed(), Step::Answer)?;
                if engine.process(Hook::Arriving, &mut answer, &mut reply) != Action::Forward {
                    return Err(format!("the answer of {endpoint} is not forwarded"));
                }
                let back = parse(&answer, HOPS - 1)?;
                if back != sent.reversed() {
                    return Err(format!("the answer to {sent:?} came back as {back:?}"));
                }
            }
            (_, action) => return Err(format!("{action:?}")),
        }
        if seen.len() == expected.endpoints.len() && port > 20_003 {
            break;
        }
    }
    if seen.len() == expected.endpoints.len() { Ok(()) } else { Err(format!("only {seen:?} were met")) }
}

struct Engine<'m, 'p> {
    translator: Translator<'m, 'p>,
    state: u64,
}

impl Engine<'_, '_> {
    fn process(&mut self, hook: Hook, packet: &mut [u8], reply: &mut [u8]) -> Action {
        let state = &mut self.state;
        let mut random = || {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            (*state >> 32) as u32
        };
        self.translator.process(Instant::from_millis(0), hook, &mut random, packet, reply)
    }
}

/// A connection's first packet, or what its endpoint says to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    First,
    Answer,
}

fn build(tuple: Tuple, step: Step) -> Result<Vec<u8>, String> {
    let mut packet = Vec::new();
    let (from, to) = (tuple.source.port(), tuple.destination.port());
    let ip = match (tuple.source.ip(), tuple.destination.ip()) {
        (IpAddr::V4(s), IpAddr::V4(d)) => PacketBuilder::ipv4(s.octets(), d.octets(), HOPS),
        (IpAddr::V6(s), IpAddr::V6(d)) => PacketBuilder::ipv6(s.octets(), d.octets(), HOPS),
        _ => return Err("a flow of two families".into()),
    };
    match tuple.protocol {
        Protocol::Tcp => {
            let mut tcp = TcpHeader::new(from, to, 7, 1_000);
            (tcp.syn, tcp.ack) = (true, step == Step::Answer);
            ip.tcp_header(tcp).write(&mut packet, &[])
        }
        Protocol::Udp => ip.udp(from, to).write(&mut packet, PAYLOAD),
        Protocol::Sctp => return sctp(tuple, step),
    }
    .map_err(|e| e.to_string())?;
    Ok(packet)
}

/// A packet with an INIT or INIT ACK chunk (RFC 9260 §3.3.2).
fn sctp(tuple: Tuple, step: Step) -> Result<Vec<u8>, String> {
    let mut segment = Vec::new();
    segment.extend(tuple.source.port().to_be_bytes());
    segment.extend(tuple.destination.port().to_be_bytes());
    segment.extend([0; 8]); // verification tag and checksum
    segment.extend([if step == Step::First { 1 } else { 2 }, 0, 0, 20]);
    segment.extend([0; 16]);
    let sum = crc32c(&segment);
    segment[8..12].copy_from_slice(&sum);
    let mut packet = Vec::new();
    match (tuple.source.ip(), tuple.destination.ip()) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            let length = u16::try_from(segment.len()).map_err(|e| e.to_string())?;
            let header = Ipv4Header::new(length, HOPS, IpNumber::SCTP, s.octets(), d.octets());
            header.and_then(|h| h.write(&mut packet).map_err(|_| unreachable!("memory"))).map_err(|e| e.to_string())?;
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let header = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: u16::try_from(segment.len()).map_err(|e| e.to_string())?,
                next_header: IpNumber::SCTP,
                hop_limit: HOPS,
                source: s.octets(),
                destination: d.octets(),
            };
            header.write(&mut packet).map_err(|e| e.to_string())?;
        }
        _ => return Err("a flow of two families".into()),
    }
    packet.extend(segment);
    Ok(packet)
}

/// As it stands in the packet (RFC 9260 appendix A).
fn crc32c(bytes: &[u8]) -> [u8; 4] {
    Crc::<u32>::new(&CRC_32_ISCSI).checksum(bytes).to_le_bytes()
}

fn addresses(net: &NetHeaders) -> Result<(IpAddr, IpAddr, u8), String> {
    match net {
        NetHeaders::Ipv4(h, _) if h.calc_header_checksum() != h.header_checksum => {
            Err("the IPv4 checksum is wrong".into())
        }
        NetHeaders::Ipv4(h, _) => Ok((h.source.into(), h.destination.into(), h.time_to_live)),
        NetHeaders::Ipv6(h, _) => Ok((h.source.into(), h.destination.into(), h.hop_limit)),
        NetHeaders::Arp(_) => Err("ARP".into()),
    }
}

/// Takes a packet apart whose checksums are right, summed from scratch, and whose payload is what was sent.
fn parse(packet: &[u8], hops: u8) -> Result<Tuple, String> {
    let headers = PacketHeaders::from_ip_slice(packet).map_err(|e| e.to_string())?;
    let net = headers.net.as_ref().ok_or("no IP header")?;
    let (source, destination, hop_limit) = addresses(net)?;
    if hop_limit != hops {
        return Err(format!("{hop_limit} hops are left, expected {hops}"));
    }
    let payload = headers.payload.slice();
    let wrong = |what: &str| Err(format!("the {what} checksum is wrong"));
    let (protocol, from, to) = match &headers.transport {
        Some(TransportHeader::Tcp(tcp)) => {
            let sum = match net {
                NetHeaders::Ipv4(h, _) => tcp.calc_checksum_ipv4(h, payload),
                NetHeaders::Ipv6(h, _) => tcp.calc_checksum_ipv6(h, payload),
                NetHeaders::Arp(_) => return Err("ARP".into()),
            };
            if sum != Ok(tcp.checksum) {
                return wrong("TCP");
            }
            (Protocol::Tcp, tcp.source_port, tcp.destination_port)
        }
        Some(TransportHeader::Udp(udp)) => {
            let sum = match net {
                NetHeaders::Ipv4(h, _) => udp.calc_checksum_ipv4(h, payload),
                NetHeaders::Ipv6(h, _) => udp.calc_checksum_ipv6(h, payload),
                NetHeaders::Arp(_) => return Err("ARP".into()),
            };
            if sum != Ok(udp.checksum) || udp.checksum == 0 {
                return wrong("UDP");
            }
            if payload != PAYLOAD {
                return Err("the payload has changed".into());
            }
            (Protocol::Udp, udp.source_port, udp.destination_port)
        }
        None if payload.len() >= 12 => {
            let mut segment = payload.to_vec();
            segment[8..12].fill(0);
            if payload[8..12] != crc32c(&segment) {
                return wrong("SCTP");
            }
            let port = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
            (Protocol::Sctp, port(0), port(2))
        }
        _ => return Err("another transport protocol".into()),
    };
    Ok(Tuple { protocol, source: SocketAddr::new(source, from), destination: SocketAddr::new(destination, to) })
}

/// A TCP reset that answers what was sent, or an ICMP error about it.
fn refusal(sent: Tuple, packet: &[u8], reply: &[u8]) -> Result<(), String> {
    let headers = PacketHeaders::from_ip_slice(reply).map_err(|e| e.to_string())?;
    let net = headers.net.as_ref().ok_or("no IP header")?;
    let (source, destination, hops) = addresses(net)?;
    if destination != sent.source.ip() {
        return Err(format!("the refusal goes to {destination}"));
    }
    let payload = headers.payload.slice();
    match (&headers.transport, net) {
        (Some(TransportHeader::Tcp(tcp)), _) => {
            let back = parse(reply, hops)?;
            let answers = tcp.rst && tcp.ack && tcp.acknowledgment_number == 8 && tcp.sequence_number == 0;
            if back == sent.reversed() && answers { Ok(()) } else { Err(format!("a reset of {back:?}: {tcp:?}")) }
        }
        (Some(TransportHeader::Icmpv4(icmp)), _) => {
            use etherparse::{Icmpv4Type, icmpv4::DestUnreachableHeader};
            let port = matches!(icmp.icmp_type, Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port));
            let right = icmp.checksum == icmp.icmp_type.calc_checksum(payload);
            quotes(packet, payload, port && right)
        }
        (Some(TransportHeader::Icmpv6(icmp)), NetHeaders::Ipv6(ip, _)) => {
            use etherparse::{Icmpv6Type, icmpv6::DestUnreachableCode};
            let port = matches!(icmp.icmp_type, Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Port));
            let right = icmp.icmp_type.calc_checksum(ip.source, ip.destination, payload) == Ok(icmp.checksum);
            quotes(packet, payload, port && right)
        }
        (other, _) => Err(format!("a refusal from {source} of another kind: {other:?}")),
    }
}

/// An ICMP error quotes the packet as it was sent.
fn quotes(packet: &[u8], quoted: &[u8], right: bool) -> Result<(), String> {
    let begins = quoted.len() >= 28 && packet.starts_with(&quoted[..quoted.len().min(packet.len())]);
    if begins && right { Ok(()) } else { Err("an ICMP error of another kind, or about another packet".into()) }
}
