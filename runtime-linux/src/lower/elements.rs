//! Fills a family's sets and maps from a program.

use super::Select;
use super::affinity::Affinity;
use super::features::Features;
use super::needs::Needs;
use super::part::{Depth, Part};
use super::ranges::merge;
use super::rules::PASSED_OVER;
use crate::nft::model::{Elements, Family, Field, Set, SetData, Verdict, width};
use natlet_core::{Choice, Cidr, EndpointList, FrontendKind, Policy, Program, ProgramFrontend, Record};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest comment on an element that fits its userdata, in bytes.
const MAX_COMMENT: usize = 127;

/// An element's key, or its key and data: at most two addresses and some fields of four bytes. On the stack, since there is
/// one for each element.
pub(super) type Bytes = heapless::Vec<u8, 64>;

/// Appends to bytes that have room for all that an element can hold.
fn append(bytes: &mut Bytes, more: &[u8]) {
    bytes.extend_from_slice(more).expect("an element has at most 64 bytes");
}

/// A family's sets, and what they need rules for.
pub struct Filled {
    pub sets: Vec<Set>,
    pub(super) features: Features,
}

/// Fields of the keys of one family.
#[derive(Clone, Copy)]
pub struct Fields {
    pub daddr: Field,
    pub saddr: Field,
}

impl Fields {
    pub const fn of(family: Family) -> Self {
        match family {
            Family::Ip => Self { daddr: Field::Ip4Daddr, saddr: Field::Ip4Saddr },
            Family::Ip6 => Self { daddr: Field::Ip6Daddr, saddr: Field::Ip6Saddr },
        }
    }
}

/// A set under construction.
pub(super) struct Building {
    name: &'static str,
    key: Vec<Field>,
    data: SetData,
    interval: bool,
    pub(super) elements: Elements,
}

impl Building {
    fn set(name: &'static str, key: &[Field]) -> Self {
        Self { name, key: key.into(), data: SetData::None, interval: false, elements: Elements::new(width(key), 0) }
    }

    fn ranges(name: &'static str, key: &[Field]) -> Self {
        let elements = Elements::new(width(key), width(key));
        Self { name, key: key.into(), data: SetData::None, interval: true, elements }
    }

    pub(super) fn map(name: &'static str, key: &[Field], data: &[Field]) -> Self {
        let elements = Elements::new(width(key), width(data));
        Self { name, key: key.into(), data: SetData::Value(data.into()), interval: false, elements }
    }

    fn verdicts(name: &'static str, key: &[Field]) -> Self {
        let elements = Elements::new(width(key), 2);
        Self { name, key: key.into(), data: SetData::Verdict(Vec::new()), interval: false, elements }
    }

    pub(super) fn finish(self) -> Set {
        let count = u32::try_from(self.elements.len()).unwrap_or(u32::MAX);
        Set {
            name: self.name.into(),
            key: self.key,
            interval: self.interval,
            memory: None,
            counter: matches!(self.data, SetData::Verdict(_)),
            data: self.data,
            size: (!self.interval).then(|| Set::size_for(count)),
            comment: String::new(),
            elements: self.elements,
        }
    }
}

pub(super) fn clip(comment: &str) -> &str {
    let mut end = comment.len().min(MAX_COMMENT);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    &comment[..end]
}

/// Two maps that hold one of the lists: frontend to verdict, frontend and slot to endpoint.
struct Lists {
    verdicts: Building,
    /// What each of the verdicts does.
    ways: Vec<Way>,
    endpoints: Building,
}

/// What a frontend's verdict does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Refuse,
    PassOver,
    Drop,
    Draw(Select),
}

impl Way {
    fn verdict(self) -> Verdict {
        match self {
            Self::Refuse => Verdict::Goto("refuse".into()),
            Self::PassOver => Verdict::Goto(PASSED_OVER.into()),
            Self::Drop => Verdict::Drop,
            Self::Draw(select) => Verdict::Goto(select.chain()),
        }
    }
}

