//! `natlet load` on a node between a client and its backends: every kind of frontend with real packets, what is left alone,
//! what is left behind, and how large a ruleset gets.
#![allow(clippy::pedantic, missing_docs, reason = "tests read better short")]

mod common;

use common::site::{at, ip, listeners};
use common::{Test, has, holds, natlet, natlet_with, same, tool};
use natlet::image::Image;
use natlet::kernel;
use natlet::lab::{Listener, Namespace, Plan, Probe, ProbeResult, Servers, Topology, probes};
use natlet::lower::lower;
use natlet::netlink::Netlink;
use natlet::nft::apply::apply;
use natlet::source::{Input, Loaded, NodeFlags, load_inputs};
use natlet_core::table::{Cidr, Protocol};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    common::main(&[
        ("every_frontend_reaches_its_endpoints_and_replies_come_back", every_frontend),
        ("an_endpoint_reaches_itself", an_endpoint_reaches_itself),
        ("a_service_without_endpoints_is_rejected_at_once", no_endpoints_is_rejected_at_once),
        ("what_is_no_frontend_passes_untouched", what_is_no_frontend_passes_untouched),
        ("masquerading_follows_the_source", masquerading_follows_the_source),
        ("other_tables_are_untouched_and_nothing_is_left", other_tables_are_untouched_and_nothing_is_left),
        ("nft_prints_and_reloads_what_is_loaded", nft_prints_and_reloads_what_is_loaded),
        ("a_second_load_is_empty_and_a_changed_one_small", a_second_load_is_empty_and_a_changed_one_small),
        ("a_failed_load_changes_nothing", a_failed_load_changes_nothing),
        ("what_others_delete_comes_back", what_others_delete_comes_back),
        ("rules_do_not_grow_with_services", rules_do_not_grow_with_services),
        ("node_ports_answer_on_loopback_where_asked_for", node_ports_answer_on_loopback_where_asked_for),
        ("connections_live_through_a_change", connections_live_through_a_change),
    ])
}

const TIMEOUT: Duration = Duration::from_secs(2);
const CLIENT: &str = "203.0.113.9";
const NODE: &str = "192.0.2.1";
const PODS: [&str; 2] = ["10.82.0.10", "10.82.0.82"];

/// A TCP and a UDP service with every kind of frontend, and a service without endpoints.
const TABLE: &str = r#"
[node]
ip = ["192.0.2.1"]
cluster-cidr = ["10.82.0.0/16"]

[[service]]
name = "shop/web:https"
port = 443
cluster-ip = "192.168.5.65"
load-balancer = ["198.51.100.97"]
external-ip = ["198.51.100.98"]
node-port = 31512
endpoints = ["10.82.0.10:8443", "10.82.0.82:8443"]

[[service]]
name = "shop/log"
protocol = "udp"
port = 514
cluster-ip = "192.168.5.66"
load-balancer = ["198.51.100.97"]
external-ip = ["198.51.100.98"]
node-port = 31514
endpoints = ["10.82.0.10:5514", "10.82.0.82:5514"]

[[service]]
name = "shop/none"
port = 81
cluster-ip = "192.168.5.67"
node-port = 31081
endpoints = []
"#;

/// Client, node and two pods behind it, with [`TABLE`] loaded on the node.
fn hosts() -> Result<(Topology, Vec<Servers>), libtest_mimic::Failed> {
    let plan = Plan {
        node: vec![ip(NODE)],
        clients: vec![ip(CLIENT)],
        pods: PODS.iter().map(|p| vec![ip(p)]).collect(),
        endpoints: vec![ip("10.99.0.1")],
        avoid: vec![Cidr { address: ip("192.168.0.0"), prefix: 16 }],
    };
    let topology = Topology::build(&plan)?;
    let mut all: Vec<Listener> = PODS.iter().flat_map(|p| listeners(ip(p))).collect();
    // no endpoint of any service: reached only if nothing touches the packet
    all.extend([Listener::tcp(at("10.99.0.1:443")), Listener::tcp(at("192.0.2.1:31513"))]);
    let servers = topology.serve(&all)?;
    natlet(&topology.node, &["load", "-"], TABLE)?;
    Ok((topology, servers))
}

