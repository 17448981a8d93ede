//! A phase of a plan, and how it becomes batches.

use super::super::model::{BaseChain, Chain, Count, Element, Ownership, Set, SetData, Table};
use super::super::wire::{Batch, Place};

/// Room that a message needs beyond the limit at which a batch is closed.
const LARGEST_MESSAGE: usize = 68 * 1024;

/// Which step a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhaseName {
    /// Raises the size of sets: on its own, because the kernel counts elements against the size before the transaction.
    Grow,
    /// Adds what nothing leads to yet.
    Prepare,
    /// Changes where packets are led; also a whole table.
    Switch,
    /// Removes what nothing leads to any more.
    Clean,
}

/// One transaction of a plan.
#[derive(Clone, Debug)]
pub struct Phase<'a> {
    /// Which one.
    pub name: PhaseName,
    pub(super) operations: Vec<Operation<'a>>,
}

#[derive(Clone, Debug)]
pub(super) enum Operation<'a> {
    NewTable(&'a Table, Ownership),
    DeleteTable(Place<'a>),
    NewSet(Place<'a>, &'a Set),
    GrowSet(Place<'a>, &'a Set, u32),
    DeleteSet(Place<'a>, &'a str),
    NewChain(Place<'a>, &'a Chain),
    NewBaseChain(Place<'a>, &'a BaseChain),
    DeleteChain(Place<'a>, &'a str),
    /// The flag says that the chain has a hook.
    FlushChain(Place<'a>, &'a str, bool),
    NewRules(Place<'a>, &'a Chain, bool),
    Add(Place<'a>, Picked<'a>),
    Delete(Place<'a>, Picked<'a>),
}

/// Elements of a set.
#[derive(Clone, Debug)]
pub(super) struct Picked<'a> {
    /// The set's form, as it is wanted.
    form: &'a Set,
    /// Whose elements: the wanted set's or the loaded one's.
    from: &'a Set,
    /// Their positions; `None` for all.
    positions: Option<Vec<u32>>,
    /// What some of them have counted already, by position in ascending order.
    counts: Vec<(u32, Count)>,
}

impl<'a> Picked<'a> {
    pub(super) fn all(set: &'a Set) -> Self {
        Self { form: set, from: set, positions: None, counts: Vec::new() }
    }

    pub(super) fn of(form: &'a Set, from: &'a Set, positions: Vec<u32>) -> Self {
        Self { form, from, positions: Some(positions), counts: Vec::new() }
    }

    /// Goes on counting where the elements of another set stand: pairs of positions there and in this one's set.
    pub(super) fn counting_on(mut self, old: &Set, pairs: impl Iterator<Item = (u32, u32)>) -> Self {
        self.counts = pairs.map(|(i, j)| (j, old.elements.get(i as usize).count)).collect();
        self.counts.sort_unstable_by_key(|(position, _)| *position);
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.positions.as_ref().map_or(self.from.elements.is_empty(), Vec::is_empty)
    }

    fn iter(&self) -> impl Iterator<Item = Element<'a>> + '_ {
        let elements = &self.from.elements;
        let count = self.positions.as_ref().map_or(elements.len(), Vec::len);
        (0..count).map(move |i| {
            let position = self.positions.as_ref().map_or(i, |p| p[i] as usize);
            let known = self.counts.binary_search_by_key(&position, |(p, _)| *p as usize);
            let element = elements.get(position);
            Element { count: known.map_or(element.count, |at| self.counts[at].1), ..element }
        })
    }

    fn len(&self) -> usize {
        self.positions.as_ref().map_or(self.from.elements.len(), Vec::len)
    }
}

