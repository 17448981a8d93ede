//! The one-armed router around the translator: who a frame is for, and to whom a packet goes next.
//!
//! [`Gateway::receive`] answers what is the gateway's own (ARP, NDP, echo) and hands back what is not: a packet for the
//! translator, or a control datagram. [`Gateway::send`] routes a packet and finds the next hop's Ethernet address.

use crate::arp::{self, Arp};
use crate::config::Config;
use crate::ethernet::{Buffer, EtherType, Mac};
use crate::ip::{Ip, Outgoing, protocol};
use crate::ndp::{self, Ndp};
use crate::neighbours::{Neighbours, Resolution};
use crate::time::Millis;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use natlet_core::Program;

/// Hop limit of what the gateway itself sends.
const HOP_LIMIT: u8 = 64;
/// Longest answer to an echo request: what fits a frame, less the larger header.
const LONGEST_ECHO: usize = 1460;

/// Where frames go.
pub trait Device {
    /// Sends a frame; pads it if it is short.
    fn transmit(&mut self, frame: &mut Buffer);
}

/// Frames and packets by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames received.
    pub received: u32,
    /// Packets sent on or answered.
    pub sent: u32,
    /// Frames of another type, damaged, or to someone else.
    pub ignored: u32,
    /// Packets without a route.
    pub no_route: u32,
    /// Packets whose next hop did not answer, or that gave way to newer ones while they waited.
    pub unresolved: u32,
    /// ARP and NDP messages received.
    pub neighbour_messages: u32,
}

/// What a frame was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Received {
    /// Dealt with.
    Done,
    /// A packet of this length, for the translator.
    Packet(usize),
    /// A datagram for the control port.
    Control(Datagram),
}

/// A datagram to the gateway itself; its content is in the frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it.
    pub peer: SocketAddr,
    /// The gateway's address that it was sent to.
    pub own: SocketAddr,
    /// Where the content starts in the IP packet.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

/// The router's state.
#[derive(Debug)]
pub struct Gateway<'m> {
    config: &'m Config<'m>,
    mac: Mac,
    neighbours: &'m mut Neighbours,
    scratch: Buffer,
    /// What happened so far.
    pub counters: Counters,
}

impl<'m> Gateway<'m> {
    /// A router with this Ethernet address that knows nobody yet.
    pub const fn new(config: &'m Config<'m>, mac: Mac, neighbours: &'m mut Neighbours) -> Self {
        let counters = Counters { received: 0, sent: 0, ignored: 0, no_route: 0, unresolved: 0, neighbour_messages: 0 };
        Self { config, mac, neighbours, scratch: Buffer::new(), counters }
    }

    /// Takes a frame in. `program` says which other addresses are answered for on the link.
    pub fn receive(
        &mut self,
        now: Millis,
        frame: &mut Buffer,
        program: &Program<'_>,
        device: &mut impl Device,
    ) -> Received {
        self.counters.received = self.counters.received.wrapping_add(1);
        let Some(header) = frame.header() else { return self.ignore() };
        if header.destination != self.mac && !header.destination.is_group() {
            return self.ignore();
        }
        match header.ether_type {
            Some(EtherType::Arp) => self.arp(now, frame, program, device),
            Some(_) => self.ip(now, frame, program, device),
            None => self.ignore(),
        }
    }

    /// Sends the packet in the frame, `len` bytes long, to its next hop.
    pub fn send(&mut self, now: Millis, frame: &mut Buffer, len: usize, device: &mut impl Device) {
        frame.set_payload_len(len);
        let Some(destination) = Ip::read(frame.payload()).map(|ip| ip.destination) else {
            let _ = self.ignore();
            return;
        };
        let Some(next_hop) = self.config.next_hop(destination).filter(|_| !self.config.is_own(destination)) else {
            self.counters.no_route = self.counters.no_route.wrapping_add(1);
            return;
        };
        let ether_type = if next_hop.is_ipv4() { EtherType::Ipv4 } else { EtherType::Ipv6 };
        match self.neighbours.look_up(now, next_hop) {
            Resolution::At(mac) => self.transmit(mac, ether_type, frame, device),
            Resolution::Refresh(mac) => {
                self.transmit(mac, ether_type, frame, device);
                self.ask(next_hop, device);
            }
            resolution => {
                frame.set_header(Mac::default(), self.mac, ether_type);
                if !self.neighbours.wait(next_hop, frame) {
                    self.counters.unresolved = self.counters.unresolved.wrapping_add(1);
                }
                if resolution == Resolution::Ask {
                    self.ask(next_hop, device);
                }
            }
        }
    }

    /// Sends a packet on that the translator has nothing to do with, as a router does: one hop less. A packet for the gateway
    /// itself that no service has is dropped.
    pub fn pass(&mut self, now: Millis, frame: &mut Buffer, len: usize, device: &mut impl Device) {
        if crate::ip::take_hop(frame.payload_mut()) {
            self.send(now, frame, len, device);
        } else {
            let _ = self.ignore();
        }
    }

