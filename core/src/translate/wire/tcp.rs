//! TCP headers (RFC 9293 §3.1).

use super::checksum::update;
use super::transport::Ports;

/// Length of a header without options.
pub(crate) const HEADER: usize = 20;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// A TCP header without its options.
#[derive(Debug)]
pub(crate) struct Tcp<'a>(pub &'a mut [u8; HEADER]);

impl<'a> Tcp<'a> {
    /// `None` where the header is cut off.
    #[inline]
    pub fn new_checked(bytes: &'a mut [u8]) -> Option<Self> {
        bytes.first_chunk_mut().map(Self)
    }

    #[inline]
    pub fn flags(&self) -> u8 {
        self.0[13]
    }

    /// Writes the ports and updates the checksum; `delta` is the change of the sum of addresses and ports.
    #[inline]
    pub fn rewrite(&mut self, ports: Ports, delta: u16) {
        let [s0, s1, d0, d1, ..] = &mut *self.0;
        [*s0, *s1, *d0, *d1] = ports.0.to_ne_bytes();
        self.update_checksum(delta);
    }

    #[inline]
    pub fn update_checksum(&mut self, delta: u16) {
        let [.., c0, c1, _, _] = &mut *self.0;
        [*c0, *c1] = update([*c0, *c1], delta);
    }
}
