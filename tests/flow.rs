//! Flows: what an engine says about the first packet of a connection, and what the real kernel does to real ones.

use natlet::lab::{LabError, Namespace, Probe, ProbeResult, Topology, probes};
use natlet_core::{Decision, Protocol, Verdict};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Answers take microseconds: only what shall be answered and is not waits this long.
const PATIENCE: Duration = Duration::from_secs(3);
/// Where silence is expected.
const SILENCE: Duration = Duration::from_millis(400);
/// Connections for verdicts other than DNAT.
const FEW: usize = 4;

/// What happens to a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// The endpoints that it can reach, each with whether it sees the node's address instead of the source's.
    pub endpoints: BTreeMap<SocketAddr, bool>,
}

impl Outcome {
    /// An outcome without endpoints.
    pub const fn plain(verdict: Verdict) -> Self {
        Self { verdict, endpoints: BTreeMap::new() }
    }

    /// What core decided.
    pub fn of(decision: &Decision<'_>) -> Self {
        let list = decision.endpoints().into_iter().flat_map(|list| list.iter());
        let endpoints = list.map(|e| (e.address, decision.masquerades(&e))).collect();
        Self { verdict: decision.verdict, endpoints }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verdict)?;
        for (endpoint, masquerade) in &self.endpoints {
            write!(f, " {endpoint}{}", if *masquerade { " (masqueraded)" } else { "" })?;
        }
        Ok(())
    }
}

/// Connections from one source to one destination.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Protocol.
    pub protocol: Protocol,
    /// Source address; the host that has it sends.
    pub source: IpAddr,
    /// Destination. A plain server must listen there, so that what nothing translates is answered and not lost.
    pub destination: SocketAddr,
    /// What shall become of it.
    pub expected: Outcome,
    /// The sum of the endpoints' weights: more connections are made where it takes more to meet every endpoint.
    pub slots: u32,
    /// Every connection ends at the same one of the endpoints (source-hash).
    pub sticky: bool,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.protocol, self.source, self.destination)
    }
}

/// What the kernel did to a flow.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    /// All that was expected and nothing else.
    Right,
    /// Nothing else, but not every endpoint was met yet.
    Incomplete,
    /// Something else.
    Wrong(String),
}

/// Sends all flows through the node at once, and says for each what was wrong, if anything was.
pub fn send(topology: &Topology, flows: &[Flow]) -> Result<Vec<Option<String>>, LabError> {
    let mut complaints: Vec<Option<String>> = vec![None; flows.len()];
    let mut due: Vec<usize> = (0..flows.len()).collect();
    // A draw that misses an endpoint in 6 tries per slot is no news; one that misses it in 60 is.
    for per_slot in [6, 60] {
        let mut seen = connect(topology, flows, &due, per_slot)?;
        due.retain(|&i| {
            let results = seen.remove(&i).unwrap_or_default();
            match judge(topology, &flows[i], &results) {
                Judgement::Right => false,
                Judgement::Incomplete if per_slot == 6 => true,
                Judgement::Incomplete => {
                    complaints[i] = Some(format!("{}; not all were met", describe(&results)));
                    false
                }
                Judgement::Wrong(what) => {
                    complaints[i] = Some(what);
                    false
                }
            }
        });
    }
    Ok(complaints)
}

