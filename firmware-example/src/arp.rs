//! ARP for IPv4 over Ethernet (RFC 826).

use crate::ethernet::Mac;
use core::net::Ipv4Addr;

/// Length of an ARP packet for IPv4 over Ethernet.
pub const LENGTH: usize = 28;

/// What an ARP packet wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has its address.
    Reply,
}

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Request or reply.
    pub operation: Operation,
    /// The sender's Ethernet address.
    pub sender_mac: Mac,
    /// The sender's IPv4 address; unspecified in a probe (RFC 5227).
    pub sender: Ipv4Addr,
    /// The target's Ethernet address; zeros in a request.
    pub target_mac: Mac,
    /// The target's IPv4 address.
    pub target: Ipv4Addr,
}

/// Ethernet, IPv4, address lengths 6 and 4.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];

impl Arp {
    /// Reads a packet; `None` if it is too short or of another kind.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first_chunk::<6>()?;
        let (&operation, rest) = rest.split_first_chunk::<2>()?;
        let (&sender_mac, rest) = rest.split_first_chunk::<6>()?;
        let (&sender, rest) = rest.split_first_chunk::<4>()?;
        let (&target_mac, rest) = rest.split_first_chunk::<6>()?;
        let (&target, _) = rest.split_first_chunk::<4>()?;
        let operation = match u16::from_be_bytes(operation) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return None,
        };
        (*kind == KIND).then_some(Self {
            operation,
            sender_mac: Mac(sender_mac),
            sender: sender.into(),
            target_mac: Mac(target_mac),
            target: target.into(),
        })
    }

    /// Writes the packet at the start of `room` and returns its length; 0 if it does not fit.
    pub fn write(&self, room: &mut [u8]) -> usize {
        let operation: u16 = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        let (sender, target) = (self.sender.octets(), self.target.octets());
        let operation = operation.to_be_bytes();
        let fields = [&KIND[..], &operation, &self.sender_mac.0, &sender, &self.target_mac.0, &target];
        crate::bytes::concat(room, &fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 52:54:00:12:34:56 at 192.0.2.9 asks who has 192.0.2.1 (RFC 826, "Packet format").
    const REQUEST: [u8; LENGTH] =
        [0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 192, 0, 2, 9, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1];

    #[test]
    fn a_request_reads_and_writes_back() {
        let arp = Arp::read(&REQUEST).unwrap();
        assert_eq!(arp.operation, Operation::Request);
        assert_eq!((arp.sender, arp.target), (Ipv4Addr::new(192, 0, 2, 9), Ipv4Addr::new(192, 0, 2, 1)));
        let mut room = [0; 64];
        assert_eq!(arp.write(&mut room), LENGTH);
        assert_eq!(room[..LENGTH], REQUEST);
    }

    #[test]
    fn what_is_no_arp_for_ipv4_over_ethernet_is_none() {
        assert_eq!(Arp::read(&REQUEST[..27]), None);
        for at in 0..8 {
            let mut other = REQUEST;
            other[at] ^= 0x40;
            assert_eq!(Arp::read(&other), None, "byte {at}");
        }
        assert_eq!(Arp::read(&REQUEST).unwrap().write(&mut [0; 27]), 0);
    }
}
