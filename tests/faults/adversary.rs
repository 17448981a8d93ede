//! Other programs that undo what the agent does, where the tables are everybody's.

use crate::common::{Test, has, holds, natlet_with, same, tool};
use crate::daemon::{BINARY, Daemon, LIMIT, Place, within};
use crate::{FIRST, LISTEN, SECOND, get, table, ticks};
use libtest_mimic::Failed;
use natlet::kernel;
use natlet::lab::Namespace;
use natlet::netlink::Netlink;
use natlet::nft::apply::remove;
use std::time::{Duration, Instant};

/// Events of each kind.
const EVENTS: usize = 20;
/// As many as an agent undoes without waiting are done to one agent.
const AT_ONCE: usize = 7;

pub fn single_changes_are_undone() -> Test {
    if !has("nft") {
        return Ok(());
    }
    let (host, place) = (Namespace::new("node")?, Place::new("single")?);
    place.write(&table(&[FIRST, SECOND]))?;
    let foreign = "table ip other {\n set s {\n type ipv4_addr\n elements = { 198.51.100.7 }\n }\n}\n";
    let listed = || tool(&host, "nft", &["list", "table", "ip", "other"], "");
    let mut netlink = host.run(Netlink::open)?;
    for damage in [
        "delete element ip natlet services { 192.168.5.65 . tcp . 443 }",
        "flush map ip natlet endpoints",
        "flush chain ip natlet prerouting",
        "delete table ip natlet",
        "flush ruleset",
    ] {
        let mut times: Vec<Duration> = Vec::new();
        while times.len() < EVENTS {
            let daemon = Daemon::start(&host, &place, &["--no-owner"])?;
            daemon.in_force(&host, &place)?;
            let whole = kernel::status(&mut netlink)?.ok_or("nothing is loaded")?.tables;
            for _ in times.len()..EVENTS.min(times.len() + AT_ONCE) {
                tool(&host, "nft", &["-f", "-"], foreign)?;
                let before = listed()?;
                tool(&host, "nft", &["-f", "-"], damage)?;
                times.push(within(&format!("{damage}: not repaired"), LIMIT, || {
                    Ok(kernel::status(&mut netlink)?.is_some_and(|now| now.tables == whole))
                })?);
                if damage != "flush ruleset" {
                    same("another's table", &listed()?, &before)?;
                }
            }
            same(damage, &natlet_with(&host, &["diff", place.source()], "").status.code(), &Some(0))?;
            daemon.stop()?;
        }
        times.sort();
        let (median, most) = (times[EVENTS / 2], times[EVENTS - 1]);
        println!("{EVENTS} x {damage}: repaired after {median:.1?} (median), {most:.1?} (most)");
        holds(&format!("{damage}: {most:?}"), most < Duration::from_secs(1))?;
    }
    Ok(())
}

/// 1,000 services with 5 endpoints each.
fn thousand_services() -> String {
    let mut text = String::from("[node]\ncluster-cidr = [\"10.128.0.0/9\"]\n");
    for i in 0..1000 {
        let (high, low) = (i / 256, i % 256);
        let pods: Vec<String> = (1..=5).map(|e| format!("\"10.{}.{low}.{e}:8080\"", 128 + high)).collect();
        text += &format!(
            "[[service]]\nname = \"n/s{i}\"\nport = 80\ncluster-ip = \"10.1.{high}.{low}\"\nendpoints = [{}]\n",
            pods.join(", ")
        );
    }
    text
}

/// Ten times a second everything is deleted, for 12 seconds.
pub fn a_flood_of_flushes_costs_little() -> Test {
    const TIMES: u32 = 120;
    let (host, place) = (Namespace::new("node")?, Place::new("flood")?);
    place.write(&thousand_services())?;
    let daemon = Daemon::start(&host, &place, &[&["--no-owner"], &LISTEN[..]].concat())?;
    daemon.in_force(&host, &place)?;
    let metric = |name: &str| -> Result<u64, Failed> {
        let metrics = get(&host, "/metrics")?;
        let line = metrics.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.ok_or(format!("no {name}: {metrics}"))?.parse()?)
    };
    let mut netlink = host.run(Netlink::open)?;
    let (started, before) = (Instant::now(), ticks(daemon.id())?);
    for i in 1..=TIMES {
        remove(&mut netlink)?;
        std::thread::sleep((started + i * Duration::from_millis(100)).saturating_duration_since(Instant::now()));
    }
    let share = (ticks(daemon.id())? - before) as f64 / started.elapsed().as_secs_f64(); // of 100 ticks a second
    let repairs = metric("natlet_drift_total")?;
    println!(
        "{TIMES} flushes of 1,000 services in {:.1?}: {repairs} repairs, {share:.1} % of a core",
        started.elapsed()
    );
    holds(&format!("{repairs} repairs"), (8..=18).contains(&repairs))?;
    same("natlet_contested", &metric("natlet_contested")?, &1)?;
    holds("the log is loud", place.log().contains("keeps undoing"))?;
    // an unoptimized build works longer for each repair
    let budget = if std::env::var_os(BINARY).is_some() { 5.0 } else { 15.0 };
    holds(&format!("{share:.1} % of a core, at most {budget}"), share <= budget)?;
    // it never gives up: left in peace, it ends right
    within("given up", 5 * LIMIT, || Ok(natlet_with(&host, &["diff", place.source()], "").status.code() == Some(0)))?;
    daemon.stop()
}
