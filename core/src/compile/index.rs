//! Builds one family's frontend index in place; `program/index.rs` describes and reads it.
//!
//! The frontends are dealt to shards, and those of a shard to buckets. Buckets are placed from the fullest to the emptiest.
//! A bucket takes the first pilot that sends its keys to free slots; where none does, the pilot that evicts the least, and
//! the evicted buckets are placed again. The work is capped: after a quarter as many evictions as keys another seed is
//! tried, after four seeds more slots.

use super::entry::Entry;
use crate::bytes::{Word, count, index};
use crate::error::CompileError;
use crate::hash::Placement;
use crate::program::layout::{IndexHeader, SHARD};
use crate::program::slot::SlotForm;

const SEEDS: u8 = 4;
const LOADS: u8 = 4;
/// Most keys of one bucket; three on average, so that more means a hash that does not fit the keys.
const BUCKET_MAX: usize = 32;

/// Words of scratch for an index of this many frontends: bucket starts, bucket order and a bit for each slot of a shard.
pub(crate) fn scratch_len(frontends: usize) -> usize {
    let shard = if frontends < index(SHARD) { frontends } else { index(SHARD) };
    let (buckets, slots) = ((shard / 3).saturating_add(2), index(most_slots(count(shard))));
    buckets.saturating_mul(2).saturating_add(1).saturating_add(slots / 32).saturating_add(1)
}

/// Most keys that a shard may have, of this many on average: eight standard deviations more.
const fn most_keys(average: u32) -> u32 {
    average.saturating_add(average / 16).saturating_add(32)
}

const fn most_slots(average: u32) -> u32 {
    let keys = most_keys(average);
    keys.saturating_add(spare(3, keys))
}

/// Slots of a shard beyond its keys.
const fn spare(load: u8, keys: u32) -> u32 {
    match load {
        0 => keys / 100,
        1 => keys / 20,
        2 => keys / 10,
        _ => (keys / 3).saturating_add(1),
    }
}

/// Upper bound of an index's slots and pilots, in bytes.
pub(crate) fn max_len(frontends: usize, width: usize) -> usize {
    let shards = shards(frontends);
    let slots = frontends.saturating_add(frontends / 2).saturating_add(shards.saturating_mul(48));
    slots.saturating_mul(width).saturating_add(frontends / 3).saturating_add(shards.saturating_mul(2))
}

/// Shards of an index of this many frontends.
pub(crate) fn shards(frontends: usize) -> usize {
    frontends.checked_div(index(SHARD)).unwrap_or(0).saturating_add(1)
}

/// Why an index cannot be built.
pub(crate) enum Failure<E> {
    /// Two frontends have this one's key.
    Duplicate(E),
    Other(CompileError),
}

impl<E> From<CompileError> for Failure<E> {
    fn from(e: CompileError) -> Self {
        Self::Other(e)
    }
}

/// Memory for a build, as long as [`scratch_len`], and the number of shards.
pub(crate) struct Room<'s> {
    pub scratch: &'s mut [u32],
    pub shard_ends: &'s mut [Word],
}

/// Writes slots and pilots to `out`, the rest of which is free memory, and returns what the header says of them.
/// `entries` are the family's frontends, `spare` is memory for as many; their order afterwards is any.
pub(crate) fn build<E: Entry>(
    entries: &mut [E],
    spare_entries: &mut [E],
    form: SlotForm,
    room: &mut Room<'_>,
    out: &mut [u8],
) -> Result<IndexHeader, Failure<E>> {
    let frontends = count(entries.len());
    let unsized_header = IndexHeader { frontends, ..IndexHeader::default() };
    if frontends == 0 {
        return Ok(unsized_header);
    }
    let shards = unsized_header.shards();
    let (mut from, mut to) = (entries, spare_entries);
    for load in 0..LOADS {
        for seed in 0..SEEDS {
            let mut header = IndexHeader { seed, ..unsized_header };
            let placement = header.placement();
            if shards > 1 {
                deal(from, to, form, &placement, room.shard_ends)?;
                (from, to) = (to, from);
            } else {
                *room.shard_ends.first_mut().ok_or(CompileError::OutputTooSmall)? = frontends.to_le_bytes();
            }
            let Some(keys) = largest_shard(room.shard_ends, frontends, shards) else { continue };
            let shard_slots = u16::try_from(keys.saturating_add(spare(load, keys)));
            header.shard_slots = shard_slots.map_err(|_| CompileError::Index)?;
            if build_shards(&header, from, to, form, room, out)? {
                return Ok(header);
            }
        }
    }
    Err(CompileError::Index.into())
}

