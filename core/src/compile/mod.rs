//! The compiler: a service table to a program, in memory that the caller lends.

mod cluster_ips;
mod entry;
mod front;
mod index;
mod lists;
mod order;
mod record;
mod work;

use crate::bytes::{Word, Writer, count};
use crate::error::CompileError;
use crate::program::layout::{CHECKSUM, FLAG_NAMES, FLAG_SHORT_ENDPOINTS, FLAG_SHORT_FRONTENDS, Header, ID};
use crate::program::record::AddressForm;
use crate::program::slot::Slot;
use crate::program::{Name, checksum, names};
use crate::table::{Endpoint, Frontend, FrontendKind, Service, ServiceTable, Span};
use core::net::IpAddr;
use entry::Entry;
use front::Front;
use lists::{Item, Wanted};
use record::RecordSource;
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
    let records = max_records(table);
    let names = table
        .services
        .iter()
        .map(|s| room(s.name, table.text.len()).saturating_add(room(s.hosts, table.text.len())).saturating_add(4))
        .fold(table.node.name.len().saturating_add(1), usize::saturating_add);
    // a service may have a record, and with it a name, in both families
    let front = front::max_len(table, sizes.v4, sizes.v6, records);
    [front, records, names.saturating_mul(2), sizes.len()].into_iter().fold(0, usize::saturating_add)
}

