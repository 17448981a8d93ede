//! Netlink attributes: an append-only writer and a checked reader (linux/netlink.h, `struct nlattr`).
//!
//! An attribute is a native-endian `u16` length (header included), a native-endian `u16` kind and its value, padded to
//! four bytes. nf_tables reads integers inside values in network order: they are written through [`Be16`], [`Be32`]
//! and [`Be64`] and nothing else.

use netlink_packet_core::{NLA_F_NESTED, NLA_TYPE_MASK, NlaBuffer, NlasIterator};

/// Length of an attribute's header.
pub const HEADER: usize = 4;

/// A `u16` in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Be16(pub [u8; 2]);

/// A `u32` in network order: what nf_tables means by a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Be32(pub [u8; 4]);

/// A `u64` in network order: timeouts, handles and counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Be64(pub [u8; 8]);

macro_rules! big_endian {
    ($name:ident, $int:ty) => {
        impl From<$int> for $name {
            fn from(value: $int) -> Self {
                Self(value.to_be_bytes())
            }
        }
        impl From<$name> for $int {
            fn from(value: $name) -> Self {
                Self::from_be_bytes(value.0)
            }
        }
    };
}
big_endian!(Be16, u16);
big_endian!(Be32, u32);
big_endian!(Be64, u64);

/// Appends attributes to one buffer; nests are closed by patching their length, so nothing is built twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writer {
    /// What is written so far.
    pub bytes: Vec<u8>,
    /// An attribute passed the 65,535 bytes that its length field can say; the bytes are then not to be sent.
    pub overflow: bool,
}

/// An open nested attribute, to be handed to [`Writer::close`].
#[must_use]
pub struct Open(usize);

impl Writer {
    /// Bytes written.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// An attribute with these bytes.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        self.header(HEADER + value.len(), kind);
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// An integer attribute.
    pub fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &Be32::from(value).0);
    }

    /// A NUL-terminated string.
    pub fn put_str(&mut self, kind: u16, value: &str) {
        self.header(HEADER + value.len() + 1, kind);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    /// Opens a nested attribute.
    pub fn open(&mut self, kind: u16) -> Open {
        self.open_flat(kind | NLA_F_NESTED)
    }

    /// Opens an attribute whose value is no list of attributes (userdata).
    pub fn open_flat(&mut self, kind: u16) -> Open {
        let start = self.bytes.len();
        self.header(0, kind);
        Open(start)
    }

    /// Closes an attribute: its length is what was written since.
    #[expect(clippy::needless_pass_by_value, reason = "an attribute is closed once")]
    pub fn close(&mut self, open: Open) {
        let length = self.length(self.bytes.len() - open.0);
        self.bytes[open.0..open.0 + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    /// A nested attribute with what `fill` writes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let open = self.open(kind);
        fill(self);
        self.close(open);
    }

    /// Writes the attribute at an offset once more, as one of the same nest with another number.
    pub fn repeat_attribute(&mut self, at: usize, kind: u16) {
        let start = self.bytes.len();
        let Some(&[low, high]) = self.bytes.get(at..).and_then(|from| from.first_chunk()) else { return };
        let length = usize::from(u16::from_ne_bytes([low, high])).next_multiple_of(4);
        let end = (at + length).min(start);
        self.bytes.extend_from_within(at..end);
        if let Some(place) = self.bytes.get_mut(start + 2..start + HEADER) {
            place.copy_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        }
    }

    fn header(&mut self, len: usize, kind: u16) {
        let ([a, b], [c, d]) = (self.length(len).to_ne_bytes(), kind.to_ne_bytes());
        self.bytes.extend_from_slice(&[a, b, c, d]);
    }

    fn length(&mut self, len: usize) -> u16 {
        u16::try_from(len).unwrap_or_else(|_| {
            self.overflow = true;
            u16::MAX
        })
    }

    fn pad(&mut self) {
        let missing = self.bytes.len().wrapping_neg() % 4;
        self.bytes.extend_from_slice(&[0; 3][..missing]);
    }
}

/// An attribute that was read: its kind without flags, and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Kind, flags removed.
    pub kind: u16,
    /// Whether the writer marked it as nested (the kernel often does not).
    pub nested: bool,
    /// Value without padding.
    pub value: &'a [u8],
}

impl Attribute<'_> {
    /// The value as a number; 0 if it is not four bytes long.
    pub fn u32(&self) -> u32 {
        self.value.try_into().map_or(0, |v| Be32(v).into())
    }

    /// The value as a long number; 0 if it is not eight bytes long.
    pub fn u64(&self) -> u64 {
        self.value.try_into().map_or(0, |v| Be64(v).into())
    }

    /// The value as text up to its NUL; bytes that are no UTF-8 are replaced.
    pub fn text(&self) -> String {
        let end = self.value.iter().position(|&b| b == 0).unwrap_or(self.value.len());
        String::from_utf8_lossy(&self.value[..end]).into_owned()
    }
}

/// The attributes in these bytes, zero-copy; ends at the first malformed one.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|nla: NlaBuffer<&[u8]>| {
        let nested = nla.nested_flag();
        let (kind, length) = (nla.kind() & NLA_TYPE_MASK, usize::from(nla.length()));
        Attribute { kind, nested, value: nla.into_inner().get(HEADER..length).unwrap_or_default() }
    })
}

/// The first attribute of a kind.
pub fn find(bytes: &[u8], kind: u16) -> Option<Attribute<'_>> {
    attributes(bytes).find(|a| a.kind == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nests_are_patched_and_padded() {
        let mut w = Writer::default();
        w.nest(4, |w| {
            w.put_u32(1, 0x0102_0304);
            w.put_str(2, "ab");
        });
        assert_eq!(w.bytes, [20, 0, 4, 0x80, 8, 0, 1, 0, 1, 2, 3, 4, 7, 0, 2, 0, b'a', b'b', 0, 0]);
        let outer: Vec<_> = attributes(&w.bytes).collect();
        assert_eq!((outer.len(), outer[0].kind, outer[0].nested), (1, 4, true));
        assert_eq!(find(outer[0].value, 1).unwrap().u32(), 0x0102_0304);
        assert_eq!(find(outer[0].value, 2).unwrap().text(), "ab");
    }

    #[test]
    fn too_long_is_said() {
        let mut w = Writer::default();
        w.put(1, &vec![0; 65_531]);
        assert!(!w.overflow);
        w.put(1, &vec![0; 65_532]);
        assert!(w.overflow);
    }

    #[test]
    fn odd_bytes_end_the_list() {
        for bytes in [&[1, 0, 1, 0][..], &[0, 0, 0, 0], &[9, 0, 1, 0, 0], &[4, 0], &[255, 255, 1, 0, 0, 0, 0, 0]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
        assert_eq!(attributes(&[5, 0, 1, 0, 7]).count(), 1, "padding of the last one may be missing");
    }
}
