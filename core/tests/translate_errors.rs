//! ICMP errors about translated packets, and fragments of them.
#![allow(clippy::pedantic, reason = "tests read better short")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    missing_docs
)]

mod common;

use common::packet::{icmp_error, raw, read, read_valid, sctp, socket, tcp, transport_is_valid, udp};
use common::rig::{Out, ROOM, Rig, Room, program};
use common::{NodeSpec, ServiceSpec, cidr, ip};
use natlet_core::translate::{Config, DropReason};
use natlet_core::{FrontendKind, Protocol};
use std::net::SocketAddr;

fn node() -> NodeSpec {
    NodeSpec {
        addresses: vec![ip("192.0.2.1"), ip("2001:db8::1")],
        cluster: vec![cidr("10.244.0.0/16"), cidr("2001:db8:244::/48")],
        ..NodeSpec::default()
    }
}

fn services() -> Vec<ServiceSpec> {
    Protocol::ALL
        .map(|protocol| {
            let mut s = ServiceSpec::new(&format!("shop/{protocol}"))
                .frontend(FrontendKind::ClusterIp, "10.96.0.10", 80)
                .frontend(FrontendKind::ClusterIp, "2001:db8:96::10", 80)
                .endpoint("10.244.2.9", 8080)
                .endpoint("2001:db8:244::9", 8080);
            s.protocol = protocol;
            s
        })
        .to_vec()
}

fn packet(protocol: Protocol, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    match protocol {
        Protocol::Tcp => tcp(from, to, "S", b"some payload that is quoted"),
        Protocol::Udp => udp(from, to, b"some payload that is quoted"),
        Protocol::Sctp => sctp(from, to, 1, b"some payload that is quoted!"),
    }
}

/// (client, frontend, router on the endpoint's side, router on the client's side)
const ENDS: [(&str, &str, &str, &str); 4] = [
    ("10.244.3.3:40000", "10.96.0.10:80", "10.244.2.254", "10.244.3.254"),
    ("203.0.113.9:40000", "10.96.0.10:80", "10.244.2.254", "203.0.113.1"),
    ("[2001:db8:244::3]:40000", "[2001:db8:96::10]:80", "2001:db8:244::fe", "2001:db8:244:1::fe"),
    ("[2001:db8:9::3]:40000", "[2001:db8:96::10]:80", "2001:db8:244::fe", "2001:db8:9::fe"),
];

/// An error from the endpoint's side reaches the client and quotes what the client had sent, however much is quoted
/// (but a checksum that is cut in half stays as it is).
#[test]
fn errors_about_requests() {
    for protocol in Protocol::ALL {
        for (client, frontend, router, _) in ENDS {
            for kind in ["port", "frag", "ttl"] {
                let (client, frontend) = (socket(client), socket(frontend));
                let mut rig = Rig::new(&node(), &services());
                let sent = packet(protocol, client, frontend);
                let forwarded = rig.send(&sent).bytes();
                let header = if client.is_ipv4() { 20 } else { 40 };
                for from in [ip(router), read(&forwarded).destination] {
                    for len in [header + 4, header + 8, header + 16, header + 18, header + 20, forwarded.len()] {
                        let before = read(&forwarded);
                        let error = icmp_error(from, before.source, kind, &forwarded, len);
                        let out = rig.send(&error).forwarded();
                        assert_eq!((out.source, out.destination), (frontend.ip(), client.ip()), "from the service");
                        assert_eq!(out.body[..2], read_valid(&error).body[..2], "type and code");
                        assert_eq!(out.body[4..8], read_valid(&error).body[4..8], "the next hop's MTU");
                        quotes(&out.body[8..], &sent, len.min(forwarded.len()), protocol);
                    }
                }
            }
        }
    }
}

