use super::super::{Input, Loaded, NodeFlags, Problems, Report, ServiceBuf, TableBuf, load_inputs};
use natlet_core::table::{Choice, Endpoint, Frontend, FrontendKind, Policy, Protocol, ServiceType};
use std::fmt::Write as _;
use std::net::IpAddr;

mod lists;

const SERVICE: &str = include_str!("../../../examples/workshop/service.yaml");
const SLICE: &str = include_str!("../../../examples/workshop/endpointslice.yaml");

fn load_all(texts: &[&str], node: &NodeFlags) -> Result<(TableBuf, Report), Problems> {
    let input =
        |(index, text): (usize, &&str)| Input { name: format!("{index}.yaml"), bytes: (*text).into(), found: false };
    match load_inputs(texts.iter().enumerate().map(input).collect(), node)? {
        Loaded::Table { table, report } => Ok((table, report)),
        Loaded::Program { .. } => panic!("a manifest is no program"),
    }
}

fn load(text: &str) -> (TableBuf, Report) {
    load_all(&[text], &NodeFlags::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn on_node(text: &str, name: &str) -> (TableBuf, Report) {
    let flags = NodeFlags { node_name: Some(name.into()), ..NodeFlags::default() };
    load_all(&[text], &flags).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Title, line and column of each problem.
fn problems(text: &str) -> Vec<(String, usize, usize)> {
    let problems = load_all(&[text], &NodeFlags::default()).expect_err("the text is faulty");
    let one = |p: &super::super::Diagnostic| {
        let place = p.places().next().expect("a place");
        (p.title().to_owned(), place.line(), place.column())
    };
    problems.iter().map(one).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal address")
}

fn shown(service: &ServiceBuf) -> Vec<String> {
    service.frontends.iter().map(|f| format!("{} {} {}", f.kind, f.address, f.port)).collect()
}

/// A Service in one line of flow style.
fn service(name: &str, spec: &str) -> String {
    format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: ns}}\nspec: {{{spec}}}\n")
}

/// An EndpointSlice with a port p of number 80.
fn slice(name: &str, service: &str, endpoints: &str) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, namespace: ns, labels: \
         {{kubernetes.io/service-name: {service}}}}}\naddressType: IPv4\nports: [{{name: p, port: 80}}]\nendpoints: [{endpoints}]\n"
    )
}

const ONE_PORT: &str = "clusterIP: 10.96.0.1, ports: [{name: p, port: 80}]";

fn endpoints(services: &str) -> Vec<Endpoint> {
    load(services).0.services()[0].endpoints.clone()
}

#[test]
fn the_workshop_example_is_the_articles_service() {
    let (table, report) = load_all(&[SERVICE, SLICE], &NodeFlags::default()).unwrap();
    assert!(report.warnings.is_empty() && report.skipped.is_empty() && report.ignored.is_empty());
    assert_eq!(
        report.objects.iter().map(|(k, n)| (k.as_str(), *n)).collect::<Vec<_>>(),
        [("EndpointSlice", 1), ("Service", 1)]
    );
    let name = "workshop-development/ciq-ingress-workshop-development-nginx-ingress-controller";
    let expected = [("http", 80, 30512), ("https", 443, 31512)].map(|(port_name, port, node_port)| ServiceBuf {
        name: format!("{name}:{port_name}"),
        service_type: ServiceType::LoadBalancer,
        frontends: vec![
            Frontend { kind: FrontendKind::ClusterIp, address: ip("192.168.5.65"), port },
            Frontend { kind: FrontendKind::NodePort, address: ip("0.0.0.0"), port: node_port },
            Frontend { kind: FrontendKind::LoadBalancer, address: ip("10.82.0.97"), port },
        ],
        endpoints: vec![Endpoint::new(ip("10.82.0.10"), port), Endpoint::new(ip("10.82.0.82"), port)],
        ..ServiceBuf::default()
    });
    assert_eq!(table.services(), expected);
}

