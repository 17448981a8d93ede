//! `natlet run --kubernetes` against a double of the API server that speaks real HTTP and misbehaves: the kernel ends with
//! what the cluster says, nothing is programmed before everything is heard, and an outage costs nothing.
#![allow(clippy::pedantic, missing_docs, reason = "tests read better short")]

#[path = "kubernetes/api.rs"]
mod api;
#[path = "kubernetes/cluster.rs"]
mod cluster;
#[allow(dead_code, reason = "the agent's own tests use the rest")]
#[path = "agent/daemon.rs"]
mod daemon;
#[path = "kubernetes/load.rs"]
mod load;
#[path = "kubernetes/manifests.rs"]
mod manifests;
#[path = "agent/observe.rs"]
mod observe;

mod common;

use api::{Api, Fault, Slip};
use cluster::{FLAGS, NODE, fill, in_force, is_bare, put, service, slice, start};
use common::{Test, has, holds, natlet_with, same, tool};
use daemon::{Daemon, LIMIT, Place, within};
use libtest_mimic::Failed;
use natlet::lab::{Listener, Namespace, Plan, Topology, tcp_probe};
use natlet_core::table::Cidr;
use observe::{metric, metrics, ticks};
use serde_json::{Value, json};
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    common::main(&[
        ("the_kernel_follows_the_cluster", the_kernel_follows_the_cluster),
        ("only_what_a_node_needs_is_asked_for", only_what_a_node_needs_is_asked_for),
        ("nothing_is_programmed_before_the_first_lists", nothing_before_the_first_lists),
        ("a_node_that_boots_offline_has_what_it_had", a_node_that_boots_offline_has_what_it_had),
        ("a_misbehaving_server_is_survived", a_misbehaving_server_is_survived),
        ("events_twice_late_and_swapped_end_right", events_twice_late_and_swapped_end_right),
        ("a_list_whose_pages_expire_comes_in_one_piece", a_list_whose_pages_expire),
        ("a_server_without_service_cidrs_is_enough", a_server_without_service_cidrs),
        ("an_expired_token_is_read_again", an_expired_token_is_read_again),
        ("a_server_is_known_by_its_certificate", a_server_is_known_by_its_certificate),
        ("an_outage_costs_nothing", an_outage_costs_nothing),
        ("one_tenant_cannot_stop_the_others", one_tenant_cannot_stop_the_others),
        ("pods_are_told_by_the_node_where_asked_for", pods_are_told_by_the_node),
        ("ten_thousand_services_come_in_pages", load::ten_thousand_services),
        ("a_thousand_changes_a_second_are_followed", load::a_thousand_changes_a_second),
        ("the_manifests_are_what_kubectl_takes", manifests::the_manifests_are_what_kubectl_takes),
        ("the_manifests_ask_for_no_more_than_is_used", manifests::the_manifests_ask_for_no_more_than_is_used),
    ])
}

/// A host, a place and a filled cluster.
fn setting(name: &str) -> Result<(Namespace, Place, Api), Failed> {
    let (host, place) = (Namespace::new("node")?, Place::new(&format!("kube-{name}"))?);
    let api = Api::start(&host)?;
    fill(&api);
    Ok((host, place, api))
}

