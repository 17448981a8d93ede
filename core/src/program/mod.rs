//! The compiled form of a service table: a view of bytes that were checked once. `core/FORMAT.md` specifies every byte.

pub(crate) mod context;
pub(crate) mod index;
pub(crate) mod layout;
pub(crate) mod names;
pub(crate) mod record;

use crate::bytes::Reader;
use crate::error::ProgramError;
use crate::hash::Key;
use crate::table::{Cidr, FrontendKind, Protocol};
use core::fmt;
use core::net::IpAddr;

pub use context::Context;
use index::{Index, SlotForm};
use layout::{FLAG_SHORT_ENDPOINTS, Header, IndexHeader, IndexSections, Layout};
pub use layout::{MAGIC, VERSION};
pub use names::Name;
use names::Names;
use record::AddressForm;
pub use record::{EndpointList, Record, RecordEndpoint};

/// 128 bits that name a table: the same table gives the same id on every machine and engine, with or without names.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentId(pub [u8; 16]);

impl fmt::Display for ContentId {
    /// 32 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A checked program. [`Program::new_checked`] is the only door; after it no accessor fails or panics.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    bytes: &'a [u8],
    header: Header,
    layout: Layout,
    context: Context<'a>,
    v4: Index<'a>,
    v6: Index<'a>,
}

/// A frontend of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramFrontend<'a> {
    /// Kind.
    pub kind: FrontendKind,
    /// Address; unspecified for a NodePort.
    pub address: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Port, host order.
    pub port: u16,
    /// The service.
    pub record: Record<'a>,
}

impl<'a> Program<'a> {
    /// Checks bytes and opens them as a program, without copying them. Time is linear in their length and, for each
    /// frontend, in its service's record.
    ///
    /// # Errors
    /// Says what is wrong; bytes that pass are a program that this version can run.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, ProgramError> {
        let header = Header::read(bytes)?;
        let layout = Layout::of(&header).ok_or(ProgramError::Truncated)?;
        if bytes.len() < layout.end {
            return Err(ProgramError::Truncated);
        }
        if bytes.len() > layout.end {
            return Err(ProgramError::TrailingBytes);
        }
        if checksum(bytes) != header.checksum {
            return Err(ProgramError::Checksum);
        }
        let context =
            Context::new_checked(section(bytes, layout.context, layout.v4.pilots)).ok_or(ProgramError::Context)?;
        let tail = header.tail.into();
        let form4 = SlotForm { address: header.frontend_width(), tail, base: header.base_frontends };
        let form6 = SlotForm { address: 16, tail, base: 0 };
        let program = Self {
            bytes,
            header,
            layout,
            context,
            v4: index_of(bytes, header.v4, &layout.v4, layout.v6.pilots, layout.v6.cluster_ips, form4),
            v6: index_of(bytes, header.v6, &layout.v6, layout.v4.cluster_ips, layout.records, form6),
        };
        program.check_records()?;
        for (index, v6) in [(&program.v4, false), (&program.v6, true)] {
            let sound = index.is_valid(|o| program.record_at(o).is_some_and(|r| r.is_v6() == v6 && r.is_valid()));
            if !sound {
                return Err(ProgramError::Index);
            }
        }
        Ok(program)
    }

    fn check_records(&self) -> Result<(), ProgramError> {
        let mut records: usize = 0;
        let mut walk = self.walk();
        while !walk.reader.is_empty() {
            let sound = walk.next().is_some_and(|r| r.is_valid());
            if !sound {
                return Err(ProgramError::Record);
            }
            records = records.saturating_add(1);
        }
        if let Some(section) = self.names_section() {
            let (_, mut names) = Names::new(section).ok_or(ProgramError::Names)?;
            if names.by_ref().take(records).count() != records || !names.is_empty() {
                return Err(ProgramError::Names);
            }
        }
        Ok(())
    }

    /// The table's id.
    pub fn content_id(&self) -> ContentId {
        ContentId(self.header.id)
    }

    /// The program's bytes.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The node that the program is for.
    pub fn context(&self) -> &Context<'a> {
        &self.context
    }

    /// The node's name; empty if unknown or stripped.
    pub fn node_name(&self) -> &'a str {
        self.names_section().and_then(Names::new).map_or("", |(node, _)| node)
    }

    /// Services in both families, in the order of their names.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        self.walk()
    }

    /// Services with their names; the name is `None` where names are stripped.
    pub fn services(&self) -> impl Iterator<Item = (Record<'a>, Option<Name<'a>>)> + use<'a> {
        let mut names = self.names_section().and_then(Names::new).map(|(_, names)| names);
        self.records().map(move |record| (record, names.as_mut().and_then(Iterator::next)))
    }

    /// The name of a service; `None` where names are stripped. Walks the services before it.
    pub fn name_of(&self, record: &Record<'_>) -> Option<Name<'a>> {
        self.services().find(|(r, _)| r.offset() == record.offset()).and_then(|(_, name)| name)
    }

    /// All frontends, IPv4 before IPv6, in no useful order within a family.
    pub fn frontends(&self) -> impl Iterator<Item = ProgramFrontend<'a>> + use<'a> {
        let program = *self;
        self.v4.slots().chain(self.v6.slots()).filter_map(move |slot| program.frontend_of(&slot))
    }

    /// Number of frontends in both families.
    pub fn frontend_count(&self) -> u32 {
        self.header.v4.frontends.saturating_add(self.header.v6.frontends)
    }

    /// The frontend with exactly this address, protocol and port: a ClusterIP, load-balancer or external IP.
    pub fn find(&self, address: IpAddr, protocol: Protocol, port: u16) -> Option<ProgramFrontend<'a>> {
        if address.is_unspecified() { None } else { self.look_up(&Key { address, protocol, port }) }
    }

    /// The NodePort frontend with this protocol and port, in the family of `address`.
    pub fn find_node_port(&self, address: IpAddr, protocol: Protocol, port: u16) -> Option<ProgramFrontend<'a>> {
        let address = match address {
            IpAddr::V4(_) => IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED),
        };
        self.look_up(&Key { address, protocol, port })
    }

    /// Whether the address is some service's ClusterIP.
    pub fn is_cluster_ip(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(_) => self.v4.is_cluster_ip(address),
            IpAddr::V6(_) => self.v6.is_cluster_ip(address),
        }
    }

    /// Distinct ClusterIPs, IPv4 before IPv6, ascending.
    pub fn cluster_ips(&self) -> impl Iterator<Item = IpAddr> + use<'a> {
        self.v4.cluster_ips().chain(self.v6.cluster_ips())
    }

    /// Whether a prefix of one of the node's lists holds the address.
    pub(crate) fn any_contains(mut cidrs: impl Iterator<Item = Cidr>, address: IpAddr) -> bool {
        cidrs.any(|c| c.contains(address))
    }

    fn look_up(&self, key: &Key) -> Option<ProgramFrontend<'a>> {
        let index = match key.address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        index.find(key).and_then(|slot| self.frontend_of(&slot))
    }

    fn frontend_of(&self, slot: &index::Slot) -> Option<ProgramFrontend<'a>> {
        let Key { address, protocol, port } = slot.key;
        Some(ProgramFrontend { kind: slot.kind, address, protocol, port, record: self.record_at(slot.record)? })
    }

    fn record_at(&self, offset: u32) -> Option<Record<'a>> {
        let records = section(self.bytes, self.layout.records, self.layout.names);
        Record::read(&mut Reader(records.get(crate::bytes::index(offset)..)?), offset, self.address_form())
    }

    fn walk(&self) -> Walk<'a> {
        let records = section(self.bytes, self.layout.records, self.layout.names);
        Walk { reader: Reader(records), len: records.len(), form: self.address_form() }
    }

    fn address_form(&self) -> AddressForm {
        AddressForm { base: self.header.has(FLAG_SHORT_ENDPOINTS).then_some(self.header.base_endpoints) }
    }

    fn names_section(&self) -> Option<&'a [u8]> {
        let names = section(self.bytes, self.layout.names, self.layout.end);
        (!names.is_empty()).then_some(names)
    }
}