#[test]
fn order_of_files_and_objects_does_not_matter() {
    let a = load_all(&[SERVICE, SLICE], &NodeFlags::default()).unwrap().0;
    assert_eq!(load_all(&[SLICE, SERVICE], &NodeFlags::default()).unwrap().0, a);
    assert_eq!(load(&format!("{SLICE}---\n{SERVICE}---\n")).0, a);
}

#[test]
fn what_kubectl_prints_is_read() {
    let yaml = include_str!("testdata/kubectl.yaml");
    let json = include_str!("testdata/kubectl.json");
    let (table, report) = load(yaml);
    assert_eq!(load(json).0, table);
    assert_eq!(report.ignored.get("headless Service"), Some(&1));
    assert_eq!(
        (table.node.name.as_str(), &table.node.addresses[..]),
        ("node-a", &[ip("192.0.2.11"), ip("198.51.100.11")][..])
    );
    let services = table.services();
    let [kubernetes] = &services[..] else { panic!("{services:#?}") };
    assert_eq!(
        (kubernetes.name.as_str(), shown(kubernetes)),
        ("default/kubernetes:https", vec!["cluster-ip 10.96.0.1 443".to_owned()])
    );
    assert_eq!(kubernetes.endpoints, [Endpoint::new(ip("192.0.2.11"), 6443)]);
}

#[test]
fn typed_lists_and_other_kinds() {
    let text = "kind: ServiceList\napiVersion: v1\nitems:\n- metadata: {name: a}\n  spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n\
                ---\nkind: Deployment\napiVersion: apps/v1\n---\nkind: EndpointSlice\napiVersion: discovery.k8s.io/v1beta1\n\
                ---\nkind: Endpoints\napiVersion: v1\n---\n# nothing\n---\nnull\n";
    let (table, report) = load(text);
    assert_eq!(table.services()[0].name, "default/a");
    let skipped: Vec<_> = report.skipped.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    assert_eq!(skipped, [("Deployment", 1), ("Endpoints", 1), ("discovery.k8s.io/v1beta1 EndpointSlice", 1)]);
    assert!(report.warnings[0].title().starts_with("the input has Endpoints, which are not read"));
}

#[test]
fn services_that_kube_proxy_ignores() {
    let labelled = "---\napiVersion: v1\nkind: Service\nmetadata: {name: e, labels: {service.kubernetes.io/service-proxy-name: x}}\nspec: {}\n";
    let headless_slice = slice("s", "a", "{addresses: [10.0.0.1]}")
        .replace("labels: {", "labels: {service.kubernetes.io/headless: '', ");
    let text = [
        service("a", ONE_PORT),
        service("b", "type: ExternalName, clusterIP: 10.96.0.2, externalName: example.com, ports: [{port: 80}]"),
        service("c", "clusterIP: None, ports: [{port: 80}]"),
        service("d", "clusterIP: '', ports: [{port: 80}]"),
        labelled.to_owned(),
        headless_slice,
    ]
    .concat();
    let (table, report) = load(&text);
    assert_eq!(table.services().len(), 1);
    assert!(table.services()[0].endpoints.is_empty());
    let ignored: Vec<_> = report.ignored.keys().map(String::as_str).collect();
    let expected = [
        "ExternalName Service",
        "Service of another proxy",
        "Service without clusterIP",
        "headless EndpointSlice",
        "headless Service",
    ];
    assert_eq!(ignored, expected);
    assert_eq!(report.warnings[0].title(), "Service ns/d has no clusterIP and is left out");
}

