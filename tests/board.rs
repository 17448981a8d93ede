//! The firmware on an emulated board, between real hosts: services, an update over the wire under traffic, and its budgets.
#![allow(clippy::pedantic, missing_docs, reason = "tests read better short")]

mod common;

use common::site::{at, ip};
use common::{Test, has, holds, same, tool};
use libtest_mimic::Failed;
use natlet::image::Image;
use natlet::lab::{Listener, Namespace, Probe, ProbeResult, Route, Servers, probes};
use natlet::source::{Input, Loaded, NodeFlags, load_inputs};
use natlet_core::table::{Cidr, FrontendKind, Protocol};
use natlet_firmware_example::update::{Kind, Refusal, Reply, Request};
use natlet_tests::push::{self, PushError, Update};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    if common::has_no_cross_compiler() {
        return ExitCode::SUCCESS;
    }
    common::main(&[
        ("every_service_answers_through_the_board", every_service_answers),
        ("backends_use_services_too", backends_use_services_too),
        ("what_no_service_has_is_refused_and_what_is_routed_is_untouched", unknown_is_refused),
        ("a_table_is_swapped_under_traffic", a_table_is_swapped_under_traffic),
        ("forged_replayed_and_foreign_updates_are_refused", forged_updates_are_refused),
        ("the_image_keeps_its_budget", the_image_keeps_its_budget),
        ("the_packet_path_cannot_panic_and_is_small", the_packet_path_is_small),
        ("instructions_per_packet_keep_their_budget", instructions_per_packet),
    ])
}

const TIMEOUT: Duration = Duration::from_secs(3);
const FIRMWARE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware-example");
const CLIENT: &str = "192.0.2.9";
const BACKENDS: [&str; 2] = ["198.51.100.10", "198.51.100.11"];
const BACKENDS6: [&str; 2] = ["2001:db8:2::10", "2001:db8:2::11"];
const CONTROL: &str = "192.0.2.1:4242";
const SEED: &[u8; 32] = include_bytes!("../firmware-example/keys/test.seed");

/// Builds an image, if the tools are there; `None` is a skip.
fn image(name: &str) -> Result<Option<PathBuf>, Failed> {
    if !has("qemu-system-arm") {
        return Ok(None);
    }
    let build = Command::new(format!("{FIRMWARE}/build.sh")).args(["build", "--quiet", "--bin", name]).output()?;
    let words = String::from_utf8_lossy(&build.stderr).into_owned();
    // exit status 3: the toolchain is missing
    if build.status.code() == Some(3) && std::env::var_os("NATLET_NO_SKIP").is_none_or(|v| v != "1") {
        eprintln!("skipped: {words}");
        return Ok(None);
    }
    if !build.status.success() {
        return Err(format!("build.sh: {}\n{words}", build.status).into());
    }
    let out = String::from_utf8_lossy(&build.stdout).into_owned();
    let folder = out.lines().last().ok_or("build.sh says where the image is")?;
    Ok(Some(Path::new(folder).join(name)))
}

/// The board and the hosts around it, on one bridge.
struct Lab {
    _switch: Namespace,
    client: Namespace,
    backends: Vec<Namespace>,
    _board: Qemu,
}

/// A running emulator; it ends when this is dropped, and by itself in two minutes.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // to `timeout`, which passes it on
        let _ = i32::try_from(self.0.id()).map(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM));
        let _ = self.0.wait();
    }
}

