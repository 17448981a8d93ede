//! The hash behind the frontend index: one multiplication folded, then a multiply-shift for bucket and slot.
//!
//! Fold and multiply-shift were chosen over cheaper forms because real clusters have sequential addresses, /24 strides and
//! one port: single-fold and Fibonacci hashes fail to build on some of those patterns.

use crate::table::Protocol;
use core::net::{IpAddr, Ipv6Addr};

const FOLD: u64 = 0x9e37_79b9_7f4a_7c15;
const FOLD_HIGH: u64 = 0xc2b2_ae3d_27d4_eb4f;
const FOLD_LOW: u64 = 0x1656_67b1_9e37_79f9;
const BUCKET: u64 = 0xd6e8_feb8_6659_fd93;
const SLOT: u64 = 0xa076_1d64_78bd_642f;

/// What the index is asked for: a frontend's address (unspecified for a NodePort), protocol and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub address: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
}

impl Key {
    /// The protocol's code in a slot.
    pub const fn protocol_code(protocol: Protocol) -> u8 {
        match protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => 1,
            Protocol::Sctp => 2,
        }
    }

    /// The key's hash under a seed; all 64 bits are used.
    pub fn hash(&self, seed: u64) -> u64 {
        let tail = (u64::from(self.port) << 32) | (u64::from(Self::protocol_code(self.protocol)) << 48);
        let word = match self.address {
            IpAddr::V4(a) => u64::from(a.to_bits()) | tail,
            IpAddr::V6(a) => {
                let (high, low) = halves(a);
                fold(high ^ seed, FOLD_HIGH) ^ fold(low ^ seed.rotate_left(32), FOLD_LOW) ^ tail
            }
        };
        fold(word ^ seed, FOLD)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "both halves are wanted")]
fn halves(address: Ipv6Addr) -> (u64, u64) {
    let bits = address.to_bits();
    ((bits >> 64) as u64, bits as u64)
}

#[expect(clippy::cast_possible_truncation, reason = "both halves of the product are wanted")]
fn fold(word: u64, odd: u64) -> u64 {
    let product = u128::from(word).wrapping_mul(u128::from(odd));
    (product as u64) ^ ((product >> 64) as u64)
}

#[expect(clippy::cast_possible_truncation, reason = "the high half of a u64 by u32 product is below the u32")]
fn scale64(hash: u64, range: u32) -> u32 {
    (u128::from(hash).wrapping_mul(u128::from(range)) >> 64) as u32
}

/// The seed with this number.
pub(crate) const fn seed(number: u8) -> u64 {
    // splitmix64, so that neighbouring numbers share no bits
    let z = FOLD.wrapping_mul((number as u64).wrapping_add(1));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The bucket of a hash, below `buckets`.
pub(crate) fn bucket(hash: u64, buckets: u32) -> u32 {
    scale64(hash.wrapping_mul(BUCKET), buckets)
}

/// The slot of a hash under its bucket's pilot, below `slots`. The pilot changes the multiplier: a pilot that is added or
/// XORed into the hash leaves keys of one bucket correlated.
pub(crate) fn slot(hash: u64, pilot: u8, slots: u32) -> u32 {
    scale64(hash.wrapping_mul(SLOT.wrapping_add(u64::from(pilot) << 1)), slots)
}
