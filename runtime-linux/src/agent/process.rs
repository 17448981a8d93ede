//! The agent as a process: signals, capabilities, and what it tells systemd.

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use sd_notify::NotifyState;
use std::time::Duration;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGHUP: read the sources again.
    Reload,
    /// SIGTERM or SIGINT: end.
    Stop,
}

/// Takes signals as readable events. Call it before the first other thread starts: they inherit the mask.
///
/// # Errors
/// The kernel's.
pub fn signals() -> Result<SignalFd, Errno> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// The next request that waits.
pub fn next_request(signals: &SignalFd) -> Option<Request> {
    let info = signals.read_signal().ok().flatten()?;
    let hangup = u32::try_from(Signal::SIGHUP as i32).is_ok_and(|number| number == info.ssi_signo);
    Some(if hangup { Request::Reload } else { Request::Stop })
}

/// Keeps CAP_NET_ADMIN, if the process has it, and gives up every other capability for good.
///
/// # Errors
/// The kernel's refusal, in words.
pub fn drop_capabilities() -> Result<(), String> {
    keep(&CapsHashSet::from([Capability::CAP_NET_ADMIN]))
}

/// Gives up every capability of the calling thread.
///
/// # Errors
/// The kernel's refusal, in words.
pub fn drop_all_capabilities() -> Result<(), String> {
    keep(&CapsHashSet::new())
}

fn keep(wanted: &CapsHashSet) -> Result<(), String> {
    let failed = |e: caps::errors::CapsError| format!("cannot give up capabilities: {e}");
    // Ambient first: what is ambient must be inheritable. A kernel before 4.3 has none.
    let _ = caps::clear(None, CapSet::Ambient);
    // The bounding set needs CAP_SETPCAP; without it nothing can be gained from a bounding set anyway but by exec.
    for capability in caps::all().difference(wanted) {
        let _ = caps::drop(None, CapSet::Bounding, *capability);
    }
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let kept: CapsHashSet = permitted.intersection(wanted).copied().collect();
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    caps::set(None, CapSet::Effective, &kept).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed)
}

/// Tells systemd, where there is one. Whether it hears is its affair: the agent works without.
pub fn tell(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

/// RELOADING, as `Type=notify-reload` wants it.
pub fn tell_reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// How often the watchdog wants to hear from the agent: half of what it allows.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}
