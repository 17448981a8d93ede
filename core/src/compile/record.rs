//! Writes a service record; `program/record.rs` describes and reads it.

use super::lists::Lists;
use crate::bytes::Writer;
use crate::error::CompileError;
use crate::program::record::{
    ANY, AddressForm, EXTERNAL_LOCAL, EXTRA, EXTRA_AFFINITY, EXTRA_HEALTH_CHECK, EXTRA_SOURCE_HASH,
    EXTRA_SOURCE_RANGES, EXTRA_WEIGHTS, INTERNAL_LOCAL, PORTS, SPLIT, V6, WIDE,
};
use crate::table::{Choice, Cidr, Endpoint, Frontend, FrontendKind, Policy, Service, ServiceTable};
use core::net::IpAddr;

/// Largest number of source ranges of a service.
const MAX_RANGES: usize = 3_800;

/// A service's part in one family, ready to be written.
pub(crate) struct RecordSource<'t, 's> {
    pub number: u32,
    pub service: &'t Service,
    pub table: &'t ServiceTable<'t>,
    pub endpoints: &'t [Endpoint],
    pub frontends: &'t [Frontend],
    pub lists: Lists<'s>,
    pub v6: bool,
}

impl RecordSource<'_, '_> {
    /// Appends the record.
    pub fn write(&self, form: AddressForm, out: &mut Writer<'_>) -> Result<(), CompileError> {
        let service = self.number;
        let full = CompileError::OutputTooSmall;
        let lists = &self.lists;
        let total = u16::try_from(lists.order.len()).map_err(|_| CompileError::TooMany { service })?;
        let shared_port = self.iter().next().map(|e| e.port);
        let ports = self.iter().any(|e| Some(e.port) != shared_port);
        let split = lists.cluster != lists.order.len() || lists.local != 0 || lists.any != (total != 0);
        let wide = total > u8::MAX.into();
        let divisor = self.iter().fold(0, |d, e| gcd(d, e.weight));
        let weights = self.iter().any(|e| e.weight != divisor);
        if weights {
            let sum =
                self.iter().fold(0_u32, |sum, e| sum.saturating_add(e.weight.checked_div(divisor).unwrap_or(0).into()));
            if sum > u16::MAX.into() {
                return Err(CompileError::TooMany { service });
            }
        }
        let extra_len = self.extra_len(weights)?;
        let mut flags = 0;
        for (set, flag) in [
            (wide, WIDE),
            (split, SPLIT),
            (ports, PORTS),
            (self.v6, V6),
            (lists.internal == Policy::Local, INTERNAL_LOCAL),
            (lists.external == Policy::Local, EXTERNAL_LOCAL),
            (extra_len != 0, EXTRA),
            (lists.any, ANY),
        ] {
            flags |= if set { flag } else { 0 };
        }
        let count = |out: &mut Writer<'_>, n: usize| {
            let n = u16::try_from(n).ok()?;
            if wide { out.u16(n) } else { out.u8(u8::try_from(n).ok()?) }
        };
        out.u8(flags).ok_or(full)?;
        count(out, total.into()).ok_or(full)?;
        if split {
            count(out, lists.cluster).ok_or(full)?;
            count(out, lists.local).ok_or(full)?;
        }
        if let Some(port) = shared_port.filter(|_| !ports) {
            out.u16(port).ok_or(full)?;
        }
        for e in self.iter() {
            put_address(e.address, form.base.is_some(), out).ok_or(full)?;
        }
        if ports {
            self.iter().try_for_each(|e| out.u16(e.port)).ok_or(full)?;
        }
        if extra_len != 0 {
            out.u16(extra_len).ok_or(full)?;
            self.write_extra(weights.then_some(divisor.max(1)), out).ok_or(full)?;
        }
        Ok(())
    }

    fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.lists.order.iter().filter_map(|&i| self.endpoints.get(crate::bytes::index(i)))
    }

    /// The Service's source ranges of this family, in the table's order.
    fn ranges(&self) -> impl Iterator<Item = Cidr> + '_ {
        let ranges = self.service.source_ranges.of(self.table.ranges).unwrap_or(&[]);
        ranges.iter().copied().filter(|c| c.address.is_ipv6() == self.v6)
    }

    /// The Service's own load-balancer addresses that its ranges do not hold, if a range holds the node's primary
    /// address: a VIP that is bound on the node makes node-to-VIP traffic carry the VIP as source (kube-proxy, proxier.go).
    fn own_addresses(&self) -> impl Iterator<Item = Cidr> + '_ {
        let v6 = self.v6;
        let primary = self.table.node.addresses.iter().copied().find(|a| a.is_ipv6() == v6);
        let exception = primary.is_some_and(|p| self.ranges().any(|r| r.contains(p)));
        self.frontends
            .iter()
            .filter(move |f| exception && f.kind == FrontendKind::LoadBalancer && f.address.is_ipv6() == v6)
            .map(move |f| Cidr { address: f.address, prefix: if v6 { 128 } else { 32 } })
            .filter(|own| !self.ranges().any(|r| r.contains(own.address)))
    }

    fn has_load_balancer(&self) -> bool {
        self.frontends.iter().any(|f| f.kind == FrontendKind::LoadBalancer && f.address.is_ipv6() == self.v6)
    }

    fn range_count(&self) -> usize {
        if self.has_load_balancer() { self.ranges().chain(self.own_addresses()).count() } else { 0 }
    }

    fn extra_len(&self, weights: bool) -> Result<u16, CompileError> {
        let limit = CompileError::TooMany { service: self.number };
        let ranges = self.range_count();
        if ranges > MAX_RANGES {
            return Err(limit);
        }
        let entry = |present: bool, len: usize| if present { len.saturating_add(3) } else { 0 };
        let lengths = [
            entry(self.service.affinity_timeout != 0, 4),
            entry(self.service.choice == Choice::SourceHash, 0),
            entry(weights, self.lists.order.len().saturating_mul(2)),
            entry(ranges != 0, ranges.saturating_mul(if self.v6 { 17 } else { 5 })),
            entry(self.service.health_check_node_port != 0, 2),
        ];
        u16::try_from(lengths.into_iter().fold(0, usize::saturating_add)).map_err(|_| limit)
    }

    fn write_extra(&self, divisor: Option<u16>, out: &mut Writer<'_>) -> Option<()> {
        if self.service.affinity_timeout != 0 {
            out.put(&[EXTRA_AFFINITY, 4, 0])?;
            out.u32(self.service.affinity_timeout)?;
        }
        if self.service.choice == Choice::SourceHash {
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
        if self.service.health_check_node_port != 0 {
            out.put(&[EXTRA_HEALTH_CHECK, 2, 0])?;
            out.u16(self.service.health_check_node_port)?;
        }
        Some(())
    }
}

fn put_address(address: IpAddr, short: bool, out: &mut Writer<'_>) -> Option<()> {
    match address {
        IpAddr::V4(a) => {
            let octets = a.octets();
            out.put(octets.get(usize::from(short)..)?)
        }
        IpAddr::V6(a) => out.put(&a.octets()),
    }
}

fn put_ranges(ranges: impl Iterator<Item = Cidr>, out: &mut Writer<'_>) -> Option<()> {
    for range in ranges {
        let range = Cidr::new(range.address, range.prefix)?;
        out.u8(range.prefix)?;
        put_address(range.address, false, out)?;
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
