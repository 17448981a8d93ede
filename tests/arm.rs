//! ARM machines with a kernel of their own, booted by `arm.sh`: alone, where they test themselves, and as the gateway
//! between hosts here, whose real traffic their kernel translates.
//!
//! Kernels are large downloads: without `NATLET_ARM=1` only those that were fetched before are booted.
#![allow(clippy::pedantic, missing_docs, reason = "tests read better short")]

mod common;
#[allow(dead_code, reason = "the gateway's tests use the rest")]
mod traffic;

use common::site::ip;
use common::{Test, has, holds, same, tool};
use libtest_mimic::Failed;
use natlet::lab::{Listener, Namespace, Probe, ProbeResult, Route, Servers, probes, tcp_probe};
use natlet_core::table::{Cidr, Protocol};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};
use traffic::Transfer;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/arm.sh");
const FETCHED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/arm");

fn main() -> ExitCode {
    if common::has_no_cross_compiler() || !["aarch64", "armv7"].into_iter().any(is_wanted) {
        return ExitCode::SUCCESS;
    }
    // the tests have a network of their own, without a way to an archive
    let is_listing = std::env::args().any(|word| word == "--list");
    if !is_listing && !["aarch64", "armv7"].into_iter().all(|name| !is_wanted(name) || image(name)) {
        return ExitCode::FAILURE;
    }
    common::main(&[
        ("aarch64_translates_in_its_own_kernel", || tests_itself("aarch64")),
        ("aarch64_is_a_gateway", || is_a_gateway("aarch64")),
        ("armv7_translates_in_its_own_kernel", || tests_itself("armv7")),
        ("armv7_is_a_gateway", || is_a_gateway("armv7")),
    ])
}

/// Whether a machine shall be booted; says so where it is left out.
fn is_wanted(architecture: &str) -> bool {
    let asked = std::env::var_os("NATLET_ARM").is_some_and(|v| v == "1");
    let wanted = asked || Path::new(FETCHED).join(architecture).join("fetched").exists();
    if !wanted {
        eprintln!("left out: the {architecture} machine, whose kernel is a large download; NATLET_ARM=1 fetches it");
    }
    wanted
}

fn is_ready(architecture: &str) -> bool {
    let emulator = if architecture == "armv7" { "qemu-system-arm" } else { "qemu-system-aarch64" };
    is_wanted(architecture) && has(emulator)
}

fn image(architecture: &str) -> bool {
    let made = Command::new(SCRIPT).args(["--image", architecture]).stdin(Stdio::null()).stdout(Stdio::null()).status();
    made.expect("the script starts").success()
}

fn tests_itself(architecture: &str) -> Test {
    if !is_ready(architecture) {
        return Ok(());
    }
    let output = Command::new(SCRIPT).arg(architecture).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    holds(&format!("the machine passes its tests:\n{said}"), output.status.success())?;
    same("checks that it made", &said.lines().filter(|line| line.starts_with("ok: ")).count(), &25)
}

const CLIENT: &str = "198.51.100.9";
const ENDPOINTS: [&str; 2] = ["10.82.0.10", "10.82.0.82"];
/// Each frontend of the example table, its endpoints' port, and the source that they see.
const FRONTENDS: [(&str, u16, &str); 6] = [
    ("192.168.5.65:80", 80, CLIENT),
    ("192.168.5.65:443", 443, CLIENT),
    ("10.82.0.97:80", 80, "10.82.0.1"),
    ("10.82.0.97:443", 443, "10.82.0.1"),
    ("198.51.100.1:30512", 80, "10.82.0.1"),
    ("198.51.100.1:31512", 443, "10.82.0.1"),
];

/// A running machine, with its console.
struct Machine {
    process: Child,
    lines: Receiver<String>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // to `timeout`, which passes it on
        let _ = i32::try_from(self.process.id()).map(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM));
        let _ = self.process.wait();
    }
}

impl Machine {
    fn boot(architecture: &str, switch: &Namespace) -> Result<Self, Failed> {
        let mut process = switch.run(|| {
            Command::new(SCRIPT)
                .args(["--gateway", architecture, "outside", "inside"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
        })?;
        let console = process.stdout.take().ok_or("the machine has a console")?;
        let (say, lines) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(console).lines().map_while(Result::ok);
            lines.take_while(|line| say.send(line.trim_end().to_owned()).is_ok()).for_each(drop);
        });
        let machine = Self { process, lines };
        machine.expect("ready")?;
        Ok(machine)
    }

