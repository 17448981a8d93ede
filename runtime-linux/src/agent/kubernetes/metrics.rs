//! What is counted of the API server.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets, linear_buckets};
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

/// The kind of object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfKind {
    /// As the API server calls it.
    pub kind: &'static str,
}

/// The kind of object, and what went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Because {
    /// As the API server calls it.
    pub kind: &'static str,
    /// One of few words.
    pub reason: &'static str,
}

/// Counters and times. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Events of watches, bookmarks too.
    pub events: Family<OfKind, Counter>,
    /// Complete lists, the first one too.
    pub lists: Family<OfKind, Counter>,
    /// Lists that were asked for because a watch could not be continued.
    pub relists: Family<OfKind, Counter>,
    /// What went wrong.
    pub errors: Family<Because, Counter>,
    /// When the server was last heard, Unix time.
    pub heard: Family<OfKind, Gauge<f64, AtomicU64>>,
    /// From an event's arrival to its being in force.
    pub event_to_kernel: Histogram,
    /// kube-proxy's: from what the endpoints controller answered to its being in force.
    pub programming: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        // kube-proxy's own steps, so that its dashboards fit
        let steps = [0.25, 0.5].into_iter().chain(linear_buckets(1.0, 1.0, 59));
        let steps = steps.chain(linear_buckets(60.0, 5.0, 12)).chain(linear_buckets(120.0, 30.0, 7));
        Self {
            events: Family::default(),
            lists: Family::default(),
            relists: Family::default(),
            errors: Family::default(),
            heard: Family::default(),
            event_to_kernel: Histogram::new(exponential_buckets(0.001, 1.5, 28)),
            programming: Histogram::new(steps),
        }
    }
}

impl Metrics {
    /// Adds them to what is served.
    pub fn register(&self, registry: &mut Registry) {
        let own = registry.sub_registry_with_prefix("natlet_kubernetes");
        own.register("events", "Events of watches on the API server", self.events.clone());
        own.register("lists", "Complete lists of the API server", self.lists.clone());
        own.register("relists", "Lists because a watch could not be continued", self.relists.clone());
        own.register("errors", "Failures of requests, and objects that were left out", self.errors.clone());
        own.register(
            "last_heard_timestamp_seconds",
            "When the API server was last heard, Unix time",
            self.heard.clone(),
        );
        own.register(
            "event_to_kernel_seconds",
            "From an event's arrival to its being in force",
            self.event_to_kernel.clone(),
        );
        let proxy = registry.sub_registry_with_prefix("kubeproxy");
        proxy.register(
            "network_programming_duration_seconds",
            "From a change of pods (last-change-trigger-time of an EndpointSlice) to its being in force",
            self.programming.clone(),
        );
    }
}
