//! The compiler: a service table to a program, in memory that the caller lends.

mod cluster_ips;
mod entry;
mod front;
mod index;
mod items;
mod lists;
mod order;
mod record;
mod services;
mod survey;
mod work;

use crate::bytes::{Writer, count};
use crate::error::CompileError;
use crate::program::checksum;
use crate::program::layout::{CHECKSUM, FLAG_NAMES, FLAG_SHORT_ENDPOINTS, FLAG_SHORT_FRONTENDS, Header, ID};
use crate::table::{Service, ServiceTable, Span};
use front::Front;
use record::Stop;
use services::{Sections, Stored, Walk};
use survey::Survey;
use work::{Sizes, Work};

/// Most entries of one kind in a table.
const MAX_ENTRIES: usize = 1 << 30;

/// Words of scratch that [`compile`] needs for this table: at most 64 KiB of them for any table.
pub fn scratch_len(table: &ServiceTable<'_>) -> usize {
    index::scratch_len(table.frontends.len())
}

/// Upper bound of the length of this table's program and of what its compilation works in, in bytes: the room that
/// [`compile`] needs.
pub fn max_len(table: &ServiceTable<'_>) -> usize {
    let sizes = Sizes::most(table);
    Room::of(table, &sizes).len().saturating_add(sizes.len())
}

/// Upper bounds of the lengths of a program's parts, in bytes.
struct Room {
    /// Everything before the record map.
    front: usize,
    map: usize,
    records: usize,
    names: usize,
}

impl Room {
    fn of(table: &ServiceTable<'_>, sizes: &Sizes) -> Self {
        let (mut records, mut names) = (0_usize, table.node.name.len().saturating_add(1));
        for s in table.services {
            // a service may have a record, and with it a name, in both families
            records = records.saturating_add(max_record(table, s).saturating_mul(2));
            let text = room(s.name, table.text.len()).saturating_add(room(s.hosts, table.text.len()));
            names = names.saturating_add(text.saturating_add(4).saturating_mul(2));
        }
        Self { front: front::max_len(table, sizes.v4, sizes.v6), map: records / 255, records, names }
    }

    fn len(&self) -> usize {
        [self.front, self.map, self.records, self.names].into_iter().fold(0, usize::saturating_add)
    }

    /// Splits memory into the parts; the last one gets what is left.
    fn split<'m>(&self, memory: &'m mut [u8]) -> Option<[&'m mut [u8]; 4]> {
        let (front, rest) = memory.split_at_mut_checked(self.front)?;
        let (map, rest) = rest.split_at_mut_checked(self.map)?;
        let (records, names) = rest.split_at_mut_checked(self.records)?;
        Some([front, map, records, names])
    }
}

/// Upper bound of the length of half of a service's records, in bytes, and of an [`items::Item`].
fn max_record(table: &ServiceTable<'_>, s: &Service) -> usize {
    // flags, three counts, port, extra entries but for lists
    let head = 32_usize;
    // address, port, weight, of which each is in one of the records
    let endpoints = room(s.endpoints, table.endpoints.len()).saturating_mul(10);
    // a load-balancer address can become a range of its own
    let own = room(s.frontends, table.frontends.len());
    let ranges = room(s.source_ranges, table.ranges.len());
    let ranges = if ranges == 0 { 0 } else { ranges.saturating_add(own).saturating_mul(9) };
    head.saturating_add(endpoints).saturating_add(ranges)
}

/// Compiles a table. Returns the program's length; the program lies at the start of `out`.
///
/// Deterministic: the same table, its services, frontends and endpoints in any order, gives the same bytes on every target.
/// `scratch` holds at least [`scratch_len`] words, `out` [`max_len`] bytes; nothing is allocated.
///
/// # Errors
/// Names the service or frontend at fault by its index in the table. `out` is then undefined.
pub fn compile(table: &ServiceTable<'_>, scratch: &mut [u32], out: &mut [u8]) -> Result<usize, CompileError> {
    let full = CompileError::OutputTooSmall;
    check_limits(table)?;
    let Survey { sizes, ascends, frontends_octet } = Survey::of(table)?;
    let room = Room::of(table, &sizes);
    let end = out.len().checked_sub(sizes.len()).ok_or(full)?;
    let (out, memory) = out.split_at_mut_checked(end).ok_or(full)?;
    let mut work = Work::new(&sizes, memory).ok_or(full)?;
    if ascends {
        order::keep(work.order); // as most sources of tables have them
    } else {
        let room = out.as_chunks_mut().0.get_mut(..sizes.services).ok_or(full)?;
        order::sort_services(table, room, work.order)?;
    }

    // Records come first, behind the largest front there can be: the width of the slots depends on their length.
    let parts = room.split(out).ok_or(full)?;
    let (lens, stored) = write_services(table, &mut work, frontends_octet, parts)?;
    let mut header = header_of(&lens, frontends_octet, stored)?;
    let front_out = out.get_mut(..room.front).ok_or(full)?;
    let mut len = Front { table, work, scratch }.write(&mut header, front_out)?;
    let mut start = room.front;
    for (used, reserved) in [(lens.map, room.map), (lens.records, room.records), (lens.names, 0)] {
        out.copy_within(start..start.saturating_add(used), len);
        start = start.saturating_add(reserved);
        len = len.saturating_add(used);
    }
    finish(&mut header, out.get_mut(..len).ok_or(full)?)?;
    Ok(len)
}

