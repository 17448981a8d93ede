//! What happens to the first packet of a connection: kube-proxy's rules, evaluated on a program.
//!
//! Order (kube-proxy, nftables backend): source ranges of load-balancer addresses, exact frontends, NodePorts, other ports
//! of ClusterIPs, unallocated service addresses. Everything is decided on the original source.

use crate::program::{EndpointList, Program, ProgramFrontend, RecordEndpoint};
use crate::table::{Choice, FrontendKind, Policy, Protocol};
use core::fmt;
use core::net::IpAddr;

/// The first packet of a connection, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Destination port, host order.
    pub port: u16,
    /// The source is one of the node's own addresses.
    pub from_node: bool,
    /// The destination is one of the node's own addresses.
    pub to_node: bool,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its destination becomes one of the decision's endpoints.
    Dnat,
    /// It is answered with an error (ICMP port unreachable).
    Reject,
    /// It vanishes.
    Drop,
    /// natlet does nothing to it.
    Accept,
}

impl Verdict {
    /// `dnat`, `reject`, `drop` or `accept`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dnat => "dnat",
            Self::Reject => "reject",
            Self::Drop => "drop",
            Self::Accept => "accept",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a connection comes from; the first that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A source in the cluster CIDRs.
    Pod,
    /// One of the node's own addresses.
    Node,
    /// Anyone else. Without cluster CIDRs pods are here too.
    Outside,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pod => "pod",
            Self::Node => "node",
            Self::Outside => "outside",
        })
    }
}

/// Which of a service's lists the endpoint is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Usable endpoints of the whole cluster.
    Cluster,
    /// Usable endpoints of this node.
    Local,
}

/// Whether the source is rewritten whichever endpoint is drawn. An endpoint that draws itself always is (hairpin).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masquerade {
    /// No: endpoints see the client's address.
    No,
    /// ClusterIP traffic of a source that is no pod.
    NotAPod,
    /// ClusterIP traffic under `--masquerade-all`.
    All,
    /// External traffic under policy Cluster: the reply must come back through this node.
    ExternalCluster,
    /// External traffic of the node itself under policy Local.
    FromNode,
}

impl Masquerade {
    /// Whether the source is rewritten.
    pub const fn is_yes(self) -> bool {
        !matches!(self, Self::No)
    }
}

impl fmt::Display for Masquerade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::No => "the source is kept",
            Self::NotAPod => "masqueraded: the source is no pod",
            Self::All => "masqueraded: --masquerade-all",
            Self::ExternalCluster => "masqueraded: external traffic under policy Cluster",
            Self::FromNode => "masqueraded: the node's own traffic to an external address",
        })
    }
}

/// Why a packet gets its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// A frontend with endpoints.
    Frontend,
    /// A frontend; no endpoint is usable anywhere.
    NoEndpoints,
    /// A frontend under policy Local; endpoints exist, but none on this node.
    NoLocalEndpoints,
    /// A load-balancer address that the source may not use (`loadBalancerSourceRanges`).
    SourceRange,
    /// A ClusterIP, but no port of it.
    UnknownPort,
    /// An address of the service CIDRs that no service has.
    UnallocatedAddress,
    /// A NodePort's number, on an address of the node that takes no NodePorts.
    NodePortAddress,
    /// Nothing of natlet's.
    NoFrontend,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Frontend => "a frontend with usable endpoints",
            Self::NoEndpoints => "the service has no usable endpoint",
            Self::NoLocalEndpoints => "the policy is Local and no usable endpoint is on this node",
            Self::SourceRange => "the source is in none of the service's source ranges",
            Self::UnknownPort => "the address is a ClusterIP, but no service has this port and protocol on it",
            Self::UnallocatedAddress => "the address is in a service CIDR, but no service has it",
            Self::NodePortAddress => "this address of the node takes no NodePort traffic",
            Self::NoFrontend => "no frontend has this address, protocol and port",
        })
    }
}

/// The verdict on a packet and everything that led to it.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Decision<'a> {
    /// What happens.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Where the packet comes from.
    pub class: Class,
    /// The frontend that it is for.
    pub frontend: Option<ProgramFrontend<'a>>,
    /// Which list was looked at; `None` where it did not come to that.
    pub list: Option<ListKind>,
    /// The endpoints to draw from; `None` unless the verdict is `Dnat`.
    pub endpoints: Option<EndpointList<'a>>,
    /// Whether the source is rewritten, hairpin aside.
    pub masquerade: Masquerade,
    source: IpAddr,
}

impl Decision<'_> {
    /// The one endpoint that this source always gets, where the service chooses by a hash of the source. Session affinity
    /// may still hold the source at another one for a while, after the list has changed.
    pub fn hashed(&self) -> Option<RecordEndpoint> {
        let by_hash = self.frontend.is_some_and(|f| f.record.choice() == Choice::SourceHash);
        self.endpoints.filter(|_| by_hash)?.hashed(self.source)
    }

    /// The session affinity of a packet that is translated, in seconds: a source that the service saw so recently keeps
    /// its endpoint.
    pub fn affinity_timeout(&self) -> Option<u32> {
        self.frontend.filter(|_| self.endpoints.is_some())?.record.affinity_timeout()
    }

    /// Whether a connection to this endpoint has its source rewritten, hairpin included.
    pub fn masquerades(&self, endpoint: &RecordEndpoint) -> bool {
        self.masquerade.is_yes() || self.is_hairpin(endpoint)
    }

    /// Whether the endpoint would reach itself.
    pub fn is_hairpin(&self, endpoint: &RecordEndpoint) -> bool {
        endpoint.address.ip() == self.source
    }
}

