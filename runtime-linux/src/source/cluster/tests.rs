//! Objects as an API server sends them, and what becomes of them.

use super::super::ServiceBuf;
use super::*;
use std::fmt::Write as _;
use std::sync::LazyLock;

/// One reader a kind, as the agent has.
static READERS: LazyLock<[Reader; 4]> = LazyLock::new(|| Kind::ALL.map(Reader::new));

const FLAGS: fn() -> NodeFlags = || NodeFlags { node_name: Some("edge-7".into()), ..NodeFlags::default() };

fn service(name: &str, version: u32, created: &str, spec: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"shop","resourceVersion":"{version}","creationTimestamp":"{created}",
        "managedFields":[{{"x":1}}]}},"spec":{{{spec}}}}}"#
    )
}

fn web(name: &str, version: u32, ip: &str) -> String {
    let spec = format!(r#""clusterIP":"{ip}","ports":[{{"name":"http","port":80,"protocol":"TCP"}}]"#);
    service(name, version, "2024-01-01T00:00:00Z", &spec)
}

fn slice(name: &str, service: &str, version: u32, address: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"shop","resourceVersion":"{version}","labels":
        {{"kubernetes.io/service-name":"{service}"}},"annotations":
        {{"endpoints.kubernetes.io/last-change-trigger-time":"2024-05-06T07:08:09.123456789Z"}}}},"addressType":"IPv4",
        "ports":[{{"name":"http","port":8080,"protocol":"TCP"}}],
        "endpoints":[{{"addresses":["{address}"],"nodeName":"edge-7","conditions":{{"ready":true}}}}]}}"#
    )
}

fn node(version: u32, cidrs: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"edge-7","resourceVersion":"{version}"}},"spec":{{"podCIDRs":[{cidrs}]}},
        "status":{{"addresses":[{{"type":"InternalIP","address":"192.0.2.1"}}]}}}}"#
    )
}

fn page(kind: Kind, items: &[String]) -> String {
    format!(
        r#"{{"kind":"{}List","apiVersion":"v1","metadata":{{"resourceVersion":"100"}},"items":[{}]}}"#,
        kind.name(),
        items.join(",")
    )
}

fn fill(cluster: &mut Cluster, kind: Kind, items: &[String]) {
    let page = READERS[kind as usize].page(&page(kind, items)).expect("a page");
    let mut list = List::default();
    list.add(page.objects);
    cluster.replace(kind, list, &page.version);
}

fn cluster(services: &[String], slices: &[String]) -> Cluster {
    let mut cluster = Cluster::default();
    fill(&mut cluster, Kind::Service, services);
    fill(&mut cluster, Kind::EndpointSlice, slices);
    fill(&mut cluster, Kind::Node, &[node(9, "\"10.244.7.0/24\"")]);
    fill(&mut cluster, Kind::ServiceCidr, &[]);
    cluster
}

