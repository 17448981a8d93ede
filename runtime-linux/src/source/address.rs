//! Addresses, prefixes and names as inputs spell them.
//!
//! Addresses are read as kube-proxy reads them: leading zeros are decimal (`172.30.0.041` is `.41`, `/025` is `/25`),
//! blanks around are ignored, an IPv4 address mapped into IPv6 is an IPv4 address, host bits behind a prefix are cleared.

use natlet_core::table::Cidr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Why a text is not what it should be, and what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub why: &'static str,
    pub help: &'static str,
}

/// What an address is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// An address that clients use: ClusterIP, load-balancer IP, external IP.
    Virtual,
    /// Where connections are sent.
    Endpoint,
    /// The node's own.
    Node,
}

const NO_ADDRESS: Fault =
    Fault { why: "not an IP address", help: "write an IPv4 or IPv6 address such as 192.0.2.1 or 2001:db8::1" };
const NO_CIDR: Fault =
    Fault { why: "not an address prefix", help: "write an address, a slash and a length, such as 192.0.2.0/24" };
const NO_SOCKET: Fault =
    Fault { why: "not an address with a port", help: "write it as 192.0.2.1:443 or [2001:db8::1]:443" };

/// An address.
pub(super) fn parse(text: &str) -> Result<IpAddr, Fault> {
    let text = text.trim();
    if let Some(address) = parse_v4(text) {
        return Ok(IpAddr::V4(address));
    }
    text.parse::<Ipv6Addr>().map(|address| IpAddr::V6(address).to_canonical()).map_err(|_| NO_ADDRESS)
}

/// An address prefix. A bare address is none.
pub(super) fn parse_cidr(text: &str) -> Result<Cidr, Fault> {
    let (address, prefix) = text.trim().split_once('/').ok_or(NO_CIDR)?;
    let prefix = decimal(prefix, 128).ok_or(NO_CIDR)?;
    let address = parse(address).map_err(|_| NO_CIDR)?;
    Cidr::new(address, prefix).ok_or(Fault {
        why: "the prefix is longer than the address",
        help: "an IPv4 prefix has 0 to 32 bits, an IPv6 prefix 0 to 128",
    })
}

/// An address with a port: `192.0.2.1:80`, `[2001:db8::1]:80`.
pub(super) fn parse_socket(text: &str) -> Result<(IpAddr, u16), Fault> {
    let text = text.trim();
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:").ok_or(NO_SOCKET)?,
        None => text.split_once(':').ok_or(NO_SOCKET)?,
    };
    let address = parse(address).map_err(|_| NO_SOCKET)?;
    let port = port.parse::<u16>().map_err(|_| NO_SOCKET)?;
    if port == 0 {
        return Err(Fault { why: "port 0 cannot be reached", help: "use a port from 1 to 65535" });
    }
    Ok((address, port))
}

/// An endpoint as people know it: `192.0.2.1:80`, `[2001:db8::1]:80`.
pub(super) fn socket_text(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

/// Whether an address can play a role.
pub(super) fn suits(address: IpAddr, role: Role) -> Result<(), Fault> {
    if address.is_unspecified() {
        return Err(Fault { why: "the unspecified address is no destination", help: "give the address itself" });
    }
    if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(Fault { why: "NAT does not translate multicast or broadcast", help: "give a unicast address" });
    }
    if role == Role::Virtual && address.is_loopback() {
        return Err(Fault {
            why: "a loopback address never arrives from the network",
            help: "give an address that clients can send to; for NodePorts on 127.0.0.1 there is --localhost-node-ports",
        });
    }
    Ok(())
}

