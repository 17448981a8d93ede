//! Random tables and random packets: the core's decision and the real kernel must agree on verdict, endpoints and
//! masquerading, and each table is loaded over the one before as the difference to it.
//!
//! ```console
//! $ NATLET_ROUNDS=1000 cargo test -p natlet-tests --test differential        # more tables than the 60 of every run
//! $ NATLET_SEED=123 cargo test -p natlet-tests --test differential           # the same tables and packets again
//! ```

#![allow(clippy::pedantic)]

mod common;

use common::site::ip;
use libtest_mimic::{Arguments, Failed, Trial};
use natlet::image::Image;
use natlet::kernel;
use natlet::lab::{self, Listener, Plan, Topology};
use natlet::netlink::Netlink;
use natlet::source::{NodeBuf, ServiceBuf, TableBuf};
use natlet_core::table::{Choice, Endpoint, Frontend};
use natlet_core::{Cidr, FrontendKind, Policy, Program, Protocol};
use natlet_tests::flow::{self, Flow, Outcome};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime};

/// Tables in a run that does not say how many.
const ROUNDS: u64 = 60;
/// Packets for each table.
const FLOWS: usize = 120;

/// The hosts' addresses, IPv4 and IPv6 in the same order. The first of the node is its primary one; the third lies in the
/// cluster CIDR. Of the clients the first two are outside, the others are pods of other nodes.
const NODE: [[&str; 2]; 3] =
    [["192.0.2.10", "2001:db8::10"], ["198.18.0.10", "2001:db8:18::10"], ["10.244.1.1", "2001:db8:244:1::1"]];
const CLIENTS: [[&str; 2]; 4] = [
    ["203.0.113.9", "2001:db8:9::9"],
    ["203.0.113.200", "2001:db8:9:1::9"],
    ["10.244.9.9", "2001:db8:244:9::9"],
    ["10.244.9.10", "2001:db8:244:9::a"],
];
const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];
const PODS: [[&str; 2]; 2] = [["10.244.1.5", "2001:db8:244:1::5"], ["10.244.1.6", "2001:db8:244:1::6"]];
const REMOTE: [[&str; 2]; 5] = [
    ["10.244.2.1", "2001:db8:244:2::1"],
    ["10.244.2.2", "2001:db8:244:2::2"],
    ["10.244.3.1", "2001:db8:244:3::1"],
    ["10.244.3.2", "2001:db8:244:3::2"],
    ["172.16.9.9", "2001:db8:16::9"], // an endpoint that is no pod
];
/// Where clients go: ClusterIPs, then addresses outside of the service CIDR, of which one is the node's.
const VIPS: [[&str; 2]; 10] = [
    ["10.96.0.1", "2001:db8:96::1"],
    ["10.96.0.2", "2001:db8:96::2"],
    ["10.96.0.3", "2001:db8:96::3"],
    ["10.96.0.4", "2001:db8:96::4"],
    ["10.96.0.5", "2001:db8:96::5"],
    ["10.96.0.6", "2001:db8:96::6"],
    ["198.51.100.1", "2001:db8:100::1"],
    ["198.51.100.2", "2001:db8:100::2"],
    ["198.51.100.3", "2001:db8:100::3"],
    ["198.18.0.10", "2001:db8:18::10"],
];
/// Ports of frontends. NodePorts are the last three, which exact frontends may have too.
const PORTS: [u16; 6] = [53, 80, 443, 30080, 30081, 30082];
const ENDPOINT_PORTS: [u16; 3] = [5353, 8080, 8081];

fn main() {
    let arguments = Arguments::from_args();
    if let Err(error) = lab::enter() {
        eprintln!("{error}");
        assert!(std::env::var_os("NATLET_NO_SKIP").is_none_or(|v| v != "1"), "no laboratory, and NATLET_NO_SKIP=1");
        eprintln!("skipped: the differential test");
        return;
    }
    let trials = vec![Trial::test("core_and_kernel_agree", core_and_kernel_agree)];
    libtest_mimic::run(&arguments, trials).exit();
}

