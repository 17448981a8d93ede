//! Keys, data and verdicts in words, as `nft list` writes them: for errors and for `natlet diff`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::model::{Field, Set, SetData, Verdict};

/// A concatenation of fields: `192.168.5.65 . tcp . 443`. Bytes that do not fit the fields print as hex.
#[derive(Clone, Copy, Debug)]
pub struct Concat<'a> {
    /// Fields.
    pub fields: &'a [Field],
    /// Register bytes, each field padded.
    pub bytes: &'a [u8],
    /// Inclusive upper end, for a range: `10.0.0.0/8`, or `10.0.0.1-10.0.0.9` where it is no prefix.
    pub end: Option<&'a [u8]>,
}

impl fmt::Display for Concat<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if super::model::width(self.fields) != self.bytes.len() {
            return self.bytes.iter().try_for_each(|b| write!(f, "{b:02x}"));
        }
        let mut at = 0;
        for (i, &field) in self.fields.iter().enumerate() {
            if i > 0 {
                f.write_str(" . ")?;
            }
            let range = at..at + field.width();
            at = range.end;
            field_text(f, field, &self.bytes[range.clone()])?;
            if let Some(end) =
                self.end.and_then(|end| end.get(range.clone())).filter(|&e| e != &self.bytes[range.clone()])
            {
                if let Some(len) = prefix_len(field, &self.bytes[range], end) {
                    write!(f, "/{len}")?;
                } else {
                    f.write_str("-")?;
                    field_text(f, field, end)?;
                }
            }
        }
        Ok(())
    }
}

/// The length of the prefix that a range of addresses is; `None` where it is none.
fn prefix_len(field: Field, from: &[u8], to: &[u8]) -> Option<u32> {
    if !matches!(field, Field::Ip4Daddr | Field::Ip4Saddr | Field::Ip6Daddr | Field::Ip6Saddr) {
        return None;
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0_u128, |n, &b| n << 8 | u128::from(b));
    let (from, to) = (number(from), number(to));
    let host = from ^ to;
    let aligned = host & host.wrapping_add(1) == 0 && from & host == 0;
    aligned.then(|| u32::try_from(field.width() * 8).unwrap_or(128) - host.count_ones())
}

fn field_text(f: &mut fmt::Formatter<'_>, field: Field, bytes: &[u8]) -> fmt::Result {
    let word = |n: usize| bytes.get(n).copied().unwrap_or(0);
    match field {
        Field::Ip4Daddr | Field::Ip4Saddr => write!(f, "{}", Ipv4Addr::new(word(0), word(1), word(2), word(3))),
        Field::Ip6Daddr | Field::Ip6Saddr => {
            write!(f, "{}", <[u8; 16]>::try_from(bytes).map_or(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from))
        }
        Field::L4Proto => match word(0) {
            6 => f.write_str("tcp"),
            17 => f.write_str("udp"),
            132 => f.write_str("sctp"),
            other => write!(f, "{other}"),
        },
        Field::Dport => write!(f, "{}", u16::from_be_bytes([word(0), word(1)])),
        Field::Slot => write!(f, "{}", u32::from_ne_bytes([word(0), word(1), word(2), word(3)])),
        Field::Priority => {
            let handle = u32::from_ne_bytes([word(0), word(1), word(2), word(3)]);
            write!(f, "{:x}:{:x}", handle >> 16, handle & 0xffff)
        }
        Field::Mark => write!(f, "{:#010x}", u32::from_ne_bytes([word(0), word(1), word(2), word(3)])),
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
        }
    }
}

/// An element's key as `nft list` writes it; for an interval set the whole range.
pub fn key(set: &Set, key: &[u8], data: &[u8]) -> String {
    let end = (set.interval && set.data == SetData::None).then_some(data);
    Concat { fields: &set.key, bytes: key, end }.to_string()
}

/// An element's data as `nft list` writes it; empty for a set.
pub fn data(set: &Set, data: &[u8]) -> String {
    match &set.data {
        SetData::None => String::new(),
        SetData::Value(fields) => Concat { fields, bytes: data, end: None }.to_string(),
        SetData::Verdict(_) => set.verdict(data).map_or_else(|| "(no verdict)".into(), ToString::to_string),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_like_nft() {
        let fields = [Field::Ip4Daddr, Field::L4Proto, Field::Dport, Field::Slot];
        let mut bytes = vec![192, 168, 5, 65, 6, 0, 0, 0, 1, 0xbb, 0, 0];
        bytes.extend(1u32.to_ne_bytes());
        assert_eq!(Concat { fields: &fields, bytes: &bytes, end: None }.to_string(), "192.168.5.65 . tcp . 443 . 1");
        assert_eq!(Concat { fields: &fields, bytes: &bytes[..3], end: None }.to_string(), "c0a805");
        let range = Concat { fields: &[Field::Ip4Saddr], bytes: &[10, 0, 0, 0], end: Some(&[10, 255, 255, 255]) };
        assert_eq!(range.to_string(), "10.0.0.0/8");
        let all = Concat { fields: &[Field::Ip6Saddr], bytes: &[0; 16], end: Some(&[255; 16]) };
        assert_eq!(all.to_string(), "::/0");
        let odd = Concat { fields: &[Field::Ip4Saddr], bytes: &[10, 0, 0, 1], end: Some(&[10, 0, 0, 2]) };
        assert_eq!(odd.to_string(), "10.0.0.1-10.0.0.2");
    }
}
