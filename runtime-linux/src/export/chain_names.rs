//! kube-proxy's chain names: a hash of what a chain is for (proxier.go, `portProtoHash` and `servicePortEndpointChainName`).

use data_encoding::BASE32;
use natlet_core::Protocol;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;

/// Characters of the digest that a name keeps.
const KEPT: usize = 16;

fn hash(text: &str) -> String {
    let mut encoded = BASE32.encode(&Sha256::digest(text));
    encoded.truncate(KEPT);
    encoded
}

/// The hash of a service port: of `namespace/name:port` (no `:` without a port name) and the protocol.
pub fn service(name: &str, protocol: Protocol) -> String {
    hash(&format!("{name}{protocol}"))
}

/// The hash of a service port's endpoint.
pub fn endpoint(name: &str, protocol: Protocol, endpoint: SocketAddr) -> String {
    hash(&format!("{name}{protocol}{endpoint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kube_proxys() {
        // from kube-proxy's own tests
        assert_eq!(service("ns1/svc1:p80", Protocol::Tcp), "XPGD46QRK7WJZT7O");
        assert_eq!(endpoint("ns1/svc1:p80", Protocol::Tcp, "10.180.0.1:80".parse().unwrap()), "SXIVWICOYRO3J4NJ");
        // from a node's listing
        let name = "workshop-development/ciq-ingress-workshop-development-nginx-ingress-controller:https";
        assert_eq!(service(name, Protocol::Tcp), "JLRSZDR3OXJ4SUA2");
        assert_eq!(endpoint(name, Protocol::Tcp, "10.82.0.10:443".parse().unwrap()), "4R3FOXQSM5T2ZADC");
        assert_eq!(endpoint(name, Protocol::Tcp, "10.82.0.82:443".parse().unwrap()), "PI7R3ONIYH4XJLMW");
    }
}
