//! ctnetlink: lists entries and removes some (linux/netfilter/nfnetlink_conntrack.h).
//!
//! An entry is removed by its own original tuple, zone and id, copied from the listing: one that was replaced since by a
//! new entry with the same tuple has another id and stays. The crate's conntrack types would copy every attribute of every
//! entry of the host; read in place, a listing costs no allocation for what stays.

use crate::netlink::LoadError;
use crate::nft::wire::attribute::{Attribute, Be16, Writer, find};
use crate::nft::wire::{Message, messages};
use natlet_core::table::Protocol;
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

/// NFNL_SUBSYS_CTNETLINK << 8, with IPCTNL_MSG_CT_GET and IPCTNL_MSG_CT_DELETE.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
/// NLM_F_REQUEST with NLM_F_DUMP or NLM_F_ACK.
const LIST: u16 = 0x301;
const CHANGE: u16 = 0x5;
/// NLMSG_ERROR and NLMSG_DONE.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// AF_INET and AF_INET6.
const FAMILIES: [u8; 2] = [2, 10];
/// CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ID and CTA_ZONE.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// CTA_PROTOINFO, CTA_COUNTERS_ORIG and CTA_COUNTERS_REPLY.
const PROTOCOL_STATE: u16 = 4;
const COUNTERS: [u16; 2] = [9, 10];
/// TCP_CONNTRACK_TIME_WAIT and TCP_CONNTRACK_CLOSE: entries of connections that have ended.
const ENDED: [u8; 2] = [7, 8];

/// An entry as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Protocol.
    pub protocol: Protocol,
    /// Where the client sent it.
    pub destination: SocketAddr,
    /// Who answers.
    pub answered_by: SocketAddr,
}

/// What an entry has carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Tells entries of a family apart for as long as they live.
    pub id: u32,
    /// The connection has not ended: TCP entries stay for a while after it.
    pub live: bool,
    /// Bytes of both directions, network headers included; `None` without `net.netfilter.nf_conntrack_acct`.
    pub bytes: Option<u64>,
}

/// A ctnetlink socket.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
    seq: u32,
    buffer: Vec<u8>,
}

impl Conntrack {
    /// Opens one in the calling thread's network namespace.
    pub fn open() -> Result<Self, LoadError> {
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(|e| failed("open a conntrack socket", e))?;
        socket.bind_auto().map_err(|e| failed("bind a conntrack socket", e))?;
        let patience = TimeVal::seconds(2);
        setsockopt(&socket, ReceiveTimeout, &patience).map_err(|e| failed("set a time limit", e.into()))?;
        Ok(Self { socket, seq: 0, buffer: vec![0; 64 * 1024] })
    }

    /// Removes the entries that `which` picks, and says how many. A listing that is cut short is used as far as it got.
    pub fn remove(&mut self, which: impl Fn(&Flow) -> bool) -> Result<u64, LoadError> {
        let mut picked = Vec::new();
        for family in FAMILIES {
            self.list(family, |message| {
                if flow(message).is_some_and(|f| which(&f)) {
                    picked.push((family, identity(message)));
                }
            })?;
        }
        let mut removed = 0;
        for (family, identity) in picked {
            removed += u64::from(self.delete(family, &identity)?);
        }
        Ok(removed)
    }

    /// Shows all entries. A listing that is cut short is used as far as it got.
    pub fn each(&mut self, mut each: impl FnMut(&Flow, &Usage)) -> Result<(), LoadError> {
        for family in FAMILIES {
            self.list(family, |message| {
                if let Some(flow) = flow(message) {
                    each(&flow, &usage(message));
                }
            })?;
        }
        Ok(())
    }

    fn list(&mut self, family: u8, mut each: impl FnMut(&Message<'_>)) -> Result<(), LoadError> {
        let seq = self.send(GET, LIST, family, &[])?;
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN | Errno::ENOBUFS) => return Ok(()),
                Err(errno) => return Err(failed("list conntrack entries", errno.into())),
            };
            for message in messages(self.buffer.get(..length).unwrap_or_default()).filter(|m| m.seq == seq) {
                match message.number {
                    DONE => return Ok(()),
                    ERROR => match error_of(&message) {
                        0 => {}
                        // the kernel has no conntrack, or none of this family: nothing is stale
                        code if code == Errno::EOPNOTSUPP as i32 || code == Errno::EINVAL as i32 => return Ok(()),
                        code => return Err(failed("list conntrack entries", std::io::Error::from_raw_os_error(code))),
                    },
                    _ => each(&message),
                }
            }
        }
    }

    /// `false`: it was gone already.
    fn delete(&mut self, family: u8, identity: &[u8]) -> Result<bool, LoadError> {
        let seq = self.send(DELETE, CHANGE, family, identity)?;
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(failed("remove a conntrack entry", errno.into())),
            };
            let bytes = self.buffer.get(..length).unwrap_or_default();
            if let Some(answer) = messages(bytes).find(|m| m.seq == seq && m.number == ERROR) {
                return match error_of(&answer) {
                    0 => Ok(true),
                    code if code == Errno::ENOENT as i32 => Ok(false),
                    code => Err(failed("remove a conntrack entry", std::io::Error::from_raw_os_error(code))),
                };
            }
        }
    }

    fn send(&mut self, number: u16, flags: u16, family: u8, attributes: &[u8]) -> Result<u32, LoadError> {
        self.seq = self.seq.wrapping_add(1).max(1);
        let length = u32::try_from(20 + attributes.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(20 + attributes.len());
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&number.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&self.seq.to_ne_bytes());
        bytes.extend_from_slice(&[0, 0, 0, 0, family, 0, 0, 0]);
        bytes.extend_from_slice(attributes);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty()).map_err(|e| failed("ask conntrack", e.into()))?;
        Ok(self.seq)
    }
}

