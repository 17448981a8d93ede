//! The gateway: core's translator on a TUN device, for kernels without nf_tables.
//!
//! ```text
//!  client ─▶ kernel ─ route of the service address ─▶ TUN ─▶ Translator ─▶ TUN ─▶ kernel ─ main table ─▶ endpoint
//!  client ◀─ kernel ◀─ main table ─ TUN ◀─ Translator ◀─ TUN ◀─ route of the gateway's own address ─ kernel ◀─ endpoint
//! ```
//!
//! The kernel routes what is for a service into the device, and routes what comes out of it as if it had arrived from a
//! network. One thread reads, translates and writes; TCP segments come unsplit (see [`offload`]). Addresses, routes and
//! whether the device is up are the operator's; nothing of the host is changed.
//!
//! # A host as a gateway
//! Services are in 10.96.0.0/12 and on 198.51.100.0/24; 192.0.2.2 is the gateway's own address for NodePorts and
//! masquerading. It stands first under `[node] ip` (or `--node-ip`) and **must not be an address of the host itself**: the
//! kernel keeps packets to its own addresses. Neighbours reach it by a route, or by `proxy_arp` on their link.
//!
//! ```sh
//! ip tuntap add dev natlet0 mode tun          # stays when the gateway ends, with its routes; replies wait meanwhile
//! ip link set natlet0 up txqueuelen 10000     # the kernel's 500 are full after a burst of as many new connections
//! sysctl -w net.ipv4.ip_forward=1 net.ipv4.conf.natlet0.rp_filter=2 net.ipv4.conf.natlet0.accept_local=1
//! ip route add 10.96.0.0/12 dev natlet0 table 100
//! ip route add 198.51.100.0/24 dev natlet0 table 100
//! ip route add 192.0.2.2 dev natlet0 table 100
//! ip rule add not iif natlet0 lookup 100      # what comes out of the device is not sent into it again
//! natlet gateway --tun natlet0 services.toml
//! ```
//! The same with `ip -6` and `net.ipv6.conf.all.forwarding` for IPv6. `rp_filter=2` since packets come out with the clients'
//! addresses, `accept_local=1` since the host's own packets do, among them its ICMP errors about a smaller MTU behind it.
//!
//! Replies must come back through the device. To masqueraded connections they do: they are for 192.0.2.2. Where clients'
//! addresses are kept (pods, `external-policy = "local"`, no cluster CIDR), what arrives from the endpoints' links must go
//! in, and so must the host's own ICMP errors, or a smaller MTU behind it is not found:
//!
//! ```sh
//! ip route add default dev natlet0 table 101
//! ip rule add iif eth1 lookup 101
//! ip rule add iif lo ipproto icmp lookup 101  # ipproto ipv6-icmp for IPv6
//! ```
//! What is no service's is then written back as it came, and the main table takes it. `tests/gateway.rs` does all of this.

mod exporter;
pub mod offload;
mod reload;
mod report;
mod serve;
mod signals;
mod tun;

pub use report::{Frames, Report};
pub use tun::{Tun, TunError};

use crate::image::Image;
use exporter::Exporter;
use natlet_core::translate::{
    AffinityV4, AffinityV6, Bucket, Config, FlowV4, FlowV6, FragmentsV4, FragmentsV6, Memory, Translator, buckets_for,
};
use nix::errno::Errno;
use rand::rngs::{StdRng, SysRng};
use rand::{SeedableRng, TryRng};
use reload::Reloader;
use signals::{Signals, Wish};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time;

/// Frames handled before signals, reloads and metrics have their turn.
const TURN: usize = 512;
/// How often idle flows are looked for, and in how many such steps all of them are looked at.
const SWEEP: time::Duration = time::Duration::from_secs(1);
const SWEEP_STEPS: usize = 16;
/// IPv4 and IPv6 packets in fragments that are remembered.
const FRAGMENTS: usize = 1024;

/// How a gateway is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the TUN device.
    pub tun: String,
    /// Flows of each address family that there is memory for: 48 bytes for IPv4 and 96 for IPv6, and a quarter of that for
    /// session affinity.
    pub flows: usize,
    /// Where counters are served.
    pub metrics: Option<SocketAddr>,
}

/// Why a gateway did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// The device failed.
    #[error("reading from the TUN device: {0}")]
    Read(std::io::Error),
    /// The counters' address.
    #[error("cannot listen on {0} for metrics: {1}")]
    Metrics(SocketAddr, std::io::Error),
    /// The kernel refused something ordinary.
    #[error("cannot {0}: {1}")]
    Kernel(&'static str, Errno),
    /// No randomness to begin with.
    #[error("no random numbers from the kernel: {0}")]
    Random(String),
}

