//! Services, EndpointSlices and the Node of a table.

use super::super::ExportError;
use super::super::recover::{Recovered, is_placeholder};
use crate::source::{NodeBuf, ServiceBuf};
use crate::view::split_name;
use natlet_core::{Choice, Endpoint, FrontendKind, Policy, ServiceType};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;

/// Most endpoints of a slice that the API server takes.
const SLICE: usize = 1000;

/// All objects: the Node first, then each Service with its slices.
pub(super) fn items(recovered: &Recovered) -> Result<Vec<Value>, ExportError> {
    let mut services: BTreeMap<(&str, &str), Vec<&ServiceBuf>> = BTreeMap::new();
    for service in &recovered.services {
        let (namespace, name, _) = split_name(&service.name);
        services.entry((namespace, name)).or_default().push(service);
    }
    let here = Here::of(&recovered.node);
    let any_local = recovered.services.iter().any(|s| s.endpoints.iter().any(|e| e.local || !e.hinted));
    let mut items = Vec::new();
    if recovered.node != NodeBuf::default() || any_local {
        items.push(node(&recovered.node, &here));
    }
    for ((namespace, name), ports) in services {
        items.push(service(namespace, name, &ports)?);
        items.extend(slices(namespace, name, &ports, &here));
    }
    Ok(items)
}

/// Names of this node and of another one.
struct Here {
    name: String,
    elsewhere: String,
}

impl Here {
    fn of(node: &NodeBuf) -> Self {
        let name = if node.name.is_empty() { "this-node".into() } else { node.name.clone() };
        Self { elsewhere: format!("not-{name}"), name }
    }
}

fn node(node: &NodeBuf, here: &Here) -> Value {
    let mut annotations = Map::new();
    let lists = [
        ("natlet.dev/cluster-cidrs", &node.cluster_cidrs),
        ("natlet.dev/service-cidrs", &node.service_cidrs),
        ("natlet.dev/node-port-addresses", &node.node_port_cidrs),
    ];
    for (key, cidrs) in lists.into_iter().filter(|(_, cidrs)| !cidrs.is_empty()) {
        annotations.insert(key.into(), texts(cidrs).join(",").into());
    }
    let flags = [
        ("natlet.dev/masquerade-all", node.masquerade_all),
        ("natlet.dev/localhost-node-ports", node.localhost_node_ports),
        ("natlet.dev/anonymous", node.name.is_empty()),
    ];
    for (key, _) in flags.iter().filter(|(_, set)| *set) {
        annotations.insert((*key).into(), "true".into());
    }
    let addresses: Vec<Value> =
        node.addresses.iter().map(|a| json!({ "type": "InternalIP", "address": a.to_string() })).collect();
    let mut object = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": here.name } });
    put(&mut object["metadata"], "annotations", annotations);
    if !addresses.is_empty() {
        object["status"] = json!({ "addresses": addresses });
    }
    object
}

fn texts<T: Display>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

/// Adds a map or a list unless it is empty.
fn put(object: &mut Value, key: &str, value: impl Into<Value>) {
    let value = value.into();
    let empty = value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
    if !empty {
        object[key] = value;
    }
}

/// Distinct addresses of one kind of frontend over all ports, in the order of their ports.
fn addresses(ports: &[&ServiceBuf], kind: FrontendKind) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for f in ports.iter().flat_map(|p| &p.frontends).filter(|f| f.kind == kind) {
        if !found.contains(&f.address) {
            found.push(f.address);
        }
    }
    found
}

