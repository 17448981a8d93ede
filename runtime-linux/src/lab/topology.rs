//! The standard laboratory: a client, a node, what lies behind the node, and pods on the node.
//!
//! ```text
//!  client ──── node ──── backends      every endpoint that is neither the node nor a pod of it
//!               ├─────── pod 0         each pod has a namespace of its own
//!               └─────── pod 1
//! ```
//!
//! As on a real node, the node's addresses are its own on every link, so that what it masquerades carries its primary
//! address; all other hosts know one route, the one to the node. The node sends what it has no route for to `backends`,
//! where it is lost in silence unless it is an endpoint: a service address that nothing translates times out.

use super::{LabError, Listener, Namespace, Route, Servers, sysctl};
use natlet_core::table::{Cidr, ServiceTable};
use nix::errno::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses of the hosts. What is left empty is chosen from the documentation ranges (RFC 5737, RFC 3849), never an
/// address that the plan or [`Plan::avoid`] names.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The node's, the primary of each family first. A family without one gets one.
    pub node: Vec<IpAddr>,
    /// The client's, the one it uses by itself first. A family without one gets one.
    pub clients: Vec<IpAddr>,
    /// Endpoints, in any order, repeated or not. Those that belong to the node or a pod stay there; all others are hosted
    /// by `backends`.
    pub endpoints: Vec<IpAddr>,
    /// The pods on the node, each with its addresses.
    pub pods: Vec<Vec<IpAddr>>,
    /// What chosen addresses must keep clear of: frontends, cluster and service CIDRs.
    pub avoid: Vec<Cidr>,
}

impl Plan {
    /// The plan for a service table: its node, its endpoints, clear of its frontends and CIDRs. It has no pods: put the
    /// addresses that shall be on the node into [`Plan::pods`].
    pub fn of(table: &ServiceTable<'_>) -> Self {
        let frontends = table.frontends.iter().filter(|f| !f.address.is_unspecified()).map(|f| host(f.address));
        let cidrs = table.node.cluster_cidrs.iter().chain(table.node.service_cidrs).copied();
        Self {
            node: table.node.addresses.iter().copied().filter(|a| !a.is_loopback()).collect(),
            endpoints: table.endpoints.iter().map(|e| e.address).collect(),
            avoid: frontends.chain(cidrs).collect(),
            ..Self::default()
        }
    }

    fn names_ipv6(&self) -> bool {
        let pods = self.pods.iter().flatten();
        self.node.iter().chain(&self.clients).chain(&self.endpoints).chain(pods).any(IpAddr::is_ipv6)
    }

    /// An address of `candidates` that nothing in the plan has or covers.
    fn free(&self, mut candidates: impl Iterator<Item = IpAddr>) -> Option<IpAddr> {
        let named: BTreeSet<_> =
            [&self.node, &self.clients, &self.endpoints].into_iter().chain(&self.pods).flatten().collect();
        candidates.find(|a| !named.contains(a) && !self.avoid.iter().any(|cidr| cidr.contains(*a)))
    }

    fn free_v4(&self) -> Result<IpAddr, LabError> {
        // The last is for benchmarks (RFC 2544): for tables that fill the documentation ranges.
        let nets = [[192, 0, 2], [198, 51, 100], [203, 0, 113], [198, 18, 0], [198, 19, 255]];
        let hosts = nets.into_iter().flat_map(|[a, b, c]| (1..=254).map(move |d| Ipv4Addr::new(a, b, c, d).into()));
        self.free(hosts).ok_or(LabError::NoAddress("192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24 and 198.18.0.0/15"))
    }

    fn free_v6(&self) -> Result<IpAddr, LabError> {
        // The last is of the unique local kind (RFC 4193), with a prefix that spells natlet.
        let nets = [[0x2001, 0xdb8, 0], [0x2001, 0xdb8, 0x6e61], [0xfd6e, 0x6174, 0x6c65]];
        let hosts =
            nets.into_iter().flat_map(|[a, b, c]| (1..=254).map(move |h| Ipv6Addr::new(a, b, c, 0, 0, 0, 0, h).into()));
        self.free(hosts).ok_or(LabError::NoAddress("2001:db8::/32 and fd6e:6174:6c65::/64"))
    }