/// The quotation is what was sent, apart from the TTL, which has been used up on the way.
fn quotes(quoted: &[u8], sent: &[u8], len: usize, protocol: Protocol) {
    let mut expected = sent[..len].to_vec();
    if sent[0] >> 4 == 4 {
        expected[8] -= 1;
        let mut header = etherparse::Ipv4Header::from_slice(sent).unwrap().0;
        header.time_to_live -= 1;
        expected[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    } else {
        expected[7] -= 1;
    }
    assert_eq!(quoted, expected, "{protocol}, {len} bytes quoted");
    if quoted.len() == sent.len() {
        assert!(transport_is_valid(&read(quoted)), "the quoted packet is whole and right");
    }
}

/// An error from the client's side reaches the endpoint and quotes what the endpoint had sent.
#[test]
fn errors_about_answers() {
    for protocol in Protocol::ALL {
        for (client, frontend, _, router) in ENDS {
            let (client, frontend) = (socket(client), socket(frontend));
            let mut rig = Rig::new(&node(), &services());
            let out = rig.send(&packet(protocol, client, frontend)).forwarded();
            let answer = match protocol {
                Protocol::Tcp => tcp(out.to(), out.from(), "SA", b"answer that is long"),
                Protocol::Udp => udp(out.to(), out.from(), b"answer that is long"),
                Protocol::Sctp => sctp(out.to(), out.from(), 2, b"answer that is long!"),
            };
            let back = rig.send(&answer).bytes();
            let error = icmp_error(ip(router), frontend.ip(), "frag", &back, back.len());
            let got = rig.send(&error).forwarded();
            assert_eq!(got.destination, out.destination);
            // without masquerading the endpoint knows the client's routers; with it, it must not see them
            let masqueraded = out.source != client.ip();
            assert_eq!(got.source, if masqueraded { out.source } else { ip(router) });
            quotes(&got.body[8..], &answer, back.len(), protocol);
        }
    }
}

/// One example byte for byte, written out by hand.
#[test]
fn a_port_unreachable_byte_for_byte() {
    let mut rig = Rig::new(&node(), &services());
    let hex = |text: &str| -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len() / 2).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap()).collect()
    };
    // 10.244.3.3:40000 > 10.96.0.10:80 UDP "hi"; all bytes from a Python script of RFC 1071
    let sent = hex("4500 001e 0000 4000 4011 226f 0af4 0303 0a60 000a  9c40 0050 000a e27f 6869");
    assert!(transport_is_valid(&read_valid(&sent)));
    let forwarded = rig.send(&sent).bytes();
    assert_eq!(forwarded, hex("4500 001e 0000 4000 3f11 20dc 0af4 0303 0af4 0209  9c40 1f90 000a c0ac 6869"));
    let error = hex("4500 0038 0000 0000 4001 5fd2 0af4 0209 0af4 0303  0303 8075 0000 0000 \
         4500 001e 0000 4000 3f11 20dc 0af4 0303 0af4 0209  9c40 1f90 000a c0ac");
    let _ = read_valid(&error);
    let out = rig.send(&error).bytes();
    let _ = read_valid(&out);
    let expected = "4500 0038 0000 0000 3f01 6365 0a60 000a 0af4 0303  0303 7de2 0000 0000 \
         4500 001e 0000 4000 3f11 236f 0af4 0303 0a60 000a  9c40 0050 000a e27f";
    assert_eq!(out, hex(expected));
}

#[test]
fn errors_that_fit_nothing() {
    let mut rig = Rig::new(&node(), &services());
    let (client, frontend) = (socket("203.0.113.9:40000"), socket("10.96.0.10:80"));
    let forwarded = rig.send(&udp(client, frontend, b"data")).bytes();
    let own = read(&forwarded).source;
    let router = ip("10.244.2.254");
    let elsewhere = icmp_error(router, ip("203.0.113.77"), "port", &forwarded, 28);
    assert_eq!(rig.send(&elsewhere), Out::Drop(DropReason::IcmpMismatch), "not sent to whom it quotes");
    for cut in 0..24 {
        let short = icmp_error(router, own, "port", &forwarded, cut);
        assert_eq!(rig.send(&short), Out::Pass, "{cut} bytes quote no ports");
    }
    let mut later = forwarded.clone();
    later[7] = 9;
    assert_eq!(rig.send(&icmp_error(router, own, "port", &later, 28)), Out::Pass, "a later fragment has no ports");
    let mut other = forwarded.clone();
    other[21] ^= 1;
    assert_eq!(rig.send(&icmp_error(router, own, "port", &other, 28)), Out::Pass, "nobody's port");
    let about_error = icmp_error(router, own, "port", &icmp_error(own, router, "port", &forwarded, 28), 56);
    assert_eq!(rig.send(&about_error), Out::Pass, "an error about an error");
    let mut dying = icmp_error(router, own, "port", &forwarded, 28);
    dying[8] = 1;
    dying[10..12].fill(0);
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&dying[..20]).ones_complement();
    dying[10..12].copy_from_slice(&sum.to_ne_bytes());
    assert_eq!(rig.send(&dying), Out::Drop(DropReason::Unanswerable), "no error about an error");
    rig.now += 120_000;
    assert_eq!(rig.send(&icmp_error(router, own, "port", &forwarded, 28)), Out::Pass, "the flow is over");
}

