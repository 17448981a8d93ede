//! The memory that a compilation works in, at the end of what the caller lends for the program.

use super::entry::{EntryV4, EntryV6};
use super::index;
use super::items::Item;
use crate::bytes::Word;
use crate::table::ServiceTable;

/// How many there are of what needs room.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sizes {
    pub services: usize,
    /// Endpoints of the service that has most.
    pub endpoints: usize,
    /// Frontends of each family.
    pub v4: usize,
    pub v6: usize,
}

impl Sizes {
    /// Of all that is in the table.
    pub fn most(table: &ServiceTable<'_>) -> Self {
        let endpoints = |s: &crate::Service| crate::bytes::index(s.endpoints.len).min(table.endpoints.len());
        let v6 = table.frontends.iter().filter(|f| f.address.is_ipv6()).count();
        Self {
            services: table.services.len(),
            endpoints: table.services.iter().map(endpoints).max().unwrap_or(0),
            v4: table.frontends.len().saturating_sub(v6),
            v6,
        }
    }

    fn shards(&self) -> usize {
        index::shards(self.v4.max(self.v6))
    }

    /// Bytes of the memory.
    pub fn len(&self) -> usize {
        let words = self.services.saturating_add(self.shards());
        let entries = self.v4.saturating_mul(10).saturating_add(self.v6.saturating_mul(22));
        let items = self.endpoints.saturating_mul(size_of::<Item>());
        words.saturating_mul(4).saturating_add(entries.saturating_mul(2)).saturating_add(items)
    }
}

/// The memory, in parts.
pub(crate) struct Work<'s> {
    /// The services in the order of their records.
    pub order: &'s mut [Word],
    /// Room for one service's endpoints.
    pub endpoints: &'s mut [Item],
    /// Where the shards of an index end.
    pub shard_ends: &'s mut [Word],
    pub v4: Family<'s, EntryV4>,
    pub v6: Family<'s, EntryV6>,
}

/// The frontends of one family, and room for as many.
pub(crate) struct Family<'s, E> {
    pub entries: &'s mut [E],
    pub spare: &'s mut [E],
}

impl<'s> Work<'s> {
    /// Splits memory of [`Sizes::len`] bytes.
    pub fn new(sizes: &Sizes, memory: &'s mut [u8]) -> Option<Self> {
        let (order, rest) = split(memory, sizes.services)?;
        let (endpoints, rest) = split(rest, sizes.endpoints)?;
        let (shard_ends, rest) = split(rest, sizes.shards())?;
        let (entries, rest) = split(rest, sizes.v4)?;
        let (spare, rest) = split(rest, sizes.v4)?;
        let v4 = Family { entries, spare };
        let (entries, rest) = split(rest, sizes.v6)?;
        let (spare, _) = split(rest, sizes.v6)?;
        Some(Self { order, endpoints, shard_ends, v4, v6: Family { entries, spare } })
    }
}

fn split<const N: usize>(memory: &mut [u8], len: usize) -> Option<(&mut [[u8; N]], &mut [u8])> {
    let (head, tail) = memory.split_at_mut_checked(len.checked_mul(N)?)?;
    Some((head.as_chunks_mut().0, tail))
}
