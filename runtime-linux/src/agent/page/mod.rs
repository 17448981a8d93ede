//! What the agent says about itself: the facts, as a page for people and as JSON.
//!
//! However large the table, an answer stays bounded: [`SHOWN`] services and [`ENDPOINTS`] endpoints of each, and a filter.

mod html;
mod json;
mod query;

pub use html::{html, policy};
pub use query::Query;

use super::counts::Answer;
use super::reconcile::BEAT;
use super::status::{Metrics, Standing};
use crate::counters::{Report, Row};
use crate::view::{FrontendView, ServicePort, service_ports};
use natlet_core::FrontendKind;
use std::sync::Arc;

/// Services that are shown where the query does not ask for another number.
const SHOWN: usize = 500;
/// Endpoints that are shown of a service.
const ENDPOINTS: usize = 20;

/// Everything that is told.
pub struct Facts<'a> {
    standing: &'a Standing,
    query: Query,
    /// Repairs, and whether somebody keeps undoing them.
    repairs: u64,
    contested: bool,
    report: Option<Arc<Report>>,
    /// Why there is no report.
    no_report: Option<String>,
    node: Vec<(&'static str, String)>,
    services: Vec<Service>,
    /// Service ports in force, and those that the query picks.
    total: usize,
    matching: usize,
}

/// A service port in words.
struct Service {
    name: String,
    protocol: &'static str,
    kind: &'static str,
    frontends: Vec<(&'static str, String)>,
    /// Address and share of new connections; the first of them.
    endpoints: Vec<(String, f64)>,
    endpoint_count: usize,
    hosts: Vec<String>,
    row: Row,
}

impl<'a> Facts<'a> {
    /// Of how the agent stands, with what the kernel counted.
    pub fn new(standing: &'a Standing, metrics: &Metrics, counts: Answer, query: Query) -> Self {
        let (report, no_report) = match counts {
            Ok(report) => (Some(report), None),
            Err(why) => (None, Some(why)),
        };
        let mut facts = Self {
            standing,
            query,
            repairs: metrics.drift.get(),
            contested: metrics.contested.get() != 0,
            report,
            no_report,
            node: Vec::new(),
            services: Vec::new(),
            total: 0,
            matching: 0,
        };
        facts.read_program();
        facts
    }

    /// What is wanted is in force, and the loop turns.
    fn is_healthy(&self) -> bool {
        self.standing.is_healthy(BEAT * 3)
    }

    fn read_program(&mut self) {
        let Some(image) = &self.standing.image else { return };
        let program = image.program();
        self.node = node(&program);
        let empty = Report::default();
        let counts = self.report.as_deref().unwrap_or(&empty).index();
        let ports = service_ports(&program);
        self.total = ports.len();
        for port in ports.iter().filter(|port| self.query.picks(port)) {
            self.matching += 1;
            if self.services.len() < self.query.limit.unwrap_or(SHOWN) {
                self.services.push(Service::of(port, counts.of(port)));
            }
        }
    }
}

impl Service {
    fn of(port: &ServicePort<'_>, row: Row) -> Self {
        let endpoints = port.endpoints();
        Self {
            name: port.name.clone(),
            protocol: port.protocol.name(),
            kind: crate::view::type_name(port.service_type),
            frontends: port.frontends.iter().map(frontend).collect(),
            endpoints: endpoints.iter().take(ENDPOINTS).map(|(e, share)| (e.address.to_string(), *share)).collect(),
            endpoint_count: endpoints.len(),
            hosts: port.hosts.iter().map(|h| (*h).to_owned()).collect(),
            row,
        }
    }
}

fn frontend(f: &FrontendView) -> (&'static str, String) {
    let address = std::net::SocketAddr::new(f.address, f.port).to_string();
    match f.kind {
        FrontendKind::ClusterIp => ("ClusterIP", address),
        FrontendKind::NodePort if f.address.is_ipv6() => ("NodePort IPv6", f.port.to_string()),
        FrontendKind::NodePort => ("NodePort", f.port.to_string()),
        FrontendKind::LoadBalancer => ("LoadBalancer", address),
        FrontendKind::ExternalIp => ("external IP", address),
    }
}

/// What the program knows about the node: name and value, as the flags call them.
fn node(program: &natlet_core::Program<'_>) -> Vec<(&'static str, String)> {
    let context = program.context();
    let list = |items: Vec<String>| items.join(", ");
    let cidrs = |items: &mut dyn Iterator<Item = natlet_core::Cidr>| list(items.map(|c| c.to_string()).collect());
    let flag = |on: bool| if on { "yes".to_owned() } else { String::new() };
    let all = [
        ("node-name", program.node_name().to_owned()),
        ("node-ip", list(context.addresses().map(|a| a.to_string()).collect())),
        ("cluster-cidr", cidrs(&mut context.cluster_cidrs())),
        ("service-cidr", cidrs(&mut context.service_cidrs())),
        ("node-port-address", cidrs(&mut context.node_port_cidrs())),
        ("masquerade-all", flag(context.masquerade_all())),
        ("localhost-node-ports", flag(context.localhost_node_ports())),
    ];
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}
