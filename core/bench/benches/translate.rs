//! Packets through the translator, and through what a user would write with a packet library instead: `smoltcp`'s wire types
//! with its whole checksums, and `etherparse`'s slices with checksums updated by hand. All do the same DNAT, there and back:
//! each frame that leaves is turned around and comes back as the other side's answer. The libraries get their flows from
//! a `HashMap` under Fx, the fastest at hand; the translator also keeps the flows' states and times.
//!
//! Before anything is timed, each way's frames are compared with the translator's. An iteration is one pass over
//! all frames; `item/s` are packets a second. The allocation columns show that none allocates.

use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher, black_box};
use natlet_core::translate::{Hook, Translator};
use natlet_core_bench::traffic::{ACK, ETHERNET, NOW, SYN, establish, forward, random, tcp, translator, turn};
use rustc_hash::FxHashMap;
use smoltcp::wire::{EthernetFrame, IpAddress, Ipv4Address, Ipv4Packet, TcpPacket};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

/// Frame lengths and numbers of live flows.
const LOADS: [(usize, u32); 4] = [(64, 1_000), (64, 65_536), (1_500, 1_000), (1_500, 65_536)];

fn main() {
    agree::<Smoltcp>();
    agree::<Etherparse>();
    divan::main();
}

/// A way to translate a frame.
trait Way {
    /// With these flows, whose packets are translated to the other frames' addresses and ports.
    fn new(translator: Translator<'static, 'static>, arriving: &[Vec<u8>], leaving: &[Vec<u8>]) -> Self;

    /// Rewrites a frame in place.
    fn translate(&mut self, frame: &mut [u8]);
}

/// The translator.
struct Natlet(Translator<'static, 'static>);

impl Way for Natlet {
    fn new(translator: Translator<'static, 'static>, _: &[Vec<u8>], _: &[Vec<u8>]) -> Self {
        Self(translator)
    }

    #[inline]
    fn translate(&mut self, frame: &mut [u8]) {
        let packet = frame.get_mut(ETHERNET..).unwrap_or_default();
        let _ = black_box(self.0.process(NOW, Hook::Arriving, &mut || 0, packet, &mut []));
    }
}

/// Source, destination, source port and destination port.
type Tuple = ([u8; 4], [u8; 4], u16, u16);

fn tuple(frame: &[u8]) -> Tuple {
    let address = |at: usize| frame[at..at + 4].try_into().expect("four bytes");
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    (address(26), address(30), port(34), port(36))
}

fn key((source, destination, from, to): Tuple) -> (u64, u32) {
    let addresses = u64::from(u32::from_ne_bytes(source)) << 32 | u64::from(u32::from_ne_bytes(destination));
    (addresses, u32::from(from) << 16 | u32::from(to))
}

/// The flows in both directions.
fn flows(arriving: &[Vec<u8>], leaving: &[Vec<u8>]) -> FxHashMap<(u64, u32), Tuple> {
    let back = |t: Tuple| (t.1, t.0, t.3, t.2);
    let pairs = arriving.iter().zip(leaving).map(|(a, l)| (tuple(a), tuple(l)));
    pairs.flat_map(|(a, l)| [(key(a), l), (key(back(l)), back(a))]).collect()
}

/// `smoltcp`: parse, set, fill the checksums.
struct Smoltcp(FxHashMap<(u64, u32), Tuple>);

impl Way for Smoltcp {
    fn new(_: Translator<'static, 'static>, arriving: &[Vec<u8>], leaving: &[Vec<u8>]) -> Self {
        Self(flows(arriving, leaving))
    }

    #[inline]
    fn translate(&mut self, frame: &mut [u8]) {
        let Ok(mut ethernet) = EthernetFrame::new_checked(frame) else { return };
        let Ok(mut ip) = Ipv4Packet::new_checked(ethernet.payload_mut()) else { return };
        let (source, destination) = (ip.src_addr().octets(), ip.dst_addr().octets());
        let Ok(tcp) = TcpPacket::new_checked(ip.payload_mut()) else { return };
        let wanted = key((source, destination, tcp.src_port(), tcp.dst_port()));
        let Some(&(source, destination, from, to)) = self.0.get(&wanted) else { return };
        let (source, destination) = (Ipv4Address::from(source), Ipv4Address::from(destination));
        ip.set_src_addr(source);
        ip.set_dst_addr(destination);
        ip.fill_checksum();
        let mut tcp = TcpPacket::new_unchecked(ip.payload_mut());
        tcp.set_src_port(from);
        tcp.set_dst_port(to);
        tcp.fill_checksum(&IpAddress::Ipv4(source), &IpAddress::Ipv4(destination));
    }
}

