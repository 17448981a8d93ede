//! What happens to the first packet of a connection: kube-proxy's rules, evaluated on a program.
//!
//! Order (kube-proxy, nftables backend): source ranges of load-balancer addresses, exact frontends, NodePorts, other ports
//! of ClusterIPs, unallocated service addresses. Everything is decided on the original source.

use crate::program::{EndpointList, Program, ProgramFrontend, Record, RecordEndpoint};
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
    /// Whether the source is rewritten, hairpin aside.
    pub masquerade: Masquerade,
    source: IpAddr,
}

impl<'a> Decision<'a> {
    /// The endpoints to draw from; `None` unless the verdict is `Dnat`.
    pub fn endpoints(&self) -> Option<EndpointList<'a>> {
        let list = self.list.filter(|_| self.verdict == Verdict::Dnat)?;
        Some(list.of(&self.frontend.as_ref()?.record))
    }

    /// The one endpoint that this source always gets, where the service chooses by a hash of the source. Session affinity
    /// may still hold the source at another one for a while, after the list has changed.
    pub fn hashed(&self) -> Option<RecordEndpoint> {
        let by_hash = self.frontend.as_ref().is_some_and(|f| f.record.choice() == Choice::SourceHash);
        if by_hash { self.endpoints()?.hashed(self.source) } else { None }
    }

    /// The session affinity of a packet that is translated, in seconds: a source that the service saw so recently keeps
    /// its endpoint.
    pub fn affinity_timeout(&self) -> Option<u32> {
        if self.verdict == Verdict::Dnat { self.frontend.as_ref()?.record.affinity_timeout() } else { None }
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

impl ListKind {
    /// That list of a service.
    pub(crate) fn of<'a>(self, record: &Record<'a>) -> EndpointList<'a> {
        match self {
            Self::Cluster => record.cluster(),
            Self::Local => record.local(),
        }
    }
}

/// A decision without the frontend: what the translator needs, for which each word that is copied counts.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct Ruling {
    pub verdict: Verdict,
    pub reason: Reason,
    pub class: Class,
    pub list: Option<ListKind>,
    pub masquerade: Masquerade,
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
        let exact = self.find(packet.destination, packet.protocol, packet.port);
        let node_port = self.node_port_instead(packet, exact.as_ref());
        let found = node_port.as_ref().or(exact.as_ref());
        let Ruling { verdict, reason, class, list, masquerade } = self.rule(packet, found);
        // an address that takes no NodePorts is no frontend
        let frontend = found.filter(|_| reason != Reason::NodePortAddress).copied();
        Decision { verdict, reason, class, frontend, list, masquerade, source: packet.source }
    }

    /// The NodePort that a packet for the node is for, where no exact frontend takes it. An external one without any usable
    /// endpoint takes none: kube-proxy refuses only what no NodePort has translated by then.
    pub(crate) fn node_port_instead(
        &self,
        packet: &Packet,
        exact: Option<&ProgramFrontend<'a>>,
    ) -> Option<ProgramFrontend<'a>> {
        if !packet.to_node || exact.is_some_and(|f| !f.is_passed_over()) {
            return None;
        }
        let found = self.find_node_port(packet.destination, packet.protocol, packet.port)?;
        let Some(exact) = exact else { return Some(found) };
        let allowed = exact.kind != FrontendKind::LoadBalancer || Self::may_use(&exact.record, packet.source);
        let takes = found.record.any_usable() && self.accepts_node_ports(packet.destination);
        if allowed && takes { Some(found) } else { None }
    }

    /// What happens to a packet that is for this frontend.
    pub(crate) fn rule(&self, packet: &Packet, frontend: Option<&ProgramFrontend<'a>>) -> Ruling {
        let class = self.class(packet);
        let ruling = |verdict, reason| Ruling { verdict, reason, class, list: None, masquerade: Masquerade::No };
        let Some(frontend) = frontend else {
            return if self.is_cluster_ip(packet.destination) {
                ruling(Verdict::Reject, Reason::UnknownPort)
            } else if Self::any_contains(self.context().service_cidrs(), packet.destination) {
                ruling(Verdict::Drop, Reason::UnallocatedAddress)
            } else {
                ruling(Verdict::Accept, Reason::NoFrontend)
            };
        };
        let record = &frontend.record;
        match frontend.kind {
            FrontendKind::NodePort if !self.accepts_node_ports(packet.destination) => {
                return ruling(Verdict::Accept, Reason::NodePortAddress);
            }
            FrontendKind::LoadBalancer if !Self::may_use(record, packet.source) => {
                return ruling(Verdict::Drop, Reason::SourceRange);
            }
            _ => {}
        }
        if !record.any_usable() {
            return ruling(Verdict::Reject, Reason::NoEndpoints);
        }
        let (list, masquerade) = self.route(frontend, packet.source, class);
        if list.of(record).is_empty() {
            return Ruling { list: Some(list), ..ruling(Verdict::Drop, Reason::NoLocalEndpoints) };
        }
        Ruling { list: Some(list), masquerade, ..ruling(Verdict::Dnat, Reason::Frontend) }
    }

    /// Whether a source may use a service's load-balancer addresses.
    fn may_use(record: &Record<'_>, source: IpAddr) -> bool {
        record.source_ranges().is_none_or(|mut ranges| ranges.any(|r| r.contains(source)))
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

    /// The list that a source uses at a frontend, and whether its address is rewritten.
    fn route(&self, frontend: &ProgramFrontend<'a>, source: IpAddr, class: Class) -> (ListKind, Masquerade) {
        let record = &frontend.record;
        if !frontend.kind.is_external() {
            let masquerade = if self.context().masquerade_all() {
                Masquerade::All
            } else if class != Class::Pod && self.detects_pods(source) {
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
        match (record.external_policy(), class) {
            (Policy::Cluster, _) => (ListKind::Cluster, Masquerade::ExternalCluster),
            // as if it had gone out to the load balancer and come back
            (Policy::Local, Class::Pod) => (ListKind::Cluster, Masquerade::No),
            (Policy::Local, Class::Node) => (ListKind::Cluster, Masquerade::FromNode),
            (Policy::Local, Class::Outside) => (ListKind::Local, Masquerade::No),
        }
    }
}
