//! Tables that belong to the agent.

use crate::common::{Test, has, holds, natlet, natlet_with, same, tool};
use crate::daemon::{Daemon, LIMIT, Place, listed, within};
use crate::{FIRST, SECOND, THIRD, table};
use libtest_mimic::Failed;
use natlet::lab::Namespace;
use natlet::netlink::Netlink;
use std::process::Output;

/// Whether the kernel has tables that belong to a socket and outlive it: from Linux 6.9.
fn kernel_owns() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    let owns = (numbers.next(), numbers.next()) >= (Some(6), Some(9));
    if !owns {
        eprintln!("skipped: Linux {} is older than 6.9", release.trim());
    }
    owns
}

/// The listing without what tells whose the tables are, which a stop of the agent changes.
fn rules(host: &Namespace) -> Result<Vec<String>, Failed> {
    let whose = |l: &String| l.starts_with("flags") && !l.contains("interval");
    let listed = listed(host)?.into_iter().filter(|l| !l.is_empty() && !whose(l));
    Ok(listed.map(|l| l.split(" # progname").next().unwrap_or_default().to_owned()).collect())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn generation(host: &Namespace) -> Result<u32, Failed> {
    Ok(host.run(|| Netlink::open()?.generation())?)
}

pub fn nobody_else_changes_them() -> Test {
    if !has("nft") || !kernel_owns() {
        return Ok(());
    }
    let (host, place) = (Namespace::new("node")?, Place::new("owned")?);
    place.write(&table(&[FIRST, SECOND]))?;
    let daemon = Daemon::start(&host, &place, &[])?;
    daemon.in_force(&host, &place)?;
    let before = listed(&host)?;
    for (change, allowed) in [
        ("table ip other {\n}\nflush ruleset", true),
        ("delete table ip natlet", false),
        ("flush map ip natlet endpoints", false),
        ("delete element ip natlet services { 192.168.5.65 . tcp . 443 }", false),
        ("add chain ip natlet more", false),
        ("flush chain ip natlet prerouting", false),
    ] {
        let done = tool(&host, "nft", &["-f", "-"], change);
        same(&format!("{change}: it is done"), &done.is_ok(), &allowed)?;
        same(&format!("{change}: what is in force"), &listed(&host)?, &before)?;
    }
    // what is printed loads, where no agent is
    let text = tool(&host, "nft", &["list", "ruleset"], "")?;
    tool(&Namespace::new("elsewhere")?, "nft", &["-f", "-"], &text)?;
    tool(&host, "nft", &["-j", "list", "ruleset"], "")?;

    // the other commands say who it is
    let pid = format!("process {} (", daemon.id());
    let status = natlet(&host, &["status"], "")?;
    holds(&format!("{pid}: {status}"), status.contains(&pid))?;
    let json: serde_json::Value = serde_json::from_str(&natlet(&host, &["status", "-o", "json"], "")?)?;
    same("the owner in JSON", &json["owner"]["pid"].as_u64(), &Some(daemon.id().into()))?;
    let other = place.path("other.toml");
    std::fs::write(&other, table(&[THIRD]))?;
    let other = other.to_str().ok_or("a path that is text")?;
    for arguments in [&["load", other][..], &["unload"]] {
        let output = natlet_with(&host, arguments, "");
        same(&format!("{arguments:?}"), &output.status.code(), &Some(1))?;
        let said = said(&output);
        holds(&said, said.contains(&pid) && said.contains("--no-owner"))?;
    }
    let diff = natlet_with(&host, &["diff", other], "");
    same("diff", &diff.status.code(), &Some(1))?;
    holds(&said(&diff), said(&diff).contains(&pid))?;
    same("what is in force", &listed(&host)?, &before)?;

    // the rules outlive the agent, and are anyone's then
    let before = rules(&host)?;
    daemon.stop()?;
    same("what is in force after the end", &rules(&host)?, &before)?;
    holds("nobody owns them", natlet(&host, &["status"], "")?.contains("none: everybody"))?;
    natlet(&host, &["load", other], "")?;
    natlet(&host, &["unload"], "")?;
    same("what is left", &listed(&host)?, &Vec::new())
}

/// Whatever the agent dies of, its rules stay, and the next one makes them its own without writing any.
pub fn a_restart_adopts_them_as_they_are() -> Test {
    if !has("nft") || !kernel_owns() {
        return Ok(());
    }
    let (host, place) = (Namespace::new("node")?, Place::new("adopt")?);
    place.write(&table(&[FIRST, SECOND]))?;
    let handles = || tool(&host, "nft", &["-a", "list", "ruleset"], "");
    let mut daemon = Daemon::start(&host, &place, &[])?;
    daemon.in_force(&host, &place)?;
    for kill in [true, false] {
        let (before, generation_before) = (handles()?, generation(&host)?);
        if kill {
            daemon.kill()?
        } else {
            daemon.stop()?
        }
        same("the generation, which a death leaves", &generation(&host)?, &generation_before)?;
        daemon = Daemon::start(&host, &place, &[])?;
        within("not adopted", LIMIT, || Ok(natlet(&host, &["status"], "")?.contains("process")))?;
        daemon.in_force(&host, &place)?;
        same("transactions of the adoption", &generation(&host)?.wrapping_sub(generation_before), &1)?;
        same("objects, elements and handles", &without_owner(&handles()?), &without_owner(&before))?;
    }
    holds("the log says so", place.log().contains("adopted as they are"))?;
    daemon.stop()
}

/// A listing without the remark of who owns a table.
fn without_owner(listing: &str) -> String {
    listing.lines().map(|l| l.split(" # progname").next().unwrap_or(l)).collect::<Vec<_>>().join("\n")
}

/// Tables that `natlet load` made belong to nobody, and the kernel lets nobody change that: the agent puts its own in their
/// place, or leaves them where that is the wish.
pub fn tables_that_were_anyones() -> Test {
    if !has("nft") || !kernel_owns() {
        return Ok(());
    }
    let (host, place) = (Namespace::new("node")?, Place::new("anyones")?);
    place.write(&table(&[FIRST, SECOND]))?;
    natlet(&host, &["load", place.source()], "")?;
    let (before, generation_before) = (rules(&host)?, generation(&host)?);
    let daemon = Daemon::start(&host, &place, &["--no-owner"])?;
    daemon.in_force(&host, &place)?;
    within("not kept", LIMIT, || Ok(place.path("state/program.0").exists()))?;
    daemon.stop()?;
    same("transactions of an agent that wants no tables of its own", &generation(&host)?, &generation_before)?;
    let daemon = Daemon::start(&host, &place, &[])?;
    within("not owned", LIMIT, || Ok(natlet(&host, &["status"], "")?.contains("process")))?;
    daemon.in_force(&host, &place)?;
    same("transactions until they are the agent's", &generation(&host)?.wrapping_sub(generation_before), &1)?;
    same("what is in force", &rules(&host)?, &before)?;
    let log = place.log();
    holds(&format!("the log says why: {log}"), log.contains("could be changed by anyone"))?;
    daemon.stop()
}

/// A second agent ends at once and says who is first: by the tables' owner, or by the state directory.
pub fn one_agent_at_a_time() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("two")?);
    place.write(&table(&[FIRST, SECOND]))?;
    let first = Daemon::start(&host, &place, &[])?;
    first.in_force(&host, &place)?;
    let elsewhere = place.path("elsewhere");
    let elsewhere = elsewhere.to_str().ok_or("a path that is text")?;
    let state = place.path("state");
    let state = state.to_str().ok_or("a path that is text")?;
    let refused = natlet_with(&host, &["run", "--listen", "off", "--state-dir", state, place.source()], "");
    same("the state directory is taken", &refused.status.code(), &Some(1))?;
    holds(&said(&refused), said(&refused).contains("another natlet run keeps its state in"))?;
    if kernel_owns() {
        for flags in [&[][..], &["--no-owner"]] {
            let arguments = [&["run", "--listen", "off", "--state-dir", elsewhere, place.source()], flags].concat();
            let refused = natlet_with(&host, &arguments, "");
            same("the tables are taken", &refused.status.code(), &Some(1))?;
            let said = said(&refused);
            holds(&said, said.contains(&format!("belong to process {} (", first.id())))?;
        }
    }
    first.stop()
}