fn object(kind: Kind, text: &str) -> Object {
    let event = format!(r#"{{"type":"MODIFIED","object":{text}}}"#);
    match READERS[kind as usize].event(&event) {
        Some(Event::Set(object)) => object,
        other => panic!("{other:?}"),
    }
}

fn services(cluster: &Cluster) -> (Vec<ServiceBuf>, Vec<String>) {
    let (table, remarks) = cluster.table(&FLAGS(), Pods::ClusterCidr).expect("everything is listed");
    (table.services(), remarks)
}

#[test]
fn there_is_no_table_before_the_last_first_list() {
    let mut cluster = Cluster::default();
    for (done, kind) in Kind::ALL.into_iter().enumerate() {
        assert_eq!(cluster.table(&FLAGS(), Pods::ClusterCidr).err(), Some(NotYet::List(Kind::ALL[done])));
        fill(&mut cluster, kind, &[]);
    }
    assert!(cluster.table(&FLAGS(), Pods::ClusterCidr).is_ok());
}

#[test]
fn objects_make_the_table_that_manifests_make() {
    let (service, slice) = (web("web", 5, "10.96.0.7"), slice("web-1", "web", 6, "10.244.7.9"));
    let (services, remarks) = services(&cluster(std::slice::from_ref(&service), std::slice::from_ref(&slice)));
    assert!(remarks.is_empty(), "{remarks:?}");
    let mut text = String::from(r#"{"apiVersion":"v1","kind":"List","items":["#);
    for (kind, object) in
        [("v1\",\"kind\":\"Service", &service), ("discovery.k8s.io/v1\",\"kind\":\"EndpointSlice", &slice)]
    {
        let _ = write!(text, r#"{{"apiVersion":"{kind}",{},"#, &object[1..object.len() - 1]);
        text = format!("{}}},", text.trim_end_matches(','));
    }
    let text = format!("{}]}}", text.trim_end_matches(','));
    let input = super::super::Input { name: "x".into(), bytes: text.into(), found: false };
    let Ok(super::super::Loaded::Table { table, .. }) = super::super::load_inputs(vec![input], &FLAGS()) else {
        panic!()
    };
    assert_eq!(services, table.services());
    assert!(services[0].endpoints[0].local);
}

#[test]
fn pods_are_told_by_the_node_only_where_that_is_asked_for() {
    let mut cluster = cluster(&[], &[]);
    let cidrs = |cluster: &Cluster, pods| {
        let (table, _) = cluster.table(&FLAGS(), pods)?;
        Ok::<_, NotYet>(table.node.cluster_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(cidrs(&cluster, Pods::ClusterCidr), Ok(vec![]));
    assert_eq!(cidrs(&cluster, Pods::NodeCidr), Ok(vec!["10.244.7.0/24".into()]));
    cluster.set(Kind::Node, object(Kind::Node, &node(101, "")));
    assert_eq!(cidrs(&cluster, Pods::NodeCidr), Err(NotYet::PodCidrs));
    assert_eq!(cidrs(&cluster, Pods::ClusterCidr), Ok(vec![]));
}

#[test]
fn service_cidrs_are_those_of_the_cluster_unless_flags_say_otherwise() {
    let mut cluster = cluster(&[], &[]);
    let cidr = r#"{"metadata":{"name":"kubernetes","resourceVersion":"7"},"spec":{"cidrs":["10.96.0.0/12","2001:db8:96::/108"]}}"#;
    fill(&mut cluster, Kind::ServiceCidr, &[cidr.into()]);
    let of = |flags: &NodeFlags| {
        let (table, _) = cluster.table(flags, Pods::ClusterCidr).expect("listed");
        table.node.service_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(of(&FLAGS()), ["10.96.0.0/12", "2001:db8:96::/108"]);
    let given = vec![Cidr { address: [10, 0, 0, 0].into(), prefix: 8 }];
    assert_eq!(of(&NodeFlags { service_cidrs: given, ..FLAGS() }), ["10.0.0.0/8"]);
}

#[test]
fn events_are_taken_by_their_versions_not_by_their_order() {
    let mut cluster = cluster(&[web("web", 5, "10.96.0.7")], &[]);
    let mut set = |version, ip: &str| cluster.set(Kind::Service, object(Kind::Service, &web("web", version, ip)));
    assert_eq!(set(102, "10.96.0.8"), Taken::Changed);
    assert_eq!(set(102, "10.96.0.8"), Taken::Known, "said twice");
    assert_eq!(set(101, "10.96.0.7"), Taken::Known, "said late");
    assert_eq!(set(103, "10.96.0.8"), Taken::Known, "nothing that a table needs");
    let (now, _) = services(&cluster);
    assert_eq!(now[0].frontends[0].address.to_string(), "10.96.0.8");
    let gone = |cluster: &mut Cluster, version| {
        cluster.remove(Kind::Service, object(Kind::Service, &web("web", version, "10.96.0.8")))
    };
    assert_eq!(gone(&mut cluster, 90), Taken::Known, "of an earlier one");
    assert_eq!(gone(&mut cluster, 104), Taken::Changed);
    assert_eq!(gone(&mut cluster, 104), Taken::Known);
    let late = object(Kind::Service, &web("web", 103, "10.96.0.8"));
    assert_eq!(cluster.set(Kind::Service, late), Taken::Doubtful, "it may be removed, or another may be missing");
    let again = object(Kind::Service, &web("web", 105, "10.96.0.8"));
    assert_eq!(cluster.set(Kind::Service, again), Taken::Changed);
}

#[test]
fn what_kube_proxy_ignores_is_kept_out_and_known() {
    let external =
        service("ext", 6, "2024-01-01T00:00:00Z", r#""type":"ExternalName","externalName":"www.example.com""#);
    let mut cluster = cluster(std::slice::from_ref(&external), &[]);
    assert!(services(&cluster).0.is_empty());
    assert_eq!(cluster.set(Kind::Service, object(Kind::Service, &external)), Taken::Known);
}

#[test]
fn a_service_that_is_not_understood_is_left_out_and_the_others_are_not() {
    let ports = r#""ports":[{"name":"http","port":80}]"#;
    let open = format!(r#""clusterIP":"10.96.0.9","loadBalancerSourceRanges":["anything"],{ports}"#);
    let faulty = service("faulty", 6, "2024-01-01T00:00:00Z", &open);
    let remarks = object(Kind::Service, &faulty).remarks;
    assert!(remarks[0].starts_with("Service shop/faulty: source range \"anything\""), "{remarks:?}");
    let (services, _) = services(&cluster(&[faulty, web("web", 5, "10.96.0.7")], &[]));
    assert_eq!(services.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["shop/web:http"]);
}

#[test]
fn of_a_slice_only_the_faulty_endpoint_is_left_out() {
    let both = slice("web-1", "web", 6, "10.244.7.9")
        .replace("\"endpoints\":[", "\"endpoints\":[{\"addresses\":[\"224.0.0.1\"]},");
    assert_eq!(object(Kind::EndpointSlice, &both).remarks.len(), 1);
    let (services, _) = services(&cluster(&[web("web", 5, "10.96.0.7")], &[both]));
    assert_eq!(services[0].endpoints.len(), 1);
}

#[test]
fn nobody_takes_an_address_that_is_in_use() {
    let ports = r#""ports":[{"name":"http","port":80}]"#;
    let thief = |name, created: &str| {
        let spec =
            format!(r#""clusterIP":"10.96.1.{}","externalIPs":["10.96.0.7","198.51.100.9"],{ports}"#, created.len());
        service(name, 6, created, &spec)
    };
    // the younger one has the better name, and comes first
    let older = service(
        "zebra",
        6,
        "2024-02-01T00:00:00Z",
        &format!(r#""clusterIP":"10.96.2.1","externalIPs":["198.51.100.9"],{ports}"#),
    );
    let all = [thief("a", "2024-03-01T00:00:00Z"), web("web", 5, "10.96.0.7"), older];
    let (services, remarks) = services(&cluster(&all, &[]));
    let frontends = |name: &str| {
        let service = services.iter().find(|s| s.name.contains(name)).expect("it is there");
        service.frontends.iter().map(|f| f.address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(frontends("web"), ["10.96.0.7"]);
    assert_eq!(frontends("zebra"), ["10.96.2.1", "198.51.100.9"]);
    assert_eq!(frontends("shop/a:"), ["10.96.1.20"]);
    assert_eq!(
        remarks,
        [
            "10.96.0.7:80/tcp belongs to shop/web:http: shop/a:http does not get it",
            "198.51.100.9:80/tcp belongs to shop/zebra:http: shop/a:http does not get it",
        ]
    );
}

#[test]
fn what_is_no_answer_of_an_api_server_is_none() {
    let reader = &READERS[Kind::Service as usize];
    let empty = page(Kind::Service, &[]);
    assert!(reader.page(&empty).is_some());
    assert!(reader.page(&empty.replace("[]", "null")).is_some(), "an empty list may be null");
    for text in [
        "",
        "{}",
        "[]",
        "<html>Please log in</html>",
        &empty[..empty.len() - 2],
        &empty.replace("ServiceList", "EndpointSliceList"),
        &empty.replace("\"resourceVersion\":\"100\"", ""),
        &empty.replace("[]", "{}"),
        &empty.replace("[]", "[{}]"),
        &format!("{empty}{empty}"),
    ] {
        assert!(reader.page(text).is_none(), "{text}");
    }
    for text in
        ["", "{}", "{\"type\":\"ADDED\"}", "{\"type\":\"ADDED\",\"object\":{}}", "{\"type\":\"PUT\",\"object\":{}}"]
    {
        assert!(reader.event(text).is_none(), "{text}");
    }
    let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old resource version"}}"#;
    assert!(matches!(reader.event(gone), Some(Event::Failed(410, words)) if words.contains("too old")));
    let mark = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"123"}}}"#;
    assert!(matches!(reader.event(mark), Some(Event::Bookmark(version)) if version == "123"));
}

#[test]
fn a_slice_says_when_its_cause_was() {
    let slice = object(Kind::EndpointSlice, &slice("web-1", "web", 6, "10.244.7.9"));
    let time = slice.triggered.expect("a time");
    assert_eq!(humantime::format_rfc3339_nanos(time).to_string(), "2024-05-06T07:08:09.123456789Z");
}