/// Copies entries so that those of a shard lie side by side, and notes where each shard ends.
fn deal<E: Entry>(
    from: &[E],
    to: &mut [E],
    form: SlotForm,
    placement: &Placement,
    ends: &mut [Word],
) -> Result<(), CompileError> {
    let full = CompileError::OutputTooSmall;
    let shard = |entry: &E| index(placement.shard(entry.hash(form, placement.seed).into()));
    ends.fill([0; 4]);
    for entry in from {
        let end = ends.get_mut(shard(entry)).ok_or(full)?;
        *end = u32::from_le_bytes(*end).saturating_add(1).to_le_bytes();
    }
    let mut start = 0_u32;
    for end in ends.iter_mut() {
        let keys = u32::from_le_bytes(*end);
        *end = start.to_le_bytes();
        start = start.saturating_add(keys);
    }
    for entry in from {
        let end = ends.get_mut(shard(entry)).ok_or(full)?;
        let at = u32::from_le_bytes(*end);
        *to.get_mut(index(at)).ok_or(full)? = *entry;
        *end = at.saturating_add(1).to_le_bytes();
    }
    Ok(())
}

/// Keys of the largest shard; `None` if it has so many that the hash does not fit the keys.
fn largest_shard(ends: &[Word], frontends: u32, shards: u32) -> Option<u32> {
    let mut start = 0;
    let mut largest = 0;
    for &end in ends.iter().take(index(shards)) {
        let end = u32::from_le_bytes(end);
        largest = largest.max(end.saturating_sub(start));
        start = end;
    }
    let most = if shards == 1 { frontends } else { most_keys(frontends.checked_div(shards)?) };
    (largest <= most).then_some(largest)
}

/// `false` where a shard does not work out.
fn build_shards<E: Entry>(
    header: &IndexHeader,
    from: &[E],
    to: &mut [E],
    form: SlotForm,
    room: &mut Room<'_>,
    out: &mut [u8],
) -> Result<bool, Failure<E>> {
    let full = CompileError::OutputTooSmall;
    let (shards, placement) = (header.shards(), header.placement());
    let slots_len = index(header.slots()).checked_mul(form.width().into()).ok_or(CompileError::Limit)?;
    let (slots, pilots) = out.split_at_mut_checked(slots_len).ok_or(full)?;
    let pilots = pilots.get_mut(..index(header.pilots())).ok_or(full)?;
    let shard_bytes = usize::from(header.shard_slots).saturating_mul(form.width().into());
    let buckets = header.pilots().checked_div(shards).unwrap_or(1);
    let parts = slots.chunks_exact_mut(shard_bytes.max(1)).zip(pilots.chunks_exact_mut(index(buckets).max(1)));
    let mut start = 0;
    for (((shard, end), (slots, pilots)), first_bucket) in
        (0..shards).zip(room.shard_ends.iter()).zip(parts).zip((0..).step_by(index(buckets).max(1)))
    {
        let end = index(u32::from_le_bytes(*end));
        let (from, to) = (from.get(start..end).ok_or(full)?, to.get_mut(start..end).ok_or(full)?);
        debug_assert!(shard < shards);
        let shard = Shard { placement, first_bucket, form };
        let mut search = Search::new(shard, from, to, room.scratch, pilots, slots)?;
        search.check_duplicates()?;
        if search.place_all() != Some(true) {
            return Ok(false);
        }
        search.write().ok_or(CompileError::Index)?;
        start = end;
    }
    Ok(true)
}

