//! The form of a set in the kernel's and in `nft`'s numbers.

use super::super::model::{Field, Set, SetData, width};
use super::attribute::Writer;

/// NFT_SET_* flags.
pub mod set_flag {
    /// Ranges.
    pub const INTERVAL: u32 = 4;
    /// Elements have data.
    pub const MAP: u32 = 8;
    /// Elements expire.
    pub const TIMEOUT: u32 = 0x10;
    /// Rules add elements: `dynamic`.
    pub const EVAL: u32 = 0x20;
    /// Ranges of concatenations.
    pub const CONCAT: u32 = 0x80;
}

/// DATA_TYPE of a verdict map.
pub const VERDICT_TYPE: u32 = 0xffff_ff00;

/// NFTA_SET_FLAGS of a set.
pub fn set_flags(set: &Set) -> u32 {
    let interval = match (set.interval, set.key.len()) {
        (false, _) => 0,
        (true, 0 | 1) => set_flag::INTERVAL,
        (true, _) => set_flag::INTERVAL | set_flag::CONCAT,
    };
    let memory = if set.memory.is_some() { set_flag::TIMEOUT | set_flag::EVAL } else { 0 };
    interval | memory | if set.data == SetData::None { 0 } else { set_flag::MAP }
}

/// The number by which `nft` knows a type: 6 bits a field, the first field highest (nft `datatype.h`).
pub fn type_number(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |number, field| {
        number << 6
            | match field {
                Field::Slot => 4,
                Field::Ip4Daddr | Field::Ip4Saddr => 7,
                Field::Ip6Daddr | Field::Ip6Saddr => 8,
                Field::L4Proto => 12,
                Field::Dport => 13,
                Field::Mark => 19,
                Field::Priority => 23,
            }
    })
}

/// DATA_TYPE and DATA_LEN of a map.
pub fn data_type(data: &SetData) -> Option<(u32, u32)> {
    match data {
        SetData::None => None,
        SetData::Value(fields) => Some((type_number(fields), u32::try_from(width(fields)).unwrap_or(u32::MAX))),
        SetData::Verdict(_) => Some((VERDICT_TYPE, 0)),
    }
}

/// NFTA_SET_DESC: the size, and for ranges of concatenations each field's length in bytes (the header says bits, the kernel
/// means bytes).
pub(super) fn description(w: &mut Writer, set: &Set, size: Option<u32>) {
    let concat = set.interval && set.key.len() > 1;
    if size.is_none() && !concat {
        return;
    }
    w.nest(9, |w| {
        if let Some(size) = size {
            w.put_u32(1, size);
        }
        if concat {
            w.nest(2, |w| {
                for field in &set.key {
                    w.nest(1, |w| w.put_u32(1, u32::try_from(field.value_len()).unwrap_or(u32::MAX)));
                }
            });
        }
    });
}
