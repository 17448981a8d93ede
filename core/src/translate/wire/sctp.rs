//! SCTP common headers (RFC 9260 §3.1) and the type of the first chunk.

use super::crc32c;

/// Length of the common header.
pub(crate) const HEADER: usize = 12;

/// An SCTP common header.
#[derive(Debug)]
pub(crate) struct Sctp<'a> {
    header: &'a mut [u8; HEADER],
    /// Type of the first chunk; `None` where there is none.
    pub chunk: Option<u8>,
}

impl<'a> Sctp<'a> {
    /// `None` where the header is cut off.
    pub fn new_checked(bytes: &'a mut [u8]) -> Option<Self> {
        let (header, chunks) = bytes.split_first_chunk_mut()?;
        Some(Self { header, chunk: chunks.first().copied() })
    }

    /// Updates the checksum of a packet of `len` bytes, whose ports, read as a little-endian word, change by `change`.
    pub fn update_checksum(&mut self, change: u32, len: u16) {
        let [.., c0, c1, c2, c3] = &mut *self.header;
        let checksum = u32::from_le_bytes([*c0, *c1, *c2, *c3]) ^ crc32c::delta(change, len);
        [*c0, *c1, *c2, *c3] = checksum.to_le_bytes();
    }
}
