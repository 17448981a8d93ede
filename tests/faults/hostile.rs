//! A kernel, a disk and a clock that do not do their part.

use crate::common::{Test, has, holds, natlet, natlet_with, same};
use crate::daemon::{Daemon, LIMIT, Place, within};
use crate::{FIRST, LISTEN, SECOND, THIRD, get, table, ticks, under};
use libtest_mimic::Failed;
use natlet::lab::Namespace;
use natlet::netlink::Netlink;
use natlet::nft::apply::remove;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::process::Command;
use std::time::Duration;

/// Every command that talks to the kernel, and the status with which it fails.
fn each_fails(host: &Namespace, place: &Place, wrapper: &[&str], words: &[&str]) -> Test {
    let state = place.path("state");
    let state = state.to_str().ok_or("a path that is text")?;
    for (arguments, status) in [
        (&["load", place.source()][..], 1),
        (&["unload"], 1),
        (&["status"], 1),
        (&["diff", place.source()], 2),
        (&["run", "--listen", "off", "--state-dir", state, place.source()], 1),
    ] {
        let ended = under(host, wrapper, arguments, Duration::from_secs(5))?;
        ended.failed_with(status, words).map_err(|e| format!("{arguments:?}: {}", e.message().unwrap_or("?")))?;
    }
    Ok(())
}

pub fn without_the_right() -> Test {
    if !has("setpriv") {
        return Ok(());
    }
    let (host, place) = (Namespace::new("node")?, Place::new("right")?);
    place.write(&table(&[FIRST, SECOND]))?;
    natlet(&host, &["load", place.source()], "")?;
    let status = || natlet(&host, &["status", "-o", "json"], "");
    let before = status()?;
    place.write(&table(&[FIRST, THIRD]))?;
    let setpriv = ["setpriv", "--inh-caps=-net_admin", "--bounding-set=-net_admin"];
    each_fails(&host, &place, &setpriv, &["not permitted", "CAP_NET_ADMIN"])?;
    same("what is in force", &status()?, &before)
}

/// A kernel without netfilter netlink has no such socket; one without nf_tables answers that its messages are of an unknown
/// subsystem. `strace` gives socket calls that error, and the first question (20 bytes, GETGEN) a subsystem that
/// no kernel has (14).
pub fn without_nf_tables() -> Test {
    if !has("strace") {
        return Ok(());
    }
    let (host, place) = (Namespace::new("node")?, Place::new("kernel")?);
    place.write(&table(&[FIRST, SECOND]))?;
    for (inject, option) in [
        ("inject=socket:error=EPROTONOSUPPORT", "CONFIG_NETFILTER_NETLINK"),
        ("inject=sendto:poke_enter=@arg2=14000000100e:when=1", "CONFIG_NF_TABLES"),
    ] {
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", inject];
        each_fails(&host, &place, &strace, &["the kernel lacks", option])?;
    }
    Ok(())
}

/// Runs a test where `directory` is a file system of its own, which nobody else sees.
fn with_file_system<T: Send>(
    directory: &std::path::Path,
    flags: MsFlags,
    size: &str,
    work: impl FnOnce() -> Result<T, Failed> + Send,
) -> Result<T, Failed> {
    fs::create_dir_all(directory)?;
    let worker = || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        mount(Some("tmpfs"), directory, Some("tmpfs"), flags, Some(format!("size={size}").as_str()))?;
        work()
    };
    std::thread::scope(|scope| scope.spawn(worker).join()).map_err(|_| "a panic")?
}

pub fn read_only_disk() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("read-only")?);
    place.write(&table(&[FIRST, SECOND]))?;
    with_file_system(&place.path("state"), MsFlags::MS_RDONLY, "1m", || {
        let daemon = Daemon::start(&host, &place, &LISTEN)?;
        daemon.in_force(&host, &place)?;
        within("nothing is said", LIMIT, || Ok(place.log().contains("could not be kept for the next boot")))?;
        holds(&place.log(), place.log().contains("Read-only file system") && place.log().contains("state"))?;
        within("healthy", LIMIT, || Ok(get(&host, "/healthz").is_ok_and(|a| a.starts_with("HTTP/1.1 200"))))?;
        holds("it is counted", !get(&host, "/metrics")?.contains("natlet_state_failures_total 0"))?;
        place.write(&table(&[FIRST, THIRD]))?;
        daemon.in_force(&host, &place)?;
        daemon.stop()
    })
}

/// The disk has room for a small program, not for the next one: that one comes into force, and a boot has the small one.
pub fn full_disk() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("full")?);
    let (small, large) = (table(&[FIRST, SECOND]), {
        let service = |i| {
            format!(
                "[[service]]\nname = \"shop/s{i}\"\nport = 80\ncluster-ip = \"10.1.{}.{}\"\nendpoints = [\"10.82.0.10:80\"]\n",
                i / 250,
                i % 250
            )
        };
        (0..500).map(service).collect::<String>()
    });
    place.write(&small)?;
    with_file_system(&place.path("state"), MsFlags::empty(), "16k", || {
        let daemon = Daemon::start(&host, &place, &LISTEN)?;
        daemon.in_force(&host, &place)?;
        within("not kept", LIMIT, || Ok(place.path("state/program.0").exists()))?;
        place.write(&large)?;
        daemon.in_force(&host, &place)?;
        within("nothing is said", LIMIT, || Ok(place.log().contains("No space left on device")))?;
        within("healthy", LIMIT, || Ok(get(&host, "/healthz").is_ok_and(|a| a.starts_with("HTTP/1.1 200"))))?;
        daemon.kill()?;
        natlet(&host, &["unload"], "")?; // as after a reboot, and without the source
        fs::remove_file(place.source())?;
        let daemon = Daemon::start(&host, &place, &[])?;
        let kept = place.path("kept.toml");
        fs::write(&kept, &small)?;
        daemon.holds(&host, kept.to_str().ok_or("a path that is text")?)?;
        daemon.stop()
    })
}

