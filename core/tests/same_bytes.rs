//! The bytes of large tables, by their content ids: what compiled once compiles to the same bytes ever after, in this format
//! version. Another way to compile, a faster one say, has to leave the ids alone; a new format version changes them.
#![allow(clippy::pedantic, reason = "tests read better short")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]
#![allow(missing_docs)]

mod common;

use common::{NodeSpec, ServiceSpec, build, cidr, ip};
use natlet_core::{Choice, Endpoint, FrontendKind, Policy, Program, Protocol, ServiceType};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use twox_hash::XxHash3_128;

/// splitmix64.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, range: u64) -> u64 {
        ((self.bits() >> 32) * range) >> 32
    }

    fn one_in(&mut self, range: u64) -> bool {
        self.below(range) == 0
    }

    fn v4(&mut self, net: u32, hosts: u64) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(net + 1 + self.below(hosts) as u32))
    }

    fn v6(&mut self, net: u128, hosts: u64) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) + (net << 64) + u128::from(1 + self.below(hosts))))
    }

    fn port(&mut self) -> u16 {
        if self.one_in(5) { 1 + self.below(65_535) as u16 } else { [80, 443, 53, 8080][self.below(4) as usize] }
    }
}

/// Services with frontends that no other has.
struct Services {
    random: Random,
    taken: HashSet<(IpAddr, Protocol, u16)>,
    all: Vec<ServiceSpec>,
}

impl Services {
    fn new(seed: u64) -> Self {
        Self { random: Random(seed), taken: HashSet::new(), all: vec![] }
    }

    fn with(mut self, mut service: ServiceSpec) -> Self {
        service.frontends.retain(|&(_, address, port)| self.taken.insert((address, service.protocol, port)));
        self.all.push(service);
        self
    }

    /// One to `frontends` ClusterIPs and `endpoints` endpoints; each fifth service's have ports of their own.
    fn with_plain(mut self, frontends: u64, endpoints: u64, v6: bool) -> Self {
        let r = &mut self.random;
        let mut s = ServiceSpec::new(&format!("namespace-{}/service-{}:http", self.all.len() % 50, self.all.len()));
        let (address, port) = (if v6 { r.v6(1, 1 << 30) } else { r.v4(0x0a00_0000, 1 << 22) }, r.port());
        s.frontends.extend((0..1 + r.below(frontends)).map(|_| (FrontendKind::ClusterIp, address, r.port())));
        let own_ports = r.one_in(5);
        s.endpoints.extend((0..endpoints).map(|_| {
            let address = if v6 { r.v6(2, 1 << 30) } else { r.v4(0x0a80_0000, 1 << 22) };
            Endpoint::new(address, if own_ports { r.port() } else { port })
        }));
        self.with(s)
    }