#[test]
fn families_follow_the_cluster_ips() {
    let spec = |families: &str| {
        format!(
            "{families}, ports: [{{name: p, port: 80, nodePort: 30000}}], externalIPs: ['192.0.2.1', '2001:db8::1']"
        )
    };
    let dual = "clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::1'], ipFamilies: [IPv4, IPv6]";
    let (table, _) = load(&service("a", &spec(dual)));
    let expected = [
        "cluster-ip 10.96.0.1 80",
        "node-port 0.0.0.0 30000",
        "external-ip 192.0.2.1 80",
        "cluster-ip fd00::1 80",
        "node-port :: 30000",
        "external-ip 2001:db8::1 80",
    ];
    assert_eq!(shown(&table.services()[0]), expected);
    for single in ["clusterIP: 'fd00::1'", "clusterIP: 'fd00::1', clusterIPs: ['fd00::1'], ipFamilies: [IPv6]"] {
        let (table, _) = load(&service("a", &spec(single)));
        assert_eq!(shown(&table.services()[0]), expected[3..], "{single}");
    }
    // without ipFamilies only clusterIP counts
    let (table, report) = load(&service("a", &spec("clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::1']")));
    assert_eq!(shown(&table.services()[0]), expected[..3]);
    assert_eq!(report.warnings[0].title(), "without ipFamilies only the first ClusterIP counts");
}

#[test]
fn load_balancer_addresses_in_vip_mode_count() {
    let status = "status: {loadBalancer: {ingress: [{ip: 198.51.100.1}, {ip: 198.51.100.2, ipMode: VIP}, \
                  {ip: 198.51.100.3, ipMode: Proxy}, {hostname: lb.example.com}, {ip: ''}]}}\n";
    let spec = "type: LoadBalancer, loadBalancerIP: 198.51.100.9, clusterIP: 010.096.0.001, ports: [{port: 80}], \
                externalIPs: [198.51.100.1], loadBalancerSourceRanges: [' 203.0.113.0/025 ', '2001:db8::/32']";
    let (table, _) = load(&(service("a", spec) + status));
    let service = &table.services()[0];
    assert_eq!(
        shown(service),
        ["cluster-ip 10.96.0.1 80", "load-balancer 198.51.100.1 80", "load-balancer 198.51.100.2 80"]
    );
    assert_eq!(
        service.source_ranges.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["203.0.113.0/25", "2001:db8::/32"]
    );
}

#[test]
fn policies_affinity_and_health_checks_count_where_they_should() {
    let read = |spec: &str| {
        on_node(&service("a", &format!("clusterIP: 10.96.0.1, ports: [{{port: 80}}], {spec}")), "n")
            .0
            .services()
            .remove(0)
    };
    let local = "externalTrafficPolicy: Local";
    assert_eq!(read(&format!("type: NodePort, {local}")).external_policy, Policy::Local);
    assert_eq!(read(&format!("type: LoadBalancer, {local}")).external_policy, Policy::Local);
    assert_eq!(read(local).external_policy, Policy::Cluster);
    assert_eq!(read(&format!("externalIPs: [192.0.2.1], {local}")).external_policy, Policy::Local);
    assert_eq!(read("internalTrafficPolicy: Local").internal_policy, Policy::Local);

    assert_eq!(
        read(&format!("type: LoadBalancer, {local}, healthCheckNodePort: 30001")).health_check_node_port,
        30_001
    );
    assert_eq!(read("type: LoadBalancer, healthCheckNodePort: 30001").health_check_node_port, 0);
    assert_eq!(read(&format!("type: NodePort, {local}, healthCheckNodePort: 30001")).health_check_node_port, 0);

    assert_eq!(read("sessionAffinity: None").affinity_timeout, 0);
    assert_eq!(read("sessionAffinity: ClientIP").affinity_timeout, 10_800);
    let timeout = "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 100}}";
    assert_eq!(read(timeout).affinity_timeout, 100);
}

#[test]
fn ports_join_by_name_and_protocol() {
    let spec = "clusterIP: 10.96.0.1, ports: [{name: a, port: 80}, {name: b, port: 53, protocol: UDP}, {port: 53}]";
    let slice = "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, namespace: ns, labels: \
                 {kubernetes.io/service-name: x}}\naddressType: IPv4\nports: [{name: a, port: 8080}, {name: a, port: 8081, protocol: UDP}, \
                 {name: b, port: 5353, protocol: UDP}, {name: null, port: 1}, {name: a}, {name: a, port: 0}, {port: 9}]\n\
                 endpoints: [{addresses: [10.0.0.1, 10.0.0.2]}]\n";
    let (table, _) = load(&(service("x", spec) + slice));
    let found: Vec<_> = table.services().into_iter().map(|s| (s.name, s.protocol, s.endpoints)).collect();
    let one = |port| vec![Endpoint::new(ip("10.0.0.1"), port)];
    let expected = [
        ("ns/x".to_owned(), Protocol::Tcp, one(9)),
        ("ns/x:a".to_owned(), Protocol::Tcp, one(8080)),
        ("ns/x:b".to_owned(), Protocol::Udp, one(5353)),
    ];
    assert_eq!(found, expected);
}

