//! A service record: policies, endpoints and what else decides about a service's packets in one family.
//!
//! Most records are *plain*: a byte with the number of endpoints (up to 31), whether their ports differ and the family, then
//! the endpoints. Any other has a byte of flags, the number of endpoints (16 bits if `WIDE`), with a Local policy the
//! lengths of the Cluster and the Local list, the endpoints, and with `EXTRA` a 16-bit length and that many bytes of
//! type-length-value entries. The endpoints are their shared port, unless there are none or `PORTS`; the addresses; with
//! `PORTS` a port each. They are ordered so that the Cluster list is the first `cluster` of them and the Local list the last
//! `local`: endpoints of both lie in the overlap and are stored once.

use super::endpoints::EndpointList;
use super::map::record_len;
use crate::bytes::{Reader, index};
use crate::table::{Choice, Cidr, Policy};
use core::net::IpAddr;

/// Set in a record that is not plain; the bits below are its flags.
pub(crate) const FULL: u8 = 128;
pub(crate) const WIDE: u8 = 1;
pub(crate) const PORTS: u8 = 2;
pub(crate) const V6: u8 = 4;
pub(crate) const INTERNAL_LOCAL: u8 = 8;
pub(crate) const EXTERNAL_LOCAL: u8 = 16;
pub(crate) const EXTRA: u8 = 32;
/// Some endpoint somewhere is usable: what is not reachable from here is dropped, not rejected.
pub(crate) const ANY: u8 = 64;

/// The endpoints' ports differ, in a plain record.
pub(crate) const PLAIN_PORTS: u8 = 32;
/// The IPv6 family, in a plain record.
pub(crate) const PLAIN_V6: u8 = 64;
/// Most endpoints of a plain record.
pub(crate) const PLAIN_MAX: u8 = 31;

pub(crate) const EXTRA_AFFINITY: u8 = 1;
pub(crate) const EXTRA_SOURCE_HASH: u8 = 2;
pub(crate) const EXTRA_WEIGHTS: u8 = 3;
pub(crate) const EXTRA_SOURCE_RANGES: u8 = 4;
pub(crate) const EXTRA_HEALTH_CHECK: u8 = 5;

/// How IPv4 endpoint addresses are stored in a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressForm {
    /// Bytes of an address less the last: 2 or 3.
    before_last: u8,
    /// First octet of all addresses where three are stored; else 0.
    base: u8,
}

impl AddressForm {
    /// `base`: the first octet of all addresses, where they share one.
    pub const fn new(base: Option<u8>) -> Self {
        match base {
            Some(base) => Self { before_last: 2, base },
            None => Self { before_last: 3, base: 0 },
        }
    }

    /// Bytes of an address: 3 or 4.
    pub const fn width(self) -> u8 {
        self.before_last.saturating_add(1)
    }

    /// Where the address of this number ends, from where the first starts.
    #[inline]
    pub fn end_of(self, i: u32) -> usize {
        let width = usize::from(self.width());
        index(i).wrapping_mul(width).wrapping_add(width)
    }

    /// The address whose last byte is the last of these four.
    #[inline]
    pub const fn address(self, bytes: [u8; 4]) -> u32 {
        let stored = if self.before_last == 2 { 0x00ff_ffff } else { u32::MAX };
        u32::from_be_bytes(bytes) & stored | (self.base as u32) << 24
    }
}

/// A service in one address family. The data is borrowed from the program and decoded when it is asked for.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    records: &'a [u8],
    offset: u32,
    form: AddressForm,
}

/// What a record's bytes say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape<'a> {
    /// The flags of a record that is not plain, or what would be those of a plain one.
    pub flags: u8,
    pub is_full: bool,
    pub total: u16,
    pub cluster: u16,
    pub local: u16,
    /// 0 if the ports differ.
    pub shared_port: u16,
    pub addresses: &'a [u8],
    pub ports: &'a [u8],
    pub extra: &'a [u8],
}

impl<'a> Shape<'a> {
    /// The record at an offset of its section. One of a checked program is sound; were it not, it would be empty.
    pub fn at(records: &'a [u8], offset: u32, form: AddressForm) -> Self {
        let bytes = records.get(index(offset)..).unwrap_or(&[]);
        Self::read(&mut Reader(bytes), form).unwrap_or(Self {
            flags: 0,
            is_full: false,
            total: 0,
            cluster: 0,
            local: 0,
            shared_port: 0,
            addresses: &[],
            ports: &[],
            extra: &[],
        })
    }