fn the_kernel_follows_the_cluster() -> Test {
    let ip = |text: &str| text.parse().unwrap();
    let pods = ["10.82.0.10", "10.82.0.82", "10.82.0.83"];
    let topology = Topology::build(&Plan {
        node: vec![ip("192.0.2.1")],
        clients: vec![ip("203.0.113.9")],
        pods: pods.iter().map(|p| vec![ip(p)]).collect(),
        endpoints: Vec::new(),
        avoid: vec![Cidr { address: ip("10.96.0.0"), prefix: 12 }],
    })?;
    let listeners: Vec<Listener> = pods.iter().map(|p| Listener::tcp(format!("{p}:8443").parse().unwrap())).collect();
    let _servers = topology.serve(&listeners)?;
    let (host, place) = (&topology.node, Place::new("kube-follow")?);
    let api = Api::start(host)?;
    fill(&api);
    let daemon = start(host, &place, &api, &[])?;
    in_force(host, &place, &api)?;
    let reaches = |frontend: &str, endpoints: &[&str]| -> Test {
        for _ in 0..8 {
            let to = frontend.parse().unwrap();
            let result = topology.client.run(|| tcp_probe(None, to, LIMIT))?;
            let text = format!("{result:?}");
            holds(&format!("{frontend}: {text}"), endpoints.iter().any(|e| text.contains(e)))?;
        }
        Ok(())
    };
    reaches("10.96.0.7:443", &["10.82.0.10:8443", "10.82.0.82:8443"])?;
    reaches("10.96.0.8:443", &["10.82.0.10:8443"])?;
    api.put("EndpointSlice", slice("web", &["10.82.0.83"]));
    in_force(host, &place, &api)?;
    reaches("10.96.0.7:443", &["10.82.0.83:8443"])?;
    put(&api, "new", "10.96.0.9", &["10.82.0.82"]);
    in_force(host, &place, &api)?;
    reaches("10.96.0.9:443", &["10.82.0.82:8443"])?;
    api.delete("Service", "shop/log");
    api.delete("EndpointSlice", "shop/log-abcde");
    in_force(host, &place, &api)?;
    let to = "10.96.0.8:443".parse().unwrap();
    let gone = topology.client.run(|| tcp_probe(None, to, Duration::from_millis(300)))?;
    holds(&format!("a removed service: {gone:?}"), !format!("{gone:?}").contains("8443"))?;
    daemon.stop()
}