#[test]
fn conditions_have_their_defaults() {
    let list = "{addresses: [10.0.0.1]}, {addresses: [10.0.0.2], conditions: {ready: false, serving: true, terminating: true}}, \
                {addresses: [10.0.0.3], conditions: {ready: false}}, {addresses: [10.0.0.4], conditions: {ready: true, terminating: true}}, \
                {addresses: [10.0.0.5], conditions: {ready: false, serving: false, terminating: true}}";
    let found: Vec<_> =
        endpoints(&(service("a", ONE_PORT) + &slice("s", "a", list))).iter().map(|e| (e.ready, e.fallback)).collect();
    assert_eq!(found, [(true, false), (false, true), (false, false), (true, true), (false, false)]);
}

#[test]
fn endpoints_count_once_and_a_local_entry_wins() {
    let text = service("a", ONE_PORT)
        + &slice("s1", "a", "{addresses: [10.1.1.1], nodeName: other}, {addresses: [10.1.1.11], nodeName: here}")
        + &slice(
            "s2",
            "a",
            "{addresses: [10.1.1.01], nodeName: here}, {addresses: [10.1.1.11], nodeName: other}, {addresses: [10.1.1.2]}",
        );
    let (table, _) = on_node(&text, "here");
    let found: Vec<_> = table.services()[0].endpoints.iter().map(|e| (e.address.to_string(), e.local)).collect();
    let expected = [("10.1.1.11", true), ("10.1.1.1", true), ("10.1.1.2", false)];
    let sorted: Vec<_> = expected.iter().map(|(a, l)| ((*a).to_owned(), *l)).collect();
    assert_eq!(found, sorted);
    assert!(load(&text).0.services()[0].endpoints.iter().all(|e| !e.local));
}

#[test]
fn topology_hints() {
    const NODE: &str =
        "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/zone: z1}}\n";
    let hinted = |list: &str| -> Vec<bool> {
        let text = NODE.to_owned() + &service("a", ONE_PORT) + &slice("s", "a", list);
        load(&text).0.services()[0].endpoints.iter().map(|e| e.hinted).collect()
    };
    let zone = |n: u8, zone: &str| format!("{{addresses: [10.0.0.{n}], hints: {{forZones: [{{name: {zone}}}]}}}}");
    assert_eq!(hinted(&[zone(1, "z1"), zone(2, "z2")].join(",")), [true, false]);
    assert_eq!(hinted(&[zone(1, "z3"), zone(2, "z2")].join(",")), [true, true]);
    assert_eq!(hinted(&[zone(1, "z1"), zone(2, "z2"), "{addresses: [10.0.0.3]}".into()].join(",")), [true; 3]);
    // one that is not ready has no say, and is not filtered
    let absent = "{addresses: [10.0.0.3], conditions: {ready: false}}".to_owned();
    assert_eq!(hinted(&[zone(1, "z1"), zone(2, "z2"), absent].join(",")), [true, false, true]);
    // nodes come before zones
    let both = |n: u8, zone: &str, node: &str| {
        format!("{{addresses: [10.0.0.{n}], hints: {{forZones: [{{name: {zone}}}], forNodes: [{{name: {node}}}]}}}}")
    };
    assert_eq!(hinted(&[both(1, "z1", "n2"), both(2, "z1", "n1")].join(",")), [false, true]);
    assert_eq!(hinted(&[both(1, "z1", "n2"), both(2, "z2", "n3")].join(",")), [true, false]);
}

