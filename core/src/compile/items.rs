//! The endpoints of a service in one family, by address and port, each once.

use crate::bytes::{count, index};
use crate::table::Endpoint;
use core::cmp::Reverse;
use core::net::IpAddr;

/// An endpoint or a service while it is sorted: eight bytes that it is sorted by, then its number. Of an IPv4 endpoint they are
/// address and port, and its index in the service.
pub(crate) type Item = [u8; 12];

/// Most items that are sorted by their ranks.
const FEW: usize = 16;

pub(crate) fn item(key: u64, number: u32) -> Item {
    let mut item = [0; 12];
    if let Some((first, last)) = item.split_first_chunk_mut::<8>() {
        *first = key.to_le_bytes();
        last.copy_from_slice(&number.to_le_bytes());
    }
    item
}

pub(crate) fn key(item: &Item) -> u64 {
    let [key @ .., _, _, _, _] = *item;
    u64::from_le_bytes(key)
}

pub(crate) fn number(&[.., a, b, c, d]: &Item) -> u32 {
    u32::from_le_bytes([a, b, c, d])
}

/// Address and port of an IPv4 endpoint.
pub(crate) fn place_v4(item: &Item) -> (u32, u16) {
    let [low, high, d, c, b, a, ..] = *item;
    (u32::from_le_bytes([d, c, b, a]), u16::from_le_bytes([low, high]))
}

/// Sorts items by their keys, equal ones in any order. Says whether all differ.
pub(crate) fn sort(items: &mut [Item]) -> bool {
    if sort_few(items).is_some() {
        return true;
    }
    items.sort_unstable_by_key(key);
    items.is_sorted_by(|a, b| key(a) < key(b))
}

/// Counts for each item how many belong before it: no branch depends on the items, of which in random order half would be
/// mispredicted. `None` where there are many, or some are equal.
fn sort_few(items: &mut [Item]) -> Option<()> {
    let mut keys = [u64::MAX; FEW];
    keys.get_mut(..items.len())?.iter_mut().zip(items.iter()).for_each(|(to, item)| *to = key(item));
    let (fours, _) = keys.as_chunks::<4>();
    let fours = fours.get(..items.len().div_ceil(4))?;
    let mut sorted = [[0; 12]; FEW];
    let mut sum = 0;
    for item in items.iter() {
        let key = key(item);
        let before = |four: &[u64; 4]| four.iter().fold(0, |n, other| usize::from(*other < key).wrapping_add(n));
        let rank = fours.iter().map(before).fold(0, usize::wrapping_add);
        *sorted.get_mut(rank)? = *item;
        sum = rank.wrapping_add(sum);
    }
    // equal items have one rank
    if sum != items.len().wrapping_mul(items.len().saturating_sub(1)) / 2 {
        return None;
    }
    items.copy_from_slice(sorted.get(..items.len())?);
    Some(())
}

/// What [`find`] found.
pub(crate) struct Found<'s> {
    /// By address and port, of duplicates the preferred one.
    pub items: &'s mut [Item],
    /// Their port, if it is known that they share it.
    pub port: Option<u16>,
    /// It is known that they share their weight.
    pub have_one_weight: bool,
    /// It is known that all are ready, hinted and have a weight.
    pub are_usual: bool,
}

/// Why endpoints cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// This endpoint of the service has no address or no port.
    Endpoint(u32),
    /// There is no room for that many.
    Room,
}