/// What is the same for all keys of a shard.
#[derive(Clone, Copy)]
struct Shard {
    placement: Placement,
    first_bucket: u32,
    form: SlotForm,
}

impl Shard {
    fn hash<E: Entry>(&self, entry: &E) -> u64 {
        entry.hash(self.form, self.placement.seed)
    }

    /// The bucket of a hash, counted from the shard's first.
    fn bucket(&self, hash: u64) -> u32 {
        self.placement.bucket(hash.into()).saturating_sub(self.first_bucket)
    }
}

/// The state of one attempt at one shard: one seed, one load.
struct Search<'s, E> {
    shard: Shard,
    /// Keys by bucket.
    keys: &'s [E],
    /// Where each bucket's keys start; one more than buckets.
    starts: &'s mut [u32],
    /// Buckets in order of placement; those already taken make room for a stack of evicted ones.
    order: &'s mut [u32],
    /// A bit for each slot that is taken.
    taken: &'s mut [u32],
    pilots: &'s mut [u8],
    /// The shard's slots; until they are written, a taken one begins with its bucket's number.
    slots: &'s mut [u8],
    /// Keys evicted so far.
    evicted: u32,
}

/// The hashes of one bucket's keys.
struct Hashes {
    all: [u64; BUCKET_MAX],
    len: usize,
}

impl Hashes {
    fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.all.get(..self.len).unwrap_or(&[]).iter().copied()
    }
}

impl<'s, E: Entry> Search<'s, E> {
    /// Sorts the keys of a shard into buckets, from `from` to `to`, and the buckets by size, the fullest first.
    fn new(
        shard: Shard,
        from: &[E],
        to: &'s mut [E],
        scratch: &'s mut [u32],
        pilots: &'s mut [u8],
        slots: &'s mut [u8],
    ) -> Result<Self, CompileError> {
        let short = CompileError::ScratchTooSmall;
        let buckets = pilots.len();
        let (starts, rest) = scratch.split_at_mut_checked(buckets.saturating_add(1)).ok_or(short)?;
        let (order, rest) = rest.split_at_mut_checked(buckets).ok_or(short)?;
        let words = usize::from(shard.placement.shard_slots).div_ceil(32);
        let taken = rest.get_mut(..words).ok_or(short)?;
        starts.fill(0);
        taken.fill(0);
        pilots.fill(0);
        sort_into_buckets(&shard, from, to, starts).ok_or(CompileError::Index)?;
        order_by_size(starts, order).ok_or(CompileError::Index)?;
        Ok(Self { shard, keys: to, starts, order, taken, pilots, slots, evicted: 0 })
    }