fn many(host: &Namespace, protocol: Protocol, to: &str, n: usize) -> Result<Vec<ProbeResult>, libtest_mimic::Failed> {
    let probe = Probe { protocol, source: None, destination: at(to) };
    Ok(host.run(|| probes(&vec![probe; n], TIMEOUT))?)
}

/// Who answered how often, and the sources that they saw; an error where one did not answer.
fn answers(results: &[ProbeResult]) -> Result<(BTreeMap<String, u32>, BTreeSet<IpAddr>), libtest_mimic::Failed> {
    let (mut endpoints, mut sources) = (BTreeMap::new(), BTreeSet::new());
    for result in results {
        let ProbeResult::Answered { endpoint, seen_source } = result else {
            return Err(format!("{result:?}").into());
        };
        *endpoints.entry(endpoint.to_string()).or_default() += 1;
        sources.insert(seen_source.ip());
    }
    Ok((endpoints, sources))
}

const N: usize = 60;

fn every_frontend() -> Test {
    let (topology, _servers) = hosts()?;
    for (protocol, port, own, node_port) in
        [(Protocol::Tcp, 443, "192.168.5.65", 31512), (Protocol::Udp, 514, "192.168.5.66", 31514)]
    {
        let target = if protocol == Protocol::Tcp { 8443 } else { 5514 };
        let frontends = [(own, port), ("198.51.100.97", port), ("198.51.100.98", port), (NODE, node_port)];
        for (address, port) in frontends {
            for host in [&topology.client, &topology.node] {
                let to = format!("{address}:{port}");
                let (endpoints, _) = answers(&many(host, protocol, &to, N)?)
                    .map_err(|e| format!("{protocol} {} -> {to}: {}", host.name(), e.message().unwrap_or_default()))?;
                let expected: Vec<String> = PODS.iter().map(|p| format!("{p}:{target}")).collect();
                same(&to, &endpoints.keys().cloned().collect::<Vec<_>>(), &expected)?;
                // a fair coin leaves this range once in 10^9 runs
                holds(
                    &format!("{to}: {endpoints:?} is no even draw"),
                    endpoints.values().all(|n| (7..=53).contains(n)),
                )?;
            }
        }
    }
    Ok(())
}

fn an_endpoint_reaches_itself() -> Test {
    let (topology, _servers) = hosts()?;
    for (protocol, to) in [
        (Protocol::Tcp, "192.168.5.65:443"),
        (Protocol::Tcp, "198.51.100.97:443"),
        (Protocol::Tcp, "192.0.2.1:31512"),
        (Protocol::Udp, "192.168.5.66:514"),
    ] {
        let results = many(&topology.pods[0], protocol, to, N)?;
        let (endpoints, _) = answers(&results)?;
        same(to, &endpoints.len(), &2)?;
        for result in results {
            let ProbeResult::Answered { endpoint, seen_source } = result else { continue };
            let cluster_ip = to.starts_with("192.168");
            let itself = endpoint.ip() == ip(PODS[0]);
            let expected = if itself || !cluster_ip { ip(NODE) } else { ip(PODS[0]) };
            same(&format!("{to} answered by {endpoint} saw"), &seen_source.ip(), &expected)?;
        }
    }
    Ok(())
}

fn no_endpoints_is_rejected_at_once() -> Test {
    let (topology, _servers) = hosts()?;
    for host in [&topology.client, &topology.node, &topology.pods[0]] {
        for to in ["192.168.5.67:81", "192.0.2.1:31081", "192.168.5.65:444"] {
            let started = Instant::now();
            let results = many(host, Protocol::Tcp, to, 10)?;
            same(&format!("{} -> {to}", host.name()), &results, &vec![ProbeResult::Refused; 10])?;
            holds(&format!("{to}: refused after {:?}", started.elapsed()), started.elapsed() < TIMEOUT / 2)?;
        }
        same("UDP", &many(host, Protocol::Udp, "192.168.5.66:515", 3)?, &vec![ProbeResult::Refused; 3])?;
    }
    Ok(())
}

