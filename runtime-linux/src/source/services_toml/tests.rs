use super::super::{Input, Loaded, NodeFlags, Problems, Report, TableBuf, load_inputs};
use natlet_core::table::{Choice, Endpoint, Frontend, FrontendKind, Policy, Protocol, ServiceType};
use std::net::IpAddr;

fn load(text: &str, node: &NodeFlags) -> Result<(TableBuf, Report), Problems> {
    let input = Input { name: "services.toml".into(), bytes: text.into(), found: false };
    match load_inputs(vec![input], node)? {
        Loaded::Table { table, report } => Ok((table, report)),
        Loaded::Program { .. } => panic!("TOML is no program"),
    }
}

/// Title, line, column and text of each problem.
fn problems(text: &str) -> Vec<(String, usize, usize, String)> {
    let problems = load(text, &NodeFlags::default()).expect_err("the text is faulty");
    let one = |p: &super::super::Diagnostic| {
        let place = p.places().next().expect("a place");
        (p.title().to_owned(), place.line(), place.column(), place.text().to_owned())
    };
    problems.iter().map(one).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal address")
}

/// The documented example, every key of which is read.
fn documented() -> String {
    let module = include_str!("../services_toml.rs");
    let lines = module.lines().skip_while(|line| *line != "//! ```toml").skip(1).take_while(|line| *line != "//! ```");
    lines.map(|line| line.strip_prefix("//!").unwrap_or("").strip_prefix(' ').unwrap_or("").to_owned() + "\n").collect()
}

#[test]
fn the_documented_example_is_read_in_full() {
    let (table, report) = load(&documented(), &NodeFlags::default()).unwrap();
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    let node = &table.node;
    assert_eq!((node.name.as_str(), &node.addresses[..]), ("gw-1", &[ip("192.0.2.1")][..]));
    assert_eq!(node.cluster_cidrs[0].to_string(), "10.0.0.0/8");
    assert_eq!(node.service_cidrs[0].to_string(), "192.168.0.0/16");
    assert_eq!(node.node_port_cidrs[0].to_string(), "192.0.2.0/24");
    let service = &table.services()[0];
    assert_eq!((service.name.as_str(), service.protocol), ("shop/web:https", Protocol::Tcp));
    assert_eq!(service.service_type, ServiceType::LoadBalancer);
    assert_eq!(
        service.frontends,
        [
            Frontend { kind: FrontendKind::ClusterIp, address: ip("192.168.5.65"), port: 443 },
            Frontend { kind: FrontendKind::NodePort, address: ip("0.0.0.0"), port: 31512 },
            Frontend { kind: FrontendKind::LoadBalancer, address: ip("10.82.0.97"), port: 443 },
            Frontend { kind: FrontendKind::ExternalIp, address: ip("198.51.100.7"), port: 443 },
        ]
    );
    assert_eq!(
        service.endpoints,
        [
            Endpoint::new(ip("10.82.0.10"), 443),
            Endpoint { weight: 2, local: true, ..Endpoint::new(ip("10.82.0.82"), 443) },
        ]
    );
    assert_eq!(service.affinity_timeout, 10_800);
    assert_eq!((service.internal_policy, service.external_policy), (Policy::Cluster, Policy::Cluster));
    assert_eq!(service.source_ranges[0].to_string(), "192.0.2.0/24");
    assert_eq!((service.choice, service.health_check_node_port), (Choice::Random, 30_000));
    assert_eq!(service.hosts, ["www.example.com"]);
}

#[test]
fn the_example_file_is_read() {
    let (table, report) = load(include_str!("../../../examples/services.toml"), &NodeFlags::default()).unwrap();
    assert!(report.warnings.is_empty());
    let names: Vec<_> = table.services().into_iter().map(|s| (s.name, s.protocol)).collect();
    let expected = [
        ("edge/dns", Protocol::Tcp),
        ("edge/dns", Protocol::Udp),
        ("edge/mqtt", Protocol::Tcp),
        ("edge/web:https", Protocol::Tcp),
    ];
    assert_eq!(names, expected.map(|(name, protocol)| (name.to_owned(), protocol)));
    let local: Vec<bool> = table.services()[2].endpoints.iter().map(|e| e.local).collect();
    assert_eq!(local, [true, false]);
}

#[test]
fn flags_win_over_the_node_section() {
    let flags = NodeFlags {
        node_name: Some("gw-2".into()),
        node_ips: vec![ip("192.0.2.2")],
        masquerade_all: true,
        ..NodeFlags::default()
    };
    let (table, _) = load(include_str!("../../../examples/services.toml"), &flags).unwrap();
    assert_eq!((table.node.name.as_str(), &table.node.addresses[..]), ("gw-2", &[ip("192.0.2.2")][..]));
    assert!(table.node.masquerade_all);
    assert_eq!(table.node.cluster_cidrs[0].to_string(), "10.0.0.0/8");
    let local: Vec<bool> = table.services()[2].endpoints.iter().map(|e| e.local).collect();
    assert_eq!(local, [false, true]);
}

