//! A list of a record's endpoints, and how one is drawn from it.

use super::record::{EXTRA_WEIGHTS, FULL, PLAIN_MAX, Record, Shape};
use crate::bytes::{index, scale};
use crate::jhash::source_hash;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

/// An endpoint of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordEndpoint {
    /// Address and port.
    pub address: SocketAddr,
    /// Share of new connections.
    pub weight: u16,
}

/// A list of endpoints of one record.
#[derive(Clone, Copy, Debug)]
pub struct EndpointList<'a> {
    record: Record<'a>,
    first: u16,
    len: u16,
}

impl<'a> EndpointList<'a> {
    #[inline]
    pub(crate) fn new(record: Record<'a>, first: u16, len: u16) -> Self {
        Self { record, first, len }
    }

    /// Number of endpoints.
    #[inline]
    pub fn len(&self) -> usize {
        self.len.into()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The endpoint with this position in the list.
    #[inline]
    pub fn get(&self, i: usize) -> Option<RecordEndpoint> {
        if i >= self.len() {
            return None;
        }
        self.at(usize::from(self.first).wrapping_add(i))
    }

    /// All endpoints, sorted by address and port within those of both lists and those of one.
    pub fn iter(&self) -> impl Iterator<Item = RecordEndpoint> + use<'a> {
        let list = *self;
        let shape = list.record.shape();
        (0..list.len()).map_while(move |i| list.endpoint(&shape, usize::from(list.first).checked_add(i)?))
    }

    /// Sum of the weights, which is the number of slots that a uniform draw chooses from.
    pub fn slots(&self) -> u32 {
        if self.weights().is_some() {
            return self.iter().fold(0, |sum, e| u32::saturating_add(sum, e.weight.into()));
        }
        self.len.into()
    }

    /// The endpoint of a slot, `0..slots()`: each endpoint has as many slots in a row as its weight.
    pub fn slot(&self, slot: u32) -> Option<RecordEndpoint> {
        if self.weights().is_none() {
            return self.get(index(slot));
        }
        let mut left = slot;
        for endpoint in self.iter() {
            match left.checked_sub(endpoint.weight.into()) {
                Some(rest) => left = rest,
                None => return Some(endpoint),
            }
        }
        None
    }

    /// The endpoint that uniform 32 bits draw, scaled as the kernel's `numgen random mod slots()` scales them.
    #[inline]
    pub fn draw(&self, random: u32) -> Option<RecordEndpoint> {
        match self.record.bytes().first() {
            Some(first) if first & FULL != 0 => self.draw_weighted(random),
            _ => self.get(index(scale(random, self.len.into()))),
        }
    }

    #[inline(never)] // most services have no weights
    fn draw_weighted(&self, random: u32) -> Option<RecordEndpoint> {
        self.slot(scale(random, self.slots()))
    }

    /// The endpoint that a source gets under [`crate::Choice::SourceHash`]: the one that the kernel's rules choose.
    pub fn hashed(&self, source: IpAddr) -> Option<RecordEndpoint> {
        self.slot(scale(source_hash(source), self.slots()))
    }

    /// The weights of all the record's endpoints; `None` if they are equal.
    fn weights(&self) -> Option<&'a [[u8; 2]]> {
        self.record.shape().extra(EXTRA_WEIGHTS).map(|body| body.as_chunks().0)
    }

    /// The record's endpoint with this position.
    #[inline]
    fn at(&self, i: usize) -> Option<RecordEndpoint> {
        let (bytes, form) = (self.record.bytes(), self.record.form());
        let &[first, a, b] = bytes.first_chunk::<3>()?;
        if first > PLAIN_MAX {
            return self.at_of_shape(i);
        }
        // four bytes that end where the address does; with three of an address the first is one before it
        let end = i.wrapping_add(1).wrapping_mul(form.width.into()).wrapping_add(3);
        let word = bytes.get(end.wrapping_sub(4)..end)?.first_chunk()?;
        let address = IpAddr::V4(Ipv4Addr::from_bits(form.address(*word)));
        Some(RecordEndpoint { address: SocketAddr::new(address, u16::from_le_bytes([a, b])), weight: 1 })
    }

    #[inline(never)] // most records are plain, of IPv4, and have one port
    fn at_of_shape(&self, i: usize) -> Option<RecordEndpoint> {
        self.endpoint(&self.record.shape(), i)
    }

    fn endpoint(&self, shape: &Shape<'a>, i: usize) -> Option<RecordEndpoint> {
        let address: IpAddr = if shape.is_v6() {
            IpAddr::from(*shape.addresses.as_chunks::<16>().0.get(i)?)
        } else {
            let width = usize::from(self.record.form().width);
            let start = i.checked_mul(width)?;
            let mut octets = [0; 4];
            let stored = shape.addresses.get(start..start.checked_add(width)?)?;
            octets.get_mut(4_usize.checked_sub(width)?..)?.copy_from_slice(stored);
            IpAddr::V4(Ipv4Addr::from_bits(self.record.form().address(octets)))
        };
        let port = shape.ports.as_chunks::<2>().0.get(i).map_or(shape.shared_port, |&p| u16::from_le_bytes(p));
        let weight = match shape.extra(EXTRA_WEIGHTS) {
            None => 1,
            Some(weights) => weights.as_chunks::<2>().0.get(i).map_or(1, |&w| u16::from_le_bytes(w)),
        };
        Some(RecordEndpoint { address: SocketAddr::new(address, port), weight })
    }
}