/// Iterator over the records' section.
#[derive(Clone, Debug)]
struct Walk<'a> {
    reader: Reader<'a>,
    len: usize,
    form: AddressForm,
}

impl<'a> Iterator for Walk<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let offset = crate::bytes::count(self.len.saturating_sub(self.reader.0.len()));
        Record::read(&mut self.reader, offset, self.form)
    }
}

fn section(bytes: &[u8], start: usize, end: usize) -> &[u8] {
    bytes.get(start..end).unwrap_or(&[])
}

fn index_of<'a>(
    bytes: &'a [u8],
    header: IndexHeader,
    at: &IndexSections,
    slots_end: usize,
    cluster_ips_end: usize,
    form: SlotForm,
) -> Index<'a> {
    Index {
        header,
        pilots: section(bytes, at.pilots, at.slots),
        slots: section(bytes, at.slots, slots_end),
        cluster_ips: section(bytes, at.cluster_ips, cluster_ips_end),
        form,
    }
}

/// The checksum of a program's bytes: the low half of XXH3-64 of everything behind the checksum, started with the
/// fields before it.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    let covered = bytes.get(layout::CHECKED_FROM..).unwrap_or(&[]);
    let hash = twox_hash::XxHash3_64::oneshot_with_seed(head_seed(bytes), covered);
    #[expect(clippy::cast_possible_truncation, reason = "the low half is the checksum")]
    {
        hash as u32
    }
}

/// Flags, tail and index byte lie before the checksum; they seed it, so that it covers them too.
fn head_seed(bytes: &[u8]) -> u64 {
    match bytes.get(4..8) {
        Some(&[version, flags, tail, index]) => u64::from(u32::from_le_bytes([version, flags, tail, index])),
        _ => 0,
    }
}