    /// Waits for a line.
    fn expect(&self, wanted: &str) -> Test {
        let until = Instant::now() + Duration::from_secs(300);
        let mut said = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if line == wanted {
                return Ok(());
            }
            said.push(line);
        }
        Err(format!("the machine did not say {wanted:?} but:\n{}", said.join("\n")).into())
    }

    /// Waits until it is off.
    fn ends(&self) -> Test {
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(60)) {
            println!("{line}");
        }
        // the console is closed, or the time is over
        same("the machine", &self.lines.try_recv(), &Err(TryRecvError::Disconnected))
    }

    fn order(&mut self, word: &str) -> Test {
        let console = self.process.stdin.as_mut().ok_or("the machine takes orders")?;
        Ok(writeln!(console, "{word}")?)
    }
}

/// A host behind one of the machine's cards.
fn host(switch: &Namespace, tap: &str, gateway: &str, addresses: &[&str]) -> Result<Namespace, Failed> {
    let run = |words: &str| tool(switch, "ip", &words.split_whitespace().collect::<Vec<_>>(), "").map(drop);
    let host = Namespace::new(tap)?;
    run(&format!("link add br-{tap} type bridge mcast_snooping 0"))?;
    run(&format!("tuntap add dev {tap} mode tap"))?;
    switch.links()?.veth(&format!("to-{tap}"), &host, "eth0")?;
    for link in [tap, &format!("to-{tap}")] {
        run(&format!("link set {link} master br-{tap}"))?;
        run(&format!("link set {link} up"))?;
    }
    run(&format!("link set br-{tap} up"))?;
    let mut links = host.links()?;
    for address in addresses {
        links.address("eth0", Cidr { address: ip(address), prefix: 24 })?;
    }
    links.route(Cidr { address: ip("0.0.0.0"), prefix: 0 }, Route::Via(ip(gateway)))?;
    Ok(host)
}

fn is_a_gateway(architecture: &str) -> Test {
    const N: usize = 40;
    const TIMEOUT: Duration = Duration::from_secs(10);
    const TRANSFER: u64 = 16 << 20;
    if !is_ready(architecture) {
        return Ok(());
    }
    let switch = Namespace::new("switch")?;
    switch.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
    let client = host(&switch, "outside", "198.51.100.1", &[CLIENT])?;
    let inside = host(&switch, "inside", "10.82.0.1", &ENDPOINTS)?;
    let at = |port| ENDPOINTS.map(|address| Listener::tcp(SocketAddr::new(ip(address), port)));
    let mut machine = Machine::boot(architecture, &switch)?;

    let nobody = |frontend: &str| {
        let to = frontend.parse().unwrap();
        let result = client.run(|| tcp_probe(None, to, Duration::from_secs(1)))?;
        holds(&format!("{frontend}: {result:?}"), !matches!(result, ProbeResult::Answered { .. }))
    };
    nobody("192.168.5.65:80")?;
    machine.order("load")?;
    machine.expect("done: load 0")?;
    let servers = Servers::start(&inside, &[at(80), at(443)].concat())?;
    for (frontend, port, source) in FRONTENDS {
        let probe = Probe { protocol: Protocol::Tcp, source: None, destination: frontend.parse().unwrap() };
        let mut seen = BTreeSet::new();
        for result in client.run(|| probes(&[probe; N], TIMEOUT))? {
            let ProbeResult::Answered { endpoint, seen_source } = result else {
                return Err(format!("{frontend}: {result:?}").into());
            };
            same(&format!("{frontend}: the source seen"), &seen_source.ip(), &ip(source))?;
            seen.insert(endpoint);
        }
        // all 40 at one of two fair endpoints: once in 500,000,000,000 runs
        same(frontend, &seen, &at(port).map(|listener| listener.address).into())?;
    }
    drop(servers);
    for address in ENDPOINTS {
        Transfer::serve(&inside, SocketAddr::new(ip(address), 443))?; // one of them is chosen
    }
    let stream = client.run(|| TcpStream::connect("10.82.0.97:443"))?;
    let (up, down) = traffic::transfer(stream, TRANSFER)?;
    println!("{architecture}: {up:.1} MB/s up, {down:.1} MB/s down");

    machine.order("unload")?;
    machine.expect("done: unload 0")?;
    nobody("192.168.5.65:80")?;
    nobody("198.51.100.1:30512")?;
    machine.order("off")?;
    machine.expect("verdict: passed")?;
    machine.ends()
}
