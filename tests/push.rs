//! The sending end of a board's update protocol (`firmware-example/src/update`): status, and signed updates.

use ed25519_compact::{KeyPair, Seed};
use natlet_firmware_example::update::{CHUNK, Kind, LONGEST, Manifest, Refusal, Reply, Request, Signed};
use sha2::{Digest, Sha256};
use std::io;
use std::net::UdpSocket;
use std::time::Duration;

/// Times that a datagram is sent before the board counts as silent.
const TRIES: u32 = 15;
const PATIENCE: Duration = Duration::from_millis(300);

/// What came of an update.
#[derive(Debug)]
pub enum PushError {
    /// No answer, or no socket.
    Io(io::Error),
    /// The board refused.
    Refused(Refusal),
    /// An answer that belongs to another question.
    Confused,
}

impl From<io::Error> for PushError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for PushError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the board: {error}"),
            Self::Refused(refusal) => write!(f, "the board refuses: {refusal}"),
            Self::Confused => f.write_str("the board's answer fits no question"),
        }
    }
}

impl std::error::Error for PushError {}

/// An update, signed or not yet.
#[derive(Clone, Debug)]
pub struct Update<'a> {
    /// The board's name.
    pub board: &'a str,
    /// Greater than that of any update before.
    pub counter: u64,
    /// What `bytes` are.
    pub kind: Kind,
    /// The table's wire form, or the program.
    pub bytes: &'a [u8],
}

impl Update<'_> {
    fn manifest(&self) -> Manifest<'_> {
        let Self { board, counter, kind, bytes } = *self;
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Manifest { board, counter, kind, length, digest: Sha256::digest(bytes).into() }
    }

    /// Sends it, signed with the key of this seed, to the board that the socket is connected to. Returns the content id of
    /// the program that is in force then.
    pub fn push(&self, socket: &UdpSocket, seed: [u8; 32]) -> Result<[u8; 16], PushError> {
        let manifest = self.manifest();
        let mut room = [0; 256];
        let signed = manifest.signed_bytes(&mut room).ok_or(PushError::Confused)?;
        let signature = KeyPair::from_seed(Seed::new(seed)).sk.sign(signed, None);
        self.push_signed(socket, &*signature)
    }

    /// Sends it with a signature that was made before.
    pub fn push_signed(&self, socket: &UdpSocket, signature: &[u8]) -> Result<[u8; 16], PushError> {
        let counter = self.counter;
        let mut reply = ask(socket, &Request::Begin(Signed { manifest: self.manifest(), signature }), answer)?;
        loop {
            let offset = match reply {
                Answer::Next(offset) => offset,
                Answer::Done(id) => return Ok(id),
                Answer::Refused(refusal) => return Err(PushError::Refused(refusal)),
                Answer::Other => return Err(PushError::Confused),
            };
            let rest = usize::try_from(offset).ok().and_then(|o| self.bytes.get(o..)).ok_or(PushError::Confused)?;
            let bytes = rest.get(..CHUNK).unwrap_or(rest);
            let request =
                if rest.is_empty() { Request::Commit { counter } } else { Request::Data { counter, offset, bytes } };
            reply = ask(socket, &request, answer)?;
        }
    }
}

enum Answer {
    Next(u32),
    Done([u8; 16]),
    Refused(Refusal),
    Other,
}

fn answer(reply: Reply<'_>) -> Answer {
    match reply {
        Reply::Next { offset } => Answer::Next(offset),
        Reply::Done { content_id, .. } => Answer::Done(content_id),
        Reply::Refused(refusal) => Answer::Refused(refusal),
        Reply::Status(_) => Answer::Other,
    }
}

/// Sends a request, again where no answer comes, and reads the answer.
pub fn ask<T>(socket: &UdpSocket, request: &Request<'_>, read: impl FnOnce(Reply<'_>) -> T) -> Result<T, PushError> {
    let mut room = [0; LONGEST];
    let datagram = postcard::to_slice(request, &mut room).map_err(|_| PushError::Confused)?;
    drain(socket)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..TRIES {
        let mut answer = [0; 2048];
        match socket.send(datagram).and_then(|_| socket.recv(&mut answer)) {
            Ok(len) => {
                let answer = answer.get(..len).unwrap_or(&[]);
                return Ok(read(postcard::from_bytes(answer).map_err(|_| PushError::Confused)?));
            }
            Err(error) => last = error,
        }
    }
    Err(last.into())
}

/// Throws late answers to earlier questions away.
fn drain(socket: &UdpSocket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    while socket.recv(&mut [0; 2048]).is_ok() {}
    socket.set_nonblocking(false)
}
