//! Which endpoints a service may use from this node: kube-proxy's Cluster and Local lists (topology.go, CategorizeEndpoints).

use crate::bytes::index;
use crate::table::{Endpoint, FrontendKind, Policy, Service};
use core::cmp::Reverse;
use core::net::IpAddr;

/// Membership of an endpoint, kept in the top bits of its index while lists are made.
const CLUSTER: u32 = 1 << 31;
const LOCAL: u32 = 1 << 30;
/// Bits that hold the index.
const INDEX: u32 = LOCAL - 1;

/// An endpoint while lists are made: eight bytes that IPv4 endpoints are sorted by, which are address and port, then its
/// index in the service.
pub(crate) type Item = [u8; 12];

/// The item's endpoint, of the service's.
pub(crate) fn of_item<'e>(endpoints: &'e [Endpoint], item: &Item) -> Option<&'e Endpoint> {
    endpoints.get(index(marked_index(item) & INDEX))
}

fn marked_index(&[.., a, b, c, d]: &Item) -> u32 {
    u32::from_le_bytes([a, b, c, d])
}

/// Address and port of an IPv4 endpoint.
pub(crate) fn place_v4(item: &Item) -> ([u8; 4], u16) {
    let [low, high, d, c, b, a, ..] = *item;
    ([a, b, c, d], u16::from_le_bytes([low, high]))
}

fn sort_key(item: &Item) -> u64 {
    let [key @ .., _, _, _, _] = *item;
    u64::from_le_bytes(key)
}

fn item(key: u64, index: u32) -> Item {
    let mut item = [0; 12];
    if let Some((first, last)) = item.split_first_chunk_mut::<8>() {
        *first = key.to_le_bytes();
        last.copy_from_slice(&index.to_le_bytes());
    }
    item
}

/// The endpoints of one service in one family, as a record stores them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lists<'s> {
    /// The service's endpoints: Cluster only, both, Local only, each by address and port.
    pub order: &'s [Item],
    /// Length of the Cluster list, a prefix of `order`.
    pub cluster: usize,
    /// Length of the Local list, a suffix of `order`.
    pub local: usize,
    /// Some endpoint somewhere is usable.
    pub any: bool,
    /// Internal policy, Cluster where no ClusterIP asks for it.
    pub internal: Policy,
    /// External policy, Cluster where no external frontend asks for it.
    pub external: Policy,
}

/// What a service's frontends of one family ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    pub cluster_ip: bool,
    pub external: bool,
}

impl Wanted {
    pub fn add(&mut self, kind: FrontendKind) {
        if kind.is_external() {
            self.external = true;
        } else {
            self.cluster_ip = true;
        }
    }
}

/// Makes the lists in `room`, which holds at least as many entries as the service has endpoints.
/// `None` where it is too short.
pub(crate) fn lists<'s>(
    service: &Service,
    endpoints: &[Endpoint],
    v6: bool,
    wanted: Wanted,
    room: &'s mut [Item],
) -> Option<Lists<'s>> {
    let internal = if wanted.cluster_ip { service.internal_policy } else { Policy::Cluster };
    let external = if wanted.external { service.external_policy } else { Policy::Cluster };
    let need_cluster = (wanted.cluster_ip && internal == Policy::Cluster) || wanted.external;
    let need_local = internal == Policy::Local || external == Policy::Local;
    let get = |item: &Item| of_item(endpoints, item);

    let found = distinct(endpoints, v6, room)?;
    if need_cluster && !need_local && endpoints.iter().all(|e| e.ready && e.hinted && e.weight != 0) {
        // as in most tables: one list that holds all
        let (cluster, any) = (found.len(), !found.is_empty());
        return Some(Lists { order: found, cluster, local: 0, any, internal, external });
    }
    let len = retain(found, |i| get(i).is_some_and(|e| e.weight != 0 && (e.ready || e.fallback)));
    let usable = found.get_mut(..len)?;

    let any_ready = usable.iter().any(|i| get(i).is_some_and(|e| e.ready));
    let any_hinted = usable.iter().any(|i| get(i).is_some_and(|e| e.ready && e.hinted));
    let any_local_ready = usable.iter().any(|i| get(i).is_some_and(|e| e.ready && e.local));
    let (mut kept, mut cluster, mut local) = (0_usize, 0_usize, 0_usize);
    for at in 0..usable.len() {
        let i = *usable.get(at)?;
        let e = get(&i)?;
        let in_cluster = need_cluster && if any_ready { e.ready && (e.hinted || !any_hinted) } else { e.fallback };
        let in_local = need_local && e.local && if any_local_ready { e.ready } else { e.fallback };
        if in_cluster || in_local {
            let marks = if in_cluster { CLUSTER } else { 0 } | if in_local { LOCAL } else { 0 };
            *usable.get_mut(kept)? = item(sort_key(&i), marked_index(&i) | marks);
            kept = kept.checked_add(1)?;
            cluster = cluster.saturating_add(in_cluster.into());
            local = local.saturating_add(in_local.into());
        }
    }
    let any = !usable.is_empty();
    let order = usable.get_mut(..kept)?;
    if need_local {
        order.sort_unstable_by_key(|i| {
            let marks = marked_index(i);
            (Reverse(marks & CLUSTER), marks & LOCAL, get(i).map(place))
        });
    }
    Some(Lists { order, cluster, local, any, internal, external })
}

