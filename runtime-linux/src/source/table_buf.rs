//! A service table in `Vec`s, and the checks that every table passes whatever it was read from.

use super::diagnostic::{Diagnostic, Place, Sink};
use natlet_core::table::{
    Choice, Cidr, Endpoint, Frontend, FrontendKind, Node, Policy, Protocol, Service, ServiceTable, ServiceType, Span,
};
use std::collections::HashMap;
use std::net::IpAddr;

/// A service table that owns its memory. Fill it with [`push`](Self::push), read it with [`as_table`](Self::as_table).
///
/// ```
/// use natlet::source::{ServiceBuf, TableBuf};
/// use natlet_core::table::{Endpoint, Frontend, FrontendKind};
///
/// let mut table = TableBuf::default();
/// table.push(&ServiceBuf {
///     name: "shop/web".into(),
///     frontends: vec![Frontend { kind: FrontendKind::ClusterIp, address: [10, 96, 0, 7].into(), port: 80 }],
///     endpoints: vec![Endpoint::new([10, 0, 0, 1].into(), 8080)],
///     ..ServiceBuf::default()
/// });
/// let table = table.as_table();
/// assert_eq!(table.name(&table.services[0]), "shop/web");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableBuf {
    /// The node that the table is for.
    pub node: NodeBuf,
    services: Vec<Service>,
    frontends: Vec<Frontend>,
    endpoints: Vec<Endpoint>,
    ranges: Vec<Cidr>,
    text: String,
}

/// [`Node`], owned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeBuf {
    /// Its name, empty if unknown.
    pub name: String,
    /// Its addresses, the primary of each family first.
    pub addresses: Vec<IpAddr>,
    /// Pod addresses of the cluster.
    pub cluster_cidrs: Vec<Cidr>,
    /// Service addresses of the cluster.
    pub service_cidrs: Vec<Cidr>,
    /// Where NodePorts accept.
    pub node_port_cidrs: Vec<Cidr>,
    /// Masquerade all ClusterIP traffic.
    pub masquerade_all: bool,
    /// NodePorts answer on 127.0.0.0/8 too.
    pub localhost_node_ports: bool,
}

/// One service port, owned: [`Service`] with its parts in place of spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceBuf {
    /// `namespace/name` or `namespace/name:port`.
    pub name: String,
    /// Protocol of all its frontends.
    pub protocol: Protocol,
    /// `type`, for people.
    pub service_type: ServiceType,
    /// Where clients reach it.
    pub frontends: Vec<Frontend>,
    /// Where connections are sent.
    pub endpoints: Vec<Endpoint>,
    /// `internalTrafficPolicy`.
    pub internal_policy: Policy,
    /// `externalTrafficPolicy`.
    pub external_policy: Policy,
    /// Session affinity in seconds, 0 for none.
    pub affinity_timeout: u32,
    /// How an endpoint is chosen.
    pub choice: Choice,
    /// `loadBalancerSourceRanges`.
    pub source_ranges: Vec<Cidr>,
    /// `healthCheckNodePort`, 0 for none.
    pub health_check_node_port: u16,
    /// Host names of Ingress rules that ride on it.
    pub hosts: Vec<String>,
}

impl TableBuf {
    /// Adds a service port. Nothing is checked: the compiler does that.
    pub fn push(&mut self, service: &ServiceBuf) {
        let name = self.push_text(&service.name);
        let hosts = self.push_text(&service.hosts.join(","));
        self.services.push(Service {
            name,
            protocol: service.protocol,
            service_type: service.service_type,
            frontends: append(&mut self.frontends, &service.frontends),
            endpoints: append(&mut self.endpoints, &service.endpoints),
            internal_policy: service.internal_policy,
            external_policy: service.external_policy,
            affinity_timeout: service.affinity_timeout,
            choice: service.choice,
            source_ranges: append(&mut self.ranges, &service.source_ranges),
            health_check_node_port: service.health_check_node_port,
            hosts,
        });
    }

