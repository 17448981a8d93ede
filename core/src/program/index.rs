//! The frontend index: address, protocol and port to kind and record, one probe at any size.
//!
//! Up to 16 frontends of a family are sorted slots. More are a perfect hash: a byte (pilot) per three frontends picks the
//! multiplier that sends each frontend of a bucket to a slot of its own. A slot is: port (16 bits), address (network
//! order; 3 bytes where all share their first octet), and a little-endian tail: protocol (bits 0-1; 3 is an empty slot),
//! kind (bits 2-3), record offset. A NodePort's address is zero.

use crate::bytes::{count, index};
use crate::hash::{Key, bucket, seed, slot};
use crate::program::layout::{IndexHeader, SORTED_MAX};
use crate::table::{FrontendKind, Protocol};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Protocol code of an empty slot.
pub(crate) const EMPTY: u8 = 3;

/// One family's index, borrowed from a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Index<'a> {
    pub header: IndexHeader,
    pub pilots: &'a [u8],
    pub slots: &'a [u8],
    pub cluster_ips: &'a [u8],
    pub form: SlotForm,
}

/// How a slot of one family is laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotForm {
    /// Bytes of the address: 3, 4 or 16.
    pub address: usize,
    /// Bytes of the tail: 2 to 4.
    pub tail: usize,
    /// First octet where the address has 3 bytes.
    pub base: u8,
}

/// A decoded slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub key: Key,
    pub kind: FrontendKind,
    pub record: u32,
}

impl SlotForm {
    pub const fn width(self) -> usize {
        crate::program::layout::slot_width(self.address, self.tail)
    }

    /// Decodes a slot's bytes; `None` for an empty slot or other bytes.
    pub fn read(self, bytes: &[u8]) -> Option<Slot> {
        let (port, rest) = bytes.split_first_chunk::<2>()?;
        let (address, tail) = rest.split_at_checked(self.address)?;
        let tail = self.read_tail(tail)?;
        let protocol = match tail & 3 {
            0 => Protocol::Tcp,
            1 => Protocol::Udp,
            2 => Protocol::Sctp,
            _ => return None,
        };
        let kind = kind_of((tail >> 2) & 3);
        let address = self.read_address(address, kind)?;
        Some(Slot { key: Key { address, protocol, port: u16::from_le_bytes(*port) }, kind, record: tail >> 4 })
    }

    fn read_tail(self, tail: &[u8]) -> Option<u32> {
        match (self.tail, tail) {
            (2, [a, b]) => Some(u32::from_le_bytes([*a, *b, 0, 0])),
            (3, [a, b, c]) => Some(u32::from_le_bytes([*a, *b, *c, 0])),
            (4, [a, b, c, d]) => Some(u32::from_le_bytes([*a, *b, *c, *d])),
            _ => None,
        }
    }

    fn read_address(self, address: &[u8], kind: FrontendKind) -> Option<IpAddr> {
        match *address {
            [0, 0, 0] if kind == FrontendKind::NodePort => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            [b, c, d] => Some(IpAddr::V4(Ipv4Addr::new(self.base, b, c, d))),
            [a, b, c, d] => Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d))),
            _ => address.first_chunk::<16>().map(|a| IpAddr::V6(Ipv6Addr::from(*a))),
        }
    }

    /// The bytes of an address as slots and ClusterIPs hold it: the last `address` bytes of 16. `None` where the address
    /// does not fit the form.
    pub fn address_bytes(self, address: IpAddr) -> Option<[u8; 16]> {
        let mut out = [0; 16];
        match address {
            IpAddr::V4(a) => {
                let [first, b, c, d] = a.octets();
                if self.address == 3 && first != self.base && !a.is_unspecified() {
                    return None;
                }
                let first = if self.address == 3 { 0 } else { first };
                out.last_chunk_mut::<4>()?.copy_from_slice(&[first, b, c, d]);
            }
            IpAddr::V6(a) => out = a.octets(),
        }
        Some(out)
    }
}

pub(crate) const fn kind_code(kind: FrontendKind) -> u8 {
    match kind {
        FrontendKind::ClusterIp => 0,
        FrontendKind::NodePort => 1,
        FrontendKind::LoadBalancer => 2,
        FrontendKind::ExternalIp => 3,
    }
}

const fn kind_of(code: u32) -> FrontendKind {
    match code {
        0 => FrontendKind::ClusterIp,
        1 => FrontendKind::NodePort,
        2 => FrontendKind::LoadBalancer,
        _ => FrontendKind::ExternalIp,
    }
}