#[test]
fn short_forms_mean_what_they_say() {
    let text = "[[service]]\nname = 'a'\nprotocol = 'sctp'\nport = 0x50\ncluster-ip = ['010.96.0.7', '2001:db8::7']\n\
                affinity = true\nendpoints = [{ address = '[2001:db8::1]:80', state = 'terminating' }, \
                { address = '10.0.0.1:80', state = 'not-ready', local = true, weight = 0 }]\nnode-port = 30000\n\
                [[service]]\nname = 'b'\nnode-port = 30000\nprotocol = 'udp'\nendpoints = '[2001:db8::2]:9'\naffinity = '1h30m'\n\
                [[service]]\nname = 'c'\nnode-port = 30001\naffinity = 90\n";
    let (table, _) = load(text, &NodeFlags::default()).unwrap();
    let [a, b, c] = &table.services()[..] else { panic!("three services") };
    assert_eq!((a.name.as_str(), a.protocol, a.affinity_timeout), ("default/a", Protocol::Sctp, 10_800));
    let shown = |frontends: &[Frontend]| -> Vec<String> {
        frontends.iter().map(|f| format!("{} {} {}", f.kind, f.address, f.port)).collect()
    };
    assert_eq!(
        shown(&a.frontends),
        ["cluster-ip 10.96.0.7 80", "cluster-ip 2001:db8::7 80", "node-port 0.0.0.0 30000", "node-port :: 30000"]
    );
    assert_eq!(a.endpoints[0], Endpoint { ready: false, fallback: true, ..Endpoint::new(ip("2001:db8::1"), 80) });
    let absent = Endpoint { ready: false, local: true, weight: 0, ..Endpoint::new(ip("10.0.0.1"), 80) };
    assert_eq!(a.endpoints[1], absent);
    assert_eq!((shown(&b.frontends), b.affinity_timeout), (vec!["node-port :: 30000".to_owned()], 5_400));
    assert_eq!((shown(&c.frontends), c.affinity_timeout), (vec!["node-port 0.0.0.0 30001".to_owned()], 90));
    assert_eq!(c.service_type, ServiceType::NodePort);
}