/// Finds the endpoints of a family, and checks those of both.
#[inline(never)] // alone it has registers for all that it counts
pub(crate) fn find<'s>(endpoints: &[Endpoint], v6: bool, room: &'s mut [Item]) -> Result<Found<'s>, Fault> {
    let (first_port, first_weight) = endpoints.first().map_or((0, 0), |e| (e.port, e.weight));
    // what one of the family's endpoints has and the first one has not
    let (mut ports, mut weights) = (0, 0);
    let (mut are_sound, mut are_ready, mut ascend) = (true, true, true);
    let mut last = 0;
    let all = room.len();
    let mut places = room.iter_mut();
    for (i, e) in (0_u32..).zip(endpoints) {
        let key = match e.address {
            IpAddr::V4(a) => {
                are_sound &= a.to_bits() != 0 && e.port != 0;
                if v6 {
                    continue;
                }
                u64::from(a.to_bits()) << 16 | u64::from(e.port)
            }
            IpAddr::V6(a) => {
                are_sound &= !a.is_unspecified() && e.port != 0;
                if !v6 {
                    continue;
                }
                0
            }
        };
        *places.next().ok_or(Fault::Room)? = item(key, i);
        ascend &= last < key;
        last = key;
        ports |= e.port ^ first_port;
        weights |= e.weight ^ first_weight;
        are_ready &= e.ready & e.hinted;
    }
    if !are_sound {
        let fault = endpoints.iter().position(|e| check(e).is_none());
        return Err(Fault::Endpoint(count(fault.unwrap_or(0))));
    }
    let mut len = all.saturating_sub(places.len());
    let mut items = room.get_mut(..len).ok_or(Fault::Room)?;
    // those of IPv6 are not told apart by their keys
    if !ascend && len > 1 && (v6 || !sort(items)) {
        len = sort_out_duplicates(endpoints, items);
        items = items.get_mut(..len).ok_or(Fault::Room)?;
    }
    let have_one_weight = weights == 0;
    let are_usual = are_ready && have_one_weight && first_weight != 0;
    Ok(Found { items, port: (ports == 0).then_some(first_port), have_one_weight, are_usual })
}

/// Whether an endpoint has an address and a port.
pub(crate) fn check(e: &Endpoint) -> Option<()> {
    (e.port != 0 && !e.address.is_unspecified()).then_some(())
}

/// Sorts by address and port, and moves of duplicates the preferred one to the front. Returns their number.
fn sort_out_duplicates(endpoints: &[Endpoint], found: &mut [Item]) -> usize {
    let get = |item: &Item| endpoints.get(index(number(item)));
    found.sort_unstable_by_key(|i| get(i).map(|e| (place(e), preference(e))));
    let mut last = None;
    retain(found, |i| {
        let is_new = last != get(i).map(place);
        last = get(i).map(place);
        is_new
    })
}

/// Address and port, in an order within a family.
pub(crate) fn place(e: &Endpoint) -> (u128, u16) {
    let address = match e.address {
        IpAddr::V4(a) => a.to_bits().into(),
        IpAddr::V6(a) => a.to_bits(),
    };
    (address, e.port)
}

/// Order in which duplicates of one address and port lie; the first wins, usable or not: local before remote
/// (endpointslicecache.go), then ready, terminating, hinted, heavier.
fn preference(e: &Endpoint) -> ([Reverse<bool>; 4], Reverse<u16>) {
    ([e.local, e.ready, e.fallback, e.hinted].map(Reverse), Reverse(e.weight))
}

/// Moves the items that `keep` wants to the front, in their order, and returns their number.
pub(crate) fn retain(items: &mut [Item], mut keep: impl FnMut(&Item) -> bool) -> usize {
    let mut kept = 0_usize;
    for at in 0..items.len() {
        let Some(&item) = items.get(at) else { break };
        if keep(&item) {
            if let Some(place) = items.get_mut(kept) {
                *place = item;
            }
            kept = kept.saturating_add(1);
        }
    }
    kept
}

#[cfg(test)]
#[allow(
    clippy::pedantic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests read better short"
)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn items_are_sorted_by_their_keys_in_any_number_and_order() {
        for n in 0..40_u32 {
            for factor in [0, 1, 5, 0x9e37_79b9, u32::MAX] {
                let mut items: Vec<Item> =
                    (0..n).map(|i| item(u64::from(i.wrapping_mul(factor) % 23) << 40, i)).collect();
                let mut expected = items.clone();
                expected.sort_by_key(key);
                let all_differ = sort(&mut items);
                assert!(items.iter().map(key).eq(expected.iter().map(key)));
                assert_eq!(all_differ, expected.windows(2).all(|pair| key(&pair[0]) != key(&pair[1])));
                items.sort_by_key(number);
                assert!(items.iter().map(number).eq(0..n), "each is there once");
            }
        }
    }
}
