//! The hosts that most tests of the command have: a client, a node, and pods behind it.

use libtest_mimic::Failed;
use natlet::lab::{Listener, Plan, Servers, Topology};
use natlet_core::table::Cidr;
use std::net::{IpAddr, SocketAddr};

/// An address that a test says.
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address that a test says")
}

/// An address with a port that a test says.
pub fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port that a test says")
}

/// A client at 203.0.113.9, the node at 192.0.2.1, and pods that answer at TCP 8443 and UDP 5514. The tests' ClusterIPs are in
/// 192.168.0.0/16.
pub fn site(pods: &[&str]) -> Result<(Topology, Vec<Servers>), Failed> {
    let topology = Topology::build(&Plan {
        node: vec![ip("192.0.2.1")],
        clients: vec![ip("203.0.113.9")],
        pods: pods.iter().map(|p| vec![ip(p)]).collect(),
        endpoints: Vec::new(),
        avoid: vec![Cidr { address: ip("192.168.0.0"), prefix: 16 }],
    })?;
    let servers = topology.serve(&pods.iter().flat_map(|p| listeners(ip(p))).collect::<Vec<_>>())?;
    Ok((topology, servers))
}

/// What a pod listens at.
pub fn listeners(pod: IpAddr) -> [Listener; 2] {
    [Listener::tcp(SocketAddr::new(pod, 8443)), Listener::udp(SocketAddr::new(pod, 5514))]
}
