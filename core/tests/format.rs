//! `FORMAT.md` against the code: its example's bytes, its tables' numbers, and a look-up written from its text alone.
#![allow(clippy::pedantic, reason = "tests read better short")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::panic
)]
#![allow(missing_docs)]

mod common;

use common::{NodeSpec, ServiceSpec, build, cidr, ip, strip};
use natlet_core::{Choice, Endpoint, FrontendKind, Policy, Program, Protocol, ServiceType};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const DOC: &str = include_str!("../FORMAT.md");

/// The example's lines: offset, bytes, what it says.
fn example() -> Vec<(usize, Vec<u8>, &'static str)> {
    let block = DOC.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    let lines = block.lines().filter(|l| !l.starts_with('#'));
    lines
        .map(|line| {
            let (offset, rest) = line.split_at(6);
            let (hex, text) = rest.split_at(rest.len().min(47));
            let bytes = hex.split_whitespace().map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
            (usize::from_str_radix(offset.trim(), 16).unwrap(), bytes, text.trim())
        })
        .collect()
}

fn example_bytes() -> Vec<u8> {
    example().into_iter().flat_map(|(_, bytes, _)| bytes).collect()
}

/// The cells of the table under this heading row.
fn rows(first_column: &str) -> Vec<Vec<&'static str>> {
    let head = format!("| {first_column} |");
    let lines = DOC.lines().skip_while(|l| !l.starts_with(&head)).skip(2).take_while(|l| l.starts_with('|'));
    let rows: Vec<Vec<_>> =
        lines.map(|l| l.trim_matches('|').split(" | ").map(|c| c.trim().trim_matches('`')).collect()).collect();
    assert!(!rows.is_empty(), "no table {first_column}");
    rows
}

/// The second column's numbers by the first column's names.
fn numbers(first_column: &str) -> HashMap<&'static str, u64> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
        None => text.parse().unwrap(),
    };
    rows(first_column).iter().map(|r| (r[0], number(r[1]))).collect()
}

fn field(bytes: &[u8], name: &str) -> u64 {
    let rows = rows("offset");
    let row = rows.iter().find(|r| r[2] == name).unwrap_or_else(|| panic!("no header field {name}"));
    let (at, len): (usize, usize) = (row[0].parse().unwrap(), row[1].parse().unwrap());
    bytes[at..at + len].iter().rev().fold(0, |n, b| (n << 8) | u64::from(*b))
}

fn article() -> Vec<ServiceSpec> {
    let name = "workshop-development/ciq-ingress-workshop-development-nginx-ingress-controller";
    let service = |(port_name, port, node_port)| ServiceSpec {
        service_type: ServiceType::LoadBalancer,
        ..ServiceSpec::new(&format!("{name}:{port_name}"))
            .frontend(FrontendKind::ClusterIp, "192.168.5.65", port)
            .frontend(FrontendKind::NodePort, "0.0.0.0", node_port)
            .frontend(FrontendKind::LoadBalancer, "10.82.0.97", port)
            .endpoint("10.82.0.10", port)
            .endpoint("10.82.0.82", port)
    };
    [("http", 80, 30512), ("https", 443, 31512)].map(service).to_vec()
}

#[test]
fn the_examples_table_compiles_to_the_examples_bytes() {
    let bytes = build(&NodeSpec::default(), &article());
    for (line, part) in bytes.chunks(16).enumerate() {
        println!("{:04x}  {part:02x?}", line * 16); // for whoever changes the format: shown when this fails
    }
    for (offset, expected, text) in example() {
        let found = bytes.get(offset..offset + expected.len());
        assert_eq!(found, Some(&*expected), "at {offset:#06x} ({text})");
    }
    assert_eq!(bytes.len(), example_bytes().len());
}

#[test]
fn the_examples_bytes_are_found_to_be_what_the_text_says() {
    let bytes = example_bytes();
    let program = Program::new_checked(&bytes).unwrap();
    let found = |kind, to: &str, port| {
        let f = match kind {
            FrontendKind::NodePort => program.find_node_port(ip(to), Protocol::Tcp, port),
            _ => program.find(ip(to), Protocol::Tcp, port),
        };
        let f = f.unwrap();
        assert_eq!(f.kind, kind);
        f.record.cluster().iter().map(|e| e.address.to_string()).collect::<Vec<_>>()
    };
    let https = ["10.82.0.10:443", "10.82.0.82:443"];
    assert_eq!(found(FrontendKind::ClusterIp, "192.168.5.65", 443), https);
    assert_eq!(found(FrontendKind::LoadBalancer, "10.82.0.97", 80), ["10.82.0.10:80", "10.82.0.82:80"]);
    assert_eq!(found(FrontendKind::NodePort, "192.0.2.1", 31512), https);
    assert_eq!(program.find(ip("192.168.5.65"), Protocol::Udp, 443), None);
    assert_eq!(program.find(ip("192.168.5.65"), Protocol::Tcp, 444), None);
    assert_eq!(program.node_name(), "node-1");
    assert_eq!(program.content_id().0[..], bytes[12..28]);
}