    /// Answers a datagram with `content`.
    pub fn answer(
        &mut self,
        now: Millis,
        datagram: &Datagram,
        content: &[u8],
        frame: &mut Buffer,
        device: &mut impl Device,
    ) {
        let Ok(len) = u16::try_from(content.len().saturating_add(8)) else { return };
        let [l0, l1] = len.to_be_bytes();
        let ([s0, s1], [d0, d1]) = (datagram.own.port().to_be_bytes(), datagram.peer.port().to_be_bytes());
        let (source, destination) = (datagram.own.ip(), datagram.peer.ip());
        let out = Outgoing { source, destination, protocol: protocol::UDP, hop_limit: HOP_LIMIT };
        let len = out.write(frame.payload_room(), &[&[s0, s1, d0, d1, l0, l1, 0, 0], content], 6);
        self.send(now, frame, len, device);
    }

    /// Says on the link whom the gateway's addresses belong to, so that neighbours forget a former owner.
    pub fn announce(&mut self, device: &mut impl Device) {
        for interface in self.config.interfaces {
            match interface.address {
                IpAddr::V4(own) => {
                    self.send_arp(arp::Operation::Request, own, Mac::default(), own, Mac::BROADCAST, device)
                }
                IpAddr::V6(own) => self.advertise(own, Ipv6Addr::UNSPECIFIED, None, device),
            }
        }
    }

    /// Repeats questions that are not answered. To be called a few times per second.
    pub fn tick(&mut self, now: Millis, device: &mut impl Device) {
        let mut lost = 0;
        while let Some(address) = self.neighbours.retry(now, &mut lost) {
            self.ask(address, device);
        }
        self.counters.unresolved = self.counters.unresolved.wrapping_add(lost);
    }

    fn ignore(&mut self) -> Received {
        self.counters.ignored = self.counters.ignored.wrapping_add(1);
        Received::Done
    }

    fn transmit(&mut self, to: Mac, ether_type: EtherType, frame: &mut Buffer, device: &mut impl Device) {
        frame.set_header(to, self.mac, ether_type);
        self.counters.sent = self.counters.sent.wrapping_add(1);
        device.transmit(frame);
    }

    fn arp(&mut self, now: Millis, frame: &Buffer, program: &Program<'_>, device: &mut impl Device) -> Received {
        let Some(arp) = Arp::read(frame.payload()) else { return self.ignore() };
        self.counters.neighbour_messages = self.counters.neighbour_messages.wrapping_add(1);
        let for_us = self.answers_for(arp.target.into(), arp.sender.into(), program);
        self.learn(now, arp.sender.into(), arp.sender_mac, for_us, device);
        if for_us && arp.operation == arp::Operation::Request {
            self.send_arp(arp::Operation::Reply, arp.target, arp.sender_mac, arp.sender, arp.sender_mac, device);
        }
        Received::Done
    }

    fn ip(&mut self, now: Millis, frame: &mut Buffer, program: &Program<'_>, device: &mut impl Device) -> Received {
        let Some(ip) = Ip::read(frame.payload()) else { return self.ignore() };
        if ip.protocol == protocol::ICMP6
            && let Some(message) = Ndp::read(&ip)
        {
            return self.ndp(now, message, program, device);
        }
        if ip.destination.is_multicast() || self.config.is_broadcast(ip.destination) || ip.source.is_multicast() {
            return self.ignore();
        }
        if self.config.is_own(ip.destination) && !ip.fragment {
            if let Some(len) = self.echo(&ip) {
                let reply = self.scratch.payload().get(..len).unwrap_or(&[]);
                crate::bytes::concat(frame.payload_room(), &[reply]);
                self.send(now, frame, len, device);
                return Received::Done;
            }
            if let Some(datagram) = self.control(&ip) {
                return Received::Control(datagram);
            }
        }
        Received::Packet(ip.len)
    }

    /// Writes the answer to an echo request to one of the gateway's addresses into `scratch`, and returns its length.
    fn echo(&mut self, ip: &Ip<'_>) -> Option<usize> {
        let (&[kind, code, _, _], rest) = ip.payload.split_first_chunk::<4>()?;
        let reply = match (ip.protocol, kind, code) {
            (protocol::ICMP, 8, 0) => 0,
            (protocol::ICMP6, 128, 0) => 129,
            _ => return None,
        };
        if rest.len() > LONGEST_ECHO {
            return None;
        }
        let (source, destination, protocol) = (ip.destination, ip.source, ip.protocol);
        let out = Outgoing { source, destination, protocol, hop_limit: HOP_LIMIT };
        let len = out.write(self.scratch.payload_room(), &[&[reply, 0, 0, 0], rest], 2);
        self.scratch.set_payload_len(len);
        Some(len)
    }

