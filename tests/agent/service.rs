//! The agent as systemd, load balancers and Prometheus see it.

use crate::common::{Test, holds, same, tool};
use crate::daemon::{Daemon, LIMIT, Place, within};
use crate::{SECOND, table};
use libtest_mimic::Failed;
use natlet::lab::Namespace;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

fn connect(host: &Namespace, port: u16) -> Result<TcpStream, Failed> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let stream = host.run(|| TcpStream::connect_timeout(&address, LIMIT))?;
    stream.set_read_timeout(Some(2 * LIMIT))?;
    stream.set_write_timeout(Some(2 * LIMIT))?;
    Ok(stream)
}

fn get(host: &Namespace, port: u16, path: &str) -> Result<String, Failed> {
    let mut stream = connect(host, port)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

pub fn health_and_metrics_are_served() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("http")?);
    place.write(&table(SECOND))?;
    let daemon = Daemon::start(&host, &place, &["--listen", "127.0.0.1:10249"])?;
    daemon.in_force(&host, &place)?;
    within("not healthy", LIMIT, || {
        Ok(get(&host, 10249, "/healthz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")))
    })?;
    holds("alive", get(&host, 10249, "/livez")?.starts_with("HTTP/1.1 200"))?;
    place.write("not = [a table")?;
    within("no refusal", LIMIT, || {
        Ok(get(&host, 10249, "/metrics").is_ok_and(|answer| answer.contains("natlet_source_refused_total 1")))
    })?;
    let metrics = get(&host, 10249, "/metrics")?;
    for line in ["natlet_source_ok 0", "natlet_frontends 3", "kubeproxy_sync_proxy_rules_duration_seconds_count"] {
        holds(&format!("{line}: {metrics}"), metrics.contains(line))?;
    }
    let health = get(&host, 10249, "/healthz")?;
    holds(
        &format!("a refused table is told: {health}"),
        health.contains("\"refusal\":\"") && health.contains("200 OK"),
    )?;
    // the agent works while its server is abused
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut stream = connect(&host, 10249)?;
        stream.write_all(b"GET / HTTP/1.1\r\nX: ")?;
        slow.push(stream);
    }
    let started = Instant::now();
    holds("served beside 200 slow ones", get(&host, 10249, "/livez")?.starts_with("HTTP/1.1 200"))?;
    println!("served beside 200 half-open requests after {:.1?}", started.elapsed());
    let mut long = connect(&host, 10249)?;
    let sent = (0..1 << 14).try_for_each(|_| long.write_all(&[b'x'; 1 << 10]));
    let mut rest = Vec::new();
    let read = long.read_to_end(&mut rest);
    holds("16 MiB are not taken", sent.is_err() || read.is_err() || rest.starts_with(b"HTTP/1.1 4"))?;
    let last = slow.last_mut().ok_or("a slow one")?;
    let closed = within("a half-open request is never closed", 3 * LIMIT, || {
        last.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(matches!(last.read(&mut [0; 16]), Ok(0)))
    })?;
    println!("a half-open request was closed after {closed:.1?} more");
    place.write(&table(SECOND))?;
    daemon.in_force(&host, &place)?;
    daemon.stop()
}

pub fn a_load_balancer_asks_for_local_endpoints() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("lb")?);
    let table = |node: &str| {
        format!(
            "[node]\nname = \"edge-7\"\n\n[[service]]\nname = \"shop/web\"\nport = 443\nload-balancer = [\"198.51.100.97\"]\n\
             external-policy = \"local\"\nhealth-check-node-port = 30900\n\
             endpoints = [{{ address = \"10.82.0.10:8443\", node = \"{node}\" }}]\n"
        )
    };
    place.write(&table("edge-7"))?;
    let daemon = Daemon::start(&host, &place, &["--listen", "127.0.0.1:10249"])?;
    daemon.in_force(&host, &place)?;
    let says = |code: &str| get(&host, 30900, "/").is_ok_and(|a| a.starts_with(&format!("HTTP/1.1 {code}")));
    within("no endpoint is seen", LIMIT, || Ok(says("200")))?;
    let answer = get(&host, 30900, "/")?;
    holds(&answer, answer.contains("\"localEndpoints\":1") && answer.contains("X-Load-Balancing-Endpoint-Weight: 1"))?;
    place.write(&table("edge-8"))?;
    within("the endpoint is not missed", LIMIT, || Ok(says("503")))?;
    place.write(&crate::table(SECOND))?;
    within("the port is not closed", LIMIT, || Ok(connect(&host, 30900).is_err()))?;
    daemon.stop()
}

