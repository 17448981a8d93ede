//! `natlet run` on a node: files that change in every way files change, other programs that touch its tables, kill -9,
//! a boot without sources, and traffic through all of it.
#![allow(clippy::pedantic, missing_docs, reason = "tests read better short")]

#[path = "agent/daemon.rs"]
mod daemon;
#[path = "agent/service.rs"]
mod service;
#[path = "agent/traffic.rs"]
mod traffic;

mod common;

use common::{Test, has, holds, natlet, natlet_with, same, tool};
use daemon::{Daemon, LIMIT, Place, listed, within};
use natlet::lab::Namespace;
use std::fs;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    common::main(&[
        ("what_others_delete_is_back_within_a_second", what_others_delete_is_back),
        ("someone_who_keeps_flushing_is_not_fought", someone_who_keeps_flushing_is_not_fought),
        ("a_bad_file_is_refused_and_the_old_table_stays", a_bad_file_is_refused),
        ("a_half_written_file_never_loads", a_half_written_file_never_loads),
        ("files_are_followed_through_renames_and_links", files_are_followed),
        ("a_burst_is_few_transactions", a_burst_is_few_transactions),
        ("a_node_boots_with_what_it_had", a_node_boots_with_what_it_had),
        ("kill_9_at_any_moment_ends_with_the_wanted_table", kill_9_at_any_moment),
        ("signals_reload_and_stop", signals_reload_and_stop),
        ("health_and_metrics_are_served", service::health_and_metrics_are_served),
        ("a_load_balancer_asks_for_local_endpoints", service::a_load_balancer_asks_for_local_endpoints),
        ("it_is_small", service::it_is_small),
        ("systemd_is_told", service::systemd_is_told),
        ("the_unit_is_one_that_systemd_accepts", service::the_unit_is_one_that_systemd_accepts),
        ("connections_live_through_many_changes", traffic::connections_live_through_many_changes),
        ("a_udp_client_leaves_a_removed_endpoint", traffic::a_udp_client_leaves_a_removed_endpoint),
    ])
}

/// Two services; what differs is the second endpoint.
pub fn table(endpoint: &str) -> String {
    format!(
        "[node]\nip = [\"192.0.2.1\"]\ncluster-cidr = [\"10.82.0.0/16\"]\n\n[[service]]\nname = \"shop/web:https\"\nport = 443\n\
         cluster-ip = \"192.168.5.65\"\nnode-port = 31512\nendpoints = [\"10.82.0.10:8443\", \"{endpoint}:8443\"]\n\n\
         [[service]]\nname = \"shop/log\"\nprotocol = \"udp\"\nport = 514\ncluster-ip = \"192.168.5.66\"\n\
         endpoints = [\"10.82.0.10:5514\", \"{endpoint}:5514\"]\n"
    )
}

const SECOND: &str = "10.82.0.82";
const OTHER: &str = "10.82.0.83";

fn what_others_delete_is_back() -> Test {
    if !has("nft") {
        return Ok(());
    }
    let (host, place) = (Namespace::new("node")?, Place::new("repair")?);
    tool(&host, "nft", &["-f", "-"], "table ip other {\n chain c {\n }\n}\n")?;
    place.write(&table(SECOND))?;
    let daemon = Daemon::start(&host, &place, &["--no-owner"])?;
    daemon.in_force(&host, &place)?;
    let before = listed(&host)?;
    for damage in [
        "delete element ip natlet services { 192.168.5.65 . tcp . 443 }",
        "flush map ip natlet endpoints",
        "add element ip natlet cluster-ips { 192.0.2.77 }",
        "flush chain ip natlet prerouting",
        "delete table ip natlet",
        "flush ruleset",
    ] {
        tool(&host, "nft", &["-f", "-"], damage)?;
        let foreign = |l: &String| damage == "flush ruleset" && (l.contains("table ip other") || l == "chain c {");
        let wanted: Vec<String> = before.iter().filter(|l| !foreign(l)).cloned().collect();
        let is_back = || {
            let now = listed(&host)?;
            Ok(if damage == "flush ruleset" { wanted.iter().all(|l| now.contains(l)) } else { now == wanted })
        };
        let took = within(&format!("{damage}: not repaired"), LIMIT, is_back)?;
        holds(&format!("{damage}: {took:?}"), took < LIMIT)?;
        println!("repaired after {took:>9.1?} (with the time of `nft list`): {damage}");
        same(
            &format!("{damage}: differences"),
            &natlet_with(&host, &["diff", place.source()], "").status.code(),
            &Some(0),
        )?;
    }
    let log = place.log();
    holds(&format!("the log names who did it: {log}"), log.contains("by=\"nft\""))?;
    daemon.stop()
}

