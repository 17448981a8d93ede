//! What the kernel holds under natlet's name.
//!
//! A set comes back as a [`Set`] of the model where its `typeof` says what it is; rules stay the kernel's bytes, to be
//! compared with what we would write ([`super::wire::expression::covers`]), so that a rule of another author needs no
//! understanding to be replaced.

mod collector;
mod keyed;
mod known;
mod loaded;

use super::model::{Elements, Family, Ruleset, Set, SetData};
use super::wire::attribute::{attributes, find};
use super::wire::element::read as read_elements;
use super::wire::{VERDICT_TYPE, expression, kind, set_flag, userdata};
use crate::netlink::{LoadError, Netlink};
use collector::Collector;

pub use keyed::recount;
pub use loaded::{Loaded, LoadedBase, LoadedChain, LoadedRule, LoadedSet, LoadedTable, Shape};

/// The name of natlet's tables.
pub const TABLE: &str = "natlet";
/// How often a read starts again when the ruleset moves under it.
const ATTEMPTS: u32 = 5;

/// Reads natlet's tables with all elements. 100,000 elements take the kernel about 0.2 s, and twice as many four times as
/// long (every part of a dump starts its walk anew): where it is known what should be there, [`read_expecting`] is faster.
pub fn read(netlink: &mut Netlink) -> Result<Loaded, LoadError> {
    read_with(netlink, &|_, _| Want::Dump)
}

/// As [`read`], for who has an idea of what is there: the elements of a large set are asked for by the keys that are
/// expected, which takes linear time. Only if the kernel has others than these is the set dumped.
pub fn read_expecting(netlink: &mut Netlink, expected: &Ruleset) -> Result<Loaded, LoadError> {
    read_with(netlink, &|family, have| {
        let table = expected.tables.iter().find(|t| t.family == family);
        let set = table.and_then(|t| t.sets.iter().find(|s| s.name == have.set.name));
        set.filter(|s| s.elements.len() > keyed::LARGE).map_or(Want::Dump, Want::Keys)
    })
}

/// Reads natlet's tables without the elements of their sets: cheap at any size.
pub fn read_objects(netlink: &mut Netlink) -> Result<Loaded, LoadError> {
    read_matching(netlink, |_| false)
}

/// Reads natlet's tables with the elements of the sets whose name is wanted.
pub fn read_matching(netlink: &mut Netlink, elements: impl Fn(&str) -> bool) -> Result<Loaded, LoadError> {
    read_with(netlink, &|_, have| if elements(&have.set.name) { Want::Dump } else { Want::Nothing })
}

/// Reads natlet's tables with the elements of the sets whose name is wanted, and of those of which only so can be known how
/// many they have: the kernel does not say, or has two for a range (sets of ranges of one field, which are small).
pub fn read_counts(netlink: &mut Netlink, elements: impl Fn(&str) -> bool) -> Result<Loaded, LoadError> {
    read_with(netlink, &|_, have| {
        let bounds = have.set.interval && have.set.key.len() == 1;
        if bounds || have.said.is_none() || elements(&have.set.name) { Want::Dump } else { Want::Nothing }
    })
}

/// How to read a set's elements.
enum Want<'w> {
    Nothing,
    Dump,
    /// As those of this set, or else all.
    Keys(&'w Set),
}

/// Says how to read each set.
type Wish<'w> = dyn Fn(Family, &LoadedSet) -> Want<'w> + 'w;

fn read_with(netlink: &mut Netlink, want: &Wish<'_>) -> Result<Loaded, LoadError> {
    for _ in 0..ATTEMPTS {
        let generation = netlink.generation()?;
        let mut reader = Reader { netlink, generation, consistent: true };
        let mut loaded = Loaded { generation, tables: Vec::new() };
        for family in [Family::Ip, Family::Ip6] {
            loaded.tables.extend(reader.table(family, want)?);
        }
        if reader.consistent && netlink.generation()? == generation {
            return Ok(loaded);
        }
    }
    Err(LoadError::Changing)
}

/// Reads what the kernel's rules have put into a memory. Elements may come and go meanwhile.
pub fn read_memory(netlink: &mut Netlink, family: Family, set: &Set) -> Result<Elements, LoadError> {
    let generation = netlink.generation()?;
    let set = Set { elements: set.empty_elements(), ..set.clone() };
    let mut loaded = LoadedSet { shape: Shape::of(&set), set, said: None, odd: false };
    Reader { netlink, generation, consistent: true }.elements(family, &mut loaded)?;
    Ok(loaded.set.elements)
}