    fn keys_of(&self, bucket: u32) -> &'s [E] {
        let at = |i: usize| self.starts.get(i).map_or(0, |&s| index(s));
        let bucket = index(bucket);
        self.keys.get(at(bucket)..at(bucket.saturating_add(1))).unwrap_or(&[])
    }

    /// Equal keys share a bucket, so that looking within buckets finds all of them.
    fn check_duplicates(&self) -> Result<(), Failure<E>> {
        for bucket in 0..count(self.pilots.len()) {
            let keys = self.keys_of(bucket);
            // of a bucket that is too large to be placed, enough to see whether that is why
            let keys = keys.get(..BUCKET_MAX).unwrap_or(keys);
            for (i, key) in keys.iter().enumerate() {
                if keys.iter().take(i).any(|other| other.key() == key.key()) {
                    return Err(Failure::Duplicate(*key));
                }
            }
        }
        Ok(())
    }

    /// `Some(false)` where this seed and load do not work out within the budget.
    fn place_all(&mut self) -> Option<bool> {
        let budget = (count(self.keys.len()) / 4).saturating_add(64);
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
            let Some(hashes) = self.hashes(bucket) else { return Some(false) };
            if self.place_freely(bucket, &hashes)? {
                continue;
            }
            if self.evicted > budget || !self.place_evicting(bucket, &hashes, &mut stacked)? {
                return Some(false);
            }
        }
    }

    fn hashes(&self, bucket: u32) -> Option<Hashes> {
        let keys = self.keys_of(bucket);
        let mut hashes = Hashes { all: [0; BUCKET_MAX], len: keys.len() };
        for (i, key) in keys.iter().enumerate() {
            *hashes.all.get_mut(i)? = self.shard.hash(key);
        }
        Some(hashes)
    }

    fn slot(&self, hash: u64, pilot: u8) -> u32 {
        self.shard.placement.slot_in_shard(hash.into(), pilot)
    }

    fn is_taken(&self, slot: u32) -> bool {
        self.taken.get(index(slot / 32)).is_some_and(|word| word >> (slot % 32) & 1 != 0)
    }

    fn set_taken(&mut self, slot: u32, taken: bool) -> Option<()> {
        let (word, bit) = (self.taken.get_mut(index(slot / 32))?, 1 << (slot % 32));
        if taken {
            *word |= bit;
        } else {
            *word &= !bit;
        }
        Some(())
    }

    /// The bucket that has taken this slot.
    fn owner(&self, slot: u32) -> Option<u32> {
        let start = index(slot).checked_mul(self.shard.form.width().into())?;
        let owner = self.slots.get(start..)?.first_chunk()?;
        self.is_taken(slot).then_some(u32::from_le_bytes(*owner))
    }

    /// Whether two keys of the bucket share a slot under this pilot.
    fn collides(&self, hashes: &Hashes, pilot: u8) -> bool {
        hashes
            .iter()
            .enumerate()
            .any(|(i, a)| hashes.iter().take(i).any(|b| self.slot(a, pilot) == self.slot(b, pilot)))
    }

    fn place_freely(&mut self, bucket: u32, hashes: &Hashes) -> Option<bool> {
        let Some(pilot) = (0..=u8::MAX).find(|p| self.is_free(hashes, *p)) else { return Some(false) };
        self.settle(bucket, pilot, hashes)?;
        Some(true)
    }

    /// Whether a pilot sends its keys to free slots that are all different. Most fail at the first.
    fn is_free(&self, hashes: &Hashes, pilot: u8) -> bool {
        hashes.iter().all(|hash| !self.is_taken(self.slot(hash, pilot))) && !self.collides(hashes, pilot)
    }

    fn settle(&mut self, bucket: u32, pilot: u8, hashes: &Hashes) -> Option<()> {
        *self.pilots.get_mut(index(bucket))? = pilot;
        for hash in hashes.iter() {
            let slot = self.slot(hash, pilot);
            self.set_taken(slot, true)?;
            let start = index(slot).checked_mul(self.shard.form.width().into())?;
            *self.slots.get_mut(start..)?.first_chunk_mut()? = bucket.to_le_bytes();
        }
        Some(())
    }

    /// Takes the pilot that evicts the fewest keys and pushes their buckets; `Some(false)` if no pilot can be taken.
    fn place_evicting(&mut self, bucket: u32, hashes: &Hashes, stacked: &mut usize) -> Option<bool> {
        // start elsewhere each time, so that two buckets do not throw each other out for ever
        let [.., start] = self.evicted.wrapping_mul(0x9e37_79b9).to_le_bytes();
        let mut best: Option<(u32, u8)> = None;
        for i in 0..=u8::MAX {
            let pilot = start.wrapping_add(i);
            if self.collides(hashes, pilot) {
                continue;
            }
            let cost = hashes.iter().fold(0_u32, |sum, h| {
                let owner = self.owner(self.slot(h, pilot));
                let size = owner.map_or(0, |b| count(self.keys_of(b).len()));
                sum.saturating_add(size.saturating_mul(size))
            });
            if best.is_none_or(|(c, _)| cost < c) {
                best = Some((cost, pilot));
            }
        }
        let Some((_, pilot)) = best else { return Some(false) };
        // by hash, not by position in the table: what is placed again first must not depend on the table's order
        let mut sorted = hashes.all;
        let sorted = sorted.get_mut(..hashes.len)?;
        sorted.sort_unstable();
        for &hash in sorted.iter() {
            if let Some(victim) = self.owner(self.slot(hash, pilot)) {
                self.evict(victim)?;
                *self.order.get_mut(*stacked)? = victim;
                *stacked = stacked.checked_add(1)?;
            }
        }
        self.settle(bucket, pilot, hashes)?;
        Some(true)
    }

    fn evict(&mut self, bucket: u32) -> Option<()> {
        let pilot = *self.pilots.get(index(bucket))?;
        let hashes = self.hashes(bucket)?;
        for hash in hashes.iter() {
            self.set_taken(self.slot(hash, pilot), false)?;
            self.evicted = self.evicted.saturating_add(1);
        }
        Some(())
    }

    /// Writes all slots.
    fn write(&mut self) -> Option<()> {
        let form = self.shard.form;
        let width = usize::from(form.width());
        for bucket in 0..count(self.pilots.len()) {
            let pilot = *self.pilots.get(index(bucket))?;
            for key in self.keys_of(bucket) {
                let start = index(self.slot(self.shard.hash(key), pilot)).checked_mul(width)?;
                key.write(form, self.slots.get_mut(start..start.checked_add(width)?)?)?;
            }
        }
        for (slot, bytes) in (0..).zip(self.slots.chunks_exact_mut(width.max(1))) {
            let word = self.taken.get(index(slot / 32_u32)).copied().unwrap_or(0);
            if word >> (slot % 32) & 1 == 0 {
                form.write_empty(bytes)?;
            }
        }
        Some(())
    }
}

