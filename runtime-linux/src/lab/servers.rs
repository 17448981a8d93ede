//! Servers that say who they are and whom they see: what the probes read.

use super::{LabError, Namespace, socket};
use natlet_core::table::Protocol;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};
use std::collections::BTreeMap;
use std::io::{PipeWriter, Read, Write, pipe};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::thread::JoinHandle;

/// Connections kept open at a time by all servers of one [`Servers`]; beyond it the oldest is closed.
const MAX_CONNECTIONS: usize = 4096;

/// Connections or datagrams taken from one listener before the others have their turn.
const TURN: usize = 64;

/// Bytes that wait at a UDP server while its thread serves others. Each datagram counts about a kilobyte, however short it
/// is, so that the usual 208 KiB lose some of several hundred probes to one endpoint.
const RECEIVE_BUFFER: usize = 16 << 20;

/// The event of the pipe whose closing stops the thread. Listeners count from 0, connections behind them.
const STOP: u64 = u64::MAX;

/// An address to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listener {
    /// Protocol.
    pub protocol: Protocol,
    /// Address and port.
    pub address: SocketAddr,
}

impl Listener {
    /// Serves TCP on `address`.
    pub const fn tcp(address: SocketAddr) -> Self {
        Self { protocol: Protocol::Tcp, address }
    }

    /// Serves UDP on `address`.
    pub const fn udp(address: SocketAddr) -> Self {
        Self { protocol: Protocol::Udp, address }
    }
}

/// Running servers; they stop when this is dropped.
///
/// A connection is answered with the line `endpoint-ip:port source-ip:port` as the server sees them, and closed once the
/// client closes it. A datagram is answered with the same line.
#[derive(Debug)]
#[must_use = "the servers stop when this is dropped"]
pub struct Servers {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Servers {
    /// Serves all `listeners` in the namespace, on one thread. They accept before this returns.
    pub fn start(namespace: &Namespace, listeners: &[Listener]) -> Result<Self, LabError> {
        socket::raise_file_limit();
        let failed = |errno| LabError::kernel(format!("serve in {}", namespace.name()), errno);
        let sockets = namespace.run(|| {
            let open = |listener: &Listener| {
                Socket::open(*listener).map_err(|errno| {
                    let Listener { protocol, address } = listener;
                    LabError::kernel(format!("listen on {protocol} {address} in {}", namespace.name()), errno)
                })
            };
            listeners.iter().map(open).collect::<Result<Vec<_>, _>>()
        })?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        for (token, socket) in (0..).zip(&sockets) {
            watch(&epoll, socket, token).map_err(failed)?;
        }
        let (stopped, stop) = pipe().map_err(|error| failed(super::errno_of(&error)))?;
        epoll.add(&stopped, EpollEvent::new(EpollFlags::EPOLLHUP, STOP)).map_err(failed)?;
        let mut room = Room { epoll, sockets, connections: BTreeMap::new(), next: listeners.len() as u64 };
        let thread = std::thread::Builder::new().name(format!("serve {}", namespace.name())).spawn(move || {
            room.serve();
            drop(stopped);
        });
        let thread = thread.map_err(|error| failed(super::errno_of(&error)))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic there has been printed; a second one here would hide it
        }
    }
}

#[derive(Debug)]
enum Socket {
    Stream(TcpListener),
    Datagram(UdpSocket, SocketAddr),
}

impl Socket {
    fn open(listener: Listener) -> Result<Self, Errno> {
        let fd = socket::open(listener.protocol, listener.address)?;
        socket::bind_to(&fd, listener.address)?;
        if listener.protocol == Protocol::Udp {
            // Where it is refused, the usual buffer holds the datagrams of fewer probes.
            let _ = setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER);
            return Ok(Self::Datagram(fd.into(), listener.address));
        }
        listen(&fd, Backlog::MAXCONN)?;
        Ok(Self::Stream(fd.into()))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Stream(socket) => socket.as_fd(),
            Self::Datagram(socket, _) => socket.as_fd(),
        }
    }
}

/// All that the thread owns.
struct Room {
    epoll: Epoll,
    sockets: Vec<Socket>,
    connections: BTreeMap<u64, TcpStream>,
    next: u64,
}

impl Room {
    fn serve(&mut self) {
        let mut events = [EpollEvent::empty(); 256];
        loop {
            let ready = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => continue,
                Err(_) => return,
            };
            for event in &events[..ready] {
                match event.data() {
                    STOP => return,
                    token => self.handle(token),
                }
            }
        }
    }

    fn handle(&mut self, token: u64) {
        if let Some(connection) = self.connections.get_mut(&token) {
            match connection.read(&mut [0; 512]) {
                Ok(1..) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => drop(self.connections.remove(&token)),
            }
            return;
        }
        match usize::try_from(token).ok().and_then(|i| self.sockets.get(i)) {
            Some(Socket::Stream(listener)) => {
                let accepted: Vec<_> = std::iter::from_fn(|| listener.accept().ok()).take(TURN).collect();
                for (connection, source) in accepted {
                    self.greet(connection, source);
                }
            }
            Some(Socket::Datagram(socket, endpoint)) => {
                for _ in 0..TURN {
                    let Ok((_, source)) = socket.recv_from(&mut [0; 512]) else { return };
                    let _ = socket.send_to(line(*endpoint, source).as_bytes(), source); // lost like any datagram
                }
            }
            None => {}
        }
    }

    /// Answers a new connection and waits for its end. One that fails meanwhile is dropped: its client sees that.
    fn greet(&mut self, mut connection: TcpStream, source: SocketAddr) {
        let Ok(endpoint) = connection.local_addr() else { return };
        if connection.set_nonblocking(true).is_err() || connection.write_all(line(endpoint, source).as_bytes()).is_err()
        {
            return;
        }
        if watch(&self.epoll, &connection, self.next).is_ok() {
            self.connections.insert(self.next, connection);
            self.next += 1;
        }
        if self.connections.len() > MAX_CONNECTIONS {
            self.connections.pop_first();
        }
    }
}

fn watch(epoll: &Epoll, fd: impl AsFd, token: u64) -> Result<(), Errno> {
    epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))
}

fn line(endpoint: SocketAddr, source: SocketAddr) -> String {
    format!("{endpoint} {source}\n")
}
