//! The frontend index: address, protocol and port to kind and record, one probe at any size.
//!
//! It is a perfect hash: a byte (pilot) per three frontends picks the multiplier that sends each frontend of a bucket to a
//! slot of its own; `slot.rs` says what a slot is. Indices of more than 16,384 frontends are shards side by side, so that
//! they are built in little memory. What a look-up needs is resolved once, when the program is opened.

use super::layout::{Header, IndexHeader, IndexSections, Layout};
use super::slot::{ADDRESS_SHIFT, KIND_BITS, Slot, SlotBytes, SlotForm, kind_of};
use crate::bytes::index;
use crate::hash::{Hash, Placement, hash_v4, hash_v6};
use crate::table::FrontendKind;
use core::net::{IpAddr, Ipv6Addr};

/// Bytes from a slot's start that an IPv4 look-up reads: the widest slot. What follows the slots is at least as long as a
/// narrower one lacks.
const WINDOW: usize = 10;

/// What a look-up finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    pub kind: FrontendKind,
    pub record: u32,
}

/// One family's slots and pilots.
#[derive(Clone, Copy, Debug)]
struct Family<'a> {
    /// From the first slot to the program's end.
    slots: &'a [u8],
    pilots: &'a [u8],
    placement: Placement,
    form: SlotForm,
    frontends: u32,
}

/// The index of the IPv4 frontends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexV4<'a> {
    family: Family<'a>,
    /// Bits of a slot's first eight bytes that are code, port and address.
    key_mask: u64,
    /// First octet of all addresses where three are stored, in its place in a key.
    base: u64,
    width: u8,
    /// Bits of a slot's third to tenth byte before the record offset, and those that it has.
    record_shift: u8,
    record_mask: u32,
}

/// The index of the IPv6 frontends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexV6<'a> {
    family: Family<'a>,
}

impl<'a> Family<'a> {
    fn new(bytes: &'a [u8], header: IndexHeader, at: &IndexSections, form: SlotForm) -> Self {
        Self {
            slots: bytes.get(at.slots..).unwrap_or(&[]),
            pilots: bytes.get(at.pilots..at.end).unwrap_or(&[]),
            placement: header.placement(),
            form,
            frontends: header.frontends,
        }
    }

    /// The slot of a hash. `None` in an empty index.
    #[inline]
    fn slot(&self, hash: u64) -> Option<usize> {
        let hash = Hash::from(hash);
        let bucket = index(self.placement.bucket(hash));
        let slot = index(self.placement.slot_in_shard(hash, *self.pilots.get(bucket)?));
        if self.placement.shards <= 1 {
            return Some(slot); // spares small tables, and processors without a wide multiplication, the shard's
        }
        Some(self.placement.first_slot(hash).wrapping_add(slot))
    }

    fn slots(&self) -> impl Iterator<Item = SlotBytes> + use<'a> {
        let form = self.form;
        let number = self.placement.shards.saturating_mul(self.placement.shard_slots.into());
        let width = usize::from(form.width()).max(1); // never 0; said so that no check of it is left in firmware
        self.slots.chunks_exact(width).take(index(number)).map(move |bytes| form.read(bytes))
    }

    /// Whether every slot is where a look-up of its key ends and `is_sound`, and their number is the header's.
    fn is_valid(&self, hash: impl Fn(&Slot) -> u64, is_sound: impl Fn(&Slot) -> bool) -> bool {
        let mut found: u32 = 0;
        for (i, slot) in self.slots().enumerate() {
            let slot = match slot {
                SlotBytes::Used(slot) => slot,
                SlotBytes::Empty => continue,
                SlotBytes::Malformed => return false,
            };
            found = found.saturating_add(1);
            if self.slot(hash(&slot)) != Some(i) || !is_sound(&slot) {
                return false;
            }
        }
        found == self.frontends
    }
}

impl<'a> IndexV4<'a> {
    pub fn new(bytes: &'a [u8], header: &Header, layout: &Layout) -> Self {
        let form = header.form_v4();
        Self {
            family: Family::new(bytes, header.v4, &layout.v4, form),
            key_mask: !(u64::MAX << form.record_shift()),
            base: u64::from(form.base_word()) << ADDRESS_SHIFT,
            width: form.width(),
            record_shift: form.address.saturating_mul(8).saturating_add(4),
            record_mask: !(u32::MAX << form.record_bits),
        }
    }

    /// The frontend with this key, which is no NodePort's.
    #[inline]
    pub fn find(&self, key: u64) -> Option<Hit> {
        self.probe(key ^ self.base, self.key_mask & !KIND_BITS)
    }

    /// The NodePort with this rest of a key.
    #[inline]
    pub fn find_node_port(&self, rest: u64) -> Option<Hit> {
        self.probe(rest, self.key_mask)
    }

    #[inline]
    fn probe(&self, key: u64, mask: u64) -> Option<Hit> {
        let slot = self.family.slot(hash_v4(key, self.family.placement.seed))?;
        let at = slot.wrapping_mul(self.width.into());
        let window = self.family.slots.get(at..at.wrapping_add(WINDOW))?.first_chunk::<WINDOW>()?;
        let first = u64::from_le_bytes(*window.first_chunk()?);
        let last = u64::from_le_bytes(*window.last_chunk()?).wrapping_shr(self.record_shift.into());
        #[expect(clippy::cast_possible_truncation, reason = "a record offset has at most 28 bits")]
        let record = last as u32 & self.record_mask;
        let hit = Hit { kind: kind_of(first), record };
        // a caller that does not branch on the answer either takes as long for a mix of hits and misses as for one of them
        core::hint::select_unpredictable(first & mask == key, Some(hit), None)
    }

