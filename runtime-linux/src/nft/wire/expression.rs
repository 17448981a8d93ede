//! Expressions of rules on the wire: `NFTA_RULE_EXPRESSIONS { LIST_ELEM { NAME, DATA { … } } … }` (linux/netfilter/nf_tables.h).
//!
//! Attributes come in the order in which `nft` 1.0.6 writes them. The kernel's dump of a rule has the same ones and more
//! (defaults it filled in), so [`covers`] says whether a rule in the kernel is the rule we would write.

use super::super::model::{Count, Expression, Family, Register, Rule, Verdict};
use super::attribute::{Attribute, Be64, Writer, attributes, find};

const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// NF_NAT_RANGE_PROTO_RANDOM_FULLY (linux/netfilter/nf_nat.h).
const RANDOM_FULLY: u32 = 1 << 4;
/// NFT_PAYLOAD_CSUM_INET.
const CSUM_INET: u32 = 1;
/// NFT_PAYLOAD_L4CSUM_PSEUDOHDR.
const L4CSUM_PSEUDOHDR: u32 = 1;
/// RTN_LOCAL (linux/rtnetlink.h).
const RTN_LOCAL: u32 = 2;

impl Family {
    /// NFPROTO_*.
    pub const fn number(self) -> u8 {
        match self {
            Self::Ip => 2,
            Self::Ip6 => 10,
        }
    }

    /// As `nft` names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        }
    }

    /// ICMP code "port unreachable" (RFC 792; RFC 4443 §3.1).
    const fn port_unreachable(self) -> u8 {
        match self {
            Self::Ip => 3,
            Self::Ip6 => 4,
        }
    }
}

impl Verdict {
    /// The kernel's code (`enum nft_verdicts`, NF_*), negative ones as two's complement.
    pub const fn code(&self) -> u32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Jump(_) => u32::MAX - 2,
            Self::Goto(_) => u32::MAX - 3,
            Self::Return => u32::MAX - 4,
        }
    }

    /// The chain it leads to.
    pub fn chain(&self) -> Option<&str> {
        match self {
            Self::Goto(chain) | Self::Jump(chain) => Some(chain),
            _ => None,
        }
    }
}

/// Writes a verdict as data: `{ VERDICT { CODE, CHAIN } }` inside the attribute `kind`.
pub fn verdict(w: &mut Writer, kind: u16, verdict: &Verdict) {
    let data = w.open(kind);
    let inner = w.open(DATA_VERDICT);
    w.put_u32(VERDICT_CODE, verdict.code());
    if let Some(chain) = verdict.chain() {
        w.put_str(VERDICT_CHAIN, chain);
    }
    w.close(inner);
    w.close(data);
}

/// Reads a verdict from an element's data attribute; `None` if it is no verdict that natlet knows.
pub fn read_verdict(data: &[u8]) -> Option<Verdict> {
    let inner = find(data, DATA_VERDICT)?.value;
    let chain = || Some(find(inner, VERDICT_CHAIN)?.text());
    Some(match find(inner, VERDICT_CODE)?.u32().cast_signed() {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        -3 => Verdict::Jump(chain()?),
        -4 => Verdict::Goto(chain()?),
        -5 => Verdict::Return,
        _ => return None,
    })
}

/// Writes register bytes as data: `{ VALUE }` inside the attribute `kind`.
pub fn value(w: &mut Writer, kind: u16, bytes: &[u8]) {
    let data = w.open(kind);
    w.put(DATA_VALUE, bytes);
    w.close(data);
}

/// The register bytes in a data attribute.
pub fn read_value(data: &[u8]) -> Option<&[u8]> {
    find(data, DATA_VALUE).map(|a| a.value)
}

/// Writes a rule's expressions into the open NFTA_RULE_EXPRESSIONS.
pub fn expressions(w: &mut Writer, family: Family, rule: &Rule) {
    for expression in &rule.expressions {
        put(w, family, expression);
    }
}

fn named(w: &mut Writer, name: &str, fill: impl FnOnce(&mut Writer)) {
    let elem = w.open(LIST_ELEM);
    w.put_str(EXPR_NAME, name);
    w.nest(EXPR_DATA, fill);
    w.close(elem);
}

