//! Traffic through a node whose table changes and whose agent dies, over and over.

use crate::common::site::{at, site};
use crate::common::{Test, has, holds, same};
use crate::daemon::{Daemon, Place, within};
use crate::{FIRST, Random, SECOND, THIRD, table};
use libtest_mimic::Failed;
use natlet::lab::Topology;
use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CHANGES: u64 = 200;
const KILLS: u64 = 50;
const FOURTH: &str = "10.82.0.84";
/// The endpoint of another service: who asks for the first service never meets it.
const FOREIGN: &str = "10.82.0.90";
/// Connections to the endpoint that stays, held open through it all.
const KEPT: usize = 200;
/// A SYN that is lost is sent again after a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// A table with the endpoint that stays and any of the others, and the other service.
fn random_table(random: &mut Random) -> String {
    let mut endpoints = vec![FIRST];
    let drawn = random.below(8);
    endpoints.extend([SECOND, THIRD, FOURTH].iter().enumerate().filter(|(i, _)| drawn >> i & 1 == 1).map(|(_, e)| *e));
    table(&endpoints)
        + &format!(
            "[[service]]\nname = \"shop/other\"\nport = 80\ncluster-ip = \"192.168.5.70\"\nendpoints = [\"{FOREIGN}:8443\"]\n"
        )
}

/// What the clients saw.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    connections: u64,
    datagrams: u64,
    /// Connections that needed more than a second: a packet was lost and sent again.
    slow: u64,
    /// No answer, or an error.
    failed: u64,
    /// An answer of an endpoint that the service never had.
    misrouted: u64,
    /// Connections to the endpoint that stays that came to harm later.
    broken: u64,
}

struct Clients {
    seen: Seen,
    kept: VecDeque<TcpStream>,
    /// A flow to the endpoint that stays.
    flow: Option<UdpSocket>,
}

/// Who answered: the first word of a server's line.
fn answerer(line: &[u8]) -> String {
    String::from_utf8_lossy(line).split(' ').next().unwrap_or_default().to_owned()
}

impl Clients {
    fn connect(&mut self, service: &str, endpoints: &[&str]) {
        let started = Instant::now();
        let connection = TcpStream::connect_timeout(&at(service), PATIENCE).and_then(|mut stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut buffer = [0; 128];
            let length = stream.read(&mut buffer)?;
            Ok((stream, answerer(&buffer[..length])))
        });
        self.seen.connections += 1;
        self.seen.slow += u64::from(started.elapsed() > Duration::from_millis(900));
        match connection {
            Err(_) => self.seen.failed += 1,
            Ok((_, by)) if !endpoints.iter().any(|e| by == format!("{e}:8443")) => self.seen.misrouted += 1,
            Ok((stream, by)) if by.starts_with(FIRST) && self.kept.len() < KEPT => self.kept.push_back(stream),
            Ok(_) => {}
        }
    }

    fn datagram(&mut self) -> Result<(), Failed> {
        let fresh = || {
            let socket = UdpSocket::bind("203.0.113.9:0")?;
            socket.connect("192.168.5.66:514")?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            Ok::<_, std::io::Error>(socket)
        };
        let ask = |socket: &UdpSocket| {
            let mut buffer = [0; 128];
            socket.send(b"x")?;
            socket.recv(&mut buffer).map(|length| answerer(&buffer[..length]))
        };
        // one that keeps its flow, else one that makes a new flow
        let socket = match self.flow.take() {
            Some(socket) => socket,
            None => fresh()?,
        };
        self.seen.datagrams += 2;
        match ask(&socket) {
            Ok(by) if by == format!("{FIRST}:5514") => self.flow = Some(socket),
            Ok(by) => self.seen.misrouted += u64::from(by.starts_with(FOREIGN)),
            Err(_) => self.seen.failed += 1,
        }
        match ask(&fresh()?) {
            Ok(by) => self.seen.misrouted += u64::from(by.starts_with(FOREIGN)),
            Err(_) => self.seen.failed += 1,
        }
        Ok(())
    }

    /// Uses a connection that was kept.
    fn talk(&mut self) {
        if let Some(mut stream) = self.kept.pop_front() {
            let harmed = stream.write_all(b"still here\n").is_err() || !matches!(stream.take_error(), Ok(None));
            self.seen.broken += u64::from(harmed);
            self.kept.push_back(stream);
        }
    }

    fn run(stop: &AtomicBool) -> Result<Self, Failed> {
        let mut clients = Self { seen: Seen::default(), kept: VecDeque::new(), flow: None };
        while !stop.load(Ordering::Relaxed) {
            clients.connect("192.168.5.65:443", &[FIRST, SECOND, THIRD, FOURTH]);
            clients.connect("192.168.5.70:80", &[FOREIGN]);
            clients.datagram()?;
            clients.talk();
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(clients)
    }

    /// Ends every connection that was kept, from both sides.
    fn finish(mut self) -> (Seen, usize) {
        let kept = self.kept.len();
        for stream in self.kept {
            let mut rest = Vec::new();
            // the server closes after the client; a connection that was reset is an error here
            let well = stream.shutdown(Shutdown::Write).and_then(|()| (&stream).read_to_end(&mut rest));
            self.seen.broken += u64::from(!matches!(well, Ok(0)));
        }
        (self.seen, kept)
    }
}

