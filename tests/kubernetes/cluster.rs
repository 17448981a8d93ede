//! Objects of a cluster, and an agent that follows it.

use crate::api::Api;
use crate::common::{Test, holds, natlet_with};
use crate::daemon::{Daemon, LIMIT, Place, within};
use libtest_mimic::Failed;
use natlet::lab::Namespace;
use serde_json::{Value, json};
use std::fs;

pub const NODE: &str = "edge-7";
/// What of the node the API does not say; the service CIDR is the cluster's.
pub const FLAGS: [&str; 4] = ["--node-name", NODE, "--cluster-cidr", "10.82.0.0/16"];
pub const SERVICE_CIDR: &str = "10.96.0.0/12";

pub fn service(name: &str, ip: &str, port: u16) -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": name, "creationTimestamp": "2024-01-01T00:00:00Z",
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "port": port, "protocol": "TCP", "targetPort": 8443}]},
        "status": {"loadBalancer": {}},
    })
}

pub fn slice(service: &str, endpoints: &[&str]) -> Value {
    let endpoint = |address: &&str| {
        json!({"addresses": [address], "nodeName": NODE,
            "conditions": {"ready": true, "serving": true, "terminating": false}})
    };
    json!({
        "metadata": {"namespace": "shop", "name": format!("{service}-abcde"), "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8443, "protocol": "TCP"}],
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

/// A service in the cluster, with its endpoints.
pub fn put(api: &Api, name: &str, ip: &str, endpoints: &[&str]) {
    api.put("Service", service(name, ip, 443));
    api.put("EndpointSlice", slice(name, endpoints));
}

/// Two nodes, the service CIDR, and two services.
pub fn fill(api: &Api) {
    for (name, ip) in [(NODE, "192.0.2.1"), ("edge-8", "192.0.2.8")] {
        let address = json!([{"type": "InternalIP", "address": ip}, {"type": "Hostname", "address": name}]);
        api.put("Node", json!({"metadata": {"name": name}, "spec": {"podCIDRs": ["10.82.0.0/24"]}, "status": {"addresses": address}}));
    }
    api.put("ServiceCIDR", json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [SERVICE_CIDR]}}));
    put(api, "web", "10.96.0.7", &["10.82.0.10", "10.82.0.82"]);
    put(api, "log", "10.96.0.8", &["10.82.0.10"]);
}

/// Starts an agent that follows the cluster over plain HTTP.
pub fn start(host: &Namespace, place: &Place, api: &Api, flags: &[&str]) -> Result<Daemon, Failed> {
    let url = api.url();
    let all: Vec<&str> = FLAGS.into_iter().chain(["--api-server", &url]).chain(flags.iter().copied()).collect();
    Daemon::start_with(host, place, "--kubernetes", &all)
}

/// Waits until the kernel holds what the cluster says.
pub fn in_force(host: &Namespace, place: &Place, api: &Api) -> Test {
    let path = place.path("wanted.json");
    fs::write(&path, api.manifest())?;
    let path = path.to_str().ok_or("a path that is text")?;
    let arguments: Vec<&str> = ["diff", path, "--service-cidr", SERVICE_CIDR].into_iter().chain(FLAGS).collect();
    let same = || Ok(natlet_with(host, &arguments, "").status.code() == Some(0));
    let result = within("the kernel does not hold what the cluster says", 5 * LIMIT, same);
    result.map(drop).map_err(|e| {
        let left = natlet_with(host, &arguments, "");
        let shown = String::from_utf8_lossy(&left.stdout).lines().take(20).collect::<Vec<_>>().join("\n");
        format!("{}\n{shown}\nlog:\n{}", e.message().unwrap_or_default(), place.log()).into()
    })
}

/// No table of natlet's is in the kernel.
pub fn is_bare(host: &Namespace) -> Test {
    let status = natlet_with(host, &["status", "-o", "json"], "");
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    let value: Value = serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))?;
    holds(&format!("something is in force: {text}"), value["loaded"] == json!(false))
}
