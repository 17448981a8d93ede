//! The `endpoints` of a service in `services.toml`.

use super::super::address::{self, Role, socket_text};
use super::super::document::{Node, Value, Walker};
use natlet_core::table::Endpoint;
use std::collections::HashSet;
use std::net::IpAddr;

const KEYS: [&str; 6] = ["address", "weight", "local", "node", "state", "hinted"];

/// How far an endpoint can be used: ready, fallback.
const STATES: [(&str, (bool, bool)); 3] =
    [("ready", (true, false)), ("terminating", (false, true)), ("not-ready", (false, false))];

/// The endpoints of a service and the node that each is said to be on.
pub(super) fn read_all(service: &Node<'_>, walker: &mut Walker<'_>) -> (Vec<Endpoint>, Vec<Option<String>>) {
    let items = service.get("endpoints").map_or(&[][..], |list| match list.value {
        Value::Map(_) => std::slice::from_ref(list),
        _ => walker.one_or_many(list, "endpoints"),
    });
    let mut seen = HashSet::new();
    let mut endpoints = Vec::new();
    let mut nodes = Vec::new();
    for item in items {
        let Some((endpoint, node)) = read(item, walker) else { continue };
        if !seen.insert((endpoint.address, endpoint.port)) {
            let text = socket_text(endpoint.address, endpoint.port);
            walker.problem(
                item.span,
                format!("the endpoint {text} is listed twice"),
                "",
                "remove one; weight = 2 gives it a double share",
            );
            continue;
        }
        endpoints.push(endpoint);
        nodes.push(node);
    }
    (endpoints, nodes)
}

fn read(item: &Node<'_>, walker: &mut Walker<'_>) -> Option<(Endpoint, Option<String>)> {
    if let Value::Scalar { .. } = item.value {
        let (address, port) = socket(item, walker)?;
        return Some((Endpoint::new(address, port), None));
    }
    let item = walker.map(item, "an endpoint")?;
    walker.only_keys(item, "an endpoint", &KEYS);
    let Some(node) = item.get("address") else {
        walker.problem(item.span, "an endpoint has no address", "", "add address = \"192.0.2.1:443\"");
        return None;
    };
    let (address, port) = socket(node, walker)?;
    let weight = match item.get("weight") {
        Some(weight) => u16::try_from(walker.integer(weight, "weight", 0..=65535)?).ok()?,
        None => 1,
    };
    let (ready, fallback) = match item.get("state") {
        Some(state) => walker.word(state, "state", &STATES)?,
        None => (true, false),
    };
    let local = walker.boolean_at(item, "local").unwrap_or(false);
    let hinted = walker.boolean_at(item, "hinted").unwrap_or(true);
    let node = walker.text_at(item, "node").map(str::to_owned);
    Some((Endpoint { weight, ready, fallback, local, hinted, ..Endpoint::new(address, port) }, node))
}

fn socket(node: &Node<'_>, walker: &mut Walker<'_>) -> Option<(IpAddr, u16)> {
    let text = walker.text(node, "an endpoint")?;
    let parsed = address::parse_socket(text)
        .and_then(|(address, port)| address::suits(address, Role::Endpoint).map(|()| (address, port)));
    walker.found(parsed, node, "endpoint", text)
}
