//! Joins Services, slices and Ingresses to service ports.

use super::super::address::socket_text;
use super::super::diagnostic::{Diagnostic, Place, Sink};
use super::super::table_buf::{Draft, ServiceBuf};
use super::ingress::{RawIngress, RoutePort};
use super::service::{RawPort, RawService};
use super::slice::{RawEndpoint, RawSlice};
use super::{Meta, View};
use natlet_core::table::{Endpoint, FrontendKind, Policy, Protocol, ServiceType};
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What must be known of the node to say which endpoints are local and which the topology hints mean.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Here<'a> {
    pub name: Option<&'a str>,
    pub zone: Option<&'a str>,
}

/// The service ports of all objects.
pub(in super::super) fn join(objects: &View<'_>, here: Here<'_>, sink: &mut Sink) -> Vec<Draft> {
    given_once("Service", objects.services.iter().map(|s| &s.meta), sink);
    given_once("EndpointSlice", objects.slices.iter().map(|s| &s.meta), sink);
    given_once("Node", objects.nodes.iter().map(|n| &n.meta), sink);
    let mut slices: HashMap<(&str, &str), Vec<&RawSlice>> = HashMap::new();
    for &slice in &objects.slices {
        slices.entry((&slice.meta.namespace, &slice.service)).or_default().push(slice);
    }
    for list in slices.values_mut() {
        list.sort_by(|a, b| a.meta.name.cmp(&b.meta.name));
    }
    let hosts = Hosts::new(&objects.ingresses);
    let mut drafts = Vec::new();
    let mut seen = BTreeSet::new();
    for &service in &objects.services {
        if !seen.insert((&service.meta.namespace, &service.meta.name)) {
            continue; // reported above, once for all its ports
        }
        let slices =
            slices.get(&(service.meta.namespace.as_str(), service.meta.name.as_str())).map_or(&[][..], Vec::as_slice);
        needs_node(service, here, sink);
        drafts.extend(service.ports.iter().map(|port| draft(service, port, slices, &hosts, here)));
    }
    drafts
}

fn draft(service: &RawService, port: &RawPort, slices: &[&RawSlice], hosts: &Hosts<'_>, here: Here<'_>) -> Draft {
    let Meta { namespace, name, .. } = &service.meta;
    let full =
        if port.name.is_empty() { format!("{namespace}/{name}") } else { format!("{namespace}/{name}:{}", port.name) };
    let counts = service.service_type == ServiceType::LoadBalancer && service.external_policy == Policy::Local;
    let mut draft = Draft {
        service: ServiceBuf {
            name: full,
            protocol: port.protocol,
            service_type: service.service_type,
            internal_policy: service.internal_policy,
            external_policy: service.external_policy,
            affinity_timeout: service.affinity_timeout,
            choice: service.choice,
            source_ranges: service.source_ranges.clone(),
            health_check_node_port: if counts { service.health_check_node_port } else { 0 },
            hosts: hosts.of(service, port),
            ..ServiceBuf::default()
        },
        place: port.place.clone(),
        frontend_places: Vec::new(),
    };
    for v4 in [true, false] {
        let Some((cluster_ip, place)) = service.cluster_ips.iter().find(|(ip, _)| ip.is_ipv4() == v4) else { continue };
        let of_family = |(ip, _): &&(IpAddr, Place)| ip.is_ipv4() == v4;
        draft.add_frontend(FrontendKind::ClusterIp, *cluster_ip, port.port, place.clone());
        if let Some((node_port, place)) = &port.node_port {
            draft.add_frontend(FrontendKind::NodePort, unspecified(v4), *node_port, place.clone());
        }
        for (ip, place) in service.load_balancer_ips.iter().filter(of_family) {
            draft.add_frontend(FrontendKind::LoadBalancer, *ip, port.port, place.clone());
        }
        for (ip, place) in service.external_ips.iter().filter(of_family) {
            draft.add_frontend(FrontendKind::ExternalIp, *ip, port.port, place.clone());
        }
        draft.service.endpoints.extend(endpoints(port, slices, v4, here));
    }
    draft
}

