//! The way to the API server: who this is, where it is, and over which TLS.

use super::follow::Failure;
use crate::agent::source::ApiServer;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::Path;
use tokio::sync::Mutex;

/// Where the token of a pod's service account is.
const IN_CLUSTER: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// A client that is made when it is needed, and anew after a failure: tokens, certificates and the kubeconfig change
/// while the agent runs.
pub struct Link {
    api: ApiServer,
    client: Mutex<Option<Client>>,
}

impl Link {
    /// Nothing is opened yet.
    pub fn new(api: ApiServer) -> Self {
        Self { api, client: Mutex::default() }
    }

    /// The client.
    pub async fn client(&self) -> Result<Client, Failure> {
        let mut client = self.client.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let mut config = config(&self.api).await.map_err(Failure::Config)?;
        config.default_retry = false; // repeating is the follower's, whose waits are bounded
        let new = Client::try_from(config).map_err(|e| Failure::Config(e.to_string()))?;
        Ok(client.insert(new).clone())
    }

    /// What the client was made of may be out of date.
    pub async fn forget(&self) {
        *self.client.lock().await = None;
    }
}

/// From the kubeconfig, else from a pod's service account, else from the URL alone. A URL always says where.
async fn config(api: &ApiServer) -> Result<Config, String> {
    let parse = |url: &String| url.parse::<http::Uri>().map_err(|e| format!("--api-server {url}: {e}"));
    let url = api.url.as_ref().map(parse).transpose()?;
    let mut config = if let Some(path) = &api.kubeconfig {
        let failed = |e: kube::config::KubeconfigError| format!("{}: {e}", path.display());
        let file = Kubeconfig::read_from(path).map_err(failed)?;
        Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(failed)?
    } else if Path::new(IN_CLUSTER).exists() {
        Config::incluster().map_err(|e| format!("the pod's service account: {e}"))?
    } else if let Some(url) = &url {
        Config::new(url.clone())
    } else {
        return Err("this is no pod with a service account; give --kubeconfig FILE or --api-server URL".into());
    };
    config.cluster_url = url.unwrap_or(config.cluster_url);
    Ok(config)
}