    /// The table, borrowed.
    pub fn as_table(&self) -> ServiceTable<'_> {
        ServiceTable {
            node: Node {
                name: &self.node.name,
                addresses: &self.node.addresses,
                cluster_cidrs: &self.node.cluster_cidrs,
                service_cidrs: &self.node.service_cidrs,
                node_port_cidrs: &self.node.node_port_cidrs,
                masquerade_all: self.node.masquerade_all,
                localhost_node_ports: self.node.localhost_node_ports,
            },
            services: &self.services,
            frontends: &self.frontends,
            endpoints: &self.endpoints,
            ranges: &self.ranges,
            text: &self.text,
        }
    }

    /// The same table without one of its service ports.
    #[must_use]
    pub fn without(&self, service: u32) -> Self {
        let mut rest = Self { node: self.node.clone(), ..Self::default() };
        for (index, service_port) in self.services().iter().enumerate() {
            if index != service as usize {
                rest.push(service_port);
            }
        }
        rest
    }

    /// The same table with other service ports in place of those whose names `is_old` tells. Both tables are sorted as
    /// [`assemble`] sorts them, and so is the result.
    #[must_use]
    pub(super) fn with(&self, is_old: impl Fn(&str) -> bool, new: &Self) -> Self {
        let mut all = Self {
            node: self.node.clone(),
            services: Vec::with_capacity(self.services.len() + new.services.len()),
            frontends: Vec::with_capacity(self.frontends.len() + new.frontends.len()),
            endpoints: Vec::with_capacity(self.endpoints.len() + new.endpoints.len()),
            ranges: Vec::with_capacity(self.ranges.len() + new.ranges.len()),
            text: String::with_capacity(self.text.len() + new.text.len()),
        };
        let mut new_ports = new.services.iter().peekable();
        for old in self.services.iter().filter(|port| !is_old(self.name(port))) {
            let key = (self.name(old), old.protocol);
            while let Some(port) = new_ports.next_if(|port| (new.name(port), port.protocol) < key) {
                all.copy(new, port);
            }
            all.copy(self, old);
        }
        new_ports.for_each(|port| all.copy(new, port));
        all
    }

    /// Adds another table's service port.
    fn copy(&mut self, from: &Self, port: &Service) {
        let text = |span: Span| span.of_str(&from.text).unwrap_or_default();
        let service = Service {
            name: self.push_text(text(port.name)),
            hosts: self.push_text(text(port.hosts)),
            frontends: append(&mut self.frontends, port.frontends.of(&from.frontends).unwrap_or_default()),
            endpoints: append(&mut self.endpoints, port.endpoints.of(&from.endpoints).unwrap_or_default()),
            source_ranges: append(&mut self.ranges, port.source_ranges.of(&from.ranges).unwrap_or_default()),
            ..*port
        };
        self.services.push(service);
    }

    fn name(&self, port: &Service) -> &str {
        port.name.of_str(&self.text).unwrap_or_default()
    }

    /// Those service ports whose names are told.
    pub(super) fn ports_of(&self, is_one: impl Fn(&str) -> bool) -> Vec<ServiceBuf> {
        self.services.iter().filter(|port| is_one(self.name(port))).map(|port| self.one(port)).collect()
    }

    /// The service ports, each with its parts: for tests and exports.
    pub fn services(&self) -> Vec<ServiceBuf> {
        self.services.iter().map(|port| self.one(port)).collect()
    }

    fn one(&self, s: &Service) -> ServiceBuf {
        let hosts = s.hosts.of_str(&self.text).unwrap_or("");
        ServiceBuf {
            name: self.name(s).to_owned(),
            protocol: s.protocol,
            service_type: s.service_type,
            frontends: s.frontends.of(&self.frontends).unwrap_or(&[]).to_vec(),
            endpoints: s.endpoints.of(&self.endpoints).unwrap_or(&[]).to_vec(),
            internal_policy: s.internal_policy,
            external_policy: s.external_policy,
            affinity_timeout: s.affinity_timeout,
            choice: s.choice,
            source_ranges: s.source_ranges.of(&self.ranges).unwrap_or(&[]).to_vec(),
            health_check_node_port: s.health_check_node_port,
            hosts: hosts.split(',').filter(|h| !h.is_empty()).map(str::to_owned).collect(),
        }
    }

    fn push_text(&mut self, text: &str) -> Span {
        let span = span(self.text.len(), text.len());
        self.text.push_str(text);
        span
    }
}

