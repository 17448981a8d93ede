//! What two programs have in common, found by comparing bytes: a change of one service costs little more than a pass over
//! memory, however many services stay.

use super::layout::Header;
use super::map::{record_len, start_before};
use super::record::Record;
use super::{Program, layout_of};
use crate::bytes::{count, index};
use core::net::IpAddr;
use core::ops::Range;

/// Bytes that are compared, or searched, at once.
const BLOCK: usize = 64;

impl<'a> Program<'a> {
    /// The parts of this program's and another one's record sections outside of which both have the same records, as
    /// [`Record::is_same`] says, in the same order: two ranges of offsets, the same if all is. Time is that of comparing the
    /// sections' bytes.
    pub fn differing_records(&self, other: &Program<'_>) -> [Range<u32>; 2] {
        let (a, b) = (self.records, other.records);
        if self.form != other.form {
            return [0..count(a.len()), 0..count(b.len())];
        }
        let front = count(common_start(a, b));
        let mut start = start_before(self.map(), front);
        while let Some(next) = record_len(a, self.form, start).map(|len| start.saturating_add(len))
            && next <= front
        {
            start = next;
        }
        let [rest_a, rest_b] = [a, b].map(|records| records.get(index(start)..).unwrap_or(&[]));
        let same = count(common_end(rest_a, rest_b));
        // The same bytes are the same records from where one starts in both.
        let mut ends = [
            self.starts_from(count(a.len()).saturating_sub(same)),
            other.starts_from(count(b.len()).saturating_sub(same)),
        ];
        loop {
            let left = [count(a.len()).saturating_sub(ends[0]), count(b.len()).saturating_sub(ends[1])];
            let [in_a, in_b] = &mut ends;
            match left[0].cmp(&left[1]) {
                core::cmp::Ordering::Equal => return ends.map(|end| start..end),
                core::cmp::Ordering::Greater => *in_a = self.starts_from(in_a.saturating_add(1)),
                core::cmp::Ordering::Less => *in_b = other.starts_from(in_b.saturating_add(1)),
            }
        }
    }

    /// The records that start in a part of their section, which starts with one.
    pub fn records_in(&self, part: Range<u32>) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let program = *self;
        let mut at = part.start;
        core::iter::from_fn(move || {
            let offset = at;
            at = at.saturating_add(record_len(program.records, program.form, offset)?);
            (offset < part.end).then(|| Record::new(program.records, offset, program.form))
        })
    }

    /// Whether another program has the same frontends, each with its record at the same offset, and the same ClusterIPs.
    pub fn has_index_of(&self, other: &Program<'_>) -> bool {
        let index = |program: &Program<'_>| {
            let header = Header::read(program.bytes).ok()?;
            let layout = layout_of(program.bytes, &header).ok()?;
            let form = (header.form_v4(), header.form_v6());
            Some((header.v4, header.v6, form, layout.v4.slots..layout.map))
        };
        let (Some((v4, v6, form, part)), Some(others)) = (index(self), index(other)) else { return false };
        (v4, v6, form) == (others.0, others.1, others.2) && self.bytes.get(part) == other.bytes.get(others.3)
    }

    /// Whether another program has the same names, or none as well.
    pub fn has_names_of(&self, other: &Program<'_>) -> bool {
        self.names == other.names
    }

    /// The records that have an endpoint with this address, some of them perhaps more than once. Time is that of a search
    /// in memory.
    pub fn records_with_endpoint(&self, address: IpAddr) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let program = *self;
        let stored = Stored::of(address);
        let has = move |record: &Record<'a>| record.endpoints().iter().any(|e| e.address.ip() == address);
        let blocks = (0..program.records.len()).step_by(BLOCK);
        blocks
            .filter(move |&at| stored.may_start_in(program.records.get(at..).unwrap_or(&[])))
            .flat_map(move |at| {
                let end = at.saturating_add(BLOCK);
                program.records_in(start_before(program.map(), count(at))..count(end))
            })
            .filter(has)
    }

    /// The first record that starts at this offset or behind it; where there is none, the section's end.
    fn starts_from(&self, offset: u32) -> u32 {
        let mut at = start_before(self.map(), offset);
        while at < offset {
            match record_len(self.records, self.form, at) {
                Some(len) => at = at.saturating_add(len),
                None => return count(self.records.len()),
            }
        }
        at
    }

    fn map(&self) -> &'a [u8] {
        let layout = Header::read(self.bytes).and_then(|header| layout_of(self.bytes, &header));
        layout.ok().and_then(|layout| self.bytes.get(layout.map..layout.records)).unwrap_or(&[])
    }
}

/// The last bytes of an address: a record stores them, however it stores the others.
#[derive(Clone, Copy)]
struct Stored([u8; 3]);

impl Stored {
    fn of(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(a) => last_three(a.octets()),
            IpAddr::V6(a) => last_three(a.octets()),
        })
    }

    /// Whether they may start in the first block of these bytes: eight bytes at a time and without branches.
    fn may_start_in(self, bytes: &[u8]) -> bool {
        let words = |from: usize| bytes.get(from..).and_then(|b: &[u8]| b.first_chunk::<BLOCK>());
        let (Some(a), Some(b), Some(c)) = (words(0), words(1), words(2)) else {
            return bytes.windows(3).any(|w| w == self.0);
        };
        let [first, second, third] = self.0.map(|byte| u64::from(byte).wrapping_mul(ONES));
        let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0).zip(c.as_chunks::<8>().0);
        let hits = words.fold(0, |hits, ((a, b), c)| {
            let [a, b, c] = [a, b, c].map(|word| u64::from_le_bytes(*word));
            hits | zero_bytes(a ^ first | b ^ second | c ^ third)
        });
        hits != 0
    }
}

/// A one in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;

/// Not 0 if a byte of the word is 0.
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & (ONES << 7)
}

fn last_three<const N: usize>(octets: [u8; N]) -> [u8; 3] {
    octets.last_chunk().copied().unwrap_or_default()
}

/// How many bytes both begin with.
fn common_start(a: &[u8], b: &[u8]) -> usize {
    let blocks = a.as_chunks::<BLOCK>().0.iter().zip(b.as_chunks::<BLOCK>().0);
    let whole = blocks.take_while(|(a, b)| a == b).count().saturating_mul(BLOCK);
    let tail = a.iter().skip(whole).zip(b.iter().skip(whole)).take_while(|(a, b)| a == b).count();
    whole.saturating_add(tail)
}

/// How many bytes both end with.
fn common_end(a: &[u8], b: &[u8]) -> usize {
    let blocks = a.as_rchunks::<BLOCK>().1.iter().rev().zip(b.as_rchunks::<BLOCK>().1.iter().rev());
    let whole = blocks.take_while(|(a, b)| a == b).count().saturating_mul(BLOCK);
    let tail = a.iter().rev().skip(whole).zip(b.iter().rev().skip(whole)).take_while(|(a, b)| a == b).count();
    whole.saturating_add(tail)
}
