//! Tables made of the fuzzer's bytes. Addresses and ports come from small pools, so that they meet.

use crate::common::{NodeSpec, ServiceSpec, cidr, ip};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use natlet_core::{Choice, Cidr, Endpoint, FrontendKind, Policy, Protocol};
use std::collections::HashSet;
use std::net::IpAddr;

/// Addresses of clusters, of clients, and those that no host has. Sources, frontends and endpoints are drawn from them alike.
const ADDRESSES: [&str; 24] = [
    "10.96.0.1",
    "10.96.0.2",
    "10.96.0.3",
    "10.96.0.10",
    "10.244.0.2",
    "10.244.0.3",
    "10.244.1.2",
    "192.0.2.1",
    "192.0.2.2",
    "198.51.100.1",
    "203.0.113.9",
    "127.0.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "224.0.0.1",
    "2001:db8:96::1",
    "2001:db8:96::2",
    "2001:db8:244::2",
    "2001:db8:244::3",
    "2001:db8::1",
    "2001:db8:9::9",
    "::1",
    "::",
    "ff02::1",
];
const PORTS: [u16; 6] = [80, 443, 8080, 30_000, 30_001, 65_535];
const CIDRS: [&str; 8] = [
    "10.244.0.0/16",
    "10.96.0.0/12",
    "0.0.0.0/0",
    "192.0.2.0/24",
    "203.0.113.9/32",
    "2001:db8:244::/48",
    "2001:db8:96::/48",
    "::/0",
];

pub fn address(u: &mut Unstructured<'_>) -> Result<IpAddr> {
    u.choose(&ADDRESSES).map(|text| ip(text))
}

pub fn port(u: &mut Unstructured<'_>) -> Result<u16> {
    u.choose(&PORTS).copied()
}

/// Up to `most` of what `one` makes.
fn several<T>(
    u: &mut Unstructured<'_>,
    most: usize,
    mut one: impl FnMut(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    (0..u.int_in_range(0..=most)?).map(|_| one(u)).collect()
}

fn cidrs(u: &mut Unstructured<'_>, most: usize) -> Result<Vec<Cidr>> {
    several(u, most, |u| u.choose(&CIDRS).map(|text| cidr(text)))
}

pub fn node(u: &mut Unstructured<'_>) -> Result<NodeSpec> {
    let mut addresses = several(u, 3, address)?;
    let mut seen = HashSet::new();
    addresses.retain(|a| seen.insert(*a));
    Ok(NodeSpec {
        addresses,
        cluster: cidrs(u, 2)?,
        service: cidrs(u, 2)?,
        node_port: cidrs(u, 2)?,
        masquerade_all: u.ratio(1, 4)?,
        localhost: u.arbitrary()?,
    })
}

fn frontend(u: &mut Unstructured<'_>) -> Result<(FrontendKind, IpAddr, u16)> {
    use FrontendKind::{ClusterIp, ExternalIp, LoadBalancer, NodePort};
    let kind = *u.choose(&[ClusterIp, ExternalIp, LoadBalancer, NodePort])?;
    let address = match (kind, address(u)?) {
        (NodePort, IpAddr::V4(_)) => ip("0.0.0.0"),
        (NodePort, IpAddr::V6(_)) => ip("::"),
        (_, address) => address,
    };
    Ok((kind, address, port(u)?))
}

fn endpoint(u: &mut Unstructured<'_>) -> Result<Endpoint> {
    let (address, port) = (address(u)?, port(u)?);
    let [ready, fallback, local, hinted] = u.arbitrary()?;
    let weight = if u.ratio(1, 4)? { u.arbitrary()? } else { 1 };
    // most are ready, so that there is something to translate to
    Ok(Endpoint { weight, ready: ready || hinted, fallback, local, hinted, ..Endpoint::new(address, port) })
}

fn policy(u: &mut Unstructured<'_>) -> Result<Policy> {
    Ok(if u.ratio(1, 3)? { Policy::Local } else { Policy::Cluster })
}

/// Services of different names and frontends, which meet at their addresses.
pub fn services(u: &mut Unstructured<'_>) -> Result<Vec<ServiceSpec>> {
    let mut taken = HashSet::new();
    let mut number = 0;
    several(u, 8, |u| {
        number += 1;
        let mut s = ServiceSpec::new(&format!("ns/s{number}"));
        s.protocol = *u.choose(&Protocol::ALL)?;
        s.frontends = several(u, 4, frontend)?;
        s.frontends.retain(|&(_, address, port)| taken.insert((address, s.protocol, port)));
        s.endpoints = several(u, 5, endpoint)?;
        (s.internal, s.external) = (policy(u)?, policy(u)?);
        s.ranges = cidrs(u, 1)?;
        s.affinity = if u.ratio(1, 3)? { 60 } else { 0 };
        s.choice = if u.ratio(1, 3)? { Choice::SourceHash } else { Choice::Random };
        Ok(s)
    })
}
