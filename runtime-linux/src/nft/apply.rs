//! Makes the kernel hold what is wanted, whatever it holds now.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use nix::errno::Errno;

use super::diff::{Phase, PhaseName, Plan, Summary, plan, plan_replacing};
use super::forget::forget;
use super::model::Ruleset;
use super::read::{Loaded, read_expecting, read_objects};
use super::wire::{Batch, Place};
use crate::netlink::{LoadError, Netlink};

/// How often to start again because another program changed the ruleset (the generation is common to all of them).
const ATTEMPTS: u32 = 10;

/// What [`apply`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What differed before.
    pub summary: Summary,
    /// Transactions sent, in order; empty when nothing differed.
    pub phases: Vec<PhaseName>,
    /// Netlink transactions: one a phase, more where a phase is longer than the socket takes.
    pub transactions: usize,
    /// Bytes sent.
    pub bytes: usize,
    /// Elements of memories deleted because what they remember is gone.
    pub forgotten: usize,
    /// How often the work was begun again because others changed the ruleset.
    pub retries: u32,
    /// The kernel's generation after the last transaction: as long as it stays, nobody has changed anything.
    pub generation: u32,
}

impl Outcome {
    /// Whether nothing but elements changed.
    pub fn keeps_objects(&self) -> bool {
        let s = &self.summary;
        let objects = s.new_objects + s.gone_objects + s.changed_chains + s.replaced.len();
        objects == 0 && !self.phases.contains(&PhaseName::Grow)
    }

    /// This and what was done after it, as one.
    #[must_use]
    pub fn and(mut self, later: Self) -> Self {
        self.summary = self.summary.and(later.summary);
        self.phases.extend(later.phases);
        self.transactions += later.transactions;
        self.bytes += later.bytes;
        self.forgotten += later.forgotten;
        self.retries += later.retries;
        Self { generation: later.generation, ..self }
    }
}

impl std::fmt::Display for Outcome {
    /// What changed, in words: `nothing to change`, or the counts of elements and objects.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let s = &self.summary;
        if self.phases.is_empty() {
            return f.write_str("nothing to change");
        }
        write!(
            f,
            "{} elements added, {} changed, {} removed; {} transactions, {} bytes",
            s.added, s.changed, s.removed, self.transactions, self.bytes
        )?;
        if self.forgotten > 0 {
            write!(f, "; {} clients of endpoints that are gone forgotten", self.forgotten)?;
        }
        match s.replaced.as_slice() {
            [] => Ok(()),
            replaced => write!(f, "; replaced whole: {}", replaced[0].1),
        }
    }
}

/// Loads a ruleset: reads what is there, plans, and sends the difference in make-before-break order. Tables named `natlet`
/// that are not wanted are deleted; no other table is touched. Each transaction is refused by the kernel if anything changed
/// since the read; then everything starts again.
pub fn apply(netlink: &mut Netlink, wanted: &Ruleset) -> Result<Outcome, LoadError> {
    let mut replace: Option<String> = None;
    for retries in 0..ATTEMPTS {
        let current = read_expecting(netlink, wanted)?;
        let plan = match &replace {
            None => plan(&current, wanted),
            Some(reason) => plan_replacing(&current, wanted, reason),
        };
        let mut outcome = Outcome { retries, ..Outcome::default() };
        match send(netlink, &plan, wanted, current.generation, &mut outcome) {
            Ok(()) => return Ok(outcome),
            Err(LoadError::Stale) => pause(retries),
            // A small step that the kernel refuses although nothing changed meanwhile (a set it will not let grow, elements
            // of another author): the whole table is the way that needs nothing of what is there.
            Err(e) if replace.is_none() && !current.tables.is_empty() && is_conflict(&e) => {
                replace = Some(e.to_string());
            }
            Err(e) => return Err(e),
        }
    }
    Err(LoadError::Changing)
}

/// How [`apply_known`] ended.
#[derive(Clone, Debug)]
pub enum Known {
    /// The wanted ruleset is in force.
    Done(Outcome),
    /// The ruleset is of another generation; nothing was sent.
    Moved,
    /// What is loaded is not what it was thought to be, or a table has to be written whole: [`apply`] does what is left.
    Unknown,
}

