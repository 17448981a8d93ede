//! The netfilter netlink socket: transactions, dumps and the kernel's answers.
//!
//! One long-lived socket is best: closing any NETLINK_NETFILTER socket makes the kernel take its commit lock. The kernel
//! works while `sendmsg` runs, so every reply is queued when it returns; waiting is bounded all the same.

mod error;
mod owner;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, NetlinkAddr, getsockname, getsockopt, recv, send, setsockopt, sockopt};

use crate::nft::model::Family;
use crate::nft::wire::attribute::{Writer, find};
use crate::nft::wire::{Answer, Batch, Message, kind, messages, request};

pub use error::{LoadError, Refusal};
pub use owner::Owner;

/// How long a reply may take. Measured: 1,000,000 elements load in 0.9 s, and that happens inside the send.
const DEADLINE: Duration = Duration::from_secs(2);
/// The kernel makes its dump messages as large as the largest buffer seen, up to 32 KiB; replies with a copy of the
/// failing message reach 64 KiB.
const RECEIVE_BUFFER: usize = 128 * 1024;
/// Replies queue here: one per failing message of a batch, 832 bytes each.
const RECEIVE_QUEUE: usize = 8 << 20;
/// Longest batch to ask room for; the kernel doubles it. Memory is used only while a batch of that length is sent.
const SEND_QUEUE: usize = 1 << 29;
/// What the kernel keeps of the send buffer for itself, generously (it refuses more than `sk_sndbuf - 32`).
const SEND_OVERHEAD: usize = 4096;
/// Sequence numbers of requests; those of batches start at 1.
const FIRST_REQUEST: u32 = 1 << 31;
/// NLMSG_ERROR and NLMSG_DONE.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// NLM_F_DUMP_INTR, NLM_F_CAPPED and NLM_F_ACK_TLVS.
const DUMP_INTERRUPTED: u16 = 0x10;
const CAPPED: u16 = 0x100;
const ACK_TLVS: u16 = 0x200;

/// A netfilter netlink socket. It talks to the network namespace in which it was opened.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
    seq: u32,
    buffer: Vec<u8>,
    send_buffer: usize,
    /// Bytes of replies that may wait, as the kernel counts them.
    receive_queue: usize,
    /// All answers to what was sent have been read: none is left over for the next wait.
    settled: bool,
    traffic: Traffic,
}

/// Bytes that went through a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// To the kernel.
    pub sent: usize,
    /// From it.
    pub received: usize,
}

/// A negative answer to a message.
#[derive(Clone, Debug, Default)]
struct Reply {
    seq: u32,
    errno: i32,
    text: Option<String>,
    offset: Option<u32>,
}

/// What came back for a batch.
#[derive(Debug, Default)]
struct Answers {
    end_acknowledged: bool,
    first_error: Option<Reply>,
    lost: bool,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, LoadError> {
        let failed = |source| LoadError::Socket { doing: "open a netfilter netlink socket", source };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.set_ext_ack(true).map_err(failed)?;
        socket.set_cap_ack(true).map_err(failed)?;
        // The same open socket under a descriptor that this type owns; netlink-sys only gives its own away as a raw number.
        Self::from_fd(socket.as_fd().try_clone_to_owned().map_err(failed)?)
    }

