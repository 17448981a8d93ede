//! A rule in `nft`'s words: its expressions are run on registers that hold text instead of values.

use super::super::model::{Expression, Family, Register, Rule, Set, SetData, Table};
use std::net::{Ipv4Addr, Ipv6Addr};

type Unsayable = String;

/// The rule, without its comment.
pub(super) fn text(table: &Table, rule: &Rule) -> Result<String, Unsayable> {
    let mut machine = Machine { table, registers: Default::default(), words: Vec::new() };
    rule.expressions.iter().try_for_each(|e| machine.step(e))?;
    Ok(machine.words.join(" "))
}

/// What a register holds.
#[derive(Clone, Debug)]
struct Held {
    what: What,
    /// Bytes, padding left out.
    len: u32,
}

#[derive(Clone, Debug)]
enum What {
    /// An address of the network header, or its first bytes.
    Address { source: bool },
    /// `meta l4proto`.
    Protocol,
    /// A port.
    Port(&'static str),
    /// Host-endian bits with names for some of them.
    Bits { name: &'static str, flags: &'static [(u32, &'static str)] },
    /// Bits after `& mask ^ xor`.
    Masked { name: &'static str, flags: &'static [(u32, &'static str)], mask: u32, xor: u32 },
    /// Anything that is only used whole.
    Whole(String),
    /// What a map gave; the rest of its fields lie in the registers behind.
    Mapped(String),
}

const STATES: &[(u32, &str)] = &[(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "untracked")];
const STATUSES: &[(u32, &str)] = &[
    (1, "expected"),
    (2, "seen-reply"),
    (4, "assured"),
    (8, "confirmed"),
    (0x10, "snat"),
    (0x20, "dnat"),
    (0x200, "dying"),
];

struct Machine<'t> {
    table: &'t Table,
    /// By word.
    registers: [Option<Held>; 16],
    words: Vec<String>,
}

impl Machine<'_> {
    #[expect(clippy::unnecessary_wraps, reason = "each step ends in it")]
    fn say(&mut self, text: impl Into<String>) -> Result<(), Unsayable> {
        self.words.push(text.into());
        Ok(())
    }

    fn step(&mut self, expression: &Expression) -> Result<(), Unsayable> {
        match expression {
            Expression::Payload { dreg, base, offset, len } => {
                let what = self.payload(*base, *offset, *len)?;
                self.put(*dreg, what, *len)
            }
            Expression::Meta { dreg, key } => match key {
                16 => self.put(*dreg, What::Protocol, 1),
                2 => self.put(*dreg, What::Whole("meta priority".into()), 4),
                3 => self.put(*dreg, What::Bits { name: "meta mark", flags: &[] }, 4),
                _ => Err(format!("meta key {key}")),
            },
            Expression::PayloadSet { sreg, base, offset, len } => {
                let What::Address { source } = self.payload(*base, *offset, *len)? else {
                    return Err("a header's field other than an address written".into());
                };
                let text = format!("{} set {}", self.address(source), self.whole(*sreg)?);
                self.say(text)
            }
            Expression::MetaSet { sreg, key: key @ (2 | 3) } => {
                let name = if *key == 2 { "priority" } else { "mark" };
                let value = self.whole(*sreg)?;
                self.say(format!("meta {name} set {value}"))
            }
            Expression::MetaSet { key, .. } => Err(format!("meta key {key}")),
            Expression::Ct { dreg, key, direction } => self.conntrack(*dreg, *key, *direction),
            Expression::Cmp { sreg, equal, data } => self.compare(*sreg, *equal, data),
            Expression::Bitwise { sreg, dreg, mask, xor } => self.bitwise(*sreg, *dreg, mask, xor),
            Expression::Lookup { set, sreg, dreg, inverted } => self.look_up(set, *sreg, *dreg, *inverted),
            Expression::Verdict(verdict) => self.say(verdict.to_string()),
            Expression::Random { dreg, modulus } => {
                self.put(*dreg, What::Whole(format!("numgen random mod {modulus}")), 4)
            }
            Expression::Jhash { sreg, dreg, len, modulus, seed } => {
                let hashed = self.stretch(*sreg, *len)?;
                let text = format!("jhash {hashed} mod {modulus} seed {seed:#x}");
                self.put(*dreg, What::Whole(text), 4)
            }
            Expression::Dnat { family, address, port } => self.dnat(*family, *address, *port),
            Expression::Masquerade => self.say("masquerade fully-random"),
            Expression::FibType { dreg, source } => {
                let of = if *source { "saddr" } else { "daddr" };
                self.say(format!("fib {of} type local"))?;
                self.put(*dreg, What::Whole(format!("fib {of} type")), 4)
            }
            Expression::Reject => self.say("reject"),
            Expression::Reset => self.say("reject with tcp reset"),
            Expression::Counter => self.say("counter"),
            Expression::Update { set, key, data, timeout } => self.memorize("update", set, *key, *data, *timeout),
            Expression::Add { set, key, data, timeout } => self.memorize("add", set, *key, *data, *timeout),
            Expression::Delete { set, key, data } => self.memorize("delete", set, *key, *data, 0),
        }
    }

    fn payload(&self, base: u32, offset: u32, len: u32) -> Result<What, Unsayable> {
        let full = address_len(self.table.family);
        let (source, destination) = match self.table.family {
            Family::Ip => (12, 16),
            Family::Ip6 => (8, 24),
        };
        match (base, offset, len) {
            (1, at, 1..) if at == source && len <= full => Ok(What::Address { source: true }),
            (1, at, 1..) if at == destination && len <= full => Ok(What::Address { source: false }),
            (2, 0, 2) => Ok(What::Port("th sport")),
            (2, 2, 2) => Ok(What::Port("th dport")),
            _ => Err(format!("{len} bytes at {offset} of header {base}")),
        }
    }

    fn conntrack(&mut self, dreg: Register, key: u32, direction: Option<u8>) -> Result<(), Unsayable> {
        let direction = match direction {
            None => "ct",
            Some(0) => "ct original",
            Some(_) => "ct reply",
        };
        let (text, len) = match (key, direction) {
            (0, "ct") => return self.put(dreg, What::Bits { name: "ct state", flags: STATES }, 4),
            (2, "ct") => return self.put(dreg, What::Bits { name: "ct status", flags: STATUSES }, 4),
            (11, _) => ("proto-src", 2),
            (12, _) => ("proto-dst", 2),
            (19, _) => ("ip saddr", 4),
            (20, _) => ("ip daddr", 4),
            (21, _) => ("ip6 saddr", 16),
            (22, _) => ("ip6 daddr", 16),
            _ => return Err(format!("{direction} key {key}")),
        };
        self.put(dreg, What::Whole(format!("{direction} {text}")), len)
    }

    fn compare(&mut self, sreg: Register, equal: bool, data: &[u8]) -> Result<(), Unsayable> {
        let held = self.get(word(sreg)?)?.clone();
        let operator = if equal { "" } else { "!= " };
        let text = match held.what {
            What::Address { source } => {
                let prefix = if held.len < address_len(self.table.family) {
                    format!("/{}", held.len * 8)
                } else {
                    String::new()
                };
                format!("{} {operator}{}{prefix}", self.address(source), address_text(self.table.family, data)?)
            }
            What::Protocol => format!("meta l4proto {operator}{}", protocol_text(data)?),
            What::Port(name) => {
                let port = data.try_into().map(u16::from_be_bytes).map_err(|_| "a port of another length")?;
                format!("{name} {operator}{port}")
            }
            What::Bits { name, .. } => format!("{name} {operator}{:#010x}", host(data)?),
            What::Masked { name, flags, mask, xor: 0 } => match (flag_names(flags, mask), host(data)?, equal) {
                (Some(names), 0, false) => format!("{name} {names}"),
                (Some(names), 0, true) => format!("{name} ! {names}"),
                (_, value, true) => format!("{name} & {mask:#010x} == {value:#010x}"),
                (_, value, false) => format!("{name} & {mask:#010x} != {value:#010x}"),
            },
            What::Masked { .. } | What::Whole(_) | What::Mapped(_) => return Err("a comparison".into()),
        };
        self.say(text)
    }

    fn bitwise(&mut self, sreg: Register, dreg: Register, mask: &[u8], xor: &[u8]) -> Result<(), Unsayable> {
        match self.get(word(sreg)?)?.what {
            What::Bits { name, flags } => {
                self.put(dreg, What::Masked { name, flags, mask: host(mask)?, xor: host(xor)? }, 4)
            }
            _ => Err("arithmetic".into()),
        }
    }

    fn look_up(&mut self, set: &str, sreg: Register, dreg: Option<Register>, inverted: bool) -> Result<(), Unsayable> {
        let key = self.key(self.set(set)?, sreg)?;
        match dreg {
            None => {
                let operator = if inverted { "!= " } else { "" };
                self.say(format!("{key} {operator}@{set}"))
            }
            Some(Register(0)) => self.say(format!("{key} vmap @{set}")),
            Some(dreg) => {
                let SetData::Value(fields) = &self.set(set)?.data else { return Err(format!("{set} has no values")) };
                let len = fields.first().map_or(0, |f| u32::try_from(f.width()).unwrap_or(0));
                self.put(dreg, What::Mapped(format!("{key} map @{set}")), len)
            }
        }
    }

    /// `dnat` to what a map gave: its address, and its port in the register behind.
    fn dnat(&mut self, family: Family, address: Register, port: Register) -> Result<(), Unsayable> {
        let held = self.get(word(address)?)?;
        let What::Mapped(map) = &held.what else { return Err("a translation to no map's value".into()) };
        if word(port)? != word(address)? + registers(held.len) {
            return Err("a translation to a port from elsewhere".into());
        }
        let text = format!("dnat {} to {map}", family.name());
        self.say(text)
    }

    /// A statement on an element of a set that rules fill.
    fn memorize(
        &mut self,
        verb: &str,
        set: &str,
        key: Register,
        data: Option<Register>,
        milliseconds: u64,
    ) -> Result<(), Unsayable> {
        let key = self.key(self.set(set)?, key)?;
        let data = match data {
            Some(register) => format!(" : {}", self.whole(register)?),
            None => String::new(),
        };
        let timeout = match (milliseconds, milliseconds % 1000) {
            (0, _) => String::new(),
            (_, 0) => format!(" timeout {}s", milliseconds / 1000),
            _ => format!(" timeout {milliseconds}ms"),
        };
        self.say(format!("{verb} @{set} {{ {key}{timeout}{data} }}"))
    }

    fn set(&self, name: &str) -> Result<&Set, Unsayable> {
        self.table.sets.iter().find(|s| s.name == name).ok_or_else(|| format!("no set {name}"))
    }

    /// The fields of a set's key, from the registers that they lie in.
    fn key(&self, set: &Set, start: Register) -> Result<String, Unsayable> {
        let mut at = word(start)?;
        let mut parts = Vec::new();
        for field in &set.key {
            parts.push(self.word_text(at)?);
            at += registers(u32::try_from(field.width()).unwrap_or(0));
        }
        Ok(parts.join(" . "))
    }

    /// Whatever fills `len` bytes from a register on.
    fn stretch(&self, start: Register, len: u32) -> Result<String, Unsayable> {
        let (mut at, end) = (word(start)?, word(start)? + registers(len));
        let mut parts = Vec::new();
        while at < end {
            parts.push(self.word_text(at)?);
            at += registers(self.get(at)?.len);
        }
        Ok(parts.join(" . "))
    }

    fn whole(&self, register: Register) -> Result<String, Unsayable> {
        self.word_text(word(register)?)
    }

    fn word_text(&self, word: usize) -> Result<String, Unsayable> {
        let held = self.get(word)?;
        Ok(match &held.what {
            What::Address { source } if held.len == address_len(self.table.family) => self.address(*source),
            What::Address { .. } => return Err("a part of an address".into()),
            What::Protocol => "meta l4proto".into(),
            What::Port(name) | What::Bits { name, .. } => (*name).into(),
            What::Masked { name, mask, xor: 0, .. } => format!("{name} & {mask:#010x}"),
            What::Masked { name, mask: u32::MAX, xor, .. } => format!("{name} ^ {xor:#010x}"),
            What::Masked { name, mask, xor, .. } if !mask == *xor => format!("{name} | {xor:#010x}"),
            What::Masked { name, mask, xor, .. } => format!("{name} & {mask:#010x} ^ {xor:#010x}"),
            What::Whole(text) | What::Mapped(text) => text.clone(),
        })
    }

    fn address(&self, source: bool) -> String {
        format!("{} {}", self.table.family.name(), if source { "saddr" } else { "daddr" })
    }

    fn put(&mut self, register: Register, what: What, len: u32) -> Result<(), Unsayable> {
        let slot = self.registers.get_mut(word(register)?).ok_or("a register that is none")?;
        *slot = Some(Held { what, len });
        Ok(())
    }

    fn get(&self, word: usize) -> Result<&Held, Unsayable> {
        self.registers.get(word).and_then(Option::as_ref).ok_or_else(|| format!("nothing is in register {word}"))
    }
}

/// The first word of a register.
fn word(register: Register) -> Result<usize, Unsayable> {
    match register.0 {
        n @ 1..=4 => Ok(n as usize * 4 - 4),
        n @ 8..=23 => Ok(n as usize - 8),
        n => Err(format!("register {n}")),
    }
}

/// Words that so many bytes fill.
const fn registers(len: u32) -> usize {
    len.div_ceil(4) as usize
}

const fn address_len(family: Family) -> u32 {
    match family {
        Family::Ip => 4,
        Family::Ip6 => 16,
    }
}

fn host(bytes: &[u8]) -> Result<u32, Unsayable> {
    bytes.try_into().map(u32::from_ne_bytes).map_err(|_| "a number of another length".into())
}

/// An address whose last bytes may be missing.
fn address_text(family: Family, bytes: &[u8]) -> Result<String, Unsayable> {
    let mut full = [0; 16];
    full.get_mut(..bytes.len()).ok_or("an address that is too long")?.copy_from_slice(bytes);
    Ok(match family {
        Family::Ip => Ipv4Addr::new(full[0], full[1], full[2], full[3]).to_string(),
        Family::Ip6 => Ipv6Addr::from(full).to_string(),
    })
}

fn protocol_text(data: &[u8]) -> Result<String, Unsayable> {
    match data {
        [6] => Ok("tcp".into()),
        [17] => Ok("udp".into()),
        [132] => Ok("sctp".into()),
        [other] => Ok(other.to_string()),
        _ => Err("a protocol of another length".into()),
    }
}

/// `new,untracked`; `None` where a bit has no name.
fn flag_names(flags: &[(u32, &str)], mask: u32) -> Option<String> {
    let named: Vec<&str> = flags.iter().filter(|(bit, _)| mask & bit != 0).map(|(_, name)| *name).collect();
    let known = flags.iter().fold(0, |all, (bit, _)| all | bit);
    (mask & !known == 0 && !named.is_empty()).then(|| named.join(","))
}
