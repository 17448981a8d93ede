//! What the agent knows about itself, for the server's thread: metrics, and a small record of the last sync.

use super::counts::Counts;
use super::history::{History, SyncOutcome};
use crate::image::Image;
use crate::netlink::Traffic;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Labels of a build.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: String,
}

/// Which way bytes went.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Way {
    direction: &'static str,
}

/// Everything that is counted. Names are kube-proxy's where the meaning is.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Duration of syncs.
    pub sync_duration: Histogram,
    /// When the last sync succeeded.
    pub last_sync: Gauge<f64, AtomicU64>,
    /// When a change was last seen.
    pub last_queued: Gauge<f64, AtomicU64>,
    /// Syncs that the kernel refused.
    pub sync_failures: Counter,
    /// Conntrack entries removed.
    pub conntrack_deleted: Counter,
    /// Sources that were read.
    pub reads: Counter,
    /// Sources that were refused.
    pub reads_refused: Counter,
    /// 1 while the files say what is in force, 0 while they are refused.
    pub source_ok: Gauge,
    /// Times that others had changed natlet's tables.
    pub drift: Counter,
    /// Overflows of the notification socket that may have hidden a change of others.
    pub events_lost: Counter,
    /// 1 while someone keeps undoing repairs.
    pub contested: Gauge,
    /// 1 if nobody else can change natlet's tables.
    pub owned: Gauge,
    /// Bytes that syncs sent to the kernel and read from it.
    netlink_bytes: Family<Way, Counter>,
    /// Failures to keep the program on disk.
    pub state_failures: Counter,
    /// Service frontends in force.
    pub frontends: Gauge,
    /// What is heard of the API server.
    #[cfg(feature = "kubernetes")]
    pub kubernetes: super::kubernetes::Metrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            sync_duration: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            last_sync: Gauge::default(),
            last_queued: Gauge::default(),
            sync_failures: Counter::default(),
            conntrack_deleted: Counter::default(),
            reads: Counter::default(),
            reads_refused: Counter::default(),
            source_ok: Gauge::default(),
            drift: Counter::default(),
            events_lost: Counter::default(),
            contested: Gauge::default(),
            owned: Gauge::default(),
            netlink_bytes: Family::default(),
            state_failures: Counter::default(),
            frontends: Gauge::default(),
            #[cfg(feature = "kubernetes")]
            kubernetes: super::kubernetes::Metrics::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        let proxy = r.sub_registry_with_prefix("kubeproxy");
        proxy.register(
            "sync_proxy_rules_duration_seconds",
            "Duration of a sync to the kernel",
            self.sync_duration.clone(),
        );
        proxy.register(
            "sync_proxy_rules_last_timestamp_seconds",
            "When the last sync succeeded, Unix time",
            self.last_sync.clone(),
        );
        proxy.register(
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "When a change was last seen, Unix time",
            self.last_queued.clone(),
        );
        proxy.register(
            "sync_proxy_rules_nftables_sync_failures",
            "Syncs that the kernel refused",
            self.sync_failures.clone(),
        );
        proxy.register(
            "conntrack_reconciler_deleted_entries",
            "Conntrack entries removed because their endpoint is gone",
            self.conntrack_deleted.clone(),
        );
        let own = r.sub_registry_with_prefix("natlet");
        own.register("source_reads", "How often the sources were read", self.reads.clone());
        own.register("source_refused", "Sources that were no table and were refused", self.reads_refused.clone());
        own.register("source_ok", "1 if the sources say what is in force", self.source_ok.clone());
        own.register("drift", "Changes of others to natlet's tables that were undone", self.drift.clone());
        own.register(
            "events_lost",
            "Overflows of the notification socket that may have hidden a change of others",
            self.events_lost.clone(),
        );
        own.register("contested", "1 while someone keeps undoing repairs", self.contested.clone());
        own.register("owned", "1 if nobody else can change natlet's tables", self.owned.clone());
        own.register("netlink_bytes", "Bytes between syncs and the kernel", self.netlink_bytes.clone());
        own.register("state_failures", "Failures to keep the program on disk", self.state_failures.clone());
        own.register("frontends", "Frontends in force", self.frontends.clone());
        let build = Family::<Build, Gauge>::default();
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION").into() }).set(1);
        own.register("build_info", "1, with the version as label", build);
        #[cfg(feature = "kubernetes")]
        self.kubernetes.register(&mut self.registry);
    }

    /// Counts what went through the socket of the syncs since it stood at `before`.
    pub fn count_traffic(&self, before: Traffic, now: Traffic) {
        let ways = [("sent", now.sent - before.sent), ("received", now.received - before.received)];
        for (direction, bytes) in ways {
            self.netlink_bytes.get_or_create(&Way { direction }).inc_by(bytes as u64);
        }
    }

    /// The text of `/metrics`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Seconds since the Unix epoch.