#[test]
fn several_nodes_need_a_name() {
    let node = |name: &str, address: &str| {
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{podCIDR: 10.1.0.0/24}}\nstatus: {{addresses: \
                 [{{type: Hostname, address: {name}}}, {{type: InternalIP, address: {address}}}]}}\n"
        )
    };
    let text = node("n1", "192.0.2.1") + &node("n2", "192.0.2.2");
    let (table, report) = load(&text);
    assert_eq!((table.node.name.as_str(), table.node.addresses.len()), ("", 0));
    assert_eq!(report.warnings[0].title(), "the input has 2 Nodes and none is chosen: no endpoint counts as local");
    let (table, report) = on_node(&text, "n2");
    assert_eq!((table.node.name.as_str(), &table.node.addresses[..]), ("n2", &[ip("192.0.2.2")][..]));
    assert!(report.warnings.is_empty() && table.node.cluster_cidrs.is_empty());
    let (table, report) = on_node(&text, "n3");
    assert_eq!((table.node.name.as_str(), table.node.addresses.len(), report.warnings.len()), ("n3", 0, 1));
}

#[test]
fn ingress_hosts_ride_on_services() {
    let controller = service(
        "controller",
        "type: LoadBalancer, clusterIP: 10.96.0.9, ports: [{name: https, port: 443}, {name: dns, port: 53, protocol: UDP}]",
    ) + "status: {loadBalancer: {ingress: [{ip: 198.51.100.9}]}}\n";
    let ingress = "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: i, namespace: ns}\nspec:\n  rules:\n\
                   \x20 - host: www.example.com\n    http: {paths: [{path: /, backend: {service: {name: a, port: {name: p}}}}, \
                   {path: /x, backend: {service: {name: a, port: {number: 80}}}}, {path: /y, backend: {resource: {kind: Bucket}}}]}\n\
                   \x20 - host: api.example.com\n    http: {paths: [{backend: {service: {name: a, port: {number: 80}}}}]}\n\
                   \x20 - host: no.example.com\n    http: {paths: [{backend: {service: {name: a, port: {number: 81}}}}]}\n\
                   status: {loadBalancer: {ingress: [{ip: 198.51.100.9}]}}\n";
    let (table, _) = load(&(controller + &service("a", ONE_PORT) + ingress));
    let hosts: Vec<_> = table.services().into_iter().map(|s| (s.name, s.hosts.join(","))).collect();
    let expected = [
        ("ns/a:p", "api.example.com,www.example.com"),
        ("ns/controller:dns", ""),
        ("ns/controller:https", "api.example.com,no.example.com,www.example.com"),
    ];
    assert_eq!(hosts, expected.map(|(name, hosts)| (name.to_owned(), hosts.to_owned())));
}

#[test]
fn natlets_annotations() {
    let service =
        service("a", ONE_PORT).replace("namespace: ns", "namespace: ns, annotations: {natlet.dev/choice: source-hash}");
    let slice = slice("s", "a", "{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}")
        .replace("namespace: ns", "namespace: ns, annotations: {natlet.dev/weights: '10.0.0.1=3, 10.0.0.9=7'}");
    let (table, _) = load(&(service.clone() + &slice));
    let found = &table.services()[0];
    assert_eq!(found.choice, Choice::SourceHash);
    assert_eq!(found.endpoints.iter().map(|e| e.weight).collect::<Vec<_>>(), [3, 1]);
    let faulty = service.replace("source-hash", "source_hash") + &slice.replace("=3,", "=x,");
    let expected = [
        ("unknown natlet.dev/choice \"source_hash\"", 4),
        ("natlet.dev/weights: \"10.0.0.1=x\" is no address=weight", 9),
    ];
    assert_eq!(problems(&faulty).iter().map(|(t, l, _)| (t.as_str(), *l)).collect::<Vec<_>>(), expected);
}

