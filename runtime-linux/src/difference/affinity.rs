//! The maps of session affinity, read backwards: lists of endpoints stand under a service port's number, not its frontends.

use super::meaning::{List, address};
use crate::nft::model::{Family, Set};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Endpoints by the number of their service port's list.
pub(super) type Numbered = BTreeMap<u32, List>;

/// Whether the elements of a set start with a number.
pub(super) fn is_per_number(set: &str) -> bool {
    ["affinity-draws", "affinity-endpoints", "affinity-siblings"].contains(&set)
}

/// The number that bytes start with, the same for both lists of a service port.
pub(super) fn service_number(bytes: &[u8]) -> Option<u32> {
    number(bytes).map(|n| n & !1)
}

/// The number that bytes start with.
pub(super) fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|n| u32::from_ne_bytes(*n))
}

/// The lists that a family's sets hold.
pub(super) fn lists<'s>(family: Family, sets: &(impl Iterator<Item = &'s Set> + Clone)) -> Numbered {
    let named = |name: &'static str| sets.clone().filter(move |s| s.name == name).flat_map(|s| s.elements.iter());
    // number . protocol . address it is remembered by -> endpoint
    let mut endpoints: BTreeMap<(u32, IpAddr), SocketAddr> = BTreeMap::new();
    for e in named("affinity-endpoints") {
        let remembered = e.key.get(8..).and_then(|bytes| address(family, bytes));
        let endpoint = address(family, e.data);
        if let (Some(number), Some((remembered, _)), Some((ip, &[high, low, ..]))) =
            (number(e.key), remembered, endpoint)
        {
            endpoints.insert((number, remembered), SocketAddr::new(ip, u16::from_be_bytes([high, low])));
        }
    }
    let mut lists = Numbered::new();
    for e in named("affinity-draws") {
        let (Some(number), Some((remembered, _))) = (number(e.key), address(family, e.data)) else { continue };
        if let Some(endpoint) = endpoints.get(&(number, remembered)) {
            *lists.entry(number).or_default().entry(*endpoint).or_default() += 1;
        }
    }
    lists
}
