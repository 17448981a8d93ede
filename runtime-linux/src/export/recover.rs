//! From a program back to a service table that compiles to the same content id.
//!
//! A program keeps the endpoints that it uses, not the conditions that they were chosen by. So conditions are made up that
//! lead to the same lists:
//!
//! | in the Cluster list | in the Local list | becomes |
//! | --- | --- | --- |
//! | yes | no | ready, on another node |
//! | yes | yes | ready, on this node |
//! | no | yes | on this node: ready, where there is no Cluster list; terminating, where no ready endpoint is here; else ready and passed over by the topology hints |
//!
//! Where a program keeps no endpoint but knows that some exist elsewhere (internal policy Local, none here: connections are
//! dropped, not rejected), one [placeholder](is_placeholder) on another node stands for them.

use super::ExportError;
use crate::source::{NodeBuf, ServiceBuf, TableBuf};
use natlet_core::{Endpoint, Frontend, Policy, Program, Record};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What stands for endpoints elsewhere that the program does not keep: the dummy address of RFC 7600 §4.8.
const DUMMY4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// The same in IPv6: of the discard prefix of RFC 6666.
const DUMMY6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 8);
/// The discard port (RFC 863).
const DUMMY_PORT: u16 = 9;

/// Whether an endpoint stands for others elsewhere. No connection is ever sent to it.
pub fn is_placeholder(endpoint: &Endpoint) -> bool {
    endpoint.port == DUMMY_PORT && (endpoint.address == DUMMY4 || endpoint.address == DUMMY6)
}

/// The node and the service ports, in the order of names and protocols.
pub(super) struct Recovered {
    pub node: NodeBuf,
    pub services: Vec<ServiceBuf>,
}

impl Recovered {
    /// As a table.
    pub fn table(&self) -> TableBuf {
        let mut table = TableBuf::default();
        table.node = self.node.clone();
        self.services.iter().for_each(|s| table.push(s));
        table
    }
}

/// The table that a program was compiled from, as far as it decides anything.
pub fn table(program: &Program<'_>) -> Result<TableBuf, ExportError> {
    recover(program).map(|recovered| recovered.table())
}

pub(super) fn recover(program: &Program<'_>) -> Result<Recovered, ExportError> {
    let mut frontends: HashMap<u32, Vec<Frontend>> = HashMap::new();
    for f in program.frontends() {
        let frontend = Frontend { kind: f.kind, address: f.address, port: f.port };
        frontends.entry(f.record.offset()).or_default().push(frontend);
    }
    let mut services: Vec<ServiceBuf> = Vec::new();
    for (record, name) in program.services() {
        let name = name.ok_or(ExportError::NoNames)?;
        let other = |s: &ServiceBuf| s.name != name.name || s.protocol != name.protocol;
        if services.last().is_none_or(other) {
            services.push(ServiceBuf {
                name: name.name.into(),
                protocol: name.protocol,
                service_type: name.service_type,
                affinity_timeout: record.affinity_timeout().unwrap_or(0),
                choice: record.choice(),
                health_check_node_port: record.health_check_node_port().unwrap_or(0),
                hosts: name.hosts.split(',').filter(|h| !h.is_empty()).map(str::to_owned).collect(),
                ..ServiceBuf::default()
            });
        }
        let Some(service) = services.last_mut() else { continue };
        if record.internal_policy() == Policy::Local {
            service.internal_policy = Policy::Local;
        }
        if record.external_policy() == Policy::Local {
            service.external_policy = Policy::Local;
        }
        let mut own = frontends.remove(&record.offset()).unwrap_or_default();
        own.sort_unstable_by_key(|f| (f.kind, f.address, f.port));
        service.frontends.extend(own);
        service.source_ranges.extend(record.source_ranges().into_iter().flatten());
        service.endpoints.extend(endpoints(&record));
    }
    Ok(Recovered { node: node(program), services })
}

fn node(program: &Program<'_>) -> NodeBuf {
    let context = program.context();
    NodeBuf {
        name: program.node_name().into(),
        addresses: context.addresses().collect(),
        cluster_cidrs: context.cluster_cidrs().collect(),
        service_cidrs: context.service_cidrs().collect(),
        node_port_cidrs: context.node_port_cidrs().collect(),
        masquerade_all: context.masquerade_all(),
        localhost_node_ports: context.localhost_node_ports(),
    }
}

/// Endpoints with conditions that lead to the record's lists.
fn endpoints(record: &Record<'_>) -> Vec<Endpoint> {
    let all = record.endpoints();
    if all.is_empty() && record.any_usable() {
        let address: IpAddr = if record.is_v6() { DUMMY6.into() } else { DUMMY4.into() };
        return vec![Endpoint::new(address, DUMMY_PORT)];
    }
    let (cluster, local_from) = (record.cluster().len(), all.len() - record.local().len());
    let ready_here = local_from < cluster;
    let one = |(i, e): (usize, natlet_core::RecordEndpoint)| {
        let (in_cluster, local) = (i < cluster, i >= local_from);
        let passed_over = cluster > 0 && !in_cluster;
        Endpoint {
            weight: e.weight,
            local,
            ready: !passed_over || ready_here,
            fallback: passed_over && !ready_here,
            hinted: !(passed_over && ready_here),
            ..Endpoint::new(e.address.ip(), e.address.port())
        }
    };
    all.iter().enumerate().map(one).collect()
}
