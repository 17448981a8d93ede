//! Frames of messages: `struct nlmsghdr` (linux/netlink.h) and `struct nfgenmsg` (linux/netfilter/nfnetlink.h).

use super::super::model::Family;
use super::attribute::{Be16, Writer};

/// Message numbers of nf_tables (`enum nf_tables_msg_types`), and the two of a batch.
#[expect(missing_docs, reason = "the kernel's own names")]
pub mod kind {
    pub const NEWTABLE: u8 = 0;
    pub const GETTABLE: u8 = 1;
    pub const DELTABLE: u8 = 2;
    pub const NEWCHAIN: u8 = 3;
    pub const GETCHAIN: u8 = 4;
    pub const DELCHAIN: u8 = 5;
    pub const NEWRULE: u8 = 6;
    pub const GETRULE: u8 = 7;
    pub const DELRULE: u8 = 8;
    pub const NEWSET: u8 = 9;
    pub const GETSET: u8 = 10;
    pub const DELSET: u8 = 11;
    pub const NEWSETELEM: u8 = 12;
    pub const GETSETELEM: u8 = 13;
    pub const DELSETELEM: u8 = 14;
    pub const NEWGEN: u8 = 15;
    pub const GETGEN: u8 = 16;
    /// Not nf_tables' own: of no subsystem.
    pub const BATCH_BEGIN: u8 = 0xf0;
    /// Not nf_tables' own: of no subsystem.
    pub const BATCH_END: u8 = 0xf1;
}

/// NFNL_SUBSYS_NFTABLES.
const SUBSYSTEM: u8 = 10;
const REQUEST: u16 = 1;
/// NLM_F_ACK.
pub const ACK: u16 = 4;
/// NLM_F_DUMP.
const DUMP: u16 = 0x300;
/// NLM_F_CREATE.
pub const CREATE: u16 = 0x400;
/// NLM_F_APPEND.
pub const APPEND: u16 = 0x800;
/// `nlmsghdr` and `nfgenmsg`.
const HEADER: usize = 20;

/// Writes one message: headers, what `fill` writes, and the length over both.
pub fn message(w: &mut Writer, kind: u8, flags: u16, family: Option<Family>, seq: u32, fill: impl FnOnce(&mut Writer)) {
    let start = w.len();
    let batch = matches!(kind, kind::BATCH_BEGIN | kind::BATCH_END);
    let number = if batch { u16::from(kind & 0x0f) | 0x10 } else { u16::from(SUBSYSTEM) << 8 | u16::from(kind) };
    let resource = Be16::from(if batch { u16::from(SUBSYSTEM) } else { 0 });
    w.bytes.extend_from_slice(&[0; 4]);
    w.bytes.extend_from_slice(&number.to_ne_bytes());
    w.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
    w.bytes.extend_from_slice(&seq.to_ne_bytes());
    w.bytes.extend_from_slice(&[0; 4]);
    w.bytes.extend_from_slice(&[family.map_or(0, Family::number), 0]);
    w.bytes.extend_from_slice(&resource.0);
    fill(w);
    let length = u32::try_from(w.len() - start).unwrap_or(u32::MAX);
    w.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// One object.
    One,
    /// One reply each for several objects, and an acknowledgement at the end.
    Several,
    /// All objects, and a closing message.
    Dump,
}

/// A request outside a batch.
pub fn request(kind: u8, answer: Answer, family: Option<Family>, seq: u32, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::default();
    let flags = match answer {
        Answer::One => 0,
        Answer::Several => ACK,
        Answer::Dump => DUMP,
    };
    message(&mut w, kind, flags, family, seq, fill);
    w.bytes
}

/// A message that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// nlmsg_type: below 16 control messages of netlink itself.
    pub number: u16,
    /// nlmsg_flags.
    pub flags: u16,
    /// nlmsg_seq.
    pub seq: u32,
    /// nlmsg_pid: in a notification the port of the socket that made the change.
    pub port: u32,
    /// Everything after `nlmsghdr`.
    pub payload: &'a [u8],
    /// res_id of `nfgenmsg`: low 16 bits of the generation in a reply.
    pub resource: u16,
    /// Everything after `nfgenmsg`.
    pub attributes: &'a [u8],
}

impl Message<'_> {
    /// Number inside nf_tables, `None` for other messages.
    pub fn kind(&self) -> Option<u8> {
        let [subsystem, kind] = self.number.to_be_bytes();
        (subsystem == SUBSYSTEM).then_some(kind)
    }
}

/// The messages in what was received (or is to be sent); ends at the first malformed one.
pub fn messages(bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<16>()?;
        let [l0, l1, l2, l3, t0, t1, f0, f1, s0, s1, s2, s3, p0, p1, p2, p3] = *header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let payload = rest.get(16..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        let resource = payload.get(2..4).and_then(|r| r.try_into().ok()).map_or(0, |r| Be16(r).into());
        Some(Message {
            number: u16::from_ne_bytes([t0, t1]),
            flags: u16::from_ne_bytes([f0, f1]),
            seq: u32::from_ne_bytes([s0, s1, s2, s3]),
            port: u32::from_ne_bytes([p0, p1, p2, p3]),
            payload,
            resource,
            attributes: payload.get(HEADER - 16..).unwrap_or_default(),
        })
    })
}
