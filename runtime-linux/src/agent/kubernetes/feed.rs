//! Between the thread that follows the API server and the agent's loop: what is known, and that there is news.

use super::metrics::Metrics;
use crate::source::cluster::{Cluster, NotYet, Pods, Taken};
use crate::source::{NodeFlags, TableBuf};
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Changes whose times are kept until they are in force; of more, these stand for all.
const TIMED: usize = 10_000;

/// When changes were heard of that no table holds yet.
#[derive(Debug, Default)]
struct Times {
    heard: Vec<Instant>,
    triggered: Vec<SystemTime>,
}

/// What both threads use. The lock is held for an event, or for the making of a table.
#[derive(Debug)]
pub struct Shared {
    known: Mutex<(Cluster, Times)>,
    news: EventFd,
    pub metrics: Metrics,
    started: SystemTime,
}

impl Shared {
    /// Nothing known yet.
    pub fn new(metrics: Metrics) -> Result<Self, Errno> {
        let news = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { known: Mutex::default(), news, metrics, started: SystemTime::now() })
    }

    /// Changes what is known, and tells the loop if that matters. `triggered` is when the cause of the change was.
    pub fn change(&self, triggered: Option<SystemTime>, change: impl FnOnce(&mut Cluster) -> Taken) -> Taken {
        let mut known = self.lock();
        let taken = change(&mut known.0);
        if taken == Taken::Changed {
            let times = &mut known.1;
            if times.heard.len() < TIMED {
                times.heard.push(Instant::now());
                // what happened before the agent was there says nothing about its speed
                times.triggered.extend(triggered.filter(|at| *at > self.started));
            }
            drop(known);
            // Full, it is readable already.
            let _ = self.news.write(1);
        }
        taken
    }

    fn lock(&self) -> MutexGuard<'_, (Cluster, Times)> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loop's end.
#[derive(Debug)]
pub struct Feed {
    shared: Arc<Shared>,
    pods: Pods,
    /// Of changes that are read and not in force yet.
    times: Times,
}

impl Feed {
    pub(super) fn new(shared: Arc<Shared>, pods: Pods) -> Self {
        Self { shared, pods, times: Times::default() }
    }

    /// Whether there was news.
    pub fn drain(&self) -> bool {
        self.shared.news.read().is_ok()
    }

    /// The table as of now, and remarks on what was left out.
    ///
    /// # Errors
    /// Not everything was heard yet.
    pub fn table(&mut self, node: &NodeFlags) -> Result<(TableBuf, Vec<String>), NotYet> {
        let mut known = self.shared.lock();
        let read = known.0.table(node, self.pods)?;
        let times = std::mem::take(&mut known.1);
        drop(known);
        self.times.heard.extend(times.heard);
        self.times.triggered.extend(times.triggered);
        self.times.heard.truncate(TIMED);
        self.times.triggered.truncate(TIMED);
        Ok(read)
    }

    /// The last table is in force.
    pub fn in_force(&mut self) {
        let Times { heard, triggered } = std::mem::take(&mut self.times);
        let metrics = &self.shared.metrics;
        for at in heard {
            metrics.event_to_kernel.observe(at.elapsed().as_secs_f64());
        }
        for at in triggered {
            // a clock that was set back makes no time negative
            metrics.programming.observe(at.elapsed().unwrap_or(Duration::ZERO).as_secs_f64());
        }
    }
}

impl AsFd for Feed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.news.as_fd()
    }
}
