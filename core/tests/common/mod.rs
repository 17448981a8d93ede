//! A table builder on `Vec`s, and compilation into one, for the tests of core.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::arithmetic_side_effects,
    reason = "test helper, shared"
)]

use natlet_core::{
    Cidr, CompileError, Endpoint, Frontend, FrontendKind, Node, Policy, Protocol, Service, ServiceTable, Span, compile,
    max_len, scratch_len,
};
use std::net::IpAddr;

#[derive(Clone, Debug, Default)]
pub struct NodeSpec {
    pub addresses: Vec<IpAddr>,
    pub cluster: Vec<Cidr>,
    pub service: Vec<Cidr>,
    pub node_port: Vec<Cidr>,
    pub masquerade_all: bool,
    pub localhost: bool,
}

#[derive(Clone, Debug)]
pub struct ServiceSpec {
    pub name: String,
    pub protocol: Protocol,
    pub frontends: Vec<(FrontendKind, IpAddr, u16)>,
    pub endpoints: Vec<Endpoint>,
    pub internal: Policy,
    pub external: Policy,
    pub ranges: Vec<Cidr>,
    pub affinity: u32,
}

impl ServiceSpec {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            protocol: Protocol::Tcp,
            frontends: vec![],
            endpoints: vec![],
            internal: Policy::Cluster,
            external: Policy::Cluster,
            ranges: vec![],
            affinity: 0,
        }
    }

    pub fn frontend(mut self, kind: FrontendKind, address: &str, port: u16) -> Self {
        self.frontends.push((kind, ip(address), port));
        self
    }

    pub fn endpoint(mut self, address: &str, port: u16) -> Self {
        self.endpoints.push(Endpoint::new(ip(address), port));
        self
    }

    pub fn local_endpoint(mut self, address: &str, port: u16) -> Self {
        self.endpoints.push(Endpoint { local: true, ..Endpoint::new(ip(address), port) });
        self
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn cidr(text: &str) -> Cidr {
    let (address, prefix) = text.split_once('/').unwrap();
    Cidr::new(ip(address), prefix.parse().unwrap()).unwrap()
}

pub fn try_build(node: &NodeSpec, services: &[ServiceSpec]) -> Result<Vec<u8>, CompileError> {
    let (mut all, mut frontends, mut endpoints, mut ranges, mut text) = (vec![], vec![], vec![], vec![], String::new());
    let span = |start: usize, end: usize| Span { start: start as u32, len: (end - start) as u32 };
    for s in services {
        let at = (text.len(), frontends.len(), endpoints.len(), ranges.len());
        text.push_str(&s.name);
        frontends.extend(s.frontends.iter().map(|&(kind, address, port)| Frontend { kind, address, port }));
        endpoints.extend(&s.endpoints);
        ranges.extend(&s.ranges);
        all.push(Service {
            name: span(at.0, text.len()),
            protocol: s.protocol,
            frontends: span(at.1, frontends.len()),
            endpoints: span(at.2, endpoints.len()),
            source_ranges: span(at.3, ranges.len()),
            internal_policy: s.internal,
            external_policy: s.external,
            affinity_timeout: s.affinity,
            ..Service::default()
        });
    }
    let table = ServiceTable {
        node: Node {
            name: "node-1",
            addresses: &node.addresses,
            cluster_cidrs: &node.cluster,
            service_cidrs: &node.service,
            node_port_cidrs: &node.node_port,
            masquerade_all: node.masquerade_all,
            localhost_node_ports: node.localhost,
        },
        services: &all,
        frontends: &frontends,
        endpoints: &endpoints,
        ranges: &ranges,
        text: &text,
    };
    let mut scratch = vec![0; scratch_len(&table)];
    let mut out = vec![0; max_len(&table)];
    let len = compile(&table, &mut scratch, &mut out)?;
    out.truncate(len);
    Ok(out)
}

pub fn build(node: &NodeSpec, services: &[ServiceSpec]) -> Vec<u8> {
    try_build(node, services).unwrap()
}
