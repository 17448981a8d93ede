//! A slot of the frontend index: a frontend's key, its kind and where its service's record lies.
//!
//! An IPv4 slot is one little-endian integer: code (4 bits), port (16), address (32, or 24 where all share their first
//! octet), record offset (12, 20 or 28). An IPv6 slot is the address (16 bytes) and such an integer without it. What a
//! look-up compares lies in the lowest bits, so that one load and one mask compare all of it at any width, and an address
//! that does not fit into 24 bits differs by itself. A NodePort's address is 0; the code tells it from an address.

use crate::table::{FrontendKind, Protocol};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The code of an empty slot.
const EMPTY: u8 = 15;
/// Low bits of a NodePort's code; its protocol is above them.
const NODE_PORT: u8 = 3;
/// Bits of a code that hold the kind of a frontend with an address, which is no part of its key.
pub(crate) const KIND_BITS: u64 = 0b1100;
/// Bits before an IPv4 slot's address: code and port.
pub(crate) const ADDRESS_SHIFT: u32 = 20;

/// A protocol's number in a program.
#[inline]
pub(crate) const fn protocol_code(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1,
        Protocol::Sctp => 2,
    }
}

const fn protocol_of(code: u8) -> Option<Protocol> {
    match code {
        0 => Some(Protocol::Tcp),
        1 => Some(Protocol::Udp),
        2 => Some(Protocol::Sctp),
        _ => None,
    }
}

#[inline]
const fn code(kind: FrontendKind, protocol: Protocol) -> u8 {
    let protocol = protocol_code(protocol);
    match kind {
        FrontendKind::ClusterIp => protocol,
        FrontendKind::LoadBalancer => protocol | (1 << 2),
        FrontendKind::ExternalIp => protocol | (2 << 2),
        FrontendKind::NodePort => NODE_PORT | (protocol << 2),
    }
}

/// The kind of a slot's four lowest bits, which are no empty slot's.
#[inline]
pub(crate) const fn kind_of(slot: u64) -> FrontendKind {
    match slot & 15 {
        0..=2 => FrontendKind::ClusterIp,
        4..=6 => FrontendKind::LoadBalancer,
        8..=10 => FrontendKind::ExternalIp,
        _ => FrontendKind::NodePort,
    }
}

/// Code and port of a frontend with an address, as a key has them.
#[inline]
pub(crate) fn rest_of_key(protocol: Protocol, port: u16) -> u64 {
    u64::from(protocol_code(protocol)) | (u64::from(port) << 4)
}

/// Code and port of a NodePort's key.
#[inline]
pub(crate) fn rest_of_node_port(protocol: Protocol, port: u16) -> u64 {
    u64::from(code(FrontendKind::NodePort, protocol)) | (u64::from(port) << 4)
}

/// How the slots of one family are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotForm {
    /// Bytes of the address: 3, 4 or 16.
    pub address: u8,
    /// First octet of all addresses where they have 3 bytes, else 0.
    pub base: u8,
    /// Bits of the record offset: 12, 20 or 28.
    pub record_bits: u8,
}

/// A frontend, as a slot holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub address: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
    pub kind: FrontendKind,
    pub record: u32,
}

/// What a slot's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotBytes {
    Used(Slot),
    Empty,
    Malformed,
}

impl Slot {
    /// Code and port, as the key has them.
    pub fn rest_of_key(&self) -> u64 {
        match self.kind {
            FrontendKind::NodePort => rest_of_node_port(self.protocol, self.port),
            _ => rest_of_key(self.protocol, self.port),
        }
    }

    fn rest(&self) -> u128 {
        u128::from(code(self.kind, self.protocol)) | (u128::from(self.port) << 4)
    }
}

impl SlotForm {
    pub const fn is_v6(self) -> bool {
        self.address == 16
    }

    /// Bytes of a slot: 7 to 10, or 20 to 22.
    pub const fn width(self) -> u8 {
        // 20 bits of code and port, and the record's bits, are whole bytes together
        self.address.saturating_add(self.record_bits.saturating_add(20) / 8)
    }

    /// What is XORed to an IPv4 address before it is stored.
    pub const fn base_word(self) -> u32 {
        (self.base as u32) << 24
    }

    /// The IPv4 address as a slot and a key have it: 0 for a NodePort.
    pub const fn stored(self, address: u32, kind: FrontendKind) -> u32 {
        if matches!(kind, FrontendKind::NodePort) { 0 } else { address ^ self.base_word() }
    }