/// Cuts an IPv4 packet's payload at multiples of eight bytes.
fn fragments(packet: &[u8], at: &[usize], id: u16) -> Vec<Vec<u8>> {
    let body = &packet[20..];
    let mut cuts = vec![0];
    cuts.extend(at);
    cuts.push(body.len());
    let pieces = cuts.windows(2).map(|w| {
        let mut p = [&packet[..20], &body[w[0]..w[1]]].concat();
        let more = if w[1] == body.len() { 0 } else { 0x2000 };
        p[2..4].copy_from_slice(&((w[1] - w[0] + 20) as u16).to_be_bytes());
        p[4..6].copy_from_slice(&id.to_be_bytes());
        p[6..8].copy_from_slice(&((w[0] / 8) as u16 | more).to_be_bytes());
        p[10..12].fill(0);
        let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&p[..20]).ones_complement();
        p[10..12].copy_from_slice(&sum.to_ne_bytes());
        p
    });
    pieces.collect()
}

/// Puts fragments together and checks the whole packet.
fn assembled(pieces: &[Vec<u8>]) -> common::packet::Read {
    let mut whole = pieces[0][..20].to_vec();
    pieces.iter().for_each(|p| whole.extend(&p[20..]));
    let len = whole.len() as u16;
    whole[2..4].copy_from_slice(&len.to_be_bytes());
    whole[6..8].fill(0);
    whole[10..12].fill(0);
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&whole[..20]).ones_complement();
    whole[10..12].copy_from_slice(&sum.to_ne_bytes());
    read_valid(&whole)
}

#[test]
fn fragments_follow_their_first() {
    let mut rig = Rig::new(&node(), &services());
    let (client, frontend) = (socket("203.0.113.9:40000"), socket("10.96.0.10:80"));
    for (id, protocol) in [(7, Protocol::Udp), (7, Protocol::Tcp), (8, Protocol::Udp)] {
        let pieces = match protocol {
            Protocol::Tcp => fragments(&tcp(client, frontend, "S", &[9; 90]), &[24, 64], id),
            _ => fragments(&udp(client, frontend, &[9; 90]), &[24, 64], id),
        };
        let out: Vec<Vec<u8>> = pieces.iter().map(|p| rig.send(p).bytes()).collect();
        let whole = assembled(&out);
        assert_eq!((whole.source, whole.to()), (ip("192.0.2.1"), socket("10.244.2.9:8080")));
        let answer = fragments(&udp(whole.to(), whole.from(), &[5; 60]), &[16, 40], id);
        if protocol == Protocol::Udp {
            let back = assembled(&answer.iter().map(|p| rig.send(p).bytes()).collect::<Vec<_>>());
            assert_eq!((back.from(), back.to()), (frontend, client));
        }
    }
}

#[test]
fn fragments_without_their_first_are_dropped() {
    let mut rig = Rig::new(&node(), &services());
    let (client, frontend) = (socket("203.0.113.9:40000"), socket("10.96.0.10:80"));
    let pieces = fragments(&udp(client, frontend, &[9; 90]), &[24, 64], 7);
    assert_eq!(rig.send(&pieces[2]), Out::Drop(DropReason::FragmentWithoutFirst), "reordered");
    assert!(matches!(rig.send(&pieces[0]), Out::Forward(_)));
    assert!(matches!(rig.send(&pieces[2]), Out::Forward(_)), "any order behind the first");
    assert!(matches!(rig.send(&pieces[1]), Out::Forward(_)));
    for (at, value) in [(5, 8), (15, 10), (9, 6)] {
        let mut other = pieces[1].clone();
        other[at] = value;
        assert_eq!(rig.send(&other), Out::Drop(DropReason::FragmentWithoutFirst), "id, source, protocol: byte {at}");
    }
    rig.now += 59_999;
    assert!(matches!(rig.send(&pieces[1]), Out::Forward(_)));
    rig.now += 1;
    assert_eq!(rig.send(&pieces[1]), Out::Drop(DropReason::FragmentWithoutFirst), "a minute after the first");

    // strangers' fragments pass behind a first one that passes
    let foreign = fragments(&udp(client, socket("203.0.113.80:53"), &[9; 90]), &[24], 9);
    assert_eq!(rig.send(&foreign[1]), Out::Drop(DropReason::FragmentWithoutFirst));
    assert_eq!((rig.send(&foreign[0]), rig.send(&foreign[1])), (Out::Pass, Out::Pass));
    let echo = fragments(&raw(client, socket("203.0.113.80:0"), 1, &[8; 64]), &[32], 10);
    assert_eq!((rig.send(&echo[0]), rig.send(&echo[1])), (Out::Pass, Out::Pass));

    // too tiny a first fragment could hide what it is (RFC 1858)
    let tiny = fragments(&tcp(client, frontend, "S", &[9; 90]), &[8], 11);
    assert_eq!(rig.send(&tiny[0]), Out::Drop(DropReason::Malformed));
    // SCTP's checksum needs the whole packet
    let sctp = fragments(&sctp(client, frontend, 1, &[9; 90]), &[24], 12);
    assert_eq!(rig.send(&sctp[0]), Out::Drop(DropReason::FragmentSctp));
    // refused fragments are not answered
    let refused = NodeSpec { service: vec![cidr("10.96.0.0/12")], ..node() };
    let mut rig2 = Rig::new(&refused, &services());
    let to_nobody = fragments(&udp(client, socket("10.96.0.10:81"), &[9; 90]), &[24], 13);
    assert_eq!(rig2.send(&to_nobody[0]), Out::Drop(DropReason::Unanswerable));
}

