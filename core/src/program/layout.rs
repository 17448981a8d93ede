//! The header and what follows from it: where each section of a program lies.

use crate::ProgramError;
use crate::bytes::{Reader, Writer, index};

/// First bytes of every program.
pub const MAGIC: [u8; 4] = *b"NATP";
/// Format version that this crate writes and reads.
pub const VERSION: u8 = 1;

/// Length of the header without its IPv6 part, in bytes.
pub(crate) const HEADER: usize = 48;
/// Length of the header's IPv6 part.
pub(crate) const HEADER6: usize = 9;
/// First byte that the checksum covers.
pub(crate) const CHECKED_FROM: usize = 12;
/// Where the content id lies.
pub(crate) const ID: core::ops::Range<usize> = 12..28;
/// Where the checksum lies.
pub(crate) const CHECKSUM: core::ops::Range<usize> = 8..12;
/// Largest number of frontends of a family that are kept sorted, without pilots.
pub(crate) const SORTED_MAX: u32 = 16;

pub(crate) const FLAG_NAMES: u8 = 1;
pub(crate) const FLAG_SHORT_FRONTENDS: u8 = 2;
pub(crate) const FLAG_SHORT_ENDPOINTS: u8 = 4;
pub(crate) const FLAG_V6: u8 = 8;
const FLAGS_KNOWN: u8 = FLAG_NAMES | FLAG_SHORT_FRONTENDS | FLAG_SHORT_ENDPOINTS | FLAG_V6;

/// The part of the header that describes one family's frontend index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IndexHeader {
    /// Number of the hash seed, 0..=15.
    pub seed: u8,
    /// Load class, 0..=3: how many more slots than frontends there are.
    pub load: u8,
    /// Frontends.
    pub frontends: u32,
    /// Distinct ClusterIPs.
    pub cluster_ips: u32,
}

impl IndexHeader {
    /// Number of pilots.
    pub fn pilots(&self) -> u32 {
        if self.frontends <= SORTED_MAX { 0 } else { (self.frontends / 3).saturating_add(1) }
    }

    /// Number of slots, a few of them empty where there are pilots.
    pub fn slots(&self) -> u32 {
        if self.frontends <= SORTED_MAX {
            return self.frontends;
        }
        let spare = match self.load {
            0 => self.frontends / 100,
            1 => self.frontends / 20,
            2 => self.frontends / 10,
            _ => self.frontends / 3,
        };
        self.frontends.saturating_add(spare).saturating_add(1)
    }
}

/// A decoded header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub flags: u8,
    /// Bytes behind a slot's address: protocol, kind and record offset.
    pub tail: u8,
    pub checksum: u32,
    pub id: [u8; 16],
    pub v4: IndexHeader,
    pub v6: IndexHeader,
    pub records: u32,
    pub names: u32,
    pub context: u16,
    pub base_frontends: u8,
    pub base_endpoints: u8,
}

impl Header {
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Bytes of an IPv4 frontend address in slots and ClusterIPs.
    pub const fn frontend_width(&self) -> usize {
        if self.has(FLAG_SHORT_FRONTENDS) { 3 } else { 4 }
    }

    pub fn write(&self, out: &mut Writer<'_>) -> Option<()> {
        out.put(&MAGIC)?;
        out.u8(VERSION)?;
        out.u8(self.flags)?;
        out.u8(self.tail)?;
        out.u8(self.v4.seed | (self.v4.load << 4))?;
        out.u32(self.checksum)?;
        out.put(&self.id)?;
        out.u32(self.v4.frontends)?;
        out.u32(self.v4.cluster_ips)?;
        out.u32(self.records)?;
        out.u32(self.names)?;
        out.u16(self.context)?;
        out.u8(self.base_frontends)?;
        out.u8(self.base_endpoints)?;
        if self.has(FLAG_V6) {
            out.u8(self.v6.seed | (self.v6.load << 4))?;
            out.u32(self.v6.frontends)?;
            out.u32(self.v6.cluster_ips)?;
        }
        Some(())
    }