fn service(namespace: &str, name: &str, ports: &[&ServiceBuf]) -> Result<Value, ExportError> {
    let cluster_ips = addresses(ports, FrontendKind::ClusterIp);
    let first = ports[0];
    let Some(main) = cluster_ips.first() else {
        let why = "it has no ClusterIP, which every Kubernetes Service has".into();
        return Err(ExportError::Service { name: first.name.clone(), why });
    };
    // Ports that an aspect does not concern say nothing about it.
    let local = |of: fn(&ServiceBuf) -> Policy| {
        let local = ports.iter().any(|p| of(p) == Policy::Local);
        if local { "Local" } else { "Cluster" }
    };
    let health_check = ports.iter().map(|p| p.health_check_node_port).find(|p| *p != 0);
    // Without frontends that the policy concerns the program has forgotten it; the health check tells of it.
    let external = if health_check.is_some() { "Local" } else { local(|p| p.external_policy) };
    let families: Vec<&str> = cluster_ips.iter().map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" }).collect();
    let mut spec = json!({
        "type": type_name(first.service_type),
        "clusterIP": main.to_string(),
        "clusterIPs": texts(&cluster_ips),
        "ipFamilies": families,
        "ipFamilyPolicy": if families.len() > 1 { "RequireDualStack" } else { "SingleStack" },
        "internalTrafficPolicy": local(|p| p.internal_policy),
        "ports": ports.iter().map(|p| port(p)).collect::<Vec<_>>(),
    });
    let external_ips = addresses(ports, FrontendKind::ExternalIp);
    if first.service_type != ServiceType::ClusterIp || !external_ips.is_empty() {
        spec["externalTrafficPolicy"] = external.into();
    }
    put(&mut spec, "externalIPs", texts(&external_ips));
    let ranges = ports.iter().map(|p| &p.source_ranges).max_by_key(|r| r.len());
    put(&mut spec, "loadBalancerSourceRanges", ranges.map(|r| texts(r)).unwrap_or_default());
    if first.affinity_timeout != 0 {
        spec["sessionAffinity"] = "ClientIP".into();
        spec["sessionAffinityConfig"] = json!({ "clientIP": { "timeoutSeconds": first.affinity_timeout } });
    }
    if let Some(port) = health_check {
        spec["healthCheckNodePort"] = port.into();
    }
    let mut annotations = Map::new();
    if first.choice == Choice::SourceHash {
        annotations.insert("natlet.dev/choice".into(), "source-hash".into());
    }
    let hosts = hosts(ports);
    if !hosts.is_empty() {
        annotations.insert("natlet.dev/hosts".into(), hosts.into());
    }
    let mut object = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": namespace }, "spec": spec,
    });
    put(&mut object["metadata"], "annotations", annotations);
    let ingress: Vec<Value> = addresses(ports, FrontendKind::LoadBalancer)
        .iter()
        .map(|ip| json!({ "ip": ip.to_string(), "ipMode": "VIP" }))
        .collect();
    if !ingress.is_empty() {
        object["status"] = json!({ "loadBalancer": { "ingress": ingress } });
    }
    Ok(object)
}

const fn type_name(service_type: ServiceType) -> &'static str {
    match service_type {
        ServiceType::ClusterIp => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    }
}

/// `https/tcp=www.example.com,…`.
fn hosts(ports: &[&ServiceBuf]) -> String {
    let of_port = |p: &ServiceBuf| {
        let prefix = format!("{}/{}", split_name(&p.name).2, p.protocol);
        p.hosts.iter().map(|host| format!("{prefix}={host}")).collect::<Vec<_>>()
    };
    ports.iter().flat_map(|p| of_port(p)).collect::<Vec<_>>().join(",")
}

fn port(service: &ServiceBuf) -> Value {
    let (_, _, name) = split_name(&service.name);
    let number = service.frontends.iter().find(|f| f.kind != FrontendKind::NodePort).map_or(0, |f| f.port);
    let mut port = json!({ "port": number, "protocol": service.protocol.name().to_uppercase() });
    if !name.is_empty() {
        port["name"] = name.into();
    }
    if let Some(f) = service.frontends.iter().find(|f| f.kind == FrontendKind::NodePort) {
        port["nodePort"] = f.port.into();
    }
    port
}