impl Lists {
    fn new(names: [&'static str; 2], key: &[Field], daddr: Field) -> Self {
        let slot = [key, &[Field::Slot]].concat();
        Self {
            verdicts: Building::verdicts(names[0], key),
            ways: Vec::new(),
            endpoints: Building::map(names[1], &slot, &[daddr, Field::Dport]),
        }
    }

    /// Enters a frontend's list: its slots, and with a name its verdict.
    fn enter(&mut self, key: &[u8], list: &List<'_>, name: Option<&str>) {
        if let List::Draw(endpoints, Select { affinity: None, .. }) = list {
            self.enter_slots(key, *endpoints);
        }
        if let Some(name) = name {
            let index = self.verdict(list.way());
            self.verdicts.elements.push(key, &index.to_le_bytes(), clip(name));
        }
    }

    fn enter_slots(&mut self, key: &[u8], endpoints: EndpointList<'_>) {
        let elements = &mut self.endpoints.elements;
        let mut bytes = Bytes::new();
        append(&mut bytes, key);
        let mut slot = 0_u32;
        for e in endpoints.iter() {
            for _ in 0..e.weight {
                bytes.truncate(key.len());
                append(&mut bytes, &slot.to_ne_bytes());
                append(&mut bytes, &address_bytes(e.address.ip()));
                append(&mut bytes, &padded_port(e.address.port()));
                elements.push_joined(&bytes);
                slot += 1;
            }
        }
    }

    /// The number of a verdict in the map's list of them.
    fn verdict(&mut self, way: Way) -> u16 {
        let index = self.ways.iter().position(|w| *w == way).unwrap_or_else(|| {
            if let SetData::Verdict(verdicts) = &mut self.verdicts.data {
                verdicts.push(way.verdict());
            }
            self.ways.push(way);
            self.ways.len() - 1
        });
        u16::try_from(index).expect("a list has at most 65535 slots, so fewer verdicts")
    }
}

/// What a frontend's map entry says.
pub(super) enum List<'a> {
    Refuse,
    /// Refuse, unless a NodePort takes the connection.
    PassOver,
    Drop,
    Draw(EndpointList<'a>, Select),
}

impl<'a> List<'a> {
    fn of(record: &Record<'a>, endpoints: EndpointList<'a>, node_port: bool, local: bool) -> Self {
        if !record.any_usable() {
            Self::Refuse
        } else if endpoints.is_empty() {
            Self::Drop
        } else {
            let hash = record.choice() == Choice::SourceHash;
            let affinity = record.affinity_timeout();
            Self::Draw(endpoints, Select { node_port, local, hash, affinity, slots: endpoints.slots() })
        }
    }

    const fn way(&self) -> Way {
        match self {
            Self::Refuse => Way::Refuse,
            Self::PassOver => Way::PassOver,
            Self::Drop => Way::Drop,
            Self::Draw(_, select) => Way::Draw(*select),
        }
    }

    /// The chain that draws from it.
    pub(super) fn select(&self) -> Option<Select> {
        if let Self::Draw(_, select) = self { Some(*select) } else { None }
    }
}

/// Where a frontend's connections go.
pub(super) struct Route<'a> {
    /// The list of everybody, or of everybody who is not from outside.
    pub main: List<'a>,
    /// It is the record's Local list.
    main_is_local: bool,
    /// The list for sources outside, where there is one of its own.
    pub outside: Option<List<'a>>,
    pub masquerade: Masquerade,
}

/// Which connections of a frontend are masqueraded by its kind and policy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Masquerade {
    AsClusterIp,
    Always,
    FromNode,
}

impl<'a> Route<'a> {
    pub(super) fn of(f: &ProgramFrontend<'a>) -> Self {
        let record = &f.record;
        let (external, node_port) = (f.kind.is_external(), f.kind == FrontendKind::NodePort);
        let policy = if external { record.external_policy() } else { record.internal_policy() };
        // ClusterIPs look at one list only; external frontends under policy Local at both, by class of source
        let main_is_local = !external && policy == Policy::Local;
        let main = if main_is_local { record.local() } else { record.cluster() };
        let passed_over = f.is_passed_over() && !node_port;
        let main = if passed_over { List::PassOver } else { List::of(record, main, node_port, false) };
        let outside = external && policy == Policy::Local && record.any_usable();
        Self {
            main,
            main_is_local,
            outside: outside.then(|| List::of(record, record.local(), node_port, true)),
            masquerade: match (f.kind, policy) {
                (FrontendKind::ClusterIp, _) => Masquerade::AsClusterIp,
                (_, Policy::Cluster) => Masquerade::Always,
                (_, Policy::Local) => Masquerade::FromNode,
            },
        }
    }
}

/// Key bytes of an address, network order.
pub(super) fn address_bytes(address: IpAddr) -> heapless::Vec<u8, 16> {
    match address {
        IpAddr::V4(a) => heapless::Vec::from_array(a.octets()),
        IpAddr::V6(a) => heapless::Vec::from_array(a.octets()),
    }
}

pub(super) fn padded_port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn frontend_key(f: &ProgramFrontend<'_>) -> Bytes {
    let mut key = Bytes::new();
    if f.kind != FrontendKind::NodePort {
        append(&mut key, &address_bytes(f.address));
    }
    append(&mut key, &[f.protocol.number(), 0, 0, 0]);
    append(&mut key, &padded_port(f.port));
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
        append(&mut pair, &address_bytes(ip));
        append(&mut pair, &address_bytes(ip));
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
