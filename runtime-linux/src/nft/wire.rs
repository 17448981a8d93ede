//! nf_tables messages on the wire: a [`Batch`] is one transaction.
//!
//! One flat buffer, written once from front to back: 100,000 elements cost no allocation each. Sequence numbers count the
//! messages of a batch, so that an error of the kernel (a sequence number and the offset of an attribute) leads back to the
//! object in words: [`Batch::subject`].

pub mod attribute;
pub mod element;
pub mod expression;
#[cfg(test)]
mod golden;
mod header;
mod set;
mod subject;
pub mod userdata;

pub use header::{Answer, Message, kind, messages, request};
pub use set::{VERDICT_TYPE, data_type, set_flag, set_flags, type_number};

use std::iter::Peekable;

use super::model::{BaseChain, ChainType, Element, Family, Hook, Ownership, Rule, Set, Table, width};
use attribute::Writer;
use set::description;
use subject::{SetName, Subject, What};

/// Sequence number of a batch's first message.
pub const FIRST_SEQ: u32 = 1;

/// A table, as the place of its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Family.
    pub family: Family,
    /// Name.
    pub table: &'a str,
}

impl Table {
    /// This table as a place.
    pub fn place(&self) -> Place<'_> {
        Place { family: self.family, table: &self.name }
    }
}

/// A transaction: all of it takes effect, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    writer: Writer,
    subjects: Vec<Subject>,
    /// Names and key fields of sets whose elements are in the batch.
    sets: Vec<SetName>,
    generation: Option<u32>,
    too_long: Option<usize>,
}

impl Batch {
    /// An empty transaction that the kernel refuses (ERESTART) unless its ruleset still has this generation.
    pub fn new(generation: Option<u32>) -> Self {
        Self::with_capacity(generation, 0)
    }

    /// As [`Batch::new`], with room for so many bytes.
    pub fn with_capacity(generation: Option<u32>, bytes: usize) -> Self {
        let writer = Writer { bytes: Vec::with_capacity(bytes), overflow: false };
        let mut batch = Self { writer, generation, ..Self::default() };
        batch.message(kind::BATCH_BEGIN, 0, None, What::Transaction, |w| {
            if let Some(generation) = generation {
                w.put_u32(1, generation);
            }
        });
        batch
    }

    /// Makes a batch that was created with a generation insist on this one; 0 lifts the condition.
    pub fn insist_on(&mut self, generation: u32) {
        const VALUE: std::ops::Range<usize> = 24..28;
        if self.generation.is_some() {
            self.generation = Some(generation);
            self.writer.bytes[VALUE].copy_from_slice(&attribute::Be32::from(generation).0);
        }
    }

    /// Closes the transaction. Without this the kernel checks it and throws it away.
    pub fn end(&mut self) {
        self.message(kind::BATCH_END, header::ACK, None, What::Transaction, |_| {});
    }

    /// What is sent.
    pub fn bytes(&self) -> &[u8] {
        &self.writer.bytes
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.writer.len()
    }

    /// Whether the batch holds nothing but its frame.
    pub fn is_empty(&self) -> bool {
        self.subjects.iter().all(|s| matches!(s.what, What::Transaction))
    }

    /// The generation that the batch insists on.
    pub fn generation(&self) -> Option<u32> {
        self.generation
    }

    /// Sequence number of the last message.
    pub fn last_seq(&self) -> u32 {
        FIRST_SEQ + u32::try_from(self.subjects.len()).unwrap_or(u32::MAX).saturating_sub(1)
    }

    /// The object whose message came out longer than netlink can say; such a batch must not be sent.
    pub fn too_long(&self) -> Option<String> {
        let index = self.too_long?;
        self.subject(FIRST_SEQ + u32::try_from(index).ok()?, None)
    }

