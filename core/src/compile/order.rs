//! The order of services in a program: by name, then protocol.

use super::items::{Item, item, key, number, sort};
use super::service_at;
use crate::bytes::{Word, index};
use crate::error::CompileError;
use crate::program::slot::protocol_code;
use crate::table::ServiceTable;

/// Marks the first of a group of services that are not told apart yet; above what a number of a service can be.
const FIRST: u32 = 1 << 31;
/// Bytes of a name that one pass looks at.
const PART: usize = 7;

/// Fills `order` with the services as they are.
pub(crate) fn keep(order: &mut [Word]) {
    for (service, place) in (0_u32..).zip(order.iter_mut()) {
        *place = service.to_le_bytes();
    }
}

/// Fills `order` with the services by name and protocol. `room` is for as many items.
///
/// A pass sorts each group of services whose names are the same so far by their next seven bytes: names of a cluster begin alike
/// (`namespace/…`), so that comparing whole names would look at the same bytes many times, each time somewhere else in memory.
pub(crate) fn sort_services(
    table: &ServiceTable<'_>,
    room: &mut [Item],
    order: &mut [Word],
) -> Result<(), CompileError> {
    for (service, item_of) in (0_u32..).zip(room.iter_mut()) {
        *item_of = item(0, service);
    }
    let mut depth = 0_usize;
    let mut is_sorted = false;
    while !is_sorted {
        is_sorted = true;
        let mut rest = &mut *room;
        while let Some((group, others)) = split_group(rest) {
            if group.len() > 1 {
                is_sorted &= sort_group(table, group, depth)?;
            }
            rest = others;
        }
        depth = depth.saturating_add(PART);
    }
    for (item, place) in room.iter().zip(order.iter_mut()) {
        *place = (number(item) & !FIRST).to_le_bytes();
    }
    Ok(())
}

/// The items before the second one that is marked.
fn split_group(items: &mut [Item]) -> Option<(&mut [Item], &mut [Item])> {
    let others = items.get(1..)?;
    let len = others.iter().position(|i| number(i) & FIRST != 0).unwrap_or(others.len());
    items.split_at_mut_checked(len.saturating_add(1))
}

/// Sorts a group by what is next in its names, and marks where new groups begin. `false` if some are groups of several.
fn sort_group(table: &ServiceTable<'_>, group: &mut [Item], depth: usize) -> Result<bool, CompileError> {
    for place in group.iter_mut() {
        let service = number(place) & !FIRST;
        *place = item(part(table, service, depth).unwrap_or(0), service);
    }
    sort(group);
    let mut last: Option<Item> = None;
    let mut all_differ = true;
    for place in group.iter_mut() {
        let this = *place;
        match last {
            Some(last) if key(&last) == key(&this) => {
                all_differ = false;
                if is_end(key(&this)) {
                    let (a, b) = (number(&last), number(&this));
                    return Err(CompileError::DuplicateService { first: a.min(b), second: a.max(b) });
                }
            }
            _ => *place = item(key(&this), number(&this) | FIRST),
        }
        last = Some(this);
    }
    Ok(all_differ)
}

/// What a service is sorted by among those whose names begin with the same `depth` bytes: the next seven of them, how many of
/// these there are, and where there are fewer the protocol.
fn part(table: &ServiceTable<'_>, service: u32, depth: usize) -> Option<u64> {
    let service = service_at(table, service)?;
    // bytes, not text: names were checked
    let rest = table.text.as_bytes().get(index(service.name.start).checked_add(depth)?..)?;
    let len = index(service.name.len).saturating_sub(depth);
    let mut bytes = [0; 8];
    if let Some(all) = rest.first_chunk::<8>()
        && len >= PART
    {
        bytes = *all;
    } else {
        let rest = rest.get(..len.min(PART))?;
        bytes.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    }
    let [.., end] = &mut bytes;
    *end = if len >= PART { WHOLE } else { u8::try_from(len).ok()? << 2 | protocol_code(service.protocol) };
    Some(u64::from_be_bytes(bytes))
}

/// The last byte of a part that the name may go on after.
const WHOLE: u8 = u8::MAX;

/// Whether names with this part end in it.
fn is_end(key: u64) -> bool {
    let [.., end] = key.to_be_bytes();
    end != WHOLE
}

#[cfg(test)]
#[allow(
    clippy::pedantic,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "tests read better short"
)]
mod tests {
    use super::*;
    use crate::table::{Protocol, Service, Span};
    use std::collections::BTreeSet;
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

    fn sorted(names: &[(String, Protocol)]) -> Result<Vec<usize>, CompileError> {
        let mut text = String::new();
        let mut services = vec![];
        for (name, protocol) in names {
            let name_span = Span { start: text.len() as u32, len: name.len() as u32 };
            text.push_str(name);
            services.push(Service { name: name_span, protocol: *protocol, ..Service::default() });
        }
        let table = ServiceTable { services: &services, text: &text, ..ServiceTable::default() };
        let (mut room, mut order) = (vec![[0; 12]; names.len()], vec![[0; 4]; names.len()]);
        sort_services(&table, &mut room, &mut order)?;
        Ok(order.into_iter().map(|i| u32::from_le_bytes(i) as usize).collect())
    }

    /// Names from two letters and a zero, so that they begin alike, end in each other and end at every place of a part.
    fn names(number: u64) -> Vec<(String, Protocol)> {
        let mut taken = BTreeSet::new();
        let mut all = vec![];
        for i in 0..number {
            let bits = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let len = 1 + (bits >> 59) % 24;
            let name: String = (0..len).map(|at| ['a', 'a', 'b', '\0'][(bits >> (at % 29)) as usize & 3]).collect();
            for protocol in Protocol::ALL.into_iter().take(1 + (bits >> 40) as usize % 3) {
                if taken.insert((name.clone(), protocol)) {
                    all.push((name.clone(), protocol));
                }
            }
        }
        all
    }

    #[test]
    fn services_are_sorted_by_name_and_protocol() {
        for number in [0, 1, 2, 9, 40, 700] {
            let names = names(number);
            let mut expected: Vec<usize> = (0..names.len()).collect();
            expected.sort_by_key(|&i| &names[i]);
            assert_eq!(sorted(&names), Ok(expected), "{number}");
        }
    }

    #[test]
    fn a_name_that_is_there_twice_with_a_protocol_is_refused() {
        for len in [1, 6, 7, 8, 14, 255] {
            let mut names = names(30);
            names.push(("c".repeat(len), Protocol::Udp));
            names.push(("c".repeat(len), Protocol::Sctp));
            assert!(sorted(&names).is_ok());
            let (first, second) = (names.len() as u32 - 1, names.len() as u32);
            names.push(("c".repeat(len), Protocol::Sctp));
            assert_eq!(sorted(&names), Err(CompileError::DuplicateService { first, second }), "{len}");
        }
    }
}
