//! A set under construction, and the bytes of its elements.

use crate::nft::model::{Elements, Family, Field, Set, SetData, width};
use crate::nft::wire::userdata::COMMENT_MAX;
use std::net::IpAddr;

/// An element's key, or its key and data: at most two addresses and some fields of four bytes. On the stack, since there is
/// one for each element.
pub(super) type Bytes = heapless::Vec<u8, 64>;

/// Appends a field to bytes that have room for all that an element can hold.
pub(super) fn append<const N: usize>(bytes: &mut Bytes, field: [u8; N]) {
    bytes.extend_from_slice(&field).expect("an element has at most 64 bytes");
}

/// Appends an address in network order.
pub(super) fn append_address(bytes: &mut Bytes, address: IpAddr) {
    match address {
        IpAddr::V4(a) => append(bytes, a.octets()),
        IpAddr::V6(a) => append(bytes, a.octets()),
    }
}

/// Key bytes of an address, network order.
pub(super) fn address_bytes(address: IpAddr) -> heapless::Vec<u8, 16> {
    match address {
        IpAddr::V4(a) => heapless::Vec::from_array(a.octets()),
        IpAddr::V6(a) => heapless::Vec::from_array(a.octets()),
    }
}

pub(super) fn padded_port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// Fields of the keys of one family.
#[derive(Clone, Copy)]
pub(super) struct Fields {
    pub(super) daddr: Field,
    pub(super) saddr: Field,
}

impl Fields {
    pub(super) const fn of(family: Family) -> Self {
        match family {
            Family::Ip => Self { daddr: Field::Ip4Daddr, saddr: Field::Ip4Saddr },
            Family::Ip6 => Self { daddr: Field::Ip6Daddr, saddr: Field::Ip6Saddr },
        }
    }
}

/// A set under construction.
pub(super) struct Building {
    name: &'static str,
    key: Vec<Field>,
    pub(super) data: SetData,
    interval: bool,
    pub(super) elements: Elements,
}

impl Building {
    pub(super) fn set(name: &'static str, key: &[Field]) -> Self {
        Self { name, key: key.into(), data: SetData::None, interval: false, elements: Elements::new(width(key), 0) }
    }

    pub(super) fn ranges(name: &'static str, key: &[Field]) -> Self {
        let elements = Elements::new(width(key), width(key));
        Self { name, key: key.into(), data: SetData::None, interval: true, elements }
    }

    pub(super) fn map(name: &'static str, key: &[Field], data: &[Field]) -> Self {
        let elements = Elements::new(width(key), width(data));
        Self { name, key: key.into(), data: SetData::Value(data.into()), interval: false, elements }
    }

    pub(super) fn verdicts(name: &'static str, key: &[Field]) -> Self {
        let elements = Elements::new(width(key), 2);
        Self { name, key: key.into(), data: SetData::Verdict(Vec::new()), interval: false, elements }
    }

    pub(super) fn finish(self) -> Set {
        let count = u32::try_from(self.elements.len()).unwrap_or(u32::MAX);
        Set {
            name: self.name.into(),
            key: self.key,
            interval: self.interval,
            memory: None,
            counter: matches!(self.data, SetData::Verdict(_)),
            data: self.data,
            size: (!self.interval).then(|| Set::size_for(count)),
            comment: String::new(),
            elements: self.elements,
        }
    }
}

pub(super) fn clip(comment: &str) -> &str {
    let mut end = comment.len().min(COMMENT_MAX);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    &comment[..end]
}