#[test]
fn the_examples_offsets_and_notes_agree_with_its_bytes() {
    let bytes = example_bytes();
    let mut at = 0;
    for (offset, part, text) in example() {
        assert_eq!(offset, at, "{text}");
        at += part.len();
        let note = |prefix: &str| text.strip_prefix(prefix).and_then(|t| t.split([' ', ':', ',']).next());
        let number = part.iter().rev().fold(0_u128, |n, b| (n << 8) | u128::from(*b));
        if let Some(port) = note("port ") {
            assert_eq!(port.parse(), Ok(number), "{text}");
        }
        if let Some((count, _)) = text.split_once(' ')
            && let Ok(count) = count.parse::<u128>()
            && part.len() <= 4
        {
            assert_eq!(count, number, "{text}");
        }
        if let Some(slot) = text.split("code ").nth(1) {
            // "80 at 10.82.0.97, load-balancer IP TCP: code 4, record 0"
            let port: u128 = text.split([' ', ',']).next().unwrap().parse().unwrap();
            let address = text.split(" at ").nth(1).map_or(0, |t| {
                let address: Ipv4Addr = t.split(',').next().unwrap().parse().unwrap();
                u128::from(address.to_bits())
            });
            assert_eq!((number >> 4 & 0xffff, number >> 20 & 0xffff_ffff), (port, address), "{text}");
            assert_eq!(slot, format!("{}, record {}", number & 15, number >> 52), "{text}");
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            assert_eq!(address.octets()[4 - part.len()..], part, "{text}");
        }
    }
    assert_eq!(field(&bytes, "frontends4"), 6);
    assert_eq!(field(&bytes, "base4e"), 10);
    assert_eq!((field(&bytes, "slots4"), field(&bytes, "node")), (6, 0));
}

#[test]
fn the_headers_fields_follow_each_other_and_describe_the_sections() {
    let mut at = 0;
    for row in rows("offset") {
        assert_eq!(row[0].parse::<usize>(), Ok(at), "{row:?}");
        at += row[1].parse::<usize>().unwrap();
    }
    assert_eq!(at, 48 + 11);
    let flags = numbers("flag");
    let bytes = every_feature();
    assert_eq!(field(&bytes, "version"), u64::from(natlet_core::VERSION));
    assert_eq!(field(&bytes, "flags") & 15, flags["NAMES"] | flags["V6"]);
    assert_eq!(field(&strip(&bytes), "flags") & 15, flags["V6"]);
    let record_bits = 12 + 8 * (field(&bytes, "flags") >> 4 & 3);
    let (n4, n6) = (field(&bytes, "frontends4"), field(&bytes, "frontends6"));
    let sum = 59
        + field(&bytes, "node")
        + field(&bytes, "slots4") * (20 + 32 + record_bits) / 8
        + pilots(n4)
        + field(&bytes, "slots6") * (16 + (20 + record_bits) / 8)
        + pilots(n6)
        + field(&bytes, "clusterips4")
        + field(&bytes, "clusterips6")
        + (field(&bytes, "records") - 1) / 255
        + field(&bytes, "records")
        + field(&bytes, "names");
    assert_eq!(sum, bytes.len() as u64);
    // checksum and content id, as the text says
    let seed = u32::from_le_bytes(bytes[4..8].try_into().unwrap());
    let sum = twox_hash::XxHash3_64::oneshot_with_seed(seed.into(), &bytes[12..]);
    assert_eq!(field(&bytes, "checksum"), sum & 0xffff_ffff);
    let mut blank = bytes.clone();
    blank[8..28].fill(0);
    assert_eq!(bytes[12..28], twox_hash::XxHash3_128::oneshot(&blank).to_le_bytes());
}

/// Pilots of all shards.
fn pilots(n: u64) -> u64 {
    let shards = n / 16_384 + 1;
    if n == 0 { 0 } else { (n / shards / 3 + 2) * shards }
}

