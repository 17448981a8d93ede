//! Probes: real connections and datagrams, and what became of them.

use super::{LabError, socket};
use natlet_core::table::Protocol;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Probes started before the answers are looked at: few enough for the queue of an address still being resolved.
const TURN: usize = 32;

/// Probes under way at a time.
const IN_FLIGHT: usize = 4096;

/// The longest line a server of the laboratory sends: two IPv6 addresses with ports, a blank and an end of line.
const MAX_LINE: usize = 128;

/// A connection to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Protocol.
    pub protocol: Protocol,
    /// Source address and port; port 0 is any. `None`: the kernel's choice.
    pub source: Option<SocketAddr>,
    /// Destination.
    pub destination: SocketAddr,
}

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// A server of the laboratory answered.
    Answered {
        /// The address that it serves: where the connection ended.
        endpoint: SocketAddr,
        /// The source that it saw.
        seen_source: SocketAddr,
    },
    /// A TCP RST or an ICMP port unreachable.
    Refused,
    /// Any other error from the network, as `EHOSTUNREACH` or `ECONNRESET`.
    Unreachable(Errno),
    /// No answer in time.
    TimedOut,
    /// Something answered that is no server of the laboratory, or closed the connection before it said who it is.
    Garbled,
}

/// Tries one TCP connection from the calling thread's namespace ([`Namespace::run`](super::Namespace::run)).
pub fn tcp_probe(
    source: Option<SocketAddr>,
    destination: SocketAddr,
    timeout: Duration,
) -> Result<ProbeResult, LabError> {
    one(Probe { protocol: Protocol::Tcp, source, destination }, timeout)
}

/// Sends one UDP datagram from the calling thread's namespace and waits for its answer.
pub fn udp_probe(
    source: Option<SocketAddr>,
    destination: SocketAddr,
    timeout: Duration,
) -> Result<ProbeResult, LabError> {
    one(Probe { protocol: Protocol::Udp, source, destination }, timeout)
}

fn one(probe: Probe, timeout: Duration) -> Result<ProbeResult, LabError> {
    Ok(probes(&[probe], timeout)?.into_iter().next().unwrap_or(ProbeResult::TimedOut))
}

/// Tries all probes at once, and returns their results in the same order. Each has `timeout` from its own start, so that
/// hundreds of silent ones take about one timeout together. An error is a local failure: no socket, no such source.
pub fn probes(probes: &[Probe], timeout: Duration) -> Result<Vec<ProbeResult>, LabError> {
    socket::raise_file_limit();
    let failed = |errno| LabError::kernel("wait for probes", errno);
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
    let mut results = vec![None; probes.len()];
    let mut sockets: Vec<Option<Live>> = std::iter::repeat_with(|| None).take(probes.len()).collect();
    let mut deadlines = VecDeque::new();
    let mut events = [EpollEvent::empty(); 256];
    let mut under_way = 0;
    let mut waiting = probes.iter().enumerate().peekable();
    while under_way > 0 || waiting.peek().is_some() {
        for (index, probe) in waiting.by_ref().take(TURN.min(IN_FLIGHT - under_way)) {
            match start(probe)? {
                Ok(live) => {
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, index as u64);
                    epoll.add(&live, event).map_err(failed)?;
                    sockets[index] = Some(live);
                    deadlines.push_back((index, Instant::now() + timeout));
                    under_way += 1;
                }
                Err(errno) => results[index] = Some(classify(errno)),
            }
        }
        let more = waiting.peek().is_some() && under_way < IN_FLIGHT;
        let ready = match epoll.wait(&mut events, patience(deadlines.front(), more)) {
            Err(Errno::EINTR) => 0,
            other => other.map_err(failed)?,
        };
        for event in &events[..ready] {
            let Ok(index) = usize::try_from(event.data()) else { continue };
            if let Some(result) = sockets[index].as_mut().and_then(Live::hear) {
                (results[index], sockets[index]) = (Some(result), None);
                under_way -= 1;
            }
        }
        let now = Instant::now();
        while let Some((index, _)) = deadlines.front().filter(|(_, deadline)| *deadline <= now) {
            let index = *index;
            deadlines.pop_front();
            if sockets[index].take().is_some() {
                under_way -= 1;
            }
        }
    }
    Ok(results.into_iter().map(|result| result.unwrap_or(ProbeResult::TimedOut)).collect())
}

