//! HTTP for people and load balancers: the status page, `/status`, `/counters`, `/healthz`, `/livez`, `/metrics`, and a
//! listener for each `healthCheckNodePort`.
//!
//! One thread with `poll`, whose cost is bounded whatever comes in: [`CONNECTIONS`] connections (a further one takes the
//! place of the oldest), [`REQUEST`] bytes of a request, [`DEADLINE`] from accept to the last byte. It shares a small
//! record and counters with the agent's loop and holds no lock while it waits. A server crate would bring a thread a
//! connection (tiny_http, without deadlines) or an executor (hyper); the request's head is read by hyper's own parser.

mod answer;

use super::process;
use super::status::{HealthCheck, Standing, Status};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Connections open at a time.
pub const CONNECTIONS: usize = 64;
/// Longest request head, in bytes.
pub const REQUEST: usize = 4096;
/// Time from accept to the last byte of the answer.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// Where `natlet run` listens, and `natlet status` asks, if nothing else is said; the port is that of kube-proxy's metrics.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);
/// How often to try again to listen where it failed.
const AGAIN: Duration = Duration::from_secs(10);

/// Starts the server's thread.
///
/// # Errors
/// No thread.
pub fn start(address: SocketAddr, status: Arc<Status>) -> io::Result<()> {
    let server = Server { address, status, listeners: BTreeMap::new(), connections: Vec::new(), refused: Vec::new() };
    std::thread::Builder::new().name("http".into()).spawn(move || server.run()).map(drop)
}

/// What is asked at a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    /// The agent itself.
    Agent,
    /// The health check with this port.
    Service(u16),
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    subject: Subject,
    deadline: Instant,
    request: Vec<u8>,
    /// The request is there; where there is no answer yet, it waits for the counters.
    complete: bool,
    /// The answer, and how much of it is sent.
    answer: Option<(Vec<u8>, usize)>,
}

struct Server {
    address: SocketAddr,
    status: Arc<Status>,
    listeners: BTreeMap<SocketAddr, (Subject, TcpListener)>,
    connections: Vec<Connection>,
    /// Addresses that could not be listened on, so that each is told once.
    refused: Vec<SocketAddr>,
}

impl Server {
    fn run(mut self) {
        // Nothing here needs a right; ports below 1024 are the agent's loop's affair, and it has none to them either.
        if let Err(e) = process::drop_all_capabilities() {
            warn!("{e}");
        }
        loop {
            self.status.hear();
            self.listen(&self.status.standing());
            self.wait();
            self.accept();
            let now = Instant::now();
            let status = &self.status;
            self.connections.retain_mut(|c| c.deadline > now && c.turn(status));
        }
    }

    /// Opens and closes listeners until they are the wanted ones.
    fn listen(&mut self, standing: &Standing) {
        let mut wanted = BTreeMap::from([(self.address, Subject::Agent)]);
        for HealthCheck { port, .. } in &standing.health_checks {
            for address in addresses(&standing.node_port_addresses) {
                wanted.entry(SocketAddr::new(address, *port)).or_insert(Subject::Service(*port));
            }
        }
        self.listeners.retain(|address, (subject, _)| wanted.get(address) == Some(subject));
        self.refused.retain(|address| wanted.contains_key(address));
        for (address, subject) in wanted {
            if self.listeners.contains_key(&address) {
                continue;
            }
            match TcpListener::bind(address).and_then(|l| l.set_nonblocking(true).map(|()| l)) {
                Ok(listener) => {
                    info!(%address, "listening");
                    self.refused.retain(|a| *a != address);
                    self.listeners.insert(address, (subject, listener));
                }
                Err(error) if !self.refused.contains(&address) => {
                    warn!(%address, %error, "cannot listen; trying again every {AGAIN:?}");
                    self.refused.push(address);
                }
                Err(_) => {}
            }
        }
    }

    fn wait(&self) {
        let now = Instant::now();
        let deadline = self.connections.iter().map(|c| c.deadline.saturating_duration_since(now)).min();
        let again = (!self.refused.is_empty()).then_some(AGAIN);
        let timeout = deadline.into_iter().chain(again).min();
        let timeout = timeout.map_or(PollTimeout::NONE, |wait| {
            PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = vec![PollFd::new(self.status.news(), PollFlags::POLLIN)];
        fds.extend(self.listeners.values().map(|(_, l)| PollFd::new(l.as_fd(), PollFlags::POLLIN)));
        // One that waits for the counters is woken by `news`, not by what its client does meanwhile.
        fds.extend(self.connections.iter().filter(|c| !c.complete || c.answer.is_some()).map(|c| {
            let writes = c.answer.is_some();
            PollFd::new(c.stream.as_fd(), if writes { PollFlags::POLLOUT } else { PollFlags::POLLIN })
        }));
        // An error is a signal, or memory that is short: the next turn finds out.
        let _ = poll(&mut fds, timeout);
    }

    fn accept(&mut self) {
        for (subject, listener) in self.listeners.values() {
            // The rest waits for the next turn, so that those that are here are served.
            for _ in 0..CONNECTIONS / 4 {
                let stream = match listener.accept() {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
                            // no file descriptor is left: without a pause the queue would spin this thread
                            std::thread::sleep(Duration::from_millis(50));
                        }
                        break;
                    }
                };
                if stream.set_nonblocking(true).is_err() {
                    continue;
                }
                if self.connections.len() >= CONNECTIONS {
                    self.connections.remove(0);
                }
                let deadline = Instant::now() + DEADLINE;
                let (subject, request) = (subject.clone(), Vec::new());
                let connection = Connection { stream, subject, deadline, request, complete: false, answer: None };
                self.connections.push(connection);
            }
        }
    }
}

impl Connection {
    /// Reads or writes what is possible. `false` once it is done with.
    fn turn(&mut self, status: &Status) -> bool {
        if !self.complete {
            match self.read() {
                Ok(complete) => self.complete = complete,
                Err(()) => return false,
            }
        }
        if self.complete && self.answer.is_none() {
            self.answer = answer::to(&self.request, &self.subject, status).map(|bytes| (bytes, 0));
        }
        self.write()
    }

    /// Whether the request is complete, or longer than it may be.
    fn read(&mut self) -> Result<bool, ()> {
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(()),
                Ok(length) => self.request.extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(()),
            }
            if answer::is_complete(&self.request) || self.request.len() > REQUEST {
                return Ok(true);
            }
        }
    }

    fn write(&mut self) -> bool {
        let Some((bytes, sent)) = &mut self.answer else { return true };
        while let Some(rest) = bytes.get(*sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => return false,
                Ok(length) => *sent += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        // One that is gone already is done with too.
        let _ = self.stream.shutdown(Shutdown::Write);
        false
    }
}

/// Where health checks are served: the given addresses, or all.
fn addresses(given: &[IpAddr]) -> Vec<IpAddr> {
    if !given.is_empty() {
        return given.to_vec();
    }
    // An IPv6 wildcard takes IPv4 too; where there is no IPv6, binding it fails.
    let ipv6 = std::path::Path::new("/proc/net/if_inet6").exists();
    vec![if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }]
}