fn put(w: &mut Writer, family: Family, expression: &Expression) {
    match expression {
        Expression::Payload { dreg, base, offset, len } => named(w, "payload", |w| {
            w.put_u32(1, dreg.0);
            w.put_u32(2, *base);
            w.put_u32(3, *offset);
            w.put_u32(4, *len);
        }),
        Expression::PayloadSet { sreg, base, offset, len } => named(w, "payload", |w| {
            w.put_u32(5, sreg.0);
            w.put_u32(2, *base);
            w.put_u32(3, *offset);
            w.put_u32(4, *len);
            // IPv4's header has a checksum of its own (at 10); both families' addresses are in the transport's.
            if family == Family::Ip {
                w.put_u32(6, CSUM_INET);
                w.put_u32(7, 10);
            }
            w.put_u32(8, L4CSUM_PSEUDOHDR);
        }),
        Expression::Meta { dreg, key } => named(w, "meta", |w| {
            w.put_u32(2, *key);
            w.put_u32(1, dreg.0);
        }),
        Expression::MetaSet { sreg, key } => named(w, "meta", |w| {
            w.put_u32(2, *key);
            w.put_u32(3, sreg.0);
        }),
        Expression::Ct { dreg, key, direction } => named(w, "ct", |w| {
            w.put_u32(2, *key);
            w.put_u32(1, dreg.0);
            if let Some(direction) = direction {
                w.put(3, &[*direction]);
            }
        }),
        Expression::Cmp { sreg, equal, data } => compare(w, *sreg, *equal, data),
        Expression::Bitwise { sreg, dreg, mask, xor } => named(w, "bitwise", |w| {
            w.put_u32(1, sreg.0);
            w.put_u32(2, dreg.0);
            w.put_u32(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
            value(w, 4, mask);
            value(w, 5, xor);
        }),
        Expression::Lookup { set, sreg, dreg, inverted } => named(w, "lookup", |w| {
            w.put_u32(2, sreg.0);
            if let Some(dreg) = dreg {
                w.put_u32(3, dreg.0);
            }
            w.put_str(1, set);
            if *inverted {
                w.put_u32(5, 1);
            }
        }),
        Expression::Verdict(v) => named(w, "immediate", |w| {
            w.put_u32(1, 0);
            verdict(w, 2, v);
        }),
        Expression::Random { dreg, modulus } => named(w, "numgen", |w| {
            w.put_u32(1, dreg.0);
            w.put_u32(2, *modulus);
            w.put_u32(3, 1);
            w.put_u32(4, 0);
        }),
        Expression::Jhash { sreg, dreg, len, modulus, seed } => named(w, "hash", |w| {
            w.put_u32(1, sreg.0);
            w.put_u32(2, dreg.0);
            w.put_u32(3, *len);
            w.put_u32(4, *modulus);
            w.put_u32(5, *seed);
            w.put_u32(6, 0);
            w.put_u32(7, 0);
        }),
        Expression::Dnat { family, address, port } => named(w, "nat", |w| {
            w.put_u32(1, 1);
            w.put_u32(2, family.number().into());
            w.put_u32(3, address.0);
            w.put_u32(5, port.0);
        }),
        Expression::Masquerade => named(w, "masq", |w| w.put_u32(1, RANDOM_FULLY)),
        Expression::FibType { dreg, source } => {
            named(w, "fib", |w| {
                w.put_u32(3, if *source { 1 } else { 2 });
                w.put_u32(2, 3);
                w.put_u32(1, dreg.0);
            });
            compare(w, *dreg, true, &RTN_LOCAL.to_ne_bytes());
        }
        Expression::Reject => named(w, "reject", |w| {
            w.put_u32(1, 0);
            w.put(2, &[family.port_unreachable()]);
        }),
        // NFT_REJECT_TCP_RST; the kernel gives no code back for it
        Expression::Reset => named(w, "reject", |w| w.put_u32(1, 1)),
        Expression::Counter => named(w, "counter", |_| {}),
        Expression::Add { set, key, data, timeout } => dynset(w, 0, set, *key, *data, Some(*timeout)),
        Expression::Update { set, key, data, timeout } => dynset(w, 1, set, *key, *data, Some(*timeout)),
        Expression::Delete { set, key, data } => dynset(w, 2, set, *key, *data, None),
    }
}

fn dynset(w: &mut Writer, operation: u32, set: &str, key: Register, data: Option<Register>, timeout: Option<u64>) {
    named(w, "dynset", |w| {
        w.put_u32(4, key.0);
        if let Some(data) = data {
            w.put_u32(5, data.0);
        }
        w.put_u32(3, operation);
        if let Some(timeout) = timeout {
            w.put(6, &Be64::from(timeout).0);
        }
        w.put_str(1, set);
    });
}

fn compare(w: &mut Writer, sreg: Register, equal: bool, data: &[u8]) {
    named(w, "cmp", |w| {
        w.put_u32(1, sreg.0);
        w.put_u32(2, u32::from(!equal));
        value(w, 3, data);
    });
}

/// Whether the kernel's expressions `have` are what writing `want` (our bytes) gives: same expressions in the same order,
/// every attribute of ours with the same value, and nothing beyond what the kernel adds by itself and nft for nothing.
pub fn covers(have: &[u8], want: &[u8]) -> bool {
    let mut have = attributes(have).filter(|h| !turns_one_byte(h.value));
    attributes(want).all(|w| have.next().is_some_and(|h| same_expression(h.value, w.value))) && have.next().is_none()
}

/// Whether an expression changes the byte order of one byte in its place. nft 1.0.6 loads it before it looks up a protocol in
/// a set of ranges.
fn turns_one_byte(expression: &[u8]) -> bool {
    const SREG: u16 = 1;
    const DREG: u16 = 2;
    const LEN: u16 = 4;
    let value = |kind| find(expression, EXPR_DATA).and_then(|data| find(data.value, kind)).map(|a| a.u32());
    name(expression).is_some_and(|n| n == "byteorder") && value(LEN) == Some(1) && value(SREG) == value(DREG)
}

fn same_expression(have: &[u8], want: &[u8]) -> bool {
    let data = |e| find(e, EXPR_DATA).map(|a| a.value).unwrap_or_default();
    let expression = name(want).unwrap_or_default();
    name(have).is_some_and(|n| n == expression)
        && attributes(data(want)).all(|w| {
            find(data(have), w.kind)
                .map_or_else(|| left_out_by_kernel(&expression, w.kind, w.value), |h| same_value(&h, &w))
        })
        && attributes(data(have))
            .all(|h| find(data(want), h.kind).is_some() || added_by_kernel(&expression, h.kind, h.value))
}

fn same_attributes(have: &[u8], want: &[u8]) -> bool {
    attributes(want).all(|w| find(have, w.kind).is_some_and(|h| same_value(&h, &w)))
}

fn same_value(have: &Attribute<'_>, want: &Attribute<'_>) -> bool {
    if want.nested { same_attributes(have.value, want.value) } else { have.value == want.value }
}

/// Defaults that a dump of an expression has although nobody wrote them (nf_tables dump functions, Linux 6.18).
fn added_by_kernel(expression: &str, kind: u16, value: &[u8]) -> bool {
    match expression {
        "counter" => true,
        "nat" => matches!(kind, 4 | 6 | 7),
        "ct" => false,
        _ => value.iter().all(|&b| b == 0),
    }
}

/// Defaults that a dump of an expression lacks although they were written: `offset 0` of a hash (`nft_jhash_dump`).
fn left_out_by_kernel(expression: &str, kind: u16, value: &[u8]) -> bool {
    expression == "hash" && kind == 6 && value.iter().all(|&b| b == 0)
}

/// The kernel option that provides an expression, for a kernel that does not know it.
pub fn kernel_option(expression: &str, family: Family) -> Option<&'static str> {
    Some(match (expression, family) {
        ("fib", Family::Ip) => "CONFIG_NFT_FIB_IPV4",
        ("fib", Family::Ip6) => "CONFIG_NFT_FIB_IPV6",
        ("reject", Family::Ip) => "CONFIG_NFT_REJECT and CONFIG_NFT_REJECT_IPV4",
        ("reject", Family::Ip6) => "CONFIG_NFT_REJECT and CONFIG_NFT_REJECT_IPV6",
        ("numgen", _) => "CONFIG_NFT_NUMGEN",
        ("masq", _) => "CONFIG_NFT_MASQ",
        ("nat", _) => "CONFIG_NFT_NAT",
        ("ct", _) => "CONFIG_NFT_CT",
        ("hash", _) => "CONFIG_NFT_HASH",
        ("dynset", _) => "CONFIG_NF_TABLES with dynamic sets (Linux 5.4)",
        _ => return None,
    })
}

/// A counter that is no rule's: a set's for each new element (`None`: from zero), or an element's own.
pub fn counter(w: &mut Writer, from: Option<Count>) {
    w.put_str(EXPR_NAME, "counter");
    w.nest(EXPR_DATA, |w| {
        if let Some(Count { packets, bytes }) = from {
            w.put(1, &Be64::from(bytes).0);
            w.put(2, &Be64::from(packets).0);
        }
    });
}

/// What a counter has seen; `None` for another expression.
pub fn read_counter(expression: &[u8]) -> Option<Count> {
    let data = find(expression, EXPR_DATA).filter(|_| name(expression).is_some_and(|n| n == "counter"))?;
    let value = |kind| find(data.value, kind).map_or(0, |a| a.u64());
    Some(Count { packets: value(2), bytes: value(1) })
}

/// The name of an expression, from its list element.
pub fn name(element: &[u8]) -> Option<String> {
    find(element, EXPR_NAME).map(|a| a.text())
}
