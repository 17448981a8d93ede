//! Arguments of every command.

use crate::agent::http::DEFAULT_LISTEN;
use crate::kernel::Counting;
use crate::source::{NodeFlags, parse_address, parse_cidr};
use clap::{Args, Parser, Subcommand, ValueEnum};
use natlet_core::{Cidr, Protocol};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Kubernetes service network for edge nodes, from one small program.
#[derive(Debug, Parser)]
#[command(name = "natlet", version, propagate_version = true, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  natlet try services.toml
  kubectl get svc,endpointslices,nodes -A -o yaml | natlet show -
  natlet trace --from 203.0.113.9 --to 192.168.5.65:443 services.toml
  natlet load services.toml && natlet status

natlet COMMAND --help says more.";

const GATEWAY_HELP: &str = "\
Example, for services in 10.96.0.0/12 and 192.0.2.2 as the gateway's own address, which the host must not have:
  ip tuntap add dev natlet0 mode tun && ip link set natlet0 up txqueuelen 10000
  sysctl -w net.ipv4.ip_forward=1
  sysctl -w net.ipv4.conf.natlet0.rp_filter=2 net.ipv4.conf.natlet0.accept_local=1
  ip route add 10.96.0.0/12 dev natlet0 table 100
  ip route add 192.0.2.2 dev natlet0 table 100
  ip rule add not iif natlet0 lookup 100
  natlet gateway --tun natlet0 --node-ip 192.0.2.2 services.toml

Replies to connections that are not masqueraded must be routed into the device too:
  ip route add default dev natlet0 table 101
  ip rule add iif eth1 lookup 101 && ip rule add iif lo ipproto icmp lookup 101

Signals: SIGHUP reads the files again, SIGUSR1 prints the counters, SIGTERM ends.";

const TOP_HELP: &str = "\
Examples:
  natlet top
  natlet top --once -o json
  natlet top --once --sort flows --filter shop

What is loaded is read from the kernel, whoever loaded it; that needs CAP_NET_ADMIN. Without it the agent is asked.
Bytes are counted where conntrack counts them: sysctl net.netfilter.nf_conntrack_acct=1";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Try a service table in a private namespace: real kernel, real connections, the host untouched, no root needed
    #[command(after_help = "Example:\n  natlet try runtime-linux/examples/workshop")]
    Try(TryArgs),
    /// Compile a service table to a program
    #[command(
        after_help = "Example:\n  kubectl get svc,endpointslices,nodes -A -o yaml | natlet compile - -o services.natp"
    )]
    Compile(CompileArgs),
    /// Show the services of a table, as `kubectl get svc -o wide` does
    #[command(after_help = "Examples:\n  natlet show services.toml\n  iptables-save | natlet show - -o json")]
    Show(ShowArgs),
    /// Say what happens to a packet, and why; needs no root and no kernel
    #[command(
        after_help = "Examples:\n  natlet trace --from 203.0.113.9 --to 10.82.0.97:443 runtime-linux/examples/workshop\n  natlet trace --flows runtime-linux/examples/flows.toml runtime-linux/examples/services.toml\n\nFlows:\n  [[flow]]\n  name = \"clients reach the shop\"\n  from = \"203.0.113.9\"\n  to = \"198.51.100.1:443\"\n  expect = { verdict = \"dnat\", endpoints = [\"10.0.0.1:443\"], masquerade = true }\n\nexpect takes verdict (dnat, reject, drop, accept), service, frontend, endpoints (all of them, in any order) and\nmasquerade (true, false, or the endpoints that are). Exit status 1 if a flow differs."
    )]
    Trace(TraceArgs),
    /// Put a service table in force in the kernel, atomically; needs CAP_NET_ADMIN
    #[command(after_help = "Example:\n  natlet load --cluster-cidr 10.244.0.0/16 services.yaml")]
    Load(LoadArgs),
    /// Remove natlet's tables from the kernel, and nothing else; needs CAP_NET_ADMIN
    #[command(after_help = "Example:\n  natlet unload && nft list tables")]
    Unload,
    /// Say what is in force in the kernel, since when, with which content id, and how the agent is
    #[command(after_help = "Examples:\n  natlet status\n  natlet status -o json")]
    Status(StatusArgs),
    /// Show what services carry: new connections, live flows and bytes, from the kernel's counters
    #[command(after_help = TOP_HELP)]
    Top(super::top::TopArgs),
    /// Keep a service table in force: watch its sources, repair what others change; needs CAP_NET_ADMIN
    #[command(
        after_help = "Examples:\n  natlet run /etc/natlet\n  natlet run --node-name edge-7 --log-format json services.yaml\n  natlet run --kubernetes --node-name edge-7 --kubeconfig /etc/kubernetes/kubelet.conf\n\nSIGHUP reads the sources and the settings again. SIGTERM ends the agent and leaves the rules in force."
    )]
    Run(super::run::RunArgs),
    /// Say by service what `load` would change in the kernel, and change nothing; needs CAP_NET_ADMIN
    #[command(
        after_help = "Examples:\n  natlet diff services.toml\n  natlet diff -o json services.yaml || natlet load services.yaml\n\nExit status: 0 no difference, 1 some, 2 error. The kernel is read back: what others changed in it is told too."
    )]
    Diff(DiffArgs),
    /// Translate packets on a TUN device, without the kernel's NAT; needs CAP_NET_ADMIN
    #[command(after_help = GATEWAY_HELP)]
    Gateway(GatewayArgs),
    /// Write a service table in a form that other tools read
    #[command(
        after_help = "Examples:\n  natlet export --format iptables-save services.yaml | iptables-restore --test\n  natlet export --format nft services.toml | nft -f -\n  natlet export --format dot services.toml | dot -Tsvg -o services.svg\n  kubectl get svc,endpointslices,nodes -A -o yaml | natlet export --format toml - > services.toml"
    )]
    Export(ExportArgs),
}

