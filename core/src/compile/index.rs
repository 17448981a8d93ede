//! Builds one family's frontend index in place; `program/index.rs` describes and reads it.
//!
//! Buckets are placed from the fullest to the emptiest. A bucket takes the first pilot that sends its keys to free slots;
//! where none does, the pilot that evicts the least, and the evicted buckets are placed again. The work is capped: after a
//! quarter as many evictions as keys another seed is tried, after four seeds more slots.

use crate::bytes::{count, index};
use crate::error::CompileError;
use crate::hash::{Key, bucket, seed, slot};
use crate::program::index::{EMPTY, SlotForm, kind_code};
use crate::program::layout::{IndexHeader, SORTED_MAX};
use crate::table::FrontendKind;

/// One frontend of the family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Its number in the table.
    pub frontend: u32,
    pub key: Key,
    pub kind: FrontendKind,
    pub record: u32,
}

/// Words of scratch for a family of this many frontends.
pub(crate) fn scratch_len(frontends: usize) -> usize {
    // order, owners (at the lowest load), bucket starts, bucket order
    frontends.saturating_mul(3).saturating_add(frontends / 3).saturating_add(16)
}

const SEEDS: u8 = 4;
const FREE: u32 = u32::MAX;

/// Most keys of one bucket; three on average, so that more means a hash that does not fit the keys.
const BUCKET_MAX: usize = 32;

/// Writes pilots and slots to `out`, the rest of which is free memory, and returns what the header says of them.
/// `entry` gives the family's frontends by their position, `0..frontends`.
pub(crate) fn build(
    frontends: u32,
    entry: &impl Fn(u32) -> Option<Entry>,
    form: SlotForm,
    scratch: &mut [u32],
    out: &mut [u8],
) -> Result<IndexHeader, CompileError> {
    let header = IndexHeader { frontends, ..IndexHeader::default() };
    if frontends <= SORTED_MAX {
        build_sorted(frontends, entry, form, scratch, out)?;
        return Ok(header);
    }
    for load in 0..4 {
        for number in 0..SEEDS {
            let header = IndexHeader { seed: number, load, ..header };
            let slots_len = index(header.slots()).checked_mul(form.width()).ok_or(CompileError::Limit)?;
            let (pilots, slots) =
                out.split_at_mut_checked(index(header.pilots())).ok_or(CompileError::OutputTooSmall)?;
            let slots = slots.get_mut(..slots_len).ok_or(CompileError::OutputTooSmall)?;
            let mut search = Search::new(&header, entry, scratch, pilots).ok_or(CompileError::ScratchTooSmall)?;
            search.sort_into_buckets().ok_or(CompileError::ScratchTooSmall)?;
            search.check_duplicates()?;
            if search.place_all() == Some(true) {
                search.write(form, slots).ok_or(CompileError::Index)?;
                return Ok(header);
            }
        }
    }
    Err(CompileError::Index)
}

fn build_sorted(
    frontends: u32,
    entry: &impl Fn(u32) -> Option<Entry>,
    form: SlotForm,
    scratch: &mut [u32],
    out: &mut [u8],
) -> Result<(), CompileError> {
    let order = scratch.get_mut(..index(frontends)).ok_or(CompileError::ScratchTooSmall)?;
    for (i, place) in (0..frontends).zip(order.iter_mut()) {
        *place = i;
    }
    let sort_key = |i: u32| entry(i).map(|e| (e.key.address, e.key.protocol, e.key.port));
    order.sort_unstable_by_key(|&i| sort_key(i));
    for pair in order.windows(2) {
        if let [a, b] = *pair
            && sort_key(a) == sort_key(b)
        {
            return Err(duplicate(entry(a), entry(b)));
        }
    }
    let width = form.width();
    for (&i, bytes) in order.iter().zip(out.chunks_exact_mut(width)) {
        entry(i).and_then(|e| write_slot(&e, form, bytes)).ok_or(CompileError::OutputTooSmall)?;
    }
    Ok(())
}

fn duplicate(a: Option<Entry>, b: Option<Entry>) -> CompileError {
    let number = |e: Option<Entry>| e.map_or(0, |e| e.frontend);
    let (a, b) = (number(a), number(b));
    CompileError::DuplicateFrontend { first: a.min(b), second: a.max(b) }
}

/// The state of one attempt: one seed, one load.
struct Search<'s, F> {
    header: IndexHeader,
    entry: &'s F,
    /// Keys by bucket.
    keys: &'s mut [u32],
    /// Where each bucket's keys start; one more than buckets.
    starts: &'s mut [u32],
    /// Buckets in order of placement; those already taken make room for a stack of evicted ones.
    order: &'s mut [u32],
    /// The key in each slot, or `FREE`.
    owners: &'s mut [u32],
    pilots: &'s mut [u8],
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
        self.all.iter().copied().take(self.len)
    }
}

impl<'s, F: Fn(u32) -> Option<Entry>> Search<'s, F> {
    fn new(header: &IndexHeader, entry: &'s F, scratch: &'s mut [u32], pilots: &'s mut [u8]) -> Option<Self> {
        let buckets = index(header.pilots());
        let (keys, rest) = scratch.split_at_mut_checked(index(header.frontends))?;
        let (starts, rest) = rest.split_at_mut_checked(buckets.checked_add(1)?)?;
        let (order, rest) = rest.split_at_mut_checked(buckets)?;
        let owners = rest.get_mut(..index(header.slots()))?;
        owners.fill(FREE);
        pilots.fill(0);
        Some(Self { header: *header, entry, keys, starts, order, owners, pilots, evicted: 0 })
    }

    fn hash(&self, key: u32) -> Option<u64> {
        (self.entry)(key).map(|e| e.key.hash(seed(self.header.seed)))
    }