    /// Reads a slot's bytes.
    pub fn read(self, bytes: &[u8]) -> SlotBytes {
        if self.is_v6() { read_v6(bytes) } else { self.read_v4(bytes) }.unwrap_or(SlotBytes::Malformed)
    }

    fn read_v4(self, bytes: &[u8]) -> Option<SlotBytes> {
        let all = little_endian(bytes)?;
        if all == EMPTY.into() {
            return Some(SlotBytes::Empty);
        }
        let record = u32::try_from(all.checked_shr(self.record_shift())?).ok()?;
        let stored = u32::try_from(all >> ADDRESS_SHIFT & self.address_mask()?).ok()?;
        let (kind, protocol, port) = read_rest(all)?;
        let address = match kind {
            FrontendKind::NodePort if stored == 0 => 0,
            FrontendKind::NodePort => return None,
            _ => stored ^ self.base_word(),
        };
        let address = IpAddr::V4(Ipv4Addr::from_bits(address));
        sound(Slot { address, protocol, port, kind, record })
    }

    /// Bits before an IPv4 slot's record offset: 44 or 52.
    pub const fn record_shift(self) -> u32 {
        ADDRESS_SHIFT.saturating_add((self.address as u32).saturating_mul(8))
    }

    fn address_mask(self) -> Option<u128> {
        match self.address {
            3 => Some(0x00ff_ffff),
            4 => Some(0xffff_ffff),
            _ => None,
        }
    }

    /// Writes a frontend. `None` where `bytes` is no slot, or the address is of the other family.
    pub fn write(self, slot: &Slot, bytes: &mut [u8]) -> Option<()> {
        let (bytes, all) = match slot.address {
            IpAddr::V4(a) => {
                let stored = u128::from(self.stored(a.to_bits(), slot.kind)) << ADDRESS_SHIFT;
                (bytes, slot.rest() | stored | u128::from(slot.record).checked_shl(self.record_shift())?)
            }
            IpAddr::V6(a) => {
                let (address, rest) = bytes.split_first_chunk_mut::<16>()?;
                *address = a.octets();
                (rest, slot.rest() | (u128::from(slot.record) << ADDRESS_SHIFT))
            }
        };
        bytes.copy_from_slice(all.to_le_bytes().get(..bytes.len())?);
        Some(())
    }

    /// Writes an empty slot.
    pub fn write_empty(self, bytes: &mut [u8]) -> Option<()> {
        bytes.fill(0);
        *bytes.get_mut(if self.is_v6() { 16 } else { 0 })? = EMPTY;
        Some(())
    }
}

fn read_v6(bytes: &[u8]) -> Option<SlotBytes> {
    let (address, rest) = bytes.split_first_chunk::<16>()?;
    let all = little_endian(rest)?;
    if all == EMPTY.into() {
        return Some(if *address == [0; 16] { SlotBytes::Empty } else { SlotBytes::Malformed });
    }
    let (kind, protocol, port) = read_rest(all)?;
    let record = u32::try_from(all >> ADDRESS_SHIFT).ok()?;
    sound(Slot { address: IpAddr::V6(Ipv6Addr::from(*address)), protocol, port, kind, record })
}

/// Kind, protocol and port of a slot; `None` where they are no frontend's.
fn read_rest(all: u128) -> Option<(FrontendKind, Protocol, u16)> {
    let code = u8::try_from(all & 15).ok()?;
    let port = u16::try_from((all >> 4) & 0xffff).ok()?;
    let (low, high) = (code & 3, code >> 2);
    let (kind, protocol) = match high {
        _ if low == NODE_PORT => (FrontendKind::NodePort, protocol_of(high)?),
        0 => (FrontendKind::ClusterIp, protocol_of(low)?),
        1 => (FrontendKind::LoadBalancer, protocol_of(low)?),
        2 => (FrontendKind::ExternalIp, protocol_of(low)?),
        _ => return None,
    };
    Some((kind, protocol, port))
}

/// A frontend with a port, and with an address unless it is a NodePort.
fn sound(slot: Slot) -> Option<SlotBytes> {
    let is_sound = slot.port != 0 && slot.address.is_unspecified() == (slot.kind == FrontendKind::NodePort);
    is_sound.then_some(SlotBytes::Used(slot))
}

fn little_endian(bytes: &[u8]) -> Option<u128> {
    let mut all = [0; 16];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(u128::from_le_bytes(all))
}
