//! What the command line says about the node.

use super::address;
use natlet_core::table::Cidr;
use std::net::IpAddr;

/// What the command line says about the node. It wins over what the inputs say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFlags {
    /// `--node-name`.
    pub node_name: Option<String>,
    /// `--node-ip`, the primary of each family first.
    pub node_ips: Vec<IpAddr>,
    /// `--cluster-cidr`.
    pub cluster_cidrs: Vec<Cidr>,
    /// `--service-cidr`.
    pub service_cidrs: Vec<Cidr>,
    /// `--node-port-address`.
    pub node_port_cidrs: Vec<Cidr>,
    /// `--masquerade-all`.
    pub masquerade_all: bool,
    /// `--localhost-node-ports`.
    pub localhost_node_ports: bool,
}

impl NodeFlags {
    /// The flags that were given, by name.
    pub(super) fn given(&self) -> Vec<&'static str> {
        let flags = [
            (self.node_name.is_some(), "--node-name"),
            (!self.node_ips.is_empty(), "--node-ip"),
            (!self.cluster_cidrs.is_empty(), "--cluster-cidr"),
            (!self.service_cidrs.is_empty(), "--service-cidr"),
            (!self.node_port_cidrs.is_empty(), "--node-port-address"),
            (self.masquerade_all, "--masquerade-all"),
            (self.localhost_node_ports, "--localhost-node-ports"),
        ];
        flags.into_iter().filter(|(given, _)| *given).map(|(_, name)| name).collect()
    }
}

/// Reads a prefix from a flag, as tolerantly as from a file.
///
/// # Errors
/// A sentence that says what is wrong and how to write it.
pub fn parse_cidr(text: &str) -> Result<Cidr, String> {
    address::parse_cidr(text).map_err(|fault| format!("{}: {}", fault.why, fault.help))
}

/// Reads an address from a flag, as tolerantly as from a file.
///
/// # Errors
/// A sentence that says what is wrong and how to write it.
pub fn parse_address(text: &str) -> Result<IpAddr, String> {
    address::parse(text).map_err(|fault| format!("{}: {}", fault.why, fault.help))
}
