//! Elements of sets on the wire: `LIST_ELEM { KEY, KEY_END, DATA, FLAGS, USERDATA }` (`enum nft_set_elem_attributes`).
//!
//! A range in a set of one field is two elements, the second with INTERVAL_END one past the range; a range that reaches the
//! last address has no second one. A range in a concatenation is one element with KEY and KEY_END, both inclusive.

use std::iter::Peekable;

use super::super::model::{Count, Element, Set, SetData};
use super::attribute::{HEADER, Writer, attributes, find};
use super::{expression, userdata};

const KEY: u16 = 1;
const DATA: u16 = 2;
const FLAGS: u16 = 3;
const USERDATA: u16 = 6;
const EXPR: u16 = 7;
const KEY_END: u16 = 10;
const INTERVAL_END: u32 = 1;

/// The list attribute is full at 65,535 bytes; an element (key and end of 64 bytes, a chain's name, a comment) stays below
/// this.
const LARGEST: usize = 1024;
const LIST_FULL: usize = u16::MAX as usize - LARGEST;

/// Writes elements into the open list until it is full or none is left.
pub fn fill<'e>(w: &mut Writer, set: &Set, adding: bool, elements: &mut Peekable<impl Iterator<Item = Element<'e>>>) {
    let start = w.len();
    // nft numbers the list's attributes from 1; the kernel does not look.
    let mut number = 1;
    let mut pattern = None;
    while elements.peek().is_some() && w.len() - start < LIST_FULL {
        let Some(element) = elements.next() else { break };
        let plain = is_plain(set, &element, adding);
        if let Some(at) = pattern.filter(|_| plain) {
            put_like(w, at, number, [element.key, if adding { element.data } else { &[] }]);
        } else {
            if plain {
                pattern = Some(w.len());
            }
            put(w, number, set, &element, adding);
        }
        number += 1;
        if set.interval && set.key.len() == 1 && put_end(w, number, element.data) {
            number += 1;
        }
    }
}

/// Whether an element is a key, and data in the same form as its set's other ones.
fn is_plain(set: &Set, element: &Element<'_>, adding: bool) -> bool {
    let data = !adding || matches!(set.data, SetData::None | SetData::Value(_));
    data && !set.interval && element.comment.is_empty() && element.count == Count::default()
}

/// Writes a plain element by the plain one at `at`, which differs from it in number, key and data.
fn put_like(w: &mut Writer, at: usize, number: u16, values: [&[u8]; 2]) {
    let from = w.len();
    w.repeat_attribute(at, number);
    let mut start = from + 3 * HEADER;
    for value in values {
        if let Some(place) = w.bytes.get_mut(start..start + value.len()) {
            place.copy_from_slice(value);
        }
        // padding, then the headers of the attribute and of its value
        start += value.len().next_multiple_of(4) + 2 * HEADER;
    }
}

fn put(w: &mut Writer, number: u16, set: &Set, element: &Element<'_>, adding: bool) {
    let open = w.open(number);
    expression::value(w, KEY, element.key);
    if set.interval && set.key.len() > 1 {
        expression::value(w, KEY_END, element.data);
    }
    if adding {
        match &set.data {
            SetData::None => {}
            SetData::Value(_) => expression::value(w, DATA, element.data),
            SetData::Verdict(_) => {
                if let Some(verdict) = set.verdict(element.data) {
                    expression::verdict(w, DATA, verdict);
                }
            }
        }
        let open_range = set.interval && set.key.len() == 1 && element.data.iter().all(|&b| b == 0xff);
        userdata::element(w, USERDATA, element.comment, open_range);
        if set.counter && element.count != Count::default() {
            w.nest(EXPR, |w| expression::counter(w, Some(element.count)));
        }
    }
    w.close(open);
}

/// The closing element of a range; none when the range reaches the top.
fn put_end(w: &mut Writer, number: u16, last: &[u8]) -> bool {
    let mut key = [0; 16];
    let Some(key) = key.get_mut(..last.len()) else { return false };
    key.copy_from_slice(last);
    if !step_up(key) {
        return false;
    }
    w.nest(number, |w| {
        w.put_u32(FLAGS, INTERVAL_END);
        expression::value(w, KEY, key);
    });
    true
}

