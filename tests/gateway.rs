//! `natlet gateway` on a TUN device between a client and backends: every kind of frontend with real packets, a long transfer,
//! a path with a smaller MTU, refusals, a new program under traffic, counters.
#![allow(clippy::pedantic, missing_docs, reason = "tests read better short")]

mod common;
mod traffic;

use common::site::{at, ip, listeners};
use common::{Test, command, has, holds, same, tool};
use libtest_mimic::Failed;
use natlet::lab::{Listener, Namespace, Plan, Probe, ProbeResult, Servers, Topology, probes};
use natlet_core::table::Protocol;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    common::main(&[
        ("every_frontend_reaches_its_endpoints_and_replies_come_back", every_frontend),
        ("what_has_no_endpoint_is_refused_at_once", refusals),
        ("what_is_no_frontend_passes_untouched", passing),
        ("sources_are_masqueraded_as_the_program_says", sources),
        ("many_connections_at_once", many_at_once),
        ("a_long_transfer_arrives_intact_both_ways", long_transfer),
        ("a_smaller_mtu_behind_the_gateway_is_found", path_mtu),
        ("a_new_program_is_taken_under_traffic", reload),
        ("counters_are_told", counters),
        ("it_ends_when_told_and_leaves_nothing", ends),
        ("figures_under_load", figures),
    ])
}

const TIMEOUT: Duration = Duration::from_secs(2);
const CLIENT: &str = "203.0.113.9";
const CLIENT_6: &str = "2001:db8:c::9";
/// The address that the gateway's own kernel has, and the one that is the translator's.
const KERNEL: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const OWN: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
const PODS: [&str; 2] = ["10.82.0.10", "10.82.0.82"];
const PODS_6: [&str; 2] = ["2001:db8:82::10", "2001:db8:82::82"];
const TUN: &str = "natlet0";

const TABLE: &str = r#"
[node]
ip = ["192.0.2.2", "2001:db8::2"]
cluster-cidr = ["10.82.0.0/16", "2001:db8:82::/64"]

[[service]]
name = "shop/web"
port = 443
cluster-ip = ["192.168.5.65", "2001:db8:5::65"]
load-balancer = ["198.51.100.97", "2001:db8:100::97"]
external-ip = ["198.51.100.98"]
node-port = 31512
endpoints = ["10.82.0.10:8443", "10.82.0.82:8443", "[2001:db8:82::10]:8443", "[2001:db8:82::82]:8443"]

[[service]]
name = "shop/log"
protocol = "udp"
port = 514
cluster-ip = ["192.168.5.66", "2001:db8:5::66"]
load-balancer = ["198.51.100.97", "2001:db8:100::97"]
node-port = 31514
endpoints = ["10.82.0.10:5514", "10.82.0.82:5514", "[2001:db8:82::10]:5514", "[2001:db8:82::82]:5514"]

[[service]]
name = "shop/none"
port = 81
cluster-ip = ["192.168.5.67", "2001:db8:5::67"]
node-port = 31081
endpoints = []

[[service]]
name = "shop/big"
port = 9000
cluster-ip = ["192.168.5.68", "2001:db8:5::68"]
endpoints = ["10.82.0.10:9000", "[2001:db8:82::10]:9000"]
"#;

