//! Another table for a running gateway: over UDP, signed, checked, compiled here if it is a table.
//!
//! Messages are [`postcard`] forms of [`Request`] and [`Reply`], one per datagram. `Begin` carries a [`Manifest`] and its
//! Ed25519 signature: nothing that is unsigned gets memory. `Data` follows in order, in chunks of [`CHUNK`]; the reply says
//! which byte is next, so a lost or repeated datagram is only sent again. `Commit` holds the bytes against the manifest's
//! digest, makes a program of them and has it swapped in; refused, the running one stays. A manifest's counter must be
//! greater than that of the last update, so that none can be played back.

mod memory;
mod message;

pub use memory::{Memory, Table};
pub use message::{CHUNK, Kind, LONGEST, LONGEST_REPLY, Manifest, Refusal, Reply, Request, Signed, Status};

use crate::config::Config;
use core::fmt::Write as _;
use core::net::SocketAddr;
use ed25519_compact::{PublicKey, Signature};
use natlet_core::{ContentId, Program, compile};
use sha2::{Digest, Sha256};

/// The receiving end. It lends memory from the board and keeps it over updates.
#[derive(Debug)]
pub struct Updates<'m> {
    config: &'m Config<'m>,
    memory: &'m mut Memory,
    transfer: Option<Transfer>,
    /// The counter of the last update.
    counter: u64,
}

/// An update under way.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    peer: SocketAddr,
    counter: u64,
    kind: Kind,
    length: usize,
    digest: [u8; 32],
    received: usize,
}

/// What a request led to.
#[derive(Debug)]
#[must_use]
pub struct Outcome<'a> {
    /// The answer.
    pub reply: Reply<'a>,
    /// `spare` holds a checked program of this length, to be swapped in once the answer is sent.
    pub install: Option<usize>,
}

impl<'a> Outcome<'a> {
    const fn answer(reply: Reply<'a>) -> Self {
        Self { reply, install: None }
    }

    const fn refuse(refusal: Refusal) -> Self {
        Self::answer(Reply::Refused(refusal))
    }
}

impl<'m> Updates<'m> {
    /// Takes no update whose counter is not above `counter`.
    pub const fn new(config: &'m Config<'m>, memory: &'m mut Memory, counter: u64) -> Self {
        Self { config, memory, transfer: None, counter }
    }

    /// The counter of the last update.
    pub const fn counter(&self) -> u64 {
        self.counter
    }

