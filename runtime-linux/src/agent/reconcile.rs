//! The agent's loop: waits for files, the kernel, signals and the clock, and brings the kernel to what is wanted.

use super::conntrack::{self, Conntrack, Services};
use super::drift::{Backoff, Events, Heard};
use super::process::{self, Request};
use super::source::{self, Reading};
use super::state::State;
use super::status::{HealthCheck, Status, unix};
use super::watch::Watch;
use super::{AgentError, Options, health};
use crate::image::Image;
use crate::kernel::{self, Loader, Trust};
use crate::netlink::LoadError;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use sd_notify::NotifyState;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tracing::{debug, error, info, warn};

/// Files that change together are read together: a read waits until nothing has changed for so long, ...
const QUIET: Duration = Duration::from_millis(2);
/// ... and at most so long after the first change.
const SETTLE: Duration = Duration::from_millis(50);
/// A repair waits as long for the rest of what somebody does.
const GATHER: Duration = Duration::from_millis(10);
/// The loop turns at least this often, so that `/livez` can tell.
pub const BEAT: Duration = Duration::from_secs(10);
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
    watch: Watch,
    loader: Loader,
    events: Events,
    conntrack: Option<Conntrack>,
    state: State,
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
    /// The sources said something new that is not in force and kept yet.
    pending: bool,
    ready: bool,
}

impl Agent {
    /// Opens what the agent needs, and puts the last good program in force if nothing is.
    pub fn start(options: Options, signals: SignalFd, status: Arc<Status>) -> Result<Self, AgentError> {
        let mut loader = Loader::open()?;
        let events = Events::open(loader.netlink().port())?;
        let watch = Watch::new(&options.files).map_err(AgentError::Watch)?;
        let conntrack = Conntrack::open().inspect_err(|e| warn!(error = %e, "conntrack is not kept clean")).ok();
        let mut state = State::new(&options.state_dir);
        // Asked first: without the right to read the tables nothing else makes sense.
        let kept = state.load();
        let loaded = kernel::about(loader.netlink())?;
        let mut agent = Self {
            state,
            saved: kept.as_ref().map(digest),
            status,
            signals,
            watch,
            loader,
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
            pending: false,
            ready: false,
            options,
        };
        agent.wanted = kept;
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
                        process::tell_reloading();
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
        // One more than the rounded-down rest: waking before the time would spin.
        let timeout = PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let events = PollFlags::POLLIN;
        let mut fds = [
            PollFd::new(self.signals.as_fd(), events),
            PollFd::new(self.watch.as_fd(), events),
            PollFd::new(self.events.as_fd(), events),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(AgentError::Wait(errno)),
        }
    }

    /// Takes what files and kernel have to say, and decides when to act.
    fn listen(&mut self) {
        let now = Instant::now();
        if self.watch.drain(now) {
            self.status.metrics.last_queued.set(unix(SystemTime::now()));
            let first = *self.due.changed.get_or_insert(now);
            let period = self.last_sync.map_or(now, |last| last + self.options.min_sync_period);
            self.due.read = Some((now + QUIET).min(first + SETTLE).max(period));
        }
        let heard = self.events.drain();
        self.hear(now, &heard);
        let verify = self.options.sync_period;
        self.due.verify.get_or_insert_with(|| now + verify);
    }

    /// What others did to the tables is undone in a while.
    fn hear(&mut self, now: Instant, heard: &Heard) {
        if heard.lost {
            self.status.metrics.events_lost.inc();
        }
        if heard.foreign || heard.lost {
            debug!(by = heard.by.as_deref().unwrap_or("unknown"), lost = heard.lost, "the tables may have changed");
            if heard.foreign {
                info!(by = heard.by.as_deref().unwrap_or("unknown"), "natlet's tables were changed by another program");
            }
            let at = self.backoff.next(now).max(now + GATHER);
            self.due.repair.get_or_insert(at);
        }
    }