/// Makes the connections of the flows in `due`: every host at the same time, and those that shall be met with silence
/// apart from the others, so that the others can be waited for.
fn connect(
    topology: &Topology,
    flows: &[Flow],
    due: &[usize],
    per_slot: usize,
) -> Result<BTreeMap<usize, Vec<ProbeResult>>, LabError> {
    type Job<'a> = (&'a Namespace, Vec<usize>, Vec<Probe>);
    let mut jobs: BTreeMap<(String, bool), Job<'_>> = BTreeMap::new();
    for &i in due {
        let flow = &flows[i];
        let host = host_of(topology, flow.source);
        let silent = flow.expected.verdict == Verdict::Drop;
        let job = jobs.entry((host.name().to_owned(), silent)).or_insert_with(|| (host, Vec::new(), Vec::new()));
        let count = match flow.expected.verdict {
            Verdict::Dnat if flow.expected.endpoints.len() > 1 => per_slot * flow.slots.clamp(2, 64) as usize,
            _ => FEW,
        };
        let probe = Probe {
            protocol: flow.protocol,
            source: Some(SocketAddr::new(flow.source, 0)),
            destination: flow.destination,
        };
        job.1.extend(std::iter::repeat_n(i, count));
        job.2.extend(std::iter::repeat_n(probe, count));
    }
    let results = std::thread::scope(|scope| {
        let start = |((_, silent), (host, indices, list)): ((String, bool), Job<'_>)| {
            let patience = if silent { SILENCE } else { PATIENCE };
            (indices, host.run(|| probes(&list, patience)))
        };
        let threads: Vec<_> = jobs.into_iter().map(|job| scope.spawn(move || start(job))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect::<Vec<_>>()
    });
    let mut seen: BTreeMap<usize, Vec<ProbeResult>> = BTreeMap::new();
    for (indices, results) in results {
        for (i, result) in indices.into_iter().zip(results?) {
            seen.entry(i).or_default().push(result);
        }
    }
    Ok(seen)
}

/// The host that has a source address; the node has every loopback address.
fn host_of(topology: &Topology, source: IpAddr) -> &Namespace {
    topology.host_of(source).unwrap_or(&topology.node)
}

fn judge(topology: &Topology, flow: &Flow, results: &[ProbeResult]) -> Judgement {
    let is_node = |address: IpAddr| address.is_loopback() || topology.node_addresses().contains(&address);
    let as_expected = |result: &ProbeResult| match (flow.expected.verdict, result) {
        (Verdict::Reject, ProbeResult::Refused) | (Verdict::Drop, ProbeResult::TimedOut) => true,
        (Verdict::Accept, ProbeResult::Answered { endpoint, seen_source }) => {
            *endpoint == flow.destination && seen_source.ip() == flow.source
        }
        (Verdict::Dnat, ProbeResult::Answered { endpoint, seen_source }) => {
            match flow.expected.endpoints.get(endpoint) {
                // what ends on the node itself leaves by no link: it passes no postrouting, with kube-proxy neither
                Some(true) if is_node(endpoint.ip()) && !is_node(flow.source) => seen_source.ip() == flow.source,
                Some(true) => is_masquerade(topology, seen_source.ip()),
                Some(false) => seen_source.ip() == flow.source,
                None => false,
            }
        }
        _ => false,
    };
    if results.is_empty() || !results.iter().all(as_expected) {
        return Judgement::Wrong(describe(results));
    }
    if flow.expected.verdict != Verdict::Dnat {
        return Judgement::Right;
    }
    let met: std::collections::BTreeSet<SocketAddr> = results.iter().filter_map(answered_by).collect();
    match (flow.sticky, met.len()) {
        (true, 1) => Judgement::Right,
        (true, _) => Judgement::Wrong(format!("{}; the same source met different endpoints", describe(results))),
        (false, n) if n == flow.expected.endpoints.len() => Judgement::Right,
        (false, _) => Judgement::Incomplete,
    }
}

/// Whether the node masquerades with this address: its primary one, or any for IPv6, where the kernel chooses among the
/// addresses of the leaving link (RFC 6724).
fn is_masquerade(topology: &Topology, seen: IpAddr) -> bool {
    if seen.is_ipv4() { topology.node_address(seen) == Some(seen) } else { topology.node_addresses().contains(&seen) }
}

fn answered_by(result: &ProbeResult) -> Option<SocketAddr> {
    match result {
        ProbeResult::Answered { endpoint, .. } => Some(*endpoint),
        _ => None,
    }
}

/// The results in words, each kind once with its count.
fn describe(results: &[ProbeResult]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for result in results {
        let text = match result {
            ProbeResult::Answered { endpoint, seen_source } => {
                format!("{endpoint} answered and saw {}", seen_source.ip())
            }
            ProbeResult::Refused => "refused".to_owned(),
            ProbeResult::TimedOut => "silence".to_owned(),
            other => format!("{other:?}"),
        };
        *counts.entry(text).or_default() += 1;
    }
    counts.iter().map(|(text, n)| format!("{n} x {text}")).collect::<Vec<_>>().join(", ")
}
