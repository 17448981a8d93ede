//! The compiler: a service table to a program, in memory that the caller lends.

mod index;
mod lists;
mod record;

use crate::bytes::{Writer, count};
use crate::error::CompileError;
use crate::hash::Key;
use crate::program::layout::{
    CHECKSUM, FLAG_NAMES, FLAG_SHORT_ENDPOINTS, FLAG_SHORT_FRONTENDS, FLAG_V6, HEADER, HEADER6, Header, ID, IndexHeader,
};
use crate::program::record::AddressForm;
use crate::program::{Name, checksum, context, index::SlotForm, names};
use crate::table::{Endpoint, Frontend, FrontendKind, Protocol, Service, ServiceTable, Span};
use core::net::IpAddr;
use index::Entry;
use lists::Wanted;
use record::RecordSource;

/// Most entries of one kind in a table.
const MAX_ENTRIES: usize = 1 << 30;
/// Largest record offset plus one that a slot can hold.
const MAX_RECORDS: usize = 1 << 28;
/// Bits of a frontend's scratch word that hold its record's offset; its protocol is above them.
const OFFSET_BITS: u32 = 28;
/// Scratch word of a frontend that no service has.
const UNUSED: u32 = u32::MAX;

/// Words of scratch that [`compile`] needs for this table.
pub fn scratch_len(table: &ServiceTable<'_>) -> usize {
    let most_endpoints = table.services.iter().map(|s| room(s.endpoints, table.endpoints.len())).max().unwrap_or(0);
    let frontends = table.frontends.len();
    [table.services.len(), frontends.saturating_mul(2), most_endpoints, index::scratch_len(frontends)]
        .into_iter()
        .fold(0, usize::saturating_add)
}

/// Upper bound of the length of this table's program, in bytes: the room that [`compile`] works in.
pub fn max_len(table: &ServiceTable<'_>) -> usize {
    // each service may have a record in both families
    let services = table.services.len().saturating_mul(2 * 80);
    let each = |room: &dyn Fn(&Service) -> usize| table.services.iter().map(room).fold(0, usize::saturating_add);
    let endpoints = each(&|s| room(s.endpoints, table.endpoints.len()).saturating_mul(20));
    // a load-balancer address can become a range of its own
    let ranges = each(&|s| {
        let own = room(s.frontends, table.frontends.len());
        room(s.source_ranges, table.ranges.len()).saturating_add(own).saturating_mul(17)
    });
    let names =
        each(&|s| room(s.name, table.text.len()).saturating_add(room(s.hosts, table.text.len())).saturating_mul(2))
            .saturating_add(table.node.name.len());
    [front_room(table), services, endpoints, ranges, names].into_iter().fold(64, usize::saturating_add)
}

/// Compiles a table. Returns the program's length; the program lies at the start of `out`.
///
/// Deterministic: the same table, its services, frontends and endpoints in any order, gives the same bytes on every target.
/// `scratch` holds at least [`scratch_len`] words, `out` [`max_len`] bytes; nothing is allocated.
///
/// # Errors
/// Names the service or frontend at fault by its index in the table. `out` is then undefined.
pub fn compile(table: &ServiceTable<'_>, scratch: &mut [u32], out: &mut [u8]) -> Result<usize, CompileError> {
    check_limits(table)?;
    let (services, scratch) = split(scratch, table.services.len())?;
    let (offsets, scratch) = split(scratch, table.frontends.len())?;
    let (family, scratch) = split(scratch, table.frontends.len())?;
    sort_services(table, services)?;

    // Records come first, behind the largest front there can be: the width of the slots depends on their length.
    let short = Shortness::of(table, scratch);
    let start = front_room(table);
    let (front, back) = out.split_at_mut_checked(start).ok_or(CompileError::OutputTooSmall)?;
    let mut records = Writer::new(back);
    write_records(table, services, offsets, scratch, short.endpoint_form(), &mut records)?;
    let records_len = records.len();
    if records_len > MAX_RECORDS {
        return Err(CompileError::Limit);
    }
    let mut header = Header { tail: tail_width(records_len), records: count(records_len), ..Header::default() };
    short.fill(&mut header);
    let front_len = Front { table, offsets, family, scratch }.write(&mut header, front)?;

    let full = CompileError::OutputTooSmall;
    let records_end = front_len.checked_add(records_len).ok_or(full)?;
    out.copy_within(start..start.saturating_add(records_len), front_len);
    let mut rest = Writer::new(out.get_mut(records_end..).ok_or(full)?);
    write_names(table, services, &mut rest)?;
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

fn split(scratch: &mut [u32], len: usize) -> Result<(&mut [u32], &mut [u32]), CompileError> {
    scratch.split_at_mut_checked(len).ok_or(CompileError::ScratchTooSmall)
}

fn check_limits(table: &ServiceTable<'_>) -> Result<(), CompileError> {
    let lengths = [table.services.len(), table.frontends.len(), table.endpoints.len(), table.ranges.len()];
    if lengths.iter().any(|l| *l > MAX_ENTRIES) { Err(CompileError::Limit) } else { Ok(()) }
}

fn service_at<'t>(table: &ServiceTable<'t>, i: u32) -> Option<&'t Service> {
    table.services.get(crate::bytes::index(i))
}