    fn control(&self, ip: &Ip<'_>) -> Option<Datagram> {
        let (&[s0, s1, d0, d1, l0, l1, _, _], _) = ip.payload.split_first_chunk::<8>()?;
        let port = u16::from_be_bytes([d0, d1]);
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        if ip.protocol != protocol::UDP || port != self.config.control_port || !(8..=ip.payload.len()).contains(&len) {
            return None;
        }
        let header = ip.len.saturating_sub(ip.payload.len());
        Some(Datagram {
            peer: SocketAddr::new(ip.source, u16::from_be_bytes([s0, s1])),
            own: SocketAddr::new(ip.destination, port),
            start: header.saturating_add(8),
            end: header.saturating_add(len),
        })
    }

    fn ndp(&mut self, now: Millis, message: Ndp, program: &Program<'_>, device: &mut impl Device) -> Received {
        self.counters.neighbour_messages = self.counters.neighbour_messages.wrapping_add(1);
        match message {
            Ndp::Solicitation { target, source, mac } => {
                if self.answers_for(target.into(), source.into(), program) {
                    if let Some(mac) = mac.filter(|_| !source.is_unspecified()) {
                        self.learn(now, source.into(), mac, true, device);
                    }
                    self.advertise(target, source, mac, device);
                }
            }
            Ndp::Advertisement { target, mac: Some(mac) } => self.learn(now, target.into(), mac, false, device),
            Ndp::Advertisement { .. } => {}
        }
        Received::Done
    }

    /// Whether the gateway owns an address on the link: its own ones, and those of services, so that clients on the link
    /// need no route to them. Not for the asker itself, who may be an endpoint with a service's address.
    fn answers_for(&self, target: IpAddr, asker: IpAddr, program: &Program<'_>) -> bool {
        let link_local = IpAddr::V6(ndp::link_local(self.mac));
        if self.config.is_own(target) || target == link_local {
            return true;
        }
        target != asker
            && !target.is_unspecified()
            && (program.is_cluster_ip(target) || program.frontends().any(|f| f.address == target))
    }

    /// Remembers a neighbour of one of our subnets, or of the link, and sends what waited for it.
    fn learn(&mut self, now: Millis, address: IpAddr, mac: Mac, new: bool, device: &mut impl Device) {
        let on_link = match address {
            IpAddr::V6(a) if a.is_unicast_link_local() => true,
            _ => self.config.interface_of(address).is_some(),
        };
        if !on_link || self.config.is_own(address) || mac.is_group() {
            return;
        }
        self.neighbours.learn(now, address, mac, new);
        for _ in 0..crate::neighbours::QUEUE {
            let Some(frame) = self.neighbours.ready(address) else { return };
            let ether_type = if address.is_ipv4() { EtherType::Ipv4 } else { EtherType::Ipv6 };
            frame.set_header(mac, self.mac, ether_type);
            self.counters.sent = self.counters.sent.wrapping_add(1);
            device.transmit(frame);
        }
    }

    fn ask(&mut self, address: IpAddr, device: &mut impl Device) {
        let own = self.config.interface_of(address).map(|i| i.address);
        match (address, own) {
            (IpAddr::V4(target), Some(IpAddr::V4(own))) => {
                self.send_arp(arp::Operation::Request, own, Mac::default(), target, Mac::BROADCAST, device);
            }
            (IpAddr::V6(target), own) => {
                let source = match own {
                    Some(IpAddr::V6(own)) => own,
                    _ => ndp::link_local(self.mac),
                };
                let len = ndp::write_solicitation(self.scratch.payload_room(), source, self.mac, target);
                let to = ndp::group_mac(ndp::solicited_node(target));
                self.send_scratch(len, to, EtherType::Ipv6, device);
            }
            _ => {}
        }
    }

    fn advertise(&mut self, target: Ipv6Addr, asker: Ipv6Addr, mac: Option<Mac>, device: &mut impl Device) {
        let (len, to) = ndp::write_advertisement(self.scratch.payload_room(), target, self.mac, asker);
        let mac = match mac {
            Some(mac) if !to.is_multicast() => mac,
            None if !to.is_multicast() => return, // it asked without saying where it is (RFC 4861 §4.3: it must)
            _ => ndp::group_mac(to),
        };
        self.send_scratch(len, mac, EtherType::Ipv6, device);
    }

    fn send_arp(
        &mut self,
        operation: arp::Operation,
        sender: Ipv4Addr,
        target_mac: Mac,
        target: Ipv4Addr,
        to: Mac,
        device: &mut impl Device,
    ) {
        let arp = Arp { operation, sender_mac: self.mac, sender, target_mac, target };
        let len = arp.write(self.scratch.payload_room());
        self.send_scratch(len, to, EtherType::Arp, device);
    }

    fn send_scratch(&mut self, len: usize, to: Mac, ether_type: EtherType, device: &mut impl Device) {
        self.scratch.set_payload_len(len);
        self.scratch.set_header(to, self.mac, ether_type);
        device.transmit(&mut self.scratch);
    }
}