/// The unspecified address of a family.
pub(in super::super) fn unspecified(v4: bool) -> IpAddr {
    if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// One family's endpoints of a service port, sorted by their text; the same address and port in several slices counts
/// once, a local entry before one that is not.
fn endpoints(port: &RawPort, slices: &[&RawSlice], v4: bool, here: Here<'_>) -> Vec<Endpoint> {
    let mut found: HashMap<(IpAddr, u16), (&RawEndpoint, bool)> = HashMap::new();
    for slice in slices {
        for slice_port in slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol) {
            for endpoint in slice.endpoints.iter().filter(|e| e.address.is_ipv4() == v4) {
                let local = here.name.is_some() && endpoint.node_name.as_deref() == here.name;
                let entry = found.entry((endpoint.address, slice_port.port)).or_insert((endpoint, local));
                if local && !entry.1 {
                    *entry = (endpoint, true);
                }
            }
        }
    }
    let topology = Topology::new(found.values().map(|(endpoint, _)| *endpoint), here);
    let mut list: Vec<Endpoint> = found
        .into_iter()
        .map(|((address, port), (raw, local))| Endpoint {
            weight: raw.weight,
            ready: raw.ready,
            fallback: raw.fallback,
            local,
            hinted: !raw.ready || topology.admits(raw, here),
            ..Endpoint::new(address, port)
        })
        .collect();
    list.sort_by_cached_key(sort_key);
    list
}

/// Sorts as `socket_text` does: zero bytes fill a shorter text up. IPv4 texts, which are most of a cluster's, are written
/// without the formatting machinery, which would take a tenth of the time of reading a manifest.
fn sort_key(endpoint: &Endpoint) -> [u8; LONGEST_SOCKET] {
    let mut key = [0; LONGEST_SOCKET];
    let mut room = key.iter_mut();
    let mut put = |byte: u8| {
        if let Some(place) = room.next() {
            *place = byte;
        }
    };
    let IpAddr::V4(address) = endpoint.address else {
        socket_text(endpoint.address, endpoint.port).bytes().for_each(put);
        return key;
    };
    let numbers = address.octets().map(u16::from).into_iter().zip(*b"...:").chain([(endpoint.port, 0)]);
    for (number, behind) in numbers {
        let digits = [10_000, 1_000, 100, 10, 1].into_iter().filter(|unit| *unit == 1 || number >= *unit);
        for unit in digits {
            put(b'0' + u8::try_from(number / unit % 10).unwrap_or(0));
        }
        put(behind);
    }
    key
}

/// The longest text of an address and a port, in bytes: `[2001:db8:…:ffff]:65535`.
const LONGEST_SOCKET: usize = "[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535".len();

/// Which kind of topology hint applies to a list of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topology {
    Node,
    Zone,
    Off,
}

impl Topology {
    /// A kind applies if every ready endpoint has such a hint and one of them means here; nodes before zones.
    fn new<'e>(endpoints: impl Iterator<Item = &'e RawEndpoint>, here: Here<'_>) -> Self {
        let ready: Vec<&RawEndpoint> = endpoints.filter(|endpoint| endpoint.ready).collect();
        let applies = |kind: Self, hinted: fn(&RawEndpoint) -> bool| {
            ready.iter().all(|e| hinted(e)) && ready.iter().any(|e| kind.admits(e, here))
        };
        if applies(Self::Node, |e| !e.for_nodes.is_empty()) {
            Self::Node
        } else if applies(Self::Zone, |e| !e.for_zones.is_empty()) {
            Self::Zone
        } else {
            Self::Off
        }
    }

    fn admits(self, endpoint: &RawEndpoint, here: Here<'_>) -> bool {
        let names = |list: &[String], name: Option<&str>| name.is_some_and(|name| list.iter().any(|n| n == name));
        match self {
            Self::Node => names(&endpoint.for_nodes, here.name),
            Self::Zone => names(&endpoint.for_zones, here.zone),
            Self::Off => true,
        }
    }
}