/// Fills `order` with the services by name and protocol, and checks each service's own fields.
fn sort_services(table: &ServiceTable<'_>, order: &mut [u32]) -> Result<(), CompileError> {
    for (service, (i, s)) in (0_u32..).zip(order.iter_mut().zip(table.services)) {
        *i = service;
        let spans = s.endpoints.of(table.endpoints).is_some()
            && s.frontends.of(table.frontends).is_some()
            && s.source_ranges.of(table.ranges).is_some()
            && s.name.of_str(table.text).is_some()
            && s.hosts.of_str(table.text).is_some();
        if !spans {
            return Err(CompileError::Span { service });
        }
        if s.name.len == 0 || s.name.len > u8::MAX.into() || s.hosts.len > u16::MAX.into() {
            return Err(CompileError::Name { service });
        }
        for range in s.source_ranges.of(table.ranges).unwrap_or(&[]) {
            crate::Cidr::new(range.address, range.prefix).ok_or(CompileError::Cidr)?;
        }
    }
    let key = |i: u32| service_at(table, i).map(|s| (table.name(s), s.protocol));
    order.sort_unstable_by_key(|&i| (key(i), i));
    for pair in order.windows(2) {
        if let [first, second] = *pair
            && key(first) == key(second)
        {
            return Err(CompileError::DuplicateService { first, second });
        }
    }
    Ok(())
}

/// Which addresses are stored in three bytes.
struct Shortness {
    frontends: Option<u8>,
    endpoints: Option<u8>,
}

impl Shortness {
    fn of(table: &ServiceTable<'_>, scratch: &mut [u32]) -> Self {
        let frontends = || table.frontends.iter().filter(|f| f.kind != FrontendKind::NodePort).map(|f| f.address);
        // a.0.0.0 in three bytes is what a NodePort has
        let zero = frontends().any(|a| matches!(a, IpAddr::V4(a) if a.to_bits().trailing_zeros() >= 24));
        Self { frontends: common_octet(frontends()).filter(|_| !zero), endpoints: stored_octet(table, scratch) }
    }

