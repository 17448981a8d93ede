//! From the kernel's elements to the model's.

use std::collections::HashMap;

use super::super::model::{Elements, Set, SetData, Verdict};
use super::super::wire::element::{RawElement, step_down};
use super::super::wire::expression;
use super::LoadedSet;

/// Turns the kernel's elements into the model's.
pub(super) struct Collector {
    elements: Elements,
    verdicts: Vec<Verdict>,
    /// Raw verdict data to its index, so that each is parsed once.
    seen: HashMap<Vec<u8>, u16>,
    /// Bounds of a one-field interval set, to be joined at the end.
    bounds: Vec<Bound>,
    form: Form,
    key_len: usize,
    odd: bool,
}

#[derive(Clone, Copy)]
enum Form {
    Set,
    Value,
    Verdict,
    Bounds,
    Ranges,
}

struct Bound {
    key: Vec<u8>,
    end: bool,
    comment: String,
}

impl Collector {
    pub(super) fn new(set: &Set, key_len: u32) -> Self {
        let form = match (&set.data, set.interval, set.key.len()) {
            (SetData::None, true, 1) => Form::Bounds,
            (SetData::None, true, _) => Form::Ranges,
            (SetData::None, false, _) => Form::Set,
            (SetData::Value(_), ..) => Form::Value,
            (SetData::Verdict(_), ..) => Form::Verdict,
        };
        Self {
            elements: set.empty_elements(),
            verdicts: Vec::new(),
            seen: HashMap::new(),
            bounds: Vec::new(),
            form,
            key_len: key_len as usize,
            odd: false,
        }
    }

    pub(super) fn push(&mut self, e: &RawElement<'_>) {
        if e.key.len() != self.key_len {
            self.odd = true;
            return;
        }
        let index;
        let data: &[u8] = match self.form {
            Form::Set => &[],
            Form::Value => expression::read_value(e.data).unwrap_or_default(),
            Form::Ranges => e.key_end.unwrap_or(e.key),
            Form::Verdict => {
                index = self.verdict(e.data).to_le_bytes();
                &index
            }
            Form::Bounds => {
                self.bounds.push(Bound { key: e.key.to_vec(), end: e.end, comment: e.comment.to_owned() });
                return;
            }
        };
        if data.len() == self.elements.data_len() {
            self.elements.push(e.key, data, e.comment);
            self.elements.set_count(e.count);
        } else {
            self.odd = true;
        }
    }

    fn verdict(&mut self, data: &[u8]) -> u16 {
        if let Some(&index) = self.seen.get(data) {
            return index;
        }
        // A verdict that natlet has no word for gets an index that stands for none.
        let free = u16::try_from(self.verdicts.len()).ok().filter(|&index| index != u16::MAX);
        let index = match (free, expression::read_verdict(data)) {
            (Some(index), Some(verdict)) => {
                self.verdicts.push(verdict);
                index
            }
            _ => u16::MAX,
        };
        self.seen.insert(data.to_vec(), index);
        index
    }

    /// A range lasts until the next bound, of whichever kind, or to the last address. Ends without a start (`nft` writes one
    /// at zero) say nothing.
    fn join(&mut self) {
        self.bounds.sort_unstable_by(|a, b| (&a.key, !a.end).cmp(&(&b.key, !b.end)));
        for (i, start) in self.bounds.iter().enumerate().filter(|(_, b)| !b.end) {
            let next = self.bounds[i + 1..].iter().find(|b| b.key != start.key);
            let last = next.map_or_else(
                || vec![0xff; self.key_len],
                |next| {
                    let mut last = next.key.clone();
                    step_down(&mut last);
                    last
                },
            );
            self.elements.push(&start.key, &last, &start.comment);
        }
    }

    pub(super) fn finish(mut self, loaded: &mut LoadedSet) {
        self.join();
        loaded.set.elements = self.elements;
        loaded.odd |= self.odd;
        if let SetData::Verdict(verdicts) = &mut loaded.set.data {
            *verdicts = self.verdicts;
        }
    }
}