/// The host names of all Ingresses, by what they ride on.
struct Hosts<'a> {
    by_backend: HashMap<(&'a str, &'a str), Vec<(&'a RoutePort, &'a str)>>,
    by_address: HashMap<IpAddr, Vec<&'a str>>,
}

impl<'a> Hosts<'a> {
    fn new(ingresses: &[&'a RawIngress]) -> Self {
        let mut hosts = Self { by_backend: HashMap::new(), by_address: HashMap::new() };
        for &ingress in ingresses {
            for route in &ingress.routes {
                let key = (ingress.meta.namespace.as_str(), route.service.as_str());
                hosts.by_backend.entry(key).or_default().push((&route.port, &route.host));
                for address in &ingress.addresses {
                    hosts.by_address.entry(*address).or_default().push(&route.host);
                }
            }
        }
        hosts
    }

    /// Hosts whose requests end at this port, and, for the Service of an ingress controller, those that enter by it.
    fn of(&self, service: &RawService, port: &RawPort) -> Vec<String> {
        let own = service.hosts.iter().filter(|(name, protocol, _)| *name == port.name && *protocol == port.protocol);
        let own: Vec<&str> = own.map(|(_, _, host)| host.as_str()).collect();
        let mut found = BTreeSet::new();
        let key = (service.meta.namespace.as_str(), service.meta.name.as_str());
        for (route_port, host) in self.by_backend.get(&key).into_iter().flatten() {
            let same = match route_port {
                RoutePort::Name(name) => *name == port.name,
                RoutePort::Number(number) => *number == port.port,
            };
            if same {
                found.insert(*host);
            }
        }
        if port.protocol == Protocol::Tcp {
            for (ip, _) in &service.load_balancer_ips {
                found.extend(self.by_address.get(ip).into_iter().flatten());
            }
        }
        found.retain(|host| !own.contains(host));
        own.into_iter().chain(found).map(str::to_owned).collect()
    }
}

fn given_once<'m>(kind: &str, objects: impl Iterator<Item = &'m Meta>, sink: &mut Sink) {
    let mut first: HashMap<(&str, &str), &Meta> = HashMap::new();
    for meta in objects {
        let key = (meta.namespace.as_str(), meta.name.as_str());
        match first.get(&key) {
            Some(before) => sink.push(
                Diagnostic::error(format!("{kind} {}/{} is given twice", meta.namespace, meta.name))
                    .at(meta.place.clone(), "again here")
                    .at(before.place.clone(), "first here")
                    .help("leave one of the two out"),
            ),
            None => {
                first.insert(key, meta);
            }
        }
    }
}

/// A Local policy on an unknown node has no endpoint at all: say so.
fn needs_node(service: &RawService, here: Here<'_>, sink: &mut Sink) {
    let local = service.internal_policy == Policy::Local || service.external_policy == Policy::Local;
    if local && here.name.is_none() {
        sink.push(
            Diagnostic::warning(format!(
                "{}/{} keeps traffic on this node (policy Local), but which node this is is not known",
                service.meta.namespace, service.meta.name
            ))
            .at(service.meta.place.clone(), "none of its endpoints counts as local")
            .help("say --node-name NAME, or give the Node object"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_sort_as_their_texts() {
        let addresses = ["0.0.0.0", "1.2.3.4", "10.0.0.1", "10.0.0.10", "10.0.0.2", "100.20.3.255", "255.255.255.255"];
        let v6 = ["2001:db8::1", "2001:db8::a:1", "::ffff:0:192.0.2.1", "2001:db8:1111:2222:3333:4444:5555:6666"];
        let sockets: Vec<Endpoint> = (addresses.into_iter().chain(v6))
            .flat_map(|text| {
                [1, 9, 80, 800, 8080, 10_000, 65_535].map(|port| (text.parse().expect("an address"), port))
            })
            .map(|(address, port)| Endpoint::new(address, port))
            .collect();
        for a in &sockets {
            for b in &sockets {
                let texts = socket_text(a.address, a.port).cmp(&socket_text(b.address, b.port));
                assert_eq!(sort_key(a).cmp(&sort_key(b)), texts, "{a:?} {b:?}");
            }
        }
    }
}