struct Reader<'n> {
    netlink: &'n mut Netlink,
    generation: u32,
    /// All replies so far came from `generation`. Element dumps carry no "interrupted" flag, so the low 16 bits of the
    /// generation in each reply are what tells.
    consistent: bool,
}

impl Reader<'_> {
    fn table(&mut self, family: Family, want: &Wish<'_>) -> Result<Option<LoadedTable>, LoadError> {
        let mut table = None;
        self.netlink.get(
            kind::GETTABLE,
            Some(family),
            |w| w.put_str(1, TABLE),
            |message| {
                let attribute = |kind| find(message.attributes, kind);
                let comment = attribute(6).map(|a| userdata::read_comment(a.value).to_owned()).unwrap_or_default();
                let flags = attribute(2).map_or(0, |a| a.u32());
                table = Some(LoadedTable {
                    family,
                    name: TABLE.into(),
                    flags,
                    owner: attribute(7).map(|a| a.u32()),
                    comment,
                    sets: Vec::new(),
                    chains: Vec::new(),
                });
            },
        )?;
        let Some(mut table) = table else { return Ok(None) };
        table.sets = self.sets(family)?;
        table.chains = self.chains(family)?;
        let readable = |s: &&mut LoadedSet| !s.set.key.is_empty() && s.set.memory.is_none();
        for set in table.sets.iter_mut().filter(readable) {
            let read = match want(family, set) {
                Want::Nothing => true,
                Want::Dump => false,
                Want::Keys(expected) => self.elements_by_key(family, set, expected)?,
            };
            if !read {
                self.elements(family, set)?;
            }
        }
        Ok(Some(table))
    }

    /// A dump of objects of natlet's table; `parse` makes one of a reply's attributes.
    fn dump<T>(&mut self, kind: u8, family: Family, parse: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>, LoadError> {
        let (mut out, low) = (Vec::new(), self.generation & 0xffff);
        let mut same = true;
        let complete = self.netlink.dump(
            kind,
            family,
            |w| w.put_str(1, TABLE),
            |message| {
                same &= u32::from(message.resource) == low;
                if find(message.attributes, 1).is_some_and(|t| t.text() == TABLE) {
                    out.extend(parse(message.attributes));
                }
            },
        )?;
        self.consistent &= same && complete;
        Ok(out)
    }

    fn sets(&mut self, family: Family) -> Result<Vec<LoadedSet>, LoadError> {
        self.dump(kind::GETSET, family, parse_set)
    }

    fn chains(&mut self, family: Family) -> Result<Vec<LoadedChain>, LoadError> {
        let mut chains = self.dump(kind::GETCHAIN, family, parse_chain)?;
        let rules = self.dump(kind::GETRULE, family, |attributes| {
            let chain = find(attributes, 2)?.text();
            Some((chain, parse_rule(attributes)))
        })?;
        for (chain, rule) in rules {
            if let Some(chain) = chains.iter_mut().find(|c| c.name == chain) {
                chain.rules.push(rule);
            }
        }
        Ok(chains)
    }

    fn elements(&mut self, family: Family, loaded: &mut LoadedSet) -> Result<(), LoadError> {
        let mut collector = Collector::new(&loaded.set, loaded.shape.key_len);
        let low = self.generation & 0xffff;
        let mut same = true;
        let complete = self.netlink.dump(
            kind::GETSETELEM,
            family,
            |w| {
                w.put_str(1, TABLE);
                w.put_str(2, &loaded.set.name);
            },
            |message| {
                same &= u32::from(message.resource) == low;
                read_elements(message.attributes).for_each(|e| collector.push(&e));
            },
        )?;
        self.consistent &= same && complete;
        collector.finish(loaded);
        Ok(())
    }
}