/// The input files and what is known about the node.
#[derive(Debug, Args)]
pub struct Input {
    /// Kubernetes manifests, services.toml, iptables-save listings or a compiled program; `-` is standard input, a
    /// directory all files in it
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub node: Node,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "The node")]
#[expect(clippy::struct_field_names, reason = "the fields are the flags' names")]
pub struct Node {
    /// Name of this node: which endpoints are local
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// An address of this node (repeat; the first is the primary one)
    #[arg(long = "node-ip", value_name = "IP", value_parser = parse_address, value_delimiter = ',')]
    pub node_ips: Vec<IpAddr>,
    /// Where pods are (repeat)
    #[arg(long = "cluster-cidr", value_name = "CIDR", value_parser = parse_cidr, value_delimiter = ',')]
    pub cluster_cidrs: Vec<Cidr>,
    /// Where ClusterIPs are allocated (repeat)
    #[arg(long = "service-cidr", value_name = "CIDR", value_parser = parse_cidr, value_delimiter = ',')]
    pub service_cidrs: Vec<Cidr>,
    /// Addresses that take NodePort traffic (repeat; none: all of the node's but loopback)
    #[arg(long = "node-port-address", value_name = "CIDR", value_parser = parse_cidr, value_delimiter = ',')]
    pub node_port_addresses: Vec<Cidr>,
    /// Masquerade all traffic to ClusterIPs
    #[arg(long)]
    pub masquerade_all: bool,
    /// NodePorts answer on 127.0.0.0/8 too
    #[arg(long)]
    pub localhost_node_ports: bool,
}

impl Node {
    /// As sources take them.
    pub fn flags(&self) -> NodeFlags {
        NodeFlags {
            node_name: self.node_name.clone(),
            node_ips: self.node_ips.clone(),
            cluster_cidrs: self.cluster_cidrs.clone(),
            service_cidrs: self.service_cidrs.clone(),
            node_port_cidrs: self.node_port_addresses.clone(),
            masquerade_all: self.masquerade_all,
            localhost_node_ports: self.localhost_node_ports,
        }
    }
}

/// How a command prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Table,
    /// For people, with everything
    Wide,
    /// For programs
    Json,
    /// For programs that people read too
    Yaml,
}