impl Phase<'_> {
    /// The phase as one batch; if that is longer than `max` bytes, as several in an order that keeps packets right: values
    /// first, then sets, then verdicts, and what hooks into the packet path last. Generations are to be set before each is
    /// sent ([`Batch::insist_on`]).
    pub fn batches(&self, max: usize) -> Vec<Batch> {
        let whole = encode(self.operations.iter(), usize::MAX, self.estimate());
        if whole.len() == 1 && whole[0].len() <= max {
            return whole;
        }
        let mut ordered: Vec<_> = self.operations.iter().collect();
        ordered.sort_by_key(|operation| operation.rank());
        encode(ordered.into_iter(), max.saturating_sub(LARGEST_MESSAGE), max)
    }

    fn estimate(&self) -> usize {
        self.operations.iter().fold(4096, |sum, operation| match operation {
            Operation::Add(_, p) | Operation::Delete(_, p) => sum + p.len() * p.bytes_each(),
            _ => sum + 512,
        })
    }
}

impl Picked<'_> {
    /// About what an element takes on the wire: its attributes' headers, key and data, comment.
    fn bytes_each(&self) -> usize {
        let elements = &self.from.elements;
        let verdict = if matches!(self.form.data, SetData::Verdict(_)) { 40 } else { 0 };
        let comment = if elements.has_comments() { 32 } else { 0 };
        24 + elements.key_len() + elements.data_len() + verdict + comment
    }
}

impl Operation<'_> {
    fn rank(&self) -> u8 {
        match self {
            Self::Add(_, p) | Self::Delete(_, p) => match p.form.data {
                SetData::Value(_) => 1,
                SetData::None => 2,
                SetData::Verdict(_) => 3,
            },
            Self::NewBaseChain(..) | Self::FlushChain(_, _, true) | Self::NewRules(_, _, true) => 4,
            _ => 0,
        }
    }

    /// Whether it changes elements of a set without data: no packet is led elsewhere by it.
    pub(super) fn leads_no_packet(&self) -> bool {
        matches!(self, Self::Add(_, picked) | Self::Delete(_, picked) if picked.form.data == SetData::None)
    }

    fn write(&self, batch: &mut Batch, id: u32) {
        match *self {
            Self::NewTable(table, ownership) => batch.new_table(table, ownership),
            Self::DeleteTable(place) => batch.delete_table(place),
            Self::NewSet(place, set) => batch.new_set(place, set, id),
            Self::GrowSet(place, set, size) => batch.grow_set(place, set, id, size),
            Self::DeleteSet(place, name) => batch.delete_set(place, name),
            Self::NewChain(place, chain) => batch.new_chain(place, &chain.name),
            Self::NewBaseChain(place, base) => batch.new_base_chain(place, base),
            Self::DeleteChain(place, name) => batch.delete_chain(place, name),
            Self::FlushChain(place, name, _) => batch.flush_chain(place, name),
            Self::NewRules(place, chain, _) => {
                for (number, rule) in (1..).zip(&chain.rules) {
                    batch.new_rule(place, &chain.name, number, rule);
                }
            }
            Self::Add(..) | Self::Delete(..) => {}
        }
    }
}

/// Writes operations, opening a new batch whenever one has passed `limit`.
fn encode<'o, 'a: 'o>(
    operations: impl Iterator<Item = &'o Operation<'a>>,
    limit: usize,
    capacity: usize,
) -> Vec<Batch> {
    let mut batches = vec![Batch::with_capacity(Some(0), capacity)];
    let mut id = 0;
    for operation in operations {
        match operation {
            Operation::Add(place, picked) | Operation::Delete(place, picked) => {
                let mut elements = picked.iter().peekable();
                while elements.peek().is_some() {
                    let batch = current(&mut batches, limit);
                    if matches!(operation, Operation::Add(..)) {
                        batch.add_elements(*place, picked.form, &mut elements, limit);
                    } else {
                        batch.delete_elements(*place, picked.form, &mut elements, limit);
                    }
                }
            }
            other => {
                id += 1;
                other.write(current(&mut batches, limit), id);
            }
        }
    }
    batches.iter_mut().for_each(Batch::end);
    batches
}

fn current(batches: &mut Vec<Batch>, limit: usize) -> &mut Batch {
    if batches.last().is_none_or(|b| b.len() >= limit && !b.is_empty()) {
        batches.push(Batch::new(Some(0)));
    }
    let last = batches.len() - 1;
    &mut batches[last]
}
