//! Which endpoints a service may use from this node: kube-proxy's Cluster and Local lists (topology.go, CategorizeEndpoints).

use crate::table::{Endpoint, FrontendKind, Policy, Service};
use core::cmp::Reverse;
use core::net::IpAddr;

/// Membership of an endpoint, kept in the top bits of its index while lists are made.
const CLUSTER: u32 = 1 << 31;
const LOCAL: u32 = 1 << 30;
/// Bits that hold the index.
pub(crate) const INDEX: u32 = LOCAL - 1;

/// The endpoints of one service in one family, as a record stores them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lists<'s> {
    /// Indices into the service's endpoints: Cluster only, both, Local only, each by address and port.
    pub order: &'s [u32],
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

/// Makes the lists in `scratch`, which holds at least as many entries as the service has endpoints.
/// `None` where `scratch` is too short.
pub(crate) fn lists<'s>(
    service: &Service,
    endpoints: &[Endpoint],
    v6: bool,
    wanted: Wanted,
    scratch: &'s mut [u32],
) -> Option<Lists<'s>> {
    let internal = if wanted.cluster_ip { service.internal_policy } else { Policy::Cluster };
    let external = if wanted.external { service.external_policy } else { Policy::Cluster };
    let need_cluster = (wanted.cluster_ip && internal == Policy::Cluster) || wanted.external;
    let need_local = internal == Policy::Local || external == Policy::Local;
    let get = |i: u32| endpoints.get(crate::bytes::index(i & INDEX));

    let mut len = 0_usize;
    for (i, e) in endpoints.iter().enumerate() {
        if e.address.is_ipv6() == v6 {
            *scratch.get_mut(len)? = crate::bytes::count(i);
            len = len.checked_add(1)?;
        }
    }
    let found = scratch.get_mut(..len)?;
    found.sort_unstable_by_key(|&i| get(i).map(preference));
    let len = dedup(found, |i| get(i).map(|e| (e.address, e.port)));
    let len = retain(found.get_mut(..len)?, |i| get(i).is_some_and(|e| e.weight != 0 && (e.ready || e.fallback)));
    let usable = found.get_mut(..len)?;

    let any_ready = usable.iter().any(|&i| get(i).is_some_and(|e| e.ready));
    let any_hinted = usable.iter().any(|&i| get(i).is_some_and(|e| e.ready && e.hinted));
    let any_local_ready = usable.iter().any(|&i| get(i).is_some_and(|e| e.ready && e.local));
    let mut kept = 0_usize;
    for at in 0..usable.len() {
        let i = *usable.get(at)?;
        let e = get(i)?;
        let in_cluster = need_cluster && if any_ready { e.ready && (e.hinted || !any_hinted) } else { e.fallback };
        let in_local = need_local && e.local && if any_local_ready { e.ready } else { e.fallback };
        if in_cluster || in_local {
            *usable.get_mut(kept)? = i | if in_cluster { CLUSTER } else { 0 } | if in_local { LOCAL } else { 0 };
            kept = kept.checked_add(1)?;
        }
    }
    let any = !usable.is_empty();
    let order = usable.get_mut(..kept)?;
    order.sort_unstable_by_key(|&i| (Reverse(i & CLUSTER), i & LOCAL, get(i).map(|e| (e.address, e.port))));
    let cluster = order.iter().filter(|&&i| i & CLUSTER != 0).count();
    let local = order.iter().filter(|&&i| i & LOCAL != 0).count();
    for i in order.iter_mut() {
        *i &= INDEX;
    }
    Some(Lists { order, cluster, local, any, internal, external })
}

/// Order in which duplicates of one address and port lie; the first wins, usable or not: local before remote
/// (endpointslicecache.go), then ready, terminating, hinted, heavier.
fn preference(e: &Endpoint) -> (IpAddr, u16, [Reverse<bool>; 4], Reverse<u16>) {
    (e.address, e.port, [e.local, e.ready, e.fallback, e.hinted].map(Reverse), Reverse(e.weight))
}

/// Moves the first of each run of equal keys to the front and returns their number.
fn dedup<K: PartialEq>(items: &mut [u32], key: impl Fn(u32) -> K) -> usize {
    let mut last = None;
    retain(items, |i| {
        let is_new = last.is_none_or(|l| key(l) != key(i));
        last = Some(i);
        is_new
    })
}

/// Moves the items that `keep` wants to the front, in their order, and returns their number.
fn retain(items: &mut [u32], mut keep: impl FnMut(u32) -> bool) -> usize {
    let mut kept = 0_usize;
    for at in 0..items.len() {
        let Some(&item) = items.get(at) else { break };
        if keep(item) {
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
        let mut scratch = [0; 16];
        let wanted = Wanted { cluster_ip: true, external: true };
        let lists = lists(&service, endpoints, false, wanted, &mut scratch).unwrap();
        let last = |i: &u32| match endpoints[*i as usize].address {
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