/// splitmix64 (Steele, Lea, Flood 2014): the same numbers from the same seed on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn core_and_kernel_agree() -> Result<(), Failed> {
    // an entry of the table before would lead a datagram of the same ports where it led
    if let Err(skip) = lab::need("conntrack") {
        eprintln!("{skip}");
        return Ok(());
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed = number("NATLET_SEED").unwrap_or((now.as_nanos() % 1_000_000_007) as u64);
    let rounds = number("NATLET_ROUNDS").unwrap_or(ROUNDS);
    eprintln!("to replay: NATLET_SEED={seed} NATLET_ROUNDS={rounds}");
    let flatten = |all: &[[&str; 2]]| all.iter().flatten().map(|a| ip(a)).collect::<Vec<_>>();
    let (node, clients) = (flatten(&NODE), flatten(&CLIENTS));
    let mut hosted = flatten(&REMOTE);
    hosted.extend(flatten(&VIPS));
    hosted.extend(["10.96.0.200", "2001:db8:96::200", "198.51.100.200", "2001:db8:100::200"].map(ip)); // nobody's
    hosted.extend(flatten(&[LOOPBACK])); // the node's
    let pods = PODS.iter().map(|p| p.iter().map(|a| ip(a)).collect()).collect();
    let topology = Topology::build(&Plan { node, clients, endpoints: hosted, pods, avoid: Vec::new() })?;
    let _servers = topology.serve(&listeners())?;

    let start = Instant::now();
    let mut random = Random(seed);
    let (mut sent, mut verdicts, mut reloads) = (0, BTreeMap::new(), BTreeMap::new());
    for round in 0..rounds {
        let table = table(&mut random);
        let failed = |what: String| -> Failed {
            let table = describe(&table);
            format!("{what}\nin round {round} of NATLET_SEED={seed}, with the table\n{table}").into()
        };
        let image = Image::compile(&table.as_table()).map_err(|e| failed(e.to_string()))?;
        let program = image.program();
        let load = || topology.node.run(|| Netlink::open().and_then(|mut n| kernel::load(&mut n, &program)));
        let outcome = load().map_err(|e| failed(format!("loading: {e}")))?;
        let how = if outcome.summary.replaced.is_empty() { "by difference" } else { "replaced whole" };
        *reloads.entry(how).or_insert(0) += 1;
        let again = load().map_err(|e| failed(format!("loading again: {e}")))?;
        if !again.phases.is_empty() {
            return Err(failed(format!("loading the same again: {again:?}, after {outcome:?}")));
        }
        node_command(&topology, "nft", &["list", "ruleset"]).map_err(&failed)?;
        node_command(&topology, "conntrack", &["-F"]).map_err(&failed)?;
        let flows = flows(&mut random, &program);
        for flow in &flows {
            *verdicts.entry(flow.expected.verdict.name()).or_insert(0) += 1;
        }
        sent += flows.len();
        let complaints = flow::send(&topology, &flows)?;
        let told: Vec<String> = flows
            .iter()
            .zip(complaints)
            .filter_map(|(flow, got)| Some(format!("{flow}\n  core:   {}\n  kernel: {}", flow.expected, got?)))
            .collect();
        if !told.is_empty() {
            return Err(failed(told.join("\n")));
        }
    }
    eprintln!("{sent} flows through {rounds} tables in {:.1?}: {verdicts:?}; loads: {reloads:?}", start.elapsed());
    Ok(())
}

/// Every endpoint, and every address and port that a packet may go to untranslated.
fn listeners() -> Vec<Listener> {
    let mut all = BTreeSet::new();
    let mut add = |address: IpAddr, ports: &[u16]| {
        for &port in ports {
            all.extend([Protocol::Tcp, Protocol::Udp].map(|p| (p, SocketAddr::new(address, port))));
        }
    };
    for address in [&NODE[..1], &PODS, &REMOTE].concat().iter().flatten() {
        add(ip(address), &ENDPOINT_PORTS);
    }
    for address in [&NODE[..], &VIPS, &[LOOPBACK]].concat().iter().flatten() {
        add(ip(address), &PORTS);
    }
    for address in ["10.96.0.200", "2001:db8:96::200", "198.51.100.200", "2001:db8:100::200"] {
        add(ip(address), &PORTS);
    }
    all.into_iter().map(|(protocol, address)| Listener { protocol, address }).collect()
}

