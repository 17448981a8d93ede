//! The services that have changed, in force before everything is read again.
//!
//! Reading, checking and compiling a large table takes longer than anything else between a file and the kernel. So where a
//! few services have other endpoints, these are read and put in force alone; the whole table, its program and its content id
//! follow at once. If that then says something else, or is refused, what was put in force is undone by reading the tables
//! back, as any other difference is.

use super::Agent;
use crate::agent::drift::Heard;
use crate::kernel::{Terms, Trust};
use std::time::Instant;
use tracing::{debug, warn};

impl Agent {
    /// Puts what has changed in force, if that can be read alone. [`reload`](Self::reload) is to follow.
    pub(super) fn hurry(&mut self) {
        let settled = self.ready && !self.pending && self.told.is_none() && self.loader.holds(self.wanted.as_ref());
        if !settled || self.due.repair.is_some() || self.due.retry.is_some() {
            return;
        }
        let started = Instant::now();
        let Some(read) = self.source.read_ahead() else { return };
        let terms = Terms { ownership: self.ownership, counting: self.options.counting };
        let mut news = Heard::default();
        let mut hears_nothing = || {
            news = std::mem::take(&mut news).and(self.events.drain());
            !news.foreign && !news.lost
        };
        let trust = Trust::Hearing(&mut hears_nothing);
        let traffic = self.loader.netlink().traffic();
        let sent = self.loader.load_ahead(&read.image, &|name| read.concerns(name), terms, trust);
        self.status.metrics.count_traffic(traffic, self.loader.netlink().traffic());
        self.hear(started, &news);
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        match sent {
            Ok(Some(outcome)) => debug!(micros, "ahead of the whole table: {outcome}"),
            Ok(None) => {}
            Err(e) => warn!(error = %e, "the kernel refused what has changed; the whole table is next"),
        }
    }

    /// Undoes what is in force ahead of a table that is refused.
    pub(super) fn hold_back(&mut self) {
        if self.loader.is_ahead() {
            self.sync("undo");
        }
    }
}
