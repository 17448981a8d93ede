//! Differences of a set's elements.

use std::collections::HashMap;

use super::super::model::{Element, Elements, Family, Set, SetData, Verdict};
use super::super::text;
use super::super::wire::Place;
use super::super::wire::userdata::comment_text;

/// The difference of one set.
#[derive(Clone, Debug)]
pub struct SetChange<'a> {
    place: Place<'a>,
    old: Option<&'a Set>,
    new: Option<&'a Set>,
    /// Positions; only when both are there.
    picks: Picks,
}

/// Positions of elements in the old and the new set.
#[derive(Clone, Debug, Default)]
pub(super) struct Picks {
    pub(super) added: Vec<u32>,
    pub(super) removed: Vec<u32>,
    pub(super) changed_old: Vec<u32>,
    pub(super) changed_new: Vec<u32>,
}

/// An element that differs.
#[derive(Clone, Copy, Debug)]
pub struct ElementChange<'a> {
    /// Family of its table.
    pub family: Family,
    /// The set as it is, with the element, if it is there.
    pub old: Option<(&'a Set, Element<'a>)>,
    /// The set as it is wanted, with the element, if it is to be there.
    pub new: Option<(&'a Set, Element<'a>)>,
}

impl<'a> ElementChange<'a> {
    fn any(&self) -> Option<(&'a Set, Element<'a>)> {
        self.new.or(self.old)
    }

    /// Name of the set.
    pub fn set(&self) -> &'a str {
        self.any().map_or("", |(set, _)| &set.name)
    }

    /// The key as `nft` writes it.
    pub fn key(&self) -> String {
        self.any().map(|(set, e)| text::key(set, e.key, e.data)).unwrap_or_default()
    }

    /// The data before, as `nft` writes it; empty for a set.
    pub fn old_data(&self) -> Option<String> {
        self.old.map(|(set, e)| text::data(set, e.data))
    }

    /// The data after.
    pub fn new_data(&self) -> Option<String> {
        self.new.map(|(set, e)| text::data(set, e.data))
    }

    /// The comment: the new one, else the old.
    pub fn comment(&self) -> &'a str {
        self.any().map_or("", |(_, e)| e.comment)
    }
}

impl<'a> SetChange<'a> {
    pub(super) fn new(place: Place<'a>, set: &'a Set) -> Self {
        Self { place, old: None, new: Some(set), picks: Picks::default() }
    }

    pub(super) fn gone(place: Place<'a>, set: &'a Set) -> Self {
        Self { place, old: Some(set), new: None, picks: Picks::default() }
    }

    pub(super) fn between(place: Place<'a>, old: &'a Set, new: &'a Set) -> Self {
        Self { place, old: Some(old), new: Some(new), picks: compare(old, new) }
    }

    pub(super) fn place(&self) -> Place<'a> {
        self.place
    }

    pub(super) fn picks(&self) -> Picks {
        self.picks.clone()
    }

    /// Elements added, removed, changed.
    pub fn counts(&self) -> (usize, usize, usize) {
        match (self.old, self.new) {
            (None, Some(new)) => (new.elements.len(), 0, 0),
            (Some(old), None) => (0, old.elements.len(), 0),
            _ => (self.picks.added.len(), self.picks.removed.len(), self.picks.changed_new.len()),
        }
    }

    /// The elements that differ.
    pub fn elements(&self) -> impl Iterator<Item = ElementChange<'a>> + '_ {
        let family = self.place.family;
        let at = |set: Option<&'a Set>, i: u32| set.map(|set| (set, set.elements.get(i as usize)));
        let all = |set: Option<&'a Set>| {
            (0..)
                .zip(set.into_iter().flat_map(|set| set.elements.iter()))
                .map(|(i, _): (u32, _)| i)
                .collect::<Vec<u32>>()
        };
        let (added, removed) = match (self.old, self.new) {
            (None, new) => (all(new), Vec::new()),
            (old, None) => (Vec::new(), all(old)),
            _ => (self.picks.added.clone(), self.picks.removed.clone()),
        };
        let changed = self.picks.changed_old.iter().zip(&self.picks.changed_new);
        let removed = removed.into_iter().map(move |i| ElementChange { family, old: at(self.old, i), new: None });
        let changed = changed.map(move |(&i, &j)| ElementChange { family, old: at(self.old, i), new: at(self.new, j) });
        removed.chain(changed).chain(added.into_iter().map(move |i| ElementChange {
            family,
            old: None,
            new: at(self.new, i),
        }))
    }
}

/// Compares by key. Comments count only where the wanted set has any.
fn compare(old: &Set, new: &Set) -> Picks {
    let mut picks = Picks::default();
    let mut by_key: HashMap<&[u8], u32> = HashMap::with_capacity(old.elements.len());
    by_key.extend((0..).zip(old.elements.iter()).map(|(i, e)| (e.key, i)));
    let comments = new.elements.has_comments();
    let verdicts = verdict_numbers(old, new);
    for (i, element) in (0..).zip(new.elements.iter()) {
        let Some(at) = by_key.remove(element.key) else {
            picks.added.push(i);
            continue;
        };
        let have = old.elements.get(at as usize);
        let same = match &verdicts {
            Some(numbers) => number(numbers, have.data) == Some(element.data),
            None => have.data == element.data,
        };
        if !same || (comments && have.comment != comment_text(element.comment)) {
            picks.changed_old.push(at);
            picks.changed_new.push(i);
        }
    }
    picks.removed = left_over(&old.elements, by_key);
    picks
}

/// What no wanted element took, in the old order.
fn left_over(old: &Elements, by_key: HashMap<&[u8], u32>) -> Vec<u32> {
    // A key that is there twice (it cannot be) would be found once only.
    debug_assert!(by_key.len() <= old.len(), "keys are unique");
    let mut removed: Vec<u32> = by_key.into_values().collect();
    removed.sort_unstable();
    removed
}

/// For each verdict of the old map, the data by which the new one says it; `None` if they are no verdict maps.
fn verdict_numbers(old: &Set, new: &Set) -> Option<Vec<Option<[u8; 2]>>> {
    let (SetData::Verdict(old), SetData::Verdict(new)) = (&old.data, &new.data) else { return None };
    let find = |v: &Verdict| Some(u16::try_from(new.iter().position(|n| n == v)?).ok()?.to_le_bytes());
    Some(old.iter().map(find).collect())
}

fn number<'n>(numbers: &'n [Option<[u8; 2]>], data: &[u8]) -> Option<&'n [u8]> {
    let index = u16::from_le_bytes(data.try_into().ok()?);
    numbers.get(usize::from(index))?.as_ref().map(<[u8; 2]>::as_slice)
}
