//! Brings the kernel to what is wanted, and does what follows from it.

use super::super::conntrack;
use super::super::drift::Heard;
use super::super::history::{Kind, SyncOutcome};
use super::super::status::unix;
use super::super::{health, process};
use super::{Agent, RETRY};
use crate::image::Image;
use crate::kernel::{Terms, Trust};
use crate::netlink::LoadError;
use sd_notify::NotifyState;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use tracing::{error, info, warn};

impl Agent {
    /// Makes the kernel hold what is wanted. A change of the sources sends the difference of the two programs, if nobody was
    /// heard to change the tables since the last time; any other reason has them read and compared.
    pub(super) fn sync(&mut self, why: &'static str) {
        let Some(image) = &self.wanted else { return };
        let program = image.program();
        let (started, metrics) = (Instant::now(), &self.status.metrics);
        self.last_sync = Some(started);
        self.due.verify = Some(started + self.options.sync_period);
        let id = program.content_id();
        self.status.update(|s| s.wanted = Some(id.to_string()));
        let terms = Terms { ownership: self.ownership, counting: self.options.counting };
        let mut news = Heard::default();
        let mut hears_nothing = || {
            news = std::mem::take(&mut news).and(self.events.drain());
            !news.foreign && !news.lost
        };
        let quiet = why == "sources" && self.due.repair.is_none();
        let trust = if quiet { Trust::Hearing(&mut hears_nothing) } else { Trust::Nothing };
        let traffic = self.loader.netlink().traffic();
        let loaded = self.loader.load(image, terms, trust);
        metrics.count_traffic(traffic, self.loader.netlink().traffic());
        let outcome = match loaded {
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
            s.image = Some(image.clone());
            let text = outcome.to_string();
            if !outcome.phases.is_empty() {
                let kind = if drift { Kind::Repaired } else { Kind::Synced };
                s.history.add(kind, format!("{why}: {text}"));
            }
            s.last_outcome = Some(SyncOutcome { why, text, took: started.elapsed() });
            s.last_sync = Some(SystemTime::now());
            s.failure = None;
            s.health_checks.clone_from(&self.health_checks);
            s.node_port_addresses = health::addresses(&program);
        });
        self.status.announce();
        let news = news.and(self.heard());
        self.hear(started, &news);
        if std::mem::take(&mut self.pending) {
            self.source.in_force();
            self.after_change();
        }
        if !std::mem::replace(&mut self.ready, true) {
            process::tell(&[NotifyState::Ready, NotifyState::Status("in force")]);
        }
    }

    /// What follows a new program: stale flows go, and the program is kept.
    fn after_change(&mut self) {
        if let Some(conntrack) = &mut self.conntrack {
            match conntrack::clean(conntrack, &self.synced, &self.services, self.options.cleaned()) {
                Ok(0) => {}
                Ok(removed) => {
                    self.status.metrics.conntrack_deleted.inc_by(removed);
                    info!(removed, "conntrack entries of removed endpoints are gone");
                }
                Err(e) => {
                    warn!(error = %e, "conntrack could not be cleaned; the next sync tries again");
                    self.pending = true;
                }
            }
        }
        if !self.pending {
            self.synced = Arc::clone(&self.services);
        }
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
        self.status.update(|s| s.state.1 = self.state.sequences());
    }

    fn failed(&mut self, why: &'static str, failure: &LoadError) {
        self.status.metrics.sync_failures.inc();
        error!(why, "the kernel refused, what is in force stays; next try in {:?}: {failure}", self.retry_after);
        self.status.update(|s| {
            s.history.add(Kind::Failed, failure.to_string());
            s.failure = Some(failure.to_string());
        });
        self.due.retry = Some(Instant::now() + self.retry_after);
        self.retry_after = (self.retry_after * 2).min(RETRY.1);
    }
}

pub(super) fn digest(image: &Image) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(image.as_bytes())
}
