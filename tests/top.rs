//! `natlet top`: what it counts is what was connected, on a terminal and for scripts.
#![allow(clippy::pedantic, missing_docs, reason = "tests read better short")]

mod common;

use common::site::{at, site};
use common::{AS_COMMAND, Test, holds, natlet, natlet_with, same};
use libtest_mimic::Failed;
use natlet::lab::{Namespace, Probe, ProbeResult, Servers, Topology, probes};
use natlet_core::table::Protocol;
use nix::pty::{Winsize, openpty};
use serde_json::Value;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::num::NonZero;
use std::process::{Child, Command, ExitCode};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    common::main(&[
        ("once_counts_the_connections_made", once_counts_the_connections_made),
        ("a_changed_service_goes_on_counting", a_changed_service_goes_on_counting),
        ("without_counters_it_says_what_to_do", without_counters_it_says_what_to_do),
        ("the_screen_shows_rates_and_filters", the_screen_shows_rates_and_filters),
    ])
}

const LIMIT: Duration = Duration::from_secs(10);
const TABLE: &str = r#"
[node]
ip = ["192.0.2.1"]
cluster-cidr = ["10.82.0.0/16"]

[[service]]
name = "shop/web:https"
port = 443
cluster-ip = "192.168.5.65"
node-port = 31512
load-balancer = ["198.51.100.97"]
external-policy = "local"
endpoints = [{ address = "10.82.0.10:8443", local = true }, "10.82.0.82:8443"]

[[service]]
name = "shop/log"
protocol = "udp"
port = 514
cluster-ip = "192.168.5.66"
endpoints = ["10.82.0.10:5514"]

[[service]]
name = "shop/none"
port = 81
cluster-ip = "192.168.5.67"
"#;

fn hosts() -> Result<(Topology, Vec<Servers>), Failed> {
    let (topology, servers) = site(&["10.82.0.10", "10.82.0.82"])?;
    topology.node.sysctl("net/netfilter/nf_conntrack_acct", "1")?;
    Ok((topology, servers))
}

/// Makes so many connections from a host, each of which must be answered.
fn connect(host: &Namespace, protocol: Protocol, destination: &str, times: usize) -> Test {
    let probe = Probe { protocol, source: None, destination: at(destination) };
    let results = host.run(|| probes(&vec![probe; times], LIMIT))?;
    let answered = results.iter().filter(|r| matches!(r, ProbeResult::Answered { .. })).count();
    same(&format!("answers of {destination}: {results:?}"), &answered, &times)
}

fn once(host: &Namespace, flags: &[&str]) -> Result<Value, Failed> {
    let flags = [&["top", "--once", "-o", "json", "--interval", "100ms"], flags].concat();
    Ok(serde_json::from_str(&natlet(host, &flags, "")?)?)
}

fn row<'v>(report: &'v Value, name: &str) -> Result<&'v Value, Failed> {
    let rows = report["services"].as_array().ok_or("a list of services")?;
    Ok(rows.iter().find(|r| r["name"] == name).ok_or_else(|| format!("no {name} in {report}"))?)
}

