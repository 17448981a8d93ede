//! What two programs have in common, found by their bytes, is what a walk through both finds.
#![allow(clippy::pedantic, reason = "tests read better short")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]
#![allow(missing_docs)]

mod common;

use common::{NodeSpec, ServiceSpec, build};
use natlet_core::{FrontendKind, Policy, Program, Record};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;

struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

fn endpoint(random: &mut Random, v6: bool) -> String {
    let (a, b) = (random.below(3), random.below(250));
    if v6 { format!("2001:db8:{a}::{b:x}") } else { format!("10.0.{a}.{b}") }
}

fn service(random: &mut Random, number: u64) -> ServiceSpec {
    let v6 = random.below(5) == 0;
    let address =
        if v6 { format!("2001:db8:96::{number:x}") } else { format!("172.30.{}.{}", number / 250, number % 250) };
    let mut service = ServiceSpec::new(&format!("ns/s{number:04}")).frontend(FrontendKind::ClusterIp, &address, 80);
    // some are longer than a page of the record map
    let count = if random.below(12) == 0 { 100 } else { random.below(6) };
    for _ in 0..count {
        let address = endpoint(random, v6);
        service =
            if random.below(4) == 0 { service.local_endpoint(&address, 80) } else { service.endpoint(&address, 80) };
    }
    if random.below(6) == 0 {
        service.internal = Policy::Local;
    }
    if random.below(8) == 0 {
        service.affinity = 90;
    }
    service
}

/// The services with some changes: endpoints, names, frontends, services that come and go.
fn changed(random: &mut Random, mut services: Vec<ServiceSpec>) -> Vec<ServiceSpec> {
    for _ in 0..random.below(4) {
        let at = random.below(services.len() as u64) as usize;
        match random.below(5) {
            0 => drop(services.remove(at)),
            1 => services[at].name += "-renamed",
            2 => services[at].frontends[0].2 += 1,
            3 => {
                let number = 5000 + random.below(100);
                services.insert(at, service(random, number));
            }
            _ => {
                let v6 = services[at].frontends[0].1.is_ipv6();
                let address = endpoint(random, v6);
                services[at] = services[at].clone().endpoint(&address, 80);
            }
        }
    }
    services.sort_by(|a, b| a.name.cmp(&b.name));
    services.dedup_by(|a, b| a.name == b.name);
    services
}

fn within<'p>(program: &Program<'p>, part: &Range<u32>) -> Vec<Record<'p>> {
    program.records().filter(|r| part.contains(&r.offset())).collect()
}

#[test]
fn outside_of_what_differs_records_are_the_same() {
    let mut random = Random(0x00d1_ff00);
    let (mut equal, mut narrow) = (0, 0);
    for case in 0..400 {
        let count = 2 + random.below(60);
        let old: Vec<ServiceSpec> = (0..count).map(|i| service(&mut random, i)).collect();
        let new = changed(&mut random, old.clone());
        let bytes = [build(&NodeSpec::default(), &old), build(&NodeSpec::default(), &new)];
        let [old, new] = [&bytes[0], &bytes[1]].map(|b| Program::new_checked(b).unwrap());
        let parts = old.differing_records(&new);
        let outside = |program: &Program<'_>, part: &Range<u32>| -> Vec<String> {
            let records = program.records().filter(|r| !part.contains(&r.offset()));
            records.map(|r| format!("{:?} {:?} {:?}", r.is_v6(), r.endpoints(), r.affinity_timeout())).collect()
        };
        assert_eq!(outside(&old, &parts[0]), outside(&new, &parts[1]), "case {case}");
        for (program, part) in [(&old, &parts[0]), (&new, &parts[1])] {
            assert_eq!(program.records_in(part.clone()).collect::<Vec<_>>(), within(program, part), "case {case}");
        }
        let firsts = (within(&old, &parts[0]).first().copied(), within(&new, &parts[1]).first().copied());
        if let (Some(a), Some(b)) = firsts {
            assert!(!a.is_same(&b), "case {case}: the first records within differ");
        }
        narrow += usize::from(within(&old, &parts[0]).len() * 2 < old.records().count());
        equal += usize::from(parts[0].is_empty() && parts[1].is_empty());
        assert_eq!(
            bytes[0] == bytes[1],
            old.has_names_of(&new) && old.has_index_of(&new) && parts[0].is_empty(),
            "case {case}"
        );
    }
    assert!(equal > 20 && narrow > 100, "{equal} equal, {narrow} narrow");
}

#[test]
fn frontends_and_endpoints_are_found_without_a_walk() {
    let mut random = Random(0x0f1d);
    for _ in 0..100 {
        let services: Vec<ServiceSpec> = (0..2 + random.below(80)).map(|i| service(&mut random, i)).collect();
        let bytes = build(&NodeSpec::default(), &services);
        let program = Program::new_checked(&bytes).unwrap();
        let wanted: BTreeSet<u32> = program.records().map(|r| r.offset()).filter(|_| random.below(4) == 0).collect();
        let key = |f: natlet_core::ProgramFrontend<'_>| format!("{f:?}");
        let found: BTreeSet<String> = program.frontends_of(|offset| wanted.contains(&offset)).map(key).collect();
        let all = program.frontends().filter(|f| wanted.contains(&f.record.offset()));
        assert_eq!(found, all.map(key).collect());
        for v6 in [false, true] {
            assert_eq!(program.has_frontends(v6), program.frontends().any(|f| f.address.is_ipv6() == v6));
            for _ in 0..20 {
                let address: IpAddr = endpoint(&mut random, v6).parse().unwrap();
                let found: BTreeSet<u32> = program.records_with_endpoint(address).map(|r| r.offset()).collect();
                let has = |r: &Record<'_>| r.endpoints().iter().any(|e| e.address.ip() == address);
                assert_eq!(found, program.records().filter(has).map(|r| r.offset()).collect(), "{address}");
            }
        }
    }
}
