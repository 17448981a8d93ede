//! The messages of an update, as both ends know them.

use core::fmt;
use core::net::IpAddr;
use heapless::String;
use serde::{Deserialize, Serialize};

/// Bytes of an update in one datagram.
pub const CHUNK: usize = 1024;
/// Longest datagram.
pub const LONGEST: usize = CHUNK + 64;
/// Longest reply.
pub const LONGEST_REPLY: usize = 256;
/// Longest form of a manifest, with what is in front of it when it is signed.
pub(super) const LONGEST_MANIFEST: usize = 192;
/// What a signature is for: a key that signs other things too cannot be tricked into signing an update.
const PURPOSE: &[u8] = b"natlet gateway update 1\0";

/// What the bytes of an update are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The wire form of a service table, which the gateway compiles.
    Table,
    /// A compiled program.
    Program,
}

/// What is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest<'a> {
    /// The board's name.
    pub board: &'a str,
    /// Greater than that of any update before.
    pub counter: u64,
    /// What the bytes are.
    pub kind: Kind,
    /// Their number.
    pub length: u32,
    /// Their SHA-256 digest.
    pub digest: [u8; 32],
}

impl Manifest<'_> {
    /// What the signature is over, written to `room`; `None` if it does not fit.
    pub fn signed_bytes<'r>(&self, room: &'r mut [u8]) -> Option<&'r [u8]> {
        let start = crate::bytes::concat(room, &[PURPOSE]);
        let written = postcard::to_slice(self, room.get_mut(start..)?).ok()?.len();
        room.get(..start.checked_add(written)?)
    }
}

/// A manifest and its Ed25519 signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed<'a> {
    /// What is signed.
    #[serde(borrow)]
    pub manifest: Manifest<'a>,
    /// 64 bytes.
    pub signature: &'a [u8],
}

/// To the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// How is it?
    Status,
    /// An update comes.
    #[serde(borrow)]
    Begin(Signed<'a>),
    /// A part of it.
    Data {
        /// The manifest's counter.
        counter: u64,
        /// Where it starts.
        offset: u32,
        /// At most [`CHUNK`] bytes.
        bytes: &'a [u8],
    },
    /// It is complete: use it.
    Commit {
        /// The manifest's counter.
        counter: u64,
    },
}

/// From the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply<'a> {
    /// To `Status`.
    #[serde(borrow)]
    Status(Status<'a>),
    /// To `Begin` and `Data`.
    Next {
        /// The next byte that is wanted.
        offset: u32,
    },
    /// To `Commit`: in force.
    Done {
        /// The manifest's counter.
        counter: u64,
        /// The program's content id.
        content_id: [u8; 16],
    },
    /// No, and the program in force stays.
    Refused(Refusal),
}

/// How a gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status<'a> {
    /// The board's name.
    pub board: &'a str,
    /// Of the last update.
    pub counter: u64,
    /// Content id of the program in force.
    pub content_id: [u8; 16],
    /// Frontends that it has.
    pub frontends: u32,
    /// Milliseconds since the start.
    pub uptime: u64,
    /// Bytes of stack that were ever used.
    pub stack: u32,
    /// Flows remembered.
    pub flows: u32,
    /// Frames received.
    pub received: u32,
    /// Packets sent.
    pub sent: u32,
    /// Packets translated.
    pub translated: u64,
    /// Packets answered with an ICMP error or a TCP reset.
    pub answered: u64,
    /// Packets that the translator dropped.
    pub dropped: u64,
    /// Packets without a route, or to a next hop that does not answer.
    pub undeliverable: u32,
}

/// Why an update, or a message of one, is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// No message of this protocol.
    Malformed,
    /// The signature is not of this gateway's key, or not over this manifest.
    Signature,
    /// Signed for another board.
    OtherBoard,
    /// Not newer than the last update.
    Replayed {
        /// Its counter.
        last: u64,
    },
    /// More bytes than there is room for, or than the manifest says.
    TooLong {
        /// How many there may be.
        room: u32,
    },
    /// No update with this counter was begun by this sender.
    NotBegun,
    /// Bytes are missing.
    Incomplete {
        /// How many are there.
        received: u32,
    },
    /// The bytes are not those that were signed.
    Digest,
    /// They are no table that can be compiled here.
    Table(String<96>),
    /// They are no program.
    Program(String<96>),
    /// The node of this table has an address that is none of the gateway's.
    OtherNode(IpAddr),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("no message of the update protocol"),
            Self::Signature => f.write_str("the signature is not this gateway's key's"),
            Self::OtherBoard => f.write_str("the update is for another board"),
            Self::Replayed { last } => write!(f, "the update is not newer than the last one, {last}"),
            Self::TooLong { room } => write!(f, "more than the {room} bytes that there is room for"),
            Self::NotBegun => f.write_str("this sender began no such update"),
            Self::Incomplete { received } => write!(f, "only {received} bytes were received"),
            Self::Digest => f.write_str("the bytes are not those that were signed"),
            Self::Table(why) => write!(f, "the table: {why}"),
            Self::Program(why) => write!(f, "the program: {why}"),
            Self::OtherNode(address) => write!(f, "the table's node has {address}, which is not the gateway's"),
        }
    }
}