fn only_what_a_node_needs_is_asked_for() -> Test {
    let (host, place, api) = setting("asked")?;
    let mut headless = service("headless", "10.96.0.20", 443);
    headless["metadata"]["labels"] = json!({"service.kubernetes.io/headless": ""});
    api.put("Service", headless);
    let mut other = service("other", "10.96.0.21", 443);
    other["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "cilium"});
    api.put("Service", other);
    let daemon = start(&host, &place, &api, &["--listen", "127.0.0.1:10249"])?;
    let frontends = |n: f64| Ok(metrics(&host).is_ok_and(|text| metric(&text, "natlet_frontends", &[]) == n));
    within("two services are in force", 3 * LIMIT, || frontends(2.0))?;
    let requests = api.requests();
    for (path, selector) in [
        (
            "/api/v1/services?",
            "labelSelector=%21service.kubernetes.io%2Fheadless%2C%21service.kubernetes.io%2Fservice-proxy-name",
        ),
        ("/apis/discovery.k8s.io/v1/endpointslices?", "labelSelector=%21service.kubernetes.io%2Fheadless"),
        ("/api/v1/nodes?", "fieldSelector=metadata.name%3Dedge-7"),
        ("/apis/networking.k8s.io/v1/servicecidrs?", ""),
    ] {
        let of: Vec<&String> = requests.iter().filter(|r| r.starts_with(path)).collect();
        holds(
            &format!("one list and one watch of {path}: {of:?}"),
            of.len() == 2 && of.iter().all(|r| r.contains(selector)),
        )?;
        holds(&format!("{of:?}"), of[0].contains("limit=500") && of[1].contains("watch=true"))?;
        holds(&format!("{of:?}"), of[1].contains("allowWatchBookmarks=true") && of[1].contains("timeoutSeconds=2"))?;
    }
    holds("nothing else is asked for", requests.len() == 8)?;
    daemon.stop()
}

fn nothing_before_the_first_lists() -> Test {
    let (host, place, api) = setting("first")?;
    for missing in ["Service", "EndpointSlice", "Node", "ServiceCIDR"] {
        api.fault(Fault::StatusOf(missing, 503));
        let daemon = start(&host, &place, &api, &[])?;
        let others = || Ok(place.log().matches("the list is complete").count() >= 3);
        within("the other lists", 3 * LIMIT, others)?;
        std::thread::sleep(Duration::from_millis(300));
        is_bare(&host)?;
        api.heal();
        in_force(&host, &place, &api)?;
        daemon.stop()?;
        natlet_with(&host, &["unload"], "");
        fs::remove_dir_all(place.path("state"))?;
        fs::remove_file(place.path("log"))?;
    }
    Ok(())
}

fn a_node_that_boots_offline_has_what_it_had() -> Test {
    let (host, place, api) = setting("offline")?;
    let daemon = start(&host, &place, &api, &[])?;
    in_force(&host, &place, &api)?;
    within("not kept", LIMIT, || Ok(place.path("state/program.0").exists()))?;
    daemon.kill()?;
    natlet_with(&host, &["unload"], ""); // as after a reboot
    api.down();
    let daemon = start(&host, &place, &api, &[])?;
    in_force(&host, &place, &api)?;
    api.put("EndpointSlice", slice("web", &["10.82.0.84"]));
    api.up(&host)?;
    in_force(&host, &place, &api)?;
    daemon.stop()
}

fn a_misbehaving_server_is_survived() -> Test {
    let (host, place, api) = setting("slips")?;
    let daemon = start(&host, &place, &api, &["--listen", "127.0.0.1:10249"])?;
    in_force(&host, &place, &api)?;
    let slices = "EndpointSlice";
    for (step, (slip, reason, relists)) in [
        (Slip::Cut(slices), "connection", 0.0),
        (Slip::Garbled(slices), "json", 1.0),
        (Slip::GoneByEvent(slices), "gone", 1.0),
        (Slip::Gone(slices), "gone", 1.0),
    ]
    .into_iter()
    .enumerate()
    {
        let before = metrics(&host)?;
        api.slip(slip.clone());
        if matches!(slip, Slip::Gone(_)) {
            api.cut_watches();
        }
        api.put(slices, slice("web", &[&format!("10.82.1.{}", step + 1)]));
        in_force(&host, &place, &api)?;
        same(&format!("{slip:?}: slips left"), &api.slips(), &0)?;
        let after = metrics(&host)?;
        let grown = |name: &str, words: &[&str]| metric(&after, name, words) - metric(&before, name, words);
        let errors = grown("natlet_kubernetes_errors_total", &["EndpointSlice", reason]);
        holds(&format!("{slip:?} is counted as {reason}: {errors}"), errors >= 1.0)?;
        same(&format!("{slip:?}: relists"), &grown("natlet_kubernetes_relists_total", &[]), &relists)?;
    }
    for fault in [Fault::Status(500), Fault::Slow(Duration::from_millis(300))] {
        api.fault(fault.clone());
        api.cut_watches();
        api.put(slices, slice("web", &[if fault == Fault::Status(500) { "10.82.2.1" } else { "10.82.2.2" }]));
        std::thread::sleep(Duration::from_millis(500));
        if fault == Fault::Status(500) {
            api.heal();
        }
        in_force(&host, &place, &api)?;
        api.heal();
    }
    let text = metrics(&host)?;
    holds(&format!("events are counted: {text}"), metric(&text, "natlet_kubernetes_events_total", &[slices]) >= 4.0)?;
    holds("the agent is healthy", metric(&text, "natlet_source_ok", &[]) == 1.0)?;
    daemon.stop()
}

fn events_twice_late_and_swapped_end_right() -> Test {
    let (host, place, api) = setting("order")?;
    let daemon = start(&host, &place, &api, &["--listen", "127.0.0.1:10249"])?;
    in_force(&host, &place, &api)?;
    for fault in [Fault::Twice, Fault::Swapped] {
        api.fault(fault);
        for round in 0..20 {
            // the same objects again and again, and some that come and go
            let name = format!("brief-{}", round % 3);
            api.put("EndpointSlice", slice("web", &[&format!("10.82.3.{}", round + 1)]));
            api.put("Service", service(&name, &format!("10.96.1.{}", round + 1), 443));
            api.put("EndpointSlice", slice("web", &[&format!("10.82.4.{}", round + 1)]));
            api.delete("Service", &format!("shop/{name}"));
            std::thread::sleep(Duration::from_millis(10));
        }
        api.heal();
        in_force(&host, &place, &api)?;
    }
    let text = metrics(&host)?;
    println!(
        "{} events, {} relists because of their order",
        metric(&text, "natlet_kubernetes_events_total", &[]),
        metric(&text, "natlet_kubernetes_relists_total", &[])
    );
    daemon.stop()
}

fn a_list_whose_pages_expire() -> Test {
    let (host, place, api) = setting("pages")?;
    for i in 0..600 {
        api.put("Service", service(&format!("many-{i}"), &format!("10.97.{}.{}", i / 250, 1 + i % 250), 80));
    }
    api.slip(Slip::GoneOnContinue);
    let daemon = start(&host, &place, &api, &[])?;
    in_force(&host, &place, &api)?;
    let lists = api.requests();
    let lists: Vec<&String> =
        lists.iter().filter(|r| r.starts_with("/api/v1/services?") && !r.contains("watch=true")).collect();
    same("lists of services", &lists.len(), &3)?;
    holds(&format!("{lists:?}"), lists[1].contains("continue=") && !lists[2].contains("limit="))?;
    daemon.stop()
}

fn a_server_without_service_cidrs() -> Test {
    for code in [404, 403] {
        let (host, place, api) = setting("old")?;
        api.fault(Fault::StatusOf("ServiceCIDR", code));
        let daemon = start(&host, &place, &api, &["--service-cidr", cluster::SERVICE_CIDR])?;
        in_force(&host, &place, &api)?;
        let asked = api.requests().iter().filter(|r| r.contains("servicecidrs")).count();
        same("it is asked for once", &asked, &1)?;
        daemon.stop()?;
    }
    Ok(())
}

fn an_expired_token_is_read_again() -> Test {
    let (host, place, api) = setting("token")?;
    let token = place.path("token");
    fs::write(&token, "first")?;
    api.require("first");
    let daemon = start_by_kubeconfig(&host, &place, json!({"server": api.url()}), json!({"tokenFile": token}))?;
    in_force(&host, &place, &api)?;
    api.require("second");
    api.put("EndpointSlice", slice("web", &["10.82.0.90"]));
    api.cut_watches();
    within("the refusal is told", 3 * LIMIT, || Ok(place.log().contains("answers 401")))?;
    fs::write(&token, "second")?;
    in_force(&host, &place, &api)?;
    daemon.stop()
}

fn a_server_is_known_by_its_certificate() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("kube-tls")?);
    let (api, certificate) = Api::start_tls(&host)?;
    let (_, stranger) = Api::start_tls(&host)?;
    fill(&api);
    let file = place.path("ca.pem");
    fs::write(&file, stranger)?;
    let cluster = json!({"server": api.url(), "certificate-authority": file});
    let daemon = start_by_kubeconfig(&host, &place, cluster, json!({}))?;
    within("no refusal", 3 * LIMIT, || Ok(place.log().contains("invalid peer certificate")))?;
    is_bare(&host)?;
    fs::write(&file, certificate)?;
    in_force(&host, &place, &api)?;
    api.put("EndpointSlice", slice("web", &["10.82.0.93"]));
    in_force(&host, &place, &api)?;
    daemon.stop()
}