    /// Fills in what is empty, and returns the address of `backends` in each family.
    fn complete(&mut self, ipv6: bool) -> Result<Vec<IpAddr>, LabError> {
        for addresses in [&mut self.node, &mut self.clients].into_iter().chain(&mut self.pods) {
            let mut seen = BTreeSet::new();
            addresses.retain(|address| seen.insert(*address));
        }
        let mut backends = Vec::new();
        let families: &[bool] = if ipv6 { &[false, true] } else { &[false] };
        for v6 in families {
            let free = if *v6 { Self::free_v6 } else { Self::free_v4 };
            if !self.node.iter().any(|a| a.is_ipv6() == *v6) {
                let address = free(self)?;
                self.node.push(address);
            }
            if !self.clients.iter().any(|a| a.is_ipv6() == *v6) {
                let address = free(self)?;
                self.clients.push(address);
            }
            let address = free(self)?;
            self.avoid.push(host(address));
            backends.push(address);
        }
        Ok(backends)
    }
}

/// The hosts, connected. Dropped, all is gone.
#[derive(Debug)]
pub struct Topology {
    /// Outside the cluster; its default route leads to the node.
    pub client: Namespace,
    /// The node: here rules are loaded.
    pub node: Namespace,
    /// Every endpoint elsewhere in the cluster.
    pub backends: Namespace,
    /// The pods on the node, as in the plan.
    pub pods: Vec<Namespace>,
    plan: Plan,
    owners: BTreeMap<IpAddr, Host>,
}

/// One of the topology's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    Client,
    Node,
    Backends,
    Pod(usize),
}

impl Topology {
    /// Makes the hosts, connects them and gives them addresses and routes. Where the machine has no IPv6 and the plan names
    /// none, neither have they.
    pub fn build(plan: &Plan) -> Result<Self, LabError> {
        let mut plan = plan.clone();
        let node = Namespace::new("node")?;
        node.sysctl("net/ipv4/ip_forward", "1")?;
        let ipv6 = match node.sysctl("net/ipv6/conf/all/forwarding", "1") {
            Ok(()) => true,
            Err(error) if plan.names_ipv6() => return Err(error),
            Err(_) => false,
        };
        let gateways = plan.complete(ipv6)?;
        let owners = owners(&plan)?;
        let pods = (0..plan.pods.len()).map(|i| Namespace::new(format!("pod {i}"))).collect::<Result<_, _>>()?;
        let topology =
            Self { client: Namespace::new("client")?, node, backends: Namespace::new("backends")?, pods, plan, owners };
        topology.node.run(settle);
        for host in [&topology.client, &topology.backends].into_iter().chain(&topology.pods) {
            host.run(|| {
                let _ = sysctl("net/ipv4/ip_forward", "0"); // as all the settings
                settle();
            });
        }
        topology.connect("client", &topology.client, &topology.plan.clients)?;
        topology.connect("backends", &topology.backends, &gateways)?;
        for (i, pod) in topology.pods.iter().enumerate() {
            topology.connect(&format!("pod{i}"), pod, &topology.plan.pods[i])?;
        }
        let mut node = topology.node.links()?;
        for gateway in gateways {
            node.route(default_route(gateway), Route::Via(gateway))?;
        }
        let hosted: Vec<_> =
            topology.owners.iter().filter(|(_, owner)| **owner == Host::Backends).map(|(a, _)| host(*a)).collect();
        topology.backends.links()?.routes(&hosted, Route::Local)?;
        Ok(topology)
    }

    /// The node's addresses, the primary of each family first.
    pub fn node_addresses(&self) -> &[IpAddr] {
        &self.plan.node
    }

    /// The client's addresses, the one it uses by itself first.
    pub fn client_addresses(&self) -> &[IpAddr] {
        &self.plan.clients
    }

    /// The node's primary address in the family of `like`: the source of what it masquerades.
    pub fn node_address(&self, like: IpAddr) -> Option<IpAddr> {
        primary(&self.plan.node, like)
    }

    /// The client's first address in the family of `like`.
    pub fn client_address(&self, like: IpAddr) -> Option<IpAddr> {
        primary(&self.plan.clients, like)
    }