/// Resident memory and the processor's time of an agent at rest, after some changes. Budgets are those of a release build.
pub fn it_is_small() -> Test {
    for (services, endpoints, budget) in [(1_000, 5, 10_240), (10_000, 10, 61_440)] {
        let (host, place) = (Namespace::new("node")?, Place::new("small")?);
        let large = |shift: usize| {
            let mut text = String::from("[node]\ncluster-cidr = [\"10.128.0.0/9\"]\n");
            for i in 0..services {
                let pods: Vec<String> = (0..endpoints)
                    .map(|e| format!("\"10.{}.{}.{}:8080\"", 128 + i / 256, i % 256, 1 + e + shift))
                    .collect();
                text += &format!(
                    "[[service]]\nname = \"n{}/s{i}\"\nport = 80\ncluster-ip = \"10.1.{}.{}\"\nendpoints = [{}]\n",
                    i % 50,
                    i / 256,
                    i % 256,
                    pods.join(", ")
                );
            }
            text
        };
        place.write(&large(0))?;
        let daemon = Daemon::start(&host, &place, &[])?;
        within("not in force", 20 * LIMIT, || Ok(place.path("state/program.0").exists()))?;
        for shift in 1..4 {
            place.write(&large(shift))?;
            within("no sync", 20 * LIMIT, || Ok(place.log().matches("why=\"sources\"").count() > shift))?;
        }
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", daemon.id()));
        let field = |name: &str| -> Result<usize, Failed> {
            let status = read("status")?;
            let line = status.lines().find(|l| l.starts_with(name)).ok_or("no such line")?;
            Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
        };
        std::thread::sleep(Duration::from_millis(500));
        let ticks = || {
            Ok::<_, Failed>(read("stat")?.split_whitespace().skip(13).take(2).map(str::to_owned).collect::<Vec<_>>())
        };
        let before = ticks()?;
        std::thread::sleep(Duration::from_secs(1));
        println!(
            "{services} services x {endpoints}: resident {} kB, at most {} kB; processor ticks in a second at rest: {before:?} to {:?}",
            field("VmRSS")?,
            field("VmHWM")?,
            ticks()?
        );
        if std::env::var_os(crate::daemon::BINARY).is_some() {
            holds("resident memory is within its budget", field("VmRSS")? <= budget)?;
        }
        daemon.stop()?;
    }
    Ok(())
}

pub fn systemd_is_told() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("notify")?);
    place.write(&table(SECOND))?;
    let socket = UnixDatagram::bind(place.path("notify"))?;
    socket.set_read_timeout(Some(LIMIT))?;
    let path = place.path("notify").to_str().ok_or("a path that is text")?.to_owned();
    let daemon = Daemon::start_env(
        &host,
        &place,
        place.source(),
        &[],
        &[("NOTIFY_SOCKET", &path), ("WATCHDOG_USEC", "400000")],
    )?;
    let next = |wanted: &str| {
        for _ in 0..50 {
            let mut buffer = [0; 512];
            let length = socket.recv(&mut buffer)?;
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.lines().any(|l| l == wanted) {
                return Ok::<_, Failed>(());
            }
        }
        Err(format!("no {wanted}").into())
    };
    next("READY=1")?;
    daemon.in_force(&host, &place)?;
    (0..3).try_for_each(|_| next("WATCHDOG=1"))?;
    daemon.signal(nix::sys::signal::Signal::SIGHUP)?;
    next("RELOADING=1")?;
    next("READY=1")?;
    daemon.signal(nix::sys::signal::Signal::SIGTERM)?;
    next("STOPPING=1")?;
    daemon.stop()
}

pub fn the_unit_is_one_that_systemd_accepts() -> Test {
    // not one of the tools that the tests install: a container has no systemd
    if std::process::Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("skipped: `systemd-analyze` is not in PATH");
        return Ok(());
    }
    let (host, place) = (Namespace::new("node")?, Place::new("unit")?);
    let unit = include_str!("../../runtime-linux/systemd/natlet.service");
    // the unit's program is not installed here
    let path = place.path("natlet.service");
    std::fs::write(&path, unit.replace("/usr/bin/natlet", "/bin/true"))?;
    let said = tool(&host, "systemd-analyze", &["verify", path.to_str().unwrap()], "")?;
    same("remarks", &said, &String::new())
}
