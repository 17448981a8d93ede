//! The key of an IPv4 frontend in one word.

use super::slot::{ADDRESS_SHIFT, rest_of_key};
use crate::table::Protocol;
use core::fmt;
use core::net::Ipv4Addr;

/// Address, protocol and port of an IPv4 frontend in one word, for a caller that looks it up more than once or keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyV4(pub(super) u64);

impl KeyV4 {
    /// The key of a frontend with an address: a ClusterIP, load-balancer or external IP.
    #[inline]
    pub fn new(address: Ipv4Addr, protocol: Protocol, port: u16) -> Self {
        Self(u64::from(address.to_bits()) << ADDRESS_SHIFT | rest_of_key(protocol, port))
    }

    /// What it was made of.
    #[inline]
    pub fn parts(self) -> (Ipv4Addr, Protocol, u16) {
        #[expect(clippy::cast_possible_truncation, reason = "each has its bits")]
        let (address, port) = ((self.0 >> ADDRESS_SHIFT) as u32, (self.0 >> 4) as u16);
        let protocol = match self.0 & 15 {
            0 => Protocol::Tcp,
            1 => Protocol::Udp,
            _ => Protocol::Sctp,
        };
        (Ipv4Addr::from_bits(address), protocol, port)
    }
}

impl fmt::Debug for KeyV4 {
    /// Its parts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, protocol, port) = self.parts();
        write!(f, "{address} {} {port}", protocol.name())
    }
}