#[test]
fn all_problems_are_told_at_once_each_with_its_place() {
    let text = "[[service]]\nname = \"shop/web\"\nprotocol = \"tpc\"\nport = 70000\ncluster-ip = \"192.168.5.256\"\n\
                endpont = []\nendpoints = [\"10.0.0.1\", \"0.0.0.0:80\"]\naffinity = \"2 days\"\nsource-ranges = [\"10.0.0.1\"]\n\
                masquerade-all = 1\n\n[node]\nip = 7\n";
    let expected = [
        ("a service has no key \"endpont\"", 6, 1, "endpont"),
        ("a service has no key \"masquerade-all\"", 10, 1, "masquerade-all"),
        ("port 70000 is out of range", 4, 8, "70000"),
        ("endpoint \"10.0.0.1\": not an address with a port", 7, 14, "\"10.0.0.1\""),
        ("endpoint \"0.0.0.0:80\": the unspecified address is no destination", 7, 26, "\"0.0.0.0:80\""),
        ("source range \"10.0.0.1\": not an address prefix", 9, 18, "\"10.0.0.1\""),
        ("unknown protocol \"tpc\"", 3, 12, "\"tpc\""),
        ("affinity must be a time from 1 second to 1 day", 8, 12, "\"2 days\""),
        ("cluster-ip \"192.168.5.256\": not an IP address", 5, 14, "\"192.168.5.256\""),
        ("ip must be text", 13, 6, "7"),
    ];
    let mut found = problems(text);
    found.sort_by_key(|(title, ..)| expected.iter().position(|(e, ..)| e == title));
    let found: Vec<_> =
        found.iter().map(|(title, line, column, text)| (title.as_str(), *line, *column, text.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn each_fault_of_a_service_has_its_message() {
    let cases = [
        ("[[service]]\nport = 1\nnode-port = 2\n", "a service has no name", 1, 1),
        ("[[service]]\nname = \"we b\"\nnode-port = 2\n", "name \"we b\": not a service name", 2, 8),
        ("[[service]]\nname = \"w\"\nport = 1\n", "the service default/w has no frontend", 2, 8),
        ("[[service]]\nname = \"w\"\ncluster-ip = \"10.0.0.1\"\n", "the service default/w has no port", 2, 8),
        ("[[service]]\nname = \"w\"\nnode-port = 0\n", "node-port 0 is out of range", 3, 13),
        ("[[service]]\nname = \"w\"\nnode-port = \"80\"\n", "node-port must be a whole number", 3, 13),
        (
            "[[service]]\nname = \"w\"\nport = 1\ncluster-ip = \"127.0.0.1\"\n",
            "cluster-ip \"127.0.0.1\": a loopback address never arrives from the network",
            4,
            14,
        ),
        (
            "[[service]]\nname = \"w\"\nport = 1\ncluster-ip = \"224.0.0.1\"\n",
            "cluster-ip \"224.0.0.1\": NAT does not translate multicast or broadcast",
            4,
            14,
        ),
        (
            "[[service]]\nname = \"w\"\nport = 1\ncluster-ip = [\"10.0.0.1\", \"10.0.0.2\"]\n",
            "a service has one cluster-ip of each family",
            4,
            14,
        ),
        (
            "[[service]]\nname = \"w\"\nnode-port = 1\nendpoints = [\"10.0.0.1:1\", \"10.0.0.01:1\"]\n",
            "the endpoint 10.0.0.1:1 is listed twice",
            4,
            28,
        ),
        (
            "[[service]]\nname = \"w\"\nnode-port = 1\nendpoints = [{ weight = 3 }]\n",
            "an endpoint has no address",
            4,
            14,
        ),
        (
            "[[service]]\nname = \"w\"\nnode-port = 1\nendpoints = [{ address = \"10.0.0.1:1\", weight = 65536 }]\n",
            "weight 65536 is out of range",
            4,
            49,
        ),
        ("[[service]]\nname = \"w\"\nnode-port = 1\nhosts = [\"a b\"]\n", "host \"a b\": not a host name", 4, 10),
        (
            "[[service]]\nname = \"w\"\nnode-port = 1\naffinity = 0\n",
            "affinity must be a time from 1 second to 1 day",
            4,
            12,
        ),
        ("[service]\nname = \"w\"\n", "service must be a list", 1, 1),
        ("[[services]]\nname = \"w\"\n", "the file has no key \"services\"", 1, 3),
    ];
    for (text, title, line, column) in cases {
        let found = problems(text);
        assert_eq!((found[0].0.as_str(), found[0].1, found[0].2, found.len()), (title, line, column, 1), "{text}");
    }
}

#[test]
fn unknown_keys_are_answered_with_the_nearest() {
    let faulty = load("[[service]]\nname = \"w\"\nnodeport = 1\n", &NodeFlags::default()).expect_err("an unknown key");
    let unknown = faulty.iter().next().expect("a problem");
    assert!(unknown.way_out().starts_with("did you mean node-port? a service takes name, protocol, "), "{unknown}");
}

#[test]
fn syntax_errors_have_places_and_there_may_be_several() {
    let found = problems("[[service]]\nname = web\nport = 80\nport = 81\n");
    let places: Vec<_> = found.iter().map(|(_, line, column, _)| (*line, *column)).collect();
    assert_eq!(places, [(2, 8), (4, 1)], "{found:?}");
    assert!(found.iter().all(|(title, ..)| title.starts_with("TOML syntax: ")), "{found:?}");
}

#[test]
fn two_claims_of_one_frontend_name_both() {
    let text = "[[service]]\nname = \"a\"\nport = 80\ncluster-ip = \"10.96.0.1\"\nnode-port = 30000\n\
                [[service]]\nname = \"b\"\nport = 80\nexternal-ip = \"10.96.0.1\"\nnode-port = 30000\n\
                [[service]]\nname = \"b\"\nnode-port = 30001\n";
    let faulty = load(text, &NodeFlags::default()).expect_err("clashes");
    let found: Vec<_> = faulty
        .iter()
        .map(|p| (p.title().to_owned(), p.places().map(|place| (place.line(), place.column())).collect::<Vec<_>>()))
        .collect();
    let expected = [
        ("two services claim node port 30000/tcp (IPv4): default/a and default/b", vec![(10, 13), (5, 13)]),
        ("two services claim 10.96.0.1:80/tcp: default/a and default/b", vec![(9, 15), (4, 14)]),
        ("the service default/b (tcp) is given twice", vec![(12, 8), (7, 8)]),
    ];
    assert_eq!(found, expected.map(|(title, places)| (title.to_owned(), places)));
}

#[test]
fn what_has_no_effect_is_warned_about() {
    let (_, report) =
        load("[[service]]\nname = 'a'\nnode-port = 1\nsource-ranges = '192.0.2.0/24'\n", &NodeFlags::default())
            .unwrap();
    assert_eq!(report.warnings[0].title(), "source-ranges has no effect without load-balancer");
}