fn append<T: Clone>(all: &mut Vec<T>, some: &[T]) -> Span {
    let span = span(all.len(), some.len());
    all.extend_from_slice(some);
    span
}

/// Inputs are bounded far below 4 Gi entries; past that a span reads as empty, which the compiler refuses or ignores.
fn span(start: usize, len: usize) -> Span {
    match (u32::try_from(start), u32::try_from(len)) {
        (Ok(start), Ok(len)) => Span { start, len },
        _ => Span::default(),
    }
}

/// A service port on its way to the table, with the places it came from.
#[derive(Debug)]
pub(super) struct Draft {
    pub service: ServiceBuf,
    /// Where it is named.
    pub place: Place,
    /// Where each of `service.frontends` stands.
    pub frontend_places: Vec<Place>,
}

impl Draft {
    /// Adds a frontend; one that the service has already (an external IP that is also its load balancer's) counts once.
    pub fn add_frontend(&mut self, kind: FrontendKind, address: IpAddr, port: u16, place: Place) {
        if !self.service.frontends.iter().any(|f| f.address == address && f.port == port) {
            self.service.frontends.push(Frontend { kind, address, port });
            self.frontend_places.push(place);
        }
    }
}

/// The table of these services, sorted by name and protocol. Names and frontends that are claimed twice are filed as
/// problems that name both claims.
pub(super) fn assemble(mut drafts: Vec<Draft>, node: NodeBuf, sink: &mut Sink) -> TableBuf {
    claimed_once(&drafts, sink);
    drafts.sort_by(|a, b| (&a.service.name, a.service.protocol).cmp(&(&b.service.name, b.service.protocol)));
    let mut table = TableBuf { node, ..TableBuf::default() };
    for draft in &drafts {
        table.push(&draft.service);
    }
    table
}

fn claimed_once(drafts: &[Draft], sink: &mut Sink) {
    let mut names: HashMap<(&str, Protocol), &Draft> = HashMap::new();
    let mut frontends: HashMap<(IpAddr, Protocol, u16), (&Draft, &Place)> = HashMap::new();
    for draft in drafts {
        let service = &draft.service;
        if let Some(first) = names.get(&(service.name.as_str(), service.protocol)) {
            sink.push(
                Diagnostic::error(format!("the service {} ({}) is given twice", service.name, service.protocol))
                    .at(draft.place.clone(), "again here")
                    .at(first.place.clone(), "first here")
                    .help("remove or rename one of the two"),
            );
            continue; // its frontends would clash with themselves
        }
        names.insert((&service.name, service.protocol), draft);
        for (frontend, place) in service.frontends.iter().zip(&draft.frontend_places) {
            let claim = (frontend.address, service.protocol, frontend.port);
            match frontends.get(&claim) {
                Some((first, first_place)) => sink.push(
                    Diagnostic::error(format!(
                        "two services claim {}: {} and {}",
                        frontend_text(frontend, service.protocol),
                        first.service.name,
                        service.name
                    ))
                    .at(place.clone(), format!("claimed by {}", service.name))
                    .at((*first_place).clone(), format!("and by {}", first.service.name))
                    .help("give one of the two another address or port"),
                ),
                None => {
                    frontends.insert(claim, (draft, place));
                }
            }
        }
    }
}

/// A frontend for a message: `192.0.2.1:80/tcp`, `node port 30080/tcp (IPv4)`.
fn frontend_text(frontend: &Frontend, protocol: Protocol) -> String {
    if frontend.kind == FrontendKind::NodePort {
        let family = if frontend.address.is_ipv4() { "IPv4" } else { "IPv6" };
        return format!("node port {}/{protocol} ({family})", frontend.port);
    }
    format!("{}/{protocol}", super::address::socket_text(frontend.address, frontend.port))
}