impl Lab {
    fn start(elf: &Path) -> Result<Self, Failed> {
        let switch = Namespace::new("switch")?;
        let ip_in = |host: &Namespace, words: &str| {
            tool(host, "ip", &words.split_whitespace().collect::<Vec<_>>(), "").map(drop)
        };
        switch.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        for words in [
            "link add br0 type bridge mcast_snooping 0",
            "tuntap add dev tap0 mode tap",
            "link set tap0 master br0",
            "link set tap0 up",
            "link set br0 up",
        ] {
            ip_in(&switch, words)?;
        }
        let host = |name: &str, v4: &str, v6: &str, gateway4: &str, gateway6: &str| -> Result<Namespace, Failed> {
            let host = Namespace::new(name)?;
            // the default of this family of kernels sends on through the losses of a slow emulated board
            host.sysctl("net/ipv4/tcp_congestion_control", "reno")?;
            for setting in ["accept_dad", "accept_ra"] {
                let _ = host.sysctl(&format!("net/ipv6/conf/default/{setting}"), "0");
            }
            switch.links()?.veth(name, &host, "eth0")?;
            ip_in(&switch, &format!("link set {name} master br0"))?;
            let mut links = host.links()?;
            for (address, prefix) in [(v4, 24), (v6, 64)] {
                links.address("eth0", Cidr { address: ip(address), prefix })?;
            }
            for (all, gateway) in [("0.0.0.0", gateway4), ("::", gateway6)] {
                links.route(Cidr { address: ip(all), prefix: 0 }, Route::Via(ip(gateway)))?;
            }
            Ok(host)
        };
        let client = host("client", CLIENT, "2001:db8:1::9", "192.0.2.1", "2001:db8:1::1")?;
        let backends = (0..2)
            .map(|i| host(&format!("be{i}"), BACKENDS[i], BACKENDS6[i], "198.51.100.1", "2001:db8:2::1"))
            .collect::<Result<_, _>>()?;
        let log = File::create(elf.with_file_name(format!("board-{:?}.log", std::thread::current().id())))?;
        let errors = log.try_clone()?;
        let board = switch.run(|| {
            Command::new("timeout")
                .args(["-k", "2", "120", "qemu-system-arm", "-machine", "mps2-an386", "-display", "none"])
                .args(["-serial", "none", "-monitor", "none", "-semihosting-config", "enable=on,target=native"])
                .args(["-nic", "tap,ifname=tap0,script=no,downscript=no,model=lan9118", "-kernel"])
                .arg(elf)
                .stdin(Stdio::null())
                .stdout(log)
                .stderr(errors)
                .spawn()
        })?;
        let lab = Self { _switch: switch, client, backends, _board: Qemu(board) };
        let until = Instant::now() + Duration::from_secs(15);
        while lab.status().is_err() {
            holds("the board answers within 15 s", Instant::now() < until)?;
        }
        Ok(lab)
    }

    /// A socket to the board's control port.
    fn control(&self) -> Result<UdpSocket, Failed> {
        Ok(self.client.run(|| UdpSocket::bind("0.0.0.0:0").and_then(|s| s.connect(CONTROL).map(|()| s)))?)
    }

    fn status(&self) -> Result<State, Failed> {
        let read = |reply: Reply<'_>| match reply {
            Reply::Status(s) => Some(State {
                counter: s.counter,
                content_id: s.content_id,
                stack: s.stack,
                flows: s.flows,
                received: s.received,
                sent: s.sent,
                translated: s.translated,
                dropped: s.dropped,
            }),
            _ => None,
        };
        let state = push::ask(&self.control()?, &Request::Status, read)?;
        Ok(state.ok_or("the board says how it is")?)
    }
}

/// What the tests read of a board's status.
#[derive(Debug)]
#[allow(dead_code, reason = "printed")]
struct State {
    counter: u64,
    content_id: [u8; 16],
    stack: u32,
    flows: u32,
    received: u32,
    sent: u32,
    translated: u64,
    dropped: u64,
}

fn read_table(text: &str) -> Result<natlet::source::TableBuf, Failed> {
    let input = Input { name: "services.toml".into(), bytes: text.into(), found: false };
    match load_inputs(vec![input], &NodeFlags::default()).map_err(|e| e.to_string())? {
        Loaded::Table { table, .. } => Ok(table),
        Loaded::Program { .. } => Err("services.toml is a table".into()),
    }
}

