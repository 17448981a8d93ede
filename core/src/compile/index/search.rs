//! Searches a pilot for each bucket of a shard.
//!
//! Buckets are placed from the fullest to the emptiest. A bucket takes the first pilot that sends its keys to free slots;
//! where none does, the pilot that evicts the least, and the evicted buckets are placed again.

use super::buckets::{BUCKET_MAX, Buckets, Shard};
use crate::bytes::{count, index};
use crate::compile::entry::Entry;
use crate::error::CompileError;
use crate::program::slot::SlotForm;

/// The state of one attempt at one shard: one seed, one load.
pub(super) struct Search<'s, E> {
    shard: &'s Shard,
    buckets: &'s Buckets<'s, E>,
    /// Buckets in order of placement; those already taken make room for a stack of evicted ones.
    order: &'s mut [u32],
    /// A bit for each slot that is taken.
    taken: &'s mut [u32],
    pilots: &'s mut [u8],
    /// The shard's slots; until they are written, each begins with its [`Owner`].
    slots: &'s mut [u8],
    form: SlotForm,
    /// Keys evicted so far.
    evicted: u32,
    /// The buckets that evicted others last.
    recent: [Option<u32>; RECENT],
    /// How many have evicted others.
    evictors: usize,
}

/// So many buckets that evicted others keep their slots: else two of which each can only take the other's would take turns
/// for ever.
const RECENT: usize = 16;

/// Memory for a bucket that is being placed: its keys' hashes, and the slots that a pilot sends them to.
struct Room {
    hashes: [u64; BUCKET_MAX],
    slots: [u32; BUCKET_MAX],
}

/// The bucket that has taken a slot, with its number of keys.
#[derive(Clone, Copy)]
struct Owner(u32);

impl Owner {
    const NONE: Self = Self(0);
    const SIZE_BITS: u32 = 8;

    fn new(bucket: u32, keys: usize) -> Self {
        Self(bucket << Self::SIZE_BITS | count(keys))
    }

    fn bucket(self) -> Option<u32> {
        (self.0 != 0).then_some(self.0 >> Self::SIZE_BITS)
    }

    /// What it costs to evict it; 0 if there is none.
    fn cost(self) -> u32 {
        let size = self.0 & !(u32::MAX << Self::SIZE_BITS);
        size.wrapping_mul(size)
    }
}

impl<'s, E: Entry> Search<'s, E> {
    /// `scratch` is what the buckets have left.
    pub fn new(
        shard: &'s Shard,
        buckets: &'s Buckets<'s, E>,
        scratch: &'s mut [u32],
        pilots: &'s mut [u8],
        slots: &'s mut [u8],
        form: SlotForm,
    ) -> Result<Self, CompileError> {
        let short = CompileError::ScratchTooSmall;
        let (order, rest) = scratch.split_at_mut_checked(pilots.len()).ok_or(short)?;
        let words = usize::from(shard.placement.shard_slots).div_ceil(32);
        let taken = rest.get_mut(..words).ok_or(short)?;
        buckets.order_by_size(order).ok_or(CompileError::Index)?;
        taken.fill(0);
        pilots.fill(0);
        slots.fill(0); // no owners
        Ok(Self { shard, buckets, order, taken, pilots, slots, form, evicted: 0, recent: [None; RECENT], evictors: 0 })
    }

    /// `Some(false)` where this seed and load do not work out within the budget.
    pub fn place_all(&mut self) -> Option<bool> {
        let budget = (count(self.buckets.number_of_keys()) / 4).saturating_add(64);
        let mut room = Room { hashes: [0; BUCKET_MAX], slots: [0; BUCKET_MAX] };
        let (mut next, mut stacked) = (0_usize, 0_usize);
        loop {
            let bucket = if let Some(top) = stacked.checked_sub(1) {
                stacked = top;
                *self.order.get(top)?
            } else if let Some(&bucket) = self.order.get(next) {
                next = next.checked_add(1)?;
                bucket
            } else {
                return Some(true);
            };
            let Some(hashes) = self.hashes(bucket, &mut room.hashes) else { return Some(false) };
            let pilot = match self.free_pilot(hashes, &mut room.slots) {
                Some(pilot) => pilot,
                None if self.evicted > budget => return Some(false),
                None => {
                    // by hash, not by position in the table: what is placed again first must not depend on the table's order
                    hashes.sort_unstable();
                    let Some(pilot) = self.cheapest_pilot(hashes) else { return Some(false) };
                    self.evict_from(hashes, pilot, &mut stacked)?;
                    *self.recent.get_mut(self.evictors % RECENT)? = Some(bucket);
                    self.evictors = self.evictors.wrapping_add(1);
                    pilot
                }
            };
            self.settle(bucket, pilot, hashes)?;
        }
    }