fn parse_set(body: &[u8]) -> Option<LoadedSet> {
    let (mut name, mut shape, mut size, mut said) = (None, Shape::default(), None, None);
    for a in attributes(body) {
        match a.kind {
            2 => name = Some(a.text()),
            3 => shape.flags = a.u32(),
            4 => shape.key_type = a.u32(),
            5 => shape.key_len = a.u32(),
            6 => shape.data_type = a.u32(),
            7 => shape.data_len = a.u32(),
            9 => size = find(a.value, 1).map(|s| s.u32()),
            13 => shape.userdata = a.value.to_vec(),
            17 => shape.counter = expression::read_counter(a.value).is_some(),
            20 => said = Some(a.u32()),
            _ => {}
        }
    }
    let data = match (shape.flags & set_flag::MAP, shape.data_type) {
        (0, _) => Some(SetData::None),
        (_, VERDICT_TYPE) => Some(SetData::Verdict(Vec::new())),
        _ => userdata::read_data_fields(&shape.userdata).map(SetData::Value),
    };
    let key = userdata::read_key_fields(&shape.userdata).unwrap_or_default();
    let mut set = Set {
        name: name?,
        key,
        data: data.clone().unwrap_or(SetData::None),
        interval: shape.flags & set_flag::INTERVAL != 0,
        size,
        memory: (shape.flags & set_flag::EVAL != 0).then(String::new),
        counter: shape.counter,
        comment: userdata::read_set_comment(&shape.userdata).to_owned(),
        elements: Elements::default(),
    };
    // A form that our words do not describe is not read any further: it is to be replaced, not changed.
    if data.is_none() || !Shape::of(&set).fits(&shape) {
        set.key = Vec::new();
    }
    set.elements = set.empty_elements();
    Some(LoadedSet { set, shape, said, odd: false })
}

fn parse_chain(body: &[u8]) -> Option<LoadedChain> {
    let base = find(body, 4).map(|hook| LoadedBase {
        kind: find(body, 7).map(|a| a.text()).unwrap_or_default(),
        hook: find(hook.value, 1).map_or(0, |a| a.u32()),
        priority: find(hook.value, 2).map_or(0, |a| a.u32()).cast_signed(),
        policy: find(body, 5).map_or(1, |a| a.u32()),
    });
    Some(LoadedChain { name: find(body, 3)?.text(), base, rules: Vec::new() })
}

fn parse_rule(body: &[u8]) -> LoadedRule {
    LoadedRule {
        handle: find(body, 3).map_or(0, |a| a.u64()),
        expressions: find(body, 4).map(|a| a.value.to_vec()).unwrap_or_default(),
        comment: find(body, 7).map(|a| userdata::read_comment(a.value).to_owned()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::super::wire::{Batch, messages};
    use super::*;

    fn written() -> Vec<u8> {
        let table = fixture::table(Family::Ip);
        let mut batch = Batch::new(Some(3));
        for (id, set) in (1..).zip(&table.sets) {
            batch.new_set(table.place(), set, id);
            batch.add_elements(table.place(), set, &mut set.elements.iter().peekable(), usize::MAX);
        }
        for base in &table.base_chains {
            batch.new_base_chain(table.place(), base);
            for (number, rule) in (1..).zip(&base.chain.rules) {
                batch.new_rule(table.place(), &base.chain.name, number, rule);
            }
        }
        batch.end();
        batch.bytes().to_vec()
    }

    /// Reads everything that can be read from these bytes, whatever they are; elements go to every set seen so far.
    fn read_all(bytes: &[u8]) -> Vec<LoadedSet> {
        let mut sets: Vec<LoadedSet> = Vec::new();
        for message in messages(bytes) {
            match message.kind() {
                Some(kind::NEWSET) => sets.extend(parse_set(message.attributes)),
                Some(kind::NEWSETELEM) => {
                    for set in sets.iter_mut().filter(|s| !s.set.key.is_empty()) {
                        if find(message.attributes, 2).is_some_and(|n| n.text() != set.set.name) {
                            continue;
                        }
                        let mut collector = Collector::new(&set.set, set.shape.key_len);
                        read_elements(message.attributes).for_each(|e| collector.push(&e));
                        collector.finish(set);
                    }
                }
                Some(kind::NEWCHAIN) => drop(parse_chain(message.attributes)),
                Some(kind::NEWRULE) => {
                    let rule = parse_rule(message.attributes);
                    let _ = super::super::wire::expression::covers(&rule.expressions, &rule.expressions);
                }
                _ => {}
            }
        }
        sets
    }

    #[test]
    fn reads_what_we_write() {
        let table = fixture::table(Family::Ip);
        for (have, want) in read_all(&written()).iter().zip(&table.sets) {
            assert_eq!(have.set, *want);
            assert!(!have.odd);
        }
    }

    #[test]
    fn odd_bytes_do_not_panic() {
        let good = written();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below as u64).unwrap()
        };
        for _ in 0..3000 {
            let mut bytes = good.clone();
            for _ in 0..=random(8) {
                let at = random(bytes.len());
                bytes[at] = [0, 1, 4, 255, bytes[at] ^ (1 << random(8))][random(5)];
            }
            bytes.truncate(good.len() - random(good.len()) / (1 + random(8)));
            read_all(&bytes);
        }
    }
}
