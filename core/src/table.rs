//! The service table: what a user wants, before it is compiled.
//!
//! The table is flat and borrowed. Services, frontends, endpoints and names lie in one slice each and refer to each
//! other by [`Span`]; so a table can sit in flash, in `heapless` vectors ([`crate::owned::OwnedTable`]) or in `Vec`s,
//! and [`crate::compile`] reads all three alike. Everything Kubernetes-specific (EndpointSlices, zones, ipMode) is
//! resolved by whoever fills the table; the rules that need both lists of endpoints stay in the compiler.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use serde::{Deserialize, Serialize};

/// A range of entries in one of the table's slices: `start` and `len` in entries (bytes for `text`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Index of the first entry.
    pub start: u32,
    /// Number of entries.
    pub len: u32,
}

impl Span {
    /// The entries of `all` that this span names; `None` when it reaches past the end.
    pub fn of<T>(self, all: &[T]) -> Option<&[T]> {
        let start = usize::try_from(self.start).ok()?;
        let len = usize::try_from(self.len).ok()?;
        all.get(start..start.checked_add(len)?)
    }

    /// The text that this span names; `None` when it reaches past the end or cuts a character.
    pub fn of_str(self, all: &str) -> Option<&str> {
        let start = usize::try_from(self.start).ok()?;
        let len = usize::try_from(self.len).ok()?;
        all.get(start..start.checked_add(len)?)
    }
}

/// Transport protocol of a service port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP, IP protocol 6.
    #[default]
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
    /// SCTP, IP protocol 132.
    Sctp,
}

impl Protocol {
    /// All protocols, in the order of their codes in a program.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The IP protocol number (IANA).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol with this IP protocol number, if services can have it.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }

    /// `tcp`, `udp` or `sctp`, as iptables, nft and chain names spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl core::fmt::Display for Protocol {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a policy keeps traffic on this node (`internalTrafficPolicy`, `externalTrafficPolicy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// Any endpoint of the cluster.
    #[default]
    Cluster,
    /// Endpoints of this node only.
    Local,
}

/// How an endpoint is chosen for a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Choice {
    /// At random, by weight (kube-proxy's only way, with equal weights).
    #[default]
    Random,
    /// By a hash of the source address: the same client gets the same endpoint on every engine.
    SourceHash,
}

/// The `type` of a Service, for people and exports; it decides nothing about packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceType {
    /// `ClusterIP`.
    #[default]
    ClusterIp,
    /// `NodePort`.
    NodePort,
    /// `LoadBalancer`.
    LoadBalancer,
}

/// What kind of address a client used (kube-proxy's four kinds of frontend).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FrontendKind {
    /// A ClusterIP: internal traffic.
    ClusterIp,
    /// An address of the node and the service's node port: external traffic.
    NodePort,
    /// A load balancer's address (`status.loadBalancer.ingress[].ip`, VIP mode): external traffic.
    LoadBalancer,
    /// One of `spec.externalIPs`: external traffic.
    ExternalIp,
}

impl FrontendKind {
    /// `cluster-ip`, `node-port`, `load-balancer` or `external-ip`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClusterIp => "cluster-ip",
            Self::NodePort => "node-port",
            Self::LoadBalancer => "load-balancer",
            Self::ExternalIp => "external-ip",
        }
    }

    /// Whether `externalTrafficPolicy` governs it.
    pub const fn is_external(self) -> bool {
        !matches!(self, Self::ClusterIp)
    }
}

impl core::fmt::Display for FrontendKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// An address and port that clients use. The protocol is the service's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontend {
    /// Kind.
    pub kind: FrontendKind,
    /// Address; for a NodePort the unspecified address (`0.0.0.0` or `::`), which says the family.
    pub address: IpAddr,
    /// Port, host order, not 0.
    pub port: u16,
}

/// Where a connection can be sent, with the conditions of its EndpointSlice.
#[expect(clippy::struct_excessive_bools, reason = "each is a condition of an EndpointSlice's endpoint")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address.
    pub address: IpAddr,
    /// Port, host order, not 0.
    pub port: u16,
    /// Share of new connections relative to the service's other endpoints; 0 takes none. Kubernetes has no weights: 1.
    pub weight: u16,
    /// `ready` condition, taken at its word.
    pub ready: bool,
    /// `serving && terminating`: used where nothing is ready.
    pub fallback: bool,
    /// On this node.
    pub local: bool,
    /// Passes the topology hints for this node (true where no hints apply). Looked at for ready endpoints of the
    /// Cluster list only.
    pub hinted: bool,
}

