//! The flow table: entries in lent memory, found from both directions by one hash each.
//!
//! The index is an array of buckets of four links. A link is an entry's number, the direction and eight bits of the hash,
//! so that a probe rarely touches a wrong entry. A key lies in one of two buckets: at most eight links are ever looked at,
//! whatever the keys. Three buckets for four flows (a load of two thirds with both directions) cost 12 bytes a flow.

use super::flow::{Direction, Flow, Tuple};
use super::keys::HashKeys;
use super::state::State;
use super::time::Instant;
use super::wire::address::Address;
use crate::bytes::{count, index};
use crate::table::Protocol;

/// Memory of the flow index: four links, 16 bytes. [`buckets_for`] says how many a number of flows needs.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(16))]
pub struct Bucket([u32; 4]);

impl Bucket {
    /// A bucket to fill arrays with: zeros, which a linker leaves out of an image.
    pub const EMPTY: Self = Self([0; 4]);

    /// A bucket without links.
    const NO_LINKS: Self = Self([NO_LINK; 4]);

    fn room(&self) -> usize {
        self.0.iter().filter(|&&link| is_empty(link)).count()
    }

    /// Writes a link where there is room for one; whether there was.
    fn put(&mut self, link: u32) -> bool {
        let slot = self.0.iter_mut().find(|l| is_empty(**l));
        slot.is_some_and(|slot| {
            *slot = link;
            true
        })
    }
}

/// Buckets for this many flows: three quarters of them, so that both directions fill two thirds of the links.
pub const fn buckets_for(flows: usize) -> usize {
    flows.div_ceil(4).saturating_mul(3)
}

/// Where a link holds the entry's number, in 23 bits. Below are eight bits of the hash and one for the direction.
const NUMBER: u32 = 9;
/// Most flows that a link can name: all but the last number.
const MAX_FLOWS: u32 = NO_LINK >> NUMBER;
/// A link that names nothing, and so no entry either, whatever the hash that it seems to have.
const NO_LINK: u32 = u32::MAX;
/// Entries that are looked at for one to give up.
const EVICTION_PROBES: usize = 16;

/// Entries of one family.
#[derive(Debug)]
pub(crate) struct Table<'m, A> {
    flows: &'m mut [Flow<A>],
    buckets: &'m mut [Bucket],
    /// Number plus one of the first free entry.
    free: u32,
    live: u32,
    /// Where the next sweep or search for a victim goes on.
    hand: u32,
}

/// Flows that went to make room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gone {
    /// They were in use.
    pub evicted: u32,
    /// They were idle for too long.
    pub expired: u32,
}

impl<'m, A: Address> Table<'m, A> {
    /// Takes over the memory; whatever was in it is forgotten.
    pub fn new(flows: &'m mut [Flow<A>], buckets: &'m mut [Bucket]) -> Self {
        let usable = flows.len().min(index(MAX_FLOWS));
        let (flows, _) = flows.split_at_mut_checked(usable).unwrap_or_default();
        buckets.fill(Bucket::NO_LINKS);
        let mut next = count(flows.len());
        // the first entries are used first
        for flow in flows.iter_mut().rev() {
            *flow = Flow::EMPTY;
            flow.seen = Instant::from_raw(if next == count(usable) { 0 } else { next.wrapping_add(1) });
            next = next.wrapping_sub(1);
        }
        let free = u32::from(!flows.is_empty());
        Self { flows, buckets, free, live: 0, hand: 0 }
    }

    /// Flows in use.
    pub fn live(&self) -> u32 {
        self.live
    }

    /// Room for flows.
    pub fn capacity(&self) -> u32 {
        count(self.flows.len())
    }

    pub fn get(&self, number: u32) -> Option<&Flow<A>> {
        self.flows.get(index(number)).filter(|f| f.state != State::Free)
    }

    #[inline]
    pub fn get_mut(&mut self, number: u32) -> Option<&mut Flow<A>> {
        self.flows.get_mut(index(number))
    }

    /// All flows in use.
    pub fn iter(&self) -> impl Iterator<Item = &Flow<A>> {
        self.flows.iter().filter(|f| f.state != State::Free)
    }

    /// The flow that packets with this tuple belong to, and their direction.
    pub fn find(&self, hash: u32, tuple: &Tuple<A>, protocol: Protocol) -> Option<(u32, Direction)> {
        for bucket in [self.first(hash), self.second(hash)] {
            for &link in &self.buckets.get(bucket)?.0 {
                let (number, direction) = unlink(link);
                if is_tagged(link, hash)
                    && let Some(flow) = self.flows.get(index(number))
                    && flow.arriving(direction) == tuple
                    && flow.protocol == protocol
                {
                    return Some((number, direction));
                }
            }
        }
        None
    }