/// Adds one to a big-endian number; false when it wraps to zero.
fn step_up(bytes: &mut [u8]) -> bool {
    bytes.iter_mut().rev().any(|b| {
        *b = b.wrapping_add(1);
        *b != 0
    })
}

/// Takes one from a big-endian number; false when it was zero.
pub fn step_down(bytes: &mut [u8]) -> bool {
    bytes.iter_mut().rev().any(|b| {
        *b = b.wrapping_sub(1);
        *b != 0xff
    })
}

/// An element as the kernel dumps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawElement<'a> {
    /// Key, or end of a range if `end`; empty for the catch-all element, which natlet never writes.
    pub key: &'a [u8],
    /// Inclusive end of a concatenation's range.
    pub key_end: Option<&'a [u8]>,
    /// The DATA attribute's value.
    pub data: &'a [u8],
    /// Closes a range of one field.
    pub end: bool,
    /// Comment.
    pub comment: &'a str,
    /// What its counter has seen.
    pub count: Count,
}

/// The elements in a GETSETELEM reply.
pub fn read(body: &[u8]) -> impl Iterator<Item = RawElement<'_>> {
    attributes(find(body, 3).map(|a| a.value).unwrap_or_default()).map(|e| {
        let (mut key, mut key_end, mut data, mut end, mut comment) = (None, None, &[][..], false, "");
        let mut count = Count::default();
        for a in attributes(e.value) {
            match a.kind {
                KEY => key = expression::read_value(a.value),
                KEY_END => key_end = expression::read_value(a.value),
                DATA => data = a.value,
                FLAGS => end = a.u32() & INTERVAL_END != 0,
                USERDATA => comment = userdata::read_comment(a.value),
                EXPR => count = expression::read_counter(a.value).unwrap_or_default(),
                _ => {}
            }
        }
        RawElement { key: key.unwrap_or_default(), key_end, data, end, comment, count }
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture;
    use super::super::super::model::{Elements, Field, width};
    use super::*;

    fn written(set: &Set, adding: bool) -> Vec<u8> {
        let mut w = Writer::default();
        w.nest(3, |w| fill(w, set, adding, &mut set.elements.iter().peekable()));
        w.bytes
    }

    #[test]
    fn elements_like_the_first_carry_what_is_theirs() {
        let (key, value) = ([Field::Ip6Daddr, Field::Dport], [Field::Ip4Daddr, Field::Dport]);
        let mut set =
            Set { key: key.into(), data: SetData::Value(value.into()), ..fixture::ruleset().tables[0].sets[0].clone() };
        set.interval = false;
        set.elements = Elements::new(width(&key), width(&value));
        for (i, comment) in (1..).zip(["", "", "one with a comment", "", "another", ""]) {
            set.elements.push(&[i; 20], &[100 + i; 8], comment);
        }
        let bytes = written(&set, true);
        let mut numbers = attributes(find(&bytes, 3).unwrap().value).map(|a| a.kind);
        assert!(numbers.by_ref().eq(1..=6));
        assert_eq!(read(&bytes).count(), 6);
        for (i, (element, wanted)) in read(&bytes).zip(set.elements.iter()).enumerate() {
            let data = expression::read_value(element.data).unwrap_or_default();
            assert_eq!((element.key, data, element.comment), (wanted.key, wanted.data, wanted.comment), "element {i}");
        }
        let keys = written(&set, false);
        assert!(read(&keys).map(|e| (e.key, e.data, e.comment)).eq(set.elements.iter().map(|e| (e.key, &[][..], ""))));
    }

    #[test]
    fn big_endian_steps() {
        let mut a = [10, 255, 255, 255];
        assert!(step_up(&mut a));
        assert_eq!(a, [11, 0, 0, 0]);
        assert!(step_down(&mut a));
        assert_eq!(a, [10, 255, 255, 255]);
        assert!(!step_up(&mut [255; 4]));
        assert!(!step_down(&mut [0; 4]));
    }
}