/// A program of both families with many frontends in each, and every kind of extra entry.
fn every_feature() -> Vec<u8> {
    let node =
        NodeSpec { addresses: vec![ip("192.0.2.1")], cluster: vec![cidr("10.244.0.0/16")], ..NodeSpec::default() };
    let mut services: Vec<ServiceSpec> = (0..40_u16)
        .map(|i| {
            let v6 = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, i, 1));
            let mut s = ServiceSpec::new(&format!("b/{i:02}"))
                .frontend(FrontendKind::ClusterIp, "10.96.0.1", 1 + i)
                .frontend(FrontendKind::LoadBalancer, "192.0.2.200", 1 + i)
                .frontend(FrontendKind::NodePort, "0.0.0.0", 30_000 + i)
                .frontend(FrontendKind::NodePort, "::", 30_000 + i);
            s.protocol = Protocol::ALL[usize::from(i % 3)];
            s.frontends.push((FrontendKind::ExternalIp, v6, 53));
            s
        })
        .collect();
    services.push(ServiceSpec {
        affinity: 0x0102_0304,
        choice: Choice::SourceHash,
        health_check: 0x7d01,
        internal: Policy::Local,
        external: Policy::Local,
        ranges: vec![cidr("198.51.100.0/24")],
        endpoints: vec![
            Endpoint { weight: 6, local: true, ..Endpoint::new(ip("10.244.0.1"), 8080) },
            Endpoint { weight: 4, ..Endpoint::new(ip("172.16.0.1"), 9090) },
        ],
        ..ServiceSpec::new("a/first").frontend(FrontendKind::ClusterIp, "10.96.9.9", 80).frontend(
            FrontendKind::LoadBalancer,
            "192.0.2.201",
            80,
        )
    });
    build(&node, &services)
}

#[test]
fn a_record_has_the_flags_and_extra_entries_of_the_text() {
    let bytes = every_feature();
    let records = bytes.len() - (field(&bytes, "records") + field(&bytes, "names")) as usize;
    let flag = numbers("record flag");
    let extra = numbers("extra");
    let flags: u64 =
        ["FULL", "PORTS", "INTERNAL_LOCAL", "EXTERNAL_LOCAL", "EXTRA", "ANY"].iter().map(|f| flag[f]).sum();
    let mut expected = vec![flags as u8, 2, 2, 1, 172, 16, 0, 1, 10, 244, 0, 1];
    expected.extend([9090_u16, 8080].iter().flat_map(|p| p.to_le_bytes()));
    let entries: [(&str, &[u8]); 5] = [
        ("session affinity", &[4, 3, 2, 1]),
        ("choice by source hash", &[]),
        ("weights", &[2, 0, 3, 0]),
        ("source ranges", &[24, 198, 51, 100, 0]),
        ("health check", &[1, 0x7d]),
    ];
    let mut body = vec![];
    for (name, entry) in entries {
        body.push(extra[name] as u8);
        body.extend((entry.len() as u16).to_le_bytes());
        body.extend(entry);
    }
    expected.extend((body.len() as u16).to_le_bytes());
    expected.extend(body);
    assert_eq!(bytes[records..records + expected.len()], expected);
    let next = records + expected.len();
    let v6_plain = 1 << 6;
    assert_eq!(bytes[next..next + 2], [0, v6_plain], "the second service: a record in each family, no endpoints");
}

/// What the text's pseudo-code is asked for.
#[derive(Clone, Copy)]
struct Asked {
    address: IpAddr,
    protocol: u64,
    port: u16,
    node_port: bool,
}