/// Client, gateway and pods behind it; the gateway's routes are those of the module documentation of `natlet::gateway`.
fn hosts() -> Result<(Topology, Vec<Servers>), Failed> {
    let plan = Plan {
        node: KERNEL.map(ip).to_vec(),
        clients: vec![ip(CLIENT), ip(CLIENT_6)],
        endpoints: vec![ip("10.99.0.1")],
        pods: (0..2).map(|i| vec![ip(PODS[i]), ip(PODS_6[i])]).collect(),
        ..Plan::default()
    };
    let topology = Topology::build(&plan)?;
    tool(&topology.node, "ip", &["tuntap", "add", "dev", TUN, "mode", "tun"], "")?;
    tool(&topology.node, "ip", &["link", "set", TUN, "up", "txqueuelen", "10000"], "")?;
    for (family, routes) in [
        ("-4", &["192.168.5.0/24", "198.51.100.0/24", OWN[0], "10.99.0.0/24"][..]),
        ("-6", &["2001:db8:5::/64", "2001:db8:100::/64", OWN[1]]),
    ] {
        let mut batch: String = routes.iter().map(|to| format!("route add {to} dev {TUN} table 100\n")).collect();
        batch += &format!("rule add not iif {TUN} lookup 100\n");
        tool(&topology.node, "ip", &[family, "-batch", "-"], &batch)?;
    }
    topology.node.sysctl(&format!("net/ipv4/conf/{TUN}/accept_local"), "1")?;
    let mut all = vec![Listener::tcp(at("10.99.0.1:443"))];
    all.extend(PODS.iter().chain(&PODS_6).flat_map(|pod| listeners(ip(pod))));
    let servers = topology.serve(&all)?;
    Ok((topology, servers))
}

/// Without a cluster CIDR nobody is told apart, and sources are kept on the way to a ClusterIP.
fn open_table() -> String {
    TABLE.replace("cluster-cidr = [\"10.82.0.0/16\", \"2001:db8:82::/64\"]", "")
}

/// The routes for connections whose sources are kept: replies must come through the device too, and what the gateway's own
/// kernel has to say about their packets.
fn keep_sources(gateway: &Namespace) -> Test {
    for (family, icmp) in [("-4", "icmp"), ("-6", "ipv6-icmp")] {
        let batch = format!(
            "route add default dev {TUN} table 101\n\
             rule add iif pod0 lookup 101\n\
             rule add iif pod1 lookup 101\n\
             rule add iif lo ipproto {icmp} lookup 101\n"
        );
        tool(gateway, "ip", &[family, "-batch", "-"], &batch)?;
    }
    Ok(())
}

/// A running gateway; it is ended when this is dropped.
struct Gateway {
    child: Child,
    file: PathBuf,
}

