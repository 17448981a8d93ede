//! The Kubernetes API as a source: Services, EndpointSlices, this Node and the service CIDRs.
//!
//! ```text
//!  API server ── list, watch ──▶ follow (one task a kind) ──▶ Cluster (what a table needs) ──▶ eventfd ──▶ reconcile
//! ```
//!
//! A thread of its own runs kube's client on a tokio runtime of one thread. It keeps what it hears in a
//! [`Cluster`](crate::source::cluster::Cluster); the agent's loop takes the table out of it when it is time for a sync, so
//! that a burst of events costs one table. There is none before the first lists of all kinds are complete: until then the
//! last good program is in force.
//!
//! **Why not kube's own watcher.** It hands over typed objects, whole, and stops at the first that does not fit its type.
//! Here an object is read by the readers of manifests and stripped before the next arrives, and one that cannot be
//! used is left out.
//!
//! **What is asked for.** Consistent lists in pages, which never go back in time; watches with bookmarks, continued where
//! they broke off. kube-proxy's label selectors leave out headless Services and those of other proxies.
//!
//! **Where pods are** is not in the API. kube-proxy is told `--cluster-cidr`, or with `--detect-local-mode=NodeCIDR` takes
//! `spec.podCIDRs` of its own Node. Those are right only where the network plugin gives pods addresses from them (kubenet,
//! flannel, host-local); Calico, Cilium and cloud plugins often have pools of their own while the field is filled all the
//! same, and then every pod would count as a stranger and be masqueraded. So natlet, too, takes them on demand only
//! (`--detect-local-mode node-cidr`), and then waits until the Node has some, as kube-proxy does. Without either, no
//! source is a pod, and ClusterIP traffic is masqueraded for hairpins alone.

mod backoff;
mod client;
mod feed;
mod follow;
mod lines;
mod metrics;

pub use feed::Feed;
pub use metrics::Metrics;

use super::source::ApiServer;
use super::status::Status;
use super::{AgentError, process};
use crate::source::cluster::Kind;
use client::Link;
use feed::Shared;
use std::sync::Arc;
use tracing::{error, warn};

/// Starts to follow the API server.
///
/// # Errors
/// No thread, or no descriptor. An API server that cannot be reached is none: it is tried again.
pub fn start(api: &ApiServer, node: &str, status: &Arc<Status>) -> Result<Feed, AgentError> {
    let shared = Arc::new(Shared::new(status.metrics.kubernetes.clone()).map_err(AgentError::Wait)?);
    let feed = Feed::new(Arc::clone(&shared), api.pods);
    let (link, node) = (Arc::new(Link::new(api.clone())), node.to_owned());
    let run = move || {
        // Files of the user that the agent runs as are all that it reads.
        if let Err(e) = process::drop_all_capabilities() {
            warn!("{e}");
        }
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return error!(%error, "the API server cannot be followed"),
        };
        for kind in Kind::ALL {
            runtime.spawn(follow::follow(kind, node.clone(), Arc::clone(&link), Arc::clone(&shared)));
        }
        runtime.block_on(std::future::pending::<()>());
    };
    std::thread::Builder::new().name("kubernetes".into()).spawn(run).map_err(AgentError::Thread)?;
    Ok(feed)
}
