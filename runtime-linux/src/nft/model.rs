//! nf_tables objects as natlet writes and reads them: values without a kernel.
//!
//! [`Ruleset`] is what the lowering makes of a program; `super::read` gives what the kernel holds, and `super::diff`
//! compares the two. Keys and data are the bytes of the kernel's registers: every field of a
//! concatenation starts on a 4-byte boundary and is zero-padded at its end; addresses and ports are in network order, a
//! protocol is one byte, numbers made by the kernel (`numgen`, marks) are host-endian `u32`.

mod elements;

pub use elements::{Count, Element, Elements};

/// Address family of a table (`NFPROTO_*`, linux/netfilter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `ip`, 2.
    Ip,
    /// `ip6`, 10.
    Ip6,
}

/// All natlet has in the kernel, at most one table a family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Tables, `ip` first.
    pub tables: Vec<Table>,
    /// Who may change them once they are loaded.
    pub ownership: Ownership,
}

/// Who may change a table once it is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ownership {
    /// Everybody with CAP_NET_ADMIN.
    #[default]
    Anyone,
    /// The socket that loaded it: the kernel refuses all others, and `nft flush ruleset` passes it over. When the socket is
    /// closed the table stays, is anyone's, and can be adopted. Linux 6.9.
    Socket,
}

impl Ownership {
    /// NFT_TABLE_F_OWNER and NFT_TABLE_F_PERSIST.
    pub const fn table_flags(self) -> u32 {
        match self {
            Self::Anyone => 0,
            Self::Socket => 2 | 4,
        }
    }
}

impl Ruleset {
    /// The same with no set that counts.
    #[must_use]
    pub fn without_counters(mut self) -> Self {
        self.tables.iter_mut().flat_map(|t| &mut t.sets).for_each(|set| set.counter = false);
        self
    }
}

/// A table with everything in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Family.
    pub family: Family,
    /// Name.
    pub name: String,
    /// Comment shown by `nft list`. The kernel never changes it after creation, so it says only whose the table is.
    pub comment: String,
    /// Sets and maps, in creation order.
    pub sets: Vec<Set>,
    /// Chains without a hook, in creation order (targets before those who go to them).
    pub chains: Vec<Chain>,
    /// Chains with a hook.
    pub base_chains: Vec<BaseChain>,
}

/// A set or a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Name: `[a-z0-9-]`, at most 64, and no word of nft's language (a set named `masquerade` loads and lists, but the
    /// listing does not load again).
    pub name: String,
    /// Fields of the key, at most five. A key of one field is an address or a mark: `nft` has shorter keys for a protocol or
    /// a port alone.
    pub key: Vec<Field>,
    /// What an element holds beside its key.
    pub data: SetData,
    /// Elements are ranges: `flags interval`.
    pub interval: bool,
    /// Upper bound of elements (`size`), which also picks the kernel's fixed hash table; `None` for interval sets.
    pub size: Option<u32>,
    /// The kernel's rules fill it (`flags dynamic,timeout`): what is in it is state, no wanted content. An element is out
    /// of date unless the set named here has one with the same first key field and the same data.
    pub memory: Option<String>,
    /// Every element counts the packets that found it (`counter`, NFTA_SET_EXPR: no bytes of its own in a batch). Its values
    /// are no part of a comparison.
    pub counter: bool,
    /// Comment shown by `nft list`; empty for none.
    pub comment: String,
    /// Elements, in any order, keys unique; none of a memory.
    pub elements: Elements,
}

impl Set {
    /// The `size` of a hashed set with so many elements: with room for at least a quarter more, so that it seldom has to grow.
    /// More room would not be free: the kernel makes its table of buckets from it, 8 bytes for at least 1.3 times the size,
    /// which every load, look-up and check of the set then has to reach.
    pub fn size_for(elements: u32) -> u32 {
        const LEAST: u32 = 512;
        let roomy = elements.saturating_add(elements / 4).max(LEAST);
        roomy.checked_next_power_of_two().unwrap_or(roomy)
    }

    /// Bytes of data that [`Elements`] of this set have per element: the value, a verdict's index, the end of a range.
    pub fn data_width(&self) -> usize {
        match &self.data {
            SetData::None if self.interval => width(&self.key),
            SetData::None => 0,
            SetData::Value(fields) => width(fields),
            SetData::Verdict(_) => 2,
        }
    }

    /// No elements yet, of this set's widths.
    pub fn empty_elements(&self) -> Elements {
        Elements::new(width(&self.key), self.data_width())
    }

    /// The verdict that an element's data stands for.
    pub fn verdict(&self, data: &[u8]) -> Option<&Verdict> {
        let (SetData::Verdict(verdicts), Ok(index)) = (&self.data, data.try_into()) else { return None };
        verdicts.get(usize::from(u16::from_le_bytes(index)))
    }

    /// `map` or `set`, as `nft` calls it.
    pub fn noun(&self) -> &'static str {
        if self.data == SetData::None { "set" } else { "map" }
    }
}

/// What an element of a set holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetData {
    /// Nothing: a set.
    None,
    /// A value of these fields: a map.
    Value(Vec<Field>),
    /// A verdict: a verdict map. An element's data is the index of its verdict here, as a little-endian `u16`.
    Verdict(Vec<Verdict>),
}

