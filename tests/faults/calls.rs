//! The n-th system call of a kind fails, for calls, numbers and errors drawn with a fixed seed; `NATLET_FAULTS=all` tries
//! every number of every call with every error.

use crate::common::{Test, has, holds, natlet, natlet_with, same};
use crate::daemon::{Daemon, LIMIT, Place, within};
use crate::{FIRST, Random, SECOND, THIRD, table, under};
use libtest_mimic::Failed;
use natlet::lab::Namespace;
use std::time::Duration;

/// Nothing may hang for longer; the rest is for a busy machine and `strace`.
const ENDS: Duration = Duration::from_secs(2 + 4);

/// A call of a kind that fails.
struct Fault {
    call: &'static str,
    errno: &'static str,
    /// The first is 1.
    number: u64,
    /// All later ones fail too.
    for_good: bool,
}

impl Fault {
    fn inject(&self) -> String {
        let Self { call, errno, number, for_good } = self;
        format!("inject={call}:error={errno}:when={number}{}", if *for_good { "+" } else { "" })
    }
}

/// `count` faults of these calls, each with the number of calls that an undisturbed run makes; all of them where asked for.
fn faults(calls: &[(&'static str, u64, &[&'static str])], count: usize) -> Vec<Fault> {
    let all = calls.iter().flat_map(|&(call, made, errnos)| {
        errnos.iter().flat_map(move |&errno| {
            (1..=made).flat_map(move |number| [false, true].map(|for_good| Fault { call, errno, number, for_good }))
        })
    });
    // the standard library opens and writes files again after EINTR, however often
    let sensible = |f: &Fault| !(f.errno == "EINTR" && f.for_good) || ["sendto", "recvfrom"].contains(&f.call);
    let mut all: Vec<Fault> = all.filter(sensible).collect();
    if std::env::var_os("NATLET_FAULTS").is_some_and(|v| v == "all") {
        return all;
    }
    let mut random = Random(0x6e61_746c_6574);
    (0..count).map(|_| all.swap_remove(random.below(all.len() as u64) as usize)).collect()
}

const NETLINK: &[&str] = &["ENOBUFS", "ENOMEM", "EINTR", "EAGAIN", "EPERM"];
const FILES: &[&str] = &["EIO", "ENOSPC", "EMFILE", "EACCES", "EINTR"];

pub fn of_load() -> Test {
    if !has("strace") {
        return Ok(());
    }
    let (host, place) = (Namespace::new("node")?, Place::new("calls-load")?);
    let calls: &[(&str, u64, &[&str])] = &[
        ("sendto", 45, NETLINK),
        ("recvfrom", 70, NETLINK),
        ("socket,bind,setsockopt,getsockopt,getsockname", 8, NETLINK),
        ("openat", 8, FILES),
        ("write", 1, FILES),
    ];
    let mut failed = 0;
    for (i, fault) in faults(calls, 60).iter().enumerate() {
        place.write(&table(&[FIRST, [SECOND, THIRD][i % 2]]))?;
        let inject = fault.inject();
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject];
        let ended = under(&host, &strace, &["load", place.source()], ENDS)?;
        // 127: the loader of shared libraries met the fault
        holds(&format!("{inject}: {:?}", ended.status), matches!(ended.status, Some(0..=2 | 127)))?;
        holds(&format!("{inject}: {}", ended.said), !ended.said.contains("panicked"))?;
        let can_say = !(fault.call == "write" && fault.for_good);
        holds(&format!("{inject}: it says why"), ended.status == Some(0) || !ended.said.is_empty() || !can_say)?;
        failed += usize::from(ended.status != Some(0));
        natlet(&host, &["load", place.source()], "")
            .map_err(|e| format!("{inject}, then: {}", e.message().unwrap_or("?")))?;
        let difference = natlet_with(&host, &["diff", place.source()], "").status.code();
        same(&format!("{inject}, then load: the difference"), &difference, &Some(0))?;
    }
    println!("{failed} loads failed, the others lived with it; all converged");
    holds("some faults were met", failed > 5)
}

pub fn of_the_agent() -> Test {
    if !has("strace") {
        return Ok(());
    }
    let (host, place) = (Namespace::new("node")?, Place::new("calls-agent")?);
    let calls: &[(&str, u64, &[&str])] = &[
        ("sendto", 45, NETLINK),
        ("recvfrom", 70, NETLINK),
        ("socket,bind,setsockopt,getsockopt,getsockname,signalfd4,eventfd2,inotify_init1", 16, NETLINK),
        ("openat", 24, FILES),
        ("write,fsync,rename,mkdir,unlink", 8, FILES),
        ("poll", 6, &["EINTR", "ENOMEM"]),
        ("inotify_add_watch", 2, &["ENOSPC", "EACCES"]),
    ];
    let (mut ended, mut lived, mut stuck) = (0, 0, 0);
    for (i, fault) in faults(calls, 30).iter().enumerate() {
        place.write(&table(&[FIRST, [SECOND, THIRD][i % 2]]))?;
        let inject = fault.inject();
        let strace = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &inject];
        let mut daemon = Daemon::start_under(&host, &place, &strace, place.source(), &[], &[])?;
        let diff = || natlet_with(&host, &["diff", place.source()], "").status.code() == Some(0);
        let mut status = None;
        let patience = if fault.for_good { Duration::from_secs(2) } else { 3 * LIMIT };
        let settled = within(&inject, patience, || {
            status = daemon.ended()?;
            Ok(status.is_some() || diff())
        });
        match status {
            Some(status) => {
                ended += 1;
                holds(&format!("{inject}: {status}\n{}", place.log()), matches!(status.code(), Some(1 | 127)))?;
            }
            // What fails for good keeps it from its work, not from ending when it is asked to.
            None if settled.is_err() && fault.for_good => stuck += 1,
            None => {
                settled.map_err(|e: Failed| format!("{}\n{}", e.message().unwrap_or("?"), place.log()))?;
                lived += 1;
            }
        }
        drop(daemon);
        holds(&format!("{inject}: {}", place.log()), !place.log().contains("panicked"))?;
        std::fs::write(place.path("log"), "")?;
        let daemon = Daemon::start(&host, &place, &[])?;
        daemon.in_force(&host, &place).map_err(|e| format!("{inject}, then: {}", e.message().unwrap_or("?")))?;
        daemon.kill()?;
    }
    println!("{ended} agents ended and said why, {lived} lived with it, {stuck} waited for better days; all converged");
    Ok(())
}