/// An agent that is told by a kubeconfig where the server is and who it is itself.
fn start_by_kubeconfig(host: &Namespace, place: &Place, cluster: Value, user: Value) -> Result<Daemon, Failed> {
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "edge",
        "clusters": [{"name": "edge", "cluster": cluster}],
        "users": [{"name": "edge", "user": user}],
        "contexts": [{"name": "edge", "context": {"cluster": "edge", "user": "edge"}}],
    });
    fs::write(place.path("kubeconfig"), kubeconfig.to_string())?;
    let path = place.path("kubeconfig").to_str().ok_or("a path that is text")?.to_owned();
    let flags: Vec<&str> = FLAGS.into_iter().chain(["--kubeconfig", &path]).collect();
    Daemon::start_with(host, place, "--kubernetes", &flags)
}

fn an_outage_costs_nothing() -> Test {
    let (host, place, api) = setting("outage")?;
    let daemon = start(&host, &place, &api, &[])?;
    in_force(&host, &place, &api)?;
    let status = || String::from_utf8_lossy(&natlet_with(&host, &["status", "-o", "json"], "").stdout).into_owned();
    let outage = Duration::from_secs(5);
    // refused requests, then refused connections
    for refused in [false, true] {
        let before_it = status();
        if refused {
            api.down();
        } else {
            api.fault(Fault::Status(500));
            api.cut_watches();
        }
        let (before, asked) = (ticks(daemon.id())?, api.requests().len());
        std::thread::sleep(outage);
        let (used, asked) = (ticks(daemon.id())? - before, api.requests().len() - asked);
        println!(
            "{outage:?} of outage (refused connections: {refused}): {used} ticks of the processor, {asked} requests"
        );
        // four kinds; waits of 125, 250, 500, 1000 and 2000 ms at the least
        holds(&format!("{asked} requests"), asked <= 4 * 6)?;
        holds(&format!("{used} ticks"), used <= 50)?;
        same("what is in force", &status(), &before_it)?;
        api.put("EndpointSlice", slice("web", &[if refused { "10.82.0.91" } else { "10.82.0.92" }]));
        if refused {
            api.up(&host)?;
        }
        api.heal();
        in_force(&host, &place, &api)?;
    }
    daemon.stop()
}

