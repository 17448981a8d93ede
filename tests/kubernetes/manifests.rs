//! The DaemonSet and its rights.

use crate::api::Api;
use crate::cluster::{fill, in_force, start};
use crate::common::{Test, has, holds, host_natlet, same, tool};
use crate::daemon::Place;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use libtest_mimic::Failed;
use natlet::lab::Namespace;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;

const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../runtime-linux/kubernetes/natlet.yaml");

fn documents() -> Result<Vec<Value>, Failed> {
    Ok(serde_saphyr::from_multiple(&std::fs::read_to_string(MANIFESTS)?)?)
}

/// An object of a type, which must have a field for everything that is written.
fn typed<T: DeserializeOwned + Serialize>(document: &Value) -> Result<T, Failed> {
    let object: T = serde_json::from_value(document.clone())?;
    same("what its type keeps", &serde_json::to_value(&object)?, document)?;
    Ok(object)
}

fn of_kind<'d>(documents: &'d [Value], kind: &str) -> Result<&'d Value, Failed> {
    documents.iter().find(|d| d["kind"] == kind).ok_or_else(|| format!("no {kind}").into())
}

pub fn the_manifests_are_what_kubectl_takes() -> Test {
    let all = documents()?;
    same("documents", &all.len(), &5)?;
    typed::<ConfigMap>(of_kind(&all, "ConfigMap")?)?;
    typed::<ServiceAccount>(of_kind(&all, "ServiceAccount")?)?;
    typed::<ClusterRoleBinding>(of_kind(&all, "ClusterRoleBinding")?)?;
    let daemon_set: DaemonSet = typed(of_kind(&all, "DaemonSet")?)?;
    let pod = daemon_set.spec.and_then(|s| s.template.spec).ok_or("a pod")?;
    let container = &pod.containers[0];
    // every flag is one that the command knows
    let help = String::from_utf8(host_natlet(".", &["run", "--help"])?)?;
    for flag in container.args.iter().flatten().skip(1) {
        let name = flag.split('=').next().unwrap_or_default();
        holds(&format!("{name} is a flag"), help.contains(name))?;
    }
    let rights = container.security_context.as_ref().and_then(|s| s.capabilities.as_ref()).ok_or("capabilities")?;
    same("rights", &rights.add, &Some(vec!["NET_ADMIN".to_owned()]))?;
    same("no other rights", &rights.drop, &Some(vec!["ALL".to_owned()]))?;
    // of kubectl's checks only the decoding needs no server
    if std::env::var_os("NATLET_NO_KUBECTL").is_some_and(|v| v == "1") {
        eprintln!("skipped: no kubectl can be had here (NATLET_NO_KUBECTL=1)");
        return Ok(());
    }
    if !has("kubectl") {
        return Ok(());
    }
    let host = Namespace::new("kubectl")?;
    let api = Api::start(&host)?;
    let url = api.url();
    let arguments = ["--server", &url, "create", "--dry-run=client", "--validate=false", "-f", MANIFESTS];
    let said = tool(&host, "kubectl", &arguments, "")?;
    same("what kubectl would create", &said.matches("created (dry run)").count(), &5)
}

pub fn the_manifests_ask_for_no_more_than_is_used() -> Test {
    let role: ClusterRole = typed(of_kind(&documents()?, "ClusterRole")?)?;
    let mut given = BTreeSet::new();
    for rule in role.rules.unwrap_or_default() {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                given.extend(rule.verbs.iter().map(|verb| format!("{verb} {group}/{resource}")));
            }
        }
    }
    let (host, place) = (Namespace::new("node")?, Place::new("kube-rights")?);
    let api = Api::start(&host)?;
    fill(&api);
    let daemon = start(&host, &place, &api, &[])?;
    in_force(&host, &place, &api)?;
    let used = || -> BTreeSet<String> {
        let requests = api.requests();
        let right = |request: &String| {
            let verb = if request.contains("watch=true") { "watch" } else { "list" };
            let path = request.split('?').next()?;
            let mut parts = path.trim_start_matches("/apis/").trim_start_matches("/api/").split('/');
            let (group, resource) = (parts.next()?, path.rsplit('/').next()?);
            Some(format!("{verb} {}/{resource}", if group == "v1" { "" } else { group }))
        };
        requests.iter().filter_map(right).collect()
    };
    crate::daemon::within("every watch", crate::daemon::LIMIT, || Ok(used().len() >= given.len()))?;
    same("rights that are used", &used(), &given)?;
    daemon.stop()
}