#[derive(Debug, Args)]
pub struct TryArgs {
    #[command(flatten)]
    pub input: Input,
    /// Connections to each frontend
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub connections: u32,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct CompileArgs {
    #[command(flatten)]
    pub input: Input,
    /// Where the program goes; `-` is standard output
    #[arg(short, long, value_name = "P.natp")]
    pub output: PathBuf,
    /// Leave the names out, for firmware
    #[arg(long)]
    pub strip_names: bool,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    pub input: Input,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Source of the packet, IP or IP:PORT
    #[arg(long, value_name = "IP[:PORT]", value_parser = parse_source, required_unless_present = "flows")]
    pub from: Option<IpAddr>,
    /// Destination of the packet
    #[arg(long, value_name = "IP:PORT", value_parser = parse_destination, required_unless_present = "flows")]
    pub to: Option<SocketAddr>,
    /// Hold the table against the flows of a file: [[flow]] with from, to, proto and expect
    #[arg(long, value_name = "FLOWS", conflicts_with_all = ["from", "to", "proto"])]
    pub flows: Option<PathBuf>,
    /// Transport protocol
    #[arg(long, default_value = "tcp", value_parser = parse_protocol)]
    pub proto: Protocol,
    #[command(flatten)]
    pub input: Input,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct LoadArgs {
    #[command(flatten)]
    pub input: Input,
    /// Whether frontends count connections, for `natlet top` and the status page; if not given, as loaded now, else on
    #[arg(long, value_enum, value_name = "WHEN")]
    pub counters: Option<Switch>,
    #[command(flatten)]
    pub memory: Memory,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// They count
    On,
    /// They do not: for tables of many ten thousand frontends, each of which costs 2 µs of a load
    Off,
}

/// As the kernel's loader takes it.
pub fn counting(switch: Option<Switch>) -> Counting {
    match switch {
        None => Counting::AsLoaded,
        Some(Switch::On) => Counting::On,
        Some(Switch::Off) => Counting::Off,
    }
}

/// What `load` remembers, so that the next command need not read the tables back.
#[derive(Debug, Args)]
pub struct Memory {
    /// Read back everything, even if no table was changed since the last `natlet load`
    #[arg(long)]
    pub verify: bool,
    /// Where `natlet load` remembers what it loaded; empty after a boot
    #[arg(long, value_name = "DIR", env = "NATLET_RUNTIME_DIR", default_value = "/run/natlet")]
    pub runtime_dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    #[command(flatten)]
    pub input: Input,
    #[command(flatten)]
    pub memory: Memory,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Where the agent answers
    #[arg(long, value_name = "IP:PORT", env = "NATLET_AGENT", default_value_t = DEFAULT_LISTEN)]
    pub agent: SocketAddr,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct GatewayArgs {
    /// Name of the TUN device; it is made if it does not exist, and gone at the end then
    #[arg(long, value_name = "NAME")]
    pub tun: String,
    /// Connections of each address family that there is memory for (170 bytes for one of each)
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub flows: u32,
    /// Serve the counters to Prometheus at this address; a port alone is this machine's loopback
    #[arg(long, value_name = "[IP:]PORT", value_parser = parse_loopback)]
    pub metrics: Option<SocketAddr>,
    #[command(flatten)]
    pub input: Input,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// What to write
    #[arg(long, value_enum)]
    pub format: Format,
    #[command(flatten)]
    pub input: Input,
    /// The IPv6 part, for formats that hold one family
    #[arg(short = '6', long)]
    pub ipv6: bool,
}

/// Forms that a table can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// kube-proxy's KUBE-* chains, for iptables-restore
    IptablesSave,
    /// What `natlet load` would load, for `nft -f`
    Nft,
    /// Kubernetes Services, EndpointSlices and the Node; read back, it is the same program
    Manifest,
    /// natlet's services.toml; read back, it is the same program
    Toml,
    /// A picture of frontends, services and endpoints, for Graphviz
    Dot,
}

fn parse_loopback(text: &str) -> Result<SocketAddr, String> {
    let port = text.parse().map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    port.or_else(|_| text.parse()).map_err(|_| "give a port such as 9469, or an address such as 192.0.2.1:9469".into())
}

fn parse_protocol(text: &str) -> Result<Protocol, String> {
    Protocol::ALL
        .into_iter()
        .find(|p| p.name().eq_ignore_ascii_case(text))
        .ok_or_else(|| "natlet knows tcp, udp and sctp".into())
}

fn parse_destination(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "give an address and a port such as 192.0.2.7:443 or [2001:db8::7]:443".into())
}

fn parse_source(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse()
        .or_else(|_| text.parse::<SocketAddr>().map(|a| a.ip()))
        .map_err(|_| "give an address such as 192.0.2.7, 192.0.2.7:40000, 2001:db8::7 or [2001:db8::7]:40000".into())
}