fn one_tenant_cannot_stop_the_others() -> Test {
    let (host, place, api) = setting("tenant")?;
    let daemon = start(&host, &place, &api, &[])?;
    in_force(&host, &place, &api)?;
    // the ClusterIP of another, and more source ranges than fit
    let mut thief = service("athief", "10.96.9.1", 443);
    thief["spec"]["externalIPs"] = json!(["10.96.0.7"]);
    api.put("Service", thief);
    let mut large = service("large", "10.96.9.2", 443);
    large["spec"]["type"] = json!("LoadBalancer");
    large["status"]["loadBalancer"]["ingress"] = json!([{"ip": "198.51.100.2"}]);
    let ranges: Vec<String> = (0..4000).map(|i| format!("10.{}.{}.0/24", i / 250, i % 250)).collect();
    large["spec"]["loadBalancerSourceRanges"] = json!(ranges);
    api.put("Service", large);
    put(&api, "new", "10.96.0.9", &["10.82.0.82"]);
    let told = |what: &str| place.log().contains(what);
    within("the new service", 3 * LIMIT, || {
        Ok(told("belongs to shop/web:http: shop/athief:http does not get it")
            && told("left out: service shop/large:http"))
    })?;
    put(&api, "newer", "10.96.0.10", &["10.82.0.82"]);
    std::thread::sleep(Duration::from_millis(300));
    same("how often it is told", &place.log().matches("belongs to shop/web:http").count(), &1)?;
    // the rest is in force: what the files of an administrator would be refused for is left out
    api.delete("Service", "shop/large");
    api.put("Service", service("athief", "10.96.9.1", 443));
    in_force(&host, &place, &api)?;
    if has("nft") {
        let text = tool(&host, "nft", &["list", "map", "ip", "natlet", "services"], "")?;
        holds(&format!("the new service is there: {text}"), text.contains("10.96.0.9"))?;
    }
    daemon.stop()
}

fn pods_are_told_by_the_node() -> Test {
    let (host, place, api) = setting("pods")?;
    let bare = |cidrs: &[&str]| {
        let address = json!([{"type": "InternalIP", "address": "192.0.2.1"}]);
        api.put(
            "Node",
            json!({"metadata": {"name": NODE}, "spec": {"podCIDRs": cidrs}, "status": {"addresses": address}}),
        );
    };
    bare(&[]);
    let url = api.url();
    let flags = ["--node-name", NODE, "--detect-local-mode", "node-cidr", "--api-server", &url];
    let daemon = Daemon::start_with(&host, &place, "--kubernetes", &flags)?;
    within("it waits", 3 * LIMIT, || Ok(place.log().contains("has no spec.podCIDRs yet")))?;
    is_bare(&host)?;
    bare(&["10.82.0.0/16"]); // what the other tests say by a flag
    in_force(&host, &place, &api)?;
    daemon.stop()
}