    fn work(&mut self) {
        let now = Instant::now();
        let is_due = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        if is_due(&mut self.due.read) {
            match self.watch.half_written(now) {
                Some(path) => {
                    debug!(path = %path.display(), "waiting for its writer");
                    self.due.read = Some(now + SETTLE.max(self.options.min_sync_period));
                }
                None => self.reload(),
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

    /// Reads the sources; what they say is wanted from now on, unless they are refused.
    fn reload(&mut self) {
        (self.due.read, self.due.changed) = (None, None);
        self.watch.rescan();
        let metrics = &self.status.metrics;
        metrics.reads.inc();
        let Reading { image, services, health_checks, warnings } =
            match source::read(&self.options.files, &self.options.node) {
                Ok(reading) => reading,
                Err(refusal) => {
                    metrics.reads_refused.inc();
                    metrics.source_ok.set(0);
                    error!("the sources are refused, what is in force stays: {refusal}");
                    self.status.update(|s| s.refusal = Some(refusal.to_string()));
                    return;
                }
            };
        for warning in &warnings {
            warn!("{warning}");
        }
        metrics.source_ok.set(1);
        self.status.update(|s| s.refusal = None);
        let same = self.wanted.as_ref() == Some(&image);
        (self.wanted, self.services, self.health_checks) = (Some(image), Arc::new(services), health_checks);
        if same && self.ready && self.services == self.synced {
            debug!("the sources say what is in force");
        } else {
            self.pending = true;
            self.sync("sources");
        }
    }

    /// Makes the kernel hold what is wanted. A change of the sources sends the difference of the two programs, if nobody was
    /// heard to change the tables since the last time; any other reason has them read and compared.
    fn sync(&mut self, why: &'static str) {
        let Some(image) = &self.wanted else { return };
        let program = image.program();
        let (started, metrics) = (Instant::now(), &self.status.metrics);
        self.last_sync = Some(started);
        self.due.verify = Some(started + self.options.sync_period);
        let mut news = Heard::default();
        let mut hears_nothing = || {
            news = std::mem::take(&mut news).and(self.events.drain());
            !news.foreign && !news.lost
        };
        let quiet = why == "sources" && self.due.repair.is_none();
        let trust = if quiet { Trust::Hearing(&mut hears_nothing) } else { Trust::Nothing };
        let outcome = match self.loader.load(image, trust) {
            Ok(outcome) => outcome,
            Err(failure) => {
                self.hear(started, &news);
                return self.failed(why, &failure);
            }
        };
        self.due.retry = None;
        self.retry_after = RETRY.0;
        metrics.sync_duration.observe(started.elapsed().as_secs_f64());
        metrics.last_sync.set(unix(SystemTime::now()));
        metrics.frontends.set(program.frontend_count().into());
        let drift = matches!(why, "drift" | "verify");
        let id = program.content_id();
        if !outcome.phases.is_empty() {
            info!(why, content_id = %id, micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX), "{outcome}");
        }
        if drift && !outcome.phases.is_empty() {
            metrics.drift.inc();
            let contested = self.backoff.repaired(Instant::now());
            metrics.contested.set(contested.into());
            if contested {
                error!("another program keeps undoing natlet's rules: they are restored less and less often");
            }
        } else if drift {
            metrics.contested.set(0);
        }
        self.status.update(|s| {
            s.content_id = Some(id.to_string());
            s.last_sync = Some(SystemTime::now());
            s.failure = None;
            s.health_checks.clone_from(&self.health_checks);
            s.node_port_addresses = health::addresses(&program);
        });
        self.status.announce();
        self.hear(started, &news);
        if std::mem::take(&mut self.pending) {
            self.after_change();
        }
        if !std::mem::replace(&mut self.ready, true) {
            process::tell(&[NotifyState::Ready, NotifyState::Status("in force")]);
        }
    }

    /// What follows a new program: stale flows go, and the program is kept.
    fn after_change(&mut self) {
        if let Some(conntrack) = &mut self.conntrack {
            match conntrack::clean(conntrack, &self.synced, &self.services, self.options.reset_removed) {
                Ok(0) => {}
                Ok(removed) => {
                    self.status.metrics.conntrack_deleted.inc_by(removed);
                    info!(removed, "conntrack entries of removed endpoints are gone");
                }
                Err(e) => warn!(error = %e, "conntrack could not be cleaned"),
            }
        }
        self.synced = Arc::clone(&self.services);
        let Some(image) = &self.wanted else { return };
        let digest = digest(image);
        if self.saved == Some(digest) {
            return;
        }
        self.saved = Some(digest);
        if let Err(e) = self.state.save(image) {
            (self.saved, self.pending) = (None, true); // the next sync tries again
            self.status.metrics.state_failures.inc();
            warn!(error = %e, directory = %self.options.state_dir.display(),
                "the program could not be kept for the next boot; the one kept before still is");
        }
    }

    fn failed(&mut self, why: &'static str, failure: &LoadError) {
        self.status.metrics.sync_failures.inc();
        error!(why, "the kernel refused, what is in force stays; next try in {:?}: {failure}", self.retry_after);
        self.status.update(|s| s.failure = Some(failure.to_string()));
        self.due.retry = Some(Instant::now() + self.retry_after);
        self.retry_after = (self.retry_after * 2).min(RETRY.1);
    }
}

fn digest(image: &Image) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(image.as_bytes())
}