    /// Reads the record at the front of `r`. `None` if it is cut short.
    pub fn read(r: &mut Reader<'a>, form: AddressForm) -> Option<Self> {
        let first = r.u8()?;
        let is_full = first & FULL != 0;
        let (flags, total) = if is_full {
            let flags = first & !FULL;
            (flags, if flags & WIDE != 0 { r.u16()? } else { r.u8()?.into() })
        } else {
            (plain_flags(first), (first & PLAIN_MAX).into())
        };
        let (mut cluster, mut local) = (total, 0);
        if flags & (INTERNAL_LOCAL | EXTERNAL_LOCAL) != 0 {
            let mut count = || if flags & WIDE != 0 { r.u16() } else { r.u8().map(u16::from) };
            (cluster, local) = (count()?, count()?);
        }
        let shared_port = if flags & PORTS == 0 && total != 0 { r.u16()? } else { 0 };
        let width: u8 = if flags & V6 != 0 { 16 } else { form.width() };
        let addresses = r.take(usize::from(total).checked_mul(width.into())?)?;
        let ports = if flags & PORTS != 0 { r.take(usize::from(total).checked_mul(2)?)? } else { &[] };
        let extra = if flags & EXTRA != 0 {
            let len = r.u16()?;
            r.take(len.into())?
        } else {
            &[]
        };
        Some(Self { flags, is_full, total, cluster, local, shared_port, addresses, ports, extra })
    }

    pub fn is_v6(&self) -> bool {
        self.flags & V6 != 0
    }

    /// Whether all that [`Shape::read`] does not look at is as the compiler writes it.
    pub fn is_valid(&self) -> bool {
        let has = |flag| self.flags & flag != 0;
        let union = u32::from(self.cluster).saturating_add(self.local.into());
        let lists = self.cluster <= self.total && self.local <= self.total && union >= self.total.into();
        let is_plain = self.total <= PLAIN_MAX.into()
            && !has(INTERNAL_LOCAL | EXTERNAL_LOCAL | EXTRA)
            && has(ANY) == (self.total != 0);
        let counts = (self.total == 0 || has(ANY))
            && (self.total != 0 || !has(PORTS))
            && has(WIDE) == (self.total > u8::MAX.into())
            && self.is_full != is_plain;
        let ports = if self.total != 0 && !has(PORTS) {
            self.shared_port != 0
        } else {
            self.ports.as_chunks::<2>().0.iter().all(|&p| p != [0, 0])
        };
        lists && counts && ports && self.extra_is_valid()
    }

    fn extra_is_valid(&self) -> bool {
        let mut r = Reader(self.extra);
        let mut last = 0;
        while !r.is_empty() {
            let Some((kind, body)) = read_extra(&mut r) else { return false };
            if kind <= last {
                return false;
            }
            last = kind;
            let weights = || body.as_chunks::<2>().0.iter().map(|&w| u32::from(u16::from_le_bytes(w)));
            let ok = match kind {
                EXTRA_AFFINITY => body.len() == 4 && body != [0; 4],
                EXTRA_SOURCE_HASH => body.is_empty(),
                EXTRA_WEIGHTS => {
                    body.len() == usize::from(self.total).saturating_mul(2)
                        && weights().all(|w| w != 0)
                        && weights().fold(0, u32::saturating_add) <= u16::MAX.into()
                }
                EXTRA_SOURCE_RANGES => {
                    let width = if self.is_v6() { 17 } else { 5 };
                    !body.is_empty()
                        && body.len().is_multiple_of(width)
                        && body.chunks_exact(width).all(|c| read_range(c).is_some())
                }
                EXTRA_HEALTH_CHECK => body.len() == 2 && body != [0; 2],
                _ => false,
            };
            if !ok {
                return false;
            }
        }
        (self.flags & EXTRA != 0) == (last != 0)
    }

    pub fn extra(&self, wanted: u8) -> Option<&'a [u8]> {
        let mut r = Reader(self.extra);
        while let Some((kind, body)) = read_extra(&mut r) {
            if kind == wanted {
                return Some(body);
            }
        }
        None
    }
}

impl<'a> Record<'a> {
    /// The record at an offset of its section, which is not looked at.
    #[inline]
    pub(crate) const fn new(records: &'a [u8], offset: u32, form: AddressForm) -> Self {
        Self { records, offset, form }
    }

