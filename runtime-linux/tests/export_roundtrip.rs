//! Random tables through `export` and back: the same content id.
#![allow(clippy::pedantic, missing_docs, reason = "tests read better short")]

use natlet::export::{ExportError, manifest, recover, toml};
use natlet::image::Image;
use natlet::source::{Input, Loaded, NodeBuf, NodeFlags, ServiceBuf, TableBuf, load_inputs};
use natlet_core::{Choice, Cidr, Endpoint, Frontend, FrontendKind, Policy, Protocol, ServiceType};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const TABLES: u64 = 300;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True once in `n` times.
    fn rarely(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }
}

/// Distinct addresses: the `n`th of a family under a prefix of our own.
fn address(v4: bool, net: u8, n: u64) -> IpAddr {
    let n = n as u16;
    let [high, low] = n.to_be_bytes();
    if v4 {
        Ipv4Addr::new(10, net, high, low).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, net.into(), 0, 0, 0, 0, n).into()
    }
}

fn policy(r: &mut Random) -> Policy {
    if r.rarely(3) { Policy::Local } else { Policy::Cluster }
}

fn endpoints(r: &mut Random, families: &[bool]) -> Vec<Endpoint> {
    let weighted = r.rarely(3);
    let topology = r.rarely(3);
    let shared_port = (!r.rarely(3)).then(|| 8000 + r.below(3) as u16);
    let mut all = Vec::new();
    for _ in 0..r.pick(&[0, 1, 2, 3, 5, 9]) {
        let net = r.pick(&[1, 1, 1, 200]);
        let address = address(r.pick(families), net, r.below(12));
        let port = shared_port.unwrap_or(8000 + r.below(3) as u16);
        let ready = !r.rarely(4);
        // two entries of one address and port may differ; the compiler picks one
        all.push(Endpoint {
            weight: if weighted { r.below(4) as u16 } else { 1 },
            ready,
            fallback: !ready && r.rarely(2),
            local: r.rarely(2),
            hinted: !(topology && r.rarely(2)),
            ..Endpoint::new(address, port)
        });
    }
    all
}

fn node(r: &mut Random) -> NodeBuf {
    if r.rarely(4) {
        return NodeBuf::default();
    }
    let cidr = |v4: bool, net: u8| Cidr::new(address(v4, net, 0), if v4 { 16 } else { 48 }).unwrap();
    let mut some =
        |net: u8| -> Vec<Cidr> { [true, false].into_iter().filter(|_| r.rarely(2)).map(|v4| cidr(v4, net)).collect() };
    let (cluster_cidrs, service_cidrs, node_port_cidrs) = (some(1), some(2), some(3));
    NodeBuf {
        name: r.pick(&["", "gw-1", "edge.example", "true", "1"]).into(),
        addresses: (0..r.below(4)).map(|n| address(n % 2 == 0, 3, n)).collect(),
        cluster_cidrs,
        service_cidrs,
        node_port_cidrs,
        masquerade_all: r.rarely(4),
        localhost_node_ports: r.rarely(4),
    }
}

