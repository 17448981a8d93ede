//! A service record: policies, endpoints and what else decides about a service's packets in one family.
//!
//! Layout: flags; number of endpoints, and where the lists differ the lengths of the Cluster and the Local list (a byte
//! each, 16 bits if `WIDE`); the shared target port (absent without endpoints or with `PORTS`); the addresses; with
//! `PORTS` a port each; with `EXTRA` a 16-bit length and that many bytes of type-length-value entries. The endpoints are
//! ordered so that the Cluster list is the first `cluster` of them and the Local list the last `local`: endpoints of both
//! lie in the overlap and are stored once.

use crate::bytes::{Reader, index, scale};
use crate::jhash::source_hash;
use crate::table::{Choice, Cidr, Policy};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

pub(crate) const WIDE: u8 = 1;
pub(crate) const SPLIT: u8 = 2;
pub(crate) const PORTS: u8 = 4;
pub(crate) const V6: u8 = 8;
pub(crate) const INTERNAL_LOCAL: u8 = 16;
pub(crate) const EXTERNAL_LOCAL: u8 = 32;
pub(crate) const EXTRA: u8 = 64;
/// Some endpoint somewhere is usable: what is not reachable from here is dropped, not rejected.
pub(crate) const ANY: u8 = 128;

pub(crate) const EXTRA_AFFINITY: u8 = 1;
pub(crate) const EXTRA_SOURCE_HASH: u8 = 2;
pub(crate) const EXTRA_WEIGHTS: u8 = 3;
pub(crate) const EXTRA_SOURCE_RANGES: u8 = 4;
pub(crate) const EXTRA_HEALTH_CHECK: u8 = 5;

/// How IPv4 endpoint addresses are stored in a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AddressForm {
    /// First octet of all addresses where three are stored; `None` where all four are.
    pub base: Option<u8>,
}

/// A service in one address family. The data is borrowed from the program.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    offset: u32,
    flags: u8,
    total: u16,
    cluster: u16,
    local: u16,
    shared_port: u16,
    form: AddressForm,
    addresses: &'a [u8],
    ports: &'a [u8],
    weights: &'a [u8],
    extra: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads the record at the front of `r`. `None` if it is malformed.
    pub(crate) fn read(r: &mut Reader<'a>, offset: u32, form: AddressForm) -> Option<Self> {
        let flags = r.u8()?;
        let total = read_count(r, flags)?;
        let (cluster, local) =
            if flags & SPLIT != 0 { (read_count(r, flags)?, read_count(r, flags)?) } else { (total, 0) };
        let shared = flags & PORTS == 0 && total != 0;
        let shared_port = if shared { r.u16()? } else { 0 };
        let width = if flags & V6 != 0 { 16 } else { form.width() };
        let addresses = r.take(usize::from(total).checked_mul(width)?)?;
        let ports = if flags & PORTS != 0 { r.take(usize::from(total).checked_mul(2)?)? } else { &[] };
        let extra = if flags & EXTRA != 0 {
            let len = r.u16()?;
            r.take(len.into())?
        } else {
            &[]
        };
        let mut record =
            Self { offset, flags, total, cluster, local, shared_port, form, addresses, ports, weights: &[], extra };
        record.weights = record.extra(EXTRA_WEIGHTS).unwrap_or(&[]);
        Some(record)
    }

    /// Whether all that [`Record::read`] does not look at is as the compiler writes it.
    pub(crate) fn is_valid(&self) -> bool {
        let has = |flag| self.flags & flag != 0;
        let union = u32::from(self.cluster).saturating_add(self.local.into());
        let split = self.cluster != self.total || self.local != 0 || has(ANY) != (self.total != 0);
        let lists =
            has(SPLIT) == split && self.cluster <= self.total && self.local <= self.total && union >= self.total.into();
        let counts = (self.total == 0 || has(ANY))
            && (self.total != 0 || !has(PORTS))
            && has(WIDE) == (self.total > u8::MAX.into());
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

    fn extra(&self, wanted: u8) -> Option<&'a [u8]> {
        let mut r = Reader(self.extra);
        while let Some((kind, body)) = read_extra(&mut r) {
            if kind == wanted {
                return Some(body);
            }
        }
        None
    }

    /// Where the record lies in its section: the service's identity within this program.
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// Whether it is of the IPv6 family.
    pub fn is_v6(&self) -> bool {
        self.flags & V6 != 0
    }

    /// `internalTrafficPolicy`; Cluster where the service has no ClusterIP in this family.
    pub fn internal_policy(&self) -> Policy {
        if self.flags & INTERNAL_LOCAL != 0 { Policy::Local } else { Policy::Cluster }
    }

    /// `externalTrafficPolicy`; Cluster where the service has no external frontend in this family.
    pub fn external_policy(&self) -> Policy {
        if self.flags & EXTERNAL_LOCAL != 0 { Policy::Local } else { Policy::Cluster }
    }

    /// Whether some endpoint is usable, here or elsewhere.
    pub fn any_usable(&self) -> bool {
        self.flags & ANY != 0
    }

    /// Endpoints for Cluster traffic.
    pub fn cluster(&self) -> EndpointList<'a> {
        EndpointList { record: *self, first: 0, len: self.cluster.min(self.total) }
    }

    /// Endpoints for Local traffic; empty where no policy is Local.
    pub fn local(&self) -> EndpointList<'a> {
        let len = self.local.min(self.total);
        EndpointList { record: *self, first: self.total.saturating_sub(len), len }
    }

    /// Every endpoint of either list, once.
    pub fn endpoints(&self) -> EndpointList<'a> {
        EndpointList { record: *self, first: 0, len: self.total }
    }

    /// Session affinity's timeout in seconds; `None` without affinity.
    pub fn affinity_timeout(&self) -> Option<u32> {
        let body = self.extra(EXTRA_AFFINITY)?;
        body.first_chunk().map(|b| u32::from_le_bytes(*b))
    }

    /// How an endpoint is chosen.
    pub fn choice(&self) -> Choice {
        if self.extra(EXTRA_SOURCE_HASH).is_some() { Choice::SourceHash } else { Choice::Random }
    }

    /// Sources that may use the service's load-balancer addresses; `None`: all.
    pub fn source_ranges(&self) -> Option<impl Iterator<Item = Cidr> + 'a> {
        let width = if self.is_v6() { 17 } else { 5 };
        self.extra(EXTRA_SOURCE_RANGES).map(|body| body.chunks_exact(width).filter_map(read_range))
    }

    /// `healthCheckNodePort`; `None` for none.
    pub fn health_check_node_port(&self) -> Option<u16> {
        self.extra(EXTRA_HEALTH_CHECK)?.first_chunk().map(|b| u16::from_le_bytes(*b))
    }

    fn endpoint(&self, i: u16) -> Option<RecordEndpoint> {
        if i >= self.total {
            return None;
        }
        let i = usize::from(i);
        let address: IpAddr = if self.is_v6() {
            IpAddr::from(*self.addresses.as_chunks::<16>().0.get(i)?)
        } else if let Some(base) = self.form.base {
            let [b, c, d] = *self.addresses.as_chunks::<3>().0.get(i)?;
            IpAddr::V4(Ipv4Addr::new(base, b, c, d))
        } else {
            IpAddr::from(*self.addresses.as_chunks::<4>().0.get(i)?)
        };
        let port = self.ports.as_chunks::<2>().0.get(i).map_or(self.shared_port, |&p| u16::from_le_bytes(p));
        Some(RecordEndpoint { address: SocketAddr::new(address, port), weight: self.weight(i) })
    }

    fn weight(&self, i: usize) -> u16 {
        self.weights.as_chunks::<2>().0.get(i).map_or(1, |&w| u16::from_le_bytes(w))
    }
}

