//! The header and what follows from it: where each section of a program lies.

use super::slot::SlotForm;
use crate::ProgramError;
use crate::bytes::{Reader, Writer, index};
use crate::hash::{Placement, seed};

/// First bytes of every program.
pub const MAGIC: [u8; 4] = *b"NATP";
/// Format version that this crate writes and reads.
pub const VERSION: u8 = 2;

/// Length of the header without its IPv6 part, in bytes.
pub(crate) const HEADER: usize = 48;
/// Length of the header's IPv6 part.
pub(crate) const HEADER6: usize = 11;
/// First byte that the checksum covers.
pub(crate) const CHECKED_FROM: usize = 12;
/// Where the content id lies.
pub(crate) const ID: core::ops::Range<usize> = 12..28;
/// Where the checksum lies.
pub(crate) const CHECKSUM: core::ops::Range<usize> = 8..12;
/// Most frontends that a shard of an index has on average.
pub(crate) const SHARD: u32 = 16_384;

pub(crate) const FLAG_NAMES: u8 = 1;
pub(crate) const FLAG_SHORT_FRONTENDS: u8 = 2;
pub(crate) const FLAG_SHORT_ENDPOINTS: u8 = 4;
pub(crate) const FLAG_V6: u8 = 8;
/// Where the flags hold the width of record offsets: 0 to 2 for 12, 20 or 28 bits.
const WIDTH_SHIFT: u32 = 4;
/// Where the flags hold the number of the IPv4 index's seed.
const SEED_SHIFT: u32 = 6;

/// The part of the header that describes one family's frontend index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IndexHeader {
    /// Number of the hash seed, 0..=3.
    pub seed: u8,
    /// Slots of a shard.
    pub shard_slots: u16,
    /// Frontends.
    pub frontends: u32,
    /// Length of the ClusterIPs, in bytes.
    pub cluster_ips: u32,
}

impl IndexHeader {
    /// Parts that the index is built in.
    pub const fn shards(&self) -> u32 {
        (self.frontends / SHARD).saturating_add(1)
    }

    /// Number of pilots of all shards: about one for three frontends.
    pub fn pilots(&self) -> u32 {
        if self.frontends == 0 {
            return 0;
        }
        let shard = self.frontends.checked_div(self.shards()).unwrap_or(0);
        (shard / 3).saturating_add(2).saturating_mul(self.shards())
    }

    /// Number of slots of all shards, a few of them empty.
    pub fn slots(&self) -> u32 {
        self.shards().saturating_mul(self.shard_slots.into())
    }

    pub fn placement(&self) -> Placement {
        Placement {
            seed: seed(self.seed),
            buckets: self.pilots(),
            shards: self.shards(),
            shard_slots: self.shard_slots,
        }
    }

    fn is_canonical(&self) -> bool {
        let is_empty = self.seed == 0 && self.shard_slots == 0 && self.cluster_ips == 0;
        self.seed <= 3 && self.slots() >= self.frontends && (self.frontends != 0 || is_empty)
    }
}

