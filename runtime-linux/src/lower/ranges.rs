//! Prefixes as disjoint ranges of addresses, which is what interval sets take.

use natlet_core::Cidr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The prefixes of one family as ascending, disjoint, non-adjacent ranges with inclusive ends.
pub fn merge(cidrs: impl IntoIterator<Item = Cidr>, v6: bool) -> Vec<(IpAddr, IpAddr)> {
    let mut ranges: Vec<(u128, u128)> =
        cidrs.into_iter().filter(|c| c.address.is_ipv6() == v6).map(|c| bounds(&c)).collect();
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (from, to) in ranges {
        match merged.last_mut() {
            Some((_, end)) if from <= end.saturating_add(1) => *end = to.max(*end),
            _ => merged.push((from, to)),
        }
    }
    merged.into_iter().map(|(from, to)| (address(from, v6), address(to, v6))).collect()
}

fn bounds(cidr: &Cidr) -> (u128, u128) {
    let (bits, width) = match cidr.address {
        IpAddr::V4(a) => (a.to_bits().into(), 32),
        IpAddr::V6(a) => (a.to_bits(), 128),
    };
    let host = 1_u128.checked_shl(width - u32::from(cidr.prefix)).map_or(u128::MAX, |n| n - 1);
    (bits & !host, bits | host)
}

fn address(bits: u128, v6: bool) -> IpAddr {
    match u32::try_from(bits) {
        Ok(v4) if !v6 => IpAddr::V4(Ipv4Addr::from_bits(v4)),
        _ => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        let (address, prefix) = text.split_once('/').unwrap();
        Cidr::new(address.parse().unwrap(), prefix.parse().unwrap()).unwrap()
    }

    fn merged(cidrs: &[&str], v6: bool) -> Vec<String> {
        merge(cidrs.iter().map(|c| cidr(c)), v6).into_iter().map(|(a, b)| format!("{a}-{b}")).collect()
    }

    #[test]
    fn overlapping_and_adjacent_prefixes_become_one_range() {
        let cidrs = ["10.1.0.0/16", "10.0.0.0/8", "11.0.0.0/9", "192.0.2.0/25", "2001:db8::/32"];
        assert_eq!(merged(&cidrs, false), ["10.0.0.0-11.127.255.255", "192.0.2.0-192.0.2.127"]);
        assert_eq!(merged(&cidrs, true), ["2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"]);
    }

    #[test]
    fn the_whole_address_space_is_one_range() {
        assert_eq!(merged(&["0.0.0.0/0"], false), ["0.0.0.0-255.255.255.255"]);
        assert_eq!(merged(&["::/0"], true), ["::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]);
    }
}