    /// The same with the flow itself.
    #[cold]
    pub fn find_mut(&mut self, hash: u32, tuple: &Tuple<A>, protocol: Protocol) -> Option<(&mut Flow<A>, Direction)> {
        let (number, direction) = self.find(hash, tuple, protocol)?;
        self.get_mut(number).map(|flow| (flow, direction))
    }

    /// What the first bucket of a hash promises first: the right entry for nearly all packets of known flows. Whether it
    /// is, is for the caller to see.
    #[inline(always)]
    pub fn promised_first(&mut self, hash: u32) -> Option<(&mut Flow<A>, Direction)> {
        self.promised(self.first(hash), hash)
    }

    /// What the second bucket promises first: the right one for nearly all others.
    #[inline(always)]
    pub fn promised_second(&mut self, hash: u32) -> Option<(&mut Flow<A>, Direction)> {
        self.promised(self.second(hash), hash)
    }

    #[inline(always)]
    fn promised(&mut self, bucket: usize, hash: u32) -> Option<(&mut Flow<A>, Direction)> {
        let links = &self.buckets.get(bucket)?.0;
        let (number, direction) = unlink(*links.iter().find(|&&link| is_tagged(link, hash))?);
        self.flows.get_mut(index(number)).map(|flow| (flow, direction))
    }

    #[inline]
    fn first(&self, hash: u32) -> usize {
        scale(hash, self.buckets.len())
    }

    #[inline]
    fn second(&self, hash: u32) -> usize {
        // depends on the low bits, where the first does on the high ones
        scale(hash.wrapping_mul(0x9e37_79b9).wrapping_add(0x7f4a_7c15), self.buckets.len())
    }

    /// Adds a flow that is not there in either direction; returns its number. `hashes` are those of its original and of its
    /// reply tuple; the flow is made in its place. Where there is no room, gives up older ones by
    /// [`State::eviction_rank`], after a bounded search; `None` where that finds none. `gone` counts what went.
    #[inline]
    pub fn insert(
        &mut self,
        flow: impl FnOnce() -> Flow<A>,
        hashes: [u32; 2],
        (now, keys): (Instant, &HashKeys),
        expired: impl Fn(&Flow<A>) -> bool,
        gone: &mut Gone,
    ) -> Option<u32> {
        if self.free == 0 {
            self.make_room(now, keys, &expired, gone)?;
        }
        let number = self.free.checked_sub(1)?;
        let entry = self.flows.get_mut(index(number))?;
        self.free = entry.seen.to_raw();
        *entry = flow();
        self.live = self.live.saturating_add(1);
        for (hash, direction) in hashes.into_iter().zip([Direction::Original, Direction::Reply]) {
            let link = link(hash, number, direction);
            if !self.place(hash, link) && !self.place_by_force(hash, link, now, keys, &expired, gone) {
                self.remove(number, keys);
                return None;
            }
        }
        Some(number)
    }

    /// Gives up the best of a few entries.
    #[cold]
    fn make_room(
        &mut self,
        now: Instant,
        keys: &HashKeys,
        expired: &impl Fn(&Flow<A>) -> bool,
        gone: &mut Gone,
    ) -> Option<()> {
        let start = self.hand;
        self.hand = self.next_hand(start, count(EVICTION_PROBES));
        let around: [u32; EVICTION_PROBES] = core::array::from_fn(|i| self.next_hand(start, count(i)));
        let victim = self.victim(&around, now, expired)?;
        self.give_up(victim, keys, expired, gone);
        Some(())
    }

    fn give_up(&mut self, number: u32, keys: &HashKeys, expired: &impl Fn(&Flow<A>) -> bool, gone: &mut Gone) {
        let is_over = self.get(number).is_some_and(expired);
        let counter = if is_over { &mut gone.expired } else { &mut gone.evicted };
        *counter = counter.saturating_add(1);
        self.remove(number, keys);
    }

    /// Forgets a flow.
    pub fn remove(&mut self, number: u32, keys: &HashKeys) {
        let Some(flow) = self.get(number).copied() else { return };
        for direction in [Direction::Original, Direction::Reply] {
            let hash = Self::hash_of(&flow, direction, keys);
            let link = link(hash, number, direction);
            for bucket in [self.first(hash), self.second(hash)] {
                if let Some(b) = self.buckets.get_mut(bucket) {
                    b.0.iter_mut().filter(|l| **l == link).for_each(|l| *l = NO_LINK);
                }
            }
        }
        if let Some(entry) = self.flows.get_mut(index(number)) {
            entry.state = State::Free;
            entry.seen = Instant::from_raw(self.free);
            self.free = number.saturating_add(1);
            self.live = self.live.saturating_sub(1);
        }
    }