#[test]
fn each_fault_has_its_message_and_place() {
    let cases = [
        ("a: 1\n", "a document without apiVersion and kind is no Kubernetes object", 1, 1),
        ("kind: Service\napiVersion: v1\n", "Service has no metadata", 1, 1),
        ("kind: Service\napiVersion: v1\nmetadata: {namespace: x}\n", "Service has no name", 3, 11),
        ("kind: Service\napiVersion: v1\nmetadata: {name: x}\n", "Service x has no spec", 1, 1),
        ("kind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: []\n", "spec must be a map", 4, 7),
        (
            "kind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: {clusterIP: 10.0.0.1}\n",
            "Service x has no ports",
            4,
            7,
        ),
        (
            "kind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: {clusterIP: 10.0.0.1, ports: [{}]}\n",
            "a service port has no port",
            4,
            37,
        ),
        (
            "kind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: {clusterIP: 10.0.0.1, ports: [{port: '80'}]}\n",
            "port must be a whole number",
            4,
            44,
        ),
        (
            "kind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: {clusterIP: 10.0.0.1, ports: [{port: 65536}]}\n",
            "port 65536 is out of range",
            4,
            44,
        ),
        (
            "kind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: {clusterIP: 10.0.0.1, ports: [{port: 80, protocol: tcp}]}\n",
            "unknown protocol \"tcp\"",
            4,
            58,
        ),
        (
            "kind: Service\napiVersion: v1\nmetadata: {name: 'x y'}\nspec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}\n",
            "service name \"default/x y\": not a service name",
            4,
            37,
        ),
        (
            "kind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: {clusterIP: 10.0.0, ports: [{port: 80}]}\n",
            "ClusterIP \"10.0.0\": not an IP address",
            4,
            19,
        ),
        (
            "kind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: {clusterIP: 127.0.0.1, ports: [{port: 80}]}\n",
            "ClusterIP \"127.0.0.1\": a loopback address never arrives from the network",
            4,
            19,
        ),
        (
            "kind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: {clusterIPs: ['fd00::1'], ipFamilies: [IPv4], ports: [{port: 80}]}\n",
            "ClusterIP fd00::1 is not of the family that ipFamilies says",
            4,
            21,
        ),
        (
            "kind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: {clusterIP: 10.0.0.1, type: NodePorts, ports: [{port: 80}]}\n",
            "unknown type \"NodePorts\"",
            4,
            35,
        ),
        (
            "kind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: {clusterIP: 10.0.0.1, externalIPs: [1.2.3], ports: [{port: 80}]}\n",
            "external IP \"1.2.3\": not an IP address",
            4,
            43,
        ),
        (
            "kind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: {clusterIP: 10.0.0.1, loadBalancerSourceRanges: [1.2.3.4], ports: [{port: 80}]}\n",
            "source range \"1.2.3.4\": not an address prefix",
            4,
            56,
        ),
        (
            "kind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: {clusterIP: 10.0.0.1, sessionAffinity: clientIP, ports: [{port: 80}]}\n",
            "unknown sessionAffinity \"clientIP\"",
            4,
            46,
        ),
        (
            "kind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: {clusterIP: 10.0.0.1, ports: [{port: 80}, {port: 80, nodePort: 8}]}\n",
            "the service default/x (tcp) is given twice",
            4,
            56,
        ),
        (
            "kind: EndpointSlice\napiVersion: discovery.k8s.io/v1\nmetadata: {name: x, labels: {kubernetes.io/service-name: y}}\n",
            "EndpointSlice x has no addressType",
            1,
            1,
        ),
        (
            "kind: EndpointSlice\napiVersion: discovery.k8s.io/v1\nmetadata: {name: x, labels: {kubernetes.io/service-name: y}}\naddressType: IPv6\nendpoints:\n- addresses: [10.0.0.1]\n",
            "endpoint 10.0.0.1 is not of the slice's addressType",
            6,
            15,
        ),
        (
            "kind: EndpointSlice\napiVersion: discovery.k8s.io/v1\nmetadata: {name: x, labels: {kubernetes.io/service-name: y}}\naddressType: IPv4\nendpoints:\n- addresses: []\n",
            "an endpoint has no addresses",
            6,
            3,
        ),
        (
            "kind: EndpointSlice\napiVersion: discovery.k8s.io/v1\nmetadata: {name: x, labels: {kubernetes.io/service-name: y}}\naddressType: IPv4\nendpoints:\n- addresses: [224.0.0.1]\n",
            "endpoint \"224.0.0.1\": NAT does not translate multicast or broadcast",
            6,
            15,
        ),
        (
            "kind: EndpointSlice\napiVersion: discovery.k8s.io/v1\nmetadata: {name: x, labels: {kubernetes.io/service-name: y}}\naddressType: IPv4\nendpoints:\n- addresses: [10.0.0.1]\n  conditions: {ready: yes}\n",
            "ready must be true or false",
            7,
            23,
        ),
    ];
    for (text, title, line, column) in cases {
        let found = problems(text);
        assert_eq!(found[0], (title.to_owned(), line, column), "{text}");
        assert_eq!(found.len(), 1, "{found:?}\n{text}");
    }
}

