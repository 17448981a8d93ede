//! The keys of a shard, sorted into buckets.

use super::Failure;
use crate::bytes::index;
use crate::compile::entry::Entry;
use crate::error::CompileError;
use crate::hash::Placement;

/// Most keys of one bucket; three on average, so that more means a hash that does not fit the keys.
pub(super) const BUCKET_MAX: usize = 32;

/// What is the same for all keys of a shard.
#[derive(Clone, Copy)]
pub(super) struct Shard {
    pub placement: Placement,
    pub first_bucket: u32,
}

impl Shard {
    pub fn hash<E: Entry>(&self, entry: &E) -> u64 {
        entry.hash(self.placement.seed)
    }

    /// The bucket of a key, counted from the shard's first.
    fn bucket<E: Entry>(&self, entry: &E) -> usize {
        index(self.placement.bucket(self.hash(entry).into()).saturating_sub(self.first_bucket))
    }
}

/// Keys by bucket.
pub(super) struct Buckets<'s, E> {
    keys: &'s [E],
    /// Where each bucket's keys start; one more than buckets.
    starts: &'s [u32],
}

impl<'s, E: Entry> Buckets<'s, E> {
    /// Sorts keys from `from` to `to`, by counting. Returns what is left of the scratch memory too.
    pub fn sort<'w>(
        shard: &Shard,
        from: &[E],
        to: &'s mut [E],
        buckets: usize,
        scratch: &'w mut [u32],
    ) -> Result<(Self, &'w mut [u32]), CompileError>
    where
        'w: 's,
    {
        let short = CompileError::ScratchTooSmall;
        let (starts, rest) = scratch.split_at_mut_checked(buckets.saturating_add(1)).ok_or(short)?;
        sort_into_buckets(shard, from, to, starts).ok_or(CompileError::Index)?;
        Ok((Self { keys: to, starts }, rest))
    }

    pub fn number_of_keys(&self) -> usize {
        self.keys.len()
    }

    pub fn keys_of(&self, bucket: u32) -> &'s [E] {
        let Some([start, end]) = self.starts.get(index(bucket)..).and_then(|s| s.first_chunk()) else { return &[] };
        self.keys.get(index(*start)..index(*end)).unwrap_or(&[])
    }

    /// Keys of each bucket.
    pub fn iter(&self) -> impl Iterator<Item = &'s [E]> + use<'s, E> {
        let keys = self.keys;
        let ends = self.starts.get(1..).unwrap_or(&[]);
        self.starts.iter().zip(ends).map(move |(start, end)| keys.get(index(*start)..index(*end)).unwrap_or(&[]))
    }

    /// Numbers of the buckets, the fullest first, those of one size in ascending order: a counting sort.
    pub fn order_by_size(&self, order: &mut [u32]) -> Option<()> {
        // what is too large to be placed is the largest, whatever its size
        let smallness = |keys: &[E]| BUCKET_MAX.saturating_sub(keys.len());
        let mut ends = [0_u32; BUCKET_MAX + 1];
        for keys in self.iter() {
            let end = ends.get_mut(smallness(keys))?;
            *end = end.checked_add(1)?;
        }
        let mut sum = 0_u32;
        for end in &mut ends {
            let size = *end;
            *end = sum;
            sum = sum.checked_add(size)?;
        }
        for (bucket, keys) in (0..).zip(self.iter()) {
            let place = ends.get_mut(smallness(keys))?;
            *order.get_mut(index(*place))? = bucket;
            *place = place.checked_add(1)?;
        }
        Some(())
    }

    /// Equal keys share a bucket, so that looking within buckets finds all of them. A shard that has some cannot be placed:
    /// only one that could not be needs to be looked at.
    pub fn check_duplicates(&self) -> Result<(), Failure<E>> {
        for keys in self.iter() {
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
}

/// `starts` gets where each bucket starts and where the last one ends.
fn sort_into_buckets<E: Entry>(shard: &Shard, from: &[E], to: &mut [E], starts: &mut [u32]) -> Option<()> {
    starts.fill(0);
    for entry in from {
        let keys = starts.get_mut(shard.bucket(entry))?;
        *keys = keys.wrapping_add(1);
    }
    let mut sum = 0_u32;
    for start in starts.iter_mut() {
        sum = sum.wrapping_add(*start);
        *start = sum;
    }
    for entry in from {
        let place = starts.get_mut(shard.bucket(entry))?;
        *place = place.wrapping_sub(1);
        *to.get_mut(index(*place))? = *entry;
    }
    Some(())
}