#[test]
fn without_memory_for_fragments_none_is_translated() {
    let mut rig = Rig::with(program(&node(), &services()), Room { fragments: 0, ..ROOM }, Config::new([1, 2]));
    let pieces = fragments(&udp(socket("203.0.113.9:1"), socket("10.96.0.10:80"), &[9; 90]), &[24], 7);
    assert_eq!(rig.send(&pieces[0]), Out::Drop(DropReason::FragmentUntracked));
    assert_eq!(rig.send(&pieces[1]), Out::Drop(DropReason::FragmentWithoutFirst));
    let foreign = fragments(&udp(socket("203.0.113.9:1"), socket("203.0.113.80:53"), &[9; 90]), &[24], 9);
    assert_eq!(rig.send(&foreign[0]), Out::Pass);
}

#[test]
fn more_packets_in_fragments_than_memory() {
    let mut rig = Rig::with(program(&node(), &services()), Room { fragments: 4, ..ROOM }, Config::new([1, 2]));
    let of = |id| fragments(&udp(socket("203.0.113.9:1"), socket("10.96.0.10:80"), &[9; 90]), &[24], id);
    for id in 0..5 {
        assert!(matches!(rig.send(&of(id)[0]), Out::Forward(_)));
        rig.now += 1;
    }
    assert_eq!(rig.send(&of(0)[1]), Out::Drop(DropReason::FragmentWithoutFirst), "the oldest note made room");
    for id in 1..5 {
        assert!(matches!(rig.send(&of(id)[1]), Out::Forward(_)));
    }
}

#[test]
fn ipv6_fragments_and_extension_headers() {
    let mut rig = Rig::new(&node(), &services());
    let (client, frontend) = (socket("[2001:db8:9::9]:40000"), socket("[2001:db8:96::10]:80"));
    let whole = udp(client, frontend, &[9; 40]);
    let with = |next: u8, extension: &[u8], body: &[u8]| {
        let mut p = [&whole[..40], extension, body].concat();
        p[6] = next;
        let len = (p.len() - 40) as u16;
        p[4..6].copy_from_slice(&len.to_be_bytes());
        p
    };
    for (next, extension) in
        [(0, [17, 0, 5, 2, 0, 0, 1, 0]), (60, [17, 0, 1, 4, 0, 0, 0, 0]), (43, [17, 0, 4, 0, 0, 0, 0, 0])]
    {
        let sent = with(next, &extension, &whole[40..]);
        let out = rig.send(&sent).bytes();
        assert_eq!(out[40..48], extension, "extensions stay");
        assert_eq!(read_valid(&out).to(), socket("[2001:db8:244::9]:8080"));
    }
    assert_eq!(rig.send(&with(43, &[17, 0, 4, 1, 0, 0, 0, 0], &whole[40..])), Out::Pass, "a waypoint");
    let atomic = rig.send(&with(44, &[17, 0, 0, 0, 0, 0, 0, 1], &whole[40..])).bytes();
    assert_eq!(read_valid(&atomic).to(), socket("[2001:db8:244::9]:8080"));
    let first = with(44, &[17, 0, 0, 1, 0, 0, 0, 5], &whole[40..64]);
    let last = with(44, &[17, 0, 0, 24, 0, 0, 0, 5], &whole[64..]);
    assert_eq!(rig.send(&last), Out::Drop(DropReason::FragmentWithoutFirst));
    let (a, b) = (rig.send(&first).bytes(), rig.send(&last).bytes());
    let joined = [&atomic[..40], &a[48..], &b[48..]].concat();
    let mut joined = joined;
    joined[6] = 17;
    joined[4..6].copy_from_slice(&48_u16.to_be_bytes());
    assert_eq!(read_valid(&joined).to(), socket("[2001:db8:244::9]:8080"));
}

