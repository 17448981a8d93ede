//! The endpoints that a service's chains draw from.

use super::super::super::address;
use super::super::super::diagnostic::Diagnostic;
use super::super::super::table_buf::Draft;
use super::super::rule::Rule;
use super::super::weights::weights;
use super::follow::prefix;
use super::{Gathered, Lifter, warning};
use natlet_core::table::{Endpoint, FrontendKind, ServiceType};
use std::collections::HashSet;
use std::net::IpAddr;

impl Lifter<'_> {
    /// The service port with what its chains say about its endpoints.
    pub(super) fn with_endpoints(&mut self, gathered: Gathered) -> Draft {
        let Gathered { mut draft, cluster_chain, local_chain } = gathered;
        let cluster = cluster_chain.map_or_else(Vec::new, |chain| self.endpoints(&chain, &mut draft));
        let local = local_chain.map_or_else(Vec::new, |chain| self.endpoints(&chain, &mut draft));
        let in_both = local.iter().any(|l| cluster.iter().any(|c| (c.address, c.port) == (l.address, l.port)));
        let ready = cluster.is_empty() || in_both;
        draft.service.endpoints = cluster;
        for endpoint in local {
            let twin =
                draft.service.endpoints.iter_mut().find(|e| (e.address, e.port) == (endpoint.address, endpoint.port));
            if let Some(twin) = twin {
                twin.local = true;
                continue;
            }
            // in the local list only: a terminating one that is used since no local one is ready, or a ready one beside
            // others that topology hints prefer
            let extra = Endpoint { local: true, ready, fallback: !ready, hinted: !in_both, ..endpoint };
            draft.service.endpoints.push(extra);
        }
        let has = |kind| draft.service.frontends.iter().any(|f| f.kind == kind);
        draft.service.service_type = if has(FrontendKind::LoadBalancer) {
            ServiceType::LoadBalancer
        } else if has(FrontendKind::NodePort) {
            ServiceType::NodePort
        } else {
            ServiceType::ClusterIp
        };
        draft
    }

    /// The endpoints that a chain draws from, in its order.
    fn endpoints(&mut self, chain: &str, draft: &mut Draft) -> Vec<Endpoint> {
        let mut draws = Vec::new();
        for (rule, line) in self.rules_of(chain) {
            if rule.target.is_none_or(|target| prefix(target) != "KUBE-SEP-") {
                continue;
            }
            match rule.affinity {
                Some(seconds) => draft.service.affinity_timeout = seconds,
                None => draws.push((rule, line)),
            }
        }
        let probabilities: Vec<Option<f64>> = draws.iter().map(|(rule, _)| rule.probability).collect();
        let Some(weights) = weights(&probabilities) else {
            if let Some((_, line)) = draws.first() {
                self.sink.push(
                    Diagnostic::error(format!(
                        "the probabilities of {chain} are no ratio of whole numbers up to 65535"
                    ))
                    .at(line.place.clone(), "the first of its rules")
                    .help("give the whole chain: kube-proxy's rules have 1/n, 1/(n-1), … and a last one without"),
                );
            }
            return Vec::new();
        };
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut seen = HashSet::new();
        for ((rule, line), weight) in draws.into_iter().zip(weights) {
            if let Some((address, port)) = self.destination(&rule) {
                if seen.insert((address, port)) {
                    endpoints.push(Endpoint { weight, ..Endpoint::new(address, port) });
                }
            } else {
                let title =
                    format!("the listing lacks the chain {}: this endpoint is left out", rule.target.unwrap_or(""));
                self.sink.push(warning(line, title).help("give the whole output of iptables-save"));
            }
        }
        endpoints
    }

    /// Where a jump to a KUBE-SEP- chain sends: its DNAT, or else the comment `ns/name:port -> address:port`.
    fn destination(&self, jump: &Rule<'_>) -> Option<(IpAddr, u16)> {
        let dnat = self.rules.get(jump.target?).into_iter().flatten().find_map(|(rule, _)| rule.to);
        dnat.or_else(|| address::parse_socket(jump.comment?.split_once(" -> ")?.1).ok())
    }
}