impl Gateway {
    fn start(host: &Namespace, table: &str, flags: &[&str]) -> Result<Self, Failed> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("natlet-gateway-{}-{}.toml", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, table)?;
        let mut child = host.run(|| {
            let mut command = command();
            command.args(["gateway", "--tun", TUN]).args(flags).arg(&file);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
        })?;
        let mut line = String::new();
        // it says one line when it is ready; one that fails closes its output instead
        BufReader::new(child.stdout.as_mut().ok_or("an output")?).read_line(&mut line)?;
        let gateway = Self { child, file };
        if line.starts_with("ready") { Ok(gateway) } else { Err(format!("not ready: {line}{}", gateway.end()?).into()) }
    }

    fn signal(&self, signal: Signal) -> Test {
        Ok(kill(Pid::from_raw(self.child.id().try_into()?), signal)?)
    }

    /// Writes another table and has it read.
    fn reload(&self, table: &str) -> Test {
        std::fs::write(&self.file, table)?;
        self.signal(Signal::SIGHUP)
    }

    /// Ends it as an operator does, and returns what it printed on standard error.
    fn end(mut self) -> Result<String, Failed> {
        self.signal(Signal::SIGTERM)?;
        let deadline = Instant::now() + TIMEOUT;
        while self.child.try_wait()?.is_none() {
            holds("it ends when told", Instant::now() < deadline)?;
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut text = String::new();
        self.child.stderr.take().ok_or("an error output")?.read_to_string(&mut text)?;
        let status = self.child.wait()?;
        if status.success() { Ok(text) } else { Err(format!("{status}\n{text}").into()) }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

fn many(host: &Namespace, protocol: Protocol, to: SocketAddr, n: usize) -> Result<Vec<ProbeResult>, Failed> {
    let probe = Probe { protocol, source: None, destination: to };
    Ok(host.run(|| probes(&vec![probe; n], TIMEOUT))?)
}

/// Who answered how often, and the sources that they saw; an error where one did not answer.
fn answers(results: &[ProbeResult]) -> Result<(BTreeMap<SocketAddr, u32>, BTreeSet<IpAddr>), Failed> {
    let (mut endpoints, mut sources) = (BTreeMap::new(), BTreeSet::new());
    for result in results {
        let ProbeResult::Answered { endpoint, seen_source } = result else {
            return Err(format!("{result:?}").into());
        };
        *endpoints.entry(*endpoint).or_default() += 1;
        sources.insert(seen_source.ip());
    }
    Ok((endpoints, sources))
}

const FRONTENDS: [(Protocol, &str); 12] = [
    (Protocol::Tcp, "192.168.5.65:443"),
    (Protocol::Tcp, "198.51.100.97:443"),
    (Protocol::Tcp, "198.51.100.98:443"),
    (Protocol::Tcp, "192.0.2.2:31512"),
    (Protocol::Udp, "192.168.5.66:514"),
    (Protocol::Udp, "198.51.100.97:514"),
    (Protocol::Udp, "192.0.2.2:31514"),
    (Protocol::Tcp, "[2001:db8:5::65]:443"),
    (Protocol::Tcp, "[2001:db8:100::97]:443"),
    (Protocol::Tcp, "[2001:db8::2]:31512"),
    (Protocol::Udp, "[2001:db8:5::66]:514"),
    (Protocol::Udp, "[2001:db8::2]:31514"),
];

fn every_frontend() -> Test {
    if !has("ip") {
        return Ok(());
    }
    let (topology, _servers) = hosts()?;
    let _gateway = Gateway::start(&topology.node, TABLE, &[])?;
    for (protocol, to) in FRONTENDS {
        let to = at(to);
        let port = if protocol == Protocol::Tcp { 8443 } else { 5514 };
        let pods = if to.is_ipv4() { PODS } else { PODS_6 };
        let expected: Vec<_> = pods.iter().map(|pod| SocketAddr::new(ip(pod), port)).collect();
        // the gateway itself is a client too
        for host in [&topology.client, &topology.node] {
            let what = format!("{protocol} {} -> {to}", host.name());
            let (endpoints, sources) = answers(&many(host, protocol, to, 60)?)
                .map_err(|e| format!("{what}: {}", e.message().unwrap_or_default()))?;
            same(&what, &endpoints.keys().copied().collect::<Vec<_>>(), &expected)?;
            // a fair coin leaves this range once in 10^9 runs
            holds(&format!("{what}: {endpoints:?}"), endpoints.values().all(|n| (7..=53).contains(n)))?;
            same(&what, &sources, &BTreeSet::from([ip(OWN[usize::from(to.is_ipv6())])]))?;
        }
    }
    Ok(())
}

fn refusals() -> Test {
    if !has("ip") {
        return Ok(());
    }
    let (topology, _servers) = hosts()?;
    let _gateway = Gateway::start(&topology.node, TABLE, &[])?;
    for host in [&topology.client, &topology.pods[0]] {
        for (protocol, to) in [
            (Protocol::Tcp, "192.168.5.67:81"),
            (Protocol::Tcp, "192.0.2.2:31081"),
            (Protocol::Tcp, "192.168.5.65:444"),
            (Protocol::Udp, "192.168.5.66:515"),
            (Protocol::Tcp, "[2001:db8:5::67]:81"),
            (Protocol::Tcp, "[2001:db8:5::65]:444"),
            (Protocol::Udp, "[2001:db8:5::66]:515"),
        ] {
            let started = Instant::now();
            let what = format!("{protocol} {} -> {to}", host.name());
            same(&what, &many(host, protocol, at(to), 3)?, &vec![ProbeResult::Refused; 3])?;
            holds(&format!("{what}: refused after {:?}", started.elapsed()), started.elapsed() < TIMEOUT / 2)?;
        }
    }
    Ok(())
}

/// What no service has is written back as it came, and the kernel's other routes take it.
fn passing() -> Test {
    if !has("ip") {
        return Ok(());
    }
    let (topology, _servers) = hosts()?;
    let gateway = Gateway::start(&topology.node, TABLE, &[])?;
    let to = at("10.99.0.1:443");
    let (endpoints, sources) = answers(&many(&topology.client, Protocol::Tcp, to, 3)?)?;
    same("endpoint", &endpoints, &BTreeMap::from([(to, 3)]))?;
    same("source", &sources, &BTreeSet::from([ip(CLIENT)]))?;
    // an address that nobody has goes the default way and is not seen here again
    same("nobody", &many(&topology.client, Protocol::Udp, at("198.51.100.9:9"), 1)?, &vec![ProbeResult::TimedOut])?;
    let said = gateway.end()?;
    holds(&said, said.contains("\npassed: ") && !said.contains("forwarded"))
}

fn sources() -> Test {
    if !has("ip") {
        return Ok(());
    }
    let (topology, _servers) = hosts()?;
    // replies to sources that are kept must come through the device too: those of the pods, to the client
    let batch =
        format!("rule add iif pod0 lookup 101\nrule add iif pod1 lookup 101\nroute add default dev {TUN} table 101\n");
    tool(&topology.node, "ip", &["-batch", "-"], &batch)?;
    let seen = |host: &Namespace, to: &str| answers(&many(host, Protocol::Tcp, at(to), 20)?).map(|(_, s)| s);
    let open = open_table();
    let gateway = Gateway::start(&topology.node, &open, &[])?;
    same("ClusterIP without a detector", &seen(&topology.client, "192.168.5.65:443")?, &BTreeSet::from([ip(CLIENT)]))?;
    same("external", &seen(&topology.client, "198.51.100.98:443")?, &BTreeSet::from([ip(OWN[0])]))?;
    gateway.end()?;
    let _gateway = Gateway::start(&topology.node, TABLE, &["--masquerade-all"])?;
    same("--masquerade-all", &seen(&topology.client, "192.168.5.65:443")?, &BTreeSet::from([ip(OWN[0])]))?;
    // a pod keeps its address on the way to another pod, and is masqueraded on the way to itself
    let _gateway = (_gateway.end()?, Gateway::start(&topology.node, TABLE, &[])?).1;
    let pod = seen(&topology.pods[0], "192.168.5.65:443")?;
    same("a pod", &pod, &BTreeSet::from([ip(PODS[0]), ip(OWN[0])]))
}

fn many_at_once() -> Test {
    if !has("ip") {
        return Ok(());
    }
    let (topology, _servers) = hosts()?;
    let gateway = Gateway::start(&topology.node, TABLE, &[])?;
    const N: usize = 3_000;
    let (endpoints, _) = answers(&many(&topology.client, Protocol::Tcp, at("192.168.5.65:443"), N)?)?;
    same("answers", &(endpoints.values().sum::<u32>() as usize), &N)?;
    let said = gateway.end()?;
    holds(&said, said.contains(&format!("flows opened: {N}\n")))
}

fn long_transfer() -> Test {
    if !has("ip") {
        return Ok(());
    }
    let bytes = traffic::transfer_bytes();
    let (topology, _servers) = hosts()?;
    let _gateway = Gateway::start(&topology.node, TABLE, &[])?;
    for to in ["192.168.5.68:9000", "[2001:db8:5::68]:9000"] {
        let to = at(to);
        let pod = if to.is_ipv4() { PODS[0] } else { PODS_6[0] };
        let server = traffic::Transfer::serve(&topology.pods[0], SocketAddr::new(ip(pod), 9000))?;
        let stream = topology.client.run(|| TcpStream::connect_timeout(&to, TIMEOUT))?;
        let speeds = traffic::transfer(stream, bytes)?;
        server.join()?;
        eprintln!("{bytes} bytes each way through {to}: up {:.0} MB/s, down {:.0} MB/s", speeds.0, speeds.1);
    }
    Ok(())
}

fn path_mtu() -> Test {
    if !has("ip") {
        return Ok(());
    }
    for (what, table, keeps) in [("masqueraded", TABLE.to_owned(), false), ("source kept", open_table(), true)] {
        let (topology, _servers) = hosts()?;
        if keeps {
            keep_sources(&topology.node)?;
        }
        let _gateway = Gateway::start(&topology.node, &table, &[])?;
        // both ends of every cable take 1,500 bytes and say so in their MSS; only the gateway's way to the pod does not
        tool(&topology.node, "ip", &["link", "set", "pod0", "mtu", "1300"], "")?;
        for to in ["192.168.5.68:9000", "[2001:db8:5::68]:9000"] {
            let to = at(to);
            let pod = if to.is_ipv4() { PODS[0] } else { PODS_6[0] };
            let learnt = || tool(&topology.client, "ip", &["route", "get", &to.ip().to_string()], "");
            holds("no smaller MTU is known before", !learnt()?.contains("mtu"))?;
            let server = traffic::Transfer::serve(&topology.pods[0], SocketAddr::new(ip(pod), 9000))?;
            let stream = topology.client.run(|| TcpStream::connect_timeout(&to, TIMEOUT))?;
            traffic::upload(stream, 4 << 20)
                .map_err(|e| format!("{what}, {to}: {}", e.message().unwrap_or_default()))?;
            let seen = server.join()?;
            let source = if to.is_ipv4() { CLIENT } else { CLIENT_6 };
            same(&format!("{what}: the source is kept"), &(seen.ip() == ip(source)), &keeps)?;
            let route = learnt()?;
            holds(
                &format!("{what}: the client learns the MTU from an error about its own packet: {route}"),
                route.contains("mtu 1300"),
            )?;
        }
    }
    Ok(())
}

/// The endpoint that a new connection has reached, from its greeting.
fn greeted(stream: &TcpStream) -> Result<String, Failed> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}

/// Waits until what the gateway does is what `done` says.
fn until(what: &str, mut done: impl FnMut() -> Result<bool, Failed>) -> Test {
    let deadline = Instant::now() + TIMEOUT;
    while !done()? {
        holds(what, Instant::now() < deadline)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn reload() -> Test {
    if !has("ip") {
        return Ok(());
    }
    let (topology, _servers) = hosts()?;
    let gateway = Gateway::start(&topology.node, TABLE, &[])?;
    let to = at("192.168.5.65:443");
    let (mut stays, mut goes) = (None, None);
    while stays.is_none() || goes.is_none() {
        let stream = topology.client.run(|| TcpStream::connect_timeout(&to, TIMEOUT))?;
        let slot = if greeted(&stream)?.starts_with(PODS[0]) { &mut stays } else { &mut goes };
        *slot = Some(stream);
    }
    let one = TABLE.replace("\"10.82.0.82:8443\", ", "");
    gateway.reload(&one)?;
    let only = |pod: &str| {
        let (endpoints, _) = answers(&many(&topology.client, Protocol::Tcp, to, 30)?)?;
        Ok::<_, Failed>(endpoints.keys().all(|e| e.ip() == ip(pod)))
    };
    // a connection that is being made to the endpoint that goes dies with it
    until("the new table is in force", || Ok(only(PODS[0]).unwrap_or(false)))?;
    // the server ends a connection when it hears of its client's end: only where packets still pass
    let ended = |stream: &TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(1500)))?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut rest = Vec::new();
        Ok::<_, Failed>({ stream }.read_to_end(&mut rest).is_ok())
    };
    holds("a connection to an endpoint that stays lives", ended(&stays.unwrap())?)?;
    holds("a connection to one that is gone does not", !ended(&goes.unwrap())?)?;
    // a table that cannot be read leaves things as they are
    gateway.reload("hello")?;
    std::thread::sleep(Duration::from_millis(200));
    holds("after a bad table", only(PODS[0])?)?;
    let said = gateway.end()?;
    holds(
        &said,
        said.contains("reloads: 1\n")
            && said.contains("failed reloads: 1\n")
            && said.contains("no input that natlet knows"),
    )
}