/// The kernel refuses from some transaction on: what is in force stays, health and metrics tell, and it is tried again.
pub fn a_kernel_that_begins_to_refuse() -> Test {
    if !has("strace") {
        return Ok(());
    }
    let (host, place) = (Namespace::new("node")?, Place::new("refuse")?);
    place.write(&table(&[FIRST, SECOND]))?;
    // only the loop's thread is traced: the server's answers go on
    let strace = ["strace", "-D", "-qq", "-o", "/dev/null", "-e", "inject=sendto:error=ENOMEM:when=40+"];
    let daemon = Daemon::start_under(&host, &place, &strace, place.source(), &LISTEN, &[])?;
    daemon.in_force(&host, &place)?;
    let mut last = SECOND;
    within("never refused", LIMIT, || {
        let health = get(&host, "/healthz")?;
        let refused = health.starts_with("HTTP/1.1 503") && health.contains("Cannot allocate memory");
        if !refused {
            last = if last == SECOND { THIRD } else { SECOND };
            place.write(&table(&[FIRST, last]))?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(refused)
    })?;
    holds(&place.log(), place.log().contains("what is in force stays; next try in"))?;
    holds("it is alive", get(&host, "/livez")?.starts_with("HTTP/1.1 200"))?;
    holds("it is counted", !get(&host, "/metrics")?.contains("nftables_sync_failures_total 0"))?;
    holds("what is in force stays", natlet(&host, &["status"], "")?.contains("table       ip natlet"))?;
    daemon.stop()
}

/// What the agent does in the time it should: a change of the source, and a repair.
fn works(host: &Namespace, place: &Place, daemon: &Daemon, endpoint: &str) -> Test {
    place.write(&table(&[FIRST, endpoint]))?;
    let no_difference = || Ok(natlet_with(host, &["diff", place.source()], "").status.code() == Some(0));
    within("the change is not in force", LIMIT, no_difference)?;
    remove(&mut host.run(Netlink::open)?)?;
    within("not repaired", LIMIT, no_difference)?;
    let before = ticks(daemon.id())?;
    std::thread::sleep(Duration::from_millis(500));
    let spent = ticks(daemon.id())? - before;
    holds(&format!("{spent} ticks at rest"), spent < 10)?;
    holds(&place.log(), !place.log().contains("panicked"))
}

/// The wall clock goes forward and back by days under a running agent (libfaketime reads the step from a file).
pub fn stepping_clock() -> Test {
    if !has("faketime") {
        return Ok(());
    }
    let asked = Command::new("faketime").args(["-f", "+0", "sh", "-c", "echo $LD_PRELOAD"]).output()?;
    let library = String::from_utf8(asked.stdout)?.trim().to_owned();
    let (host, place) = (Namespace::new("node")?, Place::new("clock")?);
    place.write(&table(&[FIRST, SECOND]))?;
    let step = place.path("step");
    fs::write(&step, "+0\n")?;
    let environment = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", step.to_str().ok_or("a path that is text")?),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let flags = [&["--no-owner"], &LISTEN[..]].concat();
    let daemon = Daemon::start_env(&host, &place, place.source(), &flags, &environment)?;
    daemon.in_force(&host, &place)?;
    let year = |answer: &str| -> Option<u32> { answer.split_once("\"currentTime\":\"")?.1.get(..4)?.parse().ok() };
    let mut years = Vec::new();
    for (by, endpoint) in [("+800d", THIRD), ("-800d", SECOND), ("+0", THIRD)] {
        fs::write(&step, format!("{by}\n"))?;
        works(&host, &place, &daemon, endpoint).map_err(|e| format!("{by}: {}", e.message().unwrap_or("?")))?;
        let health = get(&host, "/healthz")?;
        holds(&health, health.starts_with("HTTP/1.1 200") && get(&host, "/livez")?.starts_with("HTTP/1.1 200"))?;
        years.push(year(&health).ok_or(health)?);
    }
    holds(&format!("the clock did step: {years:?}"), years[0] > years[2] && years[1] < years[2])?;
    same("status", &natlet_with(&host, &["status"], "").status.code(), &Some(0))?;
    daemon.stop()
}

/// A node that has been up for 120 years, and one in the first second after its boot.
pub fn late_monotonic_clock() -> Test {
    if !has("unshare") || !std::path::Path::new("/proc/self/ns/time").exists() {
        return Ok(());
    }
    let uptime = fs::read_to_string("/proc/uptime")?;
    let uptime: u64 = uptime.split('.').next().unwrap_or_default().parse()?;
    for offset in ["3800000000".to_owned(), format!("-{}", uptime - 1)] {
        let (host, place) = (Namespace::new("node")?, Place::new("monotonic")?);
        place.write(&table(&[FIRST, SECOND]))?;
        let (monotonic, boot) = (format!("--monotonic={offset}"), format!("--boottime={offset}"));
        // `unshare` waits for the agent, and ends it when it is killed itself
        let wrapper = ["unshare", "--time", &monotonic, &boot, "--kill-child", "--"];
        let flags = [&["--no-owner"], &LISTEN[..]].concat();
        let daemon = Daemon::start_under(&host, &place, &wrapper, place.source(), &flags, &[])?;
        daemon.in_force(&host, &place)?;
        works(&host, &place, &daemon, THIRD).map_err(|e| format!("{offset}: {}", e.message().unwrap_or("?")))?;
        let health = get(&host, "/healthz")?;
        holds(&health, health.starts_with("HTTP/1.1 200"))?;
        daemon.kill()?;
    }
    Ok(())
}
