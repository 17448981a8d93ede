//! What holds for every program that `Program::new_checked` accepts. The fuzz targets share this file.
#![allow(dead_code, reason = "shared; not every user needs all of it")]

use natlet_core::{Decision, FrontendKind, Program, Protocol, Verdict, strip_names};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Writes the checksum that belongs to the bytes, as FORMAT.md says, so that checks behind it are reached.
pub fn fix_checksum(bytes: &mut [u8]) {
    if bytes.len() >= 12 {
        let seed = u32::from_le_bytes(bytes[4..8].try_into().unwrap());
        let hash = twox_hash::XxHash3_64::oneshot_with_seed(seed.into(), &bytes[12..]);
        bytes[8..12].copy_from_slice(&(hash as u32).to_le_bytes());
    }
}

/// Opens bytes; where they are a program, calls every accessor and checks what must hold. Whether they are one.
pub fn check_bytes(bytes: &[u8]) -> bool {
    // bytes that no one has checked may say anything, but make nothing panic
    let reopened = Program::reopen(bytes);
    if let Ok(program) = &reopened {
        use_program(program);
    }
    let Ok(program) = Program::new_checked(bytes) else { return false };
    assert_eq!(format!("{:?}", reopened.expect("a program opens again")), format!("{program:?}"));
    check_program(&program);
    true
}

/// Calls the accessors, whatever they say.
fn use_program(program: &Program<'_>) {
    for f in program.frontends().take(100) {
        let _ = (program.find(f.address, f.protocol, f.port), program.find_node_port(f.address, f.protocol, f.port));
        use_record(&f.record);
        let _ = format!("{:?}", program.decide(&program.packet(f.address, f.address, f.protocol, f.port)));
    }
    program.records().take(100).for_each(|record| use_record(&record));
    let _ = (program.services().count(), program.node_name(), format!("{program:?} {:?}", program.context()));
    for ip in program.cluster_ips().take(1000).chain([0, 0x0a60_0001, u32::MAX].map(|a| Ipv4Addr::from_bits(a).into()))
    {
        let _ = (program.is_cluster_ip(ip), program.find(ip, Protocol::Tcp, 80), program.context().is_node_address(ip));
    }
}

fn use_record(record: &natlet_core::Record<'_>) {
    for list in [record.cluster(), record.local(), record.endpoints()] {
        let _ = (list.iter().count(), list.draw(1), list.get(0), list.slot(3), list.hashed([192, 0, 2, 1].into()));
    }
    let _ = (record.affinity_timeout(), record.choice(), record.health_check_node_port());
    let _ = (record.source_ranges().map(Iterator::count), format!("{record:?}"));
}

pub fn check_program(program: &Program<'_>) {
    assert_eq!(program.frontends().count(), program.frontend_count() as usize);
    for f in program.frontends() {
        let again = match f.kind {
            FrontendKind::NodePort => program.find_node_port(f.address, f.protocol, f.port),
            _ => program.find(f.address, f.protocol, f.port),
        };
        assert_eq!(again, Some(f), "a frontend is found where it is");
        assert_ne!(f.port, 0);
        assert_eq!(f.record.is_v6(), f.address.is_ipv6());
        assert_eq!(f.kind == FrontendKind::NodePort, f.address.is_unspecified());
        assert!(f.kind != FrontendKind::ClusterIp || program.is_cluster_ip(f.address));
        check_record(&f.record);
    }
    for record in program.records() {
        check_record(&record);
        let _ = program.name_of(&record).map(|n| n.name.len() + n.hosts.len());
    }
    assert!(program.cluster_ips().all(|ip| program.is_cluster_ip(ip)));
    assert!(program.cluster_ips().is_sorted());
    let context = program.context();
    let cidrs = || context.cluster_cidrs().chain(context.service_cidrs()).chain(context.node_port_cidrs());
    assert!(cidrs().all(|c| c.contains(c.address)));
    assert!(context.addresses().all(|a| context.is_node_address(a)));
    let _ = (program.node_name(), context.masquerade_all(), context.localhost_node_ports());
    let _ = format!("{program:?} {}", program.content_id());
    check_decisions(program);
    let mut out = vec![0; program.as_bytes().len()];
    let len = strip_names(program, &mut out).unwrap();
    let stripped = Program::new_checked(&out[..len]).expect("stripping keeps a program a program");
    assert_eq!(stripped.content_id(), program.content_id());
    assert_eq!(stripped.node_name(), "");
}

fn check_record(record: &natlet_core::Record<'_>) {
    let total = record.endpoints().len();
    assert!(total == 0 || record.any_usable());
    for list in [record.cluster(), record.local(), record.endpoints()] {
        assert!(list.len() <= total);
        assert_eq!(list.iter().count(), list.len());
        assert!(list.iter().all(|e| e.address.port() != 0 && e.weight != 0 && e.address.is_ipv6() == record.is_v6()));
        assert_eq!(list.slots(), list.iter().map(|e| u32::from(e.weight)).sum::<u32>());
        for random in [0, 1, 1 << 31, u32::MAX] {
            assert_eq!(list.draw(random).is_some(), !list.is_empty());
        }
        assert!(list.slots() == 0 || list.slot(list.slots() - 1) == list.get(list.len() - 1));
        assert_eq!((list.slot(list.slots()), list.get(list.len())), (None, None));
    }
    assert_ne!(record.affinity_timeout(), Some(0));
    assert_ne!(record.health_check_node_port(), Some(0));
    if let Some(mut ranges) = record.source_ranges() {
        assert!(ranges.all(|r| r.address.is_ipv6() == record.is_v6()));
    }
    let _ = (record.choice(), record.internal_policy(), record.external_policy());
}

fn check_decisions(program: &Program<'_>) {
    let context = program.context();
    let own = context.addresses().chain([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    let sources: Vec<IpAddr> = own
        .chain(context.cluster_cidrs().map(|c| c.address))
        .chain([IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)])
        .take(12)
        .collect();
    let frontends = program.frontends().map(|f| (f.address, f.protocol, f.port));
    let others =
        sources.iter().map(|&s| (s, Protocol::Udp, 1)).chain(program.cluster_ips().map(|c| (c, Protocol::Tcp, 1)));
    for (destination, protocol, port) in frontends.chain(others).take(300) {
        for &source in &sources {
            for to in [destination, source] {
                let packet = program.packet(source, to, protocol, port);
                check_decision(&program.decide(&packet));
                check_decision(&program.decide(&natlet_core::Packet { from_node: true, to_node: true, ..packet }));
            }
        }
    }
}

pub fn check_decision(decision: &Decision<'_>) {
    assert_eq!(decision.verdict == Verdict::Dnat, decision.endpoints().is_some());
    if let Some(list) = decision.endpoints() {
        assert!(!list.is_empty() && decision.frontend.is_some() && decision.list.is_some());
        let endpoint = list.draw(0x1234_5678).unwrap();
        let _ = (decision.masquerades(&endpoint), decision.is_hairpin(&endpoint));
    }
    let _ = format!("{decision:?} {} {} {} {}", decision.verdict, decision.reason, decision.class, decision.masquerade);
}
