//! The node's section: which sources are pods, which addresses are the node's own.
//!
//! Layout: flags (bit 0 masquerade-all, bit 1 localhost NodePorts), four counts (addresses, cluster CIDRs, service CIDRs,
//! NodePort CIDRs; a byte each), then the entries in that order: an address is a family byte (4 or 6) and the address in
//! network order, a CIDR has its prefix length behind. A section of length 0 stands for all counts and flags 0.

use crate::bytes::{Reader, Writer};
use crate::error::CompileError;
use crate::table::{Cidr, Node};
use core::net::IpAddr;

/// The node as a program carries it. Every list is in the table's order.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    section: &'a [u8],
}

const FLAG_MASQUERADE_ALL: u8 = 1;
const FLAG_LOCALHOST_NODE_PORTS: u8 = 2;

impl<'a> Context<'a> {
    pub(crate) const fn new(section: &'a [u8]) -> Self {
        Self { section }
    }

    /// Whether the section is as the compiler writes it.
    pub(crate) fn is_valid(&self) -> bool {
        self.section.is_empty() || check(&mut Reader(self.section)).is_some()
    }

    fn byte(&self, at: usize) -> u8 {
        self.section.get(at).copied().unwrap_or(0)
    }

    /// All ClusterIP traffic is masqueraded.
    pub fn masquerade_all(&self) -> bool {
        self.byte(0) & FLAG_MASQUERADE_ALL != 0
    }

    /// NodePorts answer on 127.0.0.0/8.
    pub fn localhost_node_ports(&self) -> bool {
        self.byte(0) & FLAG_LOCALHOST_NODE_PORTS != 0
    }

    /// The node's own addresses; empty where they are not known.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + 'a {
        let mut r = Reader(self.section.get(5..).unwrap_or(&[]));
        (0..self.byte(1)).map_while(move |_| read_address(&mut r))
    }

    /// Where pods are; empty: no local detector.
    pub fn cluster_cidrs(&self) -> impl Iterator<Item = Cidr> + 'a {
        self.cidrs(0, self.byte(2))
    }

    /// Where ClusterIPs are allocated.
    pub fn service_cidrs(&self) -> impl Iterator<Item = Cidr> + 'a {
        self.cidrs(self.byte(2).into(), self.byte(3))
    }

    /// Where NodePorts accept; empty: on every address of the node but loopback.
    pub fn node_port_cidrs(&self) -> impl Iterator<Item = Cidr> + 'a {
        self.cidrs(usize::from(self.byte(2)).saturating_add(self.byte(3).into()), self.byte(4))
    }

    fn cidrs(&self, skip: usize, take: u8) -> impl Iterator<Item = Cidr> + 'a {
        let mut r = Reader(self.section.get(5..).unwrap_or(&[]));
        for _ in 0..self.byte(1) {
            let _ = read_address(&mut r);
        }
        for _ in 0..skip {
            let _ = read_cidr(&mut r);
        }
        (0..take).map_while(move |_| read_cidr(&mut r))
    }

    /// Whether `address` is one of the node's own; loopback always is.
    pub fn is_node_address(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses().any(|a| a == address)
    }
}

/// Reads a whole section; `None` if it is malformed.
fn check(r: &mut Reader<'_>) -> Option<()> {
    let flags = r.u8()?;
    let [addresses, cluster, service, node_port] = r.array::<4>()?;
    let empty = flags == 0 && [addresses, cluster, service, node_port] == [0; 4];
    if empty || flags & !(FLAG_MASQUERADE_ALL | FLAG_LOCALHOST_NODE_PORTS) != 0 {
        return None;
    }
    for _ in 0..addresses {
        read_address(r)?;
    }
    for _ in 0..u16::from(cluster).saturating_add(service.into()).saturating_add(node_port.into()) {
        let cidr = Cidr { address: read_address(r)?, prefix: r.u8()? };
        if Cidr::new(cidr.address, cidr.prefix) != Some(cidr) {
            return None;
        }
    }
    r.is_empty().then_some(())
}

fn read_address(r: &mut Reader<'_>) -> Option<IpAddr> {
    match r.u8()? {
        4 => r.array::<4>().map(IpAddr::from),
        6 => r.array::<16>().map(IpAddr::from),
        _ => None,
    }
}

fn read_cidr(r: &mut Reader<'_>) -> Option<Cidr> {
    let address = read_address(r)?;
    Cidr::new(address, r.u8()?)
}

fn write_address(out: &mut Writer<'_>, address: IpAddr) -> Option<()> {
    match address {
        IpAddr::V4(a) => {
            out.u8(4)?;
            out.put(&a.octets())
        }
        IpAddr::V6(a) => {
            out.u8(6)?;
            out.put(&a.octets())
        }
    }
}

/// Upper bound of the section's length, in bytes.
pub(crate) fn max_len(node: &Node<'_>) -> usize {
    let entries =
        [node.addresses.len(), node.cluster_cidrs.len(), node.service_cidrs.len(), node.node_port_cidrs.len()];
    entries.iter().fold(5_usize, |sum, n| sum.saturating_add(n.saturating_mul(18)))
}

/// Writes the section; nothing for a node of which nothing is known.
pub(crate) fn write(node: &Node<'_>, out: &mut Writer<'_>) -> Result<(), CompileError> {
    let lists = [node.cluster_cidrs, node.service_cidrs, node.node_port_cidrs];
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let flags =
        flag(node.masquerade_all, FLAG_MASQUERADE_ALL) | flag(node.localhost_node_ports, FLAG_LOCALHOST_NODE_PORTS);
    if flags == 0 && node.addresses.is_empty() && lists.iter().all(|l| l.is_empty()) {
        return Ok(());
    }
    let mut put = |bytes: &[u8]| out.put(bytes).ok_or(CompileError::OutputTooSmall);
    put(&[flags, u8::try_from(node.addresses.len()).map_err(|_| CompileError::Node)?])?;
    for list in lists {
        put(&[u8::try_from(list.len()).map_err(|_| CompileError::Node)?])?;
    }
    for &address in node.addresses {
        write_address(out, address).ok_or(CompileError::OutputTooSmall)?;
    }
    for cidr in lists.into_iter().flatten() {
        let cidr = Cidr::new(cidr.address, cidr.prefix).ok_or(CompileError::Cidr)?;
        write_address(out, cidr.address).ok_or(CompileError::OutputTooSmall)?;
        out.u8(cidr.prefix).ok_or(CompileError::OutputTooSmall)?;
    }
    Ok(())
}