#[test]
fn all_problems_of_all_files_are_told_at_once() {
    let first = service("a", "clusterIP: 10.96.0.256, ports: [{port: 0}, {port: 1, protocol: X}]");
    let second = slice("s", "a", "{addresses: [1.2.3]}, {addresses: [10.0.0.1], conditions: {ready: 7}}");
    let problems = load_all(&[&first, &second], &NodeFlags::default()).expect_err("faults in both");
    let found: Vec<_> = problems.iter().map(|p| p.places().next().expect("a place").to_string()).collect();
    assert_eq!(found, ["0.yaml:5:19", "0.yaml:5:47", "0.yaml:5:71", "1.yaml:7:26", "1.yaml:7:79"]);
}

#[test]
fn two_services_with_one_frontend_are_a_problem_that_names_both() {
    let text = service("a", "clusterIP: 10.96.0.1, ports: [{port: 80, nodePort: 30000}]")
        + &service("b", "clusterIP: 10.96.0.2, ports: [{port: 81, nodePort: 30000}], externalIPs: [10.96.0.1]")
        + &service("c", "clusterIP: 10.96.0.1, ports: [{port: 80, protocol: UDP}, {name: x, port: 80}]")
        + &service("c", "clusterIP: 10.96.0.3, ports: [{port: 80}]");
    let expected = [
        ("Service ns/c is given twice", 19, 18),
        ("two services claim node port 30000/tcp (IPv4): ns/a and ns/b", 10, 59),
        ("two services claim 10.96.0.1:80/tcp: ns/a and ns/c:x", 15, 19),
    ];
    assert_eq!(problems(&text), expected.map(|(title, line, column)| (title.to_owned(), line, column)));
}

#[test]
fn a_problem_shows_the_way_out() {
    let text = service("a", "clusterIP: 10.96.0.1, ports: [{port: 80, protocol: TCPP}]");
    let problems = load_all(&[&text], &NodeFlags::default()).expect_err("a fault");
    assert_eq!(
        problems.to_string(),
        "error: unknown protocol \"TCPP\"\n --> 0.yaml:5:59\n  |\n5 | spec: {clusterIP: 10.96.0.1, ports: [{port: 80, protocol: TCPP}]}\n  \
         |                                                           ^^^^\n  |\n  = help: did you mean TCP? It is one of TCP, UDP, SCTP"
    );
}

#[test]
fn ten_thousand_services_are_read() {
    let mut text = String::new();
    for n in 0..10_000 {
        let (a, b) = (n / 250, n % 250);
        let one = service(&format!("s{n}"), &format!("clusterIP: 10.96.{a}.{b}, ports: [{{name: p, port: 80}}]"));
        let list: Vec<_> = (1..=5).map(|e| format!("{{addresses: [10.{e}.{a}.{b}]}}")).collect();
        let _ = write!(text, "{one}{}", slice(&format!("s{n}-1"), &format!("s{n}"), &list.join(", ")));
    }
    let (table, _) = load(&text);
    let table = table.as_table();
    assert_eq!((table.services.len(), table.endpoints.len()), (10_000, 50_000));
}