/// RFC 8200 §4.5: only the first fragment's Next Header counts; a later one may have another. With options behind the
/// fragment header, the first fragment's walk ends at UDP, a later one's at the options.
#[test]
fn ipv6_later_fragments_may_name_another_next_header() {
    let mut rig = Rig::new(&node(), &services());
    let whole = udp(socket("[2001:db8:9::9]:40000"), socket("[2001:db8:96::10]:80"), &[9; 40]);
    let options = [17, 0, 1, 4, 0, 0, 0, 0];
    let fragment = |next: u8, offset_and_more: u8, body: &[u8]| {
        let mut p = [&whole[..40], &[next, 0, 0, offset_and_more, 0, 0, 0, 5], body].concat();
        p[6] = 44;
        let len = (p.len() - 40) as u16;
        p[4..6].copy_from_slice(&len.to_be_bytes());
        p
    };
    let first = rig.send(&fragment(60, 1, &[&options, &whole[40..56]].concat())).bytes();
    assert_eq!(read(&first).destination, ip("2001:db8:244::9"));
    for next in [60, 17, 59] {
        let later = rig.send(&fragment(next, 24, &whole[56..])).bytes();
        assert_eq!((&later[8..40], &later[48..]), (&first[8..40], &whole[56..]), "it follows the first: {next}");
    }
}

/// A quotation of a datagram without a checksum stays without, and the error's own checksum stays right.
#[test]
fn errors_about_datagrams_without_a_checksum() {
    for (client, frontend, router, _) in ENDS {
        let mut rig = Rig::new(&node(), &services());
        let mut sent = udp(socket(client), socket(frontend), b"no checksum");
        let header = if socket(client).is_ipv4() { 20 } else { 40 };
        sent[header + 6..header + 8].fill(0);
        let Out::Forward(forwarded) = rig.send(&sent) else { panic!("forwarded") };
        assert_eq!(forwarded[header + 6..header + 8], [0, 0]);
        let from = ip(router);
        let mut source = [0; 16];
        let at = if from.is_ipv4() { 12 } else { 8 };
        let len = if from.is_ipv4() { 4 } else { 16 };
        source[..len].copy_from_slice(&forwarded[at..at + len]);
        let to = if from.is_ipv4() { ip4(&source) } else { std::net::IpAddr::from(source) };
        let out = rig.send(&icmp_error(from, to, "port", &forwarded, forwarded.len())).forwarded();
        assert_eq!(out.destination, socket(client).ip());
        assert_eq!(out.body[8 + header + 6..8 + header + 8], [0, 0], "still none");
        assert_eq!(out.body[8 + header..8 + header + 4], sent[header..header + 4], "the ports that the client knows");
    }
}

fn ip4(bytes: &[u8; 16]) -> std::net::IpAddr {
    std::net::IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// What is behind the quoted packet is left as it is: padding, or an extension (RFC 4884) with an odd length.
#[test]
fn errors_with_more_than_the_quotation() {
    for extra in [1, 2, 7, 40] {
        let mut rig = Rig::new(&node(), &services());
        let (client, frontend) = (socket("203.0.113.9:40000"), socket("10.96.0.10:80"));
        let sent = udp(client, frontend, b"odd");
        let forwarded = rig.send(&sent).bytes();
        let quoted = [&forwarded[..], &[0xa5; 40][..extra]].concat();
        let error = icmp_error(ip("10.244.2.254"), read(&forwarded).source, "port", &quoted, quoted.len());
        let out = rig.send(&error).forwarded();
        let (quote, behind) = out.body[8..].split_at(sent.len());
        quotes(quote, &sent, sent.len(), Protocol::Udp);
        assert_eq!(behind, &[0xa5; 40][..extra]);
    }
}

/// RFC 5508 REQ-6: an error does not keep a flow.
#[test]
fn errors_refresh_nothing() {
    let mut rig = Rig::new(&node(), &services());
    let forwarded = rig.send(&udp(socket("203.0.113.9:40000"), socket("10.96.0.10:80"), b"data")).bytes();
    let error = icmp_error(ip("10.244.2.254"), read(&forwarded).source, "port", &forwarded, 28);
    rig.now += 119_999;
    let _ = rig.send(&error).forwarded();
    rig.now += 1;
    assert_eq!(rig.send(&error), Out::Pass, "two minutes after the datagram");
}
