//! UDP headers (RFC 768).

use super::checksum::update_udp;

/// Length of a header.
pub(crate) const HEADER: usize = 8;

/// A UDP header.
#[derive(Debug)]
pub(crate) struct Udp<'a>(pub &'a mut [u8; HEADER]);

impl<'a> Udp<'a> {
    /// `None` where the header is cut off.
    #[inline]
    pub fn new_checked(bytes: &'a mut [u8]) -> Option<Self> {
        bytes.first_chunk_mut().map(Self)
    }

    #[inline]
    pub fn update_checksum(&mut self, delta: u16) {
        let [.., c0, c1] = &mut *self.0;
        [*c0, *c1] = update_udp([*c0, *c1], delta);
    }
}
