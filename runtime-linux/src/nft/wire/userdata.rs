//! Userdata: what `nft` keeps with an object to print it again. The kernel stores it unread.
//!
//! Items are `u8` kind, `u8` length, value; integers are host-endian `u32` (libnftnl, `udata.h`). A set without its
//! `typeof` items either prints as raw types or, when a field is an integer, makes `nft` 1.0.6 abort; so every set gets
//! them, byte for byte as `nft` writes them.

use super::super::model::{Field, Set, SetData};
use super::attribute::Writer;

/// Item kinds of a set (`enum nftnl_udata_set_types`).
mod item {
    pub const KEY_BYTEORDER: u8 = 0;
    pub const DATA_BYTEORDER: u8 = 1;
    pub const KEY_TYPEOF: u8 = 3;
    pub const DATA_TYPEOF: u8 = 4;
    pub const DATA_INTERVAL: u8 = 6;
    pub const COMMENT: u8 = 7;
}

/// Kind of the comment item in tables, chains, rules and elements.
const COMMENT: u8 = 0;

/// Expression types inside `typeof` (`enum expr_types` of nft).
mod expr {
    pub const VERDICT: u32 = 1;
    pub const PAYLOAD: u32 = 7;
    pub const META: u32 = 9;
    pub const CONCAT: u32 = 13;
    pub const NUMGEN: u32 = 23;
}

/// The longest comment that `nft` reads back from text (NFTNL_UDATA_COMMENT_MAXLEN) minus its NUL.
pub const COMMENT_MAX: usize = 127;

/// A comment as it is stored: at most [`COMMENT_MAX`] bytes, cut at a character, without what would end the quoted text
/// that `nft list` prints. Most comments pass unchanged and uncopied.
pub fn comment_text(comment: &str) -> std::borrow::Cow<'_, str> {
    if comment.len() <= COMMENT_MAX && comment.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\') {
        return comment.into();
    }
    let end = (0..=COMMENT_MAX.min(comment.len())).rev().find(|&end| comment.is_char_boundary(end));
    let cut = &comment[..end.unwrap_or(0)];
    if cut.contains(|c: char| c == '"' || c == '\\' || c.is_control()) {
        cut.chars().map(|c| if c == '"' || c == '\\' || c.is_control() { '\'' } else { c }).collect::<String>().into()
    } else {
        cut.into()
    }
}

/// Item of an element that starts a range up to the last address (NFTNL_UDATA_SET_ELEM_FLAGS, SET_ELEM_F_INTERVAL_OPEN).
const ELEMENT_FLAGS: u8 = 1;

/// Writes the userdata attribute `kind` that holds only a comment; nothing for an empty comment.
pub fn comment(w: &mut Writer, kind: u16, comment: &str) {
    element(w, kind, comment, false);
}

/// Writes an element's userdata: its comment, and whether it starts a range that has no end element.
pub fn element(w: &mut Writer, kind: u16, comment: &str, open_range: bool) {
    if comment.is_empty() && !open_range {
        return;
    }
    let open = w.open_flat(kind);
    if !comment.is_empty() {
        push_text(&mut w.bytes, COMMENT, comment);
    }
    if open_range {
        push_u32(&mut w.bytes, ELEMENT_FLAGS, 1);
    }
    w.close(open);
}

/// The comment in a table's, chain's, rule's or element's userdata.
pub fn read_comment(userdata: &[u8]) -> &str {
    text_of(userdata, COMMENT)
}

/// The comment in a set's userdata.
pub fn read_set_comment(userdata: &[u8]) -> &str {
    text_of(userdata, item::COMMENT)
}

/// A set's userdata as `nft` 1.0.6 writes it: byte orders, `typeof` of key and data, comment.
pub fn set(set: &Set) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    push_u32(&mut out, item::KEY_BYTEORDER, byteorder(&set.key));
    match &set.data {
        SetData::None => {}
        SetData::Value(fields) => push_u32(&mut out, item::DATA_BYTEORDER, byteorder(fields)),
        SetData::Verdict(_) => push_u32(&mut out, item::DATA_BYTEORDER, 0),
    }
    push_nest(&mut out, item::KEY_TYPEOF, |out| push_typeof(out, &set.key));
    match &set.data {
        SetData::None => {}
        SetData::Value(fields) => push_nest(&mut out, item::DATA_TYPEOF, |out| push_typeof(out, fields)),
        SetData::Verdict(_) => push_nest(&mut out, item::DATA_TYPEOF, |out| push_expr(out, expr::VERDICT, |_| {})),
    }
    if set.data != SetData::None {
        push_u32(&mut out, item::DATA_INTERVAL, 0);
    }
    if !set.comment.is_empty() {
        push_text(&mut out, item::COMMENT, &set.comment);
    }
    out
}

/// The fields of a set's key, recovered from its `typeof`; `None` if they are none of ours.
pub fn read_key_fields(userdata: &[u8]) -> Option<Vec<Field>> {
    read_typeof(item_of(userdata, item::KEY_TYPEOF)?)
}

/// The fields of a map's value, recovered from its `typeof`.
pub fn read_data_fields(userdata: &[u8]) -> Option<Vec<Field>> {
    read_typeof(item_of(userdata, item::DATA_TYPEOF)?)
}

