//! Two looks at the counters make rates.

use super::{Counted, Frontend, Report, Row, content_id, counted, counting};
use crate::conntrack::Conntrack;
use crate::kernel::ABOUT;
use crate::lower::FRONTENDS;
use crate::netlink::{LoadError, Netlink};
use crate::nft::read::read_matching;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// A sysctl: flows count their bytes.
const ACCOUNTING: &str = "/proc/sys/net/netfilter/nf_conntrack_acct";

/// Looks at the counters, and remembers the last look.
#[derive(Debug)]
pub struct Meter {
    netlink: Netlink,
    conntrack: Conntrack,
    last: Option<Look>,
}

/// What was seen, and when.
#[derive(Debug)]
struct Look {
    at: Instant,
    frontends: HashMap<Frontend, u64>,
    /// Bytes by family and id of a flow.
    flows: HashMap<(bool, u32), u64>,
}

/// A service's numbers as they add up.
#[derive(Debug, Default)]
struct Sum {
    connections: u64,
    new_connections: u64,
    flows: u64,
    bytes: u64,
    new_bytes: u64,
}

impl Meter {
    /// Opens the kernel's sockets in the calling thread's network namespace.
    pub fn open() -> Result<Self, LoadError> {
        Ok(Self { netlink: Netlink::open()?, conntrack: Conntrack::open()?, last: None })
    }

    /// Looks. Rates are those since the look before.
    pub fn look(&mut self) -> Result<Report, LoadError> {
        let loaded = read_matching(&mut self.netlink, |set| set == ABOUT || FRONTENDS.contains(&set))?;
        let frontends = counted(&loaded);
        // A flow finds its service by what its client sent it to.
        let names: HashMap<Frontend, &str> = frontends.iter().map(|c| (c.frontend, c.name.as_str())).collect();
        let mut look = Look { at: Instant::now(), frontends: HashMap::new(), flows: HashMap::new() };
        let mut sums: BTreeMap<(&str, &'static str), Sum> = BTreeMap::new();
        for Counted { frontend, name, connections } in &frontends {
            sums.entry((name, frontend.protocol.name())).or_default().connections += connections;
            *look.frontends.entry(*frontend).or_default() += connections;
        }
        if let Some(last) = &self.last {
            for (frontend, connections) in &look.frontends {
                // A frontend that was loaded anew counts from zero again.
                let before = last.frontends.get(frontend).filter(|before| *before <= connections).unwrap_or(&0);
                let Some(name) = names.get(frontend) else { continue };
                sums.entry((name, frontend.protocol.name())).or_default().new_connections += connections - before;
            }
        }
        let last = &self.last;
        let mut uncounted = false;
        self.conntrack.each(|flow, usage| {
            if flow.destination == flow.answered_by {
                return; // not translated
            }
            let v6 = flow.destination.is_ipv6();
            let (protocol, port) = (flow.protocol, flow.destination.port());
            let at = |address| names.get(&Frontend { address, v6, protocol, port });
            let Some(name) = at(Some(flow.destination.ip())).or_else(|| at(None)) else { return };
            let sum = sums.entry((name, protocol.name())).or_default();
            sum.flows += u64::from(usage.live);
            uncounted |= usage.bytes.is_none();
            if let Some(bytes) = usage.bytes {
                let key = (v6, usage.id);
                let before = last.as_ref().and_then(|l| l.flows.get(&key)).filter(|before| **before <= bytes);
                sum.bytes += bytes;
                sum.new_bytes += bytes - before.unwrap_or(&0);
                look.flows.insert(key, bytes);
            }
        })?;
        // A service manager may hide /proc/sys; then the flows tell, and no flow is no complaint.
        let accounting = std::fs::read(ACCOUNTING).map_or(!uncounted, |v| v.starts_with(b"1"));
        let seconds = last.as_ref().map(|last| look.at.duration_since(last.at).as_secs_f64()).filter(|s| *s > 0.0);
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = |n: u64| seconds.map(|seconds| n as f64 / seconds);
        let services = sums.into_iter().map(|((name, protocol), sum)| Row {
            name: name.into(),
            protocol: protocol.into(),
            connections: sum.connections,
            connections_per_second: rate(sum.new_connections),
            flows: sum.flows,
            bytes: accounting.then_some(sum.bytes),
            bytes_per_second: rate(sum.new_bytes).filter(|_| accounting),
        });
        let report = Report {
            loaded: !loaded.tables.is_empty(),
            content_id: content_id(&loaded),
            counting: counting(&loaded),
            accounting,
            seconds,
            services: services.collect(),
        };
        self.last = Some(look);
        Ok(report)
    }
}