impl<'a> Index<'a> {
    fn slot_at(&self, i: u32) -> Option<Slot> {
        let width = self.form.width();
        let start = index(i).checked_mul(width)?;
        self.form.read(self.slots.get(start..start.checked_add(width)?)?)
    }

    /// The slot that holds this key.
    pub fn find(&self, key: &Key) -> Option<Slot> {
        if self.header.frontends <= SORTED_MAX {
            return self.slots().find(|s| s.key == *key);
        }
        let hash = key.hash(seed(self.header.seed));
        let pilot = *self.pilots.get(index(bucket(hash, self.header.pilots())))?;
        self.slot_at(slot(hash, pilot, self.header.slots())).filter(|s| s.key == *key)
    }

    /// All frontends, in the order of their slots.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + use<'a> {
        let form = self.form;
        self.slots.chunks_exact(form.width()).filter_map(move |bytes| form.read(bytes))
    }

    /// Whether the address is some service's ClusterIP.
    pub fn is_cluster_ip(&self, address: IpAddr) -> bool {
        if address.is_unspecified() {
            return false; // in three bytes it would look like a.0.0.0
        }
        let Some(bytes) = self.form.address_bytes(address) else { return false };
        let width = self.form.address;
        let Some(wanted) = bytes.get(16_usize.saturating_sub(width)..) else { return false };
        let (mut low, mut high) = (0, index(self.header.cluster_ips));
        while low < high {
            let middle = usize::midpoint(low, high);
            let start = middle.saturating_mul(width);
            let Some(found) = self.cluster_ips.get(start..start.saturating_add(width)) else { return false };
            match found.cmp(wanted) {
                core::cmp::Ordering::Less => low = middle.saturating_add(1),
                core::cmp::Ordering::Greater => high = middle,
                core::cmp::Ordering::Equal => return true,
            }
        }
        false
    }

    /// Distinct ClusterIPs, ascending.
    pub fn cluster_ips(&self) -> impl Iterator<Item = IpAddr> + use<'a> {
        let form = self.form;
        self.cluster_ips
            .chunks_exact(form.address.max(1)) // never 0; said so that no check of it is left in firmware
            .filter_map(move |bytes| form.read_address(bytes, FrontendKind::ClusterIp))
    }

    /// Whether every slot is where a look-up of its key ends, their number is the header's, and the ClusterIPs ascend and
    /// hold those of the slots.
    pub fn is_valid(&self, record_is_valid: impl Fn(u32) -> bool) -> bool {
        let width = self.form.width();
        let mut found: u32 = 0;
        let mut last: Option<(IpAddr, Protocol, u16)> = None;
        for (i, bytes) in self.slots.chunks_exact(width).enumerate() {
            let Some(slot) = self.form.read(bytes) else {
                if !self.is_empty_slot(bytes) {
                    return false;
                }
                continue;
            };
            found = found.saturating_add(1);
            let is_node_port = slot.kind == FrontendKind::NodePort;
            let is_listed = slot.kind != FrontendKind::ClusterIp || self.is_cluster_ip(slot.key.address);
            let is_sound = slot.key.port != 0 && slot.key.address.is_unspecified() == is_node_port && is_listed;
            if !is_sound || !record_is_valid(slot.record) {
                return false;
            }
            if self.header.frontends <= SORTED_MAX {
                let order = (slot.key.address, slot.key.protocol, slot.key.port);
                if last.is_some_and(|l| l >= order) {
                    return false;
                }
                last = Some(order);
            } else if !self.is_home(&slot.key, count(i)) {
                return false;
            }
        }
        let mut ascending = true;
        let mut last: Option<IpAddr> = None;
        for ip in self.cluster_ips() {
            ascending &= last.is_none_or(|l| l < ip);
            last = Some(ip);
        }
        found == self.header.frontends && ascending
    }

    fn is_home(&self, key: &Key, at: u32) -> bool {
        let hash = key.hash(seed(self.header.seed));
        let pilot = self.pilots.get(index(bucket(hash, self.header.pilots())));
        pilot.is_some_and(|&p| slot(hash, p, self.header.slots()) == at)
    }

    fn is_empty_slot(&self, bytes: &[u8]) -> bool {
        let tail = self.form.address.saturating_add(2);
        self.header.frontends > SORTED_MAX
            && bytes.iter().enumerate().all(|(i, &b)| b == if i == tail { EMPTY } else { 0 })
    }
}
