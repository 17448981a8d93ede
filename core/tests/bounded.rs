//! `Program::new_checked` on bytes that were made to be slow or to mislead.
#![allow(clippy::pedantic, reason = "tests read better short")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]
#![allow(missing_docs)]

mod common;

use common::checks::fix_checksum;
use common::{NodeSpec, ServiceSpec, build, ip, strip};
use natlet_core::{Endpoint, FrontendKind, Program, ProgramError};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

fn v4(bits: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(bits))
}

fn endpoints(n: u32) -> impl Iterator<Item = Endpoint> {
    // ports that differ: a check of the record looks at each
    (0..n).map(|i| Endpoint::new(v4(0x0a80_0001 + i), 1 + i as u16 % 60_000))
}

/// Where the IPv4 slots start, and their width and number. Of a program without IPv6.
fn slots(bytes: &[u8]) -> (usize, usize, usize) {
    let address = if bytes[5] & 2 == 0 { 4 } else { 3 };
    let width = (20 + 12) / 8 + usize::from(bytes[5] >> 4 & 3) + address;
    let n = u32::from_le_bytes(bytes[28..32].try_into().unwrap()) as usize;
    let shard = usize::from(u16::from_le_bytes([bytes[36], bytes[37]]));
    (48 + usize::from(u16::from_le_bytes([bytes[38], bytes[39]])), width, shard * (n / 16_384 + 1))
}

/// A frontend's record is not looked at again for each of 20,000 frontends that share it.
#[test]
fn many_frontends_of_one_giant_service_are_checked_in_linear_time() {
    let mut service = ServiceSpec::new("a/giant");
    service.endpoints.extend(endpoints(65_535));
    service.frontends.extend((0..20_000).map(|i| (FrontendKind::ExternalIp, v4(0xc000_0200), 1 + i)));
    let bytes = strip(&build(&NodeSpec::default(), &[service]));
    let start = Instant::now();
    assert_eq!(Program::new_checked(&bytes).unwrap().frontend_count(), 20_000);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}: a minute and more where each looks", start.elapsed());
}

/// The record map's pages start with any record, or with none.
#[test]
fn a_slot_leads_to_where_a_record_starts_or_the_program_is_refused() {
    let services: Vec<ServiceSpec> = (0..90)
        .map(|i| {
            let mut s = ServiceSpec::new(&format!("a/{i:02}"));
            s.frontends.push((FrontendKind::ExternalIp, v4(0x0a60_0001 + i), 80));
            s.endpoints.extend(endpoints(match i {
                0..30 => 0,
                30..60 => i % 7,
                60 => 400,
                _ => i,
            }));
            s
        })
        .collect();
    let bytes = strip(&build(&NodeSpec::default(), &services));
    let starts: Vec<u32> = Program::new_checked(&bytes).unwrap().records().map(|r| r.offset()).collect();
    assert_eq!(starts.len(), 90);
    let (first, width, number) = slots(&bytes);
    let records = u32::from_le_bytes(bytes[40..44].try_into().unwrap());
    assert!(records > 20 * 255 && records < 1 << 20);
    let used = (0..number).map(|i| first + i * width).find(|&at| bytes[at] & 15 != 15).unwrap();
    for offset in 0..records + 300 {
        let mut other = bytes.clone();
        let slot = &mut other[used..used + width];
        slot[width - 3] = slot[width - 3] & 15 | (offset as u8) << 4;
        slot[width - 2] = (offset >> 4) as u8;
        slot[width - 1] = (offset >> 12) as u8;
        fix_checksum(&mut other);
        let expected = if starts.contains(&offset) { None } else { Some(ProgramError::Index) };
        assert_eq!(Program::new_checked(&other).err(), expected, "offset {offset}");
    }
    let map = bytes.len() - records as usize - (records as usize - 1) / 255;
    for at in map..bytes.len() - records as usize {
        let mut other = bytes.clone();
        other[at] = other[at].wrapping_add(1);
        fix_checksum(&mut other);
        assert_eq!(Program::new_checked(&other).err(), Some(ProgramError::Record), "map entry {}", at - map);
    }
}

/// A ClusterIP list that says another thing than the slots, or anything in more than one way.
#[test]
fn blocks_of_cluster_ips_are_refused_unless_they_are_as_written() {
    let services = ["10.0.0.9", "10.0.0.10", "10.0.1.1"]
        .map(|a| ServiceSpec::new(&format!("a/{a}")).frontend(FrontendKind::ClusterIp, a, 80));
    let bytes = strip(&build(&NodeSpec::default(), &services));
    let program = Program::new_checked(&bytes).unwrap();
    assert!(program.cluster_ips().eq(["10.0.0.9", "10.0.0.10", "10.0.1.1"].map(ip)));
    let len = u32::from_le_bytes(bytes[32..36].try_into().unwrap()) as usize;
    let block = bytes.len() - 3 - len;
    assert_eq!(bytes[block..block + 5], [10, 0, 0, 9, 6]);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut other = bytes.clone();
        change(&mut other);
        let len = other.len() - (bytes.len() - len);
        other[32..36].copy_from_slice(&(len as u32).to_le_bytes());
        fix_checksum(&mut other);
        Program::new_checked(&other).err()
    };
    assert_eq!(with(&|_| ()), None);
    let refused = Some(ProgramError::Index);
    assert_eq!(with(&|b| b[block + 4] = 32), refused, "k");
    assert_eq!(with(&|b| b[block + 3] = 8), refused, "a ClusterIP that is not listed");
    assert_eq!(with(&|b| b[block..block + 4].fill(255)), refused, "a sum above the largest address");
    assert_eq!(with(&|b| drop(b.drain(block + 4..block + len))), refused, "a head that is cut");
    assert_eq!(with(&|b| b.insert(block + len, 255)), refused, "a byte that is not needed");
    assert_eq!(with(&|b| b.insert(block + len, 0)), refused, "what is no gap and no ones");
}