    /// NEWTABLE. On a table that exists with the same ownership it changes nothing.
    pub fn new_table(&mut self, table: &Table, ownership: Ownership) {
        self.object(kind::NEWTABLE, header::CREATE, table.place(), "table", &table.name, |w| {
            w.put_str(1, &table.name);
            w.put_u32(2, ownership.table_flags());
            userdata::comment(w, 6, &table.comment);
        });
    }

    /// NEWTABLE that makes this socket the owner of a table whose owner has gone, or of a new one.
    pub fn adopt_table(&mut self, place: Place<'_>) {
        self.object(kind::NEWTABLE, header::CREATE, place, "table", place.table, |w| {
            w.put_str(1, place.table);
            w.put_u32(2, Ownership::Socket.table_flags());
        });
    }

    /// DELTABLE with everything in it.
    pub fn delete_table(&mut self, place: Place<'_>) {
        self.object(kind::DELTABLE, 0, place, "table", place.table, |w| w.put_str(1, place.table));
    }

    /// Deletes a table whether it is there or not: creates it first. (DESTROYTABLE would need Linux 6.3.)
    pub fn delete_table_if_there(&mut self, place: Place<'_>) {
        self.object(kind::NEWTABLE, header::CREATE, place, "table", place.table, |w| w.put_str(1, place.table));
        self.delete_table(place);
    }

    /// NEWSET. `id` is any number that no other new set of the batch has.
    pub fn new_set(&mut self, place: Place<'_>, set: &Set, id: u32) {
        self.sized_set(place, set, id, set.size);
    }

    /// NEWSET on a set that exists: raises its size and changes nothing else. It holds once the transaction is
    /// committed, not for elements in the same one (tried on Linux 6.18; older ones may ignore it).
    pub fn grow_set(&mut self, place: Place<'_>, set: &Set, id: u32, size: u32) {
        self.sized_set(place, set, id, Some(size));
    }

    fn sized_set(&mut self, place: Place<'_>, set: &Set, id: u32, size: Option<u32>) {
        self.object(kind::NEWSET, header::CREATE, place, set.noun(), &set.name, |w| {
            w.put_str(1, place.table);
            w.put_str(2, &set.name);
            w.put_u32(3, set_flags(set));
            w.put_u32(4, type_number(&set.key));
            w.put_u32(5, u32::try_from(width(&set.key)).unwrap_or(u32::MAX));
            if let Some((kind, len)) = data_type(&set.data) {
                w.put_u32(6, kind);
                w.put_u32(7, len);
            }
            w.put_u32(10, id);
            description(w, set, size);
            w.put(13, &userdata::set(set));
            if set.counter {
                w.nest(17, |w| expression::counter(w, None));
            }
        });
    }

    /// DELSET.
    pub fn delete_set(&mut self, place: Place<'_>, name: &str) {
        self.object(kind::DELSET, 0, place, "set", name, |w| {
            w.put_str(1, place.table);
            w.put_str(2, name);
        });
    }

    /// NEWCHAIN without a hook.
    pub fn new_chain(&mut self, place: Place<'_>, name: &str) {
        self.object(kind::NEWCHAIN, header::CREATE, place, "chain", name, |w| {
            w.put_str(1, place.table);
            w.put_str(3, name);
        });
    }

    /// NEWCHAIN at a hook, policy accept.
    pub fn new_base_chain(&mut self, place: Place<'_>, base: &BaseChain) {
        self.object(kind::NEWCHAIN, header::CREATE, place, "chain", &base.chain.name, |w| {
            w.put_str(1, place.table);
            w.put_str(3, &base.chain.name);
            w.put_str(7, base.kind.name());
            w.put_u32(5, 1);
            w.nest(4, |w| {
                w.put_u32(1, base.hook.number());
                w.put_u32(2, base.priority.cast_unsigned());
            });
        });
    }

    /// DELCHAIN. Nothing may go to it any more.
    pub fn delete_chain(&mut self, place: Place<'_>, name: &str) {
        self.object(kind::DELCHAIN, 0, place, "chain", name, |w| {
            w.put_str(1, place.table);
            w.put_str(3, name);
        });
    }