/// Services as Kubernetes can have them: the ports of one Service share all but name, protocol, number and endpoints.
fn kubernetes(r: &mut Random) -> TableBuf {
    let mut table = TableBuf::default();
    table.node = node(r);
    let mut serial = 1_u64;
    for s in 0..1 + r.below(6) {
        let families = r.pick(&[&[true][..], &[false], &[true, false]]);
        let service_type = r.pick(&[ServiceType::ClusterIp, ServiceType::NodePort, ServiceType::LoadBalancer]);
        let mut fresh = |net: u8, most: u64, r: &mut Random| -> Vec<IpAddr> {
            (0..r.below(most + 1))
                .map(|_| {
                    serial += 1;
                    address(r.pick(families), net, serial)
                })
                .collect()
        };
        let external = fresh(4, 2, r);
        let balanced = fresh(5, if service_type == ServiceType::LoadBalancer { 3 } else { 0 }, r);
        let cluster: Vec<IpAddr> = families.iter().map(|&v4| address(v4, 2, s + 1)).collect();
        // policies that Kubernetes ignores are none
        let external_counts = service_type != ServiceType::ClusterIp || !external.is_empty();
        let external_policy = if external_counts { policy(r) } else { Policy::Cluster };
        let checked = service_type == ServiceType::LoadBalancer && external_policy == Policy::Local;
        let shared = ServiceBuf {
            service_type,
            internal_policy: policy(r),
            external_policy,
            affinity_timeout: r.pick(&[0, 0, 90, 10_800]),
            choice: r.pick(&[Choice::Random, Choice::Random, Choice::SourceHash]),
            source_ranges: (0..r.pick(&[0, 0, 3]))
                .map(|_| Cidr::new(address(r.pick(&[true, false]), 3, r.below(4)), 32 - r.below(12) as u8).unwrap())
                .collect(),
            health_check_node_port: if checked && r.rarely(2) { 30_000 } else { 0 },
            ..ServiceBuf::default()
        };
        let same_endpoints = endpoints(r, families);
        for p in 0..1 + r.below(3) {
            let name = if p == 0 && r.rarely(2) { format!("ns/s{s}") } else { format!("ns/s{s}:p{p}") };
            let port = 80 + p as u16;
            let mut frontends: Vec<Frontend> = Vec::new();
            let mut add = |kind, all: &[IpAddr], port| {
                frontends.extend(all.iter().map(|&address| Frontend { kind, address, port }));
            };
            add(FrontendKind::ClusterIp, &cluster, port);
            add(FrontendKind::LoadBalancer, &balanced, port);
            add(FrontendKind::ExternalIp, &external, port);
            // a nodePort may be there whatever the type
            if service_type != ServiceType::ClusterIp && !r.rarely(4) {
                let any = |v4: bool| if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let all: Vec<IpAddr> = families.iter().map(|&v4| any(v4)).collect();
                add(FrontendKind::NodePort, &all, 30_001 + (s * 8 + p) as u16);
            }
            table.push(&ServiceBuf {
                name,
                protocol: r.pick(&Protocol::ALL),
                frontends,
                endpoints: if r.rarely(2) { same_endpoints.clone() } else { endpoints(r, families) },
                hosts: (0..r.pick(&[0, 0, 2])).map(|h| format!("h{}.example.com", 5 - h)).collect(),
                ..shared.clone()
            });
        }
    }
    table
}

/// Services as `services.toml` can have them: each for itself, without a ClusterIP too, NodePorts in any family.
fn edge(r: &mut Random) -> TableBuf {
    let mut table = TableBuf::default();
    table.node = node(r);
    let mut serial = 1_u64;
    for s in 0..1 + r.below(8) {
        let families = r.pick(&[&[true][..], &[false], &[true, false]]);
        let port = 80 + s as u16;
        let mut frontends = Vec::new();
        for kind in [FrontendKind::ClusterIp, FrontendKind::LoadBalancer, FrontendKind::ExternalIp] {
            for &v4 in families {
                if r.rarely(2) {
                    serial += 1;
                    frontends.push(Frontend { kind, address: address(v4, 2, serial), port });
                }
            }
        }
        if frontends.is_empty() || r.rarely(2) {
            let any = |v4: bool| if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            for v4 in r.pick(&[&[true][..], &[false], &[true, false]]) {
                let port = 30_001 + s as u16;
                frontends.push(Frontend { kind: FrontendKind::NodePort, address: any(*v4), port });
            }
        }
        table.push(&ServiceBuf {
            name: format!("edge/s{s}"),
            protocol: r.pick(&Protocol::ALL),
            service_type: r.pick(&[ServiceType::ClusterIp, ServiceType::NodePort, ServiceType::LoadBalancer]),
            frontends,
            endpoints: endpoints(r, &[true, false]),
            internal_policy: policy(r),
            external_policy: policy(r),
            affinity_timeout: r.pick(&[0, 1, 86_400]),
            choice: r.pick(&[Choice::Random, Choice::SourceHash]),
            source_ranges: (0..r.pick(&[0, 2])).map(|n| Cidr::new(address(n == 0, 3, n), 24).unwrap()).collect(),
            health_check_node_port: r.pick(&[0, 30_000]),
            hosts: (0..r.pick(&[0, 2])).map(|h| format!("h{}.example.com", 5 - h)).collect(),
        });
    }
    table
}

