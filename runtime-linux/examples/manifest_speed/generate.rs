//! Manifests of many services, as `kubectl get services,endpointslices -A -o json` and `-o yaml` print them.
//!
//! They carry what such objects carry in a live cluster and nothing of NAT needs: labels, annotations, owners, what each
//! endpoint stands for, and, where asked for (`--show-managed-fields`), who set which field.

use serde_json::{Value, json};
use std::fmt::Write as _;

/// What is generated.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Services, each with one port and one slice.
    pub services: u32,
    /// Endpoints of each.
    pub endpoints: u32,
    /// With `managedFields`, as `kubectl get --show-managed-fields` prints and API clients get them.
    pub managed_fields: bool,
}

/// The list as JSON, indented by four blanks.
#[must_use]
pub fn json(plan: Plan) -> String {
    list(plan, "{\n    \"apiVersion\": \"v1\",\n    \"items\": [\n", ",\n", |out, item| json_value(out, item, 2), {
        "\n    ],\n    \"kind\": \"List\",\n    \"metadata\": {\n        \"resourceVersion\": \"\"\n    }\n}\n"
    })
}

/// The list as JSON without blanks, as the API server sends it.
#[must_use]
pub fn compact_json(plan: Plan) -> String {
    let put = |out: &mut String, item: &Value| _ = write!(out, "{item}");
    list(
        plan,
        "{\"apiVersion\":\"v1\",\"items\":[",
        ",",
        put,
        "],\"kind\":\"List\",\"metadata\":{\"resourceVersion\":\"\"}}",
    )
}

/// The list as block YAML.
#[must_use]
pub fn yaml(plan: Plan) -> String {
    list(plan, "apiVersion: v1\nitems:\n", "", |out, item| yaml_item(out, item, 0), {
        "kind: List\nmetadata:\n  resourceVersion: \"\"\n"
    })
}

fn list(plan: Plan, head: &str, between: &str, put: impl Fn(&mut String, &Value), tail: &str) -> String {
    let mut out = head.to_owned();
    for (index, item) in
        (0..plan.services).map(|i| service(i, plan)).chain((0..plan.services).map(|i| slice(i, plan))).enumerate()
    {
        if index > 0 {
            out.push_str(between);
        }
        put(&mut out, &item);
    }
    out + tail
}

fn namespace(index: u32) -> String {
    format!("team-{:02}", index % 50)
}

fn name(index: u32) -> String {
    format!("service-{index}")
}

fn cluster_ip(index: u32) -> String {
    format!("10.{}.{}.{}", 96 + index / 65_536, index / 256 % 256, index % 256)
}

fn uid(kind: u32, index: u32) -> String {
    format!("{index:08x}-5f0e-4c1d-9a7b-{kind:012x}")
}

