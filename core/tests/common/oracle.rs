//! What kube-proxy's rules say about a packet, worked out from the table itself, slowly and without the program.

use crate::common::random::TableSpec;
use crate::common::{NodeSpec, ServiceSpec};
use natlet_core::{Cidr, Endpoint, FrontendKind, Policy, Protocol, Verdict};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// The verdict and the endpoints that can be drawn, each with whether the source is rewritten.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub verdict: Verdict,
    pub endpoints: BTreeSet<(SocketAddr, bool)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Pod,
    Node,
    Outside,
}

fn no_endpoints(verdict: Verdict) -> Answer {
    Answer { verdict, endpoints: BTreeSet::new() }
}

fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

fn holds(cidr: &Cidr, address: IpAddr) -> bool {
    let bits = |a: IpAddr| match a {
        IpAddr::V4(a) => a.octets().iter().map(|o| format!("{o:08b}")).collect::<String>(),
        IpAddr::V6(a) => a.octets().iter().map(|o| format!("{o:08b}")).collect::<String>(),
    };
    let prefix = usize::from(cidr.prefix);
    same_family(cidr.address, address) && bits(cidr.address)[..prefix] == bits(address)[..prefix]
}

pub fn answer(table: &TableSpec, from: IpAddr, to: IpAddr, protocol: Protocol, port: u16) -> Answer {
    let node = &table.node;
    let mine = |a: IpAddr| a.is_loopback() || node.addresses.contains(&a);
    let source = if node.cluster.iter().any(|c| holds(c, from)) {
        Source::Pod
    } else if mine(from) {
        Source::Node
    } else {
        Source::Outside
    };
    // an exact match beats a NodePort, unless it is external, has no endpoint, and the NodePort has
    let mut refused = None;
    'exact: for s in &table.services {
        for &(kind, address, frontend_port) in &s.frontends {
            let exact = kind != FrontendKind::NodePort && address == to;
            if exact && s.protocol == protocol && frontend_port == port {
                let answer = at_frontend(node, s, kind, from, source);
                if kind == FrontendKind::ClusterIp || answer.verdict != Verdict::Reject {
                    return answer;
                }
                refused = Some(answer);
                break 'exact;
            }
        }
    }
    for s in &table.services {
        for &(kind, address, frontend_port) in &s.frontends {
            let node_port = kind == FrontendKind::NodePort && same_family(address, to) && mine(to);
            if node_port && s.protocol == protocol && frontend_port == port {
                return if accepts_node_ports(node, to) {
                    at_frontend(node, s, kind, from, source)
                } else {
                    refused.unwrap_or(no_endpoints(Verdict::Accept))
                };
            }
        }
    }
    if let Some(refused) = refused {
        return refused;
    }
    let is_cluster_ip = |s: &ServiceSpec| s.frontends.iter().any(|f| f.0 == FrontendKind::ClusterIp && f.1 == to);
    if table.services.iter().any(is_cluster_ip) {
        return no_endpoints(Verdict::Reject);
    }
    if node.service.iter().any(|c| holds(c, to)) {
        return no_endpoints(Verdict::Drop);
    }
    no_endpoints(Verdict::Accept)
}

fn accepts_node_ports(node: &NodeSpec, to: IpAddr) -> bool {
    let list: Vec<&Cidr> = node.node_port.iter().filter(|c| same_family(c.address, to)).collect();
    let listed = list.is_empty() || list.iter().any(|c| c.prefix == 0) || list.iter().any(|c| holds(c, to));
    if to.is_loopback() { to.is_ipv4() && node.localhost && listed } else { listed }
}

fn at_frontend(node: &NodeSpec, s: &ServiceSpec, kind: FrontendKind, from: IpAddr, source: Source) -> Answer {
    if kind == FrontendKind::LoadBalancer && !may_use_load_balancer(node, s, from) {
        return no_endpoints(Verdict::Drop);
    }
    let endpoints = endpoints_of(s, from);
    if !endpoints.iter().any(|e| e.ready || e.fallback) {
        return no_endpoints(Verdict::Reject);
    }
    let has_detector = node.cluster.iter().any(|c| same_family(c.address, from));
    let (list, masquerade) = if kind == FrontendKind::ClusterIp {
        let masquerade = node.masquerade_all || (has_detector && source != Source::Pod);
        (if s.internal == Policy::Local { local_list(&endpoints) } else { cluster_list(&endpoints) }, masquerade)
    } else if s.external == Policy::Cluster {
        (cluster_list(&endpoints), true)
    } else {
        match source {
            Source::Pod => (cluster_list(&endpoints), false),
            Source::Node => (cluster_list(&endpoints), true),
            Source::Outside => (local_list(&endpoints), false),
        }
    };
    if list.is_empty() {
        return no_endpoints(Verdict::Drop);
    }
    let drawn = |e: &Endpoint| (SocketAddr::new(e.address, e.port), masquerade || e.address == from);
    Answer { verdict: Verdict::Dnat, endpoints: list.iter().map(drawn).collect() }
}

fn may_use_load_balancer(node: &NodeSpec, s: &ServiceSpec, from: IpAddr) -> bool {
    let ranges: Vec<&Cidr> = s.ranges.iter().filter(|c| same_family(c.address, from)).collect();
    if ranges.is_empty() || ranges.iter().any(|c| holds(c, from)) {
        return true;
    }
    let primary = node.addresses.iter().find(|a| same_family(**a, from));
    let node_is_in = primary.is_some_and(|p| ranges.iter().any(|c| holds(c, *p)));
    node_is_in && s.frontends.iter().any(|f| f.0 == FrontendKind::LoadBalancer && f.1 == from)
}

/// The family's endpoints, each address and port once, without those of weight 0.
fn endpoints_of(s: &ServiceSpec, family: IpAddr) -> Vec<Endpoint> {
    let mut all: Vec<Endpoint> = s.endpoints.iter().copied().filter(|e| same_family(e.address, family)).collect();
    all.sort_by_key(|e| (e.local, e.ready, e.fallback, e.hinted, e.weight));
    let mut kept: Vec<Endpoint> = vec![];
    for e in all.into_iter().rev() {
        if !kept.iter().any(|k| (k.address, k.port) == (e.address, e.port)) {
            kept.push(e);
        }
    }
    kept.retain(|e| e.weight != 0);
    kept
}

fn cluster_list(all: &[Endpoint]) -> Vec<Endpoint> {
    let ready: Vec<Endpoint> = all.iter().copied().filter(|e| e.ready).collect();
    if ready.is_empty() {
        return all.iter().copied().filter(|e| e.fallback).collect();
    }
    let hinted: Vec<Endpoint> = ready.iter().copied().filter(|e| e.hinted).collect();
    if hinted.is_empty() { ready } else { hinted }
}

fn local_list(all: &[Endpoint]) -> Vec<Endpoint> {
    let local: Vec<Endpoint> = all.iter().copied().filter(|e| e.local).collect();
    let ready: Vec<Endpoint> = local.iter().copied().filter(|e| e.ready).collect();
    if ready.is_empty() { local.into_iter().filter(|e| e.fallback).collect() } else { ready }
}