    /// Handles a datagram. `status` is asked for where the answer needs it; `running` is the program in force, `spare` the
    /// memory for the next.
    pub fn handle<'s>(
        &mut self,
        peer: SocketAddr,
        datagram: &[u8],
        status: impl FnOnce(u64) -> Status<'s>,
        running: &Program<'_>,
        spare: &mut [u8],
    ) -> Outcome<'s> {
        let Ok(request) = postcard::from_bytes(datagram) else { return Outcome::refuse(Refusal::Malformed) };
        match request {
            Request::Status => Outcome::answer(Reply::Status(status(self.counter))),
            Request::Begin(signed) => match self.begin(peer, &signed) {
                Ok(offset) => Outcome::answer(Reply::Next { offset }),
                Err(refusal) => Outcome::refuse(refusal),
            },
            Request::Data { counter, offset, bytes } => match self.data(peer, counter, offset, bytes) {
                Ok(offset) => Outcome::answer(Reply::Next { offset }),
                Err(refusal) => Outcome::refuse(refusal),
            },
            // the answer to the first one was lost
            Request::Commit { counter } if counter == self.counter && self.transfer.is_none() => {
                Outcome::answer(Reply::Done { counter, content_id: running.content_id().0 })
            }
            Request::Commit { counter } => match self.commit(peer, counter, spare) {
                Ok((len, id)) => Outcome { reply: Reply::Done { counter, content_id: id.0 }, install: Some(len) },
                Err(refusal) => Outcome::refuse(refusal),
            },
        }
    }

    fn begin(&mut self, peer: SocketAddr, signed: &Signed<'_>) -> Result<u32, Refusal> {
        let manifest = &signed.manifest;
        let mut room = [0; message::LONGEST_MANIFEST];
        let bytes = manifest.signed_bytes(&mut room).ok_or(Refusal::Malformed)?;
        let key = PublicKey::new(self.config.update_key);
        let signature = Signature::from_slice(signed.signature).map_err(|_| Refusal::Signature)?;
        key.verify(bytes, &signature).map_err(|_| Refusal::Signature)?;
        if manifest.board != self.config.name {
            return Err(Refusal::OtherBoard);
        }
        if manifest.counter <= self.counter {
            return Err(Refusal::Replayed { last: self.counter });
        }
        let length = usize::try_from(manifest.length).unwrap_or(usize::MAX);
        if length > self.memory.wire.len() {
            return Err(Refusal::TooLong { room: u32::try_from(self.memory.wire.len()).unwrap_or(u32::MAX) });
        }
        let transfer = Transfer {
            peer,
            counter: manifest.counter,
            kind: manifest.kind,
            length,
            digest: manifest.digest,
            received: 0,
        };
        // the same question again, because its answer was lost: go on where it was
        let known =
            self.transfer.filter(|t| t.peer == peer && t.counter == transfer.counter && t.digest == transfer.digest);
        let transfer = self.transfer.insert(known.unwrap_or(transfer));
        Ok(u32::try_from(transfer.received).unwrap_or(u32::MAX))
    }

    fn transfer_of(&mut self, peer: SocketAddr, counter: u64) -> Result<&mut Transfer, Refusal> {
        let transfer = self.transfer.as_mut().filter(|t| t.peer == peer && t.counter == counter);
        transfer.ok_or(Refusal::NotBegun)
    }

    fn data(&mut self, peer: SocketAddr, counter: u64, offset: u32, bytes: &[u8]) -> Result<u32, Refusal> {
        let transfer = self.transfer.as_mut().filter(|t| t.peer == peer && t.counter == counter);
        let transfer = transfer.ok_or(Refusal::NotBegun)?;
        let end = transfer.received.saturating_add(bytes.len());
        if usize::try_from(offset) == Ok(transfer.received) {
            if end > transfer.length {
                return Err(Refusal::TooLong { room: u32::try_from(transfer.length).unwrap_or(u32::MAX) });
            }
            let room = self.memory.wire.get_mut(transfer.received..end).unwrap_or(&mut []);
            for (to, from) in room.iter_mut().zip(bytes) {
                *to = *from;
            }
            transfer.received = end;
        }
        Ok(u32::try_from(transfer.received).unwrap_or(u32::MAX))
    }

    fn commit(&mut self, peer: SocketAddr, counter: u64, spare: &mut [u8]) -> Result<(usize, ContentId), Refusal> {
        let transfer = *self.transfer_of(peer, counter)?;
        let (received, length) = (transfer.received, transfer.length);
        if received != length {
            return Err(Refusal::Incomplete { received: u32::try_from(received).unwrap_or(u32::MAX) });
        }
        // whatever comes of it, this transfer is over
        self.transfer = None;
        let Memory { wire, table, scratch } = &mut *self.memory;
        let wire = wire.get(..length).unwrap_or(&[]);
        if <[u8; 32]>::from(Sha256::digest(wire)) != transfer.digest {
            return Err(Refusal::Digest);
        }
        let len = match transfer.kind {
            Kind::Program => {
                let full = Refusal::TooLong { room: u32::try_from(spare.len()).unwrap_or(u32::MAX) };
                let room = spare.get_mut(..length).ok_or(full)?;
                for (to, from) in room.iter_mut().zip(wire) {
                    *to = *from;
                }
                length
            }
            Kind::Table => {
                table.read_wire(wire).map_err(|e| Refusal::Table(words(&e)))?;
                compile(&table.as_table(), scratch, spare).map_err(|e| Refusal::Table(words(&e)))?
            }
        };
        let program = spare.get(..len).unwrap_or(&[]);
        let program = Program::new_checked(program).map_err(|e| Refusal::Program(words(&e)))?;
        if let Some(address) = program.context().addresses().find(|a| !self.config.is_own(*a)) {
            return Err(Refusal::OtherNode(address));
        }
        self.counter = counter;
        Ok((len, program.content_id()))
    }
}

/// An error in its own words, cut where the message's room ends.
fn words(error: &impl core::fmt::Display) -> heapless::String<96> {
    let mut text = heapless::String::new();
    let _ = write!(text, "{error}");
    text
}

#[cfg(test)]
mod tests;
