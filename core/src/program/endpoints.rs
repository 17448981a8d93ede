//! A list of a record's endpoints, and how one is drawn from it.

use super::record::{AddressForm, EXTRA_WEIGHTS, PLAIN_MAX, Record, Shape};
use crate::bytes::{count, index, scale};
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
#[derive(Clone, Copy)]
pub struct EndpointList<'a> {
    record: Record<'a>,
    /// It is all of a plain record whose endpoints, at least one, are of IPv4 and share their port, as most are.
    is_plain: bool,
    first: u16,
    len: u16,
}

impl<'a> EndpointList<'a> {
    /// The Cluster list of a record.
    #[inline]
    pub(crate) fn cluster_of(record: Record<'a>) -> Self {
        match record.first() {
            total @ 1..=PLAIN_MAX => Self { record, is_plain: true, first: 0, len: total.into() },
            _ => Self::of_any(record, 0, cluster_len(record)),
        }
    }

    /// A part of the endpoints of a record.
    #[inline]
    pub(crate) fn of_any(record: Record<'a>, first: u16, len: u16) -> Self {
        Self { record, is_plain: false, first, len }
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
        if self.is_plain {
            return plain_endpoint(self.record, count(i));
        }
        any_endpoint(self.record, usize::from(self.first).wrapping_add(i))
    }

    /// All endpoints, sorted by address and port within those of both lists and those of one.
    pub fn iter(&self) -> impl Iterator<Item = RecordEndpoint> + use<'a> {
        let list = *self;
        let (shape, form) = (self.record.shape(), self.record.form());
        (0..list.len()).map_while(move |i| endpoint(&shape, form, usize::from(list.first).checked_add(i)?))
    }

    /// Sum of the weights, which is the number of slots that a uniform draw chooses from.
    pub fn slots(&self) -> u32 {
        if self.is_plain { self.len.into() } else { slots(&self.record.shape(), (self.first, self.len)) }
    }

    /// The endpoint of a slot, `0..slots()`: each endpoint has as many slots in a row as its weight.
    pub fn slot(&self, slot: u32) -> Option<RecordEndpoint> {
        if self.is_plain {
            return self.get(index(slot));
        }
        endpoint_of_slot(&self.record.shape(), self.record.form(), (self.first, self.len), slot)
    }

    /// The endpoint that uniform 32 bits draw, scaled as the kernel's `numgen random mod slots()` scales them.
    #[inline]
    pub fn draw(&self, random: u32) -> Option<RecordEndpoint> {
        if self.is_plain {
            return plain_endpoint(self.record, scale(random, self.len.into()));
        }
        draw_any(self.record, (self.first, self.len), random)
    }

    /// The endpoint that a source gets under [`crate::Choice::SourceHash`]: the one that the kernel's rules choose.
    pub fn hashed(&self, source: IpAddr) -> Option<RecordEndpoint> {
        self.slot(scale(source_hash(source), self.slots()))
    }
}

impl core::fmt::Debug for EndpointList<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The endpoint at a position of a plain record of IPv4 endpoints that share their port.
#[inline]
fn plain_endpoint(record: Record<'_>, i: u32) -> Option<RecordEndpoint> {
    let (records, start, form) = record.place();
    // number and port lie before the addresses; of three bytes the first of the last four is not the address's own
    let bytes = records.get(start..form.end_of(i).wrapping_add(3).wrapping_add(start))?;
    let &[_, a, b] = bytes.first_chunk()?;
    let address = IpAddr::V4(Ipv4Addr::from_bits(form.address(*bytes.last_chunk()?)));
    Some(RecordEndpoint { address: SocketAddr::new(address, u16::from_le_bytes([a, b])), weight: 1 })
}

/// The endpoint at a position of any record. Not inlined, as what follows, and by value, so that a caller's list need not
/// lie in memory.
#[inline(never)]
fn any_endpoint(record: Record<'_>, i: usize) -> Option<RecordEndpoint> {
    endpoint(&record.shape(), record.form(), i)
}

/// Draws from a list, given by its first endpoint and length, of any record.
#[inline(never)]
fn draw_any(record: Record<'_>, list: (u16, u16), random: u32) -> Option<RecordEndpoint> {
    let shape = record.shape();
    endpoint_of_slot(&shape, record.form(), list, scale(random, slots(&shape, list)))
}

/// The weights of a list's endpoints; `None` if they are equal.
fn weights<'a>(shape: &Shape<'a>, (first, len): (u16, u16)) -> Option<impl Iterator<Item = u32> + use<'a>> {
    let all = shape.extra(EXTRA_WEIGHTS)?.as_chunks::<2>().0;
    Some(all.iter().skip(first.into()).take(len.into()).map(|&w| u16::from_le_bytes(w).into()))
}

fn slots(shape: &Shape<'_>, list: (u16, u16)) -> u32 {
    weights(shape, list).map_or(list.1.into(), |weights| weights.fold(0, u32::saturating_add))
}

fn endpoint_of_slot(shape: &Shape<'_>, form: AddressForm, list: (u16, u16), slot: u32) -> Option<RecordEndpoint> {
    let i = match weights(shape, list) {
        None => (slot < list.1.into()).then_some(index(slot))?,
        Some(mut weights) => {
            let mut left = slot;
            weights.position(|weight| match left.checked_sub(weight) {
                Some(rest) => {
                    left = rest;
                    false
                }
                None => true,
            })?
        }
    };
    endpoint(shape, form, usize::from(list.0).checked_add(i)?)
}

/// Length of the Cluster list of any record.
#[inline(never)]
fn cluster_len(record: Record<'_>) -> u16 {
    let shape = record.shape();
    shape.cluster.min(shape.total)
}

fn endpoint(shape: &Shape<'_>, form: AddressForm, i: usize) -> Option<RecordEndpoint> {
    let address: IpAddr = if shape.is_v6() {
        IpAddr::from(*shape.addresses.as_chunks::<16>().0.get(i)?)
    } else {
        let width = usize::from(form.width());
        let start = i.checked_mul(width)?;
        let mut octets = [0; 4];
        let stored = shape.addresses.get(start..start.checked_add(width)?)?;
        octets.get_mut(4_usize.checked_sub(width)?..)?.copy_from_slice(stored);
        IpAddr::V4(Ipv4Addr::from_bits(form.address(octets)))
    };
    let port = shape.ports.as_chunks::<2>().0.get(i).map_or(shape.shared_port, |&p| u16::from_le_bytes(p));
    let weight = match shape.extra(EXTRA_WEIGHTS) {
        None => 1,
        Some(weights) => weights.as_chunks::<2>().0.get(i).map_or(1, |&w| u16::from_le_bytes(w)),
    };
    Some(RecordEndpoint { address: SocketAddr::new(address, port), weight })
}