fn read_typeof(bytes: &[u8]) -> Option<Vec<Field>> {
    const ALL: [Field; 9] = [
        Field::Ip4Daddr,
        Field::Ip4Saddr,
        Field::Ip6Daddr,
        Field::Ip6Saddr,
        Field::L4Proto,
        Field::Dport,
        Field::Slot,
        Field::Mark,
        Field::Priority,
    ];
    let single = |bytes: &[u8]| {
        ALL.into_iter().find(|f| {
            let mut written = Vec::new();
            push_typeof(&mut written, std::slice::from_ref(f));
            written == bytes
        })
    };
    if item_of(bytes, 0)? == expr::CONCAT.to_ne_bytes() {
        items(item_of(bytes, 1)?).map(|(_, field)| single(field)).collect()
    } else {
        Some(vec![single(bytes)?])
    }
}

/// 0 for a concatenation, 1 for host order, 2 for network order.
fn byteorder(fields: &[Field]) -> u32 {
    match fields {
        [Field::Slot | Field::Mark | Field::Priority] => 1,
        [_] => 2,
        _ => 0,
    }
}

fn push_typeof(out: &mut Vec<u8>, fields: &[Field]) {
    if let [field] = fields {
        return push_field(out, *field);
    }
    push_expr(out, expr::CONCAT, |out| {
        for (i, field) in (0..).zip(fields) {
            push_nest(out, i, |out| push_field(out, *field));
        }
    });
}

fn push_field(out: &mut Vec<u8>, field: Field) {
    let payload = |out: &mut Vec<u8>, protocol, template| {
        push_expr(out, expr::PAYLOAD, |out| {
            push_u32(out, 0, protocol);
            push_u32(out, 1, template);
        });
    };
    match field {
        Field::Ip4Daddr => payload(out, 12, 12),
        Field::Ip4Saddr => payload(out, 12, 11),
        Field::Ip6Daddr => payload(out, 13, 9),
        Field::Ip6Saddr => payload(out, 13, 8),
        Field::Dport => payload(out, 11, 2),
        Field::L4Proto => push_expr(out, expr::META, |out| push_u32(out, 0, 16)),
        Field::Mark => push_expr(out, expr::META, |out| push_u32(out, 0, 3)),
        Field::Priority => push_expr(out, expr::META, |out| push_u32(out, 0, 2)),
        Field::Slot => push_expr(out, expr::NUMGEN, |out| {
            push_u32(out, 0, 1);
            push_u32(out, 1, 2);
            push_u32(out, 2, 0);
        }),
    }
}

fn push_expr(out: &mut Vec<u8>, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    push_u32(out, 0, kind);
    push_nest(out, 1, fill);
}

fn push_u32(out: &mut Vec<u8>, kind: u8, value: u32) {
    out.extend_from_slice(&[kind, 4]);
    out.extend_from_slice(&value.to_ne_bytes());
}

fn push_nest(out: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&[kind, 0]);
    let start = out.len();
    fill(out);
    // Five fields of 26 bytes are the most there is; a length past 255 would be refused by the kernel anyway.
    out[start - 1] = u8::try_from(out.len() - start).unwrap_or(u8::MAX);
}

fn push_text(out: &mut Vec<u8>, kind: u8, text: &str) {
    let text = comment_text(text);
    push_nest(out, kind, |out| {
        out.extend_from_slice(text.as_bytes());
        out.push(0);
    });
}

fn items(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (&[kind, len], tail) = rest.split_first_chunk::<2>()?;
        let (value, tail) = tail.split_at_checked(usize::from(len))?;
        rest = tail;
        Some((kind, value))
    })
}

fn item_of(bytes: &[u8], kind: u8) -> Option<&[u8]> {
    items(bytes).find(|i| i.0 == kind).map(|i| i.1)
}

fn text_of(bytes: &[u8], kind: u8) -> &str {
    let text = item_of(bytes, kind).unwrap_or_default();
    let end = text.iter().position(|&b| b == 0).unwrap_or(text.len());
    std::str::from_utf8(&text[..end]).unwrap_or("(not UTF-8)")
}

/// Whether two userdata of sets describe the same types; their comments may differ.
pub fn same_typeof(a: &[u8], b: &[u8]) -> bool {
    [item::KEY_TYPEOF, item::DATA_TYPEOF].iter().all(|&kind| item_of(a, kind) == item_of(b, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_stay_printable_and_short() {
        assert!(matches!(comment_text("ns/svc:https"), std::borrow::Cow::Borrowed("ns/svc:https")));
        assert_eq!(comment_text("a\"b\nc"), "a'b'c");
        assert_eq!(comment_text(&"ä".repeat(100)).len(), 126);
    }

    #[test]
    fn fields_are_recovered() {
        let key = [Field::Ip4Daddr, Field::L4Proto, Field::Dport, Field::Slot];
        let mut bytes = Vec::new();
        push_nest(&mut bytes, item::KEY_TYPEOF, |out| push_typeof(out, &key));
        assert_eq!(read_key_fields(&bytes).as_deref(), Some(&key[..]));
        assert_eq!(read_key_fields(&bytes[..bytes.len() - 3]), None);
        let mut bytes = Vec::new();
        push_nest(&mut bytes, item::KEY_TYPEOF, |out| push_typeof(out, &[Field::Mark]));
        assert_eq!(read_key_fields(&bytes), Some(vec![Field::Mark]));
    }
}
