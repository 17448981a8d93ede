//! A set-associative table in lent memory, for what may be forgotten: session affinity and fragments.

use super::time::Instant;
use crate::bytes::{count, index, scale};

/// Entries that a key can lie in.
const WAYS: usize = 4;

/// What a cache holds.
pub(crate) trait Entry: Copy {
    /// An entry that is not in use.
    const EMPTY: Self;

    /// When it was last used, and for how many milliseconds it holds from then on; 0 is an entry that is not in use.
    fn life(&self) -> (Instant, u32);

    /// Whether both have the same key.
    fn same_key(&self, other: &Self) -> bool;

    fn is_live(&self, now: Instant) -> bool {
        let (seen, timeout) = self.life();
        now.since(seen) < timeout
    }
}

/// Sets of [`WAYS`] entries; entries behind the last whole set are not used.
#[derive(Debug)]
pub(crate) struct Cache<'m, E> {
    sets: &'m mut [[E; WAYS]],
    hand: usize,
}

impl<'m, E: Entry> Cache<'m, E> {
    pub fn new(memory: &'m mut [E]) -> Self {
        let (sets, _) = memory.as_chunks_mut();
        sets.fill([E::EMPTY; WAYS]);
        Self { sets, hand: 0 }
    }

    /// Whether it can hold anything.
    pub fn is_usable(&self) -> bool {
        !self.sets.is_empty()
    }

    /// The live entry with the key of `wanted`.
    pub fn find(&mut self, hash: u32, wanted: &E, now: Instant) -> Option<&mut E> {
        self.set(hash)?.iter_mut().find(|e| e.is_live(now) && e.same_key(wanted))
    }

    /// Writes an entry: over the one with its key, over one that is over, or over the one that was not used for longest.
    /// Whether a live entry with another key had to go.
    pub fn put(&mut self, hash: u32, entry: E, now: Instant) -> bool {
        let Some(set) = self.set(hash) else { return false };
        let rated = set.iter_mut().max_by_key(|e| {
            let rank = if e.same_key(&entry) && e.is_live(now) { 2 } else { u8::from(!e.is_live(now)) };
            (rank, now.since(e.life().0))
        });
        let Some(slot) = rated else { return false };
        let lost = slot.is_live(now) && !slot.same_key(&entry);
        *slot = entry;
        lost
    }

    /// Looks at up to `budget` sets, from where the last call stopped, and clears entries that are over.
    pub fn sweep(&mut self, budget: u32, now: Instant) {
        for _ in 0..budget.min(count(self.sets.len())) {
            let hand = self.hand;
            self.hand = hand.wrapping_add(1).checked_rem(self.sets.len()).unwrap_or(0);
            for entry in self.sets.get_mut(hand).into_iter().flatten() {
                if !entry.is_live(now) {
                    *entry = E::EMPTY;
                }
            }
        }
    }

    /// Changes or, where the answer is `false`, clears each entry in use.
    pub fn retain(&mut self, now: Instant, mut keep: impl FnMut(&mut E) -> bool) {
        for entry in self.sets.iter_mut().flatten() {
            if !entry.is_live(now) || !keep(entry) {
                *entry = E::EMPTY;
            }
        }
    }

    /// Moves every entry to the set that its hash names, after keys have changed. Where a set overflows, the entry that
    /// was not used for longest is lost.
    pub fn rehash(&mut self, now: Instant, hash: impl Fn(&E) -> u32) {
        let sets = count(self.sets.len());
        for number in 0..sets {
            for way in 0..WAYS {
                let slot = self.sets.get_mut(index(number)).and_then(|set| set.get_mut(way));
                let Some(slot) = slot.filter(|e| e.is_live(now)) else { continue };
                let hash = hash(slot);
                if scale(hash, sets) != number {
                    let moved = core::mem::replace(slot, E::EMPTY);
                    self.put(hash, moved, now);
                }
            }
        }
    }

    fn set(&mut self, hash: u32) -> Option<&mut [E; WAYS]> {
        let number = scale(hash, count(self.sets.len()));
        self.sets.get_mut(index(number))
    }
}