    /// Looks at up to `budget` entries, from where the last call stopped, and removes those that `gone` names.
    /// Returns how many were removed.
    pub fn sweep(&mut self, budget: u32, keys: &HashKeys, mut gone: impl FnMut(&Flow<A>) -> bool) -> u32 {
        let mut removed: u32 = 0;
        for _ in 0..budget.min(self.capacity()) {
            let number = self.hand;
            self.hand = self.next_hand(number, 1);
            if self.get(number).is_some_and(&mut gone) {
                self.remove(number, keys);
                removed = removed.saturating_add(1);
            }
        }
        removed
    }

    fn next_hand(&self, hand: u32, step: u32) -> u32 {
        hand.wrapping_add(step).checked_rem(self.capacity()).unwrap_or(0)
    }

    fn hash_of(flow: &Flow<A>, direction: Direction, keys: &HashKeys) -> u32 {
        let tuple = flow.arriving(direction);
        keys.tuple(tuple.source, tuple.destination, tuple.ports, flow.protocol)
    }

    /// The entry to give up among some: expired ones, then by rank, then the longest idle.
    #[inline(never)] // both its callers are rare
    fn victim(&self, among: &[u32], now: Instant, expired: &impl Fn(&Flow<A>) -> bool) -> Option<u32> {
        let rated = among.iter().filter_map(|&number| {
            let flow = self.get(number)?;
            let rank = if expired(flow) { 0 } else { flow.state.eviction_rank()?.saturating_add(1) };
            Some((u64::from(rank) << 32 | u64::from(u32::MAX.wrapping_sub(now.since(flow.seen))), number))
        });
        rated.min_by_key(|&(rating, _)| rating).map(|(_, number)| number)
    }

    /// Writes a link into one of its buckets; `false` where both are full.
    fn place(&mut self, hash: u32, link: u32) -> bool {
        let first = self.first(hash);
        let room = |table: &Self, bucket| table.buckets.get(bucket).map_or(0, Bucket::room);
        // the first bucket is the cheaper one to find, until it fills up: then the emptier one, so that none is full early
        let in_first = room(self, first);
        if in_first >= 2 {
            return self.put(first, link);
        }
        let second = self.second(hash);
        self.put(if in_first >= room(self, second) { first } else { second }, link)
    }

    /// Writes a link into one of its full buckets, from which another is moved or given up; `false` where none can be.
    #[cold]
    fn place_by_force(
        &mut self,
        hash: u32,
        link: u32,
        now: Instant,
        keys: &HashKeys,
        expired: &impl Fn(&Flow<A>) -> bool,
        gone: &mut Gone,
    ) -> bool {
        let (first, second) = (self.first(hash), self.second(hash));
        for bucket in [first, second] {
            if self.displace(bucket, keys) {
                return self.put(bucket, link);
            }
        }
        // the new flow's own link, if it is there, counts as empty: that names no entry
        let other = |l| if l >> NUMBER == link >> NUMBER { NO_LINK } else { l };
        let others = [first, second].map(|bucket| self.links(bucket).map(|l| unlink(other(l)).0));
        let Some(victim) = self.victim(others.as_flattened(), now, expired) else { return false };
        self.give_up(victim, keys, expired, gone);
        self.put(first, link) || self.put(second, link)
    }

    fn links(&self, bucket: usize) -> [u32; 4] {
        self.buckets.get(bucket).map_or([0; 4], |b| b.0)
    }

    fn put(&mut self, bucket: usize, link: u32) -> bool {
        self.buckets.get_mut(bucket).is_some_and(|b| b.put(link))
    }

    /// Moves one of a full bucket's links to its other bucket, if one of them has room there.
    fn displace(&mut self, bucket: usize, keys: &HashKeys) -> bool {
        let Some(links) = self.buckets.get(bucket).map(|b| b.0) else { return false };
        for (i, link) in links.into_iter().enumerate() {
            let (number, direction) = unlink(link);
            let Some(flow) = self.get(number) else { continue };
            let hash = Self::hash_of(flow, direction, keys);
            let (first, second) = (self.first(hash), self.second(hash));
            let other = if first == bucket { second } else { first };
            if other != bucket && self.put(other, link) {
                if let Some(slot) = self.buckets.get_mut(bucket).and_then(|b| b.0.get_mut(i)) {
                    *slot = NO_LINK;
                }
                return true;
            }
        }
        false
    }
}

/// A hash scaled to a range, as [`crate::bytes::scale`] does it; below the range whatever that is.
#[inline]
const fn scale(hash: u32, range: usize) -> usize {
    ((hash as u64).wrapping_mul(range as u64) >> 32) as usize
}

#[inline]
const fn tag(hash: u32) -> u32 {
    hash & 0xff
}

