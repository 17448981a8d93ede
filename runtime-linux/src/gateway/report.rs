//! The gateway's counters, for people and for Prometheus.

use natlet_core::translate::Counters;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info};
use prometheus_client::registry::{Registry, Unit};
use std::fmt::Write as _;
use std::time::Duration;

/// What the engine counts besides the translator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// Frames read from the device.
    pub read: u64,
    /// Bytes of their packets.
    pub bytes: u64,
    /// Frames that the device did not take.
    pub unsent: u64,
    /// Frames whose offload header does not fit their packet.
    pub misfits: u64,
    /// Times that the device had something to read.
    pub wake_ups: u64,
    /// Programs that took the place of another.
    pub reloads: u64,
    /// Reloads that failed; the program before them stayed.
    pub failed_reloads: u64,
}

/// All that is reported, at one moment.
#[derive(Clone, Debug)]
pub struct Report {
    /// The translator's counters.
    pub counters: Counters,
    /// The engine's own.
    pub frames: Frames,
    /// Flows that are remembered.
    pub flows: u32,
    /// Flows of each address family that there is memory for.
    pub capacity: usize,
    /// The program's content id.
    pub content_id: String,
    /// How long the gateway has run.
    pub uptime: Duration,
}

type Labels = [(&'static str, &'static str); 1];

impl Report {
    /// OpenMetrics text.
    pub fn open_metrics(&self) -> String {
        let mut registry = Registry::with_prefix("natlet");
        registry.register("program", "The program in force", Info::new(vec![("content_id", self.content_id.clone())]));
        let uptime: Gauge<f64, std::sync::atomic::AtomicU64> = Gauge::default();
        uptime.set(self.uptime.as_secs_f64());
        registry.register_with_unit("gateway_uptime", "Time since the start", Unit::Seconds, uptime);
        let gateway = registry.sub_registry_with_prefix("gateway");
        let c = &self.counters;
        let results = [("forwarded", c.forwarded), ("passed", c.passed), ("answered", c.answered)];
        gateway.register(
            "packets",
            "Packets by what became of them; see dropped_packets too",
            family("result", results),
        );
        let drops = c.drops().map(|(reason, n)| (reason.name(), n));
        gateway.register("dropped_packets", "Packets that vanished, by reason", family("reason", drops));
        let events = [
            ("opened", c.flows_opened),
            ("expired", c.flows_expired),
            ("evicted", c.flows_evicted),
            ("replaced", c.flows_replaced),
        ];
        gateway.register("flow_events", "Flows that began, and that ended by cause", family("event", events));
        gateway.register(
            "affinity_evictions",
            "Clients whose endpoint was forgotten early",
            counter(c.affinity_evicted),
        );
        gateway.register("flows", "Flows that are remembered", gauge(self.flows.into()));
        let capacity = i64::try_from(self.capacity).unwrap_or(i64::MAX);
        gateway.register("flow_capacity", "Flows of each address family that there is memory for", gauge(capacity));
        let f = &self.frames;
        gateway.register("frames", "Frames read from the TUN device", counter(f.read));
        gateway.register("frame_bytes", "Bytes of packets read from the TUN device", counter(f.bytes));
        gateway.register("unsent_frames", "Frames that the TUN device did not take", counter(f.unsent));
        gateway.register("misfit_frames", "Frames whose offload header does not fit", counter(f.misfits));
        gateway.register("wake_ups", "Times that there was something to read", counter(f.wake_ups));
        let reloads = [("done", f.reloads), ("failed", f.failed_reloads)];
        gateway.register("reloads", "Programs read again", family("result", reloads));
        let mut text = String::new();
        // writing to a string does not fail
        let _ = encode(&mut text, &registry);
        text
    }

    /// Lines for people; counters that are zero are left out.
    pub fn lines(&self) -> String {
        let (c, f) = (&self.counters, &self.frames);
        let mut out = format!("program {}, up {}\n", self.content_id, humantime::format_duration(whole(self.uptime)));
        let _ = writeln!(out, "flows: {}, room for {} of each address family", self.flows, self.capacity);
        let drops = c.drops().map(|(reason, n)| (format!("dropped, {reason}"), n));
        let counts = [
            ("packets read", f.read),
            ("bytes read", f.bytes),
            ("forwarded", c.forwarded),
            ("passed", c.passed),
            ("answered", c.answered),
            ("flows opened", c.flows_opened),
            ("flows expired", c.flows_expired),
            ("flows evicted", c.flows_evicted),
            ("flows ended by a new program", c.flows_replaced),
            ("affinities evicted", c.affinity_evicted),
            ("unsent", f.unsent),
            ("misfits", f.misfits),
            ("wake-ups", f.wake_ups),
            ("reloads", f.reloads),
            ("failed reloads", f.failed_reloads),
        ];
        for (what, n) in counts.map(|(what, n)| (what.to_owned(), n)).into_iter().chain(drops).filter(|(_, n)| *n > 0) {
            let _ = writeln!(out, "{what}: {n}");
        }
        out
    }
}

fn whole(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

fn counter(value: u64) -> Counter {
    let counter = Counter::default();
    counter.inc_by(value);
    counter
}

fn family(label: &'static str, values: impl IntoIterator<Item = (&'static str, u64)>) -> Family<Labels, Counter> {
    let family = Family::<Labels, Counter>::default();
    for (value, n) in values {
        family.get_or_create(&[(label, value)]).inc_by(n);
    }
    family
}

fn gauge(value: i64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(value);
    gauge
}
