//! What load balancers ask a node: `healthCheckNodePort`, for services with external policy Local.

use super::status::HealthCheck;
use crate::view::split_name;
use natlet_core::Program;
use natlet_core::table::{Policy, ServiceTable};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The health checks of a table. All ports of a service share one; an address counts once, and only while it is ready
/// and on this node.
pub fn of_table(table: &ServiceTable<'_>) -> Vec<HealthCheck> {
    let mut found = Found::default();
    for service in table.services.iter().filter(|s| s.external_policy == Policy::Local) {
        if service.health_check_node_port != 0 {
            let endpoints = service.endpoints.of(table.endpoints).unwrap_or_default();
            let local = endpoints.iter().filter(|e| e.local && e.ready).map(|e| e.address);
            found.add(service.health_check_node_port, table.name(service), local);
        }
    }
    found.finish()
}

/// The health checks of a compiled program, which does not tell ready endpoints from terminating ones.
pub fn of_program(program: &Program<'_>) -> Vec<HealthCheck> {
    let mut found = Found::default();
    for (record, name) in program.services().filter(|(r, _)| r.external_policy() == Policy::Local) {
        if let Some(port) = record.health_check_node_port() {
            found.add(port, name.map_or("", |n| n.name), record.local().iter().map(|e| e.address.ip()));
        }
    }
    found.finish()
}

/// By port: the service's name, and addresses of its endpoints.
#[derive(Default)]
struct Found<'a>(BTreeMap<u16, (&'a str, BTreeSet<IpAddr>)>);

impl<'a> Found<'a> {
    fn add(&mut self, port: u16, name: &'a str, local: impl Iterator<Item = IpAddr>) {
        self.0.entry(port).or_insert_with(|| (name, BTreeSet::new())).1.extend(local);
    }

    fn finish(self) -> Vec<HealthCheck> {
        let check = |(port, (name, local)): (u16, (&str, BTreeSet<IpAddr>))| {
            let (namespace, name, _) = split_name(name);
            HealthCheck { port, namespace: namespace.into(), name: name.into(), local_endpoints: local.len() }
        };
        self.0.into_iter().map(check).collect()
    }
}

/// The node's addresses that take NodePort traffic; empty where it is not restricted.
pub fn addresses(program: &Program<'_>) -> Vec<IpAddr> {
    let context = program.context();
    let takes = |address: &IpAddr| context.node_port_cidrs().any(|c| c.contains(*address));
    if context.node_port_cidrs().next().is_none() { Vec::new() } else { context.addresses().filter(takes).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{ServiceBuf, TableBuf};
    use natlet_core::table::Endpoint;

    #[test]
    fn ready_endpoints_of_this_node_count_once() {
        let mut table = TableBuf::default();
        let endpoint = |last, port, local, ready| Endpoint {
            local,
            ready,
            fallback: !ready,
            ..Endpoint::new([10, 0, 0, last].into(), port)
        };
        for (name, port) in [("shop/web:http", 80), ("shop/web:https", 443)] {
            table.push(&ServiceBuf {
                name: name.into(),
                endpoints: vec![
                    endpoint(1, port, true, true),
                    endpoint(2, port, true, false),
                    endpoint(3, port, false, true),
                ],
                external_policy: Policy::Local,
                health_check_node_port: 32000,
                ..ServiceBuf::default()
            });
        }
        let check = HealthCheck { port: 32000, namespace: "shop".into(), name: "web".into(), local_endpoints: 1 };
        assert_eq!(of_table(&table.as_table()), [check]);
    }
}
