//! A table builder on `Vec`s, and compilation into one, for the tests of core.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    clippy::pedantic,
    missing_docs,
    reason = "test helper, shared"
)]

pub mod checks;
pub mod packet;
pub mod random;
pub mod rig;

use natlet_core::{
    Choice, Cidr, CompileError, Endpoint, Frontend, FrontendKind, Node, Policy, Protocol, Service, ServiceTable,
    ServiceType, Span, compile, max_len, scratch_len,
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
    pub choice: Choice,
    pub service_type: ServiceType,
    pub health_check: u16,
    pub hosts: String,
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
            choice: Choice::Random,
            service_type: ServiceType::ClusterIp,
            health_check: 0,
            hosts: String::new(),
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

/// The slices of a table.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    pub node: NodeSpec,
    pub services: Vec<Service>,
    pub frontends: Vec<Frontend>,
    pub endpoints: Vec<Endpoint>,
    pub ranges: Vec<Cidr>,
    pub text: String,
}

impl Tables {
    pub fn new(node: &NodeSpec, services: &[ServiceSpec]) -> Self {
        let mut t = Self { node: node.clone(), ..Self::default() };
        let span = |start: usize, end: usize| Span { start: start as u32, len: (end - start) as u32 };
        for s in services {
            let at = (t.text.len(), t.frontends.len(), t.endpoints.len(), t.ranges.len());
            t.text.push_str(&s.name);
            let name_end = t.text.len();
            t.text.push_str(&s.hosts);
            t.frontends.extend(s.frontends.iter().map(|&(kind, address, port)| Frontend { kind, address, port }));
            t.endpoints.extend(&s.endpoints);
            t.ranges.extend(&s.ranges);
            t.services.push(Service {
                name: span(at.0, name_end),
                protocol: s.protocol,
                service_type: s.service_type,
                frontends: span(at.1, t.frontends.len()),
                endpoints: span(at.2, t.endpoints.len()),
                internal_policy: s.internal,
                external_policy: s.external,
                affinity_timeout: s.affinity,
                choice: s.choice,
                source_ranges: span(at.3, t.ranges.len()),
                health_check_node_port: s.health_check,
                hosts: span(name_end, t.text.len()),
            });
        }
        t
    }

    pub fn as_table(&self) -> ServiceTable<'_> {
        ServiceTable {
            node: Node {
                name: "node-1",
                addresses: &self.node.addresses,
                cluster_cidrs: &self.node.cluster,
                service_cidrs: &self.node.service,
                node_port_cidrs: &self.node.node_port,
                masquerade_all: self.node.masquerade_all,
                localhost_node_ports: self.node.localhost,
            },
            services: &self.services,
            frontends: &self.frontends,
            endpoints: &self.endpoints,
            ranges: &self.ranges,
            text: &self.text,
        }
    }
}

/// Compiles in exactly the room that the crate asks for.
pub fn compile_table(table: &ServiceTable<'_>) -> Result<Vec<u8>, CompileError> {
    let mut scratch = vec![0; scratch_len(table)];
    let mut out = vec![0; max_len(table)];
    let len = compile(table, &mut scratch, &mut out)?;
    out.truncate(len);
    Ok(out)
}

pub fn try_build(node: &NodeSpec, services: &[ServiceSpec]) -> Result<Vec<u8>, CompileError> {
    compile_table(&Tables::new(node, services).as_table())
}

pub fn build(node: &NodeSpec, services: &[ServiceSpec]) -> Vec<u8> {
    try_build(node, services).unwrap()
}

/// The program without names.
pub fn strip(bytes: &[u8]) -> Vec<u8> {
    let program = natlet_core::Program::new_checked(bytes).unwrap();
    let mut out = vec![0; bytes.len()];
    let len = natlet_core::strip_names(&program, &mut out).unwrap();
    out.truncate(len);
    out
}