    /// The host that has this address.
    pub fn host_of(&self, address: IpAddr) -> Option<&Namespace> {
        match self.owners.get(&address)? {
            Host::Client => Some(&self.client),
            Host::Node => Some(&self.node),
            Host::Backends => Some(&self.backends),
            Host::Pod(i) => self.pods.get(*i),
        }
    }

    /// Starts servers, each on the host that has its address.
    pub fn serve(&self, listeners: &[Listener]) -> Result<Vec<Servers>, LabError> {
        let mut by_host: BTreeMap<&str, (&Namespace, Vec<Listener>)> = BTreeMap::new();
        for listener in listeners {
            let host = self.host_of(listener.address.ip()).ok_or_else(|| {
                let what = format!("listen on {} {}: no host has it", listener.protocol, listener.address);
                LabError::kernel(what, Errno::EADDRNOTAVAIL)
            })?;
            by_host.entry(host.name()).or_insert_with(|| (host, Vec::new())).1.push(*listener);
        }
        by_host.into_values().map(|(host, listeners)| Servers::start(host, &listeners)).collect()
    }

    /// Connects a host by a cable called `link` on the node and `eth0` on the host, and gives it `addresses`.
    fn connect(&self, link: &str, other: &Namespace, addresses: &[IpAddr]) -> Result<(), LabError> {
        let (mut node, mut far) = (self.node.links()?, other.links()?);
        node.veth(link, other, "eth0")?;
        for address in &self.plan.node {
            node.address(link, host(*address))?;
        }
        for address in addresses {
            far.address("eth0", host(*address))?;
            node.route(host(*address), Route::Link(link))?;
        }
        for like in [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
            if let (Some(gateway), Some(_)) = (primary(&self.plan.node, like), primary(addresses, like)) {
                far.route(host(gateway), Route::Link("eth0"))?;
                far.route(default_route(gateway), Route::Via(gateway))?;
            }
        }
        Ok(())
    }
}

/// Who has which address. The client's, the node's and the pods' are theirs alone.
fn owners(plan: &Plan) -> Result<BTreeMap<IpAddr, Host>, LabError> {
    let mut owners = BTreeMap::new();
    let pods = plan.pods.iter().enumerate().map(|(i, addresses)| (Host::Pod(i), addresses));
    for (owner, addresses) in [(Host::Node, &plan.node), (Host::Client, &plan.clients)].into_iter().chain(pods) {
        for address in addresses {
            let before = owners.insert(*address, owner).filter(|before| *before != owner);
            if let Some(before) = before {
                let (first, second) = (format!("{before:?}").to_lowercase(), format!("{owner:?}").to_lowercase());
                return Err(LabError::Shared { address: *address, first, second });
            }
        }
    }
    for address in &plan.endpoints {
        let owner = if address.is_loopback() { Host::Node } else { Host::Backends };
        owners.entry(*address).or_insert(owner);
    }
    Ok(owners)
}

/// Settings of a host, in its namespace. A new namespace inherits IPv4's from the machine it is made on, so each is
/// written that could otherwise be one way here and another there. Where they cannot be written (a container) the hosts
/// work all the same on most machines; only the node's forwarding must not fail.
fn settle() {
    const IPV4: [&str; 4] = ["rp_filter", "send_redirects", "accept_redirects", "route_localnet"];
    // No second's wait until a new address may be used, and none that a router hands out.
    const IPV6: [&str; 3] = ["disable_ipv6", "accept_dad", "accept_ra"];
    let ipv4 = IPV4.map(|name| ("ipv4", name));
    for (family, name) in ipv4.into_iter().chain(IPV6.map(|name| ("ipv6", name))) {
        for device in ["all", "default"] {
            let _ = sysctl(&format!("net/{family}/conf/{device}/{name}"), "0");
        }
    }
    // Each of many refused probes must hear of it: without these the kernel sends one ICMP error per second and host. The
    // last two are the whole machine's, and out of reach, before Linux 6.12.
    for (name, value) in [
        ("ipv4/icmp_ratelimit", "0"),
        ("ipv6/icmp/ratelimit", "0"),
        ("ipv4/icmp_msgs_per_sec", "1000000"),
        ("ipv4/icmp_msgs_burst", "1000000"),
    ] {
        let _ = sysctl(&format!("net/{name}"), value);
    }
}