/// As [`apply`] for who knows what is loaded: nothing is read, and both sides may leave out elements that they share.
///
/// # Errors
/// As of [`apply`]; a part of the transactions may be in force.
pub fn apply_known(netlink: &mut Netlink, current: &Loaded, wanted: &Ruleset) -> Result<Known, LoadError> {
    let plan = plan(current, wanted);
    if !plan.is_gradual() {
        return Ok(Known::Unknown);
    }
    let mut outcome = Outcome::default();
    match send(netlink, &plan, wanted, current.generation, &mut outcome) {
        Ok(()) => Ok(Known::Done(outcome)),
        Err(LoadError::Stale) if outcome.transactions == 0 => Ok(Known::Moved),
        Err(LoadError::Stale) => Ok(Known::Unknown),
        Err(e) if is_conflict(&e) => Ok(Known::Unknown),
        Err(e) => Err(e),
    }
}

/// Deletes natlet's tables of both families and nothing else. `Ok(false)`: there were none.
pub fn remove(netlink: &mut Netlink) -> Result<bool, LoadError> {
    for retries in 0..ATTEMPTS {
        let current = read_objects(netlink)?;
        let mut batch = Batch::new(Some(current.generation));
        for table in &current.tables {
            batch.delete_table(Place { family: table.family, table: &table.name });
        }
        if batch.is_empty() {
            return Ok(false);
        }
        batch.end();
        match netlink.send_batch(&batch) {
            Ok(()) => return Ok(true),
            Err(LoadError::Stale) => pause(retries),
            Err(e) => return Err(e),
        }
    }
    Err(LoadError::Changing)
}

/// Sends a plan's transactions; `outcome` counts those that are in force, also where one fails.
fn send(
    netlink: &mut Netlink,
    plan: &Plan<'_>,
    wanted: &Ruleset,
    mut generation: u32,
    outcome: &mut Outcome,
) -> Result<(), LoadError> {
    outcome.summary = plan.summary.clone();
    let (clean, others): (Vec<&Phase<'_>>, Vec<&Phase<'_>>) =
        plan.phases.iter().partition(|phase| phase.name == PhaseName::Clean);
    generation = send_phases(netlink, &others, generation, outcome)?;
    // What is gone is cleaned up last, so a load that was interrupted before is found here again.
    if !clean.is_empty() {
        outcome.forgotten = forget(netlink, wanted, &mut generation)?;
        generation = send_phases(netlink, &clean, generation, outcome)?;
    }
    outcome.generation = generation;
    Ok(())
}

/// Sends transactions in order; returns the generation after the last.
fn send_phases(
    netlink: &mut Netlink,
    phases: &[&Phase<'_>],
    mut generation: u32,
    outcome: &mut Outcome,
) -> Result<u32, LoadError> {
    for phase in phases {
        for mut batch in phase.batches(netlink.max_batch_len()) {
            batch.insist_on(generation);
            netlink.send_batch(&batch)?;
            outcome.bytes += batch.len();
            outcome.transactions += 1;
            // Our own transaction moved it by one. More means that somebody came in between; the next batch then gets
            // ERESTART, which is what it should.
            generation = next(generation);
        }
        outcome.phases.push(phase.name);
    }
    Ok(generation)
}

/// The generation after one more transaction; 0 is none.
pub(super) fn next(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}

fn is_conflict(error: &LoadError) -> bool {
    let conflicts = [Errno::ENOENT, Errno::EEXIST, Errno::ENFILE, Errno::EBUSY];
    error.errno().is_some_and(|errno| conflicts.iter().any(|&c| c as i32 == errno))
}

/// Waits up to 2, 4, 8 … 128 ms, so that two programs that collided do not collide again.
fn pause(attempt: u32) {
    let most = 2_000u64 << attempt.min(6);
    let random = RandomState::new().hash_one(attempt);
    std::thread::sleep(Duration::from_micros(random % most));
}