fn what_is_no_frontend_passes_untouched() -> Test {
    let (topology, _servers) = hosts()?;
    for (to, endpoint) in [("10.99.0.1:443", "10.99.0.1:443"), ("192.0.2.1:31513", "192.0.2.1:31513")] {
        for result in many(&topology.client, Protocol::Tcp, to, 3)? {
            let ProbeResult::Answered { endpoint: by, seen_source } = result else {
                return Err(format!("{to}: {result:?}").into());
            };
            same(to, &(by, seen_source.ip()), &(at(endpoint), ip(CLIENT)))?;
        }
    }
    Ok(())
}

fn masquerading_follows_the_source() -> Test {
    let (topology, _servers) = hosts()?;
    let seen = |host: &Namespace, to: &str| answers(&many(host, Protocol::Tcp, to, 10)?).map(|(_, s)| s);
    let only = |address: &str| BTreeSet::from([ip(address)]);
    same("ClusterIP from outside", &seen(&topology.client, "192.168.5.65:443")?, &only(NODE))?;
    same("load balancer from outside", &seen(&topology.client, "198.51.100.97:443")?, &only(NODE))?;
    same("NodePort from outside", &seen(&topology.client, "192.0.2.1:31512")?, &only(NODE))?;
    // without a cluster CIDR nobody is told apart, and ClusterIP traffic keeps its source
    let open = TABLE.replace("cluster-cidr = [\"10.82.0.0/16\"]", "");
    natlet(&topology.node, &["load", "-"], &open)?;
    same("ClusterIP without a detector", &seen(&topology.client, "192.168.5.65:443")?, &only(CLIENT))?;
    same("external without a detector", &seen(&topology.client, "198.51.100.98:443")?, &only(NODE))?;
    natlet(&topology.node, &["load", "--masquerade-all", "-"], &open)?;
    same("ClusterIP under --masquerade-all", &seen(&topology.client, "192.168.5.65:443")?, &only(NODE))
}

fn other_tables_are_untouched_and_nothing_is_left() -> Test {
    if !has("nft") {
        return Ok(());
    }
    let host = Namespace::new("node")?;
    let list = || tool(&host, "nft", &["list", "ruleset"], "");
    same("a fresh host", &list()?, &String::new())?;
    let foreign = "table ip other {\n set s { type ipv4_addr; elements = { 192.0.2.7 } }\n chain c { type nat hook prerouting \
                   priority dstnat; ip daddr 192.0.2.8 dnat to 192.0.2.9; }\n}\ntable inet natlets {\n chain natlet {\n }\n}\n";
    tool(&host, "nft", &["-f", "-"], foreign)?;
    let before = list()?;
    natlet(&host, &["load", "-"], TABLE)?;
    let during = list()?;
    holds(
        "other tables stand as they stood",
        before.lines().all(|l| during.contains(l)) && during.starts_with(&before),
    )?;
    natlet(&host, &["load", "-"], &TABLE.replace("10.82.0.82", "10.82.0.83"))?;
    natlet(&host, &["unload"], "")?;
    same("after unload", &list()?, &before)?;
    same("a second unload", &natlet(&host, &["unload"], "")?, &"nothing was loaded\n".to_owned())
}

fn nft_prints_and_reloads_what_is_loaded() -> Test {
    if !has("nft") {
        return Ok(());
    }
    let host = Namespace::new("node")?;
    natlet(&host, &["load", "-"], TABLE)?;
    let printed = tool(&host, "nft", &["list", "ruleset"], "")?;
    for line in [
        "192.168.5.65 . tcp . 443 counter packets 0 bytes 0 comment \"shop/web:https\" : goto select-2",
        "192.168.5.67 . tcp . 81 counter packets 0 bytes 0 comment \"shop/none\" : goto refuse",
        "dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints",
        "ip daddr . meta l4proto . th dport vmap @services",
    ] {
        holds(&format!("`nft list ruleset` has no {line}\n{printed}"), printed.contains(line))?;
    }
    let json = tool(&host, "nft", &["-j", "list", "ruleset"], "")?;
    for object in ["\"services\"", "\"select-2\"", "\"natlet\""] {
        holds(&format!("`nft -j list ruleset` has {object}"), json.contains(object))?;
    }
    natlet(&host, &["unload"], "")?;
    tool(&host, "nft", &["-f", "-"], &printed)?;
    same("the printed text, loaded again", &tool(&host, "nft", &["list", "ruleset"], "")?, &printed)
}

