//! What `board.toml` says: the gateway's addresses, its routes, and who may update it.

use core::net::{IpAddr, Ipv4Addr};
use natlet_core::Cidr;

/// A route through another router.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// To where.
    pub to: Cidr,
    /// The router, on one of the gateway's own links.
    pub via: IpAddr,
}

/// An address of the gateway and the length of the prefix that is on its link.
#[derive(Clone, Copy, Debug)]
pub struct Interface {
    /// The address.
    pub address: IpAddr,
    /// Its subnet, which is on the link.
    pub subnet: Cidr,
}

/// Settings, fixed when the image is built.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// The board's name: an update names the board that it is for.
    pub name: &'a str,
    /// Addresses and subnets; all are on the one port.
    pub interfaces: &'a [Interface],
    /// Other routes, a default route among them.
    pub routes: &'a [Route],
    /// UDP port of the control protocol.
    pub control_port: u16,
    /// Ed25519 public key that updates are signed with.
    pub update_key: [u8; 32],
}

impl Config<'_> {
    /// Whether the gateway has this address.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.interfaces.iter().any(|i| i.address == address)
    }

    /// The interface on whose subnet this address is; the longest prefix wins.
    pub fn interface_of(&self, address: IpAddr) -> Option<&Interface> {
        let on_link = self.interfaces.iter().filter(|i| i.subnet.contains(address));
        on_link.max_by_key(|i| i.subnet.prefix)
    }

    /// To whom a packet for this address is handed; the longest prefix wins, an own subnet before a route.
    pub fn next_hop(&self, destination: IpAddr) -> Option<IpAddr> {
        let interface = self.interface_of(destination);
        let routes = self.routes.iter().filter(|r| r.to.contains(destination));
        let route = routes.max_by_key(|r| r.to.prefix);
        match (interface, route) {
            (Some(interface), Some(route)) if route.to.prefix > interface.subnet.prefix => Some(route.via),
            (Some(_), _) => Some(destination),
            (None, route) => route.map(|r| r.via),
        }
    }

    /// Whether this is a subnet's broadcast address, or everybody's.
    pub fn is_broadcast(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        let directed = |i: &Interface| match i.subnet.address {
            IpAddr::V4(net) if i.subnet.prefix < 31 => {
                let hosts = u32::MAX.checked_shr(i.subnet.prefix.into()).unwrap_or(0);
                Ipv4Addr::from_bits(net.to_bits() | hosts) == address
            }
            _ => false,
        };
        address.is_broadcast() || self.interfaces.iter().any(directed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn interface(address: &str, prefix: u8) -> Interface {
        Interface { address: ip(address), subnet: Cidr::new(ip(address), prefix).unwrap() }
    }

    #[test]
    fn the_longest_prefix_wins() {
        let interfaces = [interface("192.0.2.1", 24), interface("10.0.0.1", 8), interface("2001:db8::1", 64)];
        let to = |a, p, via| Route { to: Cidr::new(ip(a), p).unwrap(), via: ip(via) };
        let routes = [to("10.9.0.0", 16, "10.0.0.9"), to("0.0.0.0", 0, "192.0.2.254"), to("192.0.0.0", 16, "10.0.0.8")];
        let config =
            Config { name: "", interfaces: &interfaces, routes: &routes, control_port: 1, update_key: [0; 32] };
        let hop = |a| config.next_hop(ip(a));
        assert_eq!(hop("192.0.2.7"), Some(ip("192.0.2.7")));
        assert_eq!(hop("10.9.1.1"), Some(ip("10.0.0.9")));
        assert_eq!(hop("10.8.1.1"), Some(ip("10.8.1.1")));
        assert_eq!(hop("192.0.3.1"), Some(ip("10.0.0.8")));
        assert_eq!(hop("198.51.100.1"), Some(ip("192.0.2.254")));
        assert_eq!(hop("2001:db8::7"), Some(ip("2001:db8::7")));
        assert_eq!(hop("2001:db8:1::7"), None);
        assert!(config.is_broadcast(ip("192.0.2.255")) && config.is_broadcast(ip("10.255.255.255")));
        assert!(!config.is_broadcast(ip("192.0.2.254")) && config.is_broadcast(ip("255.255.255.255")));
    }
}
