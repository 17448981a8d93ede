use super::super::{Input, Loaded, NodeFlags, Problems, Report, ServiceBuf, TableBuf, load_inputs};
use natlet_core::table::{Endpoint, Frontend, FrontendKind, Policy, Protocol, ServiceType};
use std::net::IpAddr;

fn load(texts: &[&str]) -> Result<(TableBuf, Report), Problems> {
    let input = |text: &&str| Input { name: "listing".into(), bytes: (*text).into(), found: false };
    match load_inputs(texts.iter().map(input).collect(), &NodeFlags::default())? {
        Loaded::Table { table, report } => Ok((table, report)),
        Loaded::Program { .. } => panic!("a listing is no program"),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal address")
}

fn shown(service: &ServiceBuf) -> Vec<String> {
    service.frontends.iter().map(|f| format!("{} {} {}", f.kind, f.address, f.port)).collect()
}

/// An old listing as a post shows it: prose, prompts, and the rules that `grep` found, some of them twice.
const PROSE: &str = include_str!("testdata/prose.txt");

/// kube-proxy's rules since Kubernetes 1.24.
const MODERN: &str = include_str!("testdata/modern.txt");

#[test]
fn rules_are_found_inside_prose() {
    let (table, report) = load(&[PROSE]).unwrap();
    let services = table.services();
    assert_eq!(services.len(), 1);
    let name = "workshop-development/ciq-ingress-workshop-development-nginx-ingress-controller:https";
    let expected = ServiceBuf {
        name: name.into(),
        service_type: ServiceType::LoadBalancer,
        frontends: vec![
            Frontend { kind: FrontendKind::ClusterIp, address: ip("192.168.5.65"), port: 443 },
            Frontend { kind: FrontendKind::NodePort, address: ip("0.0.0.0"), port: 31512 },
            Frontend { kind: FrontendKind::LoadBalancer, address: ip("10.82.0.97"), port: 443 },
        ],
        endpoints: vec![Endpoint::new(ip("10.82.0.10"), 443), Endpoint::new(ip("10.82.0.82"), 443)],
        ..ServiceBuf::default()
    };
    assert_eq!(services[0], expected);
    assert!(table.node.cluster_cidrs.is_empty() && !table.node.masquerade_all);
    assert_eq!(report.skipped_lines, 5);
    assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
    let warning = &report.warnings[0];
    assert_eq!(warning.title(), "the listing lacks the chain KUBE-FW-SXB4UOYSLPHVISJM: this frontend is left out");
    let place = warning.places().next().expect("a place");
    assert_eq!((place.line(), place.column()), (13, 1));
    assert!(place.text().starts_with("-A KUBE-SERVICES -d 10.82.0.97/32"));
}

#[test]
fn modern_rules_are_read_back() {
    let (table, report) = load(&[MODERN]).unwrap();
    assert!(report.warnings.is_empty(), "{}", super::super::render_all(&report.warnings, false));
    assert_eq!(report.skipped_lines, 0);
    assert_eq!(table.node.cluster_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8"]);
    let services = table.services();
    let [svc1, svc2, svc3, svc5, svc6, svc7] = &services[..] else { panic!("{services:#?}") };

    assert_eq!((svc1.name.as_str(), svc1.service_type), ("ns1/svc1:p80", ServiceType::ClusterIp));
    assert_eq!(shown(svc1), ["cluster-ip 172.30.0.41 80"]);
    assert_eq!(svc1.endpoints, [Endpoint::new(ip("10.180.0.1"), 80)]);

    // externalTrafficPolicy: Local with one local endpoint of two
    assert_eq!(svc2.external_policy, Policy::Local);
    assert_eq!(svc2.internal_policy, Policy::Cluster);
    assert_eq!(
        shown(svc2),
        [
            "cluster-ip 172.30.0.42 80",
            "node-port 0.0.0.0 3001",
            "load-balancer 198.51.100.4 80",
            "external-ip 192.0.2.22 80"
        ]
    );
    let local = Endpoint { local: true, ..Endpoint::new(ip("10.180.0.3"), 80) };
    assert_eq!(svc2.endpoints, [Endpoint::new(ip("10.180.0.2"), 80), local]);
    assert_eq!(svc2.health_check_node_port, 30_000);

    // the local list alone: internalTrafficPolicy: Local
    assert_eq!((svc3.name.as_str(), svc3.internal_policy), ("ns3/svc3", Policy::Local));
    assert_eq!(svc3.endpoints, [Endpoint { local: true, ..Endpoint::new(ip("10.180.0.6"), 53) }]);
    assert_eq!(svc3.protocol, Protocol::Udp);

    // source ranges and affinity
    assert_eq!(svc5.source_ranges.iter().map(ToString::to_string).collect::<Vec<_>>(), ["203.0.113.0/25"]);
    assert_eq!(svc5.affinity_timeout, 10_800);
    assert_eq!(shown(svc5), ["cluster-ip 172.30.0.45 80", "node-port 0.0.0.0 3002", "load-balancer 203.0.113.200 80"]);
    assert_eq!(svc5.endpoints.len(), 2);

    // without endpoints: REJECT lines are all there is
    assert_eq!((svc6.name.as_str(), svc6.endpoints.len()), ("ns6/svc6:p80", 0));
    assert_eq!(shown(svc6), ["cluster-ip 172.30.0.46 80", "node-port 0.0.0.0 3003", "external-ip 192.0.2.23 80"]);

    // three to one
    assert_eq!(svc7.endpoints.iter().map(|e| e.weight).collect::<Vec<_>>(), [3, 1]);
}

#[test]
fn counters_make_no_difference() {
    let counted: String = MODERN
        .lines()
        .map(|line| if line.starts_with("-A") { format!("[12:3456] {line}\n") } else { format!("{line}\n") })
        .collect();
    assert_eq!(load(&[&counted]).unwrap().0, load(&[MODERN]).unwrap().0);
}

const SIX: &str = "# Generated by ip6tables-save v1.8.9 on Mon Jan  1 00:00:00 2024\n*nat\n\
    -A KUBE-NODEPORTS -p tcp -m comment --comment ns1/svc1:p80 -m tcp --dport 3009 -j KUBE-EXT-XPGD46QRK7WJZT7O\n\
    -A KUBE-SERVICES -d 2001:db8:1::41/128 -p tcp -m comment --comment \"ns1/svc1:p80 cluster IP\" -m tcp --dport 80 -j KUBE-SVC-XPGD46QRK7WJZT7O\n\
    -A KUBE-EXT-XPGD46QRK7WJZT7O -j KUBE-SVC-XPGD46QRK7WJZT7O\n\
    -A KUBE-SVC-XPGD46QRK7WJZT7O -m comment --comment \"ns1/svc1:p80 -> [2001:db8::1]:80\" -j KUBE-SEP-SIXSIXSIXSIXSIXS\n\
    -A KUBE-SEP-SIXSIXSIXSIXSIXS -p tcp -m tcp -j DNAT --to-destination [2001:db8::1]:80\nCOMMIT\n";

#[test]
fn both_families_make_one_service() {
    let joined = format!("{MODERN}{SIX}");
    for texts in [&[MODERN, SIX][..], &[joined.as_str()][..]] {
        let (table, report) = load(texts).unwrap();
        assert!(report.warnings.is_empty());
        let service = &table.services()[0];
        assert_eq!(shown(service), ["cluster-ip 172.30.0.41 80", "cluster-ip 2001:db8:1::41 80", "node-port :: 3009"]);
        assert_eq!(service.endpoints, [Endpoint::new(ip("10.180.0.1"), 80), Endpoint::new(ip("2001:db8::1"), 80)]);
    }
}

#[test]
fn the_same_listing_twice_is_a_problem() {
    let problems = load(&[SIX, SIX]).expect_err("each service twice");
    assert_eq!(problems.iter().next().expect("one").title(), "the service ns1/svc1:p80 (tcp) is given twice");
}

#[test]
fn endpoints_are_read_from_comments_where_their_chain_is_missing() {
    let lines: Vec<&str> = SIX.lines().filter(|line| !line.starts_with("-A KUBE-SEP")).collect();
    let text = lines.join("\n");
    let (table, _) = load(&[&text]).unwrap();
    assert_eq!(table.services()[0].endpoints, [Endpoint::new(ip("2001:db8::1"), 80)]);
}

#[test]
fn the_old_local_policy_is_read() {
    let text = "-A KUBE-SERVICES -d 198.51.100.4/32 -p tcp -m comment --comment \"a/b:c loadbalancer IP\" -m tcp --dport 80 -j KUBE-FW-AAAA\n\
        -A KUBE-NODEPORTS -s 127.0.0.0/8 -p tcp -m comment --comment a/b:c -m tcp --dport 3001 -j KUBE-MARK-MASQ\n\
        -A KUBE-NODEPORTS -p tcp -m comment --comment a/b:c -m tcp --dport 3001 -j KUBE-XLB-AAAA\n\
        -A KUBE-SERVICES ! -s 10.0.0.0/8 -d 10.96.0.9/32 -p tcp -m comment --comment \"a/b:c cluster IP\" -m tcp --dport 80 -j KUBE-MARK-MASQ\n\
        -A KUBE-SERVICES -d 10.96.0.9/32 -p tcp -m comment --comment \"a/b:c cluster IP\" -m tcp --dport 80 -j KUBE-SVC-AAAA\n\
        -A KUBE-FW-AAAA -s 203.0.113.0/24 -m comment --comment \"a/b:c loadbalancer IP\" -j KUBE-XLB-AAAA\n\
        -A KUBE-FW-AAAA -m comment --comment \"a/b:c loadbalancer IP\" -j KUBE-MARK-DROP\n\
        -A KUBE-XLB-AAAA -s 10.0.0.0/8 -m comment --comment \"Redirect pods trying to reach external loadbalancer VIP to clusterIP\" -j KUBE-SVC-AAAA\n\
        -A KUBE-XLB-AAAA -m comment --comment \"masquerade LOCAL traffic for a/b:c LB IP\" -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ\n\
        -A KUBE-XLB-AAAA -m comment --comment \"route LOCAL traffic for a/b:c LB IP to service chain\" -m addrtype --src-type LOCAL -j KUBE-SVC-AAAA\n\
        -A KUBE-XLB-AAAA -m comment --comment \"Balancing rule 0 for a/b:c\" -j KUBE-SEP-BBBB\n\
        -A KUBE-SVC-AAAA -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-BBBB\n\
        -A KUBE-SVC-AAAA -j KUBE-SEP-CCCC\n\
        -A KUBE-SEP-BBBB -p tcp -m tcp -j DNAT --to-destination 10.0.0.1:80\n\
        -A KUBE-SEP-CCCC -p tcp -m tcp -j DNAT --to-destination 10.0.0.2:80\n";
    let (table, report) = load(&[text]).unwrap();
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    let service = &table.services()[0];
    assert_eq!((service.internal_policy, service.external_policy), (Policy::Cluster, Policy::Local));
    assert_eq!(
        service.endpoints,
        [Endpoint { local: true, ..Endpoint::new(ip("10.0.0.1"), 80) }, Endpoint::new(ip("10.0.0.2"), 80)]
    );
    assert_eq!(service.source_ranges[0].to_string(), "203.0.113.0/24");
    assert_eq!(table.node.cluster_cidrs[0].to_string(), "10.0.0.0/8");
}

#[test]
fn what_is_not_understood_is_told_by_line() {
    let text = "*nat\n\
        -A KUBE-SERVICES -d 10.96.0.300/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-AAAA\n\
        -A KUBE-SERVICES -d 10.96.0.3/32 -p tcp --sport 80 -j KUBE-SVC-AAAA\n\
        -A KUBE-SERVICES -d 10.96.0.4/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-AAAA\n\
        -A KUBE-ROUTER-X -j ACCEPT\n\
        -A KUBE-SERVICES -d 10.96.0.5/32 -p tcp -m tcp --dport 80 -j MARS\n\
        -A KUBE-SVC-AAAA -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-AAAA\n\
        -A KUBE-SVC-AAAA -j KUBE-SEP-CCCC\n\
        -A KUBE-SEP-AAAA -p tcp -j DNAT --to-destination 10.0.0.1:80\n";
    let (table, report) = load(&[text]).unwrap();
    let told: Vec<_> =
        report.warnings.iter().map(|w| (w.places().next().expect("a place").line(), w.title())).collect();
    let expected = [
        (5, "the chain KUBE-ROUTER-X is not one of kube-proxy's: its rules are left out"),
        (2, "a rule of KUBE-SERVICES is left out: 10.96.0.300/32 is no address"),
        (3, "a rule of KUBE-SERVICES is left out: \"--sport\" is not known from kube-proxy's rules"),
        (4, "no comment names this service: it is called unnamed/aaaa"),
        (6, "a rule is left out: it leads to \"MARS\""),
        (8, "the listing lacks the chain KUBE-SEP-CCCC: this endpoint is left out"),
    ];
    assert_eq!(told, expected);
    assert_eq!(table.services()[0].endpoints, [Endpoint::new(ip("10.0.0.1"), 80)]);
}

#[test]
fn probabilities_that_are_no_shares_are_a_problem() {
    let text = "-A KUBE-SERVICES -d 10.96.0.4/32 -p tcp -m comment --comment \"a/b cluster IP\" -m tcp --dport 80 -j KUBE-SVC-AAAA\n\
        -A KUBE-SVC-AAAA -m statistic --mode random --probability 0.30000000000 -j KUBE-SEP-AAAA\n\
        -A KUBE-SEP-AAAA -p tcp -j DNAT --to-destination 10.0.0.1:80\n";
    let problems = load(&[text]).expect_err("the last rule is missing");
    let problem = problems.iter().next().expect("one");
    assert_eq!(problem.title(), "the probabilities of KUBE-SVC-AAAA are no ratio of whole numbers up to 65535");
    assert_eq!(problem.places().next().expect("a place").line(), 2);
}

#[test]
fn chains_that_lead_in_a_circle_end() {
    let text = "-A KUBE-SERVICES -d 10.96.0.4/32 -p tcp -m comment --comment \"a/b cluster IP\" -m tcp --dport 80 -j KUBE-FW-A\n\
        -A KUBE-FW-A -j KUBE-EXT-A\n-A KUBE-EXT-A -j KUBE-XLB-A\n-A KUBE-XLB-A -j KUBE-EXT-A\n-A KUBE-FW-A -j KUBE-FW-A\n";
    let (table, _) = load(&[text]).unwrap();
    assert_eq!(table.services().len(), 1);
}
