//! A frontend while its index is built: a slot in the widest form there is, before it is known which one the program gets.

use crate::hash::{hash_v4, hash_v6};
use crate::program::slot::{ADDRESS_SHIFT, KIND_BITS, Slot, SlotBytes, SlotForm, kind_of};
use crate::table::FrontendKind;

/// An IPv4 frontend: an IPv4 slot of four address bytes, which are as the program stores them, and 28 record bits.
pub(crate) type EntryV4 = [u8; 10];
/// An IPv6 frontend: an IPv6 slot of 28 record bits.
pub(crate) type EntryV6 = [u8; 22];

/// Bits of an IPv4 entry before its record.
const KEY_V4: u64 = (1 << (ADDRESS_SHIFT + 32)) - 1;
/// Bits of an IPv6 entry's second part before its record.
const KEY_V6: u64 = (1 << ADDRESS_SHIFT) - 1;

/// What the builder of an index needs of a frontend.
pub(crate) trait Entry: Copy {
    /// `base`: the first octet of all addresses, where an IPv4 slot leaves it out; else 0. `None` if the slot is of the
    /// other family.
    fn new(slot: &Slot, base: u8) -> Option<Self>;

    fn slot(&self, base: u8) -> Option<Slot>;

    /// Address, and the rest of the key: what no other frontend of the family has.
    fn key(&self) -> (u128, u64);

    fn hash(&self, seed: u64) -> u64;

    /// Writes the slot in the program's form. `None` where `bytes` has another length.
    fn write(&self, form: SlotForm, bytes: &mut [u8]) -> Option<()>;
}

impl Entry for EntryV4 {
    #[inline]
    fn new(slot: &Slot, base: u8) -> Option<Self> {
        let mut entry = [0; 10];
        wide(4, base).write(slot, &mut entry)?;
        Some(entry)
    }

    fn slot(&self, base: u8) -> Option<Slot> {
        slot_of(wide(4, base), self)
    }

    fn key(&self) -> (u128, u64) {
        (0, key_v4(*self))
    }

    #[inline]
    fn hash(&self, seed: u64) -> u64 {
        hash_v4(key_v4(*self), seed)
    }

    #[inline]
    fn write(&self, form: SlotForm, bytes: &mut [u8]) -> Option<()> {
        let [.., a, b, c, d] = *self;
        let record = u32::from_le_bytes([a, b, c, d]) >> 4;
        let key = first_word(*self) & KEY_V4;
        let all = u128::from(key) | u128::from(record).wrapping_shl(form.record_shift());
        let all = all.to_le_bytes();
        // by length, since a copy of a length that is known takes two instructions
        match bytes.len() {
            7 => put::<7>(&all, bytes),
            8 => put::<8>(&all, bytes),
            9 => put::<9>(&all, bytes),
            _ => put::<10>(&all, bytes),
        }
    }
}

impl Entry for EntryV6 {
    fn new(slot: &Slot, base: u8) -> Option<Self> {
        let mut entry = [0; 22];
        wide(16, base).write(slot, &mut entry)?;
        Some(entry)
    }

    fn slot(&self, base: u8) -> Option<Slot> {
        slot_of(wide(16, base), self)
    }

    fn key(&self) -> (u128, u64) {
        let [address @ .., a, b, c, _, _, _] = *self;
        let rest = u64::from(u32::from_le_bytes([a, b, c, 0]));
        (u128::from_be_bytes(address), without_kind(rest & KEY_V6))
    }

    fn hash(&self, seed: u64) -> u64 {
        let (address, rest) = self.key();
        hash_v6(address, rest, seed)
    }

    fn write(&self, form: SlotForm, bytes: &mut [u8]) -> Option<()> {
        // the record's bits come last and are below 2^record_bits: what a narrower slot leaves out is zero
        bytes.copy_from_slice(self.get(..form.width().into())?);
        Some(())
    }
}

/// The address of a ClusterIP as the entry stores it; `None` of another frontend.
pub(crate) fn cluster_ip_v4(entry: EntryV4) -> Option<u32> {
    let word = first_word(entry);
    #[expect(clippy::cast_possible_truncation, reason = "the 32 bits of an address")]
    (kind_of(word) == FrontendKind::ClusterIp).then_some((word >> ADDRESS_SHIFT) as u32)
}

/// The address of a ClusterIP; `None` of another frontend.
pub(crate) fn cluster_ip_v6(entry: &EntryV6) -> Option<[u8; 16]> {
    let [address @ .., rest, _, _, _, _, _] = *entry;
    (kind_of(rest.into()) == FrontendKind::ClusterIp).then_some(address)
}

const fn wide(address: u8, base: u8) -> SlotForm {
    SlotForm { address, base, record_bits: 28 }
}

fn slot_of(form: SlotForm, bytes: &[u8]) -> Option<Slot> {
    match form.read(bytes) {
        SlotBytes::Used(slot) => Some(slot),
        SlotBytes::Empty | SlotBytes::Malformed => None,
    }
}

fn first_word(entry: EntryV4) -> u64 {
    let [first @ .., _, _] = entry;
    u64::from_le_bytes(first)
}

/// Code, port and address as they are hashed.
fn key_v4(entry: EntryV4) -> u64 {
    without_kind(first_word(entry) & KEY_V4)
}

/// A code says 3 in its low bits for a NodePort.
fn without_kind(key: u64) -> u64 {
    if key & 3 == 3 { key } else { key & !KIND_BITS }
}

fn put<const N: usize>(all: &[u8; 16], bytes: &mut [u8]) -> Option<()> {
    let bytes: &mut [u8; N] = bytes.try_into().ok()?;
    *bytes = *all.first_chunk()?;
    Some(())
}
