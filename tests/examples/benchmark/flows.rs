//! What a new flow costs, by the number of services: the first datagrams of many sockets, sent by a client through a node to
//! backends that take them in silence; and TCP connections to backends that accept them. All hosts' work but the accepting is
//! done on the client's CPU before `sendto` or `connect` returns.

use crate::peers::{Files, text};
use crate::process::run as process;
use crate::report::{Flow, Report};
use crate::table::{PORT, Size, TARGET, Table};
use crate::{Bench, Result};
use natlet::lab::{Plan, Route, Topology};
use natlet_core::Cidr;
use nix::sys::socket::{setsockopt, sockopt};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// A pod: its connections to ClusterIPs are not masqueraded, with no peer.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(11, 255, 255, 1);

/// New flows of one measurement.
const FLOWS: usize = 400;
const CONNECTIONS: usize = 100;

/// What others are compared with: a node that tracks connections and translates nothing. Flows go to the endpoints at once: as
/// many destinations as there are behind the services, since routes, caches and conntrack are the slower the more there are.
const BASE: &str = "conntrack, no NAT";

/// natlet's rules without those that decide about masquerading: what the two look-ups of a translation cost.
pub const DNAT_ALONE: &str = "natlet's DNAT alone";

/// A node with something in force, and where flows through it go.
struct Variant {
    name: &'static str,
    services: u32,
    topology: Topology,
    to: Vec<SocketAddr>,
    /// The source port of the next flow: none comes twice, which would be no new flow.
    port: u16,
    /// One a round.
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
    let (udp, tcp): (&[u32], &[u32]) =
        if bench.quick { (&[1, 10], &[10]) } else { (&[1, 10, 1_000, 10_000, 44_125], &[10, 10_000, 44_125]) };
    measure(bench, report, "UDP", bench.services.as_deref().unwrap_or(udp), &bench.peers)?;
    // connections take as long for all peers but for what the first packet's translation takes
    measure(bench, report, "TCP", bench.services.as_deref().unwrap_or(tcp), &["natlet".into()])
}

/// `peers`: parts of the names of those that are measured beside the base; without any, all.
fn measure(bench: &Bench, report: &mut Report, protocol: &'static str, sizes: &[u32], peers: &[String]) -> Result<()> {
    let rounds = if bench.quick { 2 } else { 100 };
    let wanted = |name: &str| peers.is_empty() || name == BASE || peers.iter().any(|p| name.contains(p));
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
            if !wanted(name) || !sizes.contains(&services) {
                return Ok(false);
            }
            let topology = topology(&[])?;
            if protocol == "TCP" {
                accept(&topology)?;
            }
            if !command.is_empty() && process(&topology.node, command, input)?.is_none() {
                eprintln!("flows: {name} with {services} services did not load within a minute: left out");
                return Ok(false);
            }
            variants.push(Variant { name, services, topology, to, port: 1024, costs: Vec::new() });
            Ok(true)
        };
    add("forwarding only", 1, vec![SocketAddr::from(([11, 0, 0, 0], TARGET))], &[], None)?;
    add("one DNAT rule", 1, vec![SocketAddr::from(([10, 0, 1, 0], PORT))], &["nft", "-f", text(&one)], None)?;
    let (mut chains, mut iptables) = (true, true);
    for &services in sizes {
        let table = Table::new(Size::new(services, services * 2), protocol, 0);
        let files = Files::write(bench, "flows", &table)?;
        let endpoints = table.services.iter().flat_map(|s| &s.endpoints).map(|e| SocketAddr::from((*e, TARGET)));
        add(BASE, services, endpoints.collect(), &["nft", "-f", text(&track)], None)?;
        let to: Vec<SocketAddr> = table.services.iter().map(|s| SocketAddr::from((s.address, PORT))).collect();
        add("natlet", services, to.clone(), &[natlet, "load", text(&files.program)], None)?;
        add(DNAT_ALONE, services, to.clone(), &["nft", "-f", text(&files.without_postrouting()?)], None)?;
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
            let flows = if protocol == "UDP" { FLOWS } else { CONNECTIONS };
            let to: Vec<SocketAddr> =
                (0..flows).map(|_| variant.to[random.random_range(0..variant.to.len())]).collect();
            let took = variant.topology.client.run(|| match protocol {
                "UDP" => send(&to, variant.port),
                _ => connect(&to),
            })?;
            variant.port += u16::try_from(FLOWS)?;
            variant.costs.push(took / u32::try_from(to.len())?);
        }
    }
    for Variant { name, services, costs, .. } in &variants {
        let (name, services) = (*name, *services);
        let base = variants.iter().find(|v| v.name == BASE && v.services == services);
        let base = &base.ok_or("every size has a base")?.costs;
        let ratios = costs.iter().zip(base).map(|(cost, base)| cost.as_secs_f64() / base.as_secs_f64());
        let (ratio, cost) = (middle(ratios.collect()), middle(costs.iter().map(Duration::as_secs_f64).collect()));
        eprintln!("flows: {protocol}, {name}, {services} services: {:.2} us, {ratio:.3} of the base", cost * 1e6);
        report.flow(Flow { name, protocol, services, cost: Duration::from_secs_f64(cost), ratio });
    }
    Ok(())
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The time for the first datagrams of as many sockets as there are destinations, bound to ports from this one on.
fn send(to: &[SocketAddr], port: u16) -> std::io::Result<Duration> {
    let sockets =
        (port..).zip(to).map(|(port, _)| UdpSocket::bind((CLIENT, port))).collect::<std::io::Result<Vec<_>>>()?;
    let start = Instant::now();
    for (socket, to) in sockets.iter().zip(to) {
        socket.send_to(b"x", to)?;
    }
    Ok(start.elapsed())
}

/// Backends that accept connections to all endpoints. The thread ends with the process.
fn accept(topology: &Topology) -> Result<()> {
    let all = Cidr { address: Ipv4Addr::new(11, 0, 0, 0).into(), prefix: 9 }; // without the client
    topology.backends.links()?.routes(&[all], Route::Local)?;
    let listener = topology.backends.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, TARGET)))?;
    std::thread::spawn(move || listener.incoming().for_each(drop));
    Ok(())
}

/// The time to connect to as many destinations.
fn connect(to: &[SocketAddr]) -> std::io::Result<Duration> {
    let start = Instant::now();
    let streams = to.iter().map(TcpStream::connect).collect::<std::io::Result<Vec<_>>>()?;
    let took = start.elapsed();
    // ended by a reset, so that nothing waits for late packets
    for stream in &streams {
        setsockopt(stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?;
    }
    Ok(took)
}
