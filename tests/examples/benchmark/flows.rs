//! What a new flow costs, by the number of services: the first datagrams of many sockets, sent by a client through a node to
//! backends that take them in silence. All hosts' work is done on the sender's CPU before `sendto` returns.

use crate::peers::{Files, text};
use crate::process::run as process;
use crate::report::Report;
use crate::table::{PORT, Size, TARGET, Table};
use crate::{Bench, Result};
use natlet::lab::{Plan, Topology};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// A pod: its connections to ClusterIPs are not masqueraded, with no peer.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(11, 255, 255, 1);

/// New flows of one measurement.
const FLOWS: usize = 500;

/// A node with something in force, and where flows through it go.
struct Variant {
    name: &'static str,
    services: u32,
    topology: Topology,
    to: Vec<SocketAddr>,
    costs: Vec<Duration>,
}

pub fn topology(endpoints: &[Ipv4Addr]) -> Result<Topology> {
    let plan = Plan {
        clients: vec![CLIENT.into()],
        endpoints: endpoints.iter().map(|e| (*e).into()).collect(),
        ..Plan::default()
    };
    Ok(Topology::build(&plan)?)
}

/// Rules that make the kernel track connections, and no more.
const TRACK: &str = "table ip track { chain c { type filter hook prerouting priority 0; ct state invalid drop; }; }";

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let sizes: &[u32] = if bench.quick { &[1, 10] } else { &[1, 10, 1_000, 10_000, 44_125] };
    let rounds = if bench.quick { 2 } else { 25 };
    let natlet = text(&bench.natlet);
    let track = bench.work.join("track.nft");
    std::fs::write(&track, TRACK)?;
    let one = bench.work.join("one.nft");
    std::fs::write(
        &one,
        format!(
            "table ip one {{ chain c {{ type nat hook prerouting priority -100; ip daddr 10.0.1.0 udp dport {PORT} dnat to 11.0.0.0:{TARGET}; }}; }}"
        ),
    )?;
    let mut variants = Vec::new();
    let mut add =
        |name, services, to: Vec<SocketAddr>, command: &[&str], input: Option<&std::path::Path>| -> Result<bool> {
            let topology = topology(&[])?;
            if !command.is_empty() && process(&topology.node, command, input)?.is_none() {
                eprintln!("flows: {name} with {services} services did not load within a minute: left out");
                return Ok(false);
            }
            variants.push(Variant { name, services, topology, to, costs: Vec::new() });
            Ok(true)
        };
    let direct = vec![SocketAddr::from(([11, 0, 0, 0], TARGET))];
    add("forwarding only", 0, direct.clone(), &[], None)?;
    add("conntrack, no NAT", 0, direct, &["nft", "-f", text(&track)], None)?;
    add("one DNAT rule", 1, vec![SocketAddr::from(([10, 0, 1, 0], PORT))], &["nft", "-f", text(&one)], None)?;
    let (mut chains, mut iptables) = (true, true);
    for &services in sizes {
        let table = Table::new(Size::new(services, services * 2), "UDP", 0);
        let files = Files::write(bench, "flows", &table)?;
        let to: Vec<SocketAddr> = table.services.iter().map(|s| SocketAddr::from((s.address, PORT))).collect();
        add("natlet", services, to.clone(), &[natlet, "load", text(&files.program)], None)?;
        iptables = iptables
            && add("kube-proxy, iptables", services, to.clone(), &["iptables-nft-restore"], Some(&files.iptables))?;
        chains = chains && add("kube-proxy, nftables", services, to, &["nft", "-f", text(&files.chains)], None)?;
    }
    let mut random = StdRng::seed_from_u64(6);
    let mut order: Vec<usize> = (0..variants.len()).collect();
    for _ in 0..rounds {
        order.shuffle(&mut random);
        for &i in &order {
            let variant = &mut variants[i];
            let to: Vec<SocketAddr> =
                (0..FLOWS).map(|_| variant.to[random.random_range(0..variant.to.len())]).collect();
            let took = variant.topology.client.run(|| send(&to))?;
            variant.costs.push(took / u32::try_from(FLOWS)?);
        }
    }
    for mut variant in variants {
        variant.costs.sort_unstable();
        let median = variant.costs[variant.costs.len() / 2];
        eprintln!(
            "flows: {}, {} services: {:.2} us a new flow",
            variant.name,
            variant.services,
            median.as_secs_f64() * 1e6
        );
        report.flow(variant.name, variant.services, median);
    }
    Ok(())
}

/// The time for the first datagrams of as many sockets as there are destinations.
fn send(to: &[SocketAddr]) -> std::io::Result<Duration> {
    let sockets = to.iter().map(|_| UdpSocket::bind((CLIENT, 0))).collect::<std::io::Result<Vec<_>>>()?;
    let start = Instant::now();
    for (socket, to) in sockets.iter().zip(to) {
        socket.send_to(b"x", to)?;
    }
    Ok(start.elapsed())
}
