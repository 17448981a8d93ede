//! What an agent says of itself, and what the system says of it.

use crate::daemon::LIMIT;
use libtest_mimic::Failed;
use natlet::lab::Namespace;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

/// `/metrics` of the agent, which must be told to listen there.
pub fn metrics(host: &Namespace) -> Result<String, Failed> {
    let address = SocketAddr::from(([127, 0, 0, 1], 10249));
    let mut stream = host.run(|| TcpStream::connect_timeout(&address, LIMIT))?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The sum of a metric's values whose line holds all of these words.
pub fn metric(text: &str, name: &str, words: &[&str]) -> f64 {
    let lines = text.lines().filter(|l| l.starts_with(name) && words.iter().all(|w| l.contains(w)));
    lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Ticks of the processor that a process has used, 100 a second.
pub fn ticks(id: u32) -> Result<u64, Failed> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |index: usize| fields.get(index).and_then(|f| f.parse::<u64>().ok()).ok_or("a number");
    Ok(field(11)? + field(12)?)
}

/// A line of `/proc/PID/status`, in kB.
pub fn memory(id: u32, name: &str) -> Result<u64, Failed> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find(|l| l.starts_with(name)).ok_or("no such line")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
}
