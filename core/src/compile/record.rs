//! Writes a service record; `program/record.rs` describes and reads it.

use super::items::place_v4;
use super::lists::{Lists, of_item};
use super::services::{Part, Stored};
use crate::bytes::Writer;
use crate::error::CompileError;
use crate::program::record::{
    ANY, EXTERNAL_LOCAL, EXTRA, EXTRA_AFFINITY, EXTRA_HEALTH_CHECK, EXTRA_SOURCE_HASH, EXTRA_SOURCE_RANGES,
    EXTRA_WEIGHTS, FULL, INTERNAL_LOCAL, PLAIN_MAX, PLAIN_PORTS, PLAIN_V6, PORTS, V6, WIDE,
};
use crate::table::{Choice, Cidr, Endpoint, FrontendKind, Policy, Service, ServiceTable};
use core::net::IpAddr;

/// Largest number of source ranges of a service.
const MAX_RANGES: usize = 3_800;

/// A service's part in one family, ready to be written.
pub(crate) struct RecordSource<'t, 's> {
    pub part: &'s Part<'t>,
    pub table: &'t ServiceTable<'t>,
    pub lists: &'s Lists<'s>,
    pub v6: bool,
}

/// Why no record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Error(CompileError),
    /// An endpoint's address does not begin with the octet that was to be left out of all.
    OctetsDiffer,
}

impl From<CompileError> for Stop {
    fn from(e: CompileError) -> Self {
        Self::Error(e)
    }
}

impl RecordSource<'_, '_> {
    /// Appends the record. Says how addresses are stored from then on.
    pub fn write(&self, stored: Stored, out: &mut Writer<'_>) -> Result<Stored, Stop> {
        let service = self.part.number;
        let full = CompileError::OutputTooSmall;
        let total = u16::try_from(self.lists.order.len()).map_err(|_| CompileError::TooMany { service })?;
        let shared_port = self.lists.port.filter(|_| total != 0).or_else(|| self.shared(|e| e.port));
        let ports = total != 0 && shared_port.is_none();
        let divisor = self.weights_divisor()?;
        let extra_len = self.extra_len(divisor.is_some())?;
        self.write_head(total, ports, extra_len, out).ok_or(full)?;
        if let Some(port) = shared_port {
            out.u16(port).ok_or(full)?;
        }
        let stored = self.write_addresses(stored, out)?;
        if ports {
            let places = out.take(self.lists.order.len().saturating_mul(2)).ok_or(full)?.as_chunks_mut().0;
            if self.v6 {
                places.iter_mut().zip(self.iter()).for_each(|(place, e)| *place = e.port.to_le_bytes());
            } else {
                let items = self.lists.order.iter();
                places.iter_mut().zip(items).for_each(|(place, item)| *place = place_v4(item).1.to_le_bytes());
            }
        }
        if extra_len != 0 {
            out.u16(extra_len).ok_or(full)?;
            self.write_extra(divisor, out).ok_or(full)?;
        }
        Ok(stored)
    }

    /// What is the same of all endpoints that are stored, of which there are some.
    fn shared<T: PartialEq>(&self, of: impl Fn(&Endpoint) -> T) -> Option<T> {
        let first = of(self.iter().next()?);
        self.iter().all(|e| of(e) == first).then_some(first)
    }

