//! Which of several Services gets a frontend that all of them claim.
//!
//! The API server hands out ClusterIPs and node ports once each, but anybody who may write Services may name any external IP,
//! a ClusterIP of another one too. kube-proxy leaves the winner to chance; here it is the same on every node and after every
//! restart, and whoever comes later cannot take over what is in use: a ClusterIP wins over a node port, that over an address
//! of a load balancer, that over an external IP; among equals the older Service, then the name.

use super::super::address::socket_text;
use super::super::table_buf::Draft;
use natlet_core::table::FrontendKind;
use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

/// Takes every frontend from all drafts but the one with the best right to it. `created` says when the Service of a
/// `namespace/name` was made. Returns a remark for each frontend that was taken.
pub(super) fn settle(drafts: &mut Vec<Draft>, created: impl Fn(&str) -> Option<SystemTime>) -> Vec<String> {
    // a Service has each port name once; one that has not would be a service twice
    let mut names = HashSet::new();
    drafts.retain(|draft| names.insert((draft.service.name.clone(), draft.service.protocol)));
    let mut claims = HashMap::new();
    for (at, draft) in drafts.iter().enumerate() {
        for frontend in &draft.service.frontends {
            let key = (frontend.address, draft.service.protocol, frontend.port);
            claims.entry(key).or_insert_with(Vec::new).push((at, frontend.kind));
        }
    }
    let mut remarks = Vec::new();
    for ((address, protocol, port), mut claimants) in claims {
        if claimants.len() == 1 {
            continue;
        }
        claimants.sort_by_cached_key(|(at, kind)| {
            let name = drafts[*at].service.name.clone();
            let made = created(name.split(':').next().unwrap_or_default());
            (rank(*kind), made.is_none(), made, name)
        });
        let winner = claimants[0].0;
        for (at, _) in &claimants[1..] {
            remarks.push(format!(
                "{}/{protocol} belongs to {}: {} does not get it",
                socket_text(address, port),
                drafts[winner].service.name,
                drafts[*at].service.name
            ));
            let Draft { service, frontend_places, .. } = &mut drafts[*at];
            if let Some(index) = service.frontends.iter().position(|f| (f.address, f.port) == (address, port)) {
                service.frontends.remove(index);
                frontend_places.remove(index);
            }
        }
    }
    remarks.sort();
    remarks
}

const fn rank(kind: FrontendKind) -> u8 {
    match kind {
        FrontendKind::ClusterIp => 0,
        FrontendKind::NodePort => 1,
        FrontendKind::LoadBalancer => 2,
        FrontendKind::ExternalIp => 3,
    }
}