pub fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// How the agent stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// When it started.
    pub started: SystemTime,
    /// Content id of what is in force.
    pub content_id: Option<String>,
    /// What is in force.
    pub image: Option<Image>,
    /// Content id of what is wanted.
    pub wanted: Option<String>,
    /// Last success.
    pub last_sync: Option<SystemTime>,
    /// What it was for, what it changed and how long it took.
    pub last_outcome: Option<SyncOutcome>,
    /// What happened, the newest last.
    pub history: History,
    /// Where the last good program is kept, and the sequence numbers of its slots.
    pub state: (PathBuf, [Option<u64>; 2]),
    /// Where tables are read from.
    pub sources: Vec<String>,
    /// Why what is wanted is not in force.
    pub failure: Option<String>,
    /// Why the sources are refused.
    pub refusal: Option<String>,
    /// Last turn of the loop.
    pub beat: Instant,
    /// Health-check node ports of the program in force.
    pub health_checks: Vec<HealthCheck>,
    /// Where they are served; empty: every address.
    pub node_port_addresses: Vec<std::net::IpAddr>,
}

impl Standing {
    fn new() -> Self {
        Self {
            started: SystemTime::now(),
            content_id: None,
            image: None,
            wanted: None,
            last_sync: None,
            last_outcome: None,
            history: History::default(),
            state: Default::default(),
            sources: Vec::new(),
            failure: None,
            refusal: None,
            beat: Instant::now(),
            health_checks: Vec::new(),
            node_port_addresses: Vec::new(),
        }
    }

    /// The loop turned within this time.
    pub fn is_alive(&self, within: Duration) -> bool {
        self.beat.elapsed() < within
    }

    /// It is alive, and what is wanted is in force. A table that is refused leaves the old one wanted.
    pub fn is_healthy(&self, within: Duration) -> bool {
        self.is_alive(within) && self.last_sync.is_some() && self.failure.is_none()
    }
}

/// A `healthCheckNodePort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The port.
    pub port: u16,
    /// Namespace of the service.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Distinct addresses of ready endpoints on this node.
    pub local_endpoints: usize,
}

/// What the loop and the server share. Locks are held for a copy only, never during a sync.
#[derive(Debug)]
pub struct Status {
    /// Counters.
    pub metrics: Metrics,
    /// What services carry.
    pub counts: Counts,
    standing: Mutex<Standing>,
    /// Readable once there is something new for the server.
    news: EventFd,
}

impl Status {
    /// Nothing done yet.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn new() -> Result<Self, Errno> {
        let news = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { metrics: Metrics::default(), counts: Counts::default(), standing: Mutex::new(Standing::new()), news })
    }

    /// A copy.
    pub fn standing(&self) -> Standing {
        self.lock().clone()
    }

    /// Changes it.
    pub fn update(&self, change: impl FnOnce(&mut Standing)) {
        change(&mut self.lock());
    }

    /// Wakes the server.
    pub fn announce(&self) {
        // Full, it is readable already.
        let _ = self.news.write(1);
    }

    /// Becomes readable when there is something new.
    pub fn news(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }

    /// Takes note of what is new.
    pub fn hear(&self) {
        // Nothing new is no error.
        let _ = self.news.read();
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
