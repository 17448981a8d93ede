//! Fills a family's sets and maps from a program.

use super::affinity::Affinity;
use super::building::{Building, Bytes, Fields, address_bytes, append, append_address, clip, padded_port};
use super::features::Features;
use super::lists::{List, Lists};
use super::needs::Needs;
use super::part::{Depth, Part};
use super::ranges::merge;
use super::route::{Masquerade, Route};
use crate::nft::model::{Family, Field, Set};
use natlet_core::{Cidr, FrontendKind, Program, ProgramFrontend};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A family's sets, and what they need rules for.
pub struct Filled {
    pub sets: Vec<Set>,
    pub(super) features: Features,
}

fn frontend_key(f: &ProgramFrontend<'_>) -> Bytes {
    let mut key = Bytes::new();
    if f.kind != FrontendKind::NodePort {
        append_address(&mut key, f.address);
    }
    append(&mut key, [f.protocol.number(), 0, 0, 0]);
    append(&mut key, padded_port(f.port));
    key
}

/// All sets of a family, in creation order, with the elements of a part of the program (`None`: all of them), and the features
/// that they stand for. The maps of session affinity are always whole: the numbers in them depend on each other.
pub(super) fn fill(
    program: &Program<'_>,
    family: Family,
    info: &str,
    needs: &Needs,
    part: Option<&Part<'_>>,
) -> Filled {
    let v6 = family == Family::Ip6;
    let Fields { daddr, saddr } = Fields::of(family);
    let vip = [daddr, Field::L4Proto, Field::Dport];
    let port = [Field::L4Proto, Field::Dport];
    let context = program.context();

    let mut services = Lists::new(["services", "endpoints"], &vip, daddr);
    let mut local_services = Lists::new(["local-services", "local-endpoints"], &vip, daddr);
    let mut node_ports = Lists::new(["node-ports", "node-port-endpoints"], &port, daddr);
    let mut local_node_ports = Lists::new(["local-node-ports", "local-node-port-endpoints"], &port, daddr);
    let mut masquerade = Building::set("masquerade-always", &vip);
    let mut masquerade_node = Building::set("masquerade-node", &vip);
    let mut masquerade_node_ports = Building::set("masquerade-node-ports", &port);
    let mut masquerade_local_node_ports = Building::set("masquerade-local-node-ports", &port);
    let mut restricted = Building::set("restricted", &vip);
    let mut allowed = Building::ranges("allowed", &[daddr, Field::L4Proto, Field::Dport, saddr]);
    let mut affinity = Affinity::new(program, family, needs.has_affinity());
    // records come in the order of their offsets
    let names: Vec<(u32, &str)> = match part {
        None => {
            let in_family = program.services().filter(|(record, _)| record.is_v6() == v6);
            in_family.filter_map(|(record, name)| Some((record.offset(), name?.name))).collect()
        }
        Some(part) => part.names.clone(),
    };
    let frontends: Box<dyn Iterator<Item = ProgramFrontend<'_>>> = match part {
        // all those with affinity are entered
        Some(part) if !needs.has_affinity() => Box::new(part.frontends.iter().copied()),
        _ => Box::new(program.frontends()),
    };
    for f in frontends.filter(|f| f.address.is_ipv6() == v6) {
        let record = &f.record;
        let depth = part.map_or(Depth::All, |p| p.depth_of(record));
        if depth == Depth::Nothing && record.affinity_timeout().is_none() {
            continue;
        }
        let route = Route::of(&f);
        let name = names.binary_search_by_key(&record.offset(), |n| n.0).map_or("", |at| names[at].1);
        let key = frontend_key(&f);
        affinity.enter(&key, &f, false, route.main_is_local, name);
        if route.outside.is_some() {
            affinity.enter(&key, &f, true, true, name);
        }
        if depth == Depth::Nothing {
            continue;
        }
        let node_port = f.kind == FrontendKind::NodePort;
        let named = (depth == Depth::All).then_some(name);
        (if node_port { &mut node_ports } else { &mut services }).enter(&key, &route.main, named);
        if let Some(outside) = &route.outside {
            (if node_port { &mut local_node_ports } else { &mut local_services }).enter(&key, outside, named);
        }
        if depth != Depth::All {
            continue;
        }
        if let Some(set) = match route.masquerade {
            Masquerade::AsClusterIp => None,
            // whom a NodePort translates in its place is masqueraded as that says
            _ if matches!(route.main, List::PassOver) => None,
            Masquerade::Always if node_port => Some(&mut masquerade_node_ports),
            Masquerade::Always => Some(&mut masquerade),
            Masquerade::FromNode if node_port => Some(&mut masquerade_local_node_ports),
            Masquerade::FromNode => Some(&mut masquerade_node),
        } {
            set.elements.push(&key, &[], "");
        }
        if f.kind == FrontendKind::LoadBalancer
            && let Some(ranges) = record.source_ranges()
        {
            restricted.elements.push(&key, &[], clip(name));
            for (from, to) in merge(ranges, v6) {
                let bound = |end: IpAddr| [key.as_slice(), &address_bytes(end)].concat();
                allowed.elements.push(&bound(from), &bound(to), "");
            }
        }
    }

    let interval = |name: &'static str, field: Field, cidrs: Vec<Cidr>| {
        let mut set = Building::ranges(name, &[field]);
        for (from, to) in merge(cidrs, v6) {
            set.elements.push(&address_bytes(from), &address_bytes(to), "");
        }
        set
    };
    let pods = interval("pods", saddr, context.cluster_cidrs().collect());
    // a zero prefix stands for every address of the host
    let node_port_cidrs: Vec<Cidr> = context.node_port_cidrs().filter(|c| c.address.is_ipv6() == v6).collect();
    let everywhere = node_port_cidrs.iter().any(|c| c.prefix == 0);
    let node_port_addresses = interval("node-port-addresses", daddr, if everywhere { vec![] } else { node_port_cidrs });
    let service_cidrs = interval("service-cidrs", daddr, context.service_cidrs().collect());

    let mut cluster_ips = Building::set("cluster-ips", &[daddr]);
    let mut hairpin = Building::set("hairpin", &[saddr, daddr]);
    let mut one = |ip: IpAddr| cluster_ips.elements.push(&address_bytes(ip), &[], "");
    let mut itself = |ip: IpAddr| {
        let mut pair = Bytes::new();
        append_address(&mut pair, ip);
        append_address(&mut pair, ip);
        hairpin.elements.push_joined(&pair);
    };
    match part {
        None => {
            program.cluster_ips().filter(|ip| ip.is_ipv6() == v6).for_each(&mut one);
            endpoint_addresses(program, v6).for_each(&mut itself);
        }
        Some(part) => {
            part.cluster_ips.iter().filter(|ip| ip.is_ipv6() == v6).copied().for_each(&mut one);
            part.endpoints.iter().filter(|ip| ip.is_ipv6() == v6).copied().for_each(&mut itself);
        }
    }
    let mut about = Building::set("program", &[Field::Mark]);
    about.elements.push(&1_u32.to_ne_bytes(), &[], clip(info));

    let mut features = Features::of(program, family, needs);
    features.siblings = affinity.has_siblings();
    features.node_port_addresses = !node_port_addresses.elements.is_empty();
    let sets = [
        about,
        pods,
        node_port_addresses,
        service_cidrs,
        cluster_ips,
        restricted,
        allowed,
        hairpin,
        masquerade,
        masquerade_node,
        masquerade_node_ports,
        masquerade_local_node_ports,
        services.endpoints,
        local_services.endpoints,
        node_ports.endpoints,
        local_node_ports.endpoints,
        services.verdicts,
        local_services.verdicts,
        node_ports.verdicts,
        local_node_ports.verdicts,
    ];
    Filled { sets: sets.into_iter().map(Building::finish).chain(affinity.finish()).collect(), features }
}

/// Distinct addresses of all endpoints of a family, ascending.
fn endpoint_addresses(program: &Program<'_>, v6: bool) -> impl Iterator<Item = IpAddr> {
    // as numbers, which compare in a fraction of the time
    let number = |address| match address {
        IpAddr::V4(a) => a.to_bits().into(),
        IpAddr::V6(a) => a.to_bits(),
    };
    let records = program.records().filter(|r| r.is_v6() == v6);
    let mut all: Vec<u128> = records.flat_map(|r| r.endpoints().iter().map(|e| number(e.address.ip()))).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(move |bits| match u32::try_from(bits) {
        Ok(bits) if !v6 => Ipv4Addr::from_bits(bits).into(),
        _ => Ipv6Addr::from_bits(bits).into(),
    })
}
