//! The neighbour cache: who is at which Ethernet address, for ARP and NDP alike, and the frames that wait for an answer.
//!
//! Fixed memory. An entry lives in a set of four that its address picks, so a look-up costs the same whatever is known.

use crate::ethernet::{Buffer, Mac};
use crate::time::Millis;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Sets of entries; a power of two.
const SETS: usize = 32;
/// Entries of a set.
const WAYS: usize = 4;
/// Frames that wait for an answer; the oldest gives way.
pub const QUEUE: usize = 8;
/// How long an answer is believed without asking again. RFC 4861 §10 says 30 s for `REACHABLE_TIME`.
const REACHABLE: u32 = 30_000;
/// How long an old answer is still used while it is asked for again.
const STALE: u32 = 10_000;
/// Time between two questions (RFC 4861 §10, `RETRANS_TIMER`).
const RETRY: u32 = 1_000;
/// Questions before an address counts as unreachable (RFC 4861 §10, `MAX_MULTICAST_SOLICIT`).
const TRIES: u8 = 3;

/// What is known about an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)] // an empty cache is all zeros, and takes no flash
enum State {
    /// The entry is free.
    #[default]
    Free,
    /// Asked for, no answer yet.
    Asked { tries: u8 },
    /// At this Ethernet address.
    Known { mac: Mac, asked_again: bool },
}

/// One address.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// IPv4 addresses in their mapped form.
    address: u128,
    state: State,
    /// `Asked`: the next question. `Known`: from then on it is stale.
    due: Millis,
}

/// What a look-up says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Resolution {
    /// Send there.
    At(Mac),
    /// Send there, and ask again: the answer is old.
    Refresh(Mac),
    /// Ask; what is to be sent waits.
    Ask,
    /// Was asked for already; what is to be sent waits.
    Wait,
}

/// The cache.
#[derive(Debug)]
pub struct Neighbours {
    sets: [[Entry; WAYS]; SETS],
    queue: [Waiting; QUEUE],
    /// Counts frames put into the queue, so that the oldest can be told.
    arrivals: u32,
}

#[derive(Debug)]
struct Waiting {
    /// [`NOBODY`]: free.
    next_hop: IpAddr,
    arrival: u32,
    frame: Buffer,
}

const FREE: Entry = Entry { address: 0, state: State::Free, due: Millis(0) };
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const EMPTY: Waiting = Waiting { next_hop: NOBODY, arrival: 0, frame: Buffer::new() };

impl Default for Neighbours {
    fn default() -> Self {
        Self::new()
    }
}

impl Neighbours {
    /// Nobody is known.
    pub const fn new() -> Self {
        Self { sets: [[FREE; WAYS]; SETS], queue: [EMPTY; QUEUE], arrivals: 0 }
    }

    /// Where the next hop is. Counts as a question asked where the answer says to ask.
    pub fn look_up(&mut self, now: Millis, next_hop: IpAddr) -> Resolution {
        let key = key(next_hop);
        let set = self.set(key);
        if let Some(entry) = set.iter_mut().find(|e| e.address == key && e.state != State::Free) {
            match &mut entry.state {
                State::Known { mac, .. } if now < entry.due => return Resolution::At(*mac),
                State::Known { mac, asked_again } if now < entry.due.plus(STALE) => {
                    let mac = *mac;
                    return if core::mem::replace(asked_again, true) {
                        Resolution::At(mac)
                    } else {
                        Resolution::Refresh(mac)
                    };
                }
                State::Asked { .. } => return Resolution::Wait,
                _ => {}
            }
            entry.state = State::Asked { tries: 1 };
            entry.due = now.plus(RETRY);
            return Resolution::Ask;
        }
        insert(set, Entry { address: key, state: State::Asked { tries: 1 }, due: now.plus(RETRY) });
        Resolution::Ask
    }

    /// Takes an address that a neighbour told of itself. `new`: it spoke to us, so it is remembered even if we did not ask.
    pub fn learn(&mut self, now: Millis, address: IpAddr, mac: Mac, new: bool) {
        if mac.is_group() {
            return; // RFC 1812 §3.3.2: no host has a group address
        }
        let key = key(address);
        let set = self.set(key);
        let entry = Entry { address: key, state: State::Known { mac, asked_again: false }, due: now.plus(REACHABLE) };
        match set.iter_mut().find(|e| e.address == key && e.state != State::Free) {
            Some(old) => *old = entry,
            None if new => insert(set, entry),
            None => {}
        }
    }

    /// Lets a frame wait for its next hop's answer; false if an older frame had to give way.
    pub fn wait(&mut self, next_hop: IpAddr, frame: &Buffer) -> bool {
        self.arrivals = self.arrivals.wrapping_add(1);
        let now = self.arrivals;
        let age = |w: &Waiting| if w.next_hop == NOBODY { u32::MAX } else { now.wrapping_sub(w.arrival) };
        let Some(slot) = self.queue.iter_mut().max_by_key(|w| age(w)) else { return false };
        let was_free = slot.next_hop == NOBODY;
        slot.next_hop = next_hop;
        slot.arrival = now;
        slot.frame.copy_from(frame);
        was_free
    }