/// Every way in counts once: from outside through each kind of frontend, from the node itself, and from a pod to itself.
fn once_counts_the_connections_made() -> Test {
    let (topology, _servers) = hosts()?;
    let (client, node, pod) = (&topology.client, &topology.node, &topology.pods[0]);
    natlet(node, &["load", "-"], TABLE)?;
    connect(client, Protocol::Tcp, "192.168.5.65:443", 40)?;
    connect(client, Protocol::Tcp, "192.0.2.1:31512", 7)?;
    connect(client, Protocol::Tcp, "198.51.100.97:443", 5)?;
    connect(node, Protocol::Tcp, "192.168.5.65:443", 11)?;
    connect(node, Protocol::Tcp, "192.0.2.1:31512", 3)?;
    connect(pod, Protocol::Tcp, "192.168.5.65:443", 9)?;
    connect(client, Protocol::Udp, "192.168.5.66:514", 25)?;
    let refused = client.run(|| TcpStream::connect_timeout(&at("192.168.5.67:81"), LIMIT));
    holds("shop/none refuses", refused.is_err())?;
    // what is open, and what it carries: the server says one line of some dozens of bytes
    let open: Vec<TcpStream> = (0..4)
        .map(|_| client.run(|| TcpStream::connect_timeout(&at("192.168.5.65:443"), LIMIT)))
        .collect::<Result<_, _>>()?;
    for mut stream in &open {
        let _ = stream.read(&mut [0; 256])?;
    }
    let report = once(node, &[])?;
    same("counting and accounting", &(report["counting"] == true, report["accounting"] == true), &(true, true))?;
    let web = row(&report, "shop/web:https")?;
    same("connections to shop/web", &web["connections"].as_u64(), &Some(40 + 7 + 5 + 11 + 3 + 9 + 4))?;
    holds(&format!("the open ones are live: {web}"), web["flows"].as_u64() >= Some(4))?;
    holds(&format!("they carried bytes: {web}"), web["bytes"].as_u64() > Some(4 * 300))?;
    let log = row(&report, "shop/log")?;
    same("datagrams' flows", &(log["connections"].as_u64(), log["protocol"].as_str()), &(Some(25), Some("udp")))?;
    same("refused ones count too", &row(&report, "shop/none")?["connections"].as_u64(), &Some(1))?;
    let picked = once(node, &["--filter", "LOG"])?;
    same("the filter", &picked["services"].as_array().map(Vec::len), &Some(1))?;
    let table = natlet(node, &["top", "--once", "--sort", "connections", "--interval", "100ms"], "")?;
    let names: Vec<&str> = table.lines().filter_map(|l| l.split_whitespace().next()).collect();
    same("the order", &names, &vec!["SERVICE", "shop/web:https", "shop/log", "shop/none"])
}

/// A new number of endpoints leads to another chain, so the frontend's element is written anew: with its count.
fn a_changed_service_goes_on_counting() -> Test {
    let (topology, _servers) = hosts()?;
    let (client, node) = (&topology.client, &topology.node);
    natlet(node, &["load", "-"], TABLE)?;
    connect(client, Protocol::Tcp, "192.168.5.65:443", 20)?;
    connect(client, Protocol::Udp, "192.168.5.66:514", 10)?;
    let said = natlet(node, &["load", "-"], &TABLE.replace(", \"10.82.0.82:8443\"", ""))?;
    holds(&format!("elements change in place: {said}"), !said.contains("replaced"))?;
    connect(client, Protocol::Tcp, "192.168.5.65:443", 5)?;
    let report = once(node, &[])?;
    same("the changed one", &row(&report, "shop/web:https")?["connections"].as_u64(), &Some(25))?;
    same("the other one", &row(&report, "shop/log")?["connections"].as_u64(), &Some(10))?;
    holds(
        "counts are no difference",
        natlet(node, &["load", "-"], &TABLE.replace(", \"10.82.0.82:8443\"", ""))?.starts_with("nothing"),
    )
}

fn without_counters_it_says_what_to_do() -> Test {
    let host = Namespace::new("node")?;
    let output = natlet_with(&host, &["top", "--once"], "");
    holds("nothing is loaded", String::from_utf8_lossy(&output.stderr).contains("nothing is loaded"))?;
    same("its status", &output.status.code(), &Some(1))?;
    natlet(&host, &["load", "--counters", "off", "-"], TABLE)?;
    host.sysctl("net/netfilter/nf_conntrack_acct", "0")?;
    let output = natlet_with(&host, &["top", "--once", "--interval", "100ms"], "");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    for words in ["--counters on", "sysctl net.netfilter.nf_conntrack_acct=1"] {
        holds(&format!("{words} in: {errors}"), errors.contains(words))?;
    }
    holds("and it is what was asked for", natlet(&host, &["load", "-"], TABLE)?.starts_with("nothing to change"))?;
    natlet(&host, &["load", "--counters", "on", "-"], TABLE)?;
    same("now they count", &once(&host, &[])?["counting"], &Value::Bool(true))
}