    fn write_addresses(&self, stored: Stored, out: &mut Writer<'_>) -> Result<Stored, Stop> {
        let full = CompileError::OutputTooSmall;
        let addresses = self.lists.order.iter().map(|item| place_v4(item).0);
        if self.v6 {
            self.iter().try_for_each(|e| put_address(e.address, out)).ok_or(full)?;
            return Ok(stored);
        }
        let Some([first_octet, ..]) = addresses.clone().next().map(u32::to_be_bytes) else { return Ok(stored) };
        let octet = match stored {
            Stored::Whole => {
                let places = out.take(self.lists.order.len().saturating_mul(4)).ok_or(full)?.as_chunks_mut().0;
                places.iter_mut().zip(addresses).for_each(|(place, address)| *place = address.to_be_bytes());
                return Ok(stored);
            }
            Stored::Short(octet) => octet,
            Stored::None => first_octet,
        };
        let places = out.take(self.lists.order.len().saturating_mul(3)).ok_or(full)?.as_chunks_mut().0;
        let mut differ = false;
        for (place, address) in places.iter_mut().zip(addresses) {
            let [a, short @ ..] = address.to_be_bytes();
            *place = short;
            differ |= a != octet;
        }
        if differ { Err(Stop::OctetsDiffer) } else { Ok(Stored::Short(octet)) }
    }

    /// Flags, number of endpoints and, with a Local policy, the lengths of the lists.
    fn write_head(&self, total: u16, ports: bool, extra_len: u16, out: &mut Writer<'_>) -> Option<()> {
        let lists = self.lists;
        let has_local = lists.internal == Policy::Local || lists.external == Policy::Local;
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let short_total = u8::try_from(total).ok();
        if let Some(total) = short_total.filter(|t| *t <= PLAIN_MAX && !has_local && extra_len == 0) {
            return out.u8(total | flag(ports, PLAIN_PORTS) | flag(self.v6, PLAIN_V6));
        }
        let flags = flag(short_total.is_none(), WIDE)
            | flag(ports, PORTS)
            | flag(self.v6, V6)
            | flag(lists.internal == Policy::Local, INTERNAL_LOCAL)
            | flag(lists.external == Policy::Local, EXTERNAL_LOCAL)
            | flag(extra_len != 0, EXTRA)
            | flag(lists.any, ANY);
        out.u8(FULL | flags)?;
        let mut count = |n: usize| match short_total {
            None => out.u16(u16::try_from(n).ok()?),
            Some(_) => out.u8(u8::try_from(n).ok()?),
        };
        count(total.into())?;
        if has_local {
            count(lists.cluster)?;
            count(lists.local)?;
        }
        Some(())
    }

    /// What the endpoints' weights are divided by; `None` if they are equal.
    fn weights_divisor(&self) -> Result<Option<u16>, CompileError> {
        if self.lists.order.is_empty() || self.lists.have_one_weight || self.shared(|e| e.weight).is_some() {
            return Ok(None);
        }
        let divisor = self.iter().fold(0, |d, e| gcd(d, e.weight));
        let reduced = self.iter().map(|e| e.weight.checked_div(divisor).unwrap_or(0));
        let sum = reduced.fold(0_u32, |sum, weight| sum.saturating_add(weight.into()));
        if sum > u16::MAX.into() { Err(CompileError::TooMany { service: self.part.number }) } else { Ok(Some(divisor)) }
    }

    fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.lists.order.iter().filter_map(|i| of_item(self.part.endpoints, i))
    }

    /// The Service's source ranges of this family, in the table's order.
    fn ranges(&self) -> impl Iterator<Item = Cidr> + '_ {
        let ranges = self.part.service.source_ranges.of(self.table.ranges).unwrap_or(&[]);
        ranges.iter().copied().filter(|c| c.address.is_ipv6() == self.v6)
    }

    /// The Service's own load-balancer addresses that its ranges do not hold, if a range holds the node's primary
    /// address: a VIP that is bound on the node makes node-to-VIP traffic carry the VIP as source (kube-proxy, proxier.go).
    fn own_addresses(&self) -> impl Iterator<Item = Cidr> + '_ {
        let v6 = self.v6;
        let primary = self.table.node.addresses.iter().copied().find(|a| a.is_ipv6() == v6);
        let exception = primary.is_some_and(|p| self.ranges().any(|r| r.contains(p)));
        self.part
            .frontends
            .iter()
            .filter(move |f| exception && f.kind == FrontendKind::LoadBalancer && f.address.is_ipv6() == v6)
            .map(move |f| Cidr { address: f.address, prefix: if v6 { 128 } else { 32 } })
            .filter(|own| !self.ranges().any(|r| r.contains(own.address)))
    }

    fn has_load_balancer(&self) -> bool {
        self.part.frontends.iter().any(|f| f.kind == FrontendKind::LoadBalancer && f.address.is_ipv6() == self.v6)
    }

    fn range_count(&self) -> usize {
        if self.has_load_balancer() { self.ranges().chain(self.own_addresses()).count() } else { 0 }
    }

    fn extra_len(&self, weights: bool) -> Result<u16, CompileError> {
        let Service { affinity_timeout, choice, source_ranges, health_check_node_port, .. } = self.part.service;
        if !weights
            && (*affinity_timeout, *choice, source_ranges.len, *health_check_node_port) == (0, Choice::Random, 0, 0)
        {
            return Ok(0); // as in most records
        }
        let limit = CompileError::TooMany { service: self.part.number };
        let ranges = self.range_count();
        if ranges > MAX_RANGES {
            return Err(limit);
        }
        let entry = |present: bool, len: usize| if present { len.saturating_add(3) } else { 0 };
        let lengths = [
            entry(self.part.service.affinity_timeout != 0, 4),
            entry(self.part.service.choice == Choice::SourceHash, 0),
            entry(weights, self.lists.order.len().saturating_mul(2)),
            entry(ranges != 0, ranges.saturating_mul(if self.v6 { 17 } else { 5 })),
            entry(self.part.service.health_check_node_port != 0, 2),
        ];
        u16::try_from(lengths.into_iter().fold(0, usize::saturating_add)).map_err(|_| limit)
    }

    fn write_extra(&self, divisor: Option<u16>, out: &mut Writer<'_>) -> Option<()> {
        if self.part.service.affinity_timeout != 0 {
            out.put(&[EXTRA_AFFINITY, 4, 0])?;
            out.u32(self.part.service.affinity_timeout)?;
        }
        if self.part.service.choice == Choice::SourceHash {
            out.put(&[EXTRA_SOURCE_HASH, 0, 0])?;
        }
        if let Some(divisor) = divisor {
            out.u8(EXTRA_WEIGHTS)?;
            out.u16(u16::try_from(self.lists.order.len().checked_mul(2)?).ok()?)?;
            self.iter().try_for_each(|e| out.u16(e.weight.checked_div(divisor)?))?;
        }
        let ranges = self.range_count();
        if ranges != 0 {
            out.u8(EXTRA_SOURCE_RANGES)?;
            out.u16(u16::try_from(ranges.checked_mul(if self.v6 { 17 } else { 5 })?).ok()?)?;
            put_ranges(self.ranges(), out)?;
            // The table's frontends come in any order; the program's do not.
            let own = out.len();
            put_ranges(self.own_addresses(), out)?;
            let own = out.since(own)?;
            if self.v6 {
                own.as_chunks_mut::<17>().0.sort_unstable();
            } else {
                own.as_chunks_mut::<5>().0.sort_unstable();
            }
        }
        if self.part.service.health_check_node_port != 0 {
            out.put(&[EXTRA_HEALTH_CHECK, 2, 0])?;
            out.u16(self.part.service.health_check_node_port)?;
        }
        Some(())
    }
}

fn put_address(address: IpAddr, out: &mut Writer<'_>) -> Option<()> {
    match address {
        IpAddr::V4(a) => out.put(&a.octets()),
        IpAddr::V6(a) => out.put(&a.octets()),
    }
}

fn put_ranges(ranges: impl Iterator<Item = Cidr>, out: &mut Writer<'_>) -> Option<()> {
    for range in ranges {
        let range = Cidr::new(range.address, range.prefix)?;
        out.u8(range.prefix)?;
        put_address(range.address, out)?;
    }
    Some(())
}

fn gcd(a: u16, b: u16) -> u16 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a.checked_rem(b).unwrap_or(0));
    }
    a
}