/// A slice under construction: the same endpoints for one or several ports.
struct Slice {
    v4: bool,
    ports: Vec<Value>,
    endpoints: Vec<Value>,
    weights: String,
    placeholder: bool,
}

fn slices(namespace: &str, name: &str, ports: &[&ServiceBuf], here: &Here) -> Vec<Value> {
    let mut slices: Vec<Slice> = Vec::new();
    for service in ports {
        for v4 in [true, false] {
            let endpoints: Vec<&Endpoint> = service.endpoints.iter().filter(|e| e.address.is_ipv4() == v4).collect();
            // one endpoint without a hint turns the hints of all off
            let hints = endpoints.iter().any(|e| !e.hinted);
            let mut by_port: BTreeMap<u16, Vec<&Endpoint>> = BTreeMap::new();
            for e in endpoints {
                by_port.entry(e.port).or_default().push(e);
            }
            for (target, mut group) in by_port {
                group.sort_by_key(|e| e.address);
                for part in group.chunks(SLICE) {
                    add_slice(&mut slices, service, v4, target, part, hints.then_some(here), here);
                }
            }
        }
    }
    slices.into_iter().zip(1..).map(|(slice, number)| slice.object(namespace, name, number)).collect()
}

fn add_slice(
    slices: &mut Vec<Slice>,
    service: &ServiceBuf,
    v4: bool,
    target: u16,
    endpoints: &[&Endpoint],
    hints: Option<&Here>,
    here: &Here,
) {
    let (_, _, name) = split_name(&service.name);
    let protocol = service.protocol.name().to_uppercase();
    let port = json!({ "name": name, "port": target, "protocol": protocol });
    let weighted = endpoints.iter().filter(|e| e.weight != 1);
    let weights = weighted.map(|e| format!("{}={}", e.address, e.weight)).collect::<Vec<_>>().join(",");
    let placeholder = endpoints.iter().any(|e| is_placeholder(e));
    let endpoints: Vec<Value> = endpoints.iter().map(|e| endpoint(e, hints, here)).collect();
    let fits = |s: &&mut Slice| {
        let taken = s.ports.iter().any(|p| p["name"] == port["name"] && p["protocol"] == port["protocol"]);
        s.v4 == v4 && !taken && s.weights == weights && s.endpoints == endpoints && !placeholder
    };
    match slices.iter_mut().find(fits) {
        Some(slice) => slice.ports.push(port),
        None => slices.push(Slice { v4, ports: vec![port], endpoints, weights, placeholder }),
    }
}

fn endpoint(e: &Endpoint, hints: Option<&Here>, here: &Here) -> Value {
    let mut endpoint = json!({
        "addresses": [e.address.to_string()],
        "conditions": { "ready": e.ready, "serving": e.ready || e.fallback, "terminating": e.fallback },
    });
    if e.local {
        endpoint["nodeName"] = here.name.as_str().into();
    } else if is_placeholder(e) {
        endpoint["nodeName"] = here.elsewhere.as_str().into();
    }
    if let Some(here) = hints {
        let node = if e.hinted { &here.name } else { &here.elsewhere };
        endpoint["hints"] = json!({ "forNodes": [{ "name": node }] });
    }
    endpoint
}

impl Slice {
    fn object(self, namespace: &str, service: &str, number: usize) -> Value {
        let mut object = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{service}-{number}"),
                "namespace": namespace,
                "labels": { "kubernetes.io/service-name": service },
            },
            "addressType": if self.v4 { "IPv4" } else { "IPv6" },
            "ports": self.ports,
            "endpoints": self.endpoints,
        });
        let mut annotations = Map::new();
        if !self.weights.is_empty() {
            annotations.insert("natlet.dev/weights".into(), self.weights.into());
        }
        if self.placeholder {
            let text = "stands for endpoints on other nodes, which are not known here";
            annotations.insert("natlet.dev/placeholder".into(), text.into());
        }
        put(&mut object["metadata"], "annotations", annotations);
        object
    }
}