fn node(random: &mut Random) -> NodeBuf {
    let cidrs = |random: &mut Random, each: &[&str], one_in: usize| {
        each.iter().filter(|_| !random.one_in(one_in)).map(|c| cidr(c)).collect::<Vec<_>>()
    };
    let mut addresses: Vec<IpAddr> = NODE.iter().flatten().map(|a| ip(a)).collect();
    if random.one_in(8) {
        addresses.retain(|a| a.is_ipv4() || *a == ip(NODE[0][1]));
        addresses.extend(NODE[1..].iter().map(|a| ip(a[1]))); // another order, the primaries in place
    }
    let node_port_cidrs: &[&str] = random.pick(&[
        &[],
        &[],
        &["192.0.2.0/24"],
        &["198.18.0.0/15", "10.244.0.0/16"],
        &["192.0.2.10/32", "2001:db8::/64"],
        &["2001:db8:18::/48", "2001:db8:244::/48"],
        &["0.0.0.0/0", "192.0.2.0/24"],
        &["127.0.0.0/8", "::1/128"],
    ]);
    NodeBuf {
        name: "node-a".into(),
        addresses,
        cluster_cidrs: cidrs(random, &["10.244.0.0/16", "2001:db8:244::/48"], 6),
        service_cidrs: cidrs(random, &["10.96.0.0/24", "2001:db8:96::/112"], 4),
        node_port_cidrs: node_port_cidrs.iter().map(|c| cidr(c)).collect(),
        masquerade_all: random.one_in(7),
        localhost_node_ports: random.one_in(5),
    }
}

fn table(random: &mut Random) -> TableBuf {
    let mut table = TableBuf::default();
    table.node = node(random);
    let mut taken = BTreeSet::new();
    for i in 0..random.below(14) {
        let service = service(random, i, &mut taken);
        if !service.frontends.is_empty() {
            table.push(&service);
        }
    }
    table
}

fn service(random: &mut Random, i: usize, taken: &mut BTreeSet<(IpAddr, u8, u16)>) -> ServiceBuf {
    let protocol = random.pick(&[Protocol::Tcp, Protocol::Udp]);
    let policy = |random: &mut Random| random.pick(&[Policy::Cluster, Policy::Cluster, Policy::Local]);
    let mut service = ServiceBuf {
        name: format!("random/service-{i}"),
        protocol,
        internal_policy: policy(random),
        external_policy: policy(random),
        choice: if random.one_in(7) { Choice::SourceHash } else { Choice::Random },
        ..ServiceBuf::default()
    };
    let families: &[usize] = random.pick(&[&[0][..], &[1], &[0, 1]]);
    let exact_port = random.pick(&PORTS);
    let node_port = random.pick(&PORTS[3..]);
    let (external, balanced, ported) = (random.one_in(2), random.one_in(2), random.one_in(2));
    for &family in families {
        let mut add = |kind, address: IpAddr, port| {
            if taken.insert((address, protocol.number(), port)) {
                service.frontends.push(Frontend { kind, address, port });
            }
        };
        if !random.one_in(6) {
            add(FrontendKind::ClusterIp, ip(random.pick(&VIPS[..6])[family]), exact_port);
        }
        if ported {
            add(FrontendKind::NodePort, ip(["0.0.0.0", "::"][family]), node_port);
        }
        if external {
            add(FrontendKind::ExternalIp, ip(random.pick(&VIPS)[family]), exact_port);
        }
        for _ in 0..if balanced { 1 + random.below(2) } else { 0 } {
            add(FrontendKind::LoadBalancer, ip(random.pick(&VIPS[6..])[family]), exact_port);
        }
        service.endpoints.extend(endpoints(random, family));
    }
    if random.one_in(3) {
        const RANGES: [&str; 8] = [
            "203.0.113.0/25",
            "203.0.113.200/32",
            "10.244.0.0/16",
            "192.0.2.0/24",
            "2001:db8:9::/64",
            "2001:db8:244::/48",
            "2001:db8::10/128",
            "0.0.0.0/0",
        ];
        service.source_ranges = (0..1 + random.below(3)).map(|_| cidr(random.pick(&RANGES))).collect();
    }
    service
}