    fn endpoint_form(&self) -> AddressForm {
        AddressForm { base: self.endpoints }
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
fn stored_octet(table: &ServiceTable<'_>, scratch: &mut [u32]) -> Option<u8> {
    let shared = common_octet(table.endpoints.iter().map(|e| e.address));
    let mut common = None;
    for service in table.services {
        let frontends = service.frontends.of(table.frontends).unwrap_or(&[]);
        let endpoints = service.endpoints.of(table.endpoints).unwrap_or(&[]);
        let Some(wanted) = wanted(frontends, false) else { continue };
        // scratch that is too short is reported when the record is written
        let order = lists::lists(service, endpoints, false, wanted, scratch)?.order;
        let stored = order.iter().filter_map(|&i| endpoints.get(crate::bytes::index(i)).map(|e| e.address));
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

fn tail_width(records_len: usize) -> u8 {
    match records_len {
        0..=0xfff => 2,
        0x1000..=0xf_ffff => 3,
        _ => 4,
    }
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

/// Writes all records and notes in `offsets` each frontend's protocol and record offset.
fn write_records(
    table: &ServiceTable<'_>,
    order: &[u32],
    offsets: &mut [u32],
    scratch: &mut [u32],
    form: AddressForm,
    out: &mut Writer<'_>,
) -> Result<(), CompileError> {
    offsets.fill(UNUSED);
    for &number in order {
        let Some(service) = service_at(table, number) else { continue };
        let frontends = service.frontends.of(table.frontends).unwrap_or(&[]);
        let endpoints = service.endpoints.of(table.endpoints).unwrap_or(&[]);
        check_endpoints(number, service, endpoints)?;
        for v6 in [false, true] {
            let Some(wanted) = wanted(frontends, v6) else { continue };
            let lists = lists::lists(service, endpoints, v6, wanted, scratch).ok_or(CompileError::ScratchTooSmall)?;
            let word = count(out.len()) | (u32::from(Key::protocol_code(service.protocol)) << OFFSET_BITS);
            for (frontend, f) in (service.frontends.start..).zip(frontends) {
                check_frontend(number, frontend, f)?;
                if f.address.is_ipv6() == v6 {
                    let place = offsets.get_mut(crate::bytes::index(frontend));
                    let place = place.ok_or(CompileError::Span { service: number })?;
                    if *place != UNUSED {
                        return Err(CompileError::Span { service: number });
                    }
                    *place = word;
                }
            }
            RecordSource { number, service, table, endpoints, frontends, lists, v6 }.write(form, out)?;
        }
    }
    Ok(())
}

fn write_names(table: &ServiceTable<'_>, order: &[u32], out: &mut Writer<'_>) -> Result<(), CompileError> {
    let node = u8::try_from(table.node.name.len()).map_err(|_| CompileError::Node)?;
    out.u8(node).and_then(|()| out.put(table.node.name.as_bytes())).ok_or(CompileError::OutputTooSmall)?;
    for service in order.iter().filter_map(|&i| service_at(table, i)) {
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

/// Upper bound of everything before the records.
fn front_room(table: &ServiceTable<'_>) -> usize {
    // per frontend a slot of 22 bytes at the lowest load, a pilot, a ClusterIP of 16
    let index = table.frontends.len().saturating_mul(48).saturating_add(96);
    [HEADER, HEADER6, context::max_len(&table.node), index].into_iter().fold(0, usize::saturating_add)
}

/// Everything before the records: header, node, frontend indices, ClusterIPs.
struct Front<'t, 's> {
    table: &'t ServiceTable<'t>,
    /// Protocol and record offset of each frontend.
    offsets: &'s [u32],
    /// Room for the frontends of one family.
    family: &'s mut [u32],
    scratch: &'s mut [u32],
}

impl Front<'_, '_> {
    /// Returns the length.
    fn write(&mut self, header: &mut Header, out: &mut [u8]) -> Result<usize, CompileError> {
        let full = CompileError::OutputTooSmall;
        let has_v6 = self.select(true)? != 0;
        let mut at = if has_v6 { HEADER.saturating_add(HEADER6) } else { HEADER };
        let mut context = Writer::new(out.get_mut(at..).ok_or(full)?);
        context::write(&self.table.node, &mut context)?;
        header.context = u16::try_from(context.len()).map_err(|_| CompileError::Node)?;
        at = at.saturating_add(context.len());
        for v6 in [false, true] {
            let form = form_of(header, v6);
            let room = out.get_mut(at..).ok_or(full)?;
            let index = self.build(v6, form, room)?;
            let slots = crate::bytes::index(index.slots()).saturating_mul(form.width());
            at = at.saturating_add(crate::bytes::index(index.pilots())).saturating_add(slots);
            if v6 { header.v6 = index } else { header.v4 = index }
        }
        for v6 in [false, true] {
            let form = form_of(header, v6);
            let room = out.get_mut(at..).ok_or(full)?;
            let ips = self.write_cluster_ips(v6, form, room).ok_or(full)?;
            at = at.saturating_add(ips.saturating_mul(form.address));
            if v6 { header.v6.cluster_ips = count(ips) } else { header.v4.cluster_ips = count(ips) }
        }
        if has_v6 {
            header.flags |= FLAG_V6;
        }
        Ok(at)
    }

    fn frontend(&self, i: u32) -> Option<&Frontend> {
        self.table.frontends.get(crate::bytes::index(i))
    }

    /// Collects the family's frontends that a service has, and returns their number.
    fn select(&mut self, v6: bool) -> Result<u32, CompileError> {
        let mut found = 0_usize;
        for (i, (f, word)) in (0_u32..).zip(self.table.frontends.iter().zip(self.offsets)) {
            if f.address.is_ipv6() == v6 && *word != UNUSED {
                *self.family.get_mut(found).ok_or(CompileError::ScratchTooSmall)? = i;
                found = found.saturating_add(1);
            }
        }
        Ok(count(found))
    }

    fn build(&mut self, v6: bool, form: SlotForm, out: &mut [u8]) -> Result<IndexHeader, CompileError> {
        let frontends = self.select(v6)?;
        let (table, offsets, family) = (self.table, self.offsets, &*self.family);
        let entry = |i: u32| {
            let frontend = *family.get(crate::bytes::index(i))?;
            let f = table.frontends.get(crate::bytes::index(frontend))?;
            let word = *offsets.get(crate::bytes::index(frontend))?;
            let protocol = *Protocol::ALL.get(crate::bytes::index(word >> OFFSET_BITS))?;
            let record = word & ((1 << OFFSET_BITS) - 1);
            Some(Entry { frontend, key: Key { address: f.address, protocol, port: f.port }, kind: f.kind, record })
        };
        index::build(frontends, &entry, form, self.scratch, out)
    }

    /// Writes the family's distinct ClusterIPs in ascending order and returns their number.
    fn write_cluster_ips(&mut self, v6: bool, form: SlotForm, out: &mut [u8]) -> Option<usize> {
        let frontends = self.select(v6).ok()?;
        let family = self.family.get(..crate::bytes::index(frontends))?;
        let ips = || {
            family
                .iter()
                .filter_map(|&i| self.frontend(i))
                .filter(|f| f.kind == FrontendKind::ClusterIp)
                .filter_map(|f| form.address_bytes(f.address))
        };
        match form.address {
            3 => sort_ips::<3>(ips(), out),
            4 => sort_ips::<4>(ips(), out),
            _ => sort_ips::<16>(ips(), out),
        }
    }
}

fn form_of(header: &Header, v6: bool) -> SlotForm {
    let tail = header.tail.into();
    if v6 {
        SlotForm { address: 16, tail, base: 0 }
    } else {
        SlotForm { address: header.frontend_width(), tail, base: header.base_frontends }
    }
}

/// Writes the last `N` bytes of each address, sorted and without duplicates. `None` where the room is short.
fn sort_ips<const N: usize>(ips: impl Iterator<Item = [u8; 16]>, out: &mut [u8]) -> Option<usize> {
    let (all, _) = out.as_chunks_mut::<N>();
    let mut len = 0_usize;
    for ip in ips {
        *all.get_mut(len)? = *ip.last_chunk::<N>()?;
        len = len.checked_add(1)?;
    }
    let all = all.get_mut(..len)?;
    all.sort_unstable();
    let mut kept = 0_usize;
    for i in 0..all.len() {
        let ip = *all.get(i)?;
        let last = kept.checked_sub(1).and_then(|l| all.get(l)).copied();
        if last != Some(ip) {
            *all.get_mut(kept)? = ip;
            kept = kept.checked_add(1)?;
        }
    }
    Some(kept)
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