    /// Hashes of a bucket's keys; `None` where they are too many.
    fn hashes<'r>(&self, bucket: u32, room: &'r mut [u64; BUCKET_MAX]) -> Option<&'r mut [u64]> {
        let keys = self.buckets.keys_of(bucket);
        let hashes = room.get_mut(..keys.len())?;
        for (hash, key) in hashes.iter_mut().zip(keys) {
            *hash = self.shard.hash(key);
        }
        Some(hashes)
    }

    fn slot(&self, hash: u64, pilot: u8) -> u32 {
        self.shard.placement.slot_in_shard(hash.into(), pilot)
    }

    fn is_taken(&self, slot: u32) -> bool {
        self.taken.get(index(slot / 32)).is_none_or(|word| word >> (slot % 32) & 1 != 0)
    }

    fn owner(&self, slot: u32) -> Owner {
        let start = index(slot).wrapping_mul(self.form.width().into());
        let owner = self.slots.get(start..).and_then(|s| s.first_chunk());
        owner.map_or(Owner::NONE, |o| Owner(u32::from_le_bytes(*o)))
    }

    /// Gives a slot to an owner, or to none.
    fn set_owner(&mut self, slot: u32, owner: Owner) -> Option<()> {
        let (word, bit) = (self.taken.get_mut(index(slot / 32))?, 1 << (slot % 32));
        *word = if owner.bucket().is_some() { *word | bit } else { *word & !bit };
        let start = index(slot).wrapping_mul(self.form.width().into());
        *self.slots.get_mut(start..)?.first_chunk_mut()? = owner.0.to_le_bytes();
        Some(())
    }

    /// The first pilot that sends keys to free slots that are all different.
    fn free_pilot(&self, hashes: &[u64], room: &mut [u32; BUCKET_MAX]) -> Option<u8> {
        let Some((&first, others)) = hashes.split_first() else { return Some(0) };
        let slots = self.shard.placement.slots_in_shard(first.into());
        // most fail at the first key
        let mut free = (0..=u8::MAX).zip(slots).filter(|(_, slot)| !self.is_taken(*slot));
        free.find(|&(pilot, slot)| self.are_free(slot, others, pilot, room)).map(|(pilot, _)| pilot)
    }

    /// Whether a pilot sends further keys to slots that are free, and others than the first one's.
    fn are_free(&self, first: u32, others: &[u64], pilot: u8, room: &mut [u32; BUCKET_MAX]) -> bool {
        let [place, rest @ ..] = room;
        *place = first;
        let are_free = rest.iter_mut().zip(others).all(|(place, &hash)| {
            *place = self.slot(hash, pilot);
            !self.is_taken(*place)
        });
        are_free && all_differ(room.get(..others.len().saturating_add(1)).unwrap_or(&[]))
    }

    /// Of the pilots that send keys to different slots and evict no bucket that has just evicted others, the first that evicts
    /// the least. Each evicts something.
    fn cheapest_pilot(&self, hashes: &[u64]) -> Option<u8> {
        // start elsewhere each time, so that evictions spread over all buckets
        let [.., start] = self.evicted.wrapping_mul(0x9e37_79b9).to_le_bytes();
        let mut best: Option<u8> = None;
        let mut least = u32::MAX;
        for i in 0..=u8::MAX {
            let pilot = start.wrapping_add(i);
            let mut cost = 0_u32;
            let is_less = hashes.iter().all(|&hash| {
                cost = cost.wrapping_add(self.owner(self.slot(hash, pilot)).cost());
                cost < least
            });
            if is_less && !self.collides(hashes, pilot) && !self.evicts_recent(hashes, pilot) {
                (best, least) = (Some(pilot), cost);
                if cost == 1 {
                    break;
                }
            }
        }
        best
    }

    /// Whether two keys share a slot under this pilot.
    fn collides(&self, hashes: &[u64], pilot: u8) -> bool {
        let slot = |hash: &u64| self.slot(*hash, pilot);
        hashes.iter().enumerate().any(|(i, a)| hashes.iter().take(i).any(|b| slot(a) == slot(b)))
    }

    fn evicts_recent(&self, hashes: &[u64], pilot: u8) -> bool {
        hashes.iter().any(|&hash| {
            let owner = self.owner(self.slot(hash, pilot)).bucket();
            owner.is_some() && self.recent.contains(&owner)
        })
    }

    /// Evicts the buckets that have taken the keys' slots, in the order of the hashes, onto the stack.
    fn evict_from(&mut self, hashes: &[u64], pilot: u8, stacked: &mut usize) -> Option<()> {
        for &hash in hashes {
            if let Some(victim) = self.owner(self.slot(hash, pilot)).bucket() {
                let pilot = *self.pilots.get(index(victim))?;
                for key in self.buckets.keys_of(victim) {
                    self.set_owner(self.slot(self.shard.hash(key), pilot), Owner::NONE)?;
                    self.evicted = self.evicted.saturating_add(1);
                }
                *self.order.get_mut(*stacked)? = victim;
                *stacked = stacked.checked_add(1)?;
            }
        }
        Some(())
    }

    fn settle(&mut self, bucket: u32, pilot: u8, hashes: &[u64]) -> Option<()> {
        *self.pilots.get_mut(index(bucket))? = pilot;
        let owner = Owner::new(bucket, hashes.len());
        hashes.iter().try_for_each(|&hash| self.set_owner(self.slot(hash, pilot), owner))
    }

    /// Writes all slots.
    pub fn write(&mut self) -> Option<()> {
        let (form, placement) = (self.form, &self.shard.placement);
        let width = usize::from(form.width());
        for (keys, &pilot) in self.buckets.iter().zip(self.pilots.iter()) {
            for key in keys {
                let slot = placement.slot_in_shard(self.shard.hash(key).into(), pilot);
                let start = index(slot).wrapping_mul(width);
                key.write(form, self.slots.get_mut(start..)?.get_mut(..width)?)?;
            }
        }
        for (word, slots) in self.taken.iter().zip(self.slots.chunks_mut(width.saturating_mul(32).max(1))) {
            if *word != u32::MAX {
                let is_free = |i: &u32| word >> i & 1 == 0;
                let slots = (0..32).zip(slots.chunks_exact_mut(width.max(1)));
                slots.filter(|(i, _)| is_free(i)).try_for_each(|(_, slot)| form.write_empty(slot))?;
            }
        }
        Some(())
    }
}

fn all_differ(slots: &[u32]) -> bool {
    slots.iter().enumerate().all(|(i, slot)| !slots.iter().take(i).any(|other| other == slot))
}