fn failed(doing: &'static str, source: std::io::Error) -> LoadError {
    LoadError::Socket { doing, source }
}

fn error_of(message: &Message<'_>) -> i32 {
    message.payload.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code).wrapping_neg())
}

/// What names an entry: its original tuple, id and zone, as they came.
fn identity(message: &Message<'_>) -> Vec<u8> {
    let mut w = Writer::default();
    for kind in [ORIGINAL, ID, ZONE] {
        if let Some(Attribute { kind, value, .. }) = find(message.attributes, kind) {
            let nested = if kind == ORIGINAL { netlink_packet_core::NLA_F_NESTED } else { 0 };
            w.put(kind | nested, value);
        }
    }
    w.bytes
}

/// The entry of a message; `None` for one of a protocol without ports.
fn flow(message: &Message<'_>) -> Option<Flow> {
    let (protocol, _, destination) = tuple(find(message.attributes, ORIGINAL)?.value)?;
    let (_, answered_by, _) = tuple(find(message.attributes, REPLY)?.value)?;
    Some(Flow { protocol, destination, answered_by })
}

/// CTA_COUNTERS_BYTES (2) of either direction, and CTA_PROTOINFO_TCP (1) with its CTA_PROTOINFO_TCP_STATE (1).
fn usage(message: &Message<'_>) -> Usage {
    let attribute = |kind| find(message.attributes, kind);
    let bytes = COUNTERS.map(|kind| Some(find(attribute(kind)?.value, 2)?.u64()));
    let state = attribute(PROTOCOL_STATE).and_then(|a| find(find(a.value, 1)?.value, 1)?.value.first().copied());
    Usage {
        id: attribute(ID).map_or(0, |a| a.u32()),
        live: state.is_none_or(|state| !ENDED.contains(&state)),
        bytes: bytes.into_iter().flatten().reduce(u64::saturating_add),
    }
}

/// Protocol, source and destination: CTA_TUPLE_IP {1 and 2, or 3 and 4} and CTA_TUPLE_PROTO {number 1, ports 2 and 3}.
fn tuple(bytes: &[u8]) -> Option<(Protocol, SocketAddr, SocketAddr)> {
    let (ip, transport) = (find(bytes, 1)?.value, find(bytes, 2)?.value);
    let address = |v4, v6| match find(ip, v4) {
        Some(a) => Some(IpAddr::from(<[u8; 4]>::try_from(a.value).ok()?)),
        None => Some(IpAddr::from(<[u8; 16]>::try_from(find(ip, v6)?.value).ok()?)),
    };
    let port = |kind| Some(u16::from(Be16(find(transport, kind)?.value.try_into().ok()?)));
    let protocol = Protocol::from_number(*find(transport, 1)?.value.first()?)?;
    Some((protocol, SocketAddr::new(address(1, 3)?, port(2)?), SocketAddr::new(address(2, 4)?, port(3)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A UDP entry in the kernel's form: a client's datagram to 10.96.0.7:53, answered by 10.0.0.1:5353.
    fn attributes() -> Vec<u8> {
        let mut w = Writer::default();
        let tuple = |w: &mut Writer, kind, from: ([u8; 4], u16), to: ([u8; 4], u16)| {
            w.nest(kind, |w| {
                w.nest(1, |w| {
                    w.put(1, &from.0);
                    w.put(2, &to.0);
                });
                w.nest(2, |w| {
                    w.put(1, &[17]);
                    w.put(2, &from.1.to_be_bytes());
                    w.put(3, &to.1.to_be_bytes());
                });
            });
        };
        tuple(&mut w, ORIGINAL, ([192, 0, 2, 9], 40000), ([10, 96, 0, 7], 53));
        tuple(&mut w, REPLY, ([10, 0, 0, 1], 5353), ([192, 0, 2, 9], 40000));
        w.put(ID, &[1, 2, 3, 4]);
        w.bytes
    }

    #[test]
    fn an_entry_reads_as_a_flow_and_is_named_by_what_came() {
        let bytes = attributes();
        let message =
            Message { number: 1 << 8, flags: 0, seq: 1, port: 0, payload: &[], resource: 0, attributes: &bytes };
        let flow = flow(&message).unwrap();
        assert_eq!(flow.destination, "10.96.0.7:53".parse().unwrap());
        assert_eq!(flow.answered_by, "10.0.0.1:5353".parse().unwrap());
        let name = identity(&message);
        assert_eq!(name, [&bytes[..find(&bytes, 1).unwrap().value.len() + 4], &[8, 0, 12, 0, 1, 2, 3, 4]].concat());
        for end in 0..bytes.len() {
            super::flow(&Message { attributes: &bytes[..end], ..message });
        }
    }
}
