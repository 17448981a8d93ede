//! The IPv4 ClusterIPs, ascending, in about 1.6 bytes each; whether one is among them is a search over blocks and a walk
//! through one.
//!
//! A block has 64 bytes, the last one as many as it needs: an address (network order), a byte k, and a bit string, filled
//! from each byte's lowest bit. A gap to the next address, less 1, is Rice-coded: its quotient by 2^k as so many ones and
//! a zero, then its k low bits. 24 ones and a zero are followed by 32 bits that are the gap less 1. Ones fill the block.

use core::net::Ipv4Addr;

/// Bytes of a block that is not the last.
pub(crate) const BLOCK: usize = 64;
/// Bytes before a block's bit string.
pub(crate) const HEAD: usize = 5;
/// Ones before a zero that say that the whole gap follows.
pub(crate) const ESCAPE: u32 = 24;
/// Largest k.
pub(crate) const MAX_K: u32 = 31;

/// The list, borrowed from a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClusterIps<'a> {
    section: &'a [u8],
    /// The last address: most packets that are for no service are for addresses behind it or before the first.
    last: u32,
}

impl<'a> ClusterIps<'a> {
    pub fn new(section: &'a [u8]) -> Self {
        let last_block = section.len().saturating_sub(1) / BLOCK;
        let mut block = Self { section, last: 0 }.block(last_block);
        let last = core::iter::from_fn(|| block.as_mut()?.take()).last();
        Self { section, last: last.unwrap_or(0) }
    }

    /// Whether the section is as the compiler writes it.
    pub fn is_valid(&self) -> bool {
        let mut last = None;
        self.section.chunks(BLOCK).all(|bytes| {
            let Some(mut block) = Block::open(bytes) else { return false };
            let ascends = last.is_none_or(|l| l < block.next);
            while let Some(address) = block.take() {
                last = Some(address);
            }
            ascends && block.ended_well()
        })
    }

    pub fn contains(&self, address: u32) -> bool {
        if address > self.last {
            return false;
        }
        let (mut low, mut high) = (0, self.section.len().div_ceil(BLOCK));
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.first_of(middle).is_some_and(|first| first <= address) {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        low.checked_sub(1).and_then(|b| self.block(b)).is_some_and(|block| block.contains(address))
    }

    pub fn iter(&self) -> impl Iterator<Item = Ipv4Addr> + use<'a> {
        let mut chunks = self.section.chunks(BLOCK);
        let mut block: Option<Block> = None;
        core::iter::from_fn(move || {
            loop {
                if let Some(next) = block.as_mut().and_then(Block::take) {
                    return Some(Ipv4Addr::from_bits(next));
                }
                block = Block::open(chunks.next()?);
            }
        })
    }

    fn block(&self, number: usize) -> Option<Block> {
        Block::open(self.section.chunks(BLOCK).nth(number)?)
    }

    fn first_of(&self, number: usize) -> Option<u32> {
        let start = number.checked_mul(BLOCK)?;
        self.section.get(start..)?.first_chunk().map(|a| u32::from_be_bytes(*a))
    }
}

/// A block that is read from its front.
struct Block {
    /// Its bytes with ones behind them, so that every bit of it can be read with the 57 that follow.
    bytes: [u8; BLOCK + 8],
    k: u32,
    /// As many ones.
    low_bits: u64,
    /// The next bit, and where the block ends.
    at: u32,
    end: u32,
    next: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// `next` is an address.
    Address,
    End,
    Malformed,
}

impl Block {
    /// `None` where the head is not all there.
    fn open(block: &[u8]) -> Option<Self> {
        let mut bytes = [0xff; BLOCK + 8];
        bytes.get_mut(..block.len())?.copy_from_slice(block);
        let next = u32::from_be_bytes(*block.first_chunk()?);
        let k = u32::from(*block.get(4)?);
        let end = crate::bytes::count(block.len()).saturating_mul(8);
        let at = crate::bytes::count(HEAD).saturating_mul(8);
        (k <= MAX_K).then(|| Self { bytes, k, low_bits: !(u64::MAX << k), at, end, next, state: State::Address })
    }

    /// The next address.
    fn take(&mut self) -> Option<u32> {
        if self.state != State::Address {
            return None;
        }
        let address = self.next;
        self.state = match self.gap() {
            None => State::End,
            Some(gap) => match u32::try_from(u64::from(address).wrapping_add(gap).wrapping_add(1)) {
                Ok(next) => {
                    self.next = next;
                    State::Address
                }
                Err(_) => State::Malformed,
            },
        };
        Some(address)
    }

    /// Whether the address is one of those from here on.
    fn contains(mut self, address: u32) -> bool {
        let (address, mut next) = (u64::from(address), u64::from(self.next));
        while next < address {
            let run = self.run(address.wrapping_sub(next));
            next = next.wrapping_add(run);
            if run == 0 {
                let Some(gap) = self.gap() else { return false };
                next = next.wrapping_add(gap).wrapping_add(1);
            }
        }
        next == address
    }

    /// Moves behind up to so many neighbours, each a bit where k is 0; returns how many there were, of those that can be seen
    /// at once. Clusters give out addresses one after the other: a block then has hundreds.
    #[inline]
    fn run(&mut self, most: u64) -> u64 {
        if self.k != 0 {
            return 0;
        }
        // behind the block are ones, and zeros from bit 57 on at the earliest
        let run = self.window().map_or(0, |window| u64::from(window.trailing_zeros().min(57)).min(most));
        #[expect(clippy::cast_possible_truncation, reason = "at most 57")]
        let bits = run as u32;
        self.at = self.at.wrapping_add(bits);
        run
    }

    /// The bits from the next one on, 57 of them at least.
    #[inline]
    fn window(&self) -> Option<u64> {
        let start = crate::bytes::index(self.at / 8);
        let window = self.bytes.get(start..start.wrapping_add(8))?.first_chunk()?;
        Some(u64::from_le_bytes(*window) >> (self.at % 8))
    }

    /// Reads a gap less 1, which is below 2^36. `None` where there is none.
    #[inline]
    fn gap(&mut self) -> Option<u64> {
        let window = self.window()?;
        // more ones than an escape has are one more: with a bit that is always there, counting is one instruction
        let ones = (!window | 2 << ESCAPE).trailing_zeros();
        if ones >= ESCAPE {
            return self.escaped_gap(window, ones);
        }
        self.skip(ones.wrapping_add(self.k))?;
        Some(u64::from(ones) << self.k | window >> 1 >> ones & self.low_bits)
    }

    #[inline(never)]
    fn escaped_gap(&mut self, window: u64, ones: u32) -> Option<u64> {
        if ones > ESCAPE {
            return None;
        }
        self.skip(ESCAPE.wrapping_add(32))?;
        Some(window >> 1 >> ESCAPE & u64::from(u32::MAX))
    }

    /// Moves behind a zero and so many other bits; `None` where the block ends before.
    #[inline]
    fn skip(&mut self, others: u32) -> Option<()> {
        let after = self.at.wrapping_add(others).wrapping_add(1);
        (after <= self.end).then(|| self.at = after)
    }

    /// Whether what is behind the last gap are ones, fewer than a byte of them in a block that need not be full.
    fn ended_well(&self) -> bool {
        let rest = (self.at..self.end).all(|bit| {
            let byte = self.bytes.get(crate::bytes::index(bit / 8)).copied().unwrap_or(0);
            byte >> (bit % 8) & 1 == 1
        });
        let is_full = self.end == crate::bytes::count(BLOCK).saturating_mul(8);
        self.state == State::End && rest && (is_full || self.end.saturating_sub(self.at) < 8)
    }
}