    /// Takes a netfilter netlink socket opened elsewhere, for example in another network namespace. Error texts and
    /// offsets come only if its opener set NETLINK_EXT_ACK.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, LoadError> {
        let failed = |e: Errno| LoadError::Socket { doing: "set the buffers of a netlink socket", source: e.into() };
        if setsockopt(&fd, sockopt::SndBufForce, &SEND_QUEUE).is_err() {
            // Forcing needs CAP_NET_ADMIN in the first user namespace; without it the limit is net.core.wmem_max.
            setsockopt(&fd, sockopt::SndBuf, &SEND_QUEUE).map_err(failed)?;
        }
        if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_QUEUE).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_QUEUE).map_err(failed)?;
        }
        let send_buffer = getsockopt(&fd, sockopt::SndBuf).map_err(failed)?;
        let receive_queue = getsockopt(&fd, sockopt::RcvBuf).map_err(failed)?;
        Ok(Self {
            fd,
            seq: FIRST_REQUEST,
            buffer: vec![0; RECEIVE_BUFFER],
            send_buffer,
            receive_queue,
            settled: false,
            traffic: Traffic::default(),
        })
    }

    /// The socket's port: notifications of what it changed carry it. 0 if the kernel does not say.
    pub fn port(&self) -> u32 {
        getsockname::<NetlinkAddr>(self.fd.as_raw_fd()).map_or(0, |address| address.pid())
    }

    /// What went through the socket so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// The longest batch, in bytes, that [`Netlink::send_batch`] can send.
    pub fn max_batch_len(&self) -> usize {
        self.send_buffer.saturating_sub(SEND_OVERHEAD)
    }

    /// Sends a transaction in one message and waits for its outcome. `Ok` means that all of it is in force.
    ///
    /// Success is the acknowledgement of BATCH_END and no negative answer. Kernels before 6.10 do not acknowledge BATCH_END:
    /// there silence and a generation that moved are success.
    pub fn send_batch(&mut self, batch: &Batch) -> Result<(), LoadError> {
        if let Some(object) = batch.too_long() {
            return Err(LoadError::MessageTooLong { object });
        }
        if batch.len() > self.max_batch_len() {
            return Err(LoadError::BatchTooLong { len: batch.len(), max: self.max_batch_len() });
        }
        let before = match batch.generation() {
            Some(generation) => generation,
            None => self.generation()?,
        };
        self.send(batch.bytes()).map_err(|errno| match errno {
            Errno::EMSGSIZE => LoadError::BatchTooLong { len: batch.len(), max: self.max_batch_len() },
            errno => LoadError::Socket { doing: "send a transaction", source: errno.into() },
        })?;
        let answers = self.answers(batch.last_seq())?;
        if let Some(reply) = answers.first_error {
            return Err(refused(batch, reply));
        }
        if answers.end_acknowledged && !answers.lost {
            return Ok(());
        }
        match self.generation()? {
            now if now != before => Ok(()),
            _ => Err(LoadError::NoAnswer),
        }
    }

    /// Lets the kernel check a transaction that is not [ended](Batch::end): nothing of it is applied. `Ok` means that the
    /// kernel would take every message of it.
    pub(crate) fn check_batch(&mut self, batch: &Batch) -> Result<(), LoadError> {
        let failed = |errno: Errno| LoadError::Socket { doing: "let a transaction be checked", source: errno.into() };
        self.send(batch.bytes()).map_err(failed)?;
        let answers = self.answers(batch.last_seq())?;
        answers.first_error.map_or(Ok(()), |reply| Err(refused(batch, reply)))
    }

    /// What is queued for a batch. The kernel has queued all of it when `send` returns, the acknowledgement of BATCH_END last.
    fn answers(&mut self, end: u32) -> Result<Answers, LoadError> {
        let mut answers = Answers::default();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let received = match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(n) => n,
                Err(Errno::EINTR) if Instant::now() < deadline => continue,
                Err(Errno::EAGAIN) => {
                    self.settled = true;
                    return Ok(answers);
                }
                Err(Errno::ENOBUFS) if Instant::now() < deadline => {
                    answers.lost = true;
                    continue;
                }
                Err(errno) => {
                    return Err(LoadError::Socket { doing: "read the kernel's answer", source: errno.into() });
                }
            };
            self.traffic.received += received;
            for message in messages(self.buffer.get(..received).unwrap_or_default()) {
                let Some(reply) = read_reply(&message) else { continue };
                match reply.errno {
                    0 if reply.seq == end => answers.end_acknowledged = true,
                    0 => {}
                    _ if answers.first_error.is_none() => answers.first_error = Some(reply),
                    _ => {}
                }
            }
            if answers.end_acknowledged {
                self.settled = true;
                return Ok(answers);
            }
        }
    }

    /// The generation of the namespace's ruleset: it moves with every transaction of anybody.
    pub fn generation(&mut self) -> Result<u32, LoadError> {
        let mut generation = None;
        self.get(kind::GETGEN, None, |_| {}, |message| generation = find(message.attributes, 1).map(|a| a.u32()))?;
        generation.ok_or(LoadError::NoAnswer)
    }

    /// Asks for one object; `each` gets the reply. An object that is not there is `Ok(false)`.
    pub(crate) fn get(
        &mut self,
        kind: u8,
        family: Option<Family>,
        fill: impl FnOnce(&mut Writer),
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<bool, LoadError> {
        match self.ask(kind, Answer::One, family, fill, &mut each) {
            Err(LoadError::Refused(r)) if r.errno == Errno::ENOENT as i32 => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// Asks for all objects of a kind; `each` gets every reply. `Ok(false)`: they changed meanwhile, ask again.
    pub(crate) fn dump(
        &mut self,
        kind: u8,
        family: Family,
        fill: impl FnOnce(&mut Writer),
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<bool, LoadError> {
        self.ask(kind, Answer::Dump, Some(family), fill, &mut each)
    }

    /// Asks for objects by a list of their keys; `each` gets every reply. `Ok(false)`: the kernel stopped at one that is not
    /// there.
    pub(crate) fn get_list(
        &mut self,
        kind: u8,
        family: Family,
        fill: impl FnOnce(&mut Writer),
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<bool, LoadError> {
        match self.ask(kind, Answer::Several, Some(family), fill, &mut each) {
            Err(LoadError::Refused(r)) if r.errno == Errno::ENOENT as i32 => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// How many replies of [`Netlink::get_list`] the receive queue takes.
    pub(crate) fn keys_at_once(&self) -> usize {
        const MOST: usize = 1024;
        const REPLY: usize = 2048;
        (self.receive_queue / REPLY).clamp(16, MOST)
    }

    fn ask(
        &mut self,
        kind: u8,
        answer: Answer,
        family: Option<Family>,
        fill: impl FnOnce(&mut Writer),
        each: &mut dyn FnMut(&Message<'_>),
    ) -> Result<bool, LoadError> {
        self.seq = self.seq.wrapping_add(1) | FIRST_REQUEST;
        let (seq, bytes) = (self.seq, request(kind, answer, family, self.seq, fill));
        self.send(&bytes).map_err(|errno| LoadError::Socket { doing: "ask the kernel", source: errno.into() })?;
        let deadline = Instant::now() + DEADLINE;
        let mut consistent = true;
        loop {
            let received = self.receive(deadline)?;
            for message in messages(self.buffer.get(..received).unwrap_or_default()).filter(|m| m.seq == seq) {
                consistent &= message.flags & DUMP_INTERRUPTED == 0;
                // The closing message, an acknowledgement or an error is the last one of a request, as is the only reply.
                if let Some(reply) = read_reply(&message) {
                    self.settled = true;
                    return if reply.errno == 0 { Ok(consistent) } else { Err(refused_request(kind, &reply)) };
                }
                if message.number == DONE {
                    self.settled = true;
                    return Ok(consistent);
                }
                each(&message);
                if answer == Answer::One {
                    self.settled = true;
                    return Ok(consistent);
                }
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<usize, LoadError> {
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC) {
                Ok(n) if n > self.buffer.len() => self.buffer.resize(n.next_power_of_two(), 0),
                Ok(n) => {
                    self.traffic.received += n;
                    return Ok(n);
                }
                Err(Errno::EAGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(LoadError::NoAnswer);
                    }
                    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
                    // An error of poll is told again by the next recv.
                    let _ = poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], timeout);
                }
                Err(Errno::EINTR | Errno::ENOBUFS) if Instant::now() < deadline => {}
                Err(errno) => {
                    return Err(LoadError::Socket { doing: "read the kernel's answer", source: errno.into() });
                }
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        if !self.settled {
            self.drain();
        }
        self.settled = false;
        self.traffic.sent += bytes.len();
        let deadline = Instant::now() + DEADLINE;
        loop {
            match send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()) {
                Ok(n) if n == bytes.len() => return Ok(()),
                Ok(_) => return Err(Errno::EMSGSIZE),
                Err(Errno::EINTR) if Instant::now() < deadline => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Throws away answers that an earlier wait, which timed out or failed, left behind.
    fn drain(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        while matches!(
            recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT),
            Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR)
        ) && Instant::now() < deadline
        {}
    }
}

/// Reads NLMSG_ERROR (`struct nlmsgerr`): errno, a copy of the failing message's header (without NETLINK_CAP_ACK the whole
/// message), then attributes with the kernel's text and the offset of what it disliked.
fn read_reply(message: &Message<'_>) -> Option<Reply> {
    if message.number != ERROR {
        return None;
    }
    let (errno, copy) = message.payload.split_first_chunk::<4>()?;
    let errno = i32::from_ne_bytes(*errno).wrapping_neg();
    let mut reply = Reply { seq: message.seq, errno, ..Reply::default() };
    if message.flags & ACK_TLVS != 0 {
        let copied = if message.flags & CAPPED != 0 || errno == 0 {
            16
        } else {
            copy.first_chunk::<4>().map_or(16, |l| u32::from_ne_bytes(*l) as usize).next_multiple_of(4)
        };
        let tlvs = copy.get(copied..).unwrap_or_default();
        reply.text = find(tlvs, 1).map(|a| a.text());
        reply.offset = find(tlvs, 2).and_then(|a| Some(u32::from_ne_bytes(a.value.try_into().ok()?)));
    }
    Some(reply)
}

fn refused(batch: &Batch, reply: Reply) -> LoadError {
    if reply.errno == Errno::ERESTART as i32 {
        return LoadError::Stale;
    }
    let object = batch.subject(reply.seq, reply.offset);
    LoadError::Refused(Refusal::new(reply.errno, reply.text, object, &batch.kernel_options(reply.seq, reply.offset)))
}

fn refused_request(kind: u8, reply: &Reply) -> LoadError {
    let object = match kind {
        kind::GETTABLE => "reading tables",
        kind::GETCHAIN => "reading chains",
        kind::GETRULE => "reading rules",
        kind::GETSET => "reading sets",
        kind::GETSETELEM => "reading elements",
        _ => "reading the generation",
    };
    let mut refusal = Refusal::new(reply.errno, reply.text.clone(), Some(object.into()), &[]);
    // What nfnetlink answers for a subsystem that it does not have; a request of ours has no other way to be invalid.
    if reply.errno == Errno::EINVAL as i32 {
        refusal.hint = Some("the kernel lacks nf_tables (CONFIG_NF_TABLES)".into());
    }
    LoadError::Refused(refusal)
}