    pub(crate) fn shape(&self) -> Shape<'a> {
        Shape::at(self.records, self.offset, self.form)
    }

    /// Its first byte.
    #[inline]
    pub(super) fn first(&self) -> u8 {
        self.records.get(index(self.offset)).copied().unwrap_or(0)
    }

    #[inline]
    fn flags(&self) -> u8 {
        let first = self.first();
        if first & FULL == 0 { plain_flags(first) } else { first & !FULL }
    }

    #[inline]
    fn extra(&self, wanted: u8) -> Option<&'a [u8]> {
        if self.first() & (FULL | EXTRA) == FULL | EXTRA { self.shape().extra(wanted) } else { None }
    }

    /// Whether a record, of this or another program, says the same in the same bytes: policies, endpoints and all else but
    /// name and frontends.
    pub fn is_same(&self, other: &Record<'_>) -> bool {
        self.form == other.form && self.own_bytes() == other.own_bytes()
    }

    fn own_bytes(&self) -> &'a [u8] {
        let bytes = self.records.get(index(self.offset)..).unwrap_or(&[]);
        record_len(bytes, self.form, 0).and_then(|len| bytes.get(..index(len))).unwrap_or(&[])
    }

    /// Its section, where it starts in there, and how its addresses are stored.
    #[inline]
    pub(super) fn place(&self) -> (&'a [u8], usize, AddressForm) {
        (self.records, index(self.offset), self.form)
    }

    /// How its addresses are stored, if they are of IPv4.
    pub(super) const fn form(&self) -> AddressForm {
        self.form
    }

    /// Where the record lies in its section: the service's identity within this program.
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// Whether it is of the IPv6 family.
    pub fn is_v6(&self) -> bool {
        self.flags() & V6 != 0
    }

    /// `internalTrafficPolicy`; Cluster where the service has no ClusterIP in this family.
    #[inline]
    pub fn internal_policy(&self) -> Policy {
        if self.flags() & INTERNAL_LOCAL != 0 { Policy::Local } else { Policy::Cluster }
    }

    /// `externalTrafficPolicy`; Cluster where the service has no external frontend in this family.
    #[inline]
    pub fn external_policy(&self) -> Policy {
        if self.flags() & EXTERNAL_LOCAL != 0 { Policy::Local } else { Policy::Cluster }
    }

    /// Whether some endpoint is usable, here or elsewhere.
    #[inline]
    pub fn any_usable(&self) -> bool {
        self.flags() & ANY != 0
    }

    /// Endpoints for Cluster traffic.
    #[inline]
    pub fn cluster(&self) -> EndpointList<'a> {
        EndpointList::cluster_of(*self)
    }

    /// Endpoints for Local traffic; empty where no policy is Local.
    pub fn local(&self) -> EndpointList<'a> {
        let shape = self.shape();
        let len = shape.local.min(shape.total);
        EndpointList::of_any(*self, shape.total.saturating_sub(len), len)
    }

    /// Every endpoint of either list, once.
    pub fn endpoints(&self) -> EndpointList<'a> {
        EndpointList::of_any(*self, 0, self.shape().total)
    }

    /// Session affinity's timeout in seconds; `None` without affinity.
    #[inline]
    pub fn affinity_timeout(&self) -> Option<u32> {
        let body = self.extra(EXTRA_AFFINITY)?;
        body.first_chunk().map(|b| u32::from_le_bytes(*b))
    }

    /// How an endpoint is chosen.
    #[inline]
    pub fn choice(&self) -> Choice {
        if self.extra(EXTRA_SOURCE_HASH).is_some() { Choice::SourceHash } else { Choice::Random }
    }

    /// Sources that may use the service's load-balancer addresses; `None`: all.
    #[inline]
    pub fn source_ranges(&self) -> Option<impl Iterator<Item = Cidr> + 'a> {
        let body = self.extra(EXTRA_SOURCE_RANGES)?;
        let width = if self.is_v6() { 17 } else { 5 };
        Some(body.chunks_exact(width).filter_map(read_range))
    }

    /// `healthCheckNodePort`; `None` for none.
    pub fn health_check_node_port(&self) -> Option<u16> {
        self.extra(EXTRA_HEALTH_CHECK)?.first_chunk().map(|b| u16::from_le_bytes(*b))
    }
}

impl core::fmt::Debug for Record<'_> {
    /// Its place and what its bytes say; not the whole section.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Record").field("offset", &self.offset).field("shape", &self.shape()).finish()
    }
}

impl PartialEq for Record<'_> {
    /// Two records of one program are the same if they lie in the same place.
    fn eq(&self, other: &Self) -> bool {
        self.offset == other.offset
    }
}

impl Eq for Record<'_> {}

/// What a plain record's first byte would be as flags.
#[inline]
const fn plain_flags(first: u8) -> u8 {
    let ports = if first & PLAIN_PORTS != 0 { PORTS } else { 0 };
    let v6 = if first & PLAIN_V6 != 0 { V6 } else { 0 };
    let any = if first & PLAIN_MAX != 0 { ANY } else { 0 };
    ports | v6 | any
}

/// Bytes of a plain record, which its first says.
pub(crate) fn plain_len(first: u8, form: AddressForm) -> Option<u32> {
    if first & FULL != 0 {
        return None;
    }
    let total = u32::from(first & PLAIN_MAX);
    let width = if first & PLAIN_V6 != 0 { 16 } else { u32::from(form.width()) };
    let ports = if first & PLAIN_PORTS != 0 { total } else { total.min(1) };
    Some(total.wrapping_mul(width).wrapping_add(ports.wrapping_mul(2)).wrapping_add(1))
}

fn read_extra<'a>(r: &mut Reader<'a>) -> Option<(u8, &'a [u8])> {
    let kind = r.u8()?;
    let len = r.u16()?;
    Some((kind, r.take(len.into())?))
}

fn read_range(bytes: &[u8]) -> Option<Cidr> {
    let (prefix, address) = bytes.split_first()?;
    let address = match address.first_chunk::<16>() {
        Some(a) => IpAddr::from(*a),
        None => IpAddr::from(*address.first_chunk::<4>()?),
    };
    Cidr::new(address, *prefix)
}