fn counters() -> Test {
    if !has("ip") {
        return Ok(());
    }
    let (topology, _servers) = hosts()?;
    let gateway = Gateway::start(&topology.node, TABLE, &["--metrics", "9469"])?;
    answers(&many(&topology.client, Protocol::Tcp, at("192.168.5.65:443"), 5)?)?;
    many(&topology.client, Protocol::Tcp, at("192.168.5.67:81"), 2)?;
    let page = topology.node.run(|| -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&at("127.0.0.1:9469"), TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    })?;
    for line in [
        "HTTP/1.1 200 OK",
        "natlet_program_info{content_id=\"",
        "natlet_gateway_flow_events_total{event=\"opened\"} 5",
        "natlet_gateway_packets_total{result=\"answered\"} 2",
        "natlet_gateway_dropped_packets_total{reason=\"table-full\"} 0",
        "natlet_gateway_flows 5",
        "# EOF",
    ] {
        holds(&format!("the page lacks {line}\n{page}"), page.lines().any(|l| l.starts_with(line)))?;
    }
    let refused = topology.client.run(|| TcpStream::connect_timeout(&at("192.0.2.1:9469"), TIMEOUT));
    holds("the counters are for this machine only", refused.is_err())?;
    gateway.signal(Signal::SIGUSR1)?;
    std::thread::sleep(Duration::from_millis(100));
    let said = gateway.end()?;
    same(&said, &said.matches("flows opened: 5\n").count(), &2)
}