/// A decoded header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub flags: u8,
    /// Width of record offsets: 0 to 2 for 12, 20 or 28 bits.
    pub width: u8,
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

    const fn record_bits(&self) -> u8 {
        12_u8.saturating_add(self.width.saturating_mul(8))
    }

    /// The smallest width of record offsets below this length; `None` if there is none.
    pub const fn width_of(records: usize) -> Option<u8> {
        match records {
            0..=0xfff => Some(0),
            0x1000..=0xf_ffff => Some(1),
            0x10_0000..=0xfff_ffff => Some(2),
            _ => None,
        }
    }

    pub const fn form_v4(&self) -> SlotForm {
        let address = if self.has(FLAG_SHORT_FRONTENDS) { 3 } else { 4 };
        SlotForm { address, base: self.base_frontends, record_bits: self.record_bits() }
    }

    pub const fn form_v6(&self) -> SlotForm {
        SlotForm { address: 16, base: 0, record_bits: self.record_bits() }
    }

    pub fn write(&self, out: &mut Writer<'_>) -> Option<()> {
        out.put(&MAGIC)?;
        out.u8(VERSION)?;
        out.u8(self.flags | (self.width << WIDTH_SHIFT) | (self.v4.seed << SEED_SHIFT))?;
        out.u8(self.base_frontends)?;
        out.u8(self.base_endpoints)?;
        out.u32(self.checksum)?;
        out.put(&self.id)?;
        out.u32(self.v4.frontends)?;
        out.u32(self.v4.cluster_ips)?;
        out.u16(self.v4.shard_slots)?;
        out.u16(self.context)?;
        out.u32(self.records)?;
        out.u32(self.names)?;
        if self.has(FLAG_V6) {
            out.u32(self.v6.frontends)?;
            out.u32(self.v6.cluster_ips)?;
            out.u16(self.v6.shard_slots)?;
            out.u8(self.v6.seed)?;
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
        let known = header.width <= 2
            && header.v4.is_canonical()
            && header.v6.is_canonical()
            && header.v6.cluster_ips.is_multiple_of(16)
            && header.has(FLAG_NAMES) == (header.names != 0)
            && header.has(FLAG_V6) == (header.v6.frontends != 0)
            && (header.has(FLAG_SHORT_FRONTENDS) || header.base_frontends == 0)
            && (header.has(FLAG_SHORT_ENDPOINTS) || header.base_endpoints == 0);
        if known { Ok(header) } else { Err(ProgramError::Header) }
    }

    fn read_fields(r: &mut Reader<'_>) -> Option<Self> {
        let first = r.u8()?;
        let mut header = Self {
            flags: first & !(u8::MAX << WIDTH_SHIFT),
            width: (first >> WIDTH_SHIFT) & 3,
            base_frontends: r.u8()?,
            base_endpoints: r.u8()?,
            checksum: r.u32()?,
            id: r.array()?,
            ..Self::default()
        };
        header.v4 = read_index(r)?;
        header.v4.seed = first >> SEED_SHIFT;
        header.context = r.u16()?;
        header.records = r.u32()?;
        header.names = r.u32()?;
        if header.has(FLAG_V6) {
            header.v6 = read_index(r)?;
            header.v6.seed = r.u8()?;
        }
        Some(header)
    }
}

fn read_index(r: &mut Reader<'_>) -> Option<IndexHeader> {
    Some(IndexHeader { frontends: r.u32()?, cluster_ips: r.u32()?, shard_slots: r.u16()?, seed: 0 })
}

/// Where a family's index lies.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IndexSections {
    pub slots: usize,
    pub pilots: usize,
    /// Where the pilots end.
    pub end: usize,
}

/// Offsets of all sections, in bytes from the program's start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Layout {
    pub context: usize,
    pub v4: IndexSections,
    pub v6: IndexSections,
    pub cluster_ips4: usize,
    pub cluster_ips6: usize,
    pub map: usize,
    pub records: usize,
    pub names: usize,
    pub end: usize,
}

impl Layout {
    /// `None` where a length overflows.
    pub fn of(header: &Header) -> Option<Self> {
        let mut at = Offset(if header.has(FLAG_V6) { HEADER.checked_add(HEADER6)? } else { HEADER });
        let context = at.skip(1, header.context.into())?;
        let mut sections = |index_header: &IndexHeader, form: SlotForm| {
            Some(IndexSections {
                slots: at.skip(form.width(), index_header.slots())?,
                pilots: at.skip(1, index_header.pilots())?,
                end: at.0,
            })
        };
        let v4 = sections(&header.v4, header.form_v4())?;
        let v6 = sections(&header.v6, header.form_v6())?;
        let cluster_ips4 = at.skip(1, header.v4.cluster_ips)?;
        let cluster_ips6 = at.skip(1, header.v6.cluster_ips)?;
        let map = at.skip(1, super::map::len(header.records))?;
        let records = at.skip(1, header.records)?;
        let names = at.skip(1, header.names)?;
        Some(Self { context, v4, v6, cluster_ips4, cluster_ips6, map, records, names, end: at.0 })
    }
}

struct Offset(usize);

impl Offset {
    /// Where the next section starts; moves behind its `count` entries of `width` bytes.
    fn skip(&mut self, width: u8, count: u32) -> Option<usize> {
        let start = self.0;
        self.0 = start.checked_add(usize::from(width).checked_mul(index(count))?)?;
        Some(start)
    }
}
