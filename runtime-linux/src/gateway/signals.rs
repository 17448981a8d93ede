//! Signals as something to read between packets.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// SIGTERM or SIGINT: end.
    End,
    /// SIGHUP: read the files again.
    Reload,
    /// SIGUSR1: print the counters.
    Report,
}

/// The signals of this process, taken from their default actions.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Call it before the first thread is started: threads inherit what is blocked.
    pub fn open() -> Result<Self, Errno> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1] {
            set.add(signal);
        }
        set.thread_block()?;
        SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map(Self)
    }

    /// The next wish, if one has come.
    pub fn next(&self) -> Option<Wish> {
        let info = self.0.read_signal().ok()??;
        let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())?;
        Some(match signal {
            Signal::SIGHUP => Wish::Reload,
            Signal::SIGUSR1 => Wish::Report,
            _ => Wish::End,
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