/// Lengths of what is written service by service, in bytes.
struct Lengths {
    map: usize,
    records: usize,
    names: usize,
}

fn header_of(lens: &Lengths, frontends: Option<u8>, stored: Stored) -> Result<Header, CompileError> {
    let width = Header::width_of(lens.records).ok_or(CompileError::Limit)?;
    let mut header = Header {
        flags: FLAG_NAMES,
        width,
        records: count(lens.records),
        names: count(lens.names),
        ..Header::default()
    };
    if let Some(base) = frontends {
        header.flags |= FLAG_SHORT_FRONTENDS;
        header.base_frontends = base;
    }
    if let Stored::Short(base) = stored {
        header.flags |= FLAG_SHORT_ENDPOINTS;
        header.base_endpoints = base;
    }
    Ok(header)
}

/// Writes map, records and names, each to the start of its part. Endpoints are read once, so that whether their addresses share
/// an octet is found out while they are written; where they turn out not to, everything is written again.
fn write_services(
    table: &ServiceTable<'_>,
    work: &mut Work<'_>,
    frontends_octet: Option<u8>,
    [_, map, records, names]: [&mut [u8]; 4],
) -> Result<(Lengths, Stored), CompileError> {
    let mut write = |stored| {
        let (records, map, names) = (Writer::new(records), Writer::new(map), Writer::new(names));
        let mut sections = Sections { records, map, names };
        let node = u8::try_from(table.node.name.len()).map_err(|_| CompileError::Node)?;
        let put = sections.names.u8(node).and_then(|()| sections.names.put(table.node.name.as_bytes()));
        put.ok_or(CompileError::OutputTooSmall)?;
        let stored = Walk { table, work, base: frontends_octet.unwrap_or(0) }.write(stored, &mut sections)?;
        let Sections { records, map, names } = sections;
        Ok((Lengths { map: map.len(), records: records.len(), names: names.len() }, stored))
    };
    match write(Stored::None) {
        Err(Stop::OctetsDiffer) => write(Stored::Whole),
        other => other,
    }
    .map_err(|stop| match stop {
        Stop::Error(e) => e,
        Stop::OctetsDiffer => CompileError::Limit, // whole addresses have all octets
    })
}

/// Removes the names from a program, for firmware. `program` is a checked program's bytes; the result is shorter, has
/// the same content id and is written to `out`. Returns its length.
///
/// # Errors
/// [`CompileError::OutputTooSmall`] if `out` is shorter than the program, [`CompileError::Limit`] if it is no program.
pub fn strip_names(program: &crate::Program<'_>, out: &mut [u8]) -> Result<usize, CompileError> {
    let bytes = program.as_bytes();
    let mut header = Header::read(bytes).map_err(|_| CompileError::Limit)?;
    let len = bytes.len().saturating_sub(crate::bytes::index(header.names));
    let out = out.get_mut(..len).ok_or(CompileError::OutputTooSmall)?;
    out.copy_from_slice(bytes.get(..len).ok_or(CompileError::Limit)?);
    header.names = 0;
    header.flags &= !FLAG_NAMES;
    seal(&mut header, out)?;
    Ok(len)
}

/// Entries of a span, of which there are `all`: a span of a table from a wire may say anything.
fn room(span: Span, all: usize) -> usize {
    crate::bytes::index(span.len).min(all)
}

fn check_limits(table: &ServiceTable<'_>) -> Result<(), CompileError> {
    let lengths = [table.services.len(), table.frontends.len(), table.endpoints.len(), table.ranges.len()];
    if lengths.iter().any(|l| *l > MAX_ENTRIES) { Err(CompileError::Limit) } else { Ok(()) }
}

fn service_at<'t>(table: &ServiceTable<'t>, i: u32) -> Option<&'t Service> {
    table.services.get(crate::bytes::index(i))
}

/// Computes the content id and seals the program.
fn finish(header: &mut Header, program: &mut [u8]) -> Result<(), CompileError> {
    header.id = [0; 16];
    header.checksum = 0;
    header.write(&mut Writer::new(program)).ok_or(CompileError::OutputTooSmall)?;
    header.id = twox_hash::XxHash3_128::oneshot(program).to_le_bytes();
    seal(header, program)
}

/// Writes the header with its checksum.
fn seal(header: &mut Header, program: &mut [u8]) -> Result<(), CompileError> {
    header.checksum = 0;
    header.write(&mut Writer::new(program)).ok_or(CompileError::OutputTooSmall)?;
    debug_assert!(program.get(ID) == Some(&header.id));
    header.checksum = checksum(program);
    program.get_mut(CHECKSUM).ok_or(CompileError::OutputTooSmall)?.copy_from_slice(&header.checksum.to_le_bytes());
    Ok(())
}
