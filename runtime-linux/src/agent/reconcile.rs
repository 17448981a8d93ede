//! The agent's loop: waits for files, the kernel, signals and the clock, and brings the kernel to what is wanted.

mod sync;

use super::conntrack::Services;
use super::drift::{Backoff, Events, Heard};
use super::history::Kind;
use super::process::{self, Request};
use super::source::{Origin, Reading, Source, SourceError};
use super::state::State;
use super::status::{HealthCheck, Status, unix};
use super::{AgentError, Options, health};
use crate::conntrack::Conntrack;
use crate::image::Image;
use crate::kernel::{self, Claim, Loader};
use crate::nft::model::Ownership;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signalfd::SignalFd;
use nix::sys::time::TimeSpec;
use sd_notify::NotifyState;
use std::fs::{File, TryLockError};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tracing::{debug, error, info, warn};

/// A change of the sources is read once nothing has changed for so long; a burst is not waited out to its end.
const QUIET: Duration = Duration::from_millis(1);
/// A repair waits as long for the rest of what somebody does.
const GATHER: Duration = Duration::from_millis(10);
/// The loop turns at least this often, so that `/livez` can tell.
pub const BEAT: Duration = Duration::from_secs(10);
/// Waits until refused sources are read again although nothing was heard of them: doubled from the first to the last.
const REREAD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Waits after a refusal of the kernel: doubled from the first to the last.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What is to be done, and when.
#[derive(Debug, Default)]
struct Due {
    /// Read the sources.
    read: Option<Instant>,
    /// The first change since they were read.
    changed: Option<Instant>,
    /// Look what others did to the tables, and undo it.
    repair: Option<Instant>,
    /// Try again what failed.
    retry: Option<Instant>,
    /// Compare everything although nothing was heard.
    verify: Option<Instant>,
}

/// The agent.
pub struct Agent {
    options: Options,
    status: Arc<Status>,
    signals: SignalFd,
    source: Source,
    loader: Loader,
    ownership: Ownership,
    events: Events,
    conntrack: Option<Conntrack>,
    state: State,
    /// Keeps other agents out of the state directory.
    _lock: Option<File>,
    /// A digest of what the state directory holds: names count too, which a content id leaves out.
    saved: Option<u64>,
    backoff: Backoff,
    due: Due,
    retry_after: Duration,
    last_sync: Option<Instant>,
    wanted: Option<Image>,
    /// Services of the last sync that succeeded, and of what is wanted.
    synced: Arc<Services>,
    services: Arc<Services>,
    health_checks: Vec<HealthCheck>,
    /// The refusal that was logged, and when it is looked whether it still stands; forgotten when the sources change.
    told: Option<String>,
    reread_after: Duration,
    /// The sources said something new that is not in force and kept yet.
    pending: bool,
    ready: bool,
}

impl Agent {
    /// Opens what the agent needs, and puts the last good program in force if nothing is.
    pub fn start(options: Options, signals: SignalFd, status: Arc<Status>) -> Result<Self, AgentError> {
        let mut loader = Loader::open()?;
        let events = Events::open(loader.netlink().port())?;
        let source = Source::open(&options.origin, &options.node, &status)?;
        let conntrack = Conntrack::open().inspect_err(|e| warn!(error = %e, "conntrack is not kept clean")).ok();
        let mut state = State::new(&options.state_dir);
        let lock = match state.lock() {
            Ok(lock) => Some(lock),
            Err(TryLockError::WouldBlock) => return Err(AgentError::Busy(options.state_dir)),
            Err(TryLockError::Error(_)) => None, // told once something is to be kept there
        };
        // Asked first: without the right to read the tables nothing else makes sense.
        let kept = state.load();
        let Claim { about: loaded, ownership, adopted } = kernel::claim(loader.netlink(), options.ownership)?;
        match (options.ownership, ownership) {
            (Ownership::Socket, Ownership::Anyone) => {
                info!(
                    "this kernel has no tables that outlive their owner (Linux 6.9 has): others can change natlet's tables"
                );
            }
            _ if adopted => info!("the tables that an earlier agent left are adopted as they are"),
            _ => {}
        }
        status.metrics.owned.set((ownership == Ownership::Socket).into());
        let mut agent = Self {
            state,
            _lock: lock,
            saved: kept.as_ref().map(sync::digest),
            status,
            signals,
            source,
            loader,
            ownership,
            events,
            conntrack,
            backoff: Backoff::default(),
            due: Due::default(),
            retry_after: RETRY.0,
            last_sync: None,
            synced: Arc::default(),
            services: Arc::default(),
            wanted: None,
            health_checks: kept.as_ref().map(|image| health::of_program(&image.program())).unwrap_or_default(),
            told: None,
            reread_after: REREAD.0,
            pending: false,
            ready: false,
            options,
        };
        agent.wanted = kept;
        agent.status.update(|s| {
            s.state = (agent.options.state_dir.clone(), agent.state.sequences());
            s.sources = agent.options.origin.names();
        });
        if loaded.is_none() && agent.wanted.is_some() {
            info!("the last good program is put in force before anything else is read");
            agent.sync("boot");
        }
        agent.reload();
        if agent.due.retry.is_none() && !agent.ready && agent.wanted.is_some() {
            agent.sync("boot"); // the sources are no table; what was kept is wanted
        }
        Ok(agent)
    }