    /// Anything that a service can be.
    fn with_any(mut self) -> Self {
        let number = self.all.len();
        let r = &mut self.random;
        // names of many lengths, some the beginnings of others, some twice with two protocols
        let name = format!("{}{}", "n/".repeat(1 + r.below(9) as usize), number / 2);
        let mut s = ServiceSpec::new(&name[name.len().saturating_sub(12)..]);
        s.name = format!("{}{}", s.name, ["", "", ":http", ":a-port-with-a-long-name"][number / 2 % 4]);
        s.protocol = Protocol::ALL[number % 2 + r.below(2) as usize * (number % 2)];
        let families = if r.one_in(3) { &[false, true][..] } else { &[false] };
        for &v6 in families {
            let address = if v6 { r.v6(3, 4000) } else { r.v4(0x0a60_0000, 4000) };
            for _ in 0..r.below(3) {
                s.frontends.push((FrontendKind::ClusterIp, address, r.port()));
            }
            if r.one_in(3) {
                let any = ip(if v6 { "::" } else { "0.0.0.0" });
                s.frontends.push((FrontendKind::NodePort, any, 30_000 + r.below(3000) as u16));
            }
            for kind in [FrontendKind::LoadBalancer, FrontendKind::ExternalIp] {
                let address = if v6 { r.v6(4, 3000) } else { r.v4(0xc633_6400, 3000) };
                if r.one_in(4) {
                    s.frontends.push((kind, address, r.port()));
                }
            }
        }
        let (equal, own_ports, most) = (r.one_in(2), r.one_in(4), if r.one_in(50) { 400 } else { 12 });
        for _ in 0..r.below(most) {
            // from a small pool, so that some are there twice
            let address = if r.one_in(4) { r.v6(5, 40) } else { r.v4(0x0af4_0000 + number as u32 * 16, 24) };
            let mut e = Endpoint::new(address, if own_ports { r.port() } else { 8080 });
            if !equal {
                (e.ready, e.fallback, e.hinted) = (!r.one_in(4), r.one_in(3), !r.one_in(5));
                e.weight = if r.one_in(3) { 6 * r.below(5) as u16 } else { 6 };
            }
            e.local = r.one_in(3);
            s.endpoints.push(e);
        }
        s.internal = if r.one_in(6) { Policy::Local } else { Policy::Cluster };
        s.external = if r.one_in(3) { Policy::Local } else { Policy::Cluster };
        s.affinity = if r.one_in(4) { 10_800 } else { 0 };
        s.choice = if r.one_in(8) { Choice::SourceHash } else { Choice::Random };
        s.service_type = if r.one_in(2) { ServiceType::ClusterIp } else { ServiceType::LoadBalancer };
        s.health_check = if r.one_in(9) { 32_000 } else { 0 };
        s.hosts = if r.one_in(9) { "shop.example,www.example".into() } else { String::new() };
        if r.one_in(5) {
            s.ranges.extend(["203.0.113.0/24", "192.0.2.0/24", "2001:db8:9::/48"].map(cidr));
        }
        self.with(s)
    }
}

fn node() -> NodeSpec {
    NodeSpec {
        addresses: ["192.0.2.1", "2001:db8:9::1"].map(ip).to_vec(),
        cluster: ["10.244.0.0/16", "2001:db8:5::/48"].map(cidr).to_vec(),
        ..NodeSpec::default()
    }
}

#[track_caller]
fn check(services: Services, expected: &str) {
    let bytes = build(&node(), &services.all);
    let program = Program::new_checked(&bytes).unwrap();
    assert_eq!(program.content_id().to_string(), expected);
}

#[test]
fn services_of_ten_endpoints() {
    check((0..3_000).fold(Services::new(1), |s, _| s.with_plain(1, 10, false)), "ae02a58a174e79727db5710f24ad42e3");
}

#[test]
fn an_index_of_several_shards() {
    check((0..21_000).fold(Services::new(2), |s, _| s.with_plain(3, 2, false)), "ccbefedf4e3b98ed55b0a2bf01f7e9fe");
}

#[test]
fn an_ipv6_index_of_several_shards() {
    check((0..20_000).fold(Services::new(3), |s, _| s.with_plain(1, 2, true)), "ba2582b0375600081f0bd351a5d4ca8b");
}

#[test]
fn services_of_every_kind() {
    check((0..5_000).fold(Services::new(4), |s, _| s.with_any()), "152d28b1cf6214f9470ca52161258ab4");
}

/// A second seed would double the time of a compilation, so few tables should need one.
#[test]
fn large_tables_need_one_seed() {
    let seeds = (0..40).map(|n| {
        let services = (0..16_000).fold(Services::new(1000 + n), |s, _| s.with_plain(1, 1, false));
        build(&node(), &services.all)[5] >> 6
    });
    assert_eq!(seeds.collect::<Vec<_>>(), [0; 40]);
}

/// Among the indices are some that need more than one seed.
#[test]
fn small_tables_of_every_size() {
    let mut all = vec![];
    let mut seeds = 0;
    for n in 0..400 {
        let kinds = [
            (0..n).fold(Services::new(n), |s, _| s.with_plain(1, 3, false)),
            (0..n).fold(Services::new(n), |s, _| s.with_any()),
        ];
        for services in kinds {
            let bytes = build(&node(), &services.all);
            seeds += u32::from(bytes[5] >> 6 != 0);
            all.extend(bytes);
        }
    }
    assert!(seeds > 0, "no table needed another seed");
    assert_eq!(format!("{:032x}", XxHash3_128::oneshot(&all)), "3be148a2482c92d6a11dd4b7e8c67cb3");
}
