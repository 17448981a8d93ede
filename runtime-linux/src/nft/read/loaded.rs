//! What was read: natlet's tables as values.

use super::super::model::{Family, Set, width};
use super::super::wire::{self, VERDICT_TYPE, userdata};

/// All of natlet's tables as one generation of the kernel's ruleset holds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The generation: a transaction that insists on it changes exactly this.
    pub generation: u32,
    /// Tables, `ip` first.
    pub tables: Vec<LoadedTable>,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedTable {
    /// Family.
    pub family: Family,
    /// Name.
    pub name: String,
    /// NFT_TABLE_F_*: 1 dormant, 2 owned, 4 persistent.
    pub flags: u32,
    /// Port of the socket that owns it.
    pub owner: Option<u32>,
    /// Comment.
    pub comment: String,
    /// Sets and maps.
    pub sets: Vec<LoadedSet>,
    /// Chains, with and without a hook.
    pub chains: Vec<LoadedChain>,
}

/// A set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedSet {
    /// The set as natlet would have written it. Key fields are empty where the `typeof` is none of natlet's; then the
    /// elements were not read.
    pub set: Set,
    /// What the kernel knows of its form.
    pub shape: Shape,
    /// Elements in the kernel; `None` where it does not say (NFTA_SET_COUNT, Linux 6.18).
    pub said: Option<u32>,
    /// It holds what natlet never writes (a catch-all element, a key of another length).
    pub odd: bool,
}

impl LoadedSet {
    /// Elements in the kernel, read or not; a range counts once where it was read.
    pub fn count(&self) -> u32 {
        let read = u32::try_from(self.set.elements.len()).unwrap_or(u32::MAX);
        if self.set.interval && read > 0 { read } else { self.said.unwrap_or(read) }
    }
}

/// The form of a set in the kernel's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// NFT_SET_*.
    pub flags: u32,
    /// `nft`'s number of the key's type.
    pub key_type: u32,
    /// Bytes of a key.
    pub key_len: u32,
    /// `nft`'s number of the data's type; 0 for a set.
    pub data_type: u32,
    /// Bytes of data.
    pub data_len: u32,
    /// Its elements count packets.
    pub counter: bool,
    /// Userdata as it stands.
    pub userdata: Vec<u8>,
}

impl Shape {
    /// The form that writing this set gives.
    pub fn of(set: &Set) -> Self {
        let (data_type, data_len) = wire::data_type(&set.data).unwrap_or_default();
        Self {
            flags: wire::set_flags(set),
            key_type: wire::type_number(&set.key),
            key_len: u32::try_from(width(&set.key)).unwrap_or(u32::MAX),
            data_type,
            data_len,
            counter: set.counter,
            userdata: userdata::set(set),
        }
    }

    /// Whether elements of one fit the other and `nft` prints both alike; comments may differ.
    pub fn fits(&self, other: &Self) -> bool {
        // The length of a verdict is the kernel's own affair.
        let data_len = |s: &Self| if s.data_type == VERDICT_TYPE { 0 } else { s.data_len };
        let numbers = |s: &Self| (s.flags, s.key_type, s.key_len, s.data_type, data_len(s), s.counter);
        numbers(self) == numbers(other) && userdata::same_typeof(&self.userdata, &other.userdata)
    }
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedChain {
    /// Name.
    pub name: String,
    /// Its hook, for a base chain.
    pub base: Option<LoadedBase>,
    /// Rules in order.
    pub rules: Vec<LoadedRule>,
}

/// Where a base chain is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedBase {
    /// `nat`, `filter` or another.
    pub kind: String,
    /// NF_INET_*.
    pub hook: u32,
    /// Priority.
    pub priority: i32,
    /// 0 drop, 1 accept.
    pub policy: u32,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedRule {
    /// Handle.
    pub handle: u64,
    /// Value of NFTA_RULE_EXPRESSIONS.
    pub expressions: Vec<u8>,
    /// Comment.
    pub comment: String,
}
