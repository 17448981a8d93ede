//! What the agent did and met, for people who come later: the last few events.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

/// Events that are kept.
const KEPT: usize = 50;

/// What a sync did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncOutcome {
    /// What it was for: `boot`, `sources`, `drift`, `verify` or `retry`.
    pub why: &'static str,
    /// What it changed, in words.
    pub text: String,
    /// How long it took.
    pub took: Duration,
}

/// What kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The kernel was brought to what is wanted.
    Synced,
    /// Another program changed natlet's tables.
    Changed,
    /// They were brought back.
    Repaired,
    /// The sources are no table.
    Refused,
    /// The kernel took no table.
    Failed,
}

impl Kind {
    /// A word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Changed => "changed",
            Self::Repaired => "repaired",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it happened last.
    pub at: SystemTime,
    /// What kind of event.
    pub kind: Kind,
    /// What happened.
    pub text: String,
    /// How often in a row.
    pub times: u32,
}

/// The last events, the newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(VecDeque<Event>);

impl History {
    /// Adds an event; one that repeats the last counts it up.
    pub fn add(&mut self, kind: Kind, text: impl Into<String>) {
        let (at, text) = (SystemTime::now(), text.into());
        match self.0.back_mut().filter(|last| last.kind == kind && last.text == text) {
            Some(last) => (last.at, last.times) = (at, last.times.saturating_add(1)),
            None => self.0.push_back(Event { at, kind, text, times: 1 }),
        }
        if self.0.len() > KEPT {
            self.0.pop_front();
        }
    }

    /// The events, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Event> {
        self.0.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_repeats_are_counted() {
        let mut history = History::default();
        for i in 0..2 * KEPT {
            history.add(Kind::Synced, i.to_string());
            history.add(Kind::Repaired, "the same");
            history.add(Kind::Repaired, "the same");
        }
        let events: Vec<&Event> = history.newest_first().collect();
        assert_eq!(events.len(), KEPT);
        assert_eq!((events[0].times, events[1].text.as_str()), (2, "99"));
    }
}
