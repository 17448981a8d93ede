//! Writes the ClusterIPs; `program/cluster_ips.rs` describes and reads those of IPv4.

use crate::bytes::{Word, count, index};
use crate::program::cluster_ips::{BLOCK, ESCAPE, HEAD, MAX_K};
use core::net::Ipv4Addr;

/// Gaps that decide about a block's k.
const SAMPLE: usize = 32;

/// Upper bound of the section of this many addresses, in bytes: with gaps of 57 bits a block has eight addresses.
pub(crate) const fn max_len(addresses: usize) -> usize {
    addresses.saturating_mul(9).saturating_add(BLOCK)
}

/// Sorts addresses, given in any order in network order, and writes each once. `spare` is memory for as many. Returns the
/// section's length; `None` where the room is short.
pub(crate) fn write_v4(addresses: &mut [Word], spare: &mut [Word], out: &mut [u8]) -> Option<usize> {
    let mut rest = distinct(sort_v4(addresses, spare)?);
    let mut len = 0_usize;
    while !rest.is_empty() {
        let block = out.get_mut(len..)?;
        let block_len = block.len().min(BLOCK);
        let (taken, used) = write_block(rest, block.get_mut(..block_len)?)?;
        rest = rest.get(taken..)?;
        len = len.checked_add(if rest.is_empty() { used } else { BLOCK })?;
    }
    Some(len)
}

/// Sorts by counting, one byte after the other from the last one on. Returns the one of the two that has the result.
fn sort_v4<'s>(addresses: &'s mut [Word], spare: &'s mut [Word]) -> Option<&'s mut [Word]> {
    let (mut from, mut to) = (addresses, spare);
    for byte in (0..size_of::<Word>()).rev() {
        let digit = |address: &Word| address.get(byte).copied().map(usize::from);
        let mut places = [0_u32; 256];
        for address in from.iter() {
            let number = places.get_mut(digit(address)?)?;
            *number = number.wrapping_add(1);
        }
        if places.contains(&count(from.len())) {
            continue; // all have the same: the first bytes, mostly
        }
        let mut sum = 0_u32;
        for place in &mut places {
            let number = *place;
            *place = sum;
            sum = sum.wrapping_add(number);
        }
        for address in from.iter() {
            let place = places.get_mut(digit(address)?)?;
            *to.get_mut(index(*place))? = *address;
            *place = place.wrapping_add(1);
        }
        (from, to) = (to, from);
    }
    Some(from)
}

/// Sorts IPv6 addresses and writes each once.
pub(crate) fn write_v6(addresses: &mut [[u8; 16]], out: &mut [u8]) -> Option<usize> {
    addresses.sort_unstable();
    let bytes = distinct(addresses).as_flattened();
    out.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(bytes.len())
}

/// Moves the first of each run of equal items to the front.
fn distinct<T: Copy + PartialEq>(items: &mut [T]) -> &[T] {
    let mut kept = 0_usize;
    for i in 0..items.len() {
        let Some(&item) = items.get(i) else { break };
        let last = kept.checked_sub(1).and_then(|l| items.get(l)).copied();
        if last != Some(item) {
            if let Some(place) = items.get_mut(kept) {
                *place = item;
            }
            kept = kept.saturating_add(1);
        }
    }
    items.get(..kept).unwrap_or(&[])
}

/// Fills a block from the front of the addresses. Returns how many it holds, and how many of its bytes say so.
fn write_block(addresses: &[Word], block: &mut [u8]) -> Option<(usize, usize)> {
    let first = addresses.first()?;
    let sample = addresses.get(addresses.len().saturating_sub(1).min(SAMPLE))?;
    let gaps = count(addresses.len().saturating_sub(1).min(SAMPLE));
    let mean = number(*sample).saturating_sub(number(*first)).checked_div(gaps).unwrap_or(0);
    let k = mean.checked_ilog2().unwrap_or(0).min(MAX_K);
    let mut bits = Bits { bytes: [0xff; BLOCK + 8], at: HEAD.checked_mul(8)?, end: block.len().checked_mul(8)? };
    *bits.bytes.first_chunk_mut()? = *first;
    *bits.bytes.get_mut(4)? = u8::try_from(k).ok()?;
    let mut last = number(*first);
    let mut taken = 1_usize;
    for &address in addresses.get(1..)? {
        let address = number(address);
        let gap = address.checked_sub(last)?.checked_sub(1)?;
        let quotient = gap >> k;
        let put = if quotient < ESCAPE { bits.put(quotient, gap, k) } else { bits.put(ESCAPE, gap, 32) };
        if put.is_none() {
            break;
        }
        last = address;
        taken = taken.checked_add(1)?;
    }
    block.copy_from_slice(bits.bytes.get(..block.len())?);
    Some((taken, bits.at.div_ceil(8)))
}

fn number(address: Word) -> u32 {
    Ipv4Addr::from(address).to_bits()
}

/// A block that is filled from its front; ones are behind what was put.
struct Bits {
    /// With room behind the block, so that any bit of it is the first of 57 in eight bytes.
    bytes: [u8; BLOCK + 8],
    at: usize,
    end: usize,
}

impl Bits {
    /// Puts so many ones, a zero and the low bits of a value, 57 bits at most; `None` where they do not fit.
    fn put(&mut self, ones: u32, value: u32, bits: u32) -> Option<()> {
        let low = ones.checked_add(1)?;
        let len = low.checked_add(bits)?;
        let end = self.at.checked_add(index(len))?;
        if end > self.end {
            return None;
        }
        let window = self.bytes.get_mut(self.at / 8..)?.first_chunk_mut()?;
        let shift = count(self.at % 8);
        let code = !(u64::MAX << ones) | (u64::from(value) & !(u64::MAX << bits)) << low;
        let others = !(!(u64::MAX << len) << shift);
        *window = (u64::from_le_bytes(*window) & others | code << shift).to_le_bytes();
        self.at = end;
        Some(())
    }
}