impl PartialEq for Record<'_> {
    /// Two records of one program are the same if they lie in the same place.
    fn eq(&self, other: &Self) -> bool {
        self.offset == other.offset
    }
}

impl Eq for Record<'_> {}

impl AddressForm {
    pub const fn width(self) -> usize {
        if self.base.is_some() { 3 } else { 4 }
    }
}

fn read_count(r: &mut Reader<'_>, flags: u8) -> Option<u16> {
    if flags & WIDE != 0 { r.u16() } else { r.u8().map(u16::from) }
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

/// An endpoint of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordEndpoint {
    /// Address and port.
    pub address: SocketAddr,
    /// Share of new connections.
    pub weight: u16,
}

/// A list of endpoints of one record.
#[derive(Clone, Copy, Debug)]
pub struct EndpointList<'a> {
    record: Record<'a>,
    first: u16,
    len: u16,
}

impl<'a> EndpointList<'a> {
    /// Number of endpoints.
    pub fn len(&self) -> usize {
        self.len.into()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The endpoint with this position in the list.
    pub fn get(&self, i: usize) -> Option<RecordEndpoint> {
        let i = u16::try_from(i).ok().filter(|i| *i < self.len)?;
        self.record.endpoint(self.first.checked_add(i)?)
    }

    /// All endpoints, sorted by address and port within those of both lists and those of one.
    pub fn iter(&self) -> impl Iterator<Item = RecordEndpoint> + use<'a> {
        let list = *self;
        (0..list.len()).map_while(move |i| list.get(i))
    }

    /// Sum of the weights, which is the number of slots that a uniform draw chooses from.
    pub fn slots(&self) -> u32 {
        if self.record.weights.is_empty() {
            return self.len.into();
        }
        (0..self.len()).fold(0, |sum, i| {
            let i = usize::from(self.first).saturating_add(i);
            u32::saturating_add(sum, self.record.weight(i).into())
        })
    }

    /// The endpoint of a slot, `0..slots()`: each endpoint has as many slots in a row as its weight.
    pub fn slot(&self, slot: u32) -> Option<RecordEndpoint> {
        if self.record.weights.is_empty() {
            return self.get(index(slot));
        }
        let mut left = slot;
        for endpoint in self.iter() {
            match left.checked_sub(endpoint.weight.into()) {
                Some(rest) => left = rest,
                None => return Some(endpoint),
            }
        }
        None
    }

    /// The endpoint that uniform 32 bits draw, scaled as the kernel's `numgen random mod slots()` scales them.
    pub fn draw(&self, random: u32) -> Option<RecordEndpoint> {
        self.slot(scale(random, self.slots()))
    }

    /// The endpoint that a source gets under [`Choice::SourceHash`]: the one that the kernel's rules choose.
    pub fn hashed(&self, source: IpAddr) -> Option<RecordEndpoint> {
        self.slot(scale(source_hash(source), self.slots()))
    }
}