fn services() -> Result<String, Failed> {
    Ok(std::fs::read_to_string(format!("{FIRMWARE}/services.toml"))?)
}

/// Servers on every endpoint of the table, each in its own host.
fn serve(lab: &Lab, table: &natlet::source::TableBuf) -> Result<Vec<Servers>, Failed> {
    let table = table.as_table();
    let mut listeners: BTreeMap<usize, BTreeSet<(u8, SocketAddr)>> = BTreeMap::new();
    for service in table.services {
        for endpoint in service.endpoints.of(table.endpoints).unwrap_or(&[]) {
            let backend = usize::from(
                BACKENDS.iter().chain(&BACKENDS6).position(|b| ip(b) == endpoint.address).unwrap() % 2 != 0,
            );
            let at = SocketAddr::new(endpoint.address, endpoint.port);
            listeners.entry(backend).or_default().insert((service.protocol.number(), at));
        }
    }
    let mut servers = Vec::new();
    for (backend, listeners) in listeners {
        let listeners: Vec<_> = listeners
            .into_iter()
            .map(|(p, address)| Listener { protocol: Protocol::from_number(p).unwrap(), address })
            .collect();
        servers.push(Servers::start(&lab.backends[backend], &listeners)?);
    }
    Ok(servers)
}

/// The service's endpoints in the family of `like`.
fn endpoints(table: &natlet::source::TableBuf, service: usize, like: IpAddr) -> BTreeSet<SocketAddr> {
    let table = table.as_table();
    let all = table.services[service].endpoints.of(table.endpoints).unwrap_or(&[]);
    all.iter().filter(|e| e.address.is_ipv6() == like.is_ipv6()).map(|e| SocketAddr::new(e.address, e.port)).collect()
}

const N: usize = 24;

fn many(host: &Namespace, protocol: Protocol, to: SocketAddr, n: usize) -> Result<Vec<ProbeResult>, Failed> {
    Ok(host.run(|| probes(&vec![Probe { protocol, source: None, destination: to }; n], TIMEOUT))?)
}

fn every_service_answers() -> Test {
    let Some(elf) = image("gateway")? else { return Ok(()) };
    let lab = Lab::start(&elf)?;
    let table = read_table(&services()?)?;
    let _servers = serve(&lab, &table)?;
    let borrowed = table.as_table();
    holds("at least 16 services", borrowed.services.len() >= 16)?;
    // the board's queue for neighbours that it does not know is shorter than a volley of datagrams
    for backend in BACKENDS.iter().chain(&BACKENDS6) {
        let to = SocketAddr::new(ip(backend), 9);
        same("a closed port", &many(&lab.client, Protocol::Tcp, to, 1)?, &vec![ProbeResult::Refused])?;
    }
    let mut asked = 0;
    for (i, service) in borrowed.services.iter().enumerate() {
        for frontend in service.frontends.of(borrowed.frontends).unwrap_or(&[]) {
            let address = match (frontend.kind, frontend.address) {
                (FrontendKind::NodePort, IpAddr::V4(_)) => ip("192.0.2.1"),
                (FrontendKind::NodePort, IpAddr::V6(_)) => ip("2001:db8:1::1"),
                (_, address) => address,
            };
            let to = SocketAddr::new(address, frontend.port);
            let what = format!("{} {} {to}", borrowed.name(service), service.protocol);
            let results = many(&lab.client, service.protocol, to, N)?;
            let expected = endpoints(&table, i, address);
            if expected.is_empty() {
                same(&what, &results, &vec![ProbeResult::Refused; N])?;
                continue;
            }
            let (mut seen, mut sources) = (BTreeSet::new(), BTreeSet::new());
            for result in results {
                let ProbeResult::Answered { endpoint, seen_source } = result else {
                    return Err(format!("{what}: {result:?}; the board: {:?}", lab.status()).into());
                };
                seen.insert(endpoint);
                sources.insert(seen_source.ip());
            }
            if service.affinity_timeout > 0 {
                same(&format!("{what}: endpoints of one client"), &seen.len(), &1)?;
            } else {
                // the lighter of 1:3 stays out of 24 draws once in 1,000; fair coins once in 8 million
                holds(
                    &format!("{what}: {seen:?}, expected {expected:?}"),
                    seen == expected || borrowed.name(service) == "shop/search",
                )?;
            }
            let kept = if address.is_ipv6() { ip("2001:db8:1::9") } else { ip(CLIENT) };
            holds(
                &format!("{what}: sources seen {sources:?}"),
                (frontend.kind == FrontendKind::ClusterIp) == (sources == BTreeSet::from([kept])),
            )?;
            asked += N;
        }
    }
    let state = lab.status()?;
    println!("{asked} connections answered; {state:?}");
    same("dropped", &state.dropped, &0)
}

