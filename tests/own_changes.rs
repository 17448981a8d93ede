//! What an agent's own changes cost it: small ones send what differs and read nothing back, large ones are not taken for
//! somebody else's.
#![allow(clippy::pedantic, missing_docs, reason = "tests read better short")]

#[allow(dead_code, reason = "the agent's own tests use the rest")]
#[path = "agent/daemon.rs"]
mod daemon;
#[path = "common/large.rs"]
mod large;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "agent/observe.rs"]
mod observe;

mod common;

use common::{Test, holds, same, tool};
use daemon::{Daemon, LIMIT, Place, within};
use libtest_mimic::Failed;
use natlet::lab::Namespace;
use observe::{metric, metrics, ticks};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    common::main(&[
        ("a_change_of_one_endpoint_sends_only_that", a_change_of_one_endpoint_sends_only_that),
        ("a_large_change_is_known_to_be_its_own", a_large_change_is_known_to_be_its_own),
        ("a_foreign_change_beside_a_large_one_is_undone", a_foreign_change_beside_a_large_one_is_undone),
    ])
}

const SERVED: [&str; 4] = ["--listen", "127.0.0.1:10249", "--log-level", "debug"];

/// Bytes sent to the kernel and received from it so far.
fn traffic(host: &Namespace) -> Result<[f64; 2], Failed> {
    let text = metrics(host)?;
    Ok(["sent", "received"].map(|way| metric(&text, "natlet_netlink_bytes_total", &[&format!("direction=\"{way}\"")])))
}

/// Puts a table in place and waits until it was put in force; what that sent and received.
fn change(host: &Namespace, place: &Place, text: &str) -> Result<[f64; 2], Failed> {
    let syncs = || place.log().matches("why=\"sources\"").count();
    let (before, done) = (traffic(host)?, syncs());
    place.write(text)?;
    within("no sync", 20 * LIMIT, || Ok(syncs() > done))?;
    let after = traffic(host)?;
    Ok([after[0] - before[0], after[1] - before[1]])
}

fn started(host: &Namespace, place: &Place, text: &str, flags: &[&str]) -> Result<Daemon, Failed> {
    place.write(text)?;
    let flags: Vec<&str> = SERVED.iter().chain(flags).copied().collect();
    let daemon = Daemon::start(host, place, &flags)?;
    within("not in force", 20 * LIMIT, || Ok(place.path("state/program.0").exists()))?;
    Ok(daemon)
}

fn a_change_of_one_endpoint_sends_only_that() -> Test {
    const SERVICES: usize = 10_000;
    let (host, place) = (Namespace::new("node")?, Place::new("one-endpoint")?);
    let daemon = started(&host, &place, &large::table(SERVICES, 1, 200), &[])?;
    // tables, sets and rules are read once after a load that compared everything
    let first = change(&host, &place, &large::table(SERVICES, 1, 201))?;
    let [sent, received] = change(&host, &place, &large::table(SERVICES, 1, 202))?;
    println!(
        "{SERVICES} services, one endpoint moves: {sent} bytes sent, {received} received; {first:?} the first time"
    );
    holds(&format!("{first:?}: less than the elements of one service in a hundred"), first[1] < 100_000.0)?;
    holds(&format!("{sent} bytes sent"), sent > 0.0 && sent < 4096.0)?;
    holds(&format!("{received} bytes received"), received > 0.0 && received < 1024.0)?;
    daemon.stop()
}

/// A change of all endpoints overflows the queue of notifications, whose bytes are some ten times those of the change.
fn a_large_change_is_known_to_be_its_own() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("large-change")?);
    let table = |shift: &str| large::table(4000, 10, 200).replace(", \"11.", &format!(", \"{shift}."));
    let daemon = started(&host, &place, &table("11"), &[])?;
    let [sent, _] = change(&host, &place, &table("12"))?;
    holds(&format!("{sent} bytes sent: not a large change"), sent > 1e6)?;
    std::thread::sleep(Duration::from_millis(500)); // what it would do next
    let (before, used) = (traffic(&host)?, ticks(daemon.id())?);
    std::thread::sleep(Duration::from_secs(1));
    let (after, used) = (traffic(&host)?, ticks(daemon.id())? - used);
    let text = metrics(&host)?;
    println!("{sent} bytes sent; {used} ticks of the processor in a second at rest after it");
    same("bytes at rest", &after, &before)?;
    same("changes that may have been missed", &metric(&text, "natlet_events_lost_total", &[]), &0.0)?;
    let log = place.log();
    holds(&format!("nothing is compared after a change of its own: {log}"), !log.contains("may have changed"))?;
    holds(&format!("{used} ticks of the processor"), used <= 2)?;
    daemon.stop()
}

/// Somebody else's change within the agent's large one: what was heard of it is lost, and it is undone all the same.
fn a_foreign_change_beside_a_large_one_is_undone() -> Test {
    if !common::has("nft") {
        return Ok(());
    }
    let (host, place) = (Namespace::new("node")?, Place::new("beside")?);
    let table = |shift: &str| large::table(4000, 10, 200).replace(", \"11.", &format!(", \"{shift}."));
    let daemon = started(&host, &place, &table("11"), &["--no-owner"])?;
    let foreign = "{ 192.0.2.77 }";
    for shift in ["12", "11", "12", "11"] {
        place.write(&table(shift))?;
        for _ in 0..40 {
            tool(&host, "nft", &["add", "element", "ip", "natlet", "cluster-ips", foreign], "")?;
            std::thread::sleep(Duration::from_millis(10));
        }
        within("not undone", 10 * LIMIT, || {
            Ok(!tool(&host, "nft", &["list", "set", "ip", "natlet", "cluster-ips"], "")?.contains("192.0.2.77"))
        })?;
        daemon.in_force(&host, &place)?;
    }
    daemon.stop()
}