fn compiled(table: &TableBuf) -> Image {
    Image::compile(&table.as_table()).expect("the generator makes tables that compile")
}

fn read(text: &str) -> Image {
    let input = Input { name: "export".into(), bytes: text.into(), found: false };
    match load_inputs(vec![input], &NodeFlags::default()).unwrap_or_else(|p| panic!("{}", p.render(false))) {
        Loaded::Table { table, .. } => compiled(&table),
        Loaded::Program { .. } => panic!("text is no program"),
    }
}

#[test]
fn tables_come_back_from_programs() {
    for seed in 0..TABLES {
        for make in [kubernetes, edge] {
            let image = compiled(&make(&mut Random(seed)));
            let again = compiled(&recover::table(&image.program()).unwrap());
            assert!(again == image, "seed {seed}");
        }
    }
}

#[test]
fn toml_reads_back_to_the_same_program() {
    for seed in 0..TABLES {
        for make in [kubernetes, edge] {
            let image = compiled(&make(&mut Random(seed)));
            let text = toml::export(&image.program()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            assert!(read(&text) == image, "seed {seed}:\n{text}");
        }
    }
}

#[test]
fn manifests_read_back_to_the_same_program() {
    for seed in 0..TABLES {
        let image = compiled(&kubernetes(&mut Random(seed)));
        let text = manifest::export(&image.program()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert!(read(&text) == image, "seed {seed}:\n{text}");
    }
}

#[test]
fn what_manifests_cannot_say_names_the_service() {
    let (mut written, mut refused) = (0, 0);
    for seed in 0..TABLES {
        let image = compiled(&edge(&mut Random(seed)));
        match manifest::export(&image.program()) {
            Ok(text) => {
                assert!(read(&text) == image, "seed {seed}:\n{text}");
                written += 1;
            }
            Err(ExportError::Service { name, why }) => {
                assert!(name.starts_with("edge/s") && !why.is_empty(), "seed {seed}: {name}: {why}");
                refused += 1;
            }
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
    assert!(written > 0 && refused > 0, "both happen: {written}, {refused}");
}

#[test]
fn ports_that_disagree_are_no_service() {
    let mut table = TableBuf::default();
    for (port, affinity_timeout) in [(80, 0), (443, 90)] {
        table.push(&ServiceBuf {
            name: format!("shop/web:p{port}"),
            frontends: vec![Frontend { kind: FrontendKind::ClusterIp, address: address(true, 2, 1), port }],
            affinity_timeout,
            ..ServiceBuf::default()
        });
    }
    let error = manifest::export(&compiled(&table).program()).unwrap_err().to_string();
    assert!(error.contains("shop/web:p80") || error.contains("shop/web:p443"), "{error}");
    assert!(error.contains("affinity"), "{error}");
    assert!(toml::export(&compiled(&table).program()).is_ok());
}

#[test]
fn stripped_programs_cannot_be_told() {
    let image = compiled(&kubernetes(&mut Random(1)));
    let mut bytes = vec![0; image.as_bytes().len()];
    let len = natlet_core::strip_names(&image.program(), &mut bytes).unwrap();
    let stripped = Image::from_bytes(bytes[..len].to_vec()).unwrap();
    assert_eq!(toml::export(&stripped.program()), Err(ExportError::NoNames));
}