    pub fn slots(&self) -> impl Iterator<Item = Slot> + use<'a> {
        used(self.family.slots())
    }

    /// The slots of those records whose offset is wanted.
    pub fn slots_of(&self, wanted: impl Fn(u32) -> bool) -> impl Iterator<Item = Slot> {
        let Self { family, width, .. } = *self;
        let number = index(family.placement.shards.saturating_mul(family.placement.shard_slots.into()));
        let width = usize::from(width);
        let starts = (0..number).map(move |i| i.wrapping_mul(width));
        let hits = starts.filter(move |&at| self.record_at(at).is_some_and(&wanted));
        used(hits.filter_map(move |at| Some(family.form.read(family.slots.get(at..at.wrapping_add(width))?))))
    }

    /// The record offset in the slot that starts here.
    #[inline]
    fn record_at(&self, at: usize) -> Option<u32> {
        let window = self.family.slots.get(at..at.wrapping_add(WINDOW))?.first_chunk::<WINDOW>()?;
        let last = u64::from_le_bytes(*window.last_chunk()?).wrapping_shr(self.record_shift.into());
        #[expect(clippy::cast_possible_truncation, reason = "a record offset has at most 28 bits")]
        let record = last as u32 & self.record_mask;
        Some(record)
    }

    pub fn frontends(&self) -> u32 {
        self.family.frontends
    }

    /// Whether each slot is where it belongs and `is_sound`, and their number is the header's.
    pub fn is_valid(&self, is_sound: impl Fn(&Slot) -> bool) -> bool {
        let (form, seed) = (self.family.form, self.family.placement.seed);
        self.family.is_valid(|slot| hash_of(slot, form, seed), is_sound)
    }
}

impl<'a> IndexV6<'a> {
    pub fn new(bytes: &'a [u8], header: &Header, layout: &Layout) -> Self {
        Self { family: Family::new(bytes, header.v6, &layout.v6, header.form_v6()) }
    }

    /// The frontend with this address and the rest of its key.
    #[inline(never)] // so that a look-up of the other family is small enough to be inlined
    pub fn find(&self, address: Ipv6Addr, rest: u64) -> Option<Hit> {
        let mask = if address.is_unspecified() { u64::MAX } else { !KIND_BITS };
        let family = &self.family;
        let width = family.form.width();
        let slot = family.slot(hash_v6(address.to_bits(), rest, family.placement.seed))?;
        let slot = family.slots.get(slot.wrapping_mul(width.into())..)?;
        let (found, tail) = slot.split_first_chunk::<16>()?;
        let first = u32::from_le_bytes(*tail.first_chunk()?);
        let key = u64::from(first) & !(u64::MAX << ADDRESS_SHIFT);
        let last = slot.get(usize::from(width.saturating_sub(4))..)?.first_chunk()?;
        let record = u32::from_le_bytes(*last).wrapping_shr(32_u32.saturating_sub(family.form.record_bits.into()));
        (*found == address.octets() && key & mask == rest).then_some(Hit { kind: kind_of(key), record })
    }

    pub fn slots(&self) -> impl Iterator<Item = Slot> + use<'a> {
        used(self.family.slots())
    }

    /// As [`IndexV4::slots_of`].
    pub fn slots_of(&self, wanted: impl Fn(u32) -> bool) -> impl Iterator<Item = Slot> {
        self.slots().filter(move |slot| wanted(slot.record))
    }

    pub fn frontends(&self) -> u32 {
        self.family.frontends
    }

    /// As [`IndexV4::is_valid`].
    pub fn is_valid(&self, is_sound: impl Fn(&Slot) -> bool) -> bool {
        let (form, seed) = (self.family.form, self.family.placement.seed);
        self.family.is_valid(|slot| hash_of(slot, form, seed), is_sound)
    }
}

fn used(slots: impl Iterator<Item = SlotBytes>) -> impl Iterator<Item = Slot> {
    slots.filter_map(|slot| match slot {
        SlotBytes::Used(slot) => Some(slot),
        SlotBytes::Empty | SlotBytes::Malformed => None,
    })
}

/// The hash of a slot's key.
pub(crate) fn hash_of(slot: &Slot, form: SlotForm, seed: u64) -> u64 {
    let rest = slot.rest_of_key();
    match slot.address {
        IpAddr::V4(a) => hash_v4(u64::from(form.stored(a.to_bits(), slot.kind)) << ADDRESS_SHIFT | rest, seed),
        IpAddr::V6(a) => hash_v6(a.to_bits(), rest, seed),
    }
}

/// The IPv6 ClusterIPs, ascending, 16 bytes each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClusterIpsV6<'a>(&'a [[u8; 16]]);

impl<'a> ClusterIpsV6<'a> {
    pub fn new(section: &'a [u8]) -> Self {
        Self(section.as_chunks().0)
    }

    /// Whether they ascend strictly.
    pub fn is_valid(&self) -> bool {
        self.0.is_sorted_by(|a, b| a < b)
    }

    pub fn contains(&self, address: Ipv6Addr) -> bool {
        self.0.binary_search(&address.octets()).is_ok()
    }

    pub fn iter(&self) -> impl Iterator<Item = Ipv6Addr> + use<'a> {
        self.0.iter().map(|&a| Ipv6Addr::from(a))
    }
}