    /// The oldest frame that waits for this address, with the Ethernet address that is now known. To be called until
    /// `None`: its place is free again once the next is asked for.
    pub fn ready(&mut self, address: IpAddr) -> Option<&mut Buffer> {
        let now = self.arrivals;
        let waiting = self.queue.iter_mut().filter(|w| w.next_hop == address);
        let oldest = waiting.max_by_key(|w| now.wrapping_sub(w.arrival))?;
        oldest.next_hop = NOBODY;
        Some(&mut oldest.frame)
    }

    /// The address to ask for again now, if there is one; to be called until `None`. Counts in `lost` the frames that waited
    /// for an address that does not answer.
    pub fn retry(&mut self, now: Millis, lost: &mut u32) -> Option<IpAddr> {
        let queue = &mut self.queue;
        for entry in self.sets.iter_mut().flatten() {
            let State::Asked { tries } = &mut entry.state else { continue };
            if now < entry.due {
                continue;
            }
            if *tries < TRIES {
                *tries = tries.saturating_add(1);
                entry.due = now.plus(RETRY);
                return Some(address(entry.address));
            }
            entry.state = State::Free;
            let gone = address(entry.address);
            for waiting in queue.iter_mut().filter(|w| w.next_hop == gone) {
                waiting.next_hop = NOBODY;
                *lost = lost.saturating_add(1);
            }
        }
        None
    }

    fn set(&mut self, key: u128) -> &mut [Entry] {
        let [a, b, .., c, d] = key.to_le_bytes();
        let index = usize::from(a ^ b ^ c ^ d) & SETS.saturating_sub(1);
        self.sets.get_mut(index).map_or(&mut [], |set| set.as_mut_slice())
    }
}

/// Puts an entry in the place of a free one, else of the one that is oldest.
fn insert(set: &mut [Entry], entry: Entry) {
    let age = |e: &Entry| if e.state == State::Free { Millis(0) } else { e.due };
    if let Some(place) = set.iter_mut().min_by_key(|e| age(e)) {
        *place = entry;
    }
}

fn key(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => a.to_ipv6_mapped().to_bits(),
        IpAddr::V6(a) => a.to_bits(),
    }
}

fn address(key: u128) -> IpAddr {
    let v6 = Ipv6Addr::from_bits(key);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn host(n: u32) -> IpAddr {
        IpAddr::V4((0xc000_0200 + n).into())
    }

    #[test]
    fn an_answer_is_believed_then_refreshed_then_forgotten() {
        let mut n = Neighbours::new();
        let at = |ms| Millis(ms);
        assert_eq!(n.look_up(at(0), host(9)), Resolution::Ask);
        assert_eq!(n.look_up(at(1), host(9)), Resolution::Wait);
        n.learn(at(10), host(9), MAC, false);
        assert_eq!(n.look_up(at(30_009), host(9)), Resolution::At(MAC));
        assert_eq!(n.look_up(at(30_010), host(9)), Resolution::Refresh(MAC));
        assert_eq!(n.look_up(at(30_011), host(9)), Resolution::At(MAC));
        assert_eq!(n.look_up(at(40_010), host(9)), Resolution::Ask);
    }

    #[test]
    fn nobody_is_remembered_who_was_not_asked_and_did_not_ask() {
        let mut n = Neighbours::new();
        n.learn(Millis(0), host(9), MAC, false);
        assert_eq!(n.look_up(Millis(1), host(9)), Resolution::Ask);
        n.learn(Millis(0), host(8), MAC, true);
        assert_eq!(n.look_up(Millis(1), host(8)), Resolution::At(MAC));
        n.learn(Millis(0), host(7), Mac::BROADCAST, true);
        assert_eq!(n.look_up(Millis(1), host(7)), Resolution::Ask);
    }

    #[test]
    fn questions_are_repeated_then_given_up_with_what_waited() {
        let mut n = Neighbours::new();
        assert_eq!(n.look_up(Millis(0), host(9)), Resolution::Ask);
        assert!(n.wait(host(9), &Buffer::new()));
        let mut lost = 0;
        assert_eq!(n.retry(Millis(999), &mut lost), None);
        for s in [1000, 2000] {
            assert_eq!(n.retry(Millis(s), &mut lost), Some(host(9)));
            assert_eq!(n.retry(Millis(s), &mut lost), None);
        }
        assert_eq!(n.retry(Millis(3000), &mut lost), None);
        assert_eq!(lost, 1);
        assert!(n.ready(host(9)).is_none());
        assert_eq!(n.look_up(Millis(3001), host(9)), Resolution::Ask);
    }

    #[test]
    fn frames_leave_in_order_and_the_oldest_gives_way() {
        let mut n = Neighbours::new();
        let frame = |len| {
            let mut frame = Buffer::new();
            frame.set_len(len);
            frame
        };
        for len in 0..QUEUE {
            assert!(n.wait(host(9), &frame(len)));
        }
        assert!(!n.wait(host(9), &frame(QUEUE)));
        let lengths: std::vec::Vec<_> =
            std::iter::from_fn(|| n.ready(host(9)).map(|frame| frame.frame().len())).collect();
        assert_eq!(lengths, (1..=QUEUE).collect::<std::vec::Vec<_>>());
    }

    #[test]
    fn a_full_set_replaces_its_oldest() {
        let mut n = Neighbours::new();
        for i in 0..1000 {
            n.learn(Millis(i.into()), host(i), MAC, true);
        }
        assert_eq!(n.look_up(Millis(1000), host(999)), Resolution::At(MAC));
        assert_eq!(n.look_up(Millis(1000), host(0)), Resolution::Ask);
    }
}