    pub fn read(bytes: &[u8]) -> Result<Self, ProgramError> {
        let mut r = Reader(bytes);
        let magic = r.array::<4>().ok_or(ProgramError::Magic)?;
        if magic != MAGIC {
            return Err(ProgramError::Magic);
        }
        let version = r.u8().ok_or(ProgramError::Truncated)?;
        if version != VERSION {
            return Err(ProgramError::Version(version));
        }
        let header = Self::read_fields(&mut r).ok_or(ProgramError::Truncated)?;
        let known = header.flags & !FLAGS_KNOWN == 0
            && (2..=4).contains(&header.tail)
            && header.v4.is_canonical()
            && header.v6.is_canonical()
            && header.has(FLAG_NAMES) == (header.names != 0)
            && header.has(FLAG_V6) == (header.v6.frontends != 0)
            && (header.has(FLAG_SHORT_FRONTENDS) || header.base_frontends == 0)
            && (header.has(FLAG_SHORT_ENDPOINTS) || header.base_endpoints == 0);
        if known { Ok(header) } else { Err(ProgramError::Header) }
    }

    fn read_fields(r: &mut Reader<'_>) -> Option<Self> {
        let flags = r.u8()?;
        let tail = r.u8()?;
        let index4 = r.u8()?;
        let mut header = Self {
            flags,
            tail,
            checksum: r.u32()?,
            id: r.array()?,
            v4: IndexHeader { seed: index4 & 15, load: index4 >> 4, frontends: r.u32()?, cluster_ips: r.u32()? },
            v6: IndexHeader::default(),
            records: r.u32()?,
            names: r.u32()?,
            context: r.u16()?,
            base_frontends: r.u8()?,
            base_endpoints: r.u8()?,
        };
        if header.has(FLAG_V6) {
            let index6 = r.u8()?;
            header.v6 =
                IndexHeader { seed: index6 & 15, load: index6 >> 4, frontends: r.u32()?, cluster_ips: r.u32()? };
        }
        Some(header)
    }
}

impl IndexHeader {
    fn is_canonical(&self) -> bool {
        self.load <= 3
            && self.cluster_ips <= self.frontends
            && (self.frontends > SORTED_MAX || (self.seed == 0 && self.load == 0))
    }
}

/// Where a family's index lies.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IndexSections {
    pub pilots: usize,
    pub slots: usize,
    pub cluster_ips: usize,
}

/// Offsets of all sections, in bytes from the program's start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Layout {
    pub context: usize,
    pub v4: IndexSections,
    pub v6: IndexSections,
    pub records: usize,
    pub names: usize,
    pub end: usize,
}

impl Layout {
    /// `None` where a length overflows.
    pub fn of(header: &Header) -> Option<Self> {
        let tail = usize::from(header.tail);
        let width4 = header.frontend_width();
        let mut at = Offset(if header.has(FLAG_V6) { HEADER.checked_add(HEADER6)? } else { HEADER });
        let context = at.skip(1, usize::from(header.context))?;
        let v4 = IndexSections {
            pilots: at.skip(1, index(header.v4.pilots()))?,
            slots: at.skip(slot_width(width4, tail), index(header.v4.slots()))?,
            cluster_ips: 0,
        };
        let v6 = IndexSections {
            pilots: at.skip(1, index(header.v6.pilots()))?,
            slots: at.skip(slot_width(16, tail), index(header.v6.slots()))?,
            cluster_ips: 0,
        };
        let v4 = IndexSections { cluster_ips: at.skip(width4, index(header.v4.cluster_ips))?, ..v4 };
        let v6 = IndexSections { cluster_ips: at.skip(16, index(header.v6.cluster_ips))?, ..v6 };
        let records = at.skip(1, index(header.records))?;
        let names = at.skip(1, index(header.names))?;
        Some(Self { context, v4, v6, records, names, end: at.0 })
    }
}

/// Bytes of a slot: port, address, tail.
pub(crate) const fn slot_width(address: usize, tail: usize) -> usize {
    address.saturating_add(tail).saturating_add(2)
}

struct Offset(usize);

impl Offset {
    /// Where the next section starts; moves behind its `count` entries of `width` bytes.
    fn skip(&mut self, width: usize, count: usize) -> Option<usize> {
        let start = self.0;
        self.0 = start.checked_add(width.checked_mul(count)?)?;
        Some(start)
    }
}
