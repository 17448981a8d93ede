//! Many services, and many changes: figures are printed, those of a release build with `NATLET_BINARY`.

use crate::api::Api;
use crate::cluster::{fill, in_force, put, slice, start};
use crate::common::{Test, holds};
use crate::daemon::{BINARY, LIMIT, Place};
use crate::observe::{memory, metric, metrics, ticks};
use libtest_mimic::Failed;
use natlet::lab::Namespace;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// `services` of them with five endpoints each.
fn many(api: &Api, services: usize) {
    for i in 0..services {
        let pods: Vec<String> =
            (0..5).map(|e| format!("10.{}.{}.{}", 82 + i / 10_000, i / 40 % 250, 1 + (i % 40) * 5 + e)).collect();
        let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
        put(api, &format!("many-{i}"), &format!("10.97.{}.{}", i / 250, 1 + i % 250), &pods);
    }
}

pub fn ten_thousand_services() -> Test {
    let (host, place) = (Namespace::new("node")?, Place::new("kube-many")?);
    let api = Api::start(&host)?;
    fill(&api);
    many(&api, 10_000);
    let started = Instant::now();
    let daemon = start(&host, &place, &api, &[])?;
    let kept = || Ok(place.path("state/program.0").exists());
    let took = crate::daemon::within("not in force", 20 * LIMIT, kept)?;
    println!("10,000 services x 5 in force {took:.1?} after the start of the agent");
    in_force(&host, &place, &api)?;
    let pages = api.requests().iter().filter(|r| r.starts_with("/api/v1/services?") && r.contains("limit=500")).count();
    holds(&format!("{pages} pages of services"), pages == 21)?;
    let before = ticks(daemon.id())?;
    std::thread::sleep(Duration::from_secs(2));
    println!(
        "resident {} kB, at most {} kB; {} ticks of the processor in 2 s at rest; {:.1?} in all",
        memory(daemon.id(), "VmRSS")?,
        memory(daemon.id(), "VmHWM")?,
        ticks(daemon.id())? - before,
        started.elapsed()
    );
    daemon.stop()
}

/// How many changes a second, and for how long.
const RATE: usize = 1000;
const SECONDS: usize = 10;
const SERVICES: usize = 1000;

/// The endpoint that change `i` brings.
fn address(i: usize) -> String {
    format!("10.{}.{}.{}", 200 + i / 60_000, i / 240 % 250, 1 + i % 240)
}

fn change_of(address: [u8; 3]) -> usize {
    let [a, b, c] = address.map(usize::from);
    (a - 200) * 60_000 + b * 240 + c - 1
}

/// From an event at the server to the notification of the kernel that its endpoint is there, or a later one of its slice.
pub fn a_thousand_changes_a_second() -> Test {
    // kube-proxy's default is a second
    let periods: &[&str] = if std::env::var_os(BINARY).is_some() { &["10ms", "100ms", "1s"] } else { &["100ms"] };
    for period in periods {
        let (host, place) = (Namespace::new("node")?, Place::new("kube-rate")?);
        let api = Api::start(&host)?;
        fill(&api);
        many(&api, SERVICES);
        let daemon = start(&host, &place, &api, &["--listen", "127.0.0.1:10249", "--min-sync-period", period])?;
        in_force(&host, &place, &api)?;
        let monitor = Monitor::start(&host)?;
        let used = ticks(daemon.id())?;
        let started = Instant::now();
        let mut sent = Vec::with_capacity(RATE * SECONDS);
        for i in 0..RATE * SECONDS {
            let due = started + Duration::from_micros((i * 1_000_000 / RATE) as u64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            sent.push(Instant::now());
            api.put("EndpointSlice", slice(&format!("many-{}", i % SERVICES), &[&address(i)]));
        }
        let took = started.elapsed();
        in_force(&host, &place, &api)?;
        let used = ticks(daemon.id())? - used;
        std::thread::sleep(Duration::from_millis(300));
        let mut latencies = latencies(&sent, &monitor.seen());
        latencies.sort();
        holds(&format!("{} of {} changes were seen", latencies.len(), sent.len()), latencies.len() > sent.len() / 2)?;
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
        let text = metrics(&host)?;
        println!(
            "{} changes in {took:.1?}, --min-sync-period {period}: event to kernel p50 {:.1?}, p99 {:.1?}, at most {:.1?} ({} seen); \
             {} syncs; {:.0} % of a core",
            sent.len(),
            at(0.5),
            at(0.99),
            at(1.0),
            latencies.len(),
            metric(&text, "kubeproxy_sync_proxy_rules_duration_seconds_count", &[]),
            used as f64 / took.as_secs_f64(),
        );
        daemon.stop()?;
    }
    Ok(())
}

/// Notes which changes the kernel tells of, and when, until it is dropped.
struct Monitor {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<(usize, Instant)>>>,
}

impl Monitor {
    /// Joins nf_tables' notifications (group 7) in a host. `nft monitor` would be slower than what it measures.
    fn start(host: &Namespace) -> Result<Self, Failed> {
        let socket = host.run(|| {
            let kind = (AddressFamily::Netlink, SockType::Raw, SockProtocol::NetlinkNetFilter);
            let socket = socket(kind.0, kind.1, SockFlag::SOCK_CLOEXEC, kind.2)?;
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 1 << (7 - 1)))?;
            Ok::<_, nix::Error>(socket)
        })?;
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20)); // smaller where it is not allowed
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(100))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut seen, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
            while !stopped.load(Ordering::Relaxed) {
                let Ok(length) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) else { continue };
                let now = Instant::now();
                seen.extend(added(&buffer[..length]).map(|i| (i, now)));
            }
            seen
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    fn seen(mut self) -> Vec<(usize, Instant)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|t| t.join().ok()).unwrap_or_default()
    }
}

/// The changes whose endpoints are in NEWSETELEM messages: no other element holds such addresses.
fn added(mut bytes: &[u8]) -> impl Iterator<Item = usize> {
    const NEWSETELEM: [u8; 2] = [12, 10]; // NFT_MSG_NEWSETELEM of NFNL_SUBSYS_NFTABLES
    let mut changes = Vec::new();
    while let Some(length) = bytes.first_chunk().map(|l| u32::from_ne_bytes(*l) as usize).filter(|l| *l >= 16) {
        let message = &bytes[..length.min(bytes.len())];
        if message[4..6] == NEWSETELEM {
            let addresses = message.windows(4).filter(|w| w[0] == 10 && (200..202).contains(&w[1]) && w[3] > 0);
            changes.extend(addresses.map(|w| change_of([w[1], w[2], w[3]])));
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    changes.into_iter()
}

fn latencies(sent: &[Instant], seen: &[(usize, Instant)]) -> Vec<Duration> {
    let mut first: Vec<Option<Instant>> = vec![None; sent.len()];
    for &(i, at) in seen {
        // a later state of a slice is the answer to all earlier ones of it
        let mut earlier = Some(i);
        while let Some(i) = earlier.filter(|i| first.get(*i).is_some_and(Option::is_none)) {
            first[i] = Some(at);
            earlier = i.checked_sub(SERVICES);
        }
    }
    first.iter().zip(sent).filter_map(|(at, sent)| Some(at.as_ref()?.duration_since(*sent))).collect()
}