/// How an agent dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// At any moment after a change.
    After(Duration),
    /// On entering this system call, of which it has made so many: between the transactions of a change, between the parts
    /// of a write to the disk.
    Entering(&'static str, u64),
}

impl Death {
    fn random(random: &mut Random) -> Self {
        match random.below(5) {
            0 => Self::Entering("sendto", 4 + random.below(36)),
            1 => Self::Entering(["write", "fsync", "rename", "unlink"][random.below(4) as usize], 1 + random.below(2)),
            _ => Self::After(Duration::from_micros(random.below(60_000))),
        }
    }
}

const FLAGS: [&str; 2] = ["--min-sync-period", "1ms"];

/// Changes the table under a running agent and kills it. `true` if it died where it was meant to.
fn kill(topology: &Topology, place: &Place, daemon: Daemon, death: Death, random: &mut Random) -> Result<bool, Failed> {
    match death {
        Death::After(time) => {
            place.write(&random_table(random))?;
            std::thread::sleep(time);
            daemon.kill().map(|()| true)
        }
        Death::Entering(call, number) => {
            daemon.kill()?;
            place.write(&random_table(random))?;
            let inject = format!("inject={call}:signal=KILL:when={number}");
            let strace = ["strace", "-D", "-qq", "-o", "/dev/null", "-e", &inject];
            let mut doomed = Daemon::start_under(&topology.node, place, &strace, place.source(), &FLAGS, &[])?;
            let died = within("alive", Duration::from_millis(500), || Ok(doomed.ended()?.is_some())).is_ok();
            if died { Ok(true) } else { doomed.kill().map(|()| false) }
        }
    }
}

pub fn changes_and_kills_break_no_connection() -> Test {
    if !has("strace") {
        return Ok(());
    }
    let (topology, _servers) = site(&[FIRST, SECOND, THIRD, FOURTH, FOREIGN])?;
    let place = Place::new("chaos")?;
    let mut random = Random(0x05ee_d0fc_4a05);
    place.write(&random_table(&mut random))?;
    let mut daemon = Daemon::start(&topology.node, &place, &FLAGS)?;
    daemon.in_force(&topology.node, &place)?;
    let (stop, started) = (AtomicBool::new(false), Instant::now());
    let (outcome, clients) = std::thread::scope(|scope| {
        let clients = scope.spawn(|| topology.client.run(|| Clients::run(&stop)));
        let mut there = 0;
        let outcome = (|| {
            for change in 1..=CHANGES {
                if change % (CHANGES / KILLS) == 0 {
                    let death = Death::random(&mut random);
                    there += u64::from(kill(&topology, &place, daemon, death, &mut random)?);
                    daemon = Daemon::start(&topology.node, &place, &FLAGS)?;
                } else {
                    place.write(&random_table(&mut random))?;
                }
                std::thread::sleep(Duration::from_micros(random.below(40_000)));
            }
            daemon.in_force(&topology.node, &place)?;
            daemon.stop()?;
            Ok::<_, Failed>(there)
        })();
        stop.store(true, Ordering::Relaxed);
        (outcome, clients.join())
    });
    let (there, clients) = (outcome?, clients.map_err(|_| "the clients panicked")??);
    let took = started.elapsed();
    let (seen, kept) = clients.finish();
    println!(
        "{CHANGES} changes and {KILLS} kills in {took:.1?} ({there} of them where they were meant to be): {} connections, \
         {kept} of them held, and {} datagrams; {} slow, {} failed, {} misrouted, {} broken",
        seen.connections, seen.datagrams, seen.slow, seen.failed, seen.misrouted, seen.broken
    );
    holds("connections were held", kept == KEPT)?;
    same("harm", &(seen.failed, seen.misrouted, seen.broken), &(0, 0, 0))
}