    /// Runs until it is asked to stop.
    pub fn run(&mut self) -> Result<(), AgentError> {
        loop {
            self.status.update(|s| s.beat = Instant::now());
            process::tell(&[NotifyState::Watchdog]);
            self.wait()?;
            while let Some(request) = process::next_request(&self.signals) {
                match request {
                    Request::Reload => {
                        info!("SIGHUP: reading the sources again");
                        self.news();
                        process::tell_reloading();
                        self.reread();
                        self.source.forget();
                        self.reload();
                        process::tell(&[NotifyState::Ready]);
                    }
                    Request::Stop => return self.stop(),
                }
            }
            self.listen();
            self.work();
        }
    }

    /// The sources may say something else than when they were refused.
    fn news(&mut self) {
        (self.told, self.reread_after) = (None, REREAD.0);
    }

    fn stop(&mut self) -> Result<(), AgentError> {
        process::tell(&[NotifyState::Stopping]);
        if self.options.cleanup_on_exit {
            let removed = kernel::unload(self.loader.netlink())?;
            info!(removed, "stopped, the rules are removed");
        } else {
            info!("stopped, the rules stay in force");
        }
        Ok(())
    }

    fn wait(&self) -> Result<(), AgentError> {
        let beat = process::watchdog().map_or(BEAT, |w| w.min(BEAT));
        let now = Instant::now();
        let next = [self.due.read, self.due.repair, self.due.retry, self.due.verify].into_iter().flatten().min();
        let wait = next.map_or(beat, |at| at.saturating_duration_since(now).min(beat));
        let wait = TimeSpec::from_duration(wait);
        let events = PollFlags::POLLIN;
        let mut fds = [
            PollFd::new(self.signals.as_fd(), events),
            PollFd::new(self.source.as_fd(), events),
            PollFd::new(self.events.as_fd(), events),
        ];
        match ppoll(&mut fds, Some(wait), None) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(AgentError::Wait(errno)),
        }
    }

    /// Takes what files and kernel have to say, and decides when to act.
    fn listen(&mut self) {
        let now = Instant::now();
        if self.source.drain(now) {
            self.news();
            self.status.metrics.last_queued.set(unix(SystemTime::now()));
            let first = *self.due.changed.get_or_insert(now);
            let period = self.last_sync.map_or(now, |last| last + self.options.min_sync_period);
            self.due.read = Some((now + QUIET).min(first + self.source.settle()).max(period));
        }
        let heard = self.heard();
        self.hear(now, &heard);
        let verify = self.options.sync_period;
        self.due.verify.get_or_insert_with(|| now + verify);
    }

    /// Takes what the kernel has to tell. A large change of our own can overflow the queue; nothing of others was missed as
    /// long as the ruleset is of the generation that this change left.
    fn heard(&mut self) -> Heard {
        let heard = self.events.drain();
        Heard { lost: heard.lost && !self.loader.is_untouched(), ..heard }
    }

    /// What others did to the tables is undone in a while.
    fn hear(&mut self, now: Instant, heard: &Heard) {
        if heard.lost {
            self.status.metrics.events_lost.inc();
        }
        if heard.foreign || heard.lost {
            debug!(by = heard.by.as_deref().unwrap_or("unknown"), lost = heard.lost, "the tables may have changed");
            if heard.foreign {
                let by = heard.by.as_deref().unwrap_or("another program");
                info!(by, "natlet's tables were changed by another program");
                self.status.update(|s| s.history.add(Kind::Changed, format!("natlet's tables were changed by {by}")));
            }
            let at = self.backoff.next(now).max(now + GATHER);
            self.due.repair.get_or_insert(at);
        }
    }

    fn work(&mut self) {
        let now = Instant::now();
        let is_due = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        if is_due(&mut self.due.read) {
            if let Some(path) = self.source.half_written(now) {
                debug!(path = %path.display(), "waiting for its writer");
                self.due.read = Some(now + self.source.settle().max(self.options.min_sync_period));
            } else {
                self.reload();
            }
        }
        if is_due(&mut self.due.retry) {
            self.sync("retry");
        }
        if is_due(&mut self.due.repair) {
            self.sync("drift");
        }
        if is_due(&mut self.due.verify) {
            self.sync("verify");
        }
    }

    /// Takes over new options; wrong ones change nothing.
    fn reread(&mut self) {
        let Some(reread) = self.options.reread.clone() else { return };
        let mut new = match reread.read() {
            Ok(new) => new,
            Err(why) => return error!("the settings are refused, the old ones stay: {why}"),
        };
        match (&self.options.origin, &new.origin) {
            (old, new) if old == new => {}
            (Origin::Files(_), Origin::Files(_)) => match Source::open(&new.origin, &new.node, &self.status) {
                Ok(source) => self.source = source,
                Err(e) => return error!(error = %e, "the new files cannot be watched, the old settings stay"),
            },
            _ => {
                warn!("the table comes from elsewhere now; it will when natlet run is started again");
                new.origin = self.options.origin.clone();
            }
        }
        for name in self.options.adopt(new) {
            warn!(name, "this setting has changed; it takes effect when natlet run is started again");
        }
        self.due.verify = None;
        self.status.update(|s| s.sources = self.options.origin.names());
    }

    /// Reads the sources; what they say is wanted from now on, unless they are refused.
    fn reload(&mut self) {
        (self.due.read, self.due.changed) = (None, None);
        let metrics = &self.status.metrics;
        metrics.reads.inc();
        let Reading { image, services, health_checks, warnings } =
            match self.source.read(&self.options.node, self.options.cleaned()) {
                Ok(reading) => reading,
                Err(SourceError::NotYet(what)) => {
                    metrics.source_ok.set(0);
                    let what = what.to_string();
                    if self.status.standing().refusal.as_ref() != Some(&what) {
                        info!("nothing is changed yet: {what}");
                    }
                    self.status.update(|s| s.refusal = Some(what));
                    return;
                }
                Err(refusal) => {
                    metrics.reads_refused.inc();
                    metrics.source_ok.set(0);
                    // A limit or a disk that failed may work again without any source changing.
                    self.due.read = Some(Instant::now() + self.reread_after);
                    self.reread_after = (self.reread_after * 2).min(REREAD.1);
                    let refusal = refusal.to_string();
                    let new = self.told.as_ref() != Some(&refusal);
                    if new {
                        error!("the sources are refused, what is in force stays: {refusal}");
                    }
                    self.told = Some(refusal.clone());
                    self.status.update(|s| {
                        if new {
                            s.history.add(Kind::Refused, refusal.clone());
                        }
                        s.refusal = Some(refusal);
                    });
                    return;
                }
            };
        for warning in &warnings {
            warn!("{warning}");
        }
        metrics.source_ok.set(1);
        self.status.update(|s| s.refusal = None);
        let same = self.wanted.as_ref() == Some(&image);
        if !same {
            self.wanted = Some(image);
        }
        (self.services, self.health_checks) = (Arc::new(services), health_checks);
        if same && self.ready && self.services == self.synced {
            debug!("the sources say what is in force");
            self.source.in_force();
        } else {
            self.pending = true;
            self.sync("sources");
        }
    }
}