fn primary(addresses: &[IpAddr], like: IpAddr) -> Option<IpAddr> {
    addresses.iter().find(|a| a.is_ipv6() == like.is_ipv6()).copied()
}

/// The prefix that holds this address alone.
fn host(address: IpAddr) -> Cidr {
    Cidr { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
}

/// The prefix that holds every address of this family.
fn default_route(like: IpAddr) -> Cidr {
    let address = if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    Cidr { address, prefix: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn chosen_addresses_keep_clear_of_the_table() {
        let mut plan = Plan {
            node: vec![ip("192.0.2.1")],
            endpoints: vec![ip("192.0.2.2"), ip("2001:db8::2")],
            avoid: vec![Cidr::new(ip("192.0.2.0"), 29).unwrap(), Cidr::new(ip("2001:db8::"), 48).unwrap()],
            ..Plan::default()
        };
        let backends = plan.complete(true).unwrap();
        assert_eq!(plan.node, [ip("192.0.2.1"), ip("2001:db8:6e61::1")]);
        assert_eq!(plan.clients, [ip("192.0.2.8"), ip("2001:db8:6e61::2")]);
        assert_eq!(backends, [ip("192.0.2.9"), ip("2001:db8:6e61::3")]);
    }

    #[test]
    fn a_table_is_a_plan() {
        use natlet_core::table::{Endpoint, Frontend, FrontendKind, Node};
        let frontend = |kind, address| Frontend { kind, address: ip(address), port: 80 };
        let table = ServiceTable {
            node: Node {
                addresses: &[ip("192.0.2.1"), ip("127.0.0.1"), ip("192.0.2.1")],
                cluster_cidrs: &[Cidr { address: ip("10.82.0.0"), prefix: 16 }],
                ..Node::default()
            },
            frontends: &[frontend(FrontendKind::ExternalIp, "192.0.2.2"), frontend(FrontendKind::NodePort, "0.0.0.0")],
            endpoints: &[Endpoint::new(ip("10.82.0.10"), 80), Endpoint::new(ip("192.0.2.1"), 80)],
            ..ServiceTable::default()
        };
        let mut plan = Plan::of(&table);
        plan.complete(false).unwrap();
        assert_eq!(plan.node, [ip("192.0.2.1")]);
        assert_eq!(plan.clients, [ip("192.0.2.3")]);
        assert_eq!(plan.avoid[..2], [host(ip("192.0.2.2")), Cidr { address: ip("10.82.0.0"), prefix: 16 }]);
        assert_eq!(owners(&plan).unwrap()[&ip("10.82.0.10")], Host::Backends);
        assert_eq!(owners(&plan).unwrap()[&ip("192.0.2.1")], Host::Node);
    }

    #[test]
    fn a_table_that_covers_everything_is_told_so() {
        let mut plan = Plan { avoid: vec![Cidr::new(ip("0.0.0.0"), 0).unwrap()], ..Plan::default() };
        assert!(matches!(plan.complete(true), Err(LabError::NoAddress(_))));
    }

    #[test]
    fn an_address_has_one_host() {
        let plan = Plan {
            node: vec![ip("192.0.2.1")],
            clients: vec![ip("192.0.2.9")],
            pods: vec![vec![ip("10.0.0.1")]],
            endpoints: vec![ip("192.0.2.1"), ip("10.0.0.1"), ip("10.0.0.2"), ip("10.0.0.2")],
            ..Plan::default()
        };
        let owners = owners(&plan).unwrap();
        assert_eq!(owners[&ip("192.0.2.1")], Host::Node);
        assert_eq!(owners[&ip("10.0.0.1")], Host::Pod(0));
        assert_eq!(owners[&ip("10.0.0.2")], Host::Backends);
        let twice = Plan { clients: vec![ip("192.0.2.1")], ..plan };
        assert!(matches!(super::owners(&twice), Err(LabError::Shared { .. })));
    }
}
