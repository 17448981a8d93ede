//! Builds one family's frontend index in place; `program/index.rs` describes and reads it.
//!
//! The frontends are dealt to shards, and those of a shard to buckets (`buckets.rs`), for each of which a pilot is searched
//! (`search.rs`). The work is capped: after a quarter as many evictions as keys another seed is tried, after four seeds more
//! slots.

mod buckets;
mod search;

use super::entry::Entry;
use crate::bytes::{Word, count, index};
use crate::error::CompileError;
use crate::hash::Placement;
use crate::program::layout::{IndexHeader, SHARD};
use crate::program::slot::SlotForm;
use buckets::{Buckets, Shard};
use search::Search;

const SEEDS: u8 = 4;
const LOADS: u8 = 4;
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
                deal(from, to, &placement, room.shard_ends)?;
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
fn deal<E: Entry>(from: &[E], to: &mut [E], placement: &Placement, ends: &mut [Word]) -> Result<(), CompileError> {
    let full = CompileError::OutputTooSmall;
    let shard = |entry: &E| index(placement.shard(entry.hash(placement.seed).into()));
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
    let first_buckets = (0..).step_by(index(buckets).max(1));
    let mut start = 0;
    for ((end, (slots, pilots)), first_bucket) in room.shard_ends.iter().zip(parts).zip(first_buckets) {
        let end = index(u32::from_le_bytes(*end));
        let (from, to) = (from.get(start..end).ok_or(full)?, to.get_mut(start..end).ok_or(full)?);
        let shard = Shard { placement, first_bucket };
        let (buckets, rest) = Buckets::sort(&shard, from, to, pilots.len(), room.scratch)?;
        let mut search = Search::new(&shard, &buckets, rest, pilots, slots, form)?;
        if search.place_all() != Some(true) {
            buckets.check_duplicates()?;
            return Ok(false);
        }
        search.write().ok_or(CompileError::Index)?;
        start = end;
    }
    Ok(true)
}