/// The family's endpoints by address and port, of duplicates the preferred one. `None` where the room is short.
fn distinct<'s>(endpoints: &[Endpoint], v6: bool, room: &'s mut [Item]) -> Option<&'s mut [Item]> {
    let mut len = 0_usize;
    for (i, e) in (0_u32..).zip(endpoints) {
        let key = match e.address {
            IpAddr::V4(a) if !v6 => u64::from(a.to_bits()) << 16 | u64::from(e.port),
            IpAddr::V6(_) if v6 => 0,
            _ => continue,
        };
        *room.get_mut(len)? = item(key, i);
        len = len.checked_add(1)?;
    }
    let found = room.get_mut(..len)?;
    let ascends = |found: &[Item]| found.is_sorted_by(|a, b| sort_key(a) < sort_key(b));
    if !ascends(found) {
        found.sort_unstable_by_key(sort_key);
        if !ascends(found) {
            len = sort_out_duplicates(endpoints, found); // or they are of IPv6
        }
    }
    found.get_mut(..len)
}

/// Sorts by address and port, and moves of duplicates the preferred one to the front. Returns their number.
fn sort_out_duplicates(endpoints: &[Endpoint], found: &mut [Item]) -> usize {
    let get = |item: &Item| of_item(endpoints, item);
    found.sort_unstable_by_key(|i| get(i).map(|e| (place(e), preference(e))));
    let mut last = None;
    retain(found, |i| {
        let is_new = last != get(i).map(place);
        last = get(i).map(place);
        is_new
    })
}

/// Address and port, in an order within a family.
fn place(e: &Endpoint) -> (u128, u16) {
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
fn retain(items: &mut [Item], mut keep: impl FnMut(&Item) -> bool) -> usize {
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
#[allow(clippy::pedantic, reason = "tests read better short")]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use std::vec;
    use std::vec::Vec;

    fn ep(last: u8, ready: bool, fallback: bool, local: bool, hinted: bool) -> Endpoint {
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
        Endpoint { address, port: 80, weight: 1, ready, fallback, local, hinted }
    }

    fn run(internal: Policy, external: Policy, endpoints: &[Endpoint]) -> (Vec<u8>, Vec<u8>, bool) {
        let service = Service { internal_policy: internal, external_policy: external, ..Service::default() };
        let mut room = [[0; 12]; 16];
        let wanted = Wanted { cluster_ip: true, external: true };
        let lists = lists(&service, endpoints, false, wanted, &mut room).unwrap();
        let last = |i: &Item| match of_item(endpoints, i).unwrap().address {
            IpAddr::V4(a) => a.octets()[3],
            IpAddr::V6(_) => 0,
        };
        let all: Vec<u8> = lists.order.iter().map(last).collect();
        (all[..lists.cluster].to_vec(), all[all.len() - lists.local..].to_vec(), lists.any)
    }

    #[test]
    fn lists_fall_back_independently() {
        // a ready remote pod and a terminating local one: topology.go uses each for its own list
        let eps = [ep(1, true, false, false, true), ep(2, false, true, true, true)];
        assert_eq!(run(Policy::Cluster, Policy::Local, &eps), (vec![1], vec![2], true));
        // without the ready one, both lists hold the terminating one
        assert_eq!(run(Policy::Cluster, Policy::Local, &eps[1..]), (vec![2], vec![2], true));
    }

    #[test]
    fn topology_rules_the_cluster_list_of_ready_endpoints_only() {
        let eps = [ep(1, true, false, true, false), ep(2, true, false, false, true), ep(3, false, true, false, true)];
        assert_eq!(run(Policy::Cluster, Policy::Local, &eps), (vec![2], vec![1], true));
    }

    #[test]
    fn a_local_duplicate_wins_and_nothing_is_stored_twice() {
        let eps = [ep(1, true, false, false, true), ep(1, true, false, true, true), ep(2, true, false, false, true)];
        assert_eq!(run(Policy::Cluster, Policy::Local, &eps), (vec![2, 1], vec![1], true));
        // even a local one that is not ready wins: the endpoint is that, whatever a stale slice says
        let eps = [ep(1, true, false, false, true), ep(1, false, false, true, true), ep(2, true, false, false, true)];
        assert_eq!(run(Policy::Cluster, Policy::Local, &eps), (vec![2], vec![], true));
    }

    #[test]
    fn local_policies_without_local_endpoints_leave_the_list_empty_but_say_that_others_exist() {
        let eps = [ep(1, true, false, false, true)];
        assert_eq!(run(Policy::Local, Policy::Local, &eps), (vec![1], vec![], true));
        assert_eq!(run(Policy::Local, Policy::Local, &[ep(1, false, false, true, true)]), (vec![], vec![], false));
    }
}
