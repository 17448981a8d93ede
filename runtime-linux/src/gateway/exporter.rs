//! Counters for Prometheus, over HTTP: a few connections, each short, served between packets by the gateway's own thread.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

/// Connections at a time; more are closed at once.
const MAX_CONNECTIONS: usize = 8;
/// The longest request that is read.
const MAX_REQUEST: usize = 4096;
/// How long a connection may take in all.
const PATIENCE: Duration = Duration::from_secs(5);

/// The listening socket and who is connected.
#[derive(Debug)]
pub struct Exporter {
    listener: TcpListener,
    connections: Vec<Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    /// What is left to send; `None` while the request is not complete.
    reply: Option<Vec<u8>>,
    deadline: Instant,
}

impl Exporter {
    /// Listens.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, connections: Vec::new() })
    }

    /// What to wait for.
    pub fn watched(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let connections = self
            .connections
            .iter()
            .map(|c| (c.stream.as_fd(), if c.reply.is_some() { PollFlags::POLLOUT } else { PollFlags::POLLIN }));
        std::iter::once((self.listener.as_fd(), PollFlags::POLLIN)).chain(connections)
    }

    /// Goes on with every connection as far as it goes without waiting, and closes those that took too long: call it now
    /// and then also while nothing happens. `text` makes the answer.
    pub fn serve(&mut self, now: Instant, text: impl Fn() -> String) {
        self.connections.retain(|c| c.deadline > now);
        // those that find no room are closed; a flood of them must not keep packets waiting
        for (stream, _) in std::iter::from_fn(|| self.listener.accept().ok()).take(2 * MAX_CONNECTIONS) {
            if self.connections.len() < MAX_CONNECTIONS && stream.set_nonblocking(true).is_ok() {
                let deadline = now + PATIENCE;
                self.connections.push(Connection { stream, request: Vec::new(), reply: None, deadline });
            }
        }
        self.connections.retain_mut(|c| c.go_on(&text));
    }
}

impl Connection {
    /// `false` when it is finished or broken.
    fn go_on(&mut self, text: impl Fn() -> String) -> bool {
        if self.reply.is_none() {
            let mut buffer = [0; 1024];
            loop {
                match self.stream.read(&mut buffer) {
                    Ok(0) => return false,
                    Ok(length) => self.request.extend_from_slice(&buffer[..length]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => return false,
                }
                if self.request.len() > MAX_REQUEST {
                    return false;
                }
            }
            if self.request.windows(4).any(|w| w == b"\r\n\r\n") {
                self.reply = Some(reply(&self.request, text));
            }
        }
        let Some(reply) = &mut self.reply else { return true };
        while !reply.is_empty() {
            match self.stream.write(reply) {
                Ok(0) => return false,
                Ok(length) => drop(reply.drain(..length)),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        false
    }
}

/// The whole answer to a request (RFC 9112).
fn reply(request: &[u8], text: impl Fn() -> String) -> Vec<u8> {
    let line = request.split(|b| *b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|b| *b == b' ');
    let (status, kind, body) = match (words.next(), words.next()) {
        (Some(b"GET"), Some(b"/metrics" | b"/")) => {
            ("200 OK", "application/openmetrics-text; version=1.0.0; charset=utf-8", text())
        }
        (Some(b"GET"), _) => ("404 Not Found", "text/plain", "the counters are at /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "text/plain", "only GET\n".to_owned()),
    };
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_metrics_are_served() {
        let answer = |request: &str| String::from_utf8(reply(request.as_bytes(), || "natlet 1\n".into())).unwrap();
        let good = answer("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(good.starts_with("HTTP/1.1 200 OK\r\n") && good.ends_with("\r\n\r\nnatlet 1\n"), "{good}");
        assert!(good.contains("Content-Length: 9\r\n"));
        assert!(answer("GET /etc/passwd HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(answer("POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        assert!(answer("\r\n\r\n").starts_with("HTTP/1.1 405"));
    }

    #[test]
    fn connections_are_bounded_in_number_size_and_time() {
        let mut exporter = Exporter::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = exporter.listener.local_addr().unwrap();
        let text = || "natlet 1\n".to_owned();
        let clients: Vec<_> = (0..MAX_CONNECTIONS + 3).map(|_| TcpStream::connect(address).unwrap()).collect();
        let start = Instant::now();
        exporter.serve(start, text);
        assert_eq!(exporter.connections.len(), MAX_CONNECTIONS);
        (&clients[0]).write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        (&clients[1]).write_all(&[b'x'; MAX_REQUEST + 1]).unwrap();
        while exporter.connections.len() > MAX_CONNECTIONS - 2 && start.elapsed() < PATIENCE {
            exporter.serve(start, text);
        }
        let mut answer = String::new();
        (&clients[0]).read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("natlet 1\n"));
        exporter.serve(start + PATIENCE, text);
        assert!(exporter.connections.is_empty());
    }
}
