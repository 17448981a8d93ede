//! What load balancers ask a node: `healthCheckNodePort`, for services with external policy Local.

use super::status::HealthCheck;
use crate::view::{ServicePort, service_ports};
use natlet_core::Program;
use natlet_core::table::Policy;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The health checks of a program. All ports of a service share one; an address counts once.
pub fn checks(program: &Program<'_>) -> Vec<HealthCheck> {
    let ports = service_ports(program);
    let mut found: BTreeMap<u16, (&ServicePort<'_>, BTreeSet<IpAddr>)> = BTreeMap::new();
    for port in &ports {
        for record in port.records.iter().filter(|r| r.external_policy() == Policy::Local) {
            if let Some(number) = record.health_check_node_port() {
                let (_, local) = found.entry(number).or_insert_with(|| (port, BTreeSet::new()));
                local.extend(record.local().iter().map(|e| e.address.ip()));
            }
        }
    }
    let check = |(number, (port, local)): (u16, (&ServicePort<'_>, BTreeSet<IpAddr>))| {
        let (namespace, name, _) = port.parts();
        HealthCheck { port: number, namespace: namespace.into(), name: name.into(), local_endpoints: local.len() }
    };
    found.into_iter().map(check).collect()
}

/// The node's addresses that take NodePort traffic; empty where it is not restricted.
pub fn addresses(program: &Program<'_>) -> Vec<IpAddr> {
    let context = program.context();
    let takes = |address: &IpAddr| context.node_port_cidrs().any(|c| c.contains(*address));
    if context.node_port_cidrs().next().is_none() { Vec::new() } else { context.addresses().filter(takes).collect() }
}
