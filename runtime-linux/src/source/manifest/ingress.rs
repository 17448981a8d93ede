//! `networking.k8s.io/v1` Ingress: which host names ride on which Service.

use super::super::address;
use super::super::document::{Node, Walker};
use super::{Meta, meta};
use std::net::IpAddr;

/// An Ingress, as far as packets are concerned.
#[derive(Debug)]
pub(in super::super) struct RawIngress {
    pub meta: Meta,
    pub routes: Vec<Route>,
    /// Addresses of its controller's load balancer.
    pub addresses: Vec<IpAddr>,
}

/// A host name and the service port that its requests end at.
#[derive(Debug)]
pub(in super::super) struct Route {
    /// `*` for every host.
    pub host: String,
    pub service: String,
    pub port: RoutePort,
}

/// How a backend names a service port.
#[derive(Debug)]
pub(in super::super) enum RoutePort {
    Name(String),
    Number(u16),
}

/// Reads an Ingress.
pub(super) fn read(node: &Node<'_>, walker: &mut Walker<'_>) -> Option<RawIngress> {
    let meta = meta(node, "Ingress", walker)?;
    let mut routes = Vec::new();
    if let Some(spec) = walker.map_at(node, "spec") {
        if let Some(backend) = spec.get("defaultBackend") {
            routes.extend(route("*".to_owned(), backend, walker));
        }
        for rule in walker.seq_at(spec, "rules") {
            let host = host(rule, walker);
            let Some(http) = rule.get("http") else { continue };
            for path in walker.seq_at(http, "paths") {
                if let Some(backend) = path.get("backend") {
                    routes.extend(route(host.clone(), backend, walker));
                }
            }
        }
    }
    let items = match node.at(&["status", "loadBalancer"]) {
        Some(status) => walker.seq_at(status, "ingress"),
        None => &[],
    };
    let addresses = items.iter().filter_map(|item| address::parse(item.get("ip")?.as_text()?).ok()).collect();
    Some(RawIngress { meta, routes, addresses })
}

fn host(rule: &Node<'_>, walker: &mut Walker<'_>) -> String {
    let Some(node) = rule.get("host") else { return "*".to_owned() };
    let Some(text) = walker.text(node, "host").filter(|text| !text.is_empty()) else { return "*".to_owned() };
    walker.found(address::check_host(text), node, "host", text);
    text.to_owned()
}

/// A backend that is a Service; one that is another resource has no part in this.
fn route(host: String, backend: &Node<'_>, walker: &mut Walker<'_>) -> Option<Route> {
    let service = backend.get("service")?;
    let name = walker.required_text(service, "name", "an Ingress backend")?.to_owned();
    let port = service.get("port")?;
    let port = match walker.text_at(port, "name").filter(|name| !name.is_empty()) {
        Some(name) => RoutePort::Name(name.to_owned()),
        None => RoutePort::Number(walker.port_or_none(port, "number")?),
    };
    Some(Route { host, service: name, port })
}
