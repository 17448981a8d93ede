//! A frontend while its index is built: a slot in the widest form there is, before it is known which one the program gets.

use crate::hash::{hash_v4, hash_v6};
use crate::program::slot::{ADDRESS_SHIFT, KIND_BITS, Slot, SlotBytes, SlotForm};

/// An IPv4 frontend: an IPv4 slot of four address bytes and 28 record bits.
pub(crate) type EntryV4 = [u8; 10];
/// An IPv6 frontend: an IPv6 slot of 28 record bits.
pub(crate) type EntryV6 = [u8; 22];

const WIDE_V4: SlotForm = SlotForm { address: 4, base: 0, record_bits: 28 };
const WIDE_V6: SlotForm = SlotForm { address: 16, base: 0, record_bits: 28 };
const REST: u64 = (1 << ADDRESS_SHIFT) - 1;

/// What the builder of an index needs of a frontend.
pub(crate) trait Entry: Copy {
    /// `None` if the slot is of the other family.
    fn new(slot: &Slot) -> Option<Self>;

    fn slot(&self) -> Option<Slot>;

    /// Address, and the rest of the key: what no other frontend of the family has.
    fn key(&self) -> (u128, u64);

    fn hash(&self, form: SlotForm, seed: u64) -> u64;

    /// Writes the slot in the program's form. `None` where `bytes` has another length.
    fn write(&self, form: SlotForm, bytes: &mut [u8]) -> Option<()>;
}

impl Entry for EntryV4 {
    fn new(slot: &Slot) -> Option<Self> {
        let mut entry = [0; 10];
        WIDE_V4.write(slot, &mut entry)?;
        Some(entry)
    }

    fn slot(&self) -> Option<Slot> {
        slot_of(WIDE_V4, self)
    }

    fn key(&self) -> (u128, u64) {
        let (address, rest) = split_v4(*self);
        (address.into(), without_kind(rest))
    }

    fn hash(&self, form: SlotForm, seed: u64) -> u64 {
        let (address, rest) = split_v4(*self);
        let rest = without_kind(rest);
        hash_v4(stored(address, form) << ADDRESS_SHIFT | rest, seed)
    }

    fn write(&self, form: SlotForm, bytes: &mut [u8]) -> Option<()> {
        let (address, rest) = split_v4(*self);
        let [.., a, b, c, d] = *self;
        let record = u32::from_le_bytes([a, b, c, d]) >> 4;
        let low = rest | stored(address, form) << ADDRESS_SHIFT;
        let all = u128::from(low) | u128::from(record).checked_shl(form.record_shift())?;
        bytes.copy_from_slice(all.to_le_bytes().get(..bytes.len())?);
        Some(())
    }
}

impl Entry for EntryV6 {
    fn new(slot: &Slot) -> Option<Self> {
        let mut entry = [0; 22];
        WIDE_V6.write(slot, &mut entry)?;
        Some(entry)
    }

    fn slot(&self) -> Option<Slot> {
        slot_of(WIDE_V6, self)
    }

    fn key(&self) -> (u128, u64) {
        let (address, rest) = split_v6(self);
        (address, without_kind(rest & REST))
    }

    fn hash(&self, _: SlotForm, seed: u64) -> u64 {
        let (address, rest) = self.key();
        hash_v6(address, rest, seed)
    }

    fn write(&self, form: SlotForm, bytes: &mut [u8]) -> Option<()> {
        // the record's bits come last and are below 2^record_bits: what a narrower slot leaves out is zero
        bytes.copy_from_slice(self.get(..form.width().into())?);
        Some(())
    }
}

fn slot_of(form: SlotForm, bytes: &[u8]) -> Option<Slot> {
    match form.read(bytes) {
        SlotBytes::Used(slot) => Some(slot),
        SlotBytes::Empty | SlotBytes::Malformed => None,
    }
}

/// Address, and code and port, of which the code says 3 in its low bits for a NodePort.
fn split_v4(entry: EntryV4) -> (u32, u64) {
    let [first @ .., _, _] = entry;
    let word = u64::from_le_bytes(first);
    #[expect(clippy::cast_possible_truncation, reason = "the 32 bits of an address")]
    let address = (word >> ADDRESS_SHIFT) as u32;
    (address, word & REST)
}

fn split_v6(entry: &EntryV6) -> (u128, u64) {
    let [address @ .., _, _, _, _, _, _] = *entry;
    let mut rest = [0; 8];
    if let (Some((rest, _)), Some(bytes)) = (rest.split_first_chunk_mut(), entry.last_chunk::<6>()) {
        *rest = *bytes;
    }
    (u128::from_be_bytes(address), u64::from_le_bytes(rest))
}

fn without_kind(rest: u64) -> u64 {
    if rest & 3 == 3 { rest } else { rest & !KIND_BITS }
}

/// The address as a slot has it: only a NodePort's is 0.
fn stored(address: u32, form: SlotForm) -> u64 {
    if address == 0 { 0 } else { (address ^ form.base_word()).into() }
}