const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn service(index: u32, plan: Plan) -> Value {
    let (namespace, name) = (namespace(index), name(index));
    let labels = json!({ "app.kubernetes.io/name": name, "app.kubernetes.io/instance": name, "app.kubernetes.io/part-of": "shop" });
    let spec = json!({
        "ports": [{ "name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080 }],
        "selector": { "app.kubernetes.io/name": name },
    });
    let applied = json!({
        "apiVersion": "v1", "kind": "Service", "spec": spec,
        "metadata": { "annotations": {}, "labels": labels, "name": name, "namespace": namespace },
    });
    let mut metadata = json!({
        "annotations": { APPLIED: format!("{applied}\n") },
        "creationTimestamp": "2026-03-02T09:14:05Z",
        "labels": labels,
        "name": name,
        "namespace": namespace,
        "resourceVersion": format!("{}", 100_000 + index),
        "uid": uid(1, index),
    });
    if plan.managed_fields {
        metadata["managedFields"] = json!([{
            "apiVersion": "v1", "fieldsType": "FieldsV1", "manager": "kubectl-client-side-apply", "operation": "Update",
            "time": "2026-03-02T09:14:05Z",
            "fieldsV1": {
                "f:metadata": {
                    "f:annotations": { ".": {}, format!("f:{APPLIED}"): {} },
                    "f:labels": { ".": {}, "f:app.kubernetes.io/instance": {}, "f:app.kubernetes.io/name": {}, "f:app.kubernetes.io/part-of": {} },
                },
                "f:spec": {
                    "f:internalTrafficPolicy": {}, "f:selector": {}, "f:sessionAffinity": {}, "f:type": {},
                    "f:ports": { ".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": { ".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {} } },
                },
            },
        }]);
    }
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {
            "clusterIP": cluster_ip(index), "clusterIPs": [cluster_ip(index)], "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "ports": spec["ports"], "selector": spec["selector"],
            "sessionAffinity": "None", "type": "ClusterIP",
        },
        "status": { "loadBalancer": {} },
    })
}

fn slice(index: u32, plan: Plan) -> Value {
    let (namespace, service) = (namespace(index), name(index));
    let endpoint = |n: u32| {
        let number = index * plan.endpoints + n;
        json!({
            "addresses": [format!("10.{}.{}.{}", 128 + number / 65_536 % 64, number / 256 % 256, number % 256)],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "nodeName": format!("worker-{:03}", number % 200),
            "targetRef": {
                "kind": "Pod", "name": format!("{service}-6d4b75cb6d-{number:05x}"), "namespace": namespace,
                "uid": uid(2, number),
            },
            "zone": format!("zone-{}", number % 3),
        })
    };
    let mut metadata = json!({
        "annotations": { "endpoints.kubernetes.io/last-change-trigger-time": "2026-03-02T09:14:11Z" },
        "creationTimestamp": "2026-03-02T09:14:05Z",
        "generateName": format!("{service}-"),
        "generation": 7,
        "labels": {
            "app.kubernetes.io/name": service,
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            "kubernetes.io/service-name": service,
        },
        "name": format!("{service}-{index:05x}"),
        "namespace": namespace,
        "ownerReferences": [{
            "apiVersion": "v1", "blockOwnerDeletion": true, "controller": true, "kind": "Service", "name": service,
            "uid": uid(1, index),
        }],
        "resourceVersion": format!("{}", 300_000 + index),
        "uid": uid(3, index),
    });
    if plan.managed_fields {
        metadata["managedFields"] = json!([{
            "apiVersion": "discovery.k8s.io/v1", "fieldsType": "FieldsV1", "manager": "kube-controller-manager",
            "operation": "Update", "time": "2026-03-02T09:14:11Z",
            "fieldsV1": {
                "f:addressType": {}, "f:endpoints": {}, "f:ports": {},
                "f:metadata": {
                    "f:annotations": { ".": {}, "f:endpoints.kubernetes.io/last-change-trigger-time": {} },
                    "f:generateName": {},
                    "f:labels": { ".": {}, "f:endpointslice.kubernetes.io/managed-by": {}, "f:kubernetes.io/service-name": {} },
                    "f:ownerReferences": { ".": {}, format!("k:{{\"uid\":\"{}\"}}", uid(1, index)): {} },
                },
            },
        }]);
    }
    json!({
        "addressType": "IPv4", "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "endpoints": (0..plan.endpoints).map(endpoint).collect::<Vec<_>>(),
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
    })
}

fn json_value(out: &mut String, value: &Value, depth: usize) {
    let pad = |out: &mut String, depth: usize| _ = write!(out, "\n{:width$}", "", width = 4 * depth);
    if depth == 2 {
        out.push_str("        ");
    }
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('{');
            for (index, (key, value)) in map.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                pad(out, depth + 1);
                let _ = write!(out, "{}: ", Value::from(key.as_str()));
                json_value(out, value, depth + 1);
            }
            pad(out, depth);
            out.push('}');
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('[');
            for (index, value) in items.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                pad(out, depth + 1);
                json_value(out, value, depth + 1);
            }
            pad(out, depth);
            out.push(']');
        }
        other => _ = write!(out, "{other}"),
    }
}

fn yaml_item(out: &mut String, item: &Value, indent: usize) {
    let _ = write!(out, "{:indent$}- ", "");
    match item {
        Value::Object(map) if !map.is_empty() => yaml_map(out, map, indent + 2, true),
        scalar => _ = writeln!(out, "{}", yaml_scalar(scalar)),
    }
}

fn yaml_map(out: &mut String, map: &serde_json::Map<String, Value>, indent: usize, inline: bool) {
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 || !inline {
            let _ = write!(out, "{:indent$}", "");
        }
        let _ = write!(out, "{key}:");
        match value {
            Value::Object(map) if !map.is_empty() => {
                out.push('\n');
                yaml_map(out, map, indent + 2, false);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                for item in items {
                    yaml_item(out, item, indent);
                }
            }
            Value::String(text) if text.ends_with('\n') => {
                out.push_str(" |\n");
                for line in text.lines() {
                    let _ = writeln!(out, "{:width$}{line}", "", width = indent + 2);
                }
            }
            scalar => _ = writeln!(out, " {}", yaml_scalar(scalar)),
        }
    }
}

/// Quoted where a reader would take the text for a number or a date, as kubectl does.
fn yaml_scalar(value: &Value) -> String {
    match value {
        Value::String(text) if text.starts_with("10.") => text.clone(),
        Value::String(text) if text.is_empty() || text.bytes().all(|b| b.is_ascii_digit()) || text.ends_with('Z') => {
            format!("{text:?}")
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