/// A field of a key or a value, by the nft expression that it stands for (written as `typeof` so that `nft` prints and
/// reloads it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `ip daddr`, 4 bytes, type ipv4_addr (7).
    Ip4Daddr,
    /// `ip saddr`, 4 bytes.
    Ip4Saddr,
    /// `ip6 daddr`, 16 bytes, type ipv6_addr (8).
    Ip6Daddr,
    /// `ip6 saddr`, 16 bytes.
    Ip6Saddr,
    /// `meta l4proto`, 1 byte padded to 4, type inet_proto (12).
    L4Proto,
    /// `th dport`, 2 bytes padded to 4, type inet_service (13).
    Dport,
    /// `numgen random mod N`, a host-endian u32, type integer (4). The modulus is only text for `nft list`.
    Slot,
    /// `meta mark`, a host-endian u32, type mark (19).
    Mark,
    /// `meta priority`, a host-endian u32, type classid (23).
    Priority,
}

impl Field {
    /// Bytes in a register, padding included.
    pub const fn width(self) -> usize {
        match self {
            Self::Ip6Daddr | Self::Ip6Saddr => 16,
            _ => 4,
        }
    }

    /// Bytes of the value alone.
    pub const fn value_len(self) -> usize {
        match self {
            Self::L4Proto => 1,
            Self::Dport => 2,
            other => other.width(),
        }
    }
}

/// Bytes of a concatenation of fields.
pub fn width(fields: &[Field]) -> usize {
    fields.iter().map(|f| f.width()).sum()
}

/// A chain that others go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Name.
    pub name: String,
    /// Rules, in order.
    pub rules: Vec<Rule>,
}

/// A chain at a hook, policy accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// Name and rules.
    pub chain: Chain,
    /// `nat` or `filter`.
    pub kind: ChainType,
    /// Where packets enter it.
    pub hook: Hook,
    /// Order among chains of the hook; dstnat is -100, srcnat 100.
    pub priority: i32,
}

/// Type of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainType {
    /// `type filter`.
    Filter,
    /// `type nat`: first packet of a connection only.
    Nat,
}

/// Netfilter hook (`NF_INET_*`, linux/netfilter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// 0.
    Prerouting,
    /// 1.
    Input,
    /// 2.
    Forward,
    /// 3.
    Output,
    /// 4.
    Postrouting,
}

/// A rule: its expressions in order, and a comment for people (may be empty).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Expressions.
    pub expressions: Vec<Expression>,
    /// Comment.
    pub comment: String,
}

/// A register as the kernel numbers them (`enum nft_registers`): 0 verdict, 1 to 4 of 16 bytes, 8 to 23 the same bytes in
/// words. As `nft` writes it: 1 to 4 for a value that starts on a 16-byte boundary, else 8 + word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub u32);

impl Register {
    /// The register whose value starts at this 4-byte word of the 64 bytes.
    pub const fn word(word: u32) -> Self {
        if word.is_multiple_of(4) { Self(1 + word / 4) } else { Self(8 + word) }
    }
}

/// What a rule, or an element of a verdict map, decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// NF_ACCEPT.
    Accept,
    /// NF_DROP.
    Drop,
    /// NFT_RETURN.
    Return,
    /// NFT_GOTO to a chain of the same table.
    Goto(String),
    /// NFT_JUMP to a chain of the same table.
    Jump(String),
}

/// An expression of a rule; fields are named as the kernel names its attributes. Numbers are the kernel's (linux/netfilter/nf_tables.h).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the attributes of the expression the variant names")]
pub enum Expression {
    /// `payload`: bytes of a header. Base 1 network, 2 transport.
    Payload { dreg: Register, base: u32, offset: u32, len: u32 },
    /// `payload … set`: writes a register to a header's address, and mends the checksums.
    PayloadSet { sreg: Register, base: u32, offset: u32, len: u32 },
    /// `meta`: NFT_META_L4PROTO 16, NFT_META_MARK 3 and others.
    Meta { dreg: Register, key: u32 },
    /// `meta … set`: writes a register to NFT_META_PRIORITY 2 or NFT_META_MARK 3.
    MetaSet { sreg: Register, key: u32 },
    /// `ct`: NFT_CT_STATUS 2, NFT_CT_DST_IP 20 and others; direction 0 original, 1 reply.
    Ct { dreg: Register, key: u32, direction: Option<u8> },
    /// `cmp`: equal or not.
    Cmp { sreg: Register, equal: bool, data: Vec<u8> },
    /// `bitwise`: `(sreg & mask) ^ xor`.
    Bitwise { sreg: Register, dreg: Register, mask: Vec<u8>, xor: Vec<u8> },
    /// `lookup`: in a set (`dreg` none), in a map, or in a verdict map (`dreg` 0).
    Lookup { set: String, sreg: Register, dreg: Option<Register>, inverted: bool },
    /// `immediate` into the verdict register.
    Verdict(Verdict),
    /// `numgen random`.
    Random { dreg: Register, modulus: u32 },
    /// `hash`, jenkins, with a fixed seed.
    Jhash { sreg: Register, dreg: Register, len: u32, modulus: u32, seed: u32 },
    /// `nat` dnat to an address and a port in registers.
    Dnat { family: Family, address: Register, port: Register },
    /// `masq` with NF_NAT_RANGE_PROTO_RANDOM_FULLY.
    Masquerade,
    /// `fib … type local`: compares the address type with RTN_LOCAL. `saddr` or `daddr`; stores the type in `dreg`.
    FibType { dreg: Register, source: bool },
    /// `reject` with ICMP port unreachable.
    Reject,
    /// `reject with tcp reset`, in a rule that has matched TCP.
    Reset,
    /// `counter`, from zero. Its values are no part of a comparison.
    Counter,
    /// `dynset` update: refreshes or makes an element with a timeout in milliseconds.
    Update { set: String, key: Register, data: Option<Register>, timeout: u64 },
    /// `dynset` add: makes an element unless there is one.
    Add { set: String, key: Register, data: Option<Register>, timeout: u64 },
    /// `dynset` delete (Linux 5.4).
    Delete { set: String, key: Register, data: Option<Register> },
}
