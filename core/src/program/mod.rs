//! The compiled form of a service table: a view of bytes that were checked once. `core/FORMAT.md` specifies every byte.

pub(crate) mod cluster_ips;
mod compare;
pub(crate) mod context;
mod endpoints;
pub(crate) mod index;
mod key;
pub(crate) mod layout;
pub(crate) mod map;
pub(crate) mod names;
pub(crate) mod record;
pub(crate) mod slot;

use crate::bytes::{Reader, count};
use crate::error::ProgramError;
use crate::table::{Cidr, FrontendKind, Protocol};
use cluster_ips::ClusterIps;
use core::cmp::Ordering;
use core::fmt;
use core::net::{IpAddr, Ipv6Addr};

pub use context::Context;
pub use endpoints::{EndpointList, RecordEndpoint};
use index::{ClusterIpsV6, Hit, IndexV4, IndexV6};
pub use key::KeyV4;
use layout::{FLAG_SHORT_ENDPOINTS, Header, Layout};
pub use layout::{MAGIC, VERSION};
pub use names::Name;
use names::Names;
pub use record::Record;
use record::{AddressForm, Shape};
use slot::Slot;

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

/// A checked program. [`Program::new_checked`] is the only door for bytes from elsewhere; after it no accessor fails.
#[derive(Clone, Copy)]
pub struct Program<'a> {
    v4: IndexV4<'a>,
    records: &'a [u8],
    form: AddressForm,
    v6: IndexV6<'a>,
    cluster_ips4: ClusterIps<'a>,
    cluster_ips6: ClusterIpsV6<'a>,
    context: Context<'a>,
    /// Empty if stripped.
    names: &'a [u8],
    id: ContentId,
    bytes: &'a [u8],
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

impl ProgramFrontend<'_> {
    /// Whether it leaves its address and port to a NodePort of that number: an external one whose service has no usable
    /// endpoint anywhere.
    #[inline]
    pub fn is_passed_over(&self) -> bool {
        self.kind.is_external() && !self.record.any_usable()
    }
}

