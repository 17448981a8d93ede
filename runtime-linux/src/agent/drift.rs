//! What others do to natlet's tables: nf_tables' notifications, and how often to undo it.

use crate::lower::TABLE;
use crate::netlink::LoadError;
use crate::nft::wire::attribute::find;
use crate::nft::wire::{kind, messages};
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

/// NFNLGRP_NFTABLES.
const GROUP: u32 = 7;
/// Notifications are one message an element; what does not fit is a wake-up all the same.
const QUEUE: usize = 1 << 20;

/// A socket that hears every change of the ruleset.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
    /// The port of our own changes.
    own: u32,
    buffer: Vec<u8>,
}

/// What was heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Somebody else changed natlet's tables.
    pub foreign: bool,
    /// Some notifications were lost: what happened is not known.
    pub lost: bool,
    /// The program that made the change, as the kernel calls it.
    pub by: Option<String>,
}

impl Events {
    /// Listens in the calling thread's network namespace; changes made by the socket with port `own` are not told.
    pub fn open(own: u32) -> Result<Self, LoadError> {
        let failed = |source| LoadError::Socket { doing: "listen to changes of nf_tables", source };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.add_membership(GROUP).map_err(failed)?;
        // Refused (a user namespace), the queue is shorter and a long change is told as lost.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &QUEUE);
        Ok(Self { socket, own, buffer: vec![0; 64 * 1024] })
    }

    /// Takes all notifications that wait, at most some thousand.
    pub fn drain(&mut self) -> Heard {
        let mut heard = Heard::default();
        let mut pending = false;
        for _ in 0..10_000 {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    let bytes = self.buffer.get(..length).unwrap_or_default();
                    hear(bytes, self.own, &mut pending, &mut heard);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => heard.lost = true,
                Err(_) => break,
            }
        }
        heard
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Heard {
    /// This, and what was heard later.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        Self { foreign: self.foreign || later.foreign, lost: self.lost || later.lost, by: later.by.or(self.by) }
    }
}

/// A transaction's objects come first, then NEWGEN with the name of the program (NFTA_GEN_PROC_NAME, 3).
fn hear(bytes: &[u8], own: u32, pending: &mut bool, heard: &mut Heard) {
    for message in messages(bytes).filter(|m| m.port != own) {
        match message.kind() {
            Some(kind::NEWGEN) if std::mem::take(pending) => {
                heard.by = find(message.attributes, 3).map(|a| a.text()).or(heard.by.take());
            }
            Some(kind::NEWGEN) => {}
            // Every object names its table in attribute 1.
            Some(_) if find(message.attributes, 1).is_some_and(|a| a.text() == TABLE) => {
                (*pending, heard.foreign) = (true, true);
            }
            _ => {}
        }
    }
}

/// How long to wait before others' changes are undone.
///
/// The first [`FREE`] repairs come at once. Each further one waits twice as long as the one before, from 100 ms to 10 s,
/// and every [`FORGIVEN_AFTER`] without a repair takes one back: someone who keeps undoing natlet's work costs little, and
/// the wish stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    strikes: u32,
    last: Option<Instant>,
}

/// Repairs that do not wait.
pub const FREE: u32 = 8;
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
const FORGIVEN_AFTER: Duration = Duration::from_secs(10);

impl Backoff {
    /// A repair was made. `true` once somebody keeps undoing them.
    pub fn repaired(&mut self, now: Instant) -> bool {
        self.forgive(now);
        self.strikes = self.strikes.saturating_add(1).min(FREE + 8);
        self.last = Some(now);
        self.strikes > FREE
    }

    /// When the next repair may be made.
    pub fn next(&mut self, now: Instant) -> Instant {
        self.forgive(now);
        let Some(doublings) = self.strikes.checked_sub(FREE) else { return now };
        let wait = FIRST.saturating_mul(1 << doublings.min(7)).min(LONGEST);
        self.last.map_or(now, |last| (last + wait).max(now))
    }

    fn forgive(&mut self, now: Instant) {
        let Some(last) = self.last else { return };
        let quiet = now.saturating_duration_since(last).as_secs() / FORGIVEN_AFTER.as_secs();
        if quiet > 0 {
            self.strikes = self.strikes.saturating_sub(u32::try_from(quiet).unwrap_or(u32::MAX));
            self.last = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_undoing_waits_longer_and_is_forgiven() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..20 {
            let next = backoff.next(now);
            waits.push(next.saturating_duration_since(now).as_millis());
            now = next;
            backoff.repaired(now);
        }
        assert_eq!(waits[..8], [0; 8]);
        assert_eq!(waits[8..15], [100, 200, 400, 800, 1600, 3200, 6400]);
        assert!(waits[15..].iter().all(|w| *w == 10_000 || *w == 6_400), "{waits:?}");
        now += Duration::from_secs(600);
        assert_eq!(backoff.next(now), now);
    }
}
