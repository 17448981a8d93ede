//! `natlet try`: the real kernel, real connections, on hosts that exist for as long as the command runs.
//!
//! A client, a node and what lies behind it are network namespaces of this process. The program is loaded on the node; the
//! client connects to every frontend; who answered is counted and held against what the program says.

use super::args::{Output, TryArgs};
use super::failure::{Failure, lines, print, print_document, remark};
use super::input;
use crate::kernel;
use crate::lab::{self, Listener, Plan, Probe, ProbeResult, Topology};
use crate::netlink::Netlink;
use comfy_table::{Table, presets};
use natlet_core::{Cidr, FrontendKind, Program, ProgramFrontend, Protocol, Verdict};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How long a connection may take until it counts as unanswered.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Most endpoints that are given a server.
const MAX_LISTENERS: usize = 8_000;
/// Most connections in all.
const MAX_PROBES: usize = 60_000;

/// What came of the connections to one frontend.
struct Row {
    service: String,
    kind: FrontendKind,
    destination: SocketAddr,
    protocol: Protocol,
    expected: Verdict,
    answered: BTreeMap<SocketAddr, u32>,
    /// Answers that came from where the program sends nothing.
    stray: u32,
    refused: u32,
    unanswered: u32,
    sources: BTreeSet<IpAddr>,
}

impl Row {
    fn is_as_expected(&self) -> bool {
        let answered: u32 = self.answered.values().sum();
        let others = |mine: u32| answered + self.refused + self.unanswered == mine;
        self.stray == 0
            && match self.expected {
                Verdict::Dnat => others(answered),
                Verdict::Reject => others(self.refused),
                Verdict::Drop | Verdict::Accept => others(self.unanswered),
            }
    }
}

pub fn run(args: &TryArgs) -> Result<(), Failure> {
    let image = input::read(&args.input)?;
    let program = image.program();
    let lab_failed = |e| Failure::operation("making a private namespace", e);
    lab::enter().map_err(lab_failed)?;
    let topology = Topology::build(&plan(&program)).map_err(lab_failed)?;
    let (frontends, skipped) = choose(&program);
    for text in skipped {
        remark(&text);
    }
    let servers = topology.serve(&listeners(&frontends)).map_err(lab_failed)?;
    let started = Instant::now();
    topology
        .node
        .run(|| Netlink::open().and_then(|mut netlink| kernel::load(&mut netlink, &program)))
        .map_err(|e| Failure::operation("loading into the private namespace", e))?;
    let loaded = started.elapsed();
    let per_frontend = (MAX_PROBES / frontends.len().max(1)).clamp(1, args.connections as usize);
    let rows = connect(&program, &topology, &frontends, per_frontend).map_err(lab_failed)?;
    drop(servers);
    let client = topology.client_addresses();
    match args.output {
        Output::Json | Output::Yaml => {
            print_document(&document(&program, client, &rows, per_frontend), args.output)?;
        }
        Output::Table | Output::Wide => print(&text(&program, client, &rows, per_frontend, loaded))?,
    }
    match rows.iter().filter(|r| !r.is_as_expected()).count() {
        0 => Ok(()),
        wrong => Err(Failure::Operation(format!("error: {wrong} frontends did not do what the program says"))),
    }
}

/// The hosts that a program needs.
fn plan(program: &Program<'_>) -> Plan {
    let context = program.context();
    let host = |address: IpAddr| Cidr { address, prefix: if address.is_ipv6() { 128 } else { 32 } };
    let vips = program.frontends().map(|f| f.address).filter(|a| !a.is_unspecified()).map(host);
    Plan {
        node: context.addresses().filter(|a| !a.is_loopback()).collect(),
        endpoints: program.records().flat_map(|r| r.endpoints().iter().map(|e| e.address.ip())).collect(),
        avoid: vips.chain(context.cluster_cidrs()).chain(context.service_cidrs()).collect(),
        ..Plan::default()
    }
}

/// The frontends to try, in the order of their services, and what is left out.
fn choose<'a>(program: &Program<'a>) -> (Vec<ProgramFrontend<'a>>, Vec<String>) {
    let mut all: Vec<_> = program.frontends().collect();
    all.sort_by_key(|f| (f.record.offset(), f.kind, f.address, f.port));
    let total = all.len();
    all.retain(|f| f.protocol != Protocol::Sctp);
    let sctp = total - all.len();
    let mut listeners = BTreeSet::new();
    let mut kept = Vec::new();
    for f in all {
        listeners.extend(f.record.endpoints().iter().map(|e| (f.protocol, e.address)));
        if listeners.len() > MAX_LISTENERS {
            break;
        }
        kept.push(f);
    }
    let mut notes = Vec::new();
    if sctp > 0 {
        notes.push(format!("note: {sctp} SCTP frontends are loaded but not tried"));
    }
    let beyond = total - sctp - kept.len();
    if beyond > 0 {
        notes.push(format!(
            "note: {beyond} frontends are loaded but not tried: {MAX_LISTENERS} endpoints are served at most"
        ));
    }
    (kept, notes)
}