/// A service name as the table holds it: `namespace/name` or `namespace/name:port`, of characters that are safe in rule
/// comments and in terminals.
pub(super) fn check_name(name: &str) -> Result<(), Fault> {
    const LONGEST: usize = 253;
    let well_formed = name.split_once('/').is_some_and(|(namespace, rest)| {
        let (service, port) = rest.split_once(':').map_or((rest, None), |(service, port)| (service, Some(port)));
        let part =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        part(namespace) && part(service) && port.is_none_or(part)
    });
    if !well_formed {
        return Err(Fault {
            why: "not a service name",
            help: "write namespace/name or namespace/name:port, of letters, digits, '-', '.' and '_'",
        });
    }
    if name.len() > LONGEST {
        return Err(Fault { why: "the name is too long", help: "use at most 253 characters" });
    }
    Ok(())
}

/// A host name of an Ingress rule or of `hosts`: a DNS name, `*.` in front allowed, or `*`.
pub(super) fn check_host(host: &str) -> Result<(), Fault> {
    let safe = host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._*:".contains(&b));
    if host.is_empty() || host.len() > 253 || !safe {
        return Err(Fault { why: "not a host name", help: "write a DNS name such as www.example.com" });
    }
    Ok(())
}

fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0_u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = decimal(parts.next()?, 255)?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// A decimal number with any leading zeros.
fn decimal(text: &str, most: u8) -> Option<u8> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = text.trim_start_matches('0');
    let number = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    (number <= most).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("a literal address")
    }

    #[test]
    fn leading_zeros_are_decimal() {
        assert_eq!(parse("172.30.0.041"), Ok(ip("172.30.0.41")));
        assert_eq!(parse(" 010.0.0.1 "), Ok(ip("10.0.0.1")));
        assert_eq!(parse("2001:DB8::1"), Ok(ip("2001:db8::1")));
        assert_eq!(parse("::ffff:192.0.2.1"), Ok(ip("192.0.2.1")));
        assert_eq!(parse_cidr(" 203.0.113.0/025 ").map(|c| c.to_string()), Ok("203.0.113.0/25".into()));
        assert_eq!(parse_cidr("203.0.113.77/24").map(|c| c.to_string()), Ok("203.0.113.0/24".into()));
        assert_eq!(parse_cidr("::/0").map(|c| c.to_string()), Ok("::/0".into()));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256",
            "1.2.3.-4",
            "1.2.3.+4",
            "fe80::1%eth0",
            "http://192.0.2.1",
            "a.b.c.d",
        ] {
            assert_eq!(parse(text), Err(NO_ADDRESS), "{text}");
        }
        for text in ["192.0.2.0", "192.0.2.0/33", "192.0.2.0/", "/24", "192.0.2.0/-1", "::/129", "::/999"] {
            assert!(parse_cidr(text).is_err(), "{text}");
        }
        for text in
            ["192.0.2.1", "192.0.2.1:0", "192.0.2.1:65536", "2001:db8::1:80", "[2001:db8::1]", "[2001:db8::1]80"]
        {
            assert!(parse_socket(text).is_err(), "{text}");
        }
        assert_eq!(parse_socket("[2001:db8::1]:80"), Ok((ip("2001:db8::1"), 80)));
    }

    #[test]
    fn roles_refuse_what_cannot_work() {
        assert!(suits(ip("0.0.0.0"), Role::Endpoint).is_err());
        assert!(suits(ip("224.0.0.1"), Role::Endpoint).is_err());
        assert!(suits(ip("255.255.255.255"), Role::Node).is_err());
        assert!(suits(ip("ff02::1"), Role::Virtual).is_err());
        assert!(suits(ip("127.0.0.1"), Role::Virtual).is_err());
        assert!(suits(ip("::1"), Role::Virtual).is_err());
        assert!(suits(ip("127.0.0.1"), Role::Endpoint).is_ok());
    }

    #[test]
    fn names_are_plain() {
        for name in ["shop/web", "shop/web:https", "a.b/c-d_e:p1"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["web", "/web", "shop/", "shop/web:", "shop/we\"b", "shop/w\nb", "a/b/c", "a/b:c:d", "a/bé"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name(&format!("a/{}", "b".repeat(253))).is_err());
    }
}
