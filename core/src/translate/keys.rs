//! The keyed hash of everything that is looked up by what a stranger sends.

use super::wire::address::Address;
use super::wire::transport::Ports;
use crate::table::Protocol;

/// Keys of a multilinear hash, h = (k + Σ kᵢ·wᵢ mod 2^64) / 2^32 over 32-bit words: strongly universal (Lemire and Kaser,
/// "Strongly universal string hashing is fast", 2014, theorem 3.1). For keys that an attacker does not know, two chosen
/// tuples meet with probability 2^-32, so the flow table's buckets cannot be aimed at. Two multiply-adds a word on a Cortex-M.
#[derive(Clone, Debug)]
pub(crate) struct HashKeys {
    start: [u64; 3],
    words: [u64; 9],
}

impl HashKeys {
    /// Draws the keys from a secret that is random for each boot.
    pub fn new(secret: [u64; 2]) -> Self {
        let mut state = secret[0];
        let mut next = || {
            // splitmix64, keyed twice: the finaliser is a bijection, so all 128 bits count
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(mix(state) ^ secret[1])
        };
        Self { start: core::array::from_fn(|_| next()), words: core::array::from_fn(|_| next()) }
    }

    /// The hash of one direction's tuple.
    #[inline]
    pub fn tuple<A: Address>(&self, source: A, destination: A, ports: Ports, protocol: Protocol) -> u32 {
        let [tcp, udp, sctp] = self.start;
        let start = match protocol {
            Protocol::Tcp => tcp,
            Protocol::Udp => udp,
            Protocol::Sctp => sctp,
        };
        high(start.wrapping_add(A::products(source, destination, ports.0, &self.words)))
    }

    /// The hash of other keys: two addresses and a number.
    pub fn other<A: Address>(&self, a: A, b: A, number: u32) -> u32 {
        high(A::products(a, b, number, &self.words))
    }
}

const fn high(sum: u64) -> u32 {
    // a bijection: what follows from the theorem stays, and rows of ports do not become rows of buckets
    let h = (sum >> 32) as u32;
    (h ^ (h >> 15)).wrapping_mul(0x2c1b_3c6d)
}

const fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