fn listeners(frontends: &[ProgramFrontend<'_>]) -> Vec<Listener> {
    let distinct: BTreeSet<_> =
        frontends.iter().flat_map(|f| f.record.endpoints().iter().map(|e| (f.protocol, e.address))).collect();
    distinct.into_iter().map(|(protocol, address)| Listener { protocol, address }).collect()
}

/// Connects from the client to every frontend.
fn connect(
    program: &Program<'_>,
    topology: &Topology,
    frontends: &[ProgramFrontend<'_>],
    connections: usize,
) -> Result<Vec<Row>, lab::LabError> {
    let names: BTreeMap<u32, &str> =
        program.services().filter_map(|(r, name)| Some((r.offset(), name?.name))).collect();
    let mut rows = Vec::new();
    for f in frontends {
        let like = f.address;
        let node_port = f.kind == FrontendKind::NodePort;
        let (Some(client), Some(node)) = (topology.client_address(like), topology.node_address(like)) else { continue };
        let address = if node_port { node } else { f.address };
        let destination = SocketAddr::new(address, f.port);
        let packet = program.packet(client, address, f.protocol, f.port);
        let decision = program.decide(&natlet_core::Packet { to_node: packet.to_node || node_port, ..packet });
        let probe = Probe { protocol: f.protocol, source: Some(SocketAddr::new(client, 0)), destination };
        let results = topology.client.run(|| lab::probes(&vec![probe; connections], TIMEOUT))?;
        let mut row = Row {
            service: names
                .get(&f.record.offset())
                .map_or_else(|| format!("service-{}", f.record.offset()), |n| (*n).into()),
            kind: f.kind,
            destination,
            protocol: f.protocol,
            expected: decision.verdict,
            answered: BTreeMap::new(),
            stray: 0,
            refused: 0,
            unanswered: 0,
            sources: BTreeSet::new(),
        };
        for result in results {
            match result {
                ProbeResult::Answered { endpoint, seen_source } => {
                    let known = decision.endpoints().is_some_and(|list| list.iter().any(|e| e.address == endpoint));
                    row.stray += u32::from(!known);
                    *row.answered.entry(endpoint).or_default() += 1;
                    row.sources.insert(seen_source.ip());
                }
                ProbeResult::Refused => row.refused += 1,
                _ => row.unanswered += 1,
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

fn outcome(row: &Row) -> String {
    let mut parts: Vec<String> = row.answered.iter().map(|(e, n)| format!("{e} x {n}")).collect();
    if row.refused > 0 {
        parts.push(format!("refused x {}", row.refused));
    }
    if row.unanswered > 0 {
        parts.push(format!("no answer x {}", row.unanswered));
    }
    parts.join(", ")
}

fn text(program: &Program<'_>, client: &[IpAddr], rows: &[Row], connections: usize, loaded: Duration) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["SERVICE", "FRONTEND", "ADDRESS", "ANSWERED", "SOURCE SEEN", ""]);
    for row in rows {
        let sources: Vec<String> = row.sources.iter().map(ToString::to_string).collect();
        let verdict = if row.is_as_expected() { "ok" } else { "UNEXPECTED" };
        table.add_row([
            row.service.as_str(),
            row.kind.name(),
            &format!("{}/{}", row.destination, row.protocol),
            &outcome(row),
            &sources.join(", "),
            verdict,
        ]);
    }
    let client: Vec<String> = client.iter().map(ToString::to_string).collect();
    let mut out = String::new();
    let _ = writeln!(
        out,
        "Program {} ({} bytes) loaded into a private namespace in {:.1} ms.",
        program.content_id(),
        program.as_bytes().len(),
        loaded.as_secs_f64() * 1e3
    );
    let _ = writeln!(
        out,
        "{connections} connections to each frontend from {}, through the kernel's NAT:\n",
        client.join(", ")
    );
    out.push_str(&lines(&table));
    let right = rows.iter().filter(|r| r.is_as_expected()).count();
    let _ = writeln!(
        out,
        "\n{right} of {} frontends as the program says. The namespace is gone; the host was not touched.",
        rows.len()
    );
    out
}

fn document(program: &Program<'_>, client: &[IpAddr], rows: &[Row], connections: usize) -> Value {
    let row = |row: &Row| {
        let answered: Vec<Value> =
            row.answered.iter().map(|(e, n)| json!({ "endpoint": e.to_string(), "count": n })).collect();
        json!({
            "service": row.service,
            "frontend": row.kind.name(),
            "address": row.destination.to_string(),
            "protocol": row.protocol.name(),
            "expected": row.expected.name(),
            "answered": answered,
            "refused": row.refused,
            "unanswered": row.unanswered,
            "sources_seen": row.sources.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "ok": row.is_as_expected(),
        })
    };
    json!({
        "content_id": program.content_id().to_string(),
        "connections": connections,
        "clients": client.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "frontends": rows.iter().map(row).collect::<Vec<_>>(),
    })
}