    /// NEWRULE at the end of a chain; `number` counts from 1 and is for errors only.
    pub fn new_rule(&mut self, place: Place<'_>, chain: &str, number: usize, rule: &Rule) {
        let what = What::Rule { chain: chain.into(), number };
        self.message(kind::NEWRULE, header::CREATE | header::APPEND, Some(place.family), what, |w| {
            w.put_str(1, place.table);
            w.put_str(2, chain);
            w.nest(4, |w| expression::expressions(w, place.family, rule));
            userdata::comment(w, 7, &rule.comment);
        });
    }

    /// DELRULE of all rules of a chain.
    pub fn flush_chain(&mut self, place: Place<'_>, chain: &str) {
        self.object(kind::DELRULE, 0, place, "chain", chain, |w| {
            w.put_str(1, place.table);
            w.put_str(2, chain);
        });
    }

    /// DELRULE of one rule by its handle.
    pub fn delete_rule(&mut self, place: Place<'_>, chain: &str, handle: u64) {
        self.object(kind::DELRULE, 0, place, "chain", chain, |w| {
            w.put_str(1, place.table);
            w.put_str(2, chain);
            w.put(3, &attribute::Be64::from(handle).0);
        });
    }

    /// NEWSETELEM of what `elements` yields, in messages of less than 64 KiB, until the batch is longer than `limit`; what is
    /// left stays in the iterator.
    pub fn add_elements<'e>(
        &mut self,
        place: Place<'_>,
        set: &Set,
        elements: &mut Peekable<impl Iterator<Item = Element<'e>>>,
        limit: usize,
    ) {
        self.elements(kind::NEWSETELEM, place, set, elements, limit);
    }

    /// DELSETELEM, otherwise as [`Batch::add_elements`]. Data and comments are not looked at.
    pub fn delete_elements<'e>(
        &mut self,
        place: Place<'_>,
        set: &Set,
        elements: &mut Peekable<impl Iterator<Item = Element<'e>>>,
        limit: usize,
    ) {
        self.elements(kind::DELSETELEM, place, set, elements, limit);
    }

    fn elements<'e>(
        &mut self,
        kind: u8,
        place: Place<'_>,
        set: &Set,
        elements: &mut Peekable<impl Iterator<Item = Element<'e>>>,
        limit: usize,
    ) {
        while elements.peek().is_some() && self.len() < limit {
            let index = self.set_index(set);
            let flags = if kind == kind::NEWSETELEM { header::CREATE } else { 0 };
            self.message(kind, flags, Some(place.family), What::Elements(index), |w| {
                w.put_str(1, place.table);
                w.put_str(2, &set.name);
                let list = w.open(3);
                element::fill(w, set, kind == kind::NEWSETELEM, elements);
                w.close(list);
            });
        }
    }

    fn set_index(&mut self, set: &Set) -> usize {
        match self.sets.last() {
            Some(last) if last.name == set.name => self.sets.len() - 1,
            _ => {
                self.sets.push(SetName { noun: set.noun(), name: set.name.clone(), key: set.key.clone() });
                self.sets.len() - 1
            }
        }
    }

    fn object(
        &mut self,
        kind: u8,
        flags: u16,
        place: Place<'_>,
        noun: &'static str,
        name: &str,
        fill: impl FnOnce(&mut Writer),
    ) {
        self.message(kind, flags, Some(place.family), What::Object { noun, name: name.into() }, fill);
    }

    fn message(&mut self, kind: u8, flags: u16, family: Option<Family>, what: What, fill: impl FnOnce(&mut Writer)) {
        let start = self.writer.len();
        self.subjects.push(Subject { start, family, what });
        let seq = self.last_seq();
        header::message(&mut self.writer, kind, flags, family, seq, fill);
        if self.writer.overflow && self.too_long.is_none() {
            self.too_long = Some(self.subjects.len() - 1);
        }
    }
}

impl ChainType {
    /// As the kernel names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

impl Hook {
    /// NF_INET_*.
    pub const fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }
}
