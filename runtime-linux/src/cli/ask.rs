//! Asks a running agent over HTTP.

use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long to wait for a connection and for each part of the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The whole answer must be there by then.
const DEADLINE: Duration = Duration::from_secs(10);
/// The longest answer: the counters of some 200,000 services.
const LONGEST: usize = 64 << 20;

/// A document of the agent; else why there is none, as part of a sentence.
pub fn agent(address: SocketAddr, path: &str) -> Result<Value, String> {
    let bytes = get(address, path).map_err(|e| match e.kind() {
        std::io::ErrorKind::ConnectionRefused => format!("none answers at {address}"),
        _ => format!("none answers at {address}: {e}"),
    })?;
    let mut fields = [httparse::EMPTY_HEADER; 48];
    let mut head = httparse::Response::new(&mut fields);
    let stranger = || format!("what answers at {address} is no agent of natlet {}", env!("CARGO_PKG_VERSION"));
    let Ok(httparse::Status::Complete(length)) = head.parse(&bytes) else { return Err(stranger()) };
    let body = bytes.get(length..).unwrap_or_default();
    match head.code {
        Some(200) => serde_json::from_slice(body).map_err(|_| stranger()),
        Some(503) => Err(format!("the agent cannot tell: {}", String::from_utf8_lossy(body).trim_end())),
        _ => Err(stranger()),
    }
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<Vec<u8>> {
    let started = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // at once: a server may answer and close after its first look
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(bytes),
            length => bytes.extend_from_slice(buffer.get(..length).unwrap_or_default()),
        }
        if bytes.len() > LONGEST || started.elapsed() > DEADLINE {
            return Err(std::io::Error::other("its answer does not end"));
        }
    }
}