/// Counting sort by bucket; `starts`, zeros, gets where each bucket starts and where the last one ends.
fn sort_into_buckets<E: Entry>(shard: &Shard, from: &[E], to: &mut [E], starts: &mut [u32]) -> Option<()> {
    for entry in from {
        let place = starts.get_mut(index(shard.bucket(shard.hash(entry))))?;
        *place = place.checked_add(1)?;
    }
    let mut sum = 0_u32;
    for start in starts.iter_mut() {
        sum = sum.checked_add(*start)?;
        *start = sum;
    }
    for entry in from {
        let place = starts.get_mut(index(shard.bucket(shard.hash(entry))))?;
        *place = place.checked_sub(1)?;
        *to.get_mut(index(*place))? = *entry;
    }
    Some(())
}

/// Counting sort of the buckets, the fullest first, those of one size in ascending order.
fn order_by_size(starts: &[u32], order: &mut [u32]) -> Option<()> {
    let sizes = || {
        starts.iter().zip(starts.get(1..).unwrap_or(&[])).map(|(start, end)| {
            // what is too large to be placed is the largest, whatever its size
            BUCKET_MAX.saturating_sub(index(end.saturating_sub(*start)))
        })
    };
    let mut ends = [0_u32; BUCKET_MAX + 1];
    for size in sizes() {
        let end = ends.get_mut(size)?;
        *end = end.checked_add(1)?;
    }
    let mut sum = 0_u32;
    for end in &mut ends {
        let size = *end;
        *end = sum;
        sum = sum.checked_add(size)?;
    }
    for (bucket, size) in (0..).zip(sizes()) {
        let place = ends.get_mut(size)?;
        *order.get_mut(index(*place))? = bucket;
        *place = place.checked_add(1)?;
    }
    Some(())
}