/// A backend reaches services, itself through its own service included: the board masquerades it.
fn backends_use_services_too() -> Test {
    let Some(elf) = image("gateway")? else { return Ok(()) };
    let lab = Lab::start(&elf)?;
    let _servers = serve(&lab, &read_table(&services()?)?)?;
    for (host, protocol, to) in [
        (&lab.backends[0], Protocol::Tcp, "10.96.0.80:80"),
        (&lab.backends[1], Protocol::Udp, "10.96.0.53:53"),
        (&lab.backends[0], Protocol::Tcp, "[2001:db8:96::80]:80"),
    ] {
        let mut seen = BTreeSet::new();
        for result in many(host, protocol, at(to), N)? {
            let ProbeResult::Answered { endpoint, seen_source } = result else {
                return Err(format!("{to} from {}: {result:?}", host.name()).into());
            };
            seen.insert(endpoint);
            holds(
                &format!("{to}: {seen_source} is the board"),
                [ip("192.0.2.1"), ip("2001:db8:1::1")].contains(&seen_source.ip()),
            )?;
        }
        same(to, &seen.len(), &2)?;
    }
    Ok(())
}

fn unknown_is_refused() -> Test {
    let Some(elf) = image("gateway")? else { return Ok(()) };
    let lab = Lab::start(&elf)?;
    let _servers = Servers::start(
        &lab.backends[0],
        &[Listener::tcp(at("198.51.100.10:99")), Listener::udp(at("198.51.100.10:99"))],
    )?;
    for (protocol, to) in [
        (Protocol::Tcp, "10.96.0.80:81"),
        (Protocol::Udp, "10.96.0.80:80"),
        (Protocol::Udp, "10.96.0.53:54"),
        (Protocol::Tcp, "10.96.0.83:80"),
        (Protocol::Tcp, "[2001:db8:96::80]:81"),
        (Protocol::Udp, "[2001:db8:96::80]:80"),
    ] {
        let started = Instant::now();
        same(to, &many(&lab.client, protocol, at(to), 3)?, &vec![ProbeResult::Refused; 3])?;
        holds(&format!("{to}: refused after {:?}", started.elapsed()), started.elapsed() < TIMEOUT / 2)?;
    }
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let to = at("198.51.100.10:99");
        for result in many(&lab.client, protocol, to, 3)? {
            let ProbeResult::Answered { endpoint, seen_source } = result else {
                return Err(format!("routed: {result:?}").into());
            };
            same("routed", &(endpoint, seen_source.ip()), &(to, ip(CLIENT)))?;
        }
    }
    Ok(())
}

