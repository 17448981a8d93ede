//! One walk over the services in their order, which writes records, names and the record map, and collects the frontends.

use super::entry::Entry;
use super::items::{Fault, Item, check};
use super::lists::{Wanted, lists};
use super::record::{RecordSource, Stop};
use super::service_at;
use super::work::Work;
use crate::bytes::{Writer, count};
use crate::error::CompileError;
use crate::program::slot::Slot;
use crate::program::{Name, map, names};
use crate::table::{Endpoint, Frontend, Service, ServiceTable};

/// Where a walk writes to.
pub(crate) struct Sections<'o> {
    pub records: Writer<'o>,
    pub map: Writer<'o>,
    pub names: Writer<'o>,
}

/// How IPv4 addresses of endpoints are stored, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// None was stored so far.
    None,
    /// All of them begin with this octet, and are stored without it.
    Short(u8),
    /// Whole.
    Whole,
}

/// A walk over the services.
pub(crate) struct Walk<'t, 'w, 's> {
    pub table: &'t ServiceTable<'t>,
    pub work: &'w mut Work<'s>,
    /// The first octet of IPv4 frontends, where slots leave it out; else 0.
    pub base: u8,
}

impl Walk<'_, '_, '_> {
    /// Writes the sections. Says how addresses of endpoints are stored.
    ///
    /// # Errors
    /// [`Stop::OctetsDiffer`] where they were to be stored short, and cannot be.
    pub fn write(&mut self, mut stored: Stored, out: &mut Sections<'_>) -> Result<Stored, Stop> {
        let full = CompileError::OutputTooSmall;
        let map = &mut out.map;
        let mut pages = map::Pages::new(|entry| map.u8(entry));
        let Work { order, endpoints: room, v4, v6, .. } = &mut *self.work;
        let (mut v4, mut v6) = (v4.entries.iter_mut(), v6.entries.iter_mut());
        for &number in order.iter() {
            let number = u32::from_le_bytes(number);
            let Some(part) = Part::of(self.table, number) else { continue };
            let [in_v4, in_v6] = part.wanted();
            if !in_v4.any() && !in_v6.any() {
                part.check_endpoints()?;
            }
            for &(is_v6, wanted) in &[(false, in_v4), (true, in_v6)] {
                if !wanted.any() {
                    continue;
                }
                let record = count(out.records.len());
                pages.start(record).ok_or(full)?;
                stored = part.write_record(self.table, is_v6, wanted, room, stored, &mut out.records)?;
                for f in part.frontends.iter().filter(|f| f.address.is_ipv6() == is_v6) {
                    let protocol = part.service.protocol;
                    let slot = Slot { address: f.address, protocol, port: f.port, kind: f.kind, record };
                    let put = if is_v6 { put(&mut v6, &slot, 0) } else { put(&mut v4, &slot, self.base) };
                    put.ok_or(CompileError::Span { service: number })?;
                }
                part.write_name(self.table, &mut out.names).ok_or(full)?;
            }
        }
        pages.end(count(out.records.len())).ok_or(full)?;
        Ok(stored)
    }
}

fn put<'e, E: Entry + 'e>(entries: &mut impl Iterator<Item = &'e mut E>, slot: &Slot, base: u8) -> Option<()> {
    *entries.next()? = E::new(slot, base)?;
    Some(())
}

/// A service's part of the table.
pub(crate) struct Part<'t> {
    pub number: u32,
    pub service: &'t Service,
    pub frontends: &'t [Frontend],
    pub endpoints: &'t [Endpoint],
}

impl<'t> Part<'t> {
    fn of(table: &ServiceTable<'t>, number: u32) -> Option<Self> {
        let service = service_at(table, number)?;
        let frontends = service.frontends.of(table.frontends)?;
        let endpoints = service.endpoints.of(table.endpoints)?;
        Some(Self { number, service, frontends, endpoints })
    }

    /// What its IPv4 and its IPv6 frontends ask for.
    fn wanted(&self) -> [Wanted; 2] {
        let (mut v4, mut v6) = (Wanted::default(), Wanted::default());
        for f in self.frontends {
            if f.address.is_ipv6() { v6.add(f.kind) } else { v4.add(f.kind) }
        }
        [v4, v6]
    }

    fn check_endpoints(&self) -> Result<(), CompileError> {
        match self.endpoints.iter().position(|e| check(e).is_none()) {
            Some(i) => Err(self.fault(Fault::Endpoint(count(i)))),
            None => Ok(()),
        }
    }

    fn fault(&self, fault: Fault) -> CompileError {
        match fault {
            Fault::Room => CompileError::OutputTooSmall,
            Fault::Endpoint(i) => CompileError::Endpoint {
                service: self.number,
                endpoint: self.service.endpoints.start.saturating_add(i),
            },
        }
    }

    fn write_record(
        &self,
        table: &ServiceTable<'t>,
        v6: bool,
        wanted: Wanted,
        room: &mut [Item],
        stored: Stored,
        out: &mut Writer<'_>,
    ) -> Result<Stored, Stop> {
        match lists(self.service, self.endpoints, v6, wanted, room) {
            Ok(lists) => RecordSource { part: self, table, lists: &lists, v6 }.write(stored, out),
            Err(fault) => Err(self.fault(fault).into()),
        }
    }

    fn write_name(&self, table: &ServiceTable<'t>, out: &mut Writer<'_>) -> Option<()> {
        let name = Name {
            name: table.name(self.service),
            protocol: self.service.protocol,
            service_type: self.service.service_type,
            hosts: self.service.hosts.of_str(table.text).unwrap_or(""),
        };
        names::write(&name, out)
    }
}
