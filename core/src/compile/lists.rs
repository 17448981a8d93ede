//! Which endpoints a service may use from this node: kube-proxy's Cluster and Local lists (topology.go, CategorizeEndpoints).

use super::items::{Fault, Found, Item, find, item, key, number, place, retain};
use crate::bytes::index;
use crate::table::{Endpoint, FrontendKind, Policy, Service};
use core::cmp::Reverse;

/// Membership of an endpoint, kept in the top bits of its index while lists are made.
const CLUSTER: u32 = 1 << 31;
const LOCAL: u32 = 1 << 30;
/// Bits that hold the index.
const INDEX: u32 = LOCAL - 1;

/// The item's endpoint, of the service's.
pub(crate) fn of_item<'e>(endpoints: &'e [Endpoint], item: &Item) -> Option<&'e Endpoint> {
    endpoints.get(index(number(item) & INDEX))
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
    /// The endpoints' port, if it is known that they share it.
    pub port: Option<u16>,
    /// It is known that the endpoints share their weight.
    pub have_one_weight: bool,
}

/// What a service's frontends of one family ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    pub cluster_ip: bool,
    pub external: bool,
}

impl Wanted {
    pub fn add(&mut self, kind: FrontendKind) {
        self.external |= kind.is_external();
        self.cluster_ip |= !kind.is_external();
    }

    pub fn any(self) -> bool {
        self.cluster_ip || self.external
    }
}

/// Makes the lists in `room`, which holds at least as many entries as the service has endpoints.
///
/// # Errors
/// Where it is too short, or an endpoint of either family is at fault.
pub(crate) fn lists<'s>(
    service: &Service,
    endpoints: &[Endpoint],
    v6: bool,
    wanted: Wanted,
    room: &'s mut [Item],
) -> Result<Lists<'s>, Fault> {
    let internal = if wanted.cluster_ip { service.internal_policy } else { Policy::Cluster };
    let external = if wanted.external { service.external_policy } else { Policy::Cluster };
    let need_cluster = (wanted.cluster_ip && internal == Policy::Cluster) || wanted.external;
    let need_local = internal == Policy::Local || external == Policy::Local;

    let Found { items, port, have_one_weight, are_usual } = find(endpoints, v6, room)?;
    if need_cluster && !need_local && are_usual {
        // as in most tables: one list that holds all
        let (cluster, any) = (items.len(), !items.is_empty());
        return Ok(Lists { order: items, cluster, local: 0, any, internal, external, port, have_one_weight });
    }
    let (order, [cluster, local], any) = categorize(endpoints, items, [need_cluster, need_local]).ok_or(Fault::Room)?;
    Ok(Lists { order, cluster, local, any, internal, external, port, have_one_weight })
}

/// Keeps the items that are in the Cluster or the Local list, of those that are needed: Cluster only, both, Local only. Returns
/// them, the lengths of the lists, and whether there is any that is usable.
fn categorize<'s>(
    endpoints: &[Endpoint],
    found: &'s mut [Item],
    [need_cluster, need_local]: [bool; 2],
) -> Option<(&'s [Item], [usize; 2], bool)> {
    let get = |item: &Item| of_item(endpoints, item);
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
            *usable.get_mut(kept)? = item(key(&i), number(&i) | marks);
            kept = kept.checked_add(1)?;
            cluster = cluster.saturating_add(in_cluster.into());
            local = local.saturating_add(in_local.into());
        }
    }
    let any = !usable.is_empty();
    let order = usable.get_mut(..kept)?;
    if need_local {
        order.sort_unstable_by_key(|i| {
            let marks = number(i);
            (Reverse(marks & CLUSTER), marks & LOCAL, get(i).map(place))
        });
    }
    Some((order, [cluster, local], any))
}

#[cfg(test)]
#[allow(clippy::pedantic, reason = "tests read better short")]
mod tests {
    use super::*;
    use core::net::{IpAddr, Ipv4Addr};
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