/// `etherparse`: parse to slices, write by hand, update the checksums by RFC 1624.
struct Etherparse(FxHashMap<(u64, u32), Tuple>);

impl Way for Etherparse {
    fn new(_: Translator<'static, 'static>, arriving: &[Vec<u8>], leaving: &[Vec<u8>]) -> Self {
        Self(flows(arriving, leaving))
    }

    #[inline]
    fn translate(&mut self, frame: &mut [u8]) {
        use etherparse::{NetSlice, SlicedPacket, TransportSlice};
        let Ok(packet) = SlicedPacket::from_ethernet(frame) else { return };
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (&packet.net, &packet.transport) else {
            return;
        };
        let header = ip.header();
        let old = (header.source(), header.destination(), tcp.source_port(), tcp.destination_port());
        let transport = ETHERNET + header.slice().len();
        drop(packet);
        let Some(&new) = self.0.get(&key(old)) else { return };
        let addresses = |t: &Tuple| [t.0, t.1].iter().flat_map(|a| a.as_chunks::<2>().0).map(|w| sum(*w)).sum::<u32>();
        let ports = |t: &Tuple| u32::from(t.2) + u32::from(t.3);
        let addresses_change = u32::from(!fold(addresses(&old))) + addresses(&new);
        let change = addresses_change + u32::from(!fold(ports(&old))) + ports(&new);
        frame[26..30].copy_from_slice(&new.0);
        frame[30..34].copy_from_slice(&new.1);
        frame[transport..transport + 2].copy_from_slice(&new.2.to_be_bytes());
        frame[transport + 2..transport + 4].copy_from_slice(&new.3.to_be_bytes());
        update(frame, 24, addresses_change);
        update(frame, transport + 16, change);
    }
}

fn sum(word: [u8; 2]) -> u32 {
    u16::from_be_bytes(word).into()
}

fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    u16::try_from((sum & 0xffff) + (sum >> 16)).expect("folded twice")
}

/// RFC 1624, equation 3.
fn update(frame: &mut [u8], at: usize, change: u32) {
    let old = u16::from_be_bytes([frame[at], frame[at + 1]]);
    let new = !fold(u32::from(!old) + u32::from(fold(change)));
    frame[at..at + 2].copy_from_slice(&new.to_be_bytes());
}

/// A way with its flows, and a frame of each flow as it arrives from the client.
fn prepared<W: Way>(len: usize, count: u32) -> (W, Vec<Vec<u8>>) {
    let mut translator = translator(count as usize, false);
    let (frames, _) = establish(&mut translator, tcp(len), count);
    let mut leaving = frames.clone();
    for frame in &mut leaving {
        forward(&mut translator, &mut || 0, &mut frame[ETHERNET..]);
    }
    (W::new(translator, &frames, &leaving), frames)
}

/// That a way does what the translator does, there and back.
fn agree<W: Way>() {
    for (len, count) in [(64, 1_000), (1_500, 100)] {
        let (mut natlet, mut ours) = prepared::<Natlet>(len, count);
        let (mut way, mut theirs) = prepared::<W>(len, count);
        for _ in 0..2 {
            for (our, their) in ours.iter_mut().zip(&mut theirs) {
                natlet.translate(our);
                way.translate(their);
                assert_eq!(our, their, "both ways lead to the same frame");
                turn(our);
                turn(their);
            }
        }
        assert_eq!(ours[0], tcp(len).frame(0, ACK), "there and back");
    }
}

#[divan::bench(types = [Natlet, Smoltcp, Etherparse], args = LOADS, sample_count = 30, sample_size = 1)]
fn established<W: Way>(bencher: Bencher<'_, '_>, (len, count): (usize, u32)) {
    let (mut way, mut frames) = prepared::<W>(len, count);
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        for frame in &mut frames {
            way.translate(frame);
            turn(frame);
        }
    });
}

/// The first packets of a thousand flows, into an empty table.
#[divan::bench(sample_count = 100, sample_size = 1)]
fn new_flows(bencher: Bencher<'_, '_>) {
    let pristine: Vec<_> = (0..1_000).map(|i| tcp(64).frame(i, SYN)).collect();
    let mut random = random();
    bencher
        .counter(ItemsCount::new(1_000_u32))
        .with_inputs(|| (translator(1_024, false), pristine.clone()))
        .bench_local_refs(|(translator, frames)| {
            for frame in frames {
                forward(translator, &mut random, &mut frame[ETHERNET..]);
            }
        });
}