fn someone_who_keeps_flushing_is_not_fought() -> Test {
    if !has("nft") {
        return Ok(());
    }
    let (host, place) = (Namespace::new("node")?, Place::new("fight")?);
    place.write(&table(SECOND))?;
    let daemon = Daemon::start(&host, &place, &["--no-owner"])?;
    daemon.in_force(&host, &place)?;
    for _ in 0..40 {
        tool(&host, "nft", &["flush", "ruleset"], "")?;
        std::thread::sleep(Duration::from_millis(100));
    }
    let log = place.log();
    let repairs = log.matches("why=\"drift\"").count();
    holds(&format!("{repairs} repairs of 40 flushes\n{log}"), (8..=16).contains(&repairs))?;
    holds("the log is loud", log.contains("keeps undoing"))?;
    println!("{repairs} repairs of 40 flushes");
    daemon.stop()
}

fn a_bad_file_is_refused() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("bad")?);
    place.write(&table(SECOND))?;
    let daemon = Daemon::start(&host, &place, &["--log-format", "json"])?;
    daemon.in_force(&host, &place)?;
    let status = natlet(&host, &["status", "-o", "json"], "")?;
    for (i, bad) in ["not = [a table", &table(SECOND).replace("443", "70000"), ""].into_iter().enumerate() {
        place.write(bad)?;
        within("no refusal", LIMIT, || Ok(place.log().matches("refused").count() > i))?;
        same("what is in force", &natlet(&host, &["status", "-o", "json"], "")?, &status)?;
    }
    holds("every line is JSON", place.log().lines().all(|l| serde_json::from_str::<serde_json::Value>(l).is_ok()))?;
    holds("the log says where", place.log().contains("70000"))?;
    place.write(&table(OTHER))?;
    daemon.in_force(&host, &place)?;
    daemon.stop()
}

fn a_half_written_file_never_loads() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("half")?);
    place.write(&table(SECOND))?;
    let daemon = Daemon::start(&host, &place, &[])?;
    daemon.in_force(&host, &place)?;
    let status = natlet(&host, &["status", "-o", "json"], "")?;
    let text = table(OTHER);
    // cut where the rest is a table of its own: only the writer knows that there is more
    let half = text.find("[[service]]\nname = \"shop/log").unwrap();
    let mut file = fs::File::create(place.source())?;
    for part in [&text[..half], &text[half..]] {
        std::thread::sleep(Duration::from_millis(300));
        same("while it is written", &natlet(&host, &["status", "-o", "json"], "")?, &status)?;
        file.write_all(part.as_bytes())?;
        file.sync_all()?;
    }
    std::thread::sleep(Duration::from_millis(300));
    same("before it is closed", &natlet(&host, &["status", "-o", "json"], "")?, &status)?;
    drop(file);
    daemon.in_force(&host, &place)?;
    daemon.stop()
}

fn files_are_followed() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("follow")?);
    // a mounted ConfigMap: the file is a link through `..data`, which is swapped
    let directory = place.path("config");
    fs::create_dir(&directory)?;
    for (version, endpoint) in [("..1", SECOND), ("..2", OTHER)] {
        fs::create_dir(directory.join(version))?;
        fs::write(directory.join(version).join("services.toml"), table(endpoint))?;
    }
    let point = |at: &str| -> std::io::Result<()> {
        std::os::unix::fs::symlink(at, directory.join("..data_tmp"))?;
        fs::rename(directory.join("..data_tmp"), directory.join("..data"))
    };
    point("..1")?;
    std::os::unix::fs::symlink("..data/services.toml", directory.join("services.toml"))?;
    for source in [directory.clone(), directory.join("services.toml")] {
        let source = source.to_str().unwrap().to_owned();
        let daemon = Daemon::start_with(&host, &place, &source, &[])?;
        for version in ["..2", "..1", "..2", "..1"] {
            point(version)?;
            daemon.holds(&host, &source)?;
        }
        daemon.stop()?;
    }
    // a rename into place, and a file that comes and goes in a directory
    let source = directory.join("services.toml");
    fs::write(directory.join(".new"), table("10.82.0.84"))?;
    let daemon = Daemon::start_with(&host, &place, directory.to_str().unwrap(), &[])?;
    fs::rename(directory.join(".new"), &source)?;
    daemon.holds(&host, directory.to_str().unwrap())?;
    let more = "[[service]]\nname = \"shop/more\"\nport = 80\ncluster-ip = \"192.168.5.70\"\nendpoints = [\"10.82.0.10:80\"]\n";
    fs::write(directory.join("more.toml"), more)?;
    daemon.holds(&host, directory.to_str().unwrap())?;
    fs::remove_file(directory.join("more.toml"))?;
    daemon.holds(&host, directory.to_str().unwrap())?;
    daemon.stop()
}