impl Endpoint {
    /// A ready endpoint of weight 1 on another node.
    pub const fn new(address: IpAddr, port: u16) -> Self {
        Self { address, port, weight: 1, ready: true, fallback: false, local: false, hinted: true }
    }
}

/// One service port: what kube-proxy calls a ServicePortName, with everything that decides about its packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `namespace/name` or `namespace/name:port`, in [`ServiceTable::text`].
    pub name: Span,
    /// Protocol of all its frontends.
    pub protocol: Protocol,
    /// `type`, for people.
    pub service_type: ServiceType,
    /// Its frontends, in [`ServiceTable::frontends`].
    pub frontends: Span,
    /// Its endpoints, in [`ServiceTable::endpoints`], in any order. An address and port that is there twice counts once:
    /// a local one wins, then one that is ready, terminating, hinted, heavier.
    pub endpoints: Span,
    /// `internalTrafficPolicy`: rules ClusterIP traffic.
    pub internal_policy: Policy,
    /// `externalTrafficPolicy`: rules all other traffic.
    pub external_policy: Policy,
    /// `sessionAffinity: ClientIP` with its timeout in seconds; 0 is none.
    pub affinity_timeout: u32,
    /// How an endpoint is chosen.
    pub choice: Choice,
    /// `loadBalancerSourceRanges`, in [`ServiceTable::ranges`].
    pub source_ranges: Span,
    /// `healthCheckNodePort`, 0 for none.
    pub health_check_node_port: u16,
    /// Host names of Ingress rules that ride on this service, comma-separated, in [`ServiceTable::text`].
    pub hosts: Span,
}

/// An address prefix. Bits behind `prefix` are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cidr {
    /// Address.
    pub address: IpAddr,
    /// Leading bits that count: 0..=32 or 0..=128.
    pub prefix: u8,
}

impl Cidr {
    /// A prefix with the bits behind it cleared; `None` if `prefix` is longer than the address.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(a) if prefix <= 32 => IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & mask32(prefix))),
            IpAddr::V6(a) if prefix <= 128 => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & mask128(prefix))),
            _ => return None,
        };
        Some(Self { address, prefix })
    }

    /// Whether `address` lies in the prefix; an address of the other family never does.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()) & mask32(self.prefix) == 0,
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()) & mask128(self.prefix) == 0,
            _ => false,
        }
    }
}

impl core::fmt::Display for Cidr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

fn mask32(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0)
}

fn mask128(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or(0)
}

/// What is known about the node that the program is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Node<'a> {
    /// Its name, empty if unknown.
    pub name: &'a str,
    /// Its addresses, the primary of each family first. Empty: unknown.
    pub addresses: &'a [IpAddr],
    /// Pod addresses of the cluster; empty: sources cannot be told apart ("no detector").
    pub cluster_cidrs: &'a [Cidr],
    /// Service addresses of the cluster; new connections to unallocated ones are dropped.
    pub service_cidrs: &'a [Cidr],
    /// Where NodePorts accept; empty: every address of the node but loopback.
    pub node_port_cidrs: &'a [Cidr],
    /// Masquerade all ClusterIP traffic.
    pub masquerade_all: bool,
    /// NodePorts answer on 127.0.0.0/8 too.
    pub localhost_node_ports: bool,
}

/// The whole table. See the [module documentation](self).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServiceTable<'a> {
    /// The node.
    pub node: Node<'a>,
    /// Service ports, in any order; `(name, protocol)` is unique.
    pub services: &'a [Service],
    /// Frontends of all services; `(address, protocol, port)` is unique.
    pub frontends: &'a [Frontend],
    /// Endpoints of all services.
    pub endpoints: &'a [Endpoint],
    /// Source ranges of all services.
    pub ranges: &'a [Cidr],
    /// Names and host names of all services.
    pub text: &'a str,
}

impl<'a> ServiceTable<'a> {
    /// The service's name; empty if its span is wrong.
    pub fn name(&self, service: &Service) -> &'a str {
        service.name.of_str(self.text).unwrap_or("")
    }
}