impl<'a> Program<'a> {
    /// Checks bytes and opens them as a program, without copying them. Time is linear in their length.
    ///
    /// # Errors
    /// Says what is wrong; bytes that pass are a program that this version can run.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, ProgramError> {
        let header = Header::read(bytes)?;
        let layout = layout_of(bytes, &header)?;
        if checksum(bytes) != header.checksum {
            return Err(ProgramError::Checksum);
        }
        let program = Self::open(bytes, &header, &layout);
        if !program.cluster_ips4.is_valid() || !program.cluster_ips6.is_valid() {
            return Err(ProgramError::Index);
        }
        if !program.context.is_valid() {
            return Err(ProgramError::Context);
        }
        let map = bytes.get(layout.map..layout.records).unwrap_or(&[]);
        let records = program.check_records(map)?;
        program.check_names(records)?;
        program.check_indices(map)?;
        Ok(program)
    }

    /// Opens bytes that [`Program::new_checked`] has accepted before, or that come straight from the compiler: in constant
    /// time, since only the header is looked at. Of other bytes the accessors may say anything, but none of them panics.
    ///
    /// # Errors
    /// Says what is wrong with the header, or that there are not as many bytes as it says.
    pub fn reopen(bytes: &'a [u8]) -> Result<Self, ProgramError> {
        let header = Header::read(bytes)?;
        let layout = layout_of(bytes, &header)?;
        Ok(Self::open(bytes, &header, &layout))
    }

    fn open(bytes: &'a [u8], header: &Header, layout: &Layout) -> Self {
        let section = |start, end| bytes.get(start..end).unwrap_or(&[]);
        Self {
            v4: IndexV4::new(bytes, header, layout),
            records: section(layout.records, layout.names),
            form: AddressForm::new(header.has(FLAG_SHORT_ENDPOINTS).then_some(header.base_endpoints)),
            v6: IndexV6::new(bytes, header, layout),
            cluster_ips4: ClusterIps::new(section(layout.cluster_ips4, layout.cluster_ips6)),
            cluster_ips6: ClusterIpsV6::new(section(layout.cluster_ips6, layout.map)),
            context: Context::new(section(layout.context, layout.v4.slots)),
            names: section(layout.names, layout.end),
            id: ContentId(header.id),
            bytes,
        }
    }

    /// Checks each record, and the map against where they start. Returns their number.
    fn check_records(&self, map: &[u8]) -> Result<usize, ProgramError> {
        let mut entries = map.iter();
        let mut pages = map::Pages::new(|entry| entries.next().is_some_and(|&e| e == entry).then_some(()));
        let mut records: usize = 0;
        let mut r = Reader(self.records);
        while !r.is_empty() {
            let offset = self.offset_of(&r);
            let is_sound = Shape::read(&mut r, self.form).is_some_and(|shape| shape.is_valid());
            if !is_sound || pages.start(offset).is_none() {
                return Err(ProgramError::Record);
            }
            records = records.saturating_add(1);
        }
        pages.end(count(self.records.len())).ok_or(ProgramError::Record)?;
        Ok(records)
    }

    fn check_names(&self, records: usize) -> Result<(), ProgramError> {
        if !self.names.is_empty() {
            let (_, mut names) = Names::new(self.names).ok_or(ProgramError::Names)?;
            if names.by_ref().take(records).count() != records || !names.is_empty() {
                return Err(ProgramError::Names);
            }
        }
        Ok(())
    }

    fn check_indices(&self, map: &[u8]) -> Result<(), ProgramError> {
        let is_sound = |slot: &Slot| {
            map::is_start(map, self.records, self.form, slot.record)
                && self.record(slot.record).is_v6() == slot.address.is_ipv6()
                && (slot.kind != FrontendKind::ClusterIp || self.is_cluster_ip(slot.address))
        };
        if self.v4.is_valid(is_sound) && self.v6.is_valid(is_sound) { Ok(()) } else { Err(ProgramError::Index) }
    }

    /// The table's id.
    pub fn content_id(&self) -> ContentId {
        self.id
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
        Names::new(self.names).map_or("", |(node, _)| node)
    }

    /// Services in both families, in the order of their names.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let program = *self;
        let mut r = Reader(self.records);
        core::iter::from_fn(move || {
            let offset = program.offset_of(&r);
            Shape::read(&mut r, program.form)?;
            Some(program.record(offset))
        })
    }

    /// Services with their names; the name is `None` where names are stripped.
    pub fn services(&self) -> impl Iterator<Item = (Record<'a>, Option<Name<'a>>)> + use<'a> {
        let mut names = Names::new(self.names).map(|(_, names)| names);
        self.records().map(move |record| (record, names.as_mut().and_then(Iterator::next)))
    }

    /// The name of a service; `None` where names are stripped. Walks the services before it.
    pub fn name_of(&self, record: &Record<'_>) -> Option<Name<'a>> {
        self.services().find(|(r, _)| r.offset() == record.offset()).and_then(|(_, name)| name)
    }

    /// All frontends, IPv4 before IPv6, in no useful order within a family.
    pub fn frontends(&self) -> impl Iterator<Item = ProgramFrontend<'a>> + use<'a> {
        let program = *self;
        self.v4.slots().chain(self.v6.slots()).map(move |slot| program.frontend_of(slot))
    }

    /// The frontends of those records whose offset is wanted, as [`Program::frontends`] has them; the others are passed over
    /// without being decoded.
    pub fn frontends_of(&self, wanted: impl Fn(u32) -> bool + Copy) -> impl Iterator<Item = ProgramFrontend<'a>> {
        let program = *self;
        self.v4.slots_of(wanted).chain(self.v6.slots_of(wanted)).map(move |slot| program.frontend_of(slot))
    }

    fn frontend_of(&self, slot: Slot) -> ProgramFrontend<'a> {
        let Slot { address, protocol, port, kind, record } = slot;
        ProgramFrontend { kind, address, protocol, port, record: self.record(record) }
    }

    /// Whether a family has frontends.
    pub fn has_frontends(&self, v6: bool) -> bool {
        (if v6 { self.v6.frontends() } else { self.v4.frontends() }) != 0
    }

    /// Number of frontends in both families.
    pub fn frontend_count(&self) -> u32 {
        self.v4.frontends().saturating_add(self.v6.frontends())
    }

    /// The frontend with exactly this address, protocol and port: a ClusterIP, load-balancer or external IP.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call would pass the result through memory: twice the instructions")]
    pub fn find(&self, address: IpAddr, protocol: Protocol, port: u16) -> Option<ProgramFrontend<'a>> {
        let rest = slot::rest_of_key(protocol, port);
        let hit = match address {
            IpAddr::V4(a) => self.v4.find(u64::from(a.to_bits()) << slot::ADDRESS_SHIFT | rest),
            IpAddr::V6(a) => self.v6.find(a, rest),
        };
        self.frontend(hit, address, protocol, port)
    }

    /// As [`Program::find`], of a key that was made before.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call would pass the result through memory: twice the instructions")]
    pub fn find_v4(&self, key: KeyV4) -> Option<ProgramFrontend<'a>> {
        let (address, protocol, port) = key.parts();
        self.frontend(self.v4.find(key.0), IpAddr::V4(address), protocol, port)
    }

    /// The NodePort frontend with this protocol and port, in the family of `address`.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call would pass the result through memory: twice the instructions")]
    pub fn find_node_port(&self, address: IpAddr, protocol: Protocol, port: u16) -> Option<ProgramFrontend<'a>> {
        let rest = slot::rest_of_node_port(protocol, port);
        let (hit, address) = match address {
            IpAddr::V4(_) => (self.v4.find_node_port(rest), IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED)),
            IpAddr::V6(_) => (self.v6.find(Ipv6Addr::UNSPECIFIED, rest), IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        };
        self.frontend(hit, address, protocol, port)
    }

    /// Whether the address is some service's ClusterIP.
    pub fn is_cluster_ip(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => self.cluster_ips4.contains(a.to_bits()),
            IpAddr::V6(a) => self.cluster_ips6.contains(a),
        }
    }

    /// Distinct ClusterIPs, IPv4 before IPv6, ascending.
    pub fn cluster_ips(&self) -> impl Iterator<Item = IpAddr> + use<'a> {
        self.cluster_ips4.iter().map(IpAddr::V4).chain(self.cluster_ips6.iter().map(IpAddr::V6))
    }

    /// Whether a prefix of one of the node's lists holds the address.
    pub(crate) fn any_contains(mut cidrs: impl Iterator<Item = Cidr>, address: IpAddr) -> bool {
        cidrs.any(|c| c.contains(address))
    }

    #[inline]
    fn frontend(
        &self,
        hit: Option<Hit>,
        address: IpAddr,
        protocol: Protocol,
        port: u16,
    ) -> Option<ProgramFrontend<'a>> {
        let Hit { kind, record } = hit?;
        Some(ProgramFrontend { kind, address, protocol, port, record: self.record(record) })
    }

    #[inline]
    fn record(&self, offset: u32) -> Record<'a> {
        Record::new(self.records, offset, self.form)
    }

    /// Where a walk through the records is.
    fn offset_of(&self, r: &Reader<'_>) -> u32 {
        count(self.records.len().saturating_sub(r.0.len()))
    }
}

impl fmt::Debug for Program<'_> {
    /// What it is; its bytes are for other tools.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Program");
        f.field("content_id", &self.id).field("len", &self.bytes.len());
        f.field("frontends", &self.frontend_count()).field("context", &self.context).finish_non_exhaustive()
    }
}

/// Where the sections of a program lie, which end where its bytes do.
fn layout_of(bytes: &[u8], header: &Header) -> Result<Layout, ProgramError> {
    let layout = Layout::of(header).ok_or(ProgramError::Truncated)?;
    match bytes.len().cmp(&layout.end) {
        Ordering::Less => Err(ProgramError::Truncated),
        Ordering::Equal => Ok(layout),
        Ordering::Greater => Err(ProgramError::TrailingBytes),
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

/// Version, flags and bases lie before the checksum; they seed it, so that it covers them too.
fn head_seed(bytes: &[u8]) -> u64 {
    match bytes.get(4..8) {
        Some(&[version, flags, base, base_e]) => u64::from(u32::from_le_bytes([version, flags, base, base_e])),
        _ => 0,
    }
}
