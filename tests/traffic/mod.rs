//! Traffic for the gateway's tests: long transfers whose bytes are compared by hash, and many small requests.

use libtest_mimic::Failed;
use natlet::lab::Namespace;
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// No read waits longer; a transfer that stands still for as long has failed.
const PATIENCE: Duration = Duration::from_secs(20);
const BLOCK: usize = 256 << 10;

/// `NATLET_TRANSFER_BYTES`, or as much as an unoptimised build moves in a moment.
pub fn transfer_bytes() -> u64 {
    std::env::var("NATLET_TRANSFER_BYTES").map_or(64 << 20, |text| text.replace('_', "").parse().expect("a number"))
}

/// `NATLET_LOAD_MILLIS` for each figure.
pub fn load_time() -> Duration {
    let millis = std::env::var("NATLET_LOAD_MILLIS").map_or(300, |text| text.parse().expect("a number"));
    Duration::from_millis(millis)
}

/// Bytes that differ at every place of a transfer: a random block, with its number at its start.
struct Source {
    block: Vec<u8>,
    number: u64,
}

impl Source {
    fn new(seed: u64) -> Self {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        Self { block: (0..BLOCK / 8).flat_map(|_| next().to_le_bytes()).collect(), number: 0 }
    }

    /// Sends `bytes` and returns their hash.
    fn send(mut self, mut stream: &TcpStream, bytes: u64) -> std::io::Result<[u8; 32]> {
        let (mut hash, mut left) = (Sha256::new(), bytes);
        while left > 0 {
            self.block[..8].copy_from_slice(&self.number.to_le_bytes());
            self.number += 1;
            let part = &self.block[..usize::try_from(left).unwrap_or(BLOCK).min(BLOCK)];
            hash.update(part);
            stream.write_all(part)?;
            left -= part.len() as u64;
        }
        Ok(hash.finalize().into())
    }
}

/// Reads `bytes` and returns their hash.
fn receive(mut stream: &TcpStream, bytes: u64) -> std::io::Result<[u8; 32]> {
    let (mut hash, mut left, mut buffer) = (Sha256::new(), bytes, vec![0; BLOCK]);
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        let length = stream.read(&mut buffer[..most])?;
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(&buffer[..length]);
        left -= length as u64;
    }
    Ok(hash.finalize().into())
}

fn patient(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// A server for one transfer: it reads a length and as many bytes, answers with their hash, and sends as many of its own,
/// followed by their hash.
pub struct Transfer(JoinHandle<std::io::Result<SocketAddr>>);

impl Transfer {
    pub fn serve(host: &Namespace, address: SocketAddr) -> Result<Self, Failed> {
        let listener = host.run(|| TcpListener::bind(address))?;
        Ok(Self(std::thread::spawn(move || {
            let (stream, source) = listener.accept()?;
            patient(&stream)?;
            let mut length = [0; 8];
            (&stream).read_exact(&mut length)?;
            let bytes = u64::from_le_bytes(length);
            (&stream).write_all(&receive(&stream, bytes)?)?;
            let mut wanted = [0; 8];
            (&stream).read_exact(&mut wanted)?;
            let hash = Source::new(2).send(&stream, u64::from_le_bytes(wanted))?;
            (&stream).write_all(&hash)?;
            Ok(source)
        })))
    }

    /// Waits for its end; returns the source that it saw.
    pub fn join(self) -> Result<SocketAddr, Failed> {
        Ok(self.0.join().map_err(|_| "the server panicked")??)
    }
}

/// Sends and receives `bytes`; the hashes must be the other side's. Returns MB/s up and down.
pub fn transfer(mut stream: TcpStream, bytes: u64) -> Result<(f64, f64), Failed> {
    let up = send(&stream, bytes)?;
    let started = Instant::now();
    stream.write_all(&bytes.to_le_bytes())?;
    let (hash, mut theirs) = (receive(&stream, bytes)?, [0; 32]);
    stream.read_exact(&mut theirs)?;
    if hash != theirs {
        return Err("what came down is not what was sent".into());
    }
    Ok((up, bytes as f64 / 1e6 / started.elapsed().as_secs_f64()))
}

/// Sends `bytes` and receives none.
pub fn upload(mut stream: TcpStream, bytes: u64) -> Result<(), Failed> {
    send(&stream, bytes)?;
    stream.write_all(&0_u64.to_le_bytes())?;
    let mut end = Vec::new();
    stream.read_to_end(&mut end)?;
    Ok(())
}

fn send(mut stream: &TcpStream, bytes: u64) -> Result<f64, Failed> {
    patient(stream)?;
    let started = Instant::now();
    stream.write_all(&bytes.to_le_bytes())?;
    let (hash, mut theirs) = (Source::new(1).send(stream, bytes)?, [0; 32]);
    stream.read_exact(&mut theirs)?;
    if hash != theirs {
        return Err("what arrived is not what was sent".into());
    }
    Ok(bytes as f64 / 1e6 / started.elapsed().as_secs_f64())
}

/// A server that sends back what it receives, until it is dropped.
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub fn serve(host: &Namespace, address: SocketAddr) -> Result<Self, Failed> {
        let listener = host.run(|| TcpListener::bind(address))?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => drop(std::thread::spawn(move || echo(stream))),
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    patient(&stream)?;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

/// Requests of 64 bytes, one after the other on each of several connections, for `time`. Returns requests a second, the median
/// and the 99th percentile of their times.
pub fn requests(to: SocketAddr, connections: usize, time: Duration) -> Result<(f64, Duration, Duration), Failed> {
    let streams = (0..connections).map(|_| {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_nodelay(true)?;
        patient(&stream)?;
        Ok(stream)
    });
    let streams = streams.collect::<std::io::Result<Vec<_>>>()?;
    let started = Instant::now();
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let work = |mut stream: TcpStream| {
            let (mut times, mut buffer) = (Vec::new(), [7; 64]);
            while started.elapsed() < time {
                let sent = Instant::now();
                stream.write_all(&buffer)?;
                stream.read_exact(&mut buffer)?;
                times.push(sent.elapsed());
            }
            Ok::<_, std::io::Error>(times)
        };
        let threads: Vec<_> = streams.into_iter().map(|stream| scope.spawn(move || work(stream))).collect();
        threads
            .into_iter()
            .map(|t| t.join().map_err(|_| "a client panicked")?.map_err(Failed::from))
            .collect::<Result<Vec<_>, _>>()
    })?
    .concat();
    let rate = times.len() as f64 / started.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    Ok((rate, at(50), at(99)))
}