impl<'a> Program<'a> {
    /// The packet with these addresses; which of them are the node's is looked up in the program's node section.
    pub fn packet(&self, source: IpAddr, destination: IpAddr, protocol: Protocol, port: u16) -> Packet {
        Packet {
            source,
            destination,
            protocol,
            port,
            from_node: self.context().is_node_address(source),
            to_node: self.context().is_node_address(destination),
        }
    }

    /// Decides about the first packet of a connection. O(1) in the number of services.
    pub fn decide(&self, packet: &Packet) -> Decision<'a> {
        let class = self.class(packet);
        let decision = Decision {
            verdict: Verdict::Accept,
            reason: Reason::NoFrontend,
            class,
            frontend: None,
            list: None,
            endpoints: None,
            masquerade: Masquerade::No,
            source: packet.source,
        };
        if let Some(frontend) = self.find(packet.destination, packet.protocol, packet.port) {
            return self.decide_frontend(decision, &frontend);
        }
        if packet.to_node
            && let Some(frontend) = self.find_node_port(packet.destination, packet.protocol, packet.port)
        {
            if self.accepts_node_ports(packet.destination) {
                return self.decide_frontend(decision, &frontend);
            }
            return Decision { reason: Reason::NodePortAddress, ..decision };
        }
        if self.is_cluster_ip(packet.destination) {
            return Decision { verdict: Verdict::Reject, reason: Reason::UnknownPort, ..decision };
        }
        if Self::any_contains(self.context().service_cidrs(), packet.destination) {
            return Decision { verdict: Verdict::Drop, reason: Reason::UnallocatedAddress, ..decision };
        }
        decision
    }

    /// Whether sources can be told apart in this family ("local detector").
    fn detects_pods(&self, address: IpAddr) -> bool {
        self.context().cluster_cidrs().any(|c| c.address.is_ipv6() == address.is_ipv6())
    }

    fn class(&self, packet: &Packet) -> Class {
        if Self::any_contains(self.context().cluster_cidrs(), packet.source) {
            Class::Pod
        } else if packet.from_node || packet.source.is_loopback() {
            Class::Node
        } else {
            Class::Outside
        }
    }

    /// Whether an address of the node takes NodePort traffic. Loopback only does for IPv4 and when asked for.
    fn accepts_node_ports(&self, address: IpAddr) -> bool {
        if address.is_loopback() && !(address.is_ipv4() && self.context().localhost_node_ports()) {
            return false;
        }
        let mut of_family =
            self.context().node_port_cidrs().filter(|c| c.address.is_ipv6() == address.is_ipv6()).peekable();
        of_family.peek().is_none() || of_family.any(|c| c.prefix == 0 || c.contains(address))
    }

    fn decide_frontend(&self, decision: Decision<'a>, frontend: &ProgramFrontend<'a>) -> Decision<'a> {
        let record = frontend.record;
        let decision = Decision { frontend: Some(*frontend), ..decision };
        if frontend.kind == FrontendKind::LoadBalancer
            && let Some(mut ranges) = record.source_ranges()
            && !ranges.any(|r| r.contains(decision.source))
        {
            return Decision { verdict: Verdict::Drop, reason: Reason::SourceRange, ..decision };
        }
        if !record.any_usable() {
            return Decision { verdict: Verdict::Reject, reason: Reason::NoEndpoints, ..decision };
        }
        let (list, masquerade) = self.route(&decision, frontend);
        let endpoints = match list {
            ListKind::Cluster => record.cluster(),
            ListKind::Local => record.local(),
        };
        let decision = Decision { list: Some(list), ..decision };
        if endpoints.is_empty() {
            return Decision { verdict: Verdict::Drop, reason: Reason::NoLocalEndpoints, ..decision };
        }
        let (verdict, reason) = (Verdict::Dnat, Reason::Frontend);
        Decision { verdict, reason, endpoints: Some(endpoints), masquerade, ..decision }
    }

    /// The list that a source uses at a frontend, and whether its address is rewritten.
    fn route(&self, decision: &Decision<'a>, frontend: &ProgramFrontend<'a>) -> (ListKind, Masquerade) {
        let record = &frontend.record;
        if !frontend.kind.is_external() {
            let masquerade = if self.context().masquerade_all() {
                Masquerade::All
            } else if self.detects_pods(decision.source) && decision.class != Class::Pod {
                Masquerade::NotAPod
            } else {
                Masquerade::No
            };
            let list = match record.internal_policy() {
                Policy::Cluster => ListKind::Cluster,
                Policy::Local => ListKind::Local,
            };
            return (list, masquerade);
        }
        match (record.external_policy(), decision.class) {
            (Policy::Cluster, _) => (ListKind::Cluster, Masquerade::ExternalCluster),
            // as if it had gone out to the load balancer and come back
            (Policy::Local, Class::Pod) => (ListKind::Cluster, Masquerade::No),
            (Policy::Local, Class::Node) => (ListKind::Cluster, Masquerade::FromNode),
            (Policy::Local, Class::Outside) => (ListKind::Local, Masquerade::No),
        }
    }
}
