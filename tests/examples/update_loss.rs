//! How many new flows are lost while services change: `cargo run --release -p natlet-tests --example update_loss -- [SECONDS
//! [SERVICES]]`. Needs `nft`, and two processors to say anything.
//!
//! A client floods two services of a node with UDP packets, on one processor. On the node a rule behind the translation counts
//! and drops each, so conntrack never learns of a flow and every packet is a new one. Meanwhile, on another processor, both
//! services go to and fro between three endpoints and one, as fast as the kernel takes it: the transactions are those of
//! [`Loader::load`], made once and sent over and over. Counted are packets
//!
//! - that natlet's guard dropped, because their two look-ups fell on both sides of a change (lost new flows);
//! - that left the translation with a service's address (past the guard), or with another service's endpoint (wrong).

#[path = "../common/large.rs"]
mod large;
#[path = "../common/prepared.rs"]
mod prepared;

use natlet::kernel::{Loader, Terms, Trust};
use natlet::lab::{self, Namespace, Plan, Topology};
use natlet_core::table::Cidr;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::error::Error;
use std::fmt::Write as _;
use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The first service is flooded from ports below this, the second from above.
const DIVIDE: u16 = 40_000;

fn main() -> Result<(), Box<dyn Error>> {
    lab::enter()?;
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<u32>());
    let (seconds, services) = (arguments.next().unwrap_or(Ok(10))?, arguments.next().unwrap_or(Ok(100))?);
    let address = |text: &str| text.parse::<IpAddr>();
    let topology = Topology::build(&Plan {
        node: vec![address("192.0.2.1")?],
        clients: vec![address("203.0.113.9")?],
        avoid: vec![Cidr { address: address("192.168.0.0")?, prefix: 16 }],
        ..Plan::default()
    })?;
    let count = format!(
        "table ip count {{\nchain c {{\ntype filter hook prerouting priority -50;\n\
         ip daddr 192.168.5.1-192.168.5.2 counter drop comment \"past\"\n\
         udp sport < {DIVIDE} udp dport 2000-2999 counter drop comment \"wrong\"\n\
         udp sport >= {DIVIDE} udp dport 1000-1999 counter drop comment \"wrong\"\n\
         udp dport 1000-2999 counter drop comment \"right\"\n}}\n}}\n"
    );
    let images =
        [3, 1].map(|few| large::image(&table(services, few)).map_err(|e| e.message().unwrap_or_default().to_owned()));
    let [a, b] = images;
    let images = [a?, b?];
    let mut loader = topology.node.run(Loader::open)?;
    loader.load(&images[0], Terms::default(), Trust::Nothing)?;
    nft(&topology.node, &[&count])?;

    let netlink = loader.netlink();
    let there = prepared::transactions(netlink, &images[0], &images[1])?;
    let back = prepared::transactions(netlink, &images[1], &images[0])?;
    if [&there, &back].iter().any(|batches| batches.len() != 2) {
        return Err(format!("{} and {} transactions, not two each", there.len(), back.len()).into());
    }
    let stop = AtomicBool::new(false);
    let (sent, loads, took) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            stay_on(0);
            topology.client.run(|| flood(&stop))
        });
        stay_on(1);
        let started = Instant::now();
        let mut loads = 0_u64;
        let mut result = Ok(());
        while result.is_ok() && started.elapsed() < Duration::from_secs(seconds.into()) {
            result = [&there, &back].into_iter().flatten().try_for_each(|batch| netlink.send_batch(batch));
            loads += 2;
        }
        let took = started.elapsed();
        stop.store(true, Ordering::Relaxed);
        result.map(|()| (flood.join(), loads, took))
    })?;
    let sent = sent.map_err(|_| "the flood ended early")??;

    let listed = nft(&topology.node, &["list ruleset"])?;
    let packets = |comment: &str| -> u64 { listed.lines().filter(|l| l.contains(comment)).filter_map(counted).sum() };
    let (lost, past, wrong) = (packets("\"guard"), packets("\"past\""), packets("\"wrong\""));
    let (right, changes) = (packets("\"right\""), loads * 2);
    #[expect(clippy::cast_precision_loss, reason = "rates for people")]
    let rate = |n: u64| n as f64 / took.as_secs_f64();
    println!(
        "changes: {changes}, {:.0} a second; flows: {sent}, a second: {:.0}, translated: {right}",
        rate(changes),
        rate(sent)
    );
    #[expect(clippy::cast_precision_loss, reason = "rates for people")]
    let per = lost as f64 * 50_000.0 / changes as f64;
    println!("lost: {lost}, which is {per:.2} in 50,000 changes; past the guard: {past}; to a wrong endpoint: {wrong}");
    if past + wrong > 0 || right == 0 { Err("packets went wrong".into()) } else { Ok(()) }
}

/// Keeps the calling thread on a processor, if there is such a one.
fn stay_on(processor: usize) {
    let mut set = CpuSet::new();
    if set.set(processor).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}

/// Two services with so many endpoints, and others with one and three, so that chains stay.
fn table(services: u32, endpoints: u32) -> String {
    let mut text = String::new();
    for i in 1..=services + 2 {
        let n = if i <= 2 { endpoints } else { 1 + 2 * (i % 2) };
        let list: Vec<String> =
            (1..=n).map(|e| format!("\"10.99.{}.{e}:{}\"", i % 250, i * 1000 % 60_000 + e)).collect();
        let _ = write!(
            text,
            "[[service]]\nname = \"s{i}\"\nprotocol = \"udp\"\nport = 53\ncluster-ip = \"192.168.{}.{}\"\nendpoints = [{}]\n",
            5 + i / 250,
            i % 250,
            list.join(", ")
        );
    }
    text
}

/// Sends to both services until it is told to stop; how many.
fn flood(stop: &AtomicBool) -> std::io::Result<u64> {
    let sockets = [DIVIDE - 1, DIVIDE].map(|port| UdpSocket::bind(("203.0.113.9", port)));
    let [first, second] = sockets;
    let (first, second) = (first?, second?);
    first.connect("192.168.5.1:53")?;
    second.connect("192.168.5.2:53")?;
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..64 {
            sent += u64::from(first.send(b"new").is_ok()) + u64::from(second.send(b"new").is_ok());
        }
    }
    Ok(sent)
}

/// `counter packets N bytes …` of a rule.
fn counted(rule: &str) -> Option<u64> {
    rule.split_once("packets ")?.1.split(' ').next()?.parse().ok()
}

fn nft(host: &Namespace, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
    let output = host.run(|| Command::new("nft").args(arguments).output())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