#[inline]
fn link(hash: u32, number: u32, direction: Direction) -> u32 {
    let direction = u32::from(direction == Direction::Reply);
    tag(hash) | direction << 8 | number << NUMBER
}

#[inline]
const fn unlink(link: u32) -> (u32, Direction) {
    let direction = if link & 0x100 == 0 { Direction::Original } else { Direction::Reply };
    (link >> NUMBER, direction)
}

#[inline]
const fn is_empty(link: u32) -> bool {
    link >> NUMBER == NO_LINK >> NUMBER
}

/// Whether a link may be one of this hash. An empty link names no entry.
#[inline]
const fn is_tagged(link: u32, hash: u32) -> bool {
    // as bytes, which are compared where they are
    let ([a, ..], [b, ..]) = (link.to_le_bytes(), hash.to_le_bytes());
    a == b
}

#[cfg(test)]
mod tests {
    #![allow(clippy::cast_possible_truncation, reason = "small numbers")]

    use super::super::wire::address::V4;
    use super::super::wire::transport::Ports;
    use super::*;
    use std::vec;
    use std::vec::Vec;

    const FLOWS: u32 = 200;

    fn tuples(i: u32) -> [Tuple<V4>; 2] {
        let of = |source, destination, port| Tuple {
            source: V4(source),
            destination: V4(destination),
            ports: Ports::new(port, 80),
        };
        [of(i, 0x0a00_600a, (i >> 7) as u16), of(0x0900_f40a ^ i, i << 8, (i >> 3) as u16)]
    }

    /// The links of live flows lie in their buckets, once each, and nothing else does.
    fn audit(table: &Table<'_, V4>, keys: &HashKeys, live: &[(u32, u32)]) {
        let mut links: Vec<u32> = table.buckets.iter().flat_map(|b| b.0).filter(|&l| !is_empty(l)).collect();
        let mut expected = vec![];
        for &(i, number) in live {
            for (tuple, direction) in tuples(i).iter().zip([Direction::Original, Direction::Reply]) {
                let hash = keys.tuple(tuple.source, tuple.destination, tuple.ports, Protocol::Tcp);
                expected.push(link(hash, number, direction));
                assert_eq!(table.find(hash, tuple, Protocol::Tcp), Some((number, direction)), "{i}");
                let places = [table.links(table.first(hash)), table.links(table.second(hash))];
                assert!(places.as_flattened().contains(&link(hash, number, direction)));
            }
        }
        links.sort_unstable();
        expected.sort_unstable();
        assert_eq!(links, expected);
        assert_eq!((table.live() as usize, table.iter().count()), (live.len(), live.len()));
    }

    /// Flows come and go in a table that is full most of the time: no link is left behind, none is lost.
    #[test]
    fn links_are_those_of_live_flows() {
        let (mut flows, mut buckets) = (vec![Flow::EMPTY; FLOWS as usize], vec![Bucket::EMPTY; 150]);
        let keys = HashKeys::new([3, 4]);
        let mut table = Table::<V4>::new(&mut flows, &mut buckets);
        let mut live: Vec<(u32, u32)> = vec![];
        let mut random = 1_u32;
        let mut filled = 0;
        for i in 1..60_000 {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            // leans to one side for a while, then to the other
            if random % 8 < if i / 500 % 2 == 0 { 6 } else { 3 } && live.len() < FLOWS as usize {
                let [original, reply] = tuples(i);
                let hashes = [original, reply].map(|t| keys.tuple(t.source, t.destination, t.ports, Protocol::Tcp));
                // established flows are never given up
                let flow = || Flow::new(&original, &reply, Protocol::Tcp, State::Established, Instant::ZERO);
                let mut gone = Gone::default();
                if let Some(n) = table.insert(flow, hashes, (Instant::ZERO, &keys), |_| false, &mut gone) {
                    live.push((i, n));
                }
                assert_eq!(gone, Gone::default());
            } else if let Some(at) = (random >> 8).checked_rem(live.len() as u32) {
                let (_, number) = live.swap_remove(at as usize);
                table.remove(number, &keys);
            }
            filled += u32::from(live.len() == FLOWS as usize);
            if i % 97 == 0 {
                audit(&table, &keys, &live);
            }
        }
        assert!(filled > 1_000, "the table was full {filled} times");
        for (_, number) in core::mem::take(&mut live) {
            table.remove(number, &keys);
        }
        audit(&table, &keys, &[]);
    }

    #[test]
    fn what_is_empty_names_nothing() {
        assert!(is_empty(NO_LINK) && !is_empty(link(u32::MAX, MAX_FLOWS - 1, Direction::Reply)));
        assert_eq!(unlink(link(0xabcd, 77, Direction::Reply)), (77, Direction::Reply));
        assert_eq!(unlink(link(0xabcd, 0, Direction::Original)), (0, Direction::Original));
    }
}