fn ends() -> Test {
    if !has("ip") {
        return Ok(());
    }
    let host = Namespace::new("gateway")?;
    let gateway = Gateway::start(&host, TABLE, &[])?;
    holds("the device is there", tool(&host, "ip", &["link"], "")?.contains(TUN))?;
    let second = host.run(|| command().args(["gateway", "--tun", TUN]).arg(&gateway.file).output())?;
    let err = String::from_utf8_lossy(&second.stderr).into_owned();
    same(&err, &second.status.code(), &Some(1))?;
    holds(&err, err.contains(TUN) && err.contains("another program"))?;
    gateway.end()?;
    holds("the device is gone", !tool(&host, "ip", &["link"], "")?.contains(TUN))?;
    // one that is taken away is an end too, with a message
    let mut gateway = Gateway::start(&host, TABLE, &[])?;
    tool(&host, "ip", &["link", "del", TUN], "")?;
    until("it ends without its device", || Ok(gateway.child.try_wait()?.is_some()))?;
    let mut text = String::new();
    gateway.child.stderr.take().ok_or("an error output")?.read_to_string(&mut text)?;
    same(&text, &gateway.child.wait()?.code(), &Some(1))?;
    holds(&text, text.contains("reading from the TUN device"))
}

fn figures() -> Test {
    if !has("ip") {
        return Ok(());
    }
    let (topology, _servers) = hosts()?;
    let gateway = Gateway::start(&topology.node, TABLE, &[])?;
    let echo = SocketAddr::new(ip(PODS[0]), 9000);
    let server = traffic::Echo::serve(&topology.pods[0], echo)?;
    for (what, to) in [("direct", echo), ("gateway", at("192.168.5.68:9000"))] {
        for connections in [1, 10, 100] {
            let (rate, p50, p99) = topology.client.run(|| traffic::requests(to, connections, traffic::load_time()))?;
            eprintln!("{what:8} {connections:4} connections: {rate:8.0} requests/s, p50 {p50:?}, p99 {p99:?}");
            holds("requests are answered", rate > 100.0)?;
        }
    }
    drop(server);
    let started = Instant::now();
    let n = 2_000;
    answers(&many(&topology.client, Protocol::Tcp, at("192.168.5.65:443"), n)?)?;
    eprintln!("{:.0} new connections/s", n as f64 / started.elapsed().as_secs_f64());
    gateway.end().map(drop)
}
