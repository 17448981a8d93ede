//! A program as people see it: services with their frontends and endpoints, sorted and grouped.

use natlet_core::{FrontendKind, Name, Program, Protocol, Record, RecordEndpoint, ServiceType};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

/// A service port, its IPv4 and IPv6 parts together.
#[derive(Clone, Debug)]
pub struct ServicePort<'a> {
    /// `namespace/name` or `namespace/name:port`; `service-N` where names are stripped.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// `type`.
    pub service_type: ServiceType,
    /// Hosts of Ingress rules that ride on it.
    pub hosts: Vec<&'a str>,
    /// Its frontends: ClusterIPs, load-balancer, external IPs, NodePorts, each by address.
    pub frontends: Vec<FrontendView>,
    /// Its record in each family, IPv4 first.
    pub records: Vec<Record<'a>>,
}

/// A frontend of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrontendView {
    /// Kind.
    pub kind: FrontendKind,
    /// Address; unspecified for a NodePort.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
}

impl ServicePort<'_> {
    /// `namespace`, `name` and the port's name, which may be empty.
    pub fn parts(&self) -> (&str, &str, &str) {
        split_name(&self.name)
    }

    /// Frontends of one kind.
    pub fn of_kind(&self, kind: FrontendKind) -> impl Iterator<Item = &FrontendView> {
        self.frontends.iter().filter(move |f| f.kind == kind)
    }

    /// The port that clients use; a service with nothing but a NodePort has that one.
    pub fn port(&self) -> u16 {
        let vip = self.frontends.iter().find(|f| f.kind != FrontendKind::NodePort);
        vip.or(self.frontends.first()).map_or(0, |f| f.port)
    }

    /// The node port, if it has one.
    pub fn node_port(&self) -> Option<u16> {
        self.of_kind(FrontendKind::NodePort).map(|f| f.port).next()
    }

    /// Endpoints of both lists and families with their share of Cluster traffic (0 for endpoints of the Local list only),
    /// in kube-proxy's order: by the text of address and port.
    pub fn endpoints(&self) -> Vec<(RecordEndpoint, f64)> {
        let mut all = Vec::new();
        for record in &self.records {
            let cluster = record.cluster();
            let slots = f64::from(cluster.slots());
            for (i, e) in record.endpoints().iter().enumerate() {
                let share = if i < cluster.len() { f64::from(e.weight) / slots } else { 0.0 };
                all.push((e, share));
            }
        }
        all.sort_by_cached_key(|(e, _)| (e.address.is_ipv6(), e.address.to_string()));
        all
    }

    /// Endpoints of the Local lists.
    pub fn local_endpoints(&self) -> impl Iterator<Item = SocketAddr> {
        self.records.iter().flat_map(|r| r.local().iter().map(|e| e.address))
    }
}

/// A service's type as Kubernetes writes it.
pub const fn type_name(service_type: ServiceType) -> &'static str {
    match service_type {
        ServiceType::ClusterIp => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    }
}

/// `namespace/name:port` in its parts.
pub fn split_name(name: &str) -> (&str, &str, &str) {
    let (namespace, rest) = name.split_once('/').unwrap_or(("", name));
    let (service, port) = rest.split_once(':').unwrap_or((rest, ""));
    (namespace, service, port)
}

/// All service ports of a program, by name and protocol.
pub fn service_ports<'a>(program: &Program<'a>) -> Vec<ServicePort<'a>> {
    let mut ports: BTreeMap<(String, Protocol), ServicePort<'a>> = BTreeMap::new();
    let mut frontends: HashMap<u32, Vec<(FrontendView, Protocol)>> = HashMap::new();
    for f in program.frontends() {
        let view = FrontendView { kind: f.kind, address: f.address, port: f.port };
        frontends.entry(f.record.offset()).or_default().push((view, f.protocol));
    }
    for (record, name) in program.services() {
        let own = frontends.remove(&record.offset()).unwrap_or_default();
        let name = name.unwrap_or(Name {
            name: "",
            protocol: own.first().map_or(Protocol::Tcp, |(_, p)| *p),
            service_type: ServiceType::ClusterIp,
            hosts: "",
        });
        let text = if name.name.is_empty() { format!("service-{}", record.offset()) } else { name.name.into() };
        let port = ports.entry((text.clone(), name.protocol)).or_insert_with(|| ServicePort {
            name: text,
            protocol: name.protocol,
            service_type: name.service_type,
            hosts: name.hosts.split(',').filter(|h| !h.is_empty()).collect(),
            frontends: Vec::new(),
            records: Vec::new(),
        });
        port.records.push(record);
        port.frontends.extend(own.into_iter().map(|(view, _)| view));
        port.frontends.sort_unstable_by_key(|f| (order(f.kind), f.address, f.port));
    }
    ports.into_values().collect()
}

const fn order(kind: FrontendKind) -> u8 {
    match kind {
        FrontendKind::ClusterIp => 0,
        FrontendKind::LoadBalancer => 1,
        FrontendKind::ExternalIp => 2,
        FrontendKind::NodePort => 3,
    }
}