/// Upper bound of the length of the records, in bytes.
fn max_records(table: &ServiceTable<'_>) -> usize {
    // each service may have a record in both families: flags, three counts, port, extra entries but for lists
    let services = table.services.len().saturating_mul(2 * 32);
    let each = |room: &dyn Fn(&Service) -> usize| table.services.iter().map(room).fold(0, usize::saturating_add);
    // address, port, weight
    let endpoints = each(&|s| room(s.endpoints, table.endpoints.len()).saturating_mul(20));
    // a load-balancer address can become a range of its own
    let ranges = each(&|s| {
        let own = room(s.frontends, table.frontends.len());
        let ranges = room(s.source_ranges, table.ranges.len());
        if ranges == 0 { 0 } else { ranges.saturating_add(own).saturating_mul(17) }
    });
    services.saturating_add(endpoints).saturating_add(ranges)
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
    let sizes = Sizes::of(table)?;
    let end = out.len().checked_sub(sizes.len()).ok_or(full)?;
    let (out, memory) = out.split_at_mut_checked(end).ok_or(full)?;
    let mut work = Work::new(&sizes, memory).ok_or(full)?;
    order::check_services(table)?;
    order::sort_services(table, work.order)?;

    // Records come first, behind the largest front there can be: the width of the slots depends on their length.
    let short = Shortness::of(table, work.endpoints);
    let start = front::max_len(table, sizes.v4, sizes.v6, max_records(table));
    let (front_out, back) = out.split_at_mut_checked(start).ok_or(full)?;
    let mut records = Writer::new(back);
    write_records(table, &mut work, short.endpoint_form(), &mut records)?;
    let records_len = records.len();
    let width = Header::width_of(records_len).ok_or(CompileError::Limit)?;
    let mut header = Header { width, records: count(records_len), ..Header::default() };
    short.fill(&mut header);
    let records = back.get(..records_len).ok_or(full)?;
    let order = &*work.order;
    let spare = (work.endpoints, work.shard_ends);
    let work = Work { order: &mut [], endpoints: spare.0, shard_ends: spare.1, v4: work.v4, v6: work.v6 };
    let endpoint_form = short.endpoint_form();
    let front_len = Front { table, work, scratch, records, endpoint_form }.write(&mut header, front_out)?;

    let records_end = front_len.checked_add(records_len).ok_or(full)?;
    out.copy_within(start..start.saturating_add(records_len), front_len);
    let mut rest = Writer::new(out.get_mut(records_end..).ok_or(full)?);
    write_names(table, order, &mut rest)?;
    header.names = count(rest.len());
    header.flags |= FLAG_NAMES;
    let len = records_end.checked_add(rest.len()).ok_or(full)?;
    finish(&mut header, out.get_mut(..len).ok_or(full)?)?;
    Ok(len)
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

/// Which addresses are stored in three bytes.
struct Shortness {
    frontends: Option<u8>,
    endpoints: Option<u8>,
}

impl Shortness {
    fn of(table: &ServiceTable<'_>, room: &mut [Item]) -> Self {
        let frontends = table.services.iter().filter_map(|s| s.frontends.of(table.frontends)).flatten();
        let addresses = frontends.filter(|f| f.kind != FrontendKind::NodePort).map(|f| f.address);
        Self { frontends: common_octet(addresses), endpoints: stored_octet(table, room) }
    }

    fn endpoint_form(&self) -> AddressForm {
        AddressForm::new(self.endpoints)
    }

    fn fill(&self, header: &mut Header) {
        if let Some(base) = self.frontends {
            header.flags |= FLAG_SHORT_FRONTENDS;
            header.base_frontends = base;
        }
        if let Some(base) = self.endpoints {
            header.flags |= FLAG_SHORT_ENDPOINTS;
            header.base_endpoints = base;
        }
    }
}

/// The first octet of all IPv4 endpoints that records store, if they share one and there are any. Endpoints that nothing
/// leads to have no say: what decides alike is the same program.
fn stored_octet(table: &ServiceTable<'_>, room: &mut [Item]) -> Option<u8> {
    let shared = common_octet(table.endpoints.iter().map(|e| e.address));
    let mut common = None;
    for service in table.services {
        let frontends = service.frontends.of(table.frontends).unwrap_or(&[]);
        let endpoints = service.endpoints.of(table.endpoints).unwrap_or(&[]);
        let Some(wanted) = wanted(frontends, false) else { continue };
        let order = lists::lists(service, endpoints, false, wanted, room)?.order;
        let stored = order.iter().filter_map(|i| lists::of_item(endpoints, i));
        let stored = stored.map(|e| e.address);
        let first = stored.clone().next();
        let octet = common_octet(stored);
        if first.is_some() && (octet.is_none() || common.is_some_and(|c| Some(c) != octet)) {
            return None;
        }
        common = common.or(octet);
        if common.is_some() && shared.is_some() {
            return shared; // all endpoints share it, and one is stored
        }
    }
    common
}

/// The first octet of all IPv4 addresses, if they share one and there are any.
fn common_octet(addresses: impl Iterator<Item = IpAddr>) -> Option<u8> {
    let mut common = None;
    for address in addresses {
        if let IpAddr::V4(a) = address {
            let [first, ..] = a.octets();
            if common.is_some_and(|c| c != first) {
                return None;
            }
            common = Some(first);
        }
    }
    common
}

/// What a service's frontends of a family ask for; `None` if it has none there.
fn wanted(frontends: &[Frontend], v6: bool) -> Option<Wanted> {
    let mut wanted = Wanted::default();
    frontends.iter().filter(|f| f.address.is_ipv6() == v6).for_each(|f| wanted.add(f.kind));
    (wanted.cluster_ip || wanted.external).then_some(wanted)
}

fn check_frontend(service: u32, frontend: u32, f: &Frontend) -> Result<(), CompileError> {
    let is_node_port = f.kind == FrontendKind::NodePort;
    if f.port == 0 || f.address.is_unspecified() != is_node_port {
        return Err(CompileError::Frontend { service, frontend });
    }
    Ok(())
}

fn check_endpoints(service: u32, s: &Service, endpoints: &[Endpoint]) -> Result<(), CompileError> {
    match endpoints.iter().position(|e| e.port == 0 || e.address.is_unspecified()) {
        Some(i) => Err(CompileError::Endpoint { service, endpoint: s.endpoints.start.saturating_add(count(i)) }),
        None => Ok(()),
    }
}

/// Writes all records, and gives the frontends their records' offsets.
fn write_records(
    table: &ServiceTable<'_>,
    work: &mut Work<'_>,
    form: AddressForm,
    out: &mut Writer<'_>,
) -> Result<(), CompileError> {
    let (mut v4, mut v6) = (work.v4.entries.iter_mut(), work.v6.entries.iter_mut());
    for &number in work.order.iter() {
        let number = u32::from_le_bytes(number);
        let span = CompileError::Span { service: number };
        let Some(service) = service_at(table, number) else { continue };
        let frontends = service.frontends.of(table.frontends).unwrap_or(&[]);
        let endpoints = service.endpoints.of(table.endpoints).unwrap_or(&[]);
        check_endpoints(number, service, endpoints)?;
        for is_v6 in [false, true] {
            let Some(wanted) = wanted(frontends, is_v6) else { continue };
            let lists =
                lists::lists(service, endpoints, is_v6, wanted, work.endpoints).ok_or(CompileError::OutputTooSmall)?;
            let record = count(out.len());
            for (frontend, f) in (service.frontends.start..).zip(frontends) {
                check_frontend(number, frontend, f)?;
                let slot = Slot { address: f.address, protocol: service.protocol, port: f.port, kind: f.kind, record };
                if f.address.is_ipv6() != is_v6 {
                    continue;
                }
                if is_v6 { put_entry(&mut v6, &slot) } else { put_entry(&mut v4, &slot) }.ok_or(span)?;
            }
            RecordSource { number, service, table, endpoints, frontends, lists, v6: is_v6 }.write(form, out)?;
        }
    }
    Ok(())
}

fn put_entry<'e, E: Entry + 'e>(entries: &mut impl Iterator<Item = &'e mut E>, slot: &Slot) -> Option<()> {
    *entries.next()? = E::new(slot)?;
    Some(())
}

fn write_names(table: &ServiceTable<'_>, order: &[Word], out: &mut Writer<'_>) -> Result<(), CompileError> {
    let node = u8::try_from(table.node.name.len()).map_err(|_| CompileError::Node)?;
    out.u8(node).and_then(|()| out.put(table.node.name.as_bytes())).ok_or(CompileError::OutputTooSmall)?;
    for service in order.iter().filter_map(|&i| service_at(table, u32::from_le_bytes(i))) {
        let frontends = service.frontends.of(table.frontends).unwrap_or(&[]);
        for v6 in [false, true] {
            if wanted(frontends, v6).is_some() {
                let name = Name {
                    name: table.name(service),
                    protocol: service.protocol,
                    service_type: service.service_type,
                    hosts: service.hosts.of_str(table.text).unwrap_or(""),
                };
                names::write(&name, out).ok_or(CompileError::OutputTooSmall)?;
            }
        }
    }
    Ok(())
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
