//! What the agent tells: the status page as text and in a browser, `/status`, and `natlet status`.
#![allow(clippy::pedantic, missing_docs, reason = "tests read better short")]

#[path = "page/browser.rs"]
mod browser;
#[path = "agent/daemon.rs"]
#[allow(dead_code, reason = "the agent's tests use more of it")]
mod daemon;

mod common;

use common::site::{at, site};
use common::{AS_COMMAND, Test, holds, natlet, same};
use daemon::{Daemon, LIMIT, Place, within};
use libtest_mimic::Failed;
use natlet::lab::{Namespace, Probe, ProbeResult, Servers, Topology, probes};
use natlet_core::table::Protocol;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, ExitCode, Output};

fn main() -> ExitCode {
    common::main(&[
        ("the_page_shows_services_and_counts", the_page_shows_services_and_counts),
        ("nobodys_text_becomes_markup", nobodys_text_becomes_markup),
        ("a_large_table_is_a_bounded_page", a_large_table_is_a_bounded_page),
        ("status_tells_of_kernel_and_agent", status_tells_of_kernel_and_agent),
        ("top_asks_the_agent_where_it_may_not_ask_the_kernel", top_asks_the_agent),
        ("a_browser_shows_it_on_a_telephone_too", browser::a_browser_shows_it),
    ])
}

const LISTEN: &str = "127.0.0.1:10249";
const TABLE: &str = r#"
[node]
name = "edge-7"
ip = ["192.0.2.1"]
cluster-cidr = ["10.82.0.0/16"]

[[service]]
name = "shop/web:https"
port = 443
cluster-ip = "192.168.5.65"
node-port = 31512
load-balancer = ["198.51.100.97"]
endpoints = ["10.82.0.10:8443", "10.82.0.82:8443"]
hosts = ["www.example.com", "a-very-long-name-of-a-host-that-nobody-can-type.shop.example.com"]

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

/// A client, a node with an agent in force, and pods that answer.
struct Lab {
    topology: Topology,
    _servers: Vec<Servers>,
    place: Place,
    daemon: Daemon,
}

impl Lab {
    fn start(name: &str) -> Result<Self, Failed> {
        let (topology, servers) = site(&["10.82.0.10", "10.82.0.82"])?;
        topology.node.sysctl("net/netfilter/nf_conntrack_acct", "1")?;
        let place = Place::new(name)?;
        place.write(TABLE)?;
        let daemon = Daemon::start(&topology.node, &place, &["--listen", LISTEN, "--no-owner"])?;
        daemon.in_force(&topology.node, &place)?;
        let answers = || Ok(get(&topology.node, "/livez").is_ok_and(|a| a.starts_with("HTTP/1.1 200")));
        within("it does not answer", LIMIT, answers)?;
        Ok(Self { topology, _servers: servers, place, daemon })
    }

    fn node(&self) -> &Namespace {
        &self.topology.node
    }

    /// Makes so many connections, each of which must be answered.
    fn connect(&self, times: usize) -> Test {
        let probe = Probe { protocol: Protocol::Tcp, source: None, destination: at("192.168.5.65:443") };
        let results = self.topology.client.run(|| probes(&vec![probe; times], 3 * LIMIT))?;
        let answered = results.iter().filter(|r| matches!(r, ProbeResult::Answered { .. })).count();
        same("answers", &answered, &times)
    }
}

