//! Established connections through a node: a TCP stream's throughput, and requests on connections that stay open.

use crate::flows::topology;
use crate::peers::{Files, text};
use crate::process::run as process;
use crate::report::Report;
use crate::table::{PORT, Size, TARGET, Table};
use crate::{Bench, Result};
use natlet::lab::Topology;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Connections with one request under way each.
const CONNECTIONS: usize = 8;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, world!";

struct Variant {
    name: &'static str,
    topology: Topology,
    to: SocketAddr,
    /// Bytes per second, requests per second.
    rounds: Vec<[f64; 2]>,
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let size = if bench.quick { Size::new(10, 10) } else { Size::new(10_000, 10_000) };
    let (rounds, time) = if bench.quick { (1, Duration::from_millis(200)) } else { (5, Duration::from_secs(1)) };
    let table = Table::new(size, "TCP", 0);
    let files = Files::write(bench, "traffic", &table)?;
    let endpoint = table.services[0].endpoints[0];
    let (service, direct) = ((table.services[0].address, PORT).into(), (endpoint, TARGET).into());
    let natlet = text(&bench.natlet);
    let mut variants = Vec::new();
    for (name, to, command, input) in [
        ("forwarding only", direct, vec![], None),
        ("natlet", service, vec![natlet, "load", text(&files.program)], None),
        ("kube-proxy, iptables", service, vec!["iptables-nft-restore"], Some(&*files.iptables)),
        ("kube-proxy, nftables", service, vec!["nft", "-f", text(&files.chains)], None),
    ] {
        let topology = topology(&[endpoint])?;
        if command.is_empty() || process(&topology.node, &command, input)?.is_some() {
            serve(&topology, endpoint)?;
            variants.push(Variant { name, topology, to, rounds: Vec::new() });
        }
    }
    for round in 0..rounds {
        let count = variants.len();
        for i in 0..count {
            let variant = &mut variants[(i + round) % count];
            let stream = variant.topology.client.run(|| stream(variant.to, time))?;
            let requests = variant.topology.client.run(|| requests(variant.to, time))?;
            variant.rounds.push([stream, requests]);
        }
    }
    for variant in variants {
        let median = |of: usize| {
            let mut values: Vec<f64> = variant.rounds.iter().map(|r| r[of]).collect();
            values.sort_unstable_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let (stream, requests) = (median(0) * 8.0 / 1e9, median(1));
        eprintln!("traffic: {}: {stream:.2} Gbit/s, {requests:.0} requests/s", variant.name);
        report.traffic(variant.name, stream, requests);
    }
    Ok(())
}

/// A server that answers requests, and swallows what is none. Its threads end with their connections, the last one with the
/// process.
fn serve(topology: &Topology, endpoint: Ipv4Addr) -> Result<()> {
    let listener = topology.backends.run(|| TcpListener::bind((endpoint, TARGET)))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        if buffer.starts_with(b"GET ") {
            stream.write_all(RESPONSE)?;
        }
    }
}

/// Bytes per second of one stream.
fn stream(to: SocketAddr, time: Duration) -> std::io::Result<f64> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let block = vec![b'x'; 256 << 10];
    let (start, mut bytes) = (Instant::now(), 0);
    while start.elapsed() < time {
        bytes += stream.write(&block)?;
    }
    Ok(bytes as f64 / start.elapsed().as_secs_f64())
}

/// Requests per second on connections that stay open.
fn requests(to: SocketAddr, time: Duration) -> std::io::Result<f64> {
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        streams.push(stream);
    }
    let (start, mut answers, mut buffer) = (Instant::now(), 0u32, [0; RESPONSE.len()]);
    while start.elapsed() < time {
        for stream in &mut streams {
            stream.write_all(REQUEST)?;
        }
        for stream in &mut streams {
            stream.read_exact(&mut buffer)?;
            answers += 1;
        }
    }
    Ok(f64::from(answers) / start.elapsed().as_secs_f64())
}
