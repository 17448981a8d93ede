//! Addresses as the packet path handles them: words in the packet's byte order.

use core::fmt::Debug;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of one family. Only [`V4`] and [`V6`] are.
pub trait Address: Copy + Eq + Debug {
    /// All zeros.
    const ZERO: Self;

    /// Sum of the products of both addresses' words, and of `last`, each with its own key.
    fn products(source: Self, destination: Self, last: u32, keys: &[u64; 9]) -> u64;

    /// Sum of its 16-bit words, not folded.
    fn sum(self) -> u32;

    /// The address as everything else names it.
    fn to_ip(self) -> IpAddr;

    /// `None` for an address of the other family.
    fn from_ip(address: IpAddr) -> Option<Self>;
}

/// An IPv4 address, in the packet's byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V4(pub(crate) u32);

/// An IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V6(pub(crate) [u8; 16]);

impl V4 {
    pub(crate) const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(bytes))
    }

    pub(crate) const fn to_bytes(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }
}

impl Address for V4 {
    const ZERO: Self = Self(0);

    fn products(source: Self, destination: Self, last: u32, keys: &[u64; 9]) -> u64 {
        product(source.0, keys[0]).wrapping_add(product(destination.0, keys[1])).wrapping_add(product(last, keys[2]))
    }

    fn sum(self) -> u32 {
        (self.0 & 0xffff).wrapping_add(self.0 >> 16)
    }

    fn to_ip(self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(self.to_bytes()))
    }

    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(a) => Some(Self::from_bytes(a.octets())),
            IpAddr::V6(_) => None,
        }
    }
}

impl Address for V6 {
    const ZERO: Self = Self([0; 16]);

    fn products(source: Self, destination: Self, last: u32, keys: &[u64; 9]) -> u64 {
        let words = source.0.as_chunks().0.iter().chain(destination.0.as_chunks().0).map(|w| u32::from_ne_bytes(*w));
        words.chain([last]).zip(keys).fold(0, |sum: u64, (word, &key)| sum.wrapping_add(product(word, key)))
    }

    fn sum(self) -> u32 {
        // eight 16-bit words fit easily
        let words = self.0.as_chunks().0.iter();
        words.fold(0, |sum: u32, w| sum.wrapping_add(u16::from_ne_bytes(*w).into()))
    }

    fn to_ip(self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from(self.0))
    }

    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V6(a) => Some(Self(a.octets())),
            IpAddr::V4(_) => None,
        }
    }
}

const fn product(word: u32, key: u64) -> u64 {
    (word as u64).wrapping_mul(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_through_words() {
        for text in ["192.0.2.77", "2001:db8:1:2:3:4:5:6", "::1", "255.0.255.1"] {
            let ip: IpAddr = text.parse().unwrap();
            let there_and_back = match ip {
                IpAddr::V4(_) => V4::from_ip(ip).unwrap().to_ip(),
                IpAddr::V6(_) => V6::from_ip(ip).unwrap().to_ip(),
            };
            assert_eq!(there_and_back, ip);
        }
    }
}