/// Serves an echo on `address`, until the process ends.
fn echo(host: &Namespace, address: SocketAddr) -> Test {
    let listener = host.run(|| TcpListener::bind(address))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = [0; 2048];
                while let Ok(n @ 1..) = (&stream).read(&mut buffer) {
                    if (&stream).write_all(&buffer[..n]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(())
}

/// A connection that never rests, and what became of it.
struct Talk {
    endpoint: IpAddr,
    rounds: Arc<AtomicU32>,
    thread: std::thread::JoinHandle<std::io::Result<()>>,
}

fn talk(lab: &Lab, to: SocketAddr, stop: &Arc<AtomicBool>) -> Result<Talk, Failed> {
    let mut stream = lab.client.run(|| TcpStream::connect_timeout(&to, TIMEOUT))?;
    stream.set_read_timeout(Some(Duration::from_secs(8)))?;
    let mut name = [0; 1];
    stream.write_all(b"?")?;
    stream.read_exact(&mut name)?;
    let endpoint = ip(BACKENDS[usize::from(name[0] - b'0')]);
    let rounds = Arc::new(AtomicU32::new(0));
    let (stop, counter) = (Arc::clone(stop), Arc::clone(&rounds));
    let thread = std::thread::spawn(move || {
        let mut back = [0; 1000];
        while !stop.load(Ordering::Relaxed) {
            let round = counter.load(Ordering::Relaxed);
            let sent = [round.to_le_bytes()[0]; 1000];
            stream.write_all(&sent)?;
            stream.read_exact(&mut back)?;
            if back != sent {
                return Err(std::io::Error::other("other bytes came back"));
            }
            counter.store(round + 1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    });
    Ok(Talk { endpoint, rounds, thread })
}

/// As [`echo`], but the first byte is answered with the backend's number.
fn named_echo(host: &Namespace, address: SocketAddr, number: u8) -> Test {
    let listener = host.run(|| TcpListener::bind(address))?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = [0; 2048];
                let mut first = true;
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    if std::mem::take(&mut first) {
                        buffer[0] = b'0' + number;
                    }
                    if stream.write_all(&buffer[..n]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(())
}

/// Twelve connections are busy while tables come over the wire: those to endpoints that stay never notice.
fn a_table_is_swapped_under_traffic() -> Test {
    let Some(elf) = image("gateway")? else { return Ok(()) };
    let lab = Lab::start(&elf)?;
    for (i, backend) in lab.backends.iter().enumerate() {
        named_echo(backend, at(&format!("{}:8082", BACKENDS[i])), i as u8)?;
        echo(backend, at(&format!("{}:8999", BACKENDS[i])))?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let talks = (0..12).map(|_| talk(&lab, at("10.96.0.82:80"), &stop)).collect::<Result<Vec<_>, _>>()?;
    let rounds = || talks.iter().map(|t| t.rounds.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let staying: Vec<bool> = talks.iter().map(|t| t.endpoint == ip(BACKENDS[1])).collect();
    holds("some connections stay", staying.contains(&true))?;

    // the first endpoint of shop/search goes, and a service comes
    let old = services()?;
    let gone = r#"endpoints = ["198.51.100.10:8082", { address = "198.51.100.11:8082", weight = 3 }]"#;
    holds("services.toml is as expected", old.contains(gone))?;
    let new = format!(
        "{}\n[[service]]\nname = \"new/one\"\nport = 99\ncluster-ip = \"10.96.3.1\"\nendpoints = [\"198.51.100.10:8999\"]\n",
        old.replace(gone, r#"endpoints = ["198.51.100.11:8082"]"#)
    );
    let table = read_table(&new)?;
    let program = Image::compile(&table.as_table())?;
    let mut wire = vec![0; 1 << 16];
    let wire = table.as_table().to_wire(&mut wire)?;
    let socket = lab.control()?;
    let update = |counter, kind, bytes: &[u8]| Update { board: "gw-board", counter, kind, bytes }.push(&socket, *SEED);

    let before = rounds();
    let started = Instant::now();
    let id = update(1, Kind::Table, wire)?;
    let took = started.elapsed();
    same("the board's program is the host's", &id, &program.program().content_id().0)?;
    let answered = lab.client.run(|| TcpStream::connect_timeout(&at("10.96.3.1:99"), TIMEOUT));
    holds(&format!("the new service: {answered:?}"), answered.is_ok())?;
    // the same program as a program, then a third table: both slots are used again
    update(2, Kind::Program, program.as_bytes())?;
    let mut third = vec![0; 1 << 16];
    let third_table = read_table(&format!(
        "{new}\n[[service]]\nname = \"new/two\"\nport = 98\ncluster-ip = \"10.96.3.1\"\nendpoints = []\n"
    ))?;
    update(3, Kind::Table, third_table.as_table().to_wire(&mut third)?)?;
    std::thread::sleep(Duration::from_millis(1500));
    let after = rounds();
    for ((talk, stays), (before, after)) in talks.iter().zip(&staying).zip(before.iter().zip(&after)) {
        if *stays {
            holds(&format!("{} goes on: {before} -> {after} rounds", talk.endpoint), *after > before + 20)?;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let state = lab.status()?;
    let ended = staying.iter().filter(|s| !**s).count();
    for (talk, stays) in talks.into_iter().zip(staying) {
        if stays {
            talk.thread.join().map_err(|_| "a thread panicked")??;
        }
    }
    println!(
        "update of {} bytes took {took:?} under traffic; {ended} connections lost their endpoint; {state:?}",
        wire.len()
    );
    same("counter", &state.counter, &3)
}

fn forged_updates_are_refused() -> Test {
    let Some(elf) = image("gateway")? else { return Ok(()) };
    let lab = Lab::start(&elf)?;
    let before = lab.status()?;
    let table = read_table(&services()?.replace("shop/closed", "shop/shut"))?;
    let mut wire = vec![0; 1 << 16];
    let wire = table.as_table().to_wire(&mut wire)?;
    let socket = lab.control()?;
    let update = |counter| Update { board: "gw-board", counter, kind: Kind::Table, bytes: wire };
    let refused = |what: &str, result: Result<[u8; 16], PushError>, expected: Refusal| match result {
        Err(PushError::Refused(refusal)) => same(what, &refusal, &expected),
        other => Err(format!("{what}: {other:?}").into()),
    };
    refused("another key", update(1).push(&socket, [9; 32]), Refusal::Signature)?;
    refused("no signature", update(1).push_signed(&socket, &[0; 64]), Refusal::Signature)?;
    refused("another board", Update { board: "other", ..update(1) }.push(&socket, *SEED), Refusal::OtherBoard)?;
    let damaged: Vec<u8> = wire.iter().rev().copied().collect();
    let result = Update { bytes: &damaged, ..update(1) }.push(&socket, *SEED);
    holds(&format!("no table: {result:?}"), matches!(result, Err(PushError::Refused(Refusal::Table(_)))))?;
    same("the program in force", &lab.status()?.content_id, &before.content_id)?;
    update(7).push(&socket, *SEED)?;
    refused("played back", update(7).push(&socket, *SEED), Refusal::Replayed { last: 7 })?;
    refused("an older one", update(6).push(&socket, *SEED), Refusal::Replayed { last: 7 })?;
    let foreign = services()?.replace("\"192.0.2.1\", ", "\"192.0.2.3\", ");
    let mut room = vec![0; 1 << 16];
    let foreign_table = read_table(&foreign)?;
    let bytes = &*foreign_table.as_table().to_wire(&mut room)?;
    refused("another node", Update { bytes, ..update(8) }.push(&socket, *SEED), Refusal::OtherNode(ip("192.0.2.3")))?;
    let state = lab.status()?;
    println!("{state:?}");
    same("counter", &state.counter, &7)?;
    let budget = budget()?;
    holds(
        &format!("stack {} of {}", state.stack, budget("stack", "bytes")),
        u64::from(state.stack) <= budget("stack", "bytes"),
    )
}

/// A ceiling of budget.toml.
fn budget() -> Result<impl Fn(&str, &str) -> u64, Failed> {
    let budget: toml::Table = std::fs::read_to_string(format!("{FIRMWARE}/budget.toml"))?.parse()?;
    Ok(move |section: &str, key: &str| budget[section][key].as_integer().and_then(|n| n.try_into().ok()).unwrap())
}

/// Bytes in flash and in RAM of an image, from its program headers (ELF32, little-endian).
fn sizes(elf: &Path) -> Result<(u64, u64), Failed> {
    let bytes = std::fs::read(elf)?;
    let half = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let word = |at: usize| u64::from(u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
    let (start, size, count) = (word(28) as usize, half(42), half(44));
    let (mut flash, mut ram) = (0, 0);
    for header in (0..count).map(|i| start + i * size).filter(|h| word(*h) == 1) {
        flash += word(header + 16);
        if word(header + 8) >= 0x2000_0000 {
            ram += word(header + 20);
        }
    }
    Ok((flash, ram))
}

fn the_image_keeps_its_budget() -> Test {
    let Some(elf) = image("gateway")? else { return Ok(()) };
    let (flash, ram) = sizes(&elf)?;
    let budget = budget()?;
    println!("image: {flash} bytes of flash, {ram} of RAM");
    holds(&format!("flash: {flash}"), flash <= budget("image", "flash"))?;
    holds(&format!("RAM: {ram}"), ram <= budget("image", "ram"))
}

/// That it links is the proof that it cannot panic (src/bin/packet_path.rs).
fn the_packet_path_is_small() -> Test {
    let Some(elf) = image("packet-path")? else { return Ok(()) };
    if !has("nm") {
        return Ok(());
    }
    let output = Command::new("nm").args(["-C", "-S"]).arg(&elf).output()?;
    // run once, before the first packet
    let boot = [
        "Program>::new_checked",
        "Program>::check_records",
        "Program>::check_names",
        "Program>::check_indices",
        "Context>::new_checked",
        "IndexHeader>::placement",
        "ClusterIpsV6>::new_checked",
        "index::hash_of",
        "Record>::is_valid",
        "Translator>::new",
    ];
    let (mut path, mut start) = (0, 0);
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        let [_, size, kind, name] = words[..] else { continue };
        if kind.eq_ignore_ascii_case("t") && (name.contains("natlet_core") || name.contains("translate_packet")) {
            let sum = if boot.iter().any(|b| name.ends_with(b)) { &mut start } else { &mut path };
            *sum += u64::from_str_radix(size, 16)?;
        }
    }
    let (whole, _) = sizes(&elf)?;
    println!("core's packet path: {path} bytes of flash, {start} to start it; with driver, router and table {whole}");
    holds("it is there", path > 4096)?;
    holds(&format!("core's packet path: {path}"), path <= budget()?("packet-path", "flash"))
}

fn instructions_per_packet() -> Test {
    let Some(elf) = image("instructions")? else { return Ok(()) };
    let output = Command::new("timeout")
        .args(["-k", "2", "60", "qemu-system-arm", "-machine", "mps2-an386", "-display", "none", "-serial", "none"])
        .args(["-monitor", "none", "-nic", "none", "-icount", "shift=10,sleep=off"])
        .args(["-semihosting-config", "enable=on,target=native", "-kernel"])
        .arg(&elf)
        .stdin(Stdio::null())
        .output()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    holds(
        &format!("{}: {printed}{}", output.status, String::from_utf8_lossy(&output.stderr)),
        output.status.success(),
    )?;
    println!("instructions per packet: {}", printed.lines().collect::<Vec<_>>().join(", "));
    let count = |name: &str| printed.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<u64>().ok()).unwrap();
    let budget = budget()?;
    for (name, key) in [("established ", "established"), ("established-reply ", "established"), ("first ", "first")] {
        holds(&format!("{name}{}", count(name)), count(name) <= budget("instructions", key))?;
    }
    Ok(())
}