/// How long to wait for events: not at all while there are more to start, else until the first deadline.
fn patience(first: Option<&(usize, Instant)>, more: bool) -> EpollTimeout {
    match first {
        Some((_, deadline)) if !more => {
            let left = deadline.saturating_duration_since(Instant::now());
            // One millisecond more than the rounded-down rest: waking before the deadline would spin.
            EpollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX)
        }
        _ => EpollTimeout::ZERO,
    }
}

/// A probe under way.
#[derive(Debug)]
enum Live {
    Stream(TcpStream, Vec<u8>),
    Datagram(UdpSocket),
}

impl AsFd for Live {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stream(stream, _) => stream.as_fd(),
            Self::Datagram(socket) => socket.as_fd(),
        }
    }
}

/// Starts a probe: `Err` is this machine's failure, `Ok(Err)` already the network's answer.
fn start(probe: &Probe) -> Result<Result<Live, Errno>, LabError> {
    let Probe { protocol, source, destination } = *probe;
    let local = |errno: Errno| {
        let from = source.map_or(String::new(), |source| format!(" from {source}"));
        LabError::kernel(format!("probe {protocol} {destination}{from}"), errno)
    };
    let fd: OwnedFd = socket::open(protocol, destination).map_err(local)?;
    if let Some(source) = source {
        socket::bind_source(&fd, source).map_err(local)?;
    }
    match socket::connect_to(&fd, destination) {
        Ok(()) => {}
        Err(errno @ (Errno::EADDRNOTAVAIL | Errno::EADDRINUSE | Errno::EAGAIN | Errno::EINVAL)) => {
            return Err(local(errno));
        }
        Err(errno) => return Ok(Err(errno)),
    }
    if protocol != Protocol::Udp {
        return Ok(Ok(Live::Stream(fd.into(), Vec::new())));
    }
    let socket = UdpSocket::from(fd);
    match socket.send(b"natlet\n").map_err(|error| super::errno_of(&error)) {
        // A rule that drops or rejects on output says EPERM at once; which of the two it was shows the ICMP error.
        Ok(_) | Err(Errno::EPERM) => Ok(Ok(Live::Datagram(socket))),
        Err(errno) => Ok(Err(errno)),
    }
}

impl Live {
    /// Reads what has come; `None` while the line is not complete.
    fn hear(&mut self) -> Option<ProbeResult> {
        let mut buffer = [0; MAX_LINE];
        let read = match self {
            // SO_ERROR first: an ICMP error that met a socket busy with its own connect is told only there.
            Self::Stream(stream, _) => match stream.take_error() {
                Ok(Some(error)) => Err(error),
                _ => stream.read(&mut buffer),
            },
            Self::Datagram(socket) => socket.recv(&mut buffer),
        };
        let bytes = match read {
            Ok(length) => &buffer[..length],
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return None,
            Err(error) => return Some(classify(super::errno_of(&error))),
        };
        let Self::Stream(_, line) = self else { return Some(parse(bytes)) };
        line.extend_from_slice(bytes);
        let complete = line.ends_with(b"\n") || bytes.is_empty() || line.len() > MAX_LINE;
        complete.then(|| parse(line))
    }
}

fn classify(errno: Errno) -> ProbeResult {
    match errno {
        Errno::ECONNREFUSED => ProbeResult::Refused,
        Errno::ETIMEDOUT => ProbeResult::TimedOut,
        errno => ProbeResult::Unreachable(errno),
    }
}

fn parse(line: &[u8]) -> ProbeResult {
    let addresses = || {
        let (endpoint, source) = std::str::from_utf8(line).ok()?.strip_suffix('\n')?.split_once(' ')?;
        Some(ProbeResult::Answered { endpoint: endpoint.parse().ok()?, seen_source: source.parse().ok()? })
    };
    addresses().unwrap_or(ProbeResult::Garbled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whole_or_not_at_all() {
        let (endpoint, seen_source) = ("10.0.0.1:80".parse().unwrap(), "[2001:db8::1]:4000".parse().unwrap());
        assert_eq!(parse(b"10.0.0.1:80 [2001:db8::1]:4000\n"), ProbeResult::Answered { endpoint, seen_source });
        for line in [&b""[..], b"10.0.0.1:80 [2001:db8::1]:4000", b"10.0.0.1:80\n", b"220 hello\n", b"\xff\n"] {
            assert_eq!(parse(line), ProbeResult::Garbled);
        }
    }
}