/// What the gateway says to its operator.
#[derive(Debug)]
pub enum Event<'a> {
    /// It translates from now on.
    Ready(&'a Report),
    /// A new program is in force: flows that go on, and flows that ended.
    Replaced {
        /// Content id of the new program.
        content_id: String,
        /// Flows that go on.
        kept: u32,
        /// Flows whose endpoint is gone.
        ended: u32,
    },
    /// Counters, because of SIGUSR1 or at the end.
    Counters(&'a Report),
}

/// Runs until SIGTERM or SIGINT. `read_again` reads the input on SIGHUP, on a thread of its own; it says itself what is wrong
/// with it, and `None` leaves the program as it is.
pub fn run(
    settings: &Settings,
    image: Image,
    read_again: impl Fn() -> Option<Image> + Send + Sync + 'static,
    tell: impl Fn(Event<'_>),
) -> Result<(), GatewayError> {
    let signals = Signals::open().map_err(|errno| GatewayError::Kernel("take signals", errno))?;
    let reloader = Reloader::new(Arc::new(read_again)).map_err(|error| kernel("make a pipe", &error))?;
    let listen = |address| Exporter::open(address).map_err(|error| GatewayError::Metrics(address, error));
    let exporter = settings.metrics.map(listen).transpose()?;
    let tun = Tun::open(&settings.tun)?;
    let random = |error| GatewayError::Random(format!("{error}"));
    let rng = StdRng::try_from_rng(&mut SysRng).map_err(random)?;
    let hash_key = [SysRng.try_next_u64().map_err(random)?, SysRng.try_next_u64().map_err(random)?];
    let flows = settings.flows;
    let start = time::Instant::now();
    let mut engine = Engine {
        tun,
        signals,
        reloader,
        exporter,
        rng,
        start,
        next_sweep: start + SWEEP,
        flows,
        frames: Frames::default(),
        frame: vec![0; tun::MAX_FRAME],
        reply: [0; offload::LEN + natlet_core::translate::MAX_REPLY],
        tell,
    };
    let (mut v4, mut v6) = (vec![FlowV4::EMPTY; flows], vec![FlowV6::EMPTY; flows]);
    let mut buckets = [vec![Bucket::EMPTY; buckets_for(flows)], vec![Bucket::EMPTY; buckets_for(flows)]];
    let [buckets_v4, buckets_v6] = &mut buckets;
    let affinities = (flows / 4).next_multiple_of(4);
    let (mut affinity_v4, mut affinity_v6) = (vec![AffinityV4::EMPTY; affinities], vec![AffinityV6::EMPTY; affinities]);
    let (mut fragments_v4, mut fragments_v6) =
        (vec![FragmentsV4::EMPTY; FRAGMENTS], vec![FragmentsV6::EMPTY; FRAGMENTS]);
    let memory = Memory {
        flows_v4: &mut v4,
        buckets_v4,
        flows_v6: &mut v6,
        buckets_v6,
        affinity_v4: &mut affinity_v4,
        affinity_v6: &mut affinity_v6,
        fragments_v4: &mut fragments_v4,
        fragments_v6: &mut fragments_v6,
    };
    // the kernel takes a hop off before the device, and another behind it
    let config = Config { decrement_hop_limit: false, ..Config::new(hash_key) };

    // Two places for programs: the next one is read into the place that the translator does not use.
    let (mut one, mut other);
    one = image;
    let mut translator = Translator::new(one.program(), memory, &config);
    (engine.tell)(Event::Ready(&engine.report(&translator)));
    loop {
        let Some(image) = engine.serve(&mut translator)? else { return Ok(()) };
        other = image;
        let (mut next, replaced) = translator.with_program(engine.now(), other.program());
        engine.replaced(&other, replaced);
        let Some(image) = engine.serve(&mut next)? else { return Ok(()) };
        one = image;
        let replaced;
        (translator, replaced) = next.with_program(engine.now(), one.program());
        engine.replaced(&one, replaced);
    }
}

fn kernel(what: &'static str, error: &std::io::Error) -> GatewayError {
    GatewayError::Kernel(what, error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

/// All but the translator, which comes with a program.
struct Engine<T> {
    tun: Tun,
    signals: Signals,
    reloader: Reloader,
    exporter: Option<Exporter>,
    rng: StdRng,
    start: time::Instant,
    next_sweep: time::Instant,
    flows: usize,
    frames: Frames,
    frame: Vec<u8>,
    reply: [u8; offload::LEN + natlet_core::translate::MAX_REPLY],
    tell: T,
}