fn a_second_load_is_empty_and_a_changed_one_small() -> Test {
    let host = Namespace::new("node")?;
    natlet(&host, &["load", "-"], TABLE)?;
    let again = natlet(&host, &["load", "-"], TABLE)?;
    holds(&format!("a second load: {again}"), again.starts_with("nothing to change"))?;
    let status = natlet(&host, &["status", "-o", "json"], "")?;
    let id = again.rsplit(' ').next().unwrap().trim();
    holds(&format!("status names {id}: {status}"), status.contains(id))?;
    // one endpoint moves: its slot at each of four frontends, its hairpin pair, and the note of what is loaded
    let moved = natlet(&host, &["load", "-"], &TABLE.replace("10.82.0.82:8443", "10.82.0.83:8443"))?;
    holds(&format!("one endpoint moved: {moved}"), moved.starts_with("1 elements added, 5 changed, 0 removed"))?;
    let status = natlet(&host, &["status"], "")?;
    holds("status after the change", !status.contains(id) && status.contains("content id"))
}

fn a_failed_load_changes_nothing() -> Test {
    let host = Namespace::new("node")?;
    natlet(&host, &["load", "-"], TABLE)?;
    let status = natlet(&host, &["status", "-o", "json"], "")?;
    for (what, table, says) in [
        ("a port out of range", TABLE.replace("port = 443", "port = 70000"), "70000"),
        (
            "two claims on one address",
            TABLE.replace("192.168.5.67", "192.168.5.65").replace("port = 81", "port = 443"),
            "shop/none",
        ),
        ("no table at all", "hello".into(), "no input that natlet knows"),
    ] {
        let output = natlet_with(&host, &["load", "-"], &table);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        same(what, &output.status.code(), &Some(2))?;
        holds(&format!("{what}: {err}"), err.contains(says))?;
        same(what, &natlet(&host, &["status", "-o", "json"], "")?, &status)?;
    }
    Ok(())
}

fn what_others_delete_comes_back() -> Test {
    if !has("nft") {
        return Ok(());
    }
    let host = Namespace::new("node")?;
    natlet(&host, &["load", "-"], TABLE)?;
    let before = tool(&host, "nft", &["list", "ruleset"], "")?;
    let sorted = |text: &str| {
        let mut lines: Vec<String> =
            text.lines().map(|l| l.trim().trim_end_matches([',', '}', ' ']).replace("elements = { ", "")).collect();
        lines.sort();
        lines
    };
    for damage in [
        "delete element ip natlet services { 192.168.5.65 . tcp . 443 }",
        "flush map ip natlet endpoints",
        "add element ip natlet cluster-ips { 192.0.2.77 }",
        "flush chain ip natlet prerouting",
        "add rule ip natlet postrouting accept",
        "add chain ip natlet extra",
        "flush ruleset",
    ] {
        tool(&host, "nft", &["-f", "-"], damage)?;
        let said = natlet(&host, &["load", "-"], TABLE)?;
        holds(&format!("{damage}: {said}"), !said.starts_with("nothing"))?;
        let after = tool(&host, "nft", &["list", "ruleset"], "")?;
        let since = |lines: Vec<String>| lines.into_iter().filter(|l| !l.contains(" since ")).collect::<Vec<_>>();
        same(damage, &since(sorted(&after)), &since(sorted(&before)))?;
    }
    Ok(())
}