fn get(host: &Namespace, path: &str) -> Result<String, Failed> {
    let mut stream = host.run(|| TcpStream::connect_timeout(&at(LISTEN), LIMIT))?;
    stream.set_read_timeout(Some(3 * LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn document(host: &Namespace, path: &str) -> Result<Value, Failed> {
    let answer = get(host, path)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("a head and a body")?;
    holds(head, head.starts_with("HTTP/1.1 200"))?;
    Ok(serde_json::from_str(body)?)
}

/// The number under a heading in a service's row of the page.
fn number(page: &str, service: &str, heading: &str) -> Option<String> {
    let row = page.split("<tr>").find(|row| row.contains(&format!("<b>{service}</b>")))?;
    let cell = row.split(&format!("data-label=\"{heading}\">")).nth(1)?;
    Some(cell.chars().take_while(|c| *c != '<').collect::<String>().trim().to_owned())
}

fn the_page_shows_services_and_counts() -> Test {
    let lab = Lab::start("page")?;
    lab.connect(37)?;
    let answer = get(lab.node(), "/")?;
    let (head, page) = answer.split_once("\r\n\r\n").ok_or("a head and a body")?;
    for field in ["HTTP/1.1 200", "Content-Type: text/html", "default-src 'none'", "frame-ancestors 'none'"] {
        holds(&format!("{field} in {head}"), head.contains(field))?;
    }
    same("connections", &number(page, "shop/web:https", "Connections").as_deref(), &Some("37"))?;
    let id = natlet(lab.node(), &["status", "-o", "json"], "")?;
    let id: Value = serde_json::from_str(&id)?;
    for text in [
        "192.168.5.65:443",
        "198.51.100.97:443",
        "10.82.0.82:8443",
        "www.example.com",
        "none: refused",
        "edge-7",
        "10.82.0.0/16",
        "no. 1",
        id["content_id"].as_str().ok_or("a content id")?,
        ">in force</p>",
    ] {
        holds(&format!("{text} in {page}"), page.contains(text))?;
    }
    // nothing from elsewhere
    for word in ["http://", "https://", "src=", "@import", "url("] {
        holds(&format!("no {word} in {page}"), !page.contains(word))?;
    }
    let picked = get(lab.node(), "/?q=LOG")?;
    holds("the filter picks", picked.contains("<b>shop/log</b>") && !picked.contains("<b>shop/web:https</b>"))?;

    let status = document(lab.node(), "/status")?;
    let web = &status["services"]["shown"].as_array().ok_or("services")?[2];
    same("the name", &web["name"].as_str(), &Some("shop/web:https"))?;
    same("the same count", &web["connections"].as_u64(), &Some(37))?;
    same("both agree", &status["content_id"], &id["content_id"])?;
    same("what is kept", &status["state"]["slots"][0].as_u64(), &Some(1))?;
    let counters = document(lab.node(), "/counters")?;
    same("a report", &counters["services"].as_array().map(Vec::len), &Some(3))?;

    // what others do, and what is refused, is told
    common::tool(lab.node(), "nft", &["delete", "table", "ip", "natlet"], "")?;
    within("no repair is told", LIMIT, || Ok(document(lab.node(), "/status")?["drift"]["repairs"] == 1))?;
    lab.place.write("not = [a table")?;
    within("no refusal is told", LIMIT, || Ok(get(lab.node(), "/")?.contains("The sources are refused")))?;
    let kinds = |status: &Value| -> Vec<String> {
        status["events"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|e| e["kind"].as_str().map(str::to_owned))
            .collect()
    };
    let told = kinds(&document(lab.node(), "/status")?);
    same("events, the newest first", &told, &["refused", "repaired", "changed", "synced"].map(str::to_owned).to_vec())?;
    lab.daemon.stop()
}

fn nobodys_text_becomes_markup() -> Test {
    let lab = Lab::start("escape")?;
    lab.place.write("[[service]]\n'\"><script>alert(1)</script><img src=x onerror=alert(2)>' = [\n")?;
    within("no refusal is told", LIMIT, || Ok(get(lab.node(), "/")?.contains("The sources are refused")))?;
    let page = get(lab.node(), "/?q=%22%3E%3Cscript%3Ealert(3)%3C/script%3E")?;
    for text in ["&lt;script&gt;alert(1)&lt;/script&gt;", "&lt;script&gt;alert(3)&lt;/script&gt;"] {
        holds(&format!("{text} in {page}"), page.contains(text))?;
    }
    holds(&format!("no markup of others: {page}"), !page.contains("<script>alert") && !page.contains("<img"))?;
    same("scripts", &page.matches("<script").count(), &1)?;
    lab.daemon.stop()
}

fn a_large_table_is_a_bounded_page() -> Test {
    let lab = Lab::start("large")?;
    let mut table = String::from("[node]\ncluster-cidr = [\"10.128.0.0/9\"]\n");
    for i in 0..1200 {
        let pods: Vec<String> = (1..=25).map(|e| format!("\"10.{}.{}.{e}:8080\"", 128 + i / 256, i % 256)).collect();
        let (high, low) = (i / 256, i % 256);
        table += &format!(
            "[[service]]\nname = \"n/s{i:04}\"\nport = 80\ncluster-ip = \"10.1.{high}.{low}\"\nendpoints = [{}]\n",
            pods.join(", ")
        );
    }
    lab.place.write(&table)?;
    lab.daemon.in_force(lab.node(), &lab.place)?;
    let page = get(lab.node(), "/")?;
    println!("1,200 services x 25: a page of {} bytes", page.len());
    same("rows", &page.matches("<tr><th scope").count(), &500)?;
    holds(&format!("{} bytes", page.len()), page.len() < 1_000_000)?;
    holds("it says so", page.contains("The first 500 of 1,200") && page.contains("and 5 more"))?;
    let found = get(lab.node(), "/?q=s1199")?;
    holds("the filter finds the others", found.contains("<b>n/s1199</b>"))?;
    let all = document(lab.node(), "/status?services=all")?;
    same("all of them", &all["services"]["shown"].as_array().map(Vec::len), &Some(1200))?;
    lab.daemon.stop()
}

fn status_tells_of_kernel_and_agent() -> Test {
    let lab = Lab::start("status")?;
    let text = natlet(lab.node(), &["status"], "")?;
    for words in ["loaded      ", "content id  ", "agent       in force as wanted", "last sync   ", "repairs     0 of"]
    {
        holds(&format!("{words} in {text}"), text.contains(words))?;
    }
    lab.place.write("not = [a table")?;
    within("no refusal is told", LIMIT, || {
        Ok(natlet(lab.node(), &["status"], "")?.contains("refused     error: TOML"))
    })?;
    let json: Value = serde_json::from_str(&natlet(lab.node(), &["status", "-o", "json"], "")?)?;
    same("the agent's facts", &json["agent"]["content_id"], &json["content_id"])?;
    // without the right to read the kernel's tables, what the agent knows is left
    let output = unprivileged(lab.node(), &["status", "-o", "json"])?;
    let json: Value = serde_json::from_slice(&output.stdout)?;
    same("the agent answers anybody", &(json["loaded"].is_null(), json["agent"]["healthy"] == true), &(true, true))?;
    let node = lab.topology.node.run(|| TcpListener::bind("127.0.0.1:4711"))?;
    let stranger = std::thread::spawn(move || {
        let (mut stream, _) = node.accept()?;
        let _ = stream.read(&mut [0; 1024])?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    });
    let text = natlet(lab.node(), &["status", "--agent", "127.0.0.1:4711"], "")?;
    holds(&format!("another server is none: {text}"), text.contains("no agent of natlet"))?;
    stranger.join().map_err(|_| "the other server fails")??;
    let Lab { topology, daemon, .. } = lab;
    daemon.stop()?;
    let text = natlet(&topology.node, &["status"], "")?;
    holds(
        &format!("the rules are left: {text}"),
        text.contains("content id") && text.contains("agent       none answers"),
    )?;
    let output = unprivileged(&topology.node, &["status"])?;
    same("neither can be asked", &output.status.code(), &Some(1))
}

/// The command without any capability.
fn unprivileged(host: &Namespace, arguments: &[&str]) -> Result<Output, Failed> {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]).arg(std::env::current_exe()?);
    command.args(arguments).env(AS_COMMAND, "1");
    Ok(host.run(|| command.output())?)
}

fn top_asks_the_agent() -> Test {
    let lab = Lab::start("top")?;
    lab.connect(12)?;
    let output = unprivileged(lab.node(), &["top", "--once", "-o", "json", "--interval", "1200ms"])?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: Value = serde_json::from_slice(&output.stdout).map_err(|e| format!("{e}: {errors}"))?;
    let services = report["services"].as_array().ok_or("services")?;
    let web = services.iter().find(|s| s["name"] == "shop/web:https").ok_or("the service")?;
    same("connections", &web["connections"].as_u64(), &Some(12))?;
    holds(&format!("rates: {report}"), report["seconds"].as_f64() > Some(1.0))?;
    lab.daemon.stop()?;
    let output = unprivileged(&lab.topology.node, &["top", "--once"])?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    holds(&format!("both are told: {errors}"), errors.contains("CAP_NET_ADMIN") && errors.contains("nor does an agent"))
}