    fn bucket_of(&self, key: u32) -> Option<u32> {
        Some(bucket(self.hash(key)?, self.header.pilots()))
    }

    /// Counting sort of the keys by bucket; then the buckets by size, the fullest first.
    fn sort_into_buckets(&mut self) -> Option<()> {
        self.starts.fill(0);
        for key in 0..self.header.frontends {
            let bucket = index(self.bucket_of(key)?);
            let place = self.starts.get_mut(bucket)?;
            *place = place.checked_add(1)?;
        }
        let mut sum = 0_u32;
        for start in self.starts.iter_mut() {
            sum = sum.checked_add(*start)?;
            *start = sum;
        }
        for key in (0..self.header.frontends).rev() {
            let bucket = index(self.bucket_of(key)?);
            let place = self.starts.get_mut(bucket)?;
            *place = place.checked_sub(1)?;
            *self.keys.get_mut(index(*place))? = key;
        }
        for (i, place) in (0..self.header.pilots()).zip(self.order.iter_mut()) {
            *place = i;
        }
        let starts = &*self.starts;
        let size = |b: u32| {
            let at = |i: usize| starts.get(i).copied().unwrap_or(0);
            at(index(b).saturating_add(1)).saturating_sub(at(index(b)))
        };
        self.order.sort_unstable_by_key(|&b| (core::cmp::Reverse(size(b)), b));
        Some(())
    }

    fn keys_of(&self, bucket: u32) -> &[u32] {
        let at = |i: usize| self.starts.get(i).map_or(0, |&s| index(s));
        let bucket = index(bucket);
        self.keys.get(at(bucket)..at(bucket.saturating_add(1))).unwrap_or(&[])
    }

    /// Equal keys share a bucket, so that looking within buckets finds all of them.
    fn check_duplicates(&self) -> Result<(), CompileError> {
        for bucket in 0..self.header.pilots() {
            let mut keys = self.keys_of(bucket);
            while let Some((&first, rest)) = keys.split_first() {
                let key_of = |i: u32| (self.entry)(i).map(|e| e.key);
                if let Some(&twin) = rest.iter().find(|&&k| key_of(k) == key_of(first)) {
                    return Err(duplicate((self.entry)(first), (self.entry)(twin)));
                }
                keys = rest;
            }
        }
        Ok(())
    }

    /// `Some(false)` where this seed and load do not work out within the budget.
    fn place_all(&mut self) -> Option<bool> {
        let budget = (self.header.frontends / 4).saturating_add(64);
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
        for (i, &key) in keys.iter().enumerate() {
            *hashes.all.get_mut(i)? = self.hash(key)?;
        }
        Some(hashes)
    }

    fn slot(&self, hash: u64, pilot: u8) -> u32 {
        slot(hash, pilot, self.header.slots())
    }

    fn owner(&self, slot: u32) -> u32 {
        self.owners.get(index(slot)).copied().unwrap_or(FREE)
    }

    /// Whether two keys of the bucket share a slot under this pilot.
    fn collides(&self, hashes: &Hashes, pilot: u8) -> bool {
        hashes
            .iter()
            .enumerate()
            .any(|(i, a)| hashes.iter().take(i).any(|b| self.slot(a, pilot) == self.slot(b, pilot)))
    }

    fn place_freely(&mut self, bucket: u32, hashes: &Hashes) -> Option<bool> {
        let free = |p: &u8| hashes.iter().all(|h| self.owner(self.slot(h, *p)) == FREE) && !self.collides(hashes, *p);
        let Some(pilot) = (0..=u8::MAX).find(free) else { return Some(false) };
        self.settle(bucket, pilot, hashes)?;
        Some(true)
    }

    fn settle(&mut self, bucket: u32, pilot: u8, hashes: &Hashes) -> Option<()> {
        *self.pilots.get_mut(index(bucket))? = pilot;
        let start = index(*self.starts.get(index(bucket))?);
        for (i, hash) in hashes.iter().enumerate() {
            let key = *self.keys.get(start.checked_add(i)?)?;
            let slot = index(self.slot(hash, pilot));
            *self.owners.get_mut(slot)? = key;
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
                let size =
                    if owner == FREE { 0 } else { self.bucket_of(owner).map_or(0, |b| count(self.keys_of(b).len())) };
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
            let owner = self.owner(self.slot(hash, pilot));
            if owner != FREE {
                let victim = self.bucket_of(owner)?;
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
            let slot = index(self.slot(hash, pilot));
            *self.owners.get_mut(slot)? = FREE;
            self.evicted = self.evicted.saturating_add(1);
        }
        Some(())
    }

    fn write(&self, form: SlotForm, slots: &mut [u8]) -> Option<()> {
        for (&owner, bytes) in self.owners.iter().zip(slots.chunks_exact_mut(form.width())) {
            if owner == FREE {
                bytes.fill(0);
                *bytes.get_mut(form.address.checked_add(2)?)? = EMPTY;
            } else {
                write_slot(&(self.entry)(owner)?, form, bytes)?;
            }
        }
        Some(())
    }
}

fn write_slot(entry: &Entry, form: SlotForm, bytes: &mut [u8]) -> Option<()> {
    let address = form.address_bytes(entry.key.address)?;
    let tail = (entry.record << 4)
        | (u32::from(kind_code(entry.kind)) << 2)
        | u32::from(Key::protocol_code(entry.key.protocol));
    let (port, rest) = bytes.split_first_chunk_mut::<2>()?;
    *port = entry.key.port.to_le_bytes();
    let (address_out, tail_out) = rest.split_at_mut_checked(form.address)?;
    address_out.copy_from_slice(address.get(16_usize.checked_sub(form.address)?..)?);
    tail_out.copy_from_slice(tail.to_le_bytes().get(..form.tail)?);
    Some(())
}