/// Services with 1 to 5 endpoints each, spread so that any number of services has the same distinct endpoint counts.
fn large(services: usize, endpoints: usize) -> String {
    let mut text = String::from("[node]\ncluster-cidr = [\"10.128.0.0/9\"]\n");
    for i in 0..services {
        let list: Vec<String> =
            (0..endpoints).map(|e| format!("\"10.{}.{}.{}:8080\"", 128 + (i / 256) % 128, i % 256, 1 + e)).collect();
        text += &format!(
            "[[service]]\nname = \"n{}/s{i}\"\nport = 80\ncluster-ip = \"10.{}.{}.{}\"\nendpoints = [{}]\n",
            i % 50,
            1 + i / 65536,
            (i / 256) % 256,
            i % 256,
            list.join(", ")
        );
    }
    text
}

fn image(toml: &str) -> Result<Image, libtest_mimic::Failed> {
    let input = Input { name: "services.toml".into(), bytes: toml.into(), found: false };
    match load_inputs(vec![input], &NodeFlags::default())? {
        Loaded::Table { table, .. } => Ok(Image::compile(&table.as_table())?),
        Loaded::Program { .. } => Err("a table was given".into()),
    }
}

fn rules_do_not_grow_with_services() -> Test {
    let mut counts = Vec::new();
    for services in [10, 10_000] {
        let host = Namespace::new("node")?;
        let image = image(&large(services, 5))?;
        let (outcome, status) = host.run(|| {
            let mut netlink = Netlink::open()?;
            let outcome = apply(&mut netlink, &lower(&image.program(), "test"))?;
            Ok::<_, natlet::netlink::LoadError>((outcome, kernel::status(&mut netlink)?))
        })?;
        let status = status.ok_or("nothing is loaded")?;
        let table = &status.tables[0];
        same("transactions of a first load", &outcome.phases.len(), &1)?;
        // five slots and a frontend a service, its ClusterIP, five hairpin pairs; pods and the note of what is loaded
        same("elements", &table.elements, &(services * (5 + 1 + 1 + 5) + 2))?;
        counts.push((table.chains, table.rules, table.sets));
    }
    same("chains, rules and sets with 10 and with 10,000 services", &counts[1], &counts[0])
}

fn node_ports_answer_on_loopback_where_asked_for() -> Test {
    let (topology, _servers) = hosts()?;
    let to = "127.0.0.1:31512";
    same("without the flag", &many(&topology.node, Protocol::Tcp, to, 2)?, &vec![ProbeResult::Refused; 2])?;
    natlet(&topology.node, &["load", "--localhost-node-ports", "-"], TABLE)?;
    for (protocol, to) in [(Protocol::Tcp, to), (Protocol::Udp, "127.0.0.1:31514"), (Protocol::Tcp, "127.1.2.3:31512")]
    {
        let (endpoints, sources) = answers(&many(&topology.node, protocol, to, N)?)?;
        same(to, &endpoints.len(), &2)?;
        same(&format!("{to}: sources seen"), &sources, &BTreeSet::from([ip(NODE)]))?;
    }
    Ok(())
}

/// A connection to an endpoint that stays lives on while others come and go.
fn connections_live_through_a_change() -> Test {
    let (topology, _servers) = hosts()?;
    let stream = topology.client.run(|| std::net::TcpStream::connect_timeout(&at("192.168.5.65:443"), TIMEOUT))?;
    let peer = {
        use std::io::Read;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut buffer = [0; 128];
        let n = (&stream).read(&mut buffer)?;
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    let other = if peer.starts_with(PODS[0]) { PODS[1] } else { PODS[0] };
    let gone = format!("\"{other}:8443\"");
    for table in [TABLE.replace(&gone, "\"10.82.0.99:8443\""), TABLE.replace(&gone, ""), TABLE.into()] {
        natlet(&topology.node, &["load", "-"], &table.replace("[, ", "["))?;
    }
    // the server closes only after the client: a connection that was cut would have an error pending
    same("errors on the connection", &stream.take_error()?.map(|e| e.to_string()), &None)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut &stream, &mut rest)?;
    same("bytes after the answer", &rest.len(), &0)
}
