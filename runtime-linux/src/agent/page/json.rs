//! The facts as JSON: a contract.

use super::{Facts, Service};
use serde_json::{Value, json};
use std::time::SystemTime;

impl Facts<'_> {
    /// The document of `/status`.
    pub fn document(&self) -> Value {
        let s = self.standing;
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "started": time(s.started),
            "healthy": self.is_healthy(),
            "content_id": s.content_id,
            "wanted_content_id": s.wanted,
            "last_sync": s.last_sync.map(|at| json!({
                "at": time(at),
                "why": s.last_outcome.as_ref().map(|o| o.why),
                "outcome": s.last_outcome.as_ref().map(|o| &o.text),
                "seconds": s.last_outcome.as_ref().map(|o| o.took.as_secs_f64()),
            })),
            "failure": s.failure,
            "refusal": s.refusal,
            "drift": { "repairs": self.repairs, "contested": self.contested },
            "events": s.history.newest_first().map(|e| json!({
                "at": time(e.at), "kind": e.kind.name(), "text": e.text, "times": e.times,
            })).collect::<Vec<_>>(),
            "state": { "directory": s.state.0, "slots": s.state.1 },
            "sources": s.sources,
            "node": self.node.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect::<serde_json::Map<_, _>>(),
            "counters": {
                "counting": self.report.as_ref().map(|r| r.counting),
                "accounting": self.report.as_ref().map(|r| r.accounting),
                "seconds": self.report.as_ref().and_then(|r| r.seconds),
                "error": self.no_report,
            },
            "services": {
                "total": self.total,
                "matching": self.matching,
                "shown": self.services.iter().map(service).collect::<Vec<_>>(),
            },
        })
    }
}

fn service(s: &Service) -> Value {
    let row = &s.row;
    json!({
        "name": s.name,
        "protocol": s.protocol,
        "type": s.kind,
        "hosts": s.hosts,
        "frontends": s.frontends.iter().map(|(kind, at)| json!({ "kind": kind, "address": at })).collect::<Vec<_>>(),
        "endpoint_count": s.endpoint_count,
        "endpoints": s.endpoints.iter().map(|(at, share)| json!({ "address": at, "share": share })).collect::<Vec<_>>(),
        "connections": row.connections,
        "connections_per_second": row.connections_per_second,
        "flows": row.flows,
        "bytes": row.bytes,
        "bytes_per_second": row.bytes_per_second,
    })
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