/// The look-up of the text's pseudo-code: the high bits of the code, and the record's offset.
fn look_up(bytes: &[u8], asked: Asked) -> Option<(u64, u64)> {
    let c = numbers("constant");
    let flags = field(bytes, "flags");
    let has = |flag: &str| flags & numbers("flag")[flag] != 0;
    let v6 = asked.address.is_ipv6();
    if v6 && !has("V6") {
        return None;
    }
    let record_bits = 12 + 8 * (flags >> 4 & 3);
    let (address_bits, base) = if has("SHORT_FRONTENDS") { (24, field(bytes, "base4")) } else { (32, 0) };
    let (width4, width6) = ((20 + address_bits + record_bits) / 8, 16 + (20 + record_bits) / 8);
    let (n, s, k, width) = if v6 {
        (field(bytes, "frontends6"), field(bytes, "slots6"), field(bytes, "seed6"), width6)
    } else {
        (field(bytes, "frontends4"), field(bytes, "slots4"), flags >> 6, width4)
    };
    let mut at = if has("V6") { 59 } else { 48 } + field(bytes, "node");
    if v6 {
        let n4 = field(bytes, "frontends4");
        at += field(bytes, "slots4") * (n4 / 16_384 + 1) * width4 + pilots(n4);
    }
    let h = n / 16_384 + 1;
    let all_pilots = pilots(n);
    if n == 0 {
        return None;
    }
    let low = |a: u128| a as u64;
    let high = |a: u128| (a >> 64) as u64;
    let fold = |w: u64, c: u64| low(w as u128 * c as u128) ^ high(w as u128 * c as u128);
    let scale = |w: u64, r: u64| high(w as u128 * r as u128);
    let z1 = c["MULTIPLIER"].wrapping_mul(k + 1);
    let z2 = (z1 ^ (z1 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z3 = (z2 ^ (z2 >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let seed = z3 ^ (z3 >> 31);
    let protocol = if asked.node_port { 3 + 4 * asked.protocol } else { asked.protocol };
    let rest = protocol + 16 * u64::from(asked.port);
    let word = match asked.address {
        IpAddr::V4(_) if asked.node_port => rest,
        IpAddr::V4(a) => rest + (u64::from(a.to_bits()) ^ base << 24) * (1 << 20),
        IpAddr::V6(a) => {
            fold(high(a.to_bits()) ^ seed, c["MULTIPLIER_HIGH"])
                ^ fold(low(a.to_bits()) ^ seed.rotate_left(32), c["MULTIPLIER_LOW"])
                ^ rest
        }
    };
    let hash = fold(word ^ seed, c["MULTIPLIER"]);
    let bucket = scale(c["MULTIPLIER"].wrapping_mul(hash), all_pilots);
    let shard = scale(c["MULTIPLIER"].wrapping_mul(hash), h);
    assert_eq!(shard, bucket / (all_pilots / h));
    let pilot = u64::from(bytes[(at + h * s * width + bucket) as usize]);
    let slot = s * shard + scale((c["MULTIPLIER"] + 2 * pilot).wrapping_mul(hash), s);
    let slot = &bytes[(at + slot * width) as usize..][..width as usize];
    let (address, integer) = if v6 { slot.split_at(16) } else { slot.split_at(0) };
    let integer = integer.iter().rev().fold(0_u128, |n, b| (n << 8) | u128::from(*b));
    let high_bits = if asked.node_port { 0 } else { 0b1100 };
    let (key, record) = if v6 {
        let octets = match asked.address {
            IpAddr::V6(a) => a.octets(),
            IpAddr::V4(_) => unreachable!(),
        };
        (address == octets && (integer & 0xf_ffff & !high_bits) == rest as u128, integer >> 20)
    } else {
        let key_bits = 20 + address_bits;
        ((integer & ((1 << key_bits) - 1) & !high_bits) == word as u128, integer >> key_bits)
    };
    key.then_some((integer as u64 >> 2 & 3, record as u64))
}

#[test]
fn another_implementation_can_look_up_by_the_text_alone() {
    let protocols = numbers("protocol");
    let protocols = |p: Protocol| protocols[&*p.name().to_uppercase()];
    let slots = rows("slot");
    let high_bits = |kind: FrontendKind, protocol: u64| {
        let name = match kind {
            FrontendKind::ClusterIp => "ClusterIP",
            FrontendKind::NodePort => "NodePort",
            FrontendKind::LoadBalancer => "load-balancer IP",
            FrontendKind::ExternalIp => "external IP",
        };
        slots.iter().find(|r| r[0] == name).unwrap()[2].parse().unwrap_or(protocol)
    };
    let short: Vec<ServiceSpec> = (1..60)
        .map(|i| ServiceSpec::new(&format!("a/{i}")).frontend(FrontendKind::ClusterIp, "10.96.0.1", i))
        .collect();
    let sharded: Vec<ServiceSpec> = (0..17_000)
        .map(|i| ServiceSpec::new(&format!("a/{i}")).frontend(FrontendKind::ExternalIp, "192.0.2.1", 1 + i))
        .collect();
    let programs =
        [example_bytes(), every_feature(), build(&NodeSpec::default(), &short), build(&NodeSpec::default(), &sharded)];
    for bytes in programs {
        let program = Program::new_checked(&bytes).unwrap();
        assert!(program.frontend_count() > 5);
        let step = 1 + program.frontend_count() as usize / 300;
        for f in program.frontends().step_by(step) {
            let asked = Asked {
                address: f.address,
                protocol: protocols(f.protocol),
                port: f.port,
                node_port: f.kind == FrontendKind::NodePort,
            };
            let expected = (high_bits(f.kind, protocols(f.protocol)), u64::from(f.record.offset()));
            assert_eq!(look_up(&bytes, asked), Some(expected), "{f:?}");
            let others = [
                Asked { port: f.port ^ 0x4000, ..asked },
                Asked { protocol: 2 - asked.protocol, ..asked },
                Asked { node_port: !asked.node_port, ..asked },
            ];
            for other in others {
                let protocol = Protocol::ALL[other.protocol as usize];
                let expected = match other.node_port {
                    true => program.find_node_port(f.address, protocol, other.port),
                    false => program.find(f.address, protocol, other.port),
                };
                if !other.node_port || f.address.is_ipv4() || f.address.is_unspecified() {
                    assert_eq!(look_up(&bytes, other).map(|l| l.1), expected.map(|e| u64::from(e.record.offset())));
                }
            }
        }
    }
}
