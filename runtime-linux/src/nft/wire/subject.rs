//! From the kernel's answer (a sequence number, the offset of an attribute) back to the object, in words.

use super::super::model::{Family, Field};
use super::super::text::Concat;
use super::attribute::{self, Attribute, attributes, find};
use super::{Batch, FIRST_SEQ, expression, messages};

#[derive(Clone, Debug)]
pub(super) struct SetName {
    pub(super) noun: &'static str,
    pub(super) name: String,
    pub(super) key: Vec<Field>,
}

/// A message of a batch: where it starts and what it is about.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) start: usize,
    pub(super) family: Option<Family>,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Transaction,
    Object {
        noun: &'static str,
        name: String,
    },
    Rule {
        chain: String,
        number: usize,
    },
    /// Index into the batch's sets.
    Elements(usize),
}

impl Batch {
    /// The object that a message is about, in words: `element 192.168.5.65 . tcp . 443 of map services`, `rule 3 of chain
    /// postrouting`. `offset` is the kernel's NLMSGERR_ATTR_OFFS.
    pub fn subject(&self, seq: u32, offset: Option<u32>) -> Option<String> {
        let index = usize::try_from(seq.checked_sub(FIRST_SEQ)?).ok()?;
        let subject = self.subjects.get(index)?;
        let family = subject.family.map_or("", Family::name);
        Some(match &subject.what {
            What::Transaction => "transaction".into(),
            What::Object { noun: "table", name } => format!("table {family} {name}"),
            What::Object { noun, name } => format!("{noun} {name} of family {family}"),
            What::Rule { chain, number } => format!("rule {number} of chain {chain} of family {family}"),
            What::Elements(set) => {
                let SetName { noun, name, key } = self.sets.get(*set)?;
                match offset.and_then(|at| self.element_at(subject.start, at)) {
                    Some(bytes) => format!("element {} of {noun} {name}", Concat { fields: key, bytes, end: None }),
                    None => format!("elements of {noun} {name}"),
                }
            }
        })
    }

    /// Key of the element that the byte at `offset` of the message belongs to.
    fn element_at(&self, start: usize, offset: u32) -> Option<&[u8]> {
        let target = start + usize::try_from(offset).ok()?;
        let body = self.body(start)?;
        let list = find(body, 3)?.value;
        let hit = attributes(list).find(|e| self.range_of(e).contains(&target))?;
        expression::read_value(find(hit.value, 1)?.value)
    }

    /// Kernel options that the rule in a message needs: those of the expression at `offset`, or without an offset of all.
    pub fn kernel_options(&self, seq: u32, offset: Option<u32>) -> Vec<&'static str> {
        let options = || {
            let subject = self.subjects.get(usize::try_from(seq.checked_sub(FIRST_SEQ)?).ok()?)?;
            let (What::Rule { .. }, Some(family)) = (&subject.what, subject.family) else { return None };
            let expressions = find(self.body(subject.start)?, 4)?.value;
            let hit = offset.map(|at| subject.start + at as usize);
            let at_offset = |e: &Attribute<'_>| hit.is_none_or(|hit| self.range_of(e).contains(&hit));
            let names = attributes(expressions).filter(at_offset).filter_map(|e| expression::name(e.value));
            Some(names.filter_map(|n| expression::kernel_option(&n, family)).collect())
        };
        options().unwrap_or_default()
    }

    /// Where an attribute of this batch stands in it, header included.
    fn range_of(&self, attribute: &Attribute<'_>) -> std::ops::Range<usize> {
        let from = attribute.value.as_ptr() as usize - self.bytes().as_ptr() as usize;
        from - attribute::HEADER..from + attribute.value.len()
    }

    fn body(&self, start: usize) -> Option<&[u8]> {
        messages(self.bytes().get(start..)?).next().map(|m| m.attributes)
    }
}
