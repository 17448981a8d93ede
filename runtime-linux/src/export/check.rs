//! Reads back what was written: a form that cannot say all of a program must say so.

use super::ExportError;
use super::recover::{Recovered, recover};
use crate::image::Image;
use crate::source::{Input, Loaded, NodeFlags, ServiceBuf, load_inputs};
use natlet_core::{Frontend, Policy, Program};
use std::collections::BTreeMap;

/// Whether `text` is read to the same content id; if not, what of which service got lost.
pub(super) fn reads_back(text: &str, program: &Program<'_>, wanted: &Recovered) -> Result<(), ExportError> {
    let input = Input { name: "the exported text".into(), bytes: text.into(), found: false };
    let loaded = load_inputs(vec![input], &NodeFlags::default());
    let table = match loaded {
        Ok(Loaded::Table { table, .. }) => table,
        Ok(Loaded::Program { .. }) => return Err(ExportError::Unreadable("it is taken for a program".into())),
        Err(problems) => return Err(ExportError::Unreadable(problems.render(false))),
    };
    let image = Image::compile(&table.as_table()).map_err(|e| ExportError::Unreadable(e.to_string()))?;
    if image.program().content_id() == program.content_id() {
        return Ok(());
    }
    let have = recover(&image.program())?;
    if have.node != wanted.node {
        return Err(ExportError::Node(format!("{:?} reads back as {:?}", wanted.node, have.node)));
    }
    let by_name = |all: &[ServiceBuf]| -> BTreeMap<_, ServiceBuf> {
        all.iter().map(|s| ((s.name.clone(), s.protocol), s.clone())).collect()
    };
    let (have, wanted) = (by_name(&have.services), by_name(&wanted.services));
    for (key, service) in &wanted {
        let why = match have.get(key) {
            Some(other) => difference(service, other),
            None => Some("this form has no way to say it".into()),
        };
        if let Some(why) = why {
            return Err(ExportError::Service { name: service.name.clone(), why });
        }
    }
    // it is no table's program: its frontends are of services that disagree with themselves
    Err(ExportError::Unreadable("the program was not compiled from a service table".into()))
}

/// An aspect of a service port in words.
type Say<'s> = &'s dyn Fn(&ServiceBuf) -> String;

/// The first thing that two service ports differ in.
fn difference(wanted: &ServiceBuf, have: &ServiceBuf) -> Option<String> {
    let policy = |p: Policy| if p == Policy::Local { "Local" } else { "Cluster" }.to_owned();
    let list = |items: Vec<String>| if items.is_empty() { "none".into() } else { items.join(", ") };
    let frontend = |f: &Frontend| match f.kind {
        natlet_core::FrontendKind::NodePort => {
            format!("{} {}{}", f.kind, f.port, if f.address.is_ipv6() { " (IPv6)" } else { " (IPv4)" })
        }
        kind => format!("{kind} {}", std::net::SocketAddr::new(f.address, f.port)),
    };
    let frontends = |s: &ServiceBuf| list(s.frontends.iter().map(frontend).collect());
    let ranges = |s: &ServiceBuf| list(s.source_ranges.iter().map(ToString::to_string).collect());
    let endpoints = |s: &ServiceBuf| list(s.endpoints.iter().map(|e| format!("{e:?}")).collect());
    let aspects: [(&str, Say<'_>); 10] = [
        ("frontends", &frontends),
        ("type", &|s| format!("{:?}", s.service_type)),
        ("internalTrafficPolicy", &|s| policy(s.internal_policy)),
        ("externalTrafficPolicy", &|s| policy(s.external_policy)),
        ("affinity", &|s| format!("{} s", s.affinity_timeout)),
        ("choice", &|s| format!("{:?}", s.choice)),
        ("source ranges", &ranges),
        ("healthCheckNodePort", &|s| s.health_check_node_port.to_string()),
        ("hosts", &|s| list(s.hosts.clone())),
        ("endpoints", &endpoints),
    ];
    aspects
        .iter()
        .find(|(_, of)| of(wanted) != of(have))
        .map(|(what, of)| format!("this form cannot say its {what}: {} would read back as {}", of(wanted), of(have)))
}