/// A terminal with `natlet top` on it.
struct Terminal {
    child: Child,
    keyboard: File,
    output: Receiver<Vec<u8>>,
    screen: vt100::Parser,
}

impl Terminal {
    const ROWS: NonZero<u16> = NonZero::new(24).unwrap();
    const COLUMNS: NonZero<u16> = NonZero::new(100).unwrap();

    fn start(host: &Namespace) -> Result<Self, Failed> {
        let size = Winsize { ws_row: Self::ROWS.get(), ws_col: Self::COLUMNS.get(), ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None)?;
        // a session of its own: the screen is that of this terminal, not of whoever runs the tests
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(std::env::current_exe()?).args(["top", "--interval", "200ms"]);
        command.env(AS_COMMAND, "1").env("TERM", "xterm-256color");
        command.stdin(pty.slave.try_clone()?).stdout(pty.slave.try_clone()?).stderr(pty.slave);
        let child = host.run(|| command.spawn())?;
        drop(command);
        let keyboard = File::from(pty.master);
        let mut reader = keyboard.try_clone()?;
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, keyboard, output, screen: vt100::Parser::new(Self::ROWS, Self::COLUMNS, 0) })
    }

    fn press(&mut self, keys: &str) -> Test {
        Ok(self.keyboard.write_all(keys.as_bytes())?)
    }

    /// Waits until the screen shows what is looked for.
    fn shows(&mut self, what: &str, found: impl Fn(&str) -> bool) -> Result<String, Failed> {
        let started = Instant::now();
        loop {
            let text = self.screen.screen().contents();
            if found(&text) {
                return Ok(text);
            }
            if started.elapsed() > LIMIT {
                return Err(format!("{what} is not on the screen:\n{text}").into());
            }
            if let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(100)) {
                self.screen.process(&bytes);
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn the_screen_shows_rates_and_filters() -> Test {
    if !common::has("setsid") {
        return Ok(());
    }
    let (topology, _servers) = hosts()?;
    let (client, node) = (&topology.client, &topology.node);
    natlet(node, &["load", "-"], TABLE)?;
    let mut terminal = Terminal::start(node)?;
    terminal.shows("a service", |text| text.contains("shop/web:https") && text.contains("NEW/S"))?;
    connect(client, Protocol::Tcp, "192.168.5.65:443", 30)?;
    let line = |text: &str, name: &str| text.lines().find(|l| l.starts_with(name)).map(str::to_owned);
    let rate = |text: &str| line(text, "shop/web")?.split_whitespace().nth(2)?.parse::<f64>().ok();
    let text = terminal.shows("a rate above zero", |text| rate(text) > Some(0.0))?;
    let total = line(&text, "shop/web").and_then(|l| l.split_whitespace().nth(3).map(str::to_owned));
    same("connections", &total.as_deref(), &Some("30"))?;
    holds(&format!("the busiest is first:\n{text}"), text.find("shop/web") < text.find("shop/log"))?;
    println!("{text}");
    terminal.press("/log")?;
    let text = terminal.shows("the filter", |text| text.contains("filter: log") && !text.contains("shop/web"))?;
    holds(&format!("the other is left:\n{text}"), text.contains("shop/log"))?;
    terminal.press("\x1b")?;
    terminal.shows("everything again", |text| text.contains("shop/web") && !text.contains("filter:"))?;
    terminal.press("q")?;
    let started = Instant::now();
    while terminal.child.try_wait()?.is_none() {
        holds("q ends it", started.elapsed() < LIMIT)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = terminal.child.wait()?;
    holds(&format!("it ends well: {status}"), status.success())
}