fn a_burst_is_few_transactions() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("burst")?);
    place.write(&table(SECOND))?;
    let daemon = Daemon::start(&host, &place, &["--min-sync-period", "500ms"])?;
    daemon.in_force(&host, &place)?;
    for i in 0..1000 {
        place.write(&table(&format!("10.82.{}.{}", 1 + i / 250, 1 + i % 250)))?;
    }
    daemon.in_force(&host, &place)?;
    let syncs = place.log().matches("why=\"sources\"").count();
    println!("1000 changes: {syncs} syncs");
    holds(&format!("1000 changes made {syncs} syncs"), syncs <= 40)?;
    daemon.stop()
}

fn a_node_boots_with_what_it_had() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("boot")?);
    place.write(&table(SECOND))?;
    let daemon = Daemon::start(&host, &place, &[])?;
    daemon.in_force(&host, &place)?;
    // it is kept once it is in force
    within("not kept", LIMIT, || Ok(place.path("state/program.0").exists()))?;
    daemon.kill()?;
    let diff =
        || Ok(natlet_with(&host, &["diff", place.path("kept.toml").to_str().unwrap()], "").status.code() == Some(0));
    fs::rename(place.source(), place.path("kept.toml"))?;
    natlet(&host, &["unload"], "")?; // as after a reboot
    let daemon = Daemon::start(&host, &place, &[])?;
    within("not loaded from the state", LIMIT, diff)?;
    holds("the log says so", place.log().contains("last good program"))?;
    // the source comes back with something else
    place.write(&table(OTHER))?;
    daemon.in_force(&host, &place)?;
    daemon.stop()
}

/// Changes of the table, and an agent that dies while it reads, writes to the kernel or to the disk.
fn kill_9_at_any_moment() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("kill")?);
    place.write(&table(SECOND))?;
    let mut daemon = Daemon::start(&host, &place, &["--min-sync-period", "1ms"])?;
    for round in 0..50u64 {
        place.write(&table(&format!("10.82.1.{}", 1 + round)))?;
        // from before the first system call to after the last write: a start takes some ten milliseconds
        std::thread::sleep(Duration::from_micros(round * 7919 % 150_000));
        daemon.kill()?;
        daemon = Daemon::start(&host, &place, &["--min-sync-period", "1ms"])?;
    }
    daemon.in_force(&host, &place)?;
    daemon.stop()
}

fn signals_reload_and_stop() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("signals")?);
    place.write(&table(SECOND))?;
    let daemon = Daemon::start(&host, &place, &["--cleanup-on-exit"])?;
    daemon.in_force(&host, &place)?;
    let caps = fs::read_to_string(format!("/proc/{}/status", daemon.id()))?;
    for line in caps.lines().filter(|l| l.starts_with("CapPrm") || l.starts_with("CapEff")) {
        holds(&format!("only CAP_NET_ADMIN: {line}"), line.ends_with("0000000000001000"))?;
    }
    daemon.signal(nix::sys::signal::Signal::SIGHUP)?;
    within("no reload", LIMIT, || Ok(place.log().contains("SIGHUP")))?;
    daemon.in_force(&host, &place)?;
    daemon.stop()?;
    let status = natlet(&host, &["status"], "")?;
    holds(&format!("after the end: {status}"), status.starts_with("nothing is loaded\n"))
}
