//! Numbers that are hard to guess from outside, on a board without a generator of its own.

/// SplitMix64 (Steele, Lea, Flood 2014), stirred with the arrival times of frames. Good enough to spread connections and to
/// key hash tables; a board with a true generator should feed [`Random::stir`] from it.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From whatever differs between boards and starts.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Mixes something in.
    pub const fn stir(&mut self, word: u32) {
        self.0 = self.0.rotate_left(17) ^ word as u64;
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next 32 bits.
    #[inline(never)] // a closure around it exists twice where it is lent as `dyn FnMut`
    #[expect(clippy::cast_possible_truncation, reason = "half of the bits are wanted")]
    pub const fn next_word(&mut self) -> u32 {
        (self.next() >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317); // Java's SplittableRandom, as in Rosetta Code's task
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }
}