fn endpoints(random: &mut Random, family: usize) -> Vec<Endpoint> {
    let pool = [&NODE[..1], &PODS, &PODS, &REMOTE, &REMOTE].concat();
    let (hints, unready) = (random.one_in(3), random.pick(&[2, 6, 1000]));
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for _ in 0..random.pick(&[0, 1, 1, 2, 3, 5]) {
        let address = ip(random.pick(&pool)[family]);
        endpoints.push(Endpoint {
            ready: !random.one_in(unready),
            fallback: random.one_in(2),
            local: random.one_in(3) || PODS.iter().any(|p| ip(p[family]) == address),
            hinted: !hints || random.one_in(2),
            weight: random.pick(&[1, 1, 1, 1, 1, 0, 2, 5]),
            ..Endpoint::new(address, random.pick(&ENDPOINT_PORTS))
        });
    }
    endpoints
}

/// Packets to frontends, beside them, and to everything else, from everybody.
fn flows(random: &mut Random, program: &Program<'_>) -> Vec<Flow> {
    let frontends: Vec<_> = {
        let mut all: Vec<_> = program.frontends().collect();
        all.sort_by_key(|f| (f.address, f.protocol, f.port)); // "in no useful order"
        all
    };
    let sources = [&NODE[..], &CLIENTS, &PODS].concat();
    let mut flows = Vec::new();
    let mut seen = BTreeSet::new();
    for _ in 0..FLOWS {
        let family = random.below(2);
        let of_family: Vec<_> = frontends.iter().filter(|f| usize::from(f.address.is_ipv6()) == family).collect();
        let (mut address, mut protocol, mut port) = if of_family.is_empty() || random.one_in(5) {
            let nobodys = [["10.96.0.200", "2001:db8:96::200"], ["198.51.100.200", "2001:db8:100::200"]];
            let all = [&NODE[..], &VIPS, &nobodys].concat();
            (ip(random.pick(&all)[family]), random.pick(&[Protocol::Tcp, Protocol::Udp]), random.pick(&PORTS))
        } else {
            let f = of_family[random.below(of_family.len())];
            (f.address, f.protocol, f.port)
        };
        match random.below(8) {
            0 => port = random.pick(&PORTS),
            1 => protocol = random.pick(&[Protocol::Tcp, Protocol::Udp]),
            2 => address = ip(random.pick(&VIPS)[family]),
            _ => {}
        }
        if address.is_unspecified() {
            address = ip(random.pick(&NODE)[family]);
        }
        let mut source = ip(random.pick(&sources)[family]);
        if NODE.iter().any(|n| ip(n[family]) == source) && random.one_in(4) {
            (source, address) = (ip(LOOPBACK[family]), ip(LOOPBACK[family])); // with a NodePort's number, more often than not
        }
        if !seen.insert((source, address, protocol.number(), port)) {
            continue;
        }
        let decision = program.decide(&program.packet(source, address, protocol, port));
        let hash = decision.frontend.is_some_and(|f| f.record.choice() == Choice::SourceHash);
        flows.push(Flow {
            protocol,
            source,
            destination: SocketAddr::new(address, port),
            expected: Outcome::of(&decision),
            slots: decision.endpoints().map_or(1, |list| list.slots()),
            sticky: hash,
        });
    }
    flows
}

/// The table, a service on a line.
fn describe(table: &TableBuf) -> String {
    let services: Vec<String> = table.services().iter().map(|s| format!("{s:?}")).collect();
    format!("{:?}\n{}", table.node, services.join("\n"))
}

/// Runs a tool on the node, if this machine has it.
fn node_command(topology: &Topology, tool: &str, arguments: &[&str]) -> Result<(), String> {
    if let Err(skip) = lab::need(tool) {
        eprintln!("{skip}");
        return Ok(());
    }
    let run = || Command::new(tool).args(arguments).stdin(Stdio::null()).output();
    let output = topology.node.run(run).map_err(|e| format!("{tool}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{tool} {}: {}: {}", arguments.join(" "), output.status, String::from_utf8_lossy(&output.stderr)))
}

fn cidr(text: &str) -> Cidr {
    let (address, prefix) = text.split_once('/').expect("a prefix of this file");
    Cidr::new(ip(address), prefix.parse().expect("a length")).expect("a length that fits")
}
