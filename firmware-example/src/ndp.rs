//! Neighbour discovery (RFC 4861): the four messages' two that find Ethernet addresses.

use crate::ethernet::Mac;
use crate::ip::{Ip, Outgoing, protocol};
use core::net::{IpAddr, Ipv6Addr};

/// Every node of the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// A hop limit that no router passed on (RFC 4861 §7.1).
const FROM_LINK: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_MAC: u8 = 1;
const TARGET_MAC: u8 = 2;

/// A neighbour discovery message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ndp {
    /// Who has `target`?
    Solicitation {
        /// The address asked for.
        target: Ipv6Addr,
        /// Who asks; unspecified while it checks for duplicates (RFC 4862 §5.4).
        source: Ipv6Addr,
        /// Its Ethernet address, if it said so.
        mac: Option<Mac>,
    },
    /// `target` is at `mac`.
    Advertisement {
        /// The address.
        target: Ipv6Addr,
        /// Its Ethernet address, if it said so.
        mac: Option<Mac>,
    },
}

impl Ndp {
    /// Reads a message; `None` if the packet is none, or was sent by no neighbour.
    pub fn read(ip: &Ip<'_>) -> Option<Self> {
        let IpAddr::V6(source) = ip.source else { return None };
        let (&[kind, code, ..], rest) = ip.payload.split_first_chunk::<8>()?;
        let (&target, options) = rest.split_first_chunk::<16>()?;
        let target = Ipv6Addr::from(target);
        let sound = ip.protocol == protocol::ICMP6 && ip.hop_limit == FROM_LINK && code == 0 && !target.is_multicast();
        if !sound || !is_intact(ip) {
            return None;
        }
        match kind {
            SOLICITATION => Some(Self::Solicitation { target, source, mac: option(options, SOURCE_MAC) }),
            ADVERTISEMENT => Some(Self::Advertisement { target, mac: option(options, TARGET_MAC) }),
            _ => None,
        }
    }
}

fn is_intact(ip: &Ip<'_>) -> bool {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (ip.source, ip.destination) else { return false };
    let Ok(len) = u16::try_from(ip.payload.len()) else { return false };
    let [l0, l1] = len.to_be_bytes();
    let tail = [0, protocol::ICMP6, l0, l1];
    crate::bytes::checksum(&[&source.octets(), &destination.octets(), &tail, ip.payload]) == 0
}

/// The Ethernet address in the first option of this kind.
fn option(mut options: &[u8], wanted: u8) -> Option<Mac> {
    while let Some((&[kind, units], _)) = options.split_first_chunk::<2>() {
        let len = usize::from(units).saturating_mul(8);
        let (this, rest) = options.split_at_checked(len)?;
        if kind == wanted {
            let (_, mac) = this.split_first_chunk::<2>()?;
            return Some(Mac(*mac.first_chunk()?));
        }
        if len == 0 {
            return None;
        }
        options = rest;
    }
    None
}

/// The multicast group in which the owner of `target` listens (RFC 4291 §2.7.1).
pub fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// The Ethernet address of an IPv6 multicast group (RFC 2464 §7).
pub fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// The link-local address that belongs to an Ethernet address (RFC 4291, appendix A).
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let [a, b] = [u16::from_be_bytes([a ^ 2, b]), u16::from_be_bytes([c, 0xff])];
    Ipv6Addr::new(0xfe80, 0, 0, 0, a, b, u16::from_be_bytes([0xfe, d]), u16::from_be_bytes([e, f]))
}

/// Asks for `target`. Returns the packet's length; the frame goes to [`group_mac`] of [`solicited_node`].
pub fn write_solicitation(room: &mut [u8], source: Ipv6Addr, mac: Mac, target: Ipv6Addr) -> usize {
    let head = [SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    let destination = solicited_node(target);
    write(room, source, destination, &[&head, &target.octets(), &[SOURCE_MAC, 1], &mac.0])
}

/// Says that `target` is at `mac`, to whoever asked; an unspecified asker is answered before everybody. Returns the
/// packet's length and the destination.
pub fn write_advertisement(room: &mut [u8], target: Ipv6Addr, mac: Mac, asker: Ipv6Addr) -> (usize, Ipv6Addr) {
    const ROUTER: u8 = 0x80;
    const SOLICITED: u8 = 0x40;
    const OVERRIDE: u8 = 0x20;
    let (destination, flags) =
        if asker.is_unspecified() { (ALL_NODES, ROUTER | OVERRIDE) } else { (asker, ROUTER | SOLICITED | OVERRIDE) };
    let head = [ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    (write(room, target, destination, &[&head, &target.octets(), &[TARGET_MAC, 1], &mac.0]), destination)
}

fn write(room: &mut [u8], source: Ipv6Addr, destination: Ipv6Addr, parts: &[&[u8]]) -> usize {
    let (source, destination) = (source.into(), destination.into());
    let out = Outgoing { source, destination, protocol: protocol::ICMP6, hop_limit: FROM_LINK };
    out.write(room, parts, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    #[test]
    fn solicitation_and_advertisement_read_back() {
        let mut room = [0; 100];
        let (me, target) = (ip("2001:db8::9"), ip("2001:db8::aa:bb01"));
        let len = write_solicitation(&mut room, me, MAC, target);
        let packet = Ip::read(&room[..len]).unwrap();
        assert_eq!(packet.destination, ip("ff02::1:ffaa:bb01"));
        assert_eq!(Ndp::read(&packet), Some(Ndp::Solicitation { target, source: me, mac: Some(MAC) }));

        let (len, to) = write_advertisement(&mut room, target, MAC, me);
        assert_eq!(to, me);
        assert_eq!(Ndp::read(&Ip::read(&room[..len]).unwrap()), Some(Ndp::Advertisement { target, mac: Some(MAC) }));
        let (len, to) = write_advertisement(&mut room, target, MAC, Ipv6Addr::UNSPECIFIED);
        assert_eq!(to, ALL_NODES);
        assert_eq!(room[44] & 0x40, 0, "an answer to nobody is not solicited");

        for at in [4, 7, 42, 43, 47, 48, 63, 66] {
            let mut bad = room;
            bad[at] ^= 1;
            assert_eq!(Ip::read(&bad[..len]).and_then(|ip| Ndp::read(&ip)), None, "byte {at}");
        }
    }

    #[test]
    fn an_option_of_length_0_ends_the_search() {
        assert_eq!(option(&[9, 0, 1, 1, 0, 0, 0, 0, 0, 0], SOURCE_MAC), None);
        assert_eq!(
            option(&[9, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 3, 4, 5, 6], SOURCE_MAC),
            Some(Mac([1, 2, 3, 4, 5, 6]))
        );
        assert_eq!(option(&[1, 1, 1, 2, 3], SOURCE_MAC), None);
    }

    #[test]
    fn derived_addresses() {
        assert_eq!(link_local(MAC), ip("fe80::5054:ff:fe12:3456"));
        assert_eq!(group_mac(solicited_node(ip("2001:db8::aa:bb01"))), Mac([0x33, 0x33, 0xff, 0xaa, 0xbb, 1]));
    }
}
