//! The hash behind the frontend index: one multiplication folded, then a multiply-shift for bucket and slot.
//!
//! Fold and multiply-shift were chosen over cheaper forms because real clusters have sequential addresses, /24 strides and
//! one port: single-fold and Fibonacci hashes fail to build on some of those patterns.

use crate::bytes::index;

/// One constant for all three multiplications: it stays in a register.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
const MULTIPLIER_HIGH: u64 = 0xc2b2_ae3d_27d4_eb4f;
const MULTIPLIER_LOW: u64 = 0x1656_67b1_9e37_79f9;

/// Where the hashes of one family's keys lead: to a bucket, which has a pilot, and with the pilot to a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    pub seed: u64,
    /// Buckets of all shards.
    pub buckets: u32,
    /// Parts of the index that are built one after the other.
    pub shards: u32,
    /// Slots of each shard.
    pub shard_slots: u16,
}

impl Placement {
    /// The bucket of a hash, below `buckets`. Those of a shard lie side by side.
    #[inline]
    pub fn bucket(&self, hash: Hash) -> u32 {
        high(hash.spread, self.buckets)
    }

    /// The shard of a hash: its bucket divided by the buckets of a shard.
    #[inline]
    pub fn shard(&self, hash: Hash) -> u32 {
        high(hash.spread, self.shards)
    }

    /// The slot within its shard of a hash under its bucket's pilot. The pilot changes the multiplier: a pilot that is added
    /// or XORed into the hash leaves keys of one bucket correlated. Pilot 0 is the bucket's own multiplier and does so too:
    /// it serves buckets of one key.
    #[inline]
    pub fn slot_in_shard(&self, hash: Hash, pilot: u8) -> u32 {
        // that is (MULTIPLIER + 2 pilot) word, of which the bucket has the larger part
        let moved = u64::from(pilot).wrapping_mul(hash.word) << 1;
        high(hash.spread.wrapping_add(moved), self.shard_slots.into())
    }

    /// The slots within its shard of a hash under the pilots from 0 on: an addition for each instead of a multiplication.
    #[inline]
    pub fn slots_in_shard(&self, hash: Hash) -> impl Iterator<Item = u32> + use<> {
        let (slots, step) = (self.shard_slots.into(), hash.word << 1);
        let mut next = hash.spread;
        core::iter::repeat_with(move || {
            let product = next;
            next = next.wrapping_add(step);
            high(product, slots)
        })
    }

    /// The first slot of a hash's shard.
    #[inline]
    pub fn first_slot(&self, hash: Hash) -> usize {
        index(self.shard(hash)).wrapping_mul(self.shard_slots.into())
    }
}

/// A key's hash, with the product that all that follows from it begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hash {
    word: u64,
    /// `word` times the multiplier.
    spread: u64,
}

impl From<u64> for Hash {
    #[inline]
    fn from(word: u64) -> Self {
        Self { word, spread: word.wrapping_mul(MULTIPLIER) }
    }
}

/// The hash of an IPv4 key, which is a word.
#[inline]
pub(crate) fn hash_v4(key: u64, seed: u64) -> u64 {
    fold(key ^ seed, MULTIPLIER)
}

/// The hash of an IPv6 key: its address and the rest of it.
#[inline]
pub(crate) fn hash_v6(address: u128, rest: u64, seed: u64) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "both halves are wanted")]
    let (upper, lower) = ((address >> 64) as u64, address as u64);
    let word = fold(upper ^ seed, MULTIPLIER_HIGH) ^ fold(lower ^ seed.rotate_left(32), MULTIPLIER_LOW) ^ rest;
    fold(word ^ seed, MULTIPLIER)
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "both halves of the product are wanted")]
fn fold(word: u64, odd: u64) -> u64 {
    let product = u128::from(word).wrapping_mul(u128::from(odd));
    (product as u64) ^ ((product >> 64) as u64)
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the high half of a u64 by u32 product is below the u32")]
fn high(hash: u64, range: u32) -> u32 {
    (u128::from(hash).wrapping_mul(u128::from(range)) >> 64) as u32
}

/// The seed with this number.
pub(crate) const fn seed(number: u8) -> u64 {
    // splitmix64, so that neighbouring numbers share no bits
    let z = MULTIPLIER.wrapping_mul((number as u64).wrapping_add(1));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
