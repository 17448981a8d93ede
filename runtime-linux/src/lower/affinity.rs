//! Session affinity: the kernel remembers which endpoint a client was sent to.
//!
//! A service port has a number, the same for all its frontends; a client's connection to it looks up `affinity`, where
//! (number, client) leads to an endpoint, and draws only if there is none. A rule can carry no value from one look-up to the
//! next (nft could not list it), so values travel in what the translation overwrites anyway: the number in the packet's
//! priority, the endpoint in its destination address. The priority of a connection's first packet is not restored.
//!
//! ```text
//! select-affinity-T-N  priority := affinity-ids[frontend];  daddr := affinity[priority . client]        ─▶ remember-T
//!                                                  else     daddr := affinity-draws[priority . random mod N]  ─▶ remember-T
//! remember-T           affinity[priority . client] := daddr for T seconds;  dnat to affinity-endpoints[priority . daddr]
//! ```
//!
//! The Cluster and the Local list of a service port have numbers of their own, differing in the last bit, so that a client is
//! held to an endpoint only where the endpoint is in the list that applies. A connection to an endpoint of both is entered
//! for both (`affinity-siblings`).
//!
//! Beside kube-proxy: a client that was, through different lists, sent to several endpoints of one list is held to the first
//! of them and not to the first in the list's order; an endpoint that changes its port only is the same endpoint, unless it
//! shares its address with another one of the service; when `affinity` is full, new clients draw each time; and two IPv6
//! clients whose 32-bit hashes are equal share an endpoint. (The hash is in the key because nft 1.0.6 makes a wrong rule of
//! a longer key when it reloads a listing.)

use super::building::{Building, Fields, address_bytes, clip, padded_port};
use super::rules::{Build, FIRST, commented, load_l4proto, rule, words};
use crate::nft::model::{Chain, Expression as E, Family, Field, Register, Rule, Set, Verdict};
use natlet_core::{EndpointList, FrontendKind, Program, ProgramFrontend, SOURCE_HASH_SEED, jhash};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Most clients that a family's memory holds. Reading it takes the kernel quadratic time: 0.3 s for these, four times as long
/// for twice as many.
const CLIENTS: u32 = 1 << 16;
const META_PRIORITY: u32 = 2;
const PRIORITY: Register = FIRST;

/// The names of the maps from frontend to number, by whether the frontend is a NodePort and the list is for outside clients of
/// policy Local.
const IDS: [[&str; 2]; 2] =
    [["affinity-ids", "local-affinity-ids"], ["node-port-affinity-ids", "local-node-port-affinity-ids"]];

/// The map from frontend to number.
pub(super) const fn ids_map(node_port: bool, local: bool) -> &'static str {
    IDS[node_port as usize][local as usize]
}

/// The numbers of the service ports of a family that have affinity: even ones, by record.
///
/// A number is a hash of the service port's name (without names: of its first frontend), so that it stays the same when other
/// services come and go. It is at least 2^31, out of the way of the priorities that applications set.
fn numbers(program: &Program<'_>, v6: bool) -> HashMap<u32, u32> {
    let mut identities: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    let mut first: BTreeMap<u32, (FrontendKind, IpAddr, u16, u8)> = BTreeMap::new();
    for f in program.frontends().filter(|f| f.address.is_ipv6() == v6 && f.record.affinity_timeout().is_some()) {
        let this = (f.kind, f.address, f.port, f.protocol.number());
        first.entry(f.record.offset()).and_modify(|least| *least = this.min(*least)).or_insert(this);
    }
    let names: HashMap<u32, Vec<u8>> = program
        .services()
        .filter_map(|(r, name)| Some((r.offset(), name?)))
        .map(|(offset, name)| (offset, [name.name.as_bytes(), &[0, name.protocol.number()]].concat()))
        .collect();
    for (&offset, (kind, address, port, protocol)) in &first {
        let unnamed = || format!("{kind} {address} {port} {protocol}").into_bytes();
        let mut identity = names.get(&offset).cloned().unwrap_or_else(unnamed);
        while identities.contains_key(&identity) {
            identity.push(0);
        }
        identities.insert(identity, offset);
    }
    let mut taken = BTreeSet::new();
    let mut numbers = HashMap::new();
    for (identity, offset) in identities {
        let mut number = jhash(&identity, SOURCE_HASH_SEED);
        loop {
            number = (number | 1 << 31) & !1;
            // the last pair holds the priority that tc calls root
            if number < u32::MAX - 1 && taken.insert(number) {
                break;
            }
            number = number.wrapping_add(2);
        }
        numbers.insert(offset, number);
    }
    numbers
}

/// The addresses by which the endpoints of a service are remembered: their own, or where several endpoints have one
/// address, one made of address and port in a range that is nobody's (240.0.0.0/4; 100::/64, RFC 6666).
fn remembered_as(endpoints: EndpointList<'_>) -> HashMap<SocketAddr, IpAddr> {
    let mut count: HashMap<IpAddr, u32> = HashMap::new();
    endpoints.iter().for_each(|e| *count.entry(e.address.ip()).or_default() += 1);
    let mut made = BTreeSet::new();
    let mut names = HashMap::new();
    for endpoint in endpoints.iter().map(|e| e.address) {
        let address = endpoint.ip();
        if count.get(&address) == Some(&1) {
            names.insert(endpoint, address);
            continue;
        }
        let mut hash = jhash(&[&address_bytes(address)[..], &endpoint.port().to_be_bytes()].concat(), 0);
        let made_of = |hash: u32| match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(0xf000_0000 | hash >> 4)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(0x100_u128 << 112 | u128::from(hash))),
        };
        while !made.insert(made_of(hash)) {
            hash = hash.wrapping_add(16);
        }
        names.insert(endpoint, made_of(hash));
    }
    names
}

/// The maps of affinity under construction.
pub(super) struct Affinity {
    numbers: HashMap<u32, u32>,
    ids: [[Building; 2]; 2],
    draws: Building,
    endpoints: Building,
    siblings: Building,
    memory: Building,
    entered: BTreeSet<u32>,
}

impl Affinity {
    /// `used`: some frontend remembers its clients.
    pub(super) fn new(program: &Program<'_>, family: Family, used: bool) -> Self {
        let Fields { daddr, .. } = Fields::of(family);
        let id = Field::Priority;
        let vip = [daddr, Field::L4Proto, Field::Dport];
        let ids = |names: [&'static str; 2], key: &[Field]| names.map(|name| Building::map(name, key, &[id]));
        Self {
            numbers: if used { numbers(program, family == Family::Ip6) } else { HashMap::new() },
            ids: [ids(IDS[0], &vip), ids(IDS[1], &vip[1..])],
            draws: Building::map("affinity-draws", &[id, Field::Slot], &[daddr]),
            endpoints: Building::map("affinity-endpoints", &[id, Field::L4Proto, daddr], &[daddr, Field::Dport]),
            siblings: Building::map("affinity-siblings", &[id, daddr], &[id]),
            memory: Building::map("affinity", &[id, client(family)], &[daddr]),
            entered: BTreeSet::new(),
        }
    }

    /// Enters a frontend, and the list that its clients use unless it was entered before. `local_list`: it is the Local one.
    pub(super) fn enter(&mut self, key: &[u8], f: &ProgramFrontend<'_>, local: bool, local_list: bool, name: &str) {
        let record = &f.record;
        let list = if local_list { record.local() } else { record.cluster() };
        let Some(number) = self.numbers.get(&record.offset()).filter(|_| !list.is_empty()) else { return };
        let id = number | u32::from(local_list);
        let node_port = usize::from(f.kind == FrontendKind::NodePort);
        self.ids[node_port][usize::from(local)].elements.push(key, &id.to_ne_bytes(), clip(name));
        if !self.entered.insert(id) {
            return;
        }
        let names = remembered_as(record.endpoints());
        let id_bytes = id.to_ne_bytes();
        let mut slot = 0_u32;
        for e in list.iter() {
            let Some(name) = names.get(&e.address).map(|name| address_bytes(*name)) else { continue };
            for _ in 0..e.weight {
                self.draws.elements.push(&[id_bytes, slot.to_ne_bytes()].concat(), &name, "");
                slot += 1;
            }
            let key = [&id_bytes[..], &[f.protocol.number(), 0, 0, 0], &name].concat();
            let to = [&address_bytes(e.address.ip())[..], &padded_port(e.address.port())].concat();
            self.endpoints.elements.push(&key, &to, "");
        }
        let sibling = id ^ 1;
        if !self.entered.contains(&sibling) {
            return;
        }
        let local: BTreeSet<SocketAddr> = record.local().iter().map(|e| e.address).collect();
        for e in record.cluster().iter().filter(|e| local.contains(&e.address)) {
            let Some(name) = names.get(&e.address).map(|name| address_bytes(*name)) else { continue };
            for (this, other) in [(id, sibling), (sibling, id)] {
                let key = [&this.to_ne_bytes()[..], &name].concat();
                self.siblings.elements.push(&key, &other.to_ne_bytes(), "");
            }
        }
    }

    /// Whether some service has endpoints in both of its lists.
    pub(super) fn has_siblings(&self) -> bool {
        !self.siblings.elements.is_empty()
    }

    pub(super) fn finish(self) -> Vec<Set> {
        let memory = Set { memory: Some("affinity-draws".into()), size: Some(CLIENTS), ..self.memory.finish() };
        let [[ids, local_ids], [port_ids, local_port_ids]] = self.ids;
        let maps = [ids, local_ids, port_ids, local_port_ids, self.draws, self.endpoints, self.siblings];
        std::iter::once(memory).chain(maps.into_iter().map(Building::finish)).collect()
    }
}

/// The key field by which a client is remembered.
const fn client(family: Family) -> Field {
    match family {
        Family::Ip => Field::Ip4Saddr,
        Family::Ip6 => Field::Slot,
    }
}

impl Build<'_> {
    /// `meta priority . ip saddr`, or `meta priority . jhash ip6 saddr`.
    fn client_key(&self) -> Vec<E> {
        let mut key = vec![load_priority()];
        match self.family {
            Family::Ip => key.push(self.load_saddr(1)),
            Family::Ip6 => key.extend(self.hash_source(1, u32::MAX)),
        }
        key
    }

    /// `ip daddr set … goto remember-T`.
    fn to_remember(&self, timeout: u32) -> [E; 2] {
        let (offset, len) = match self.family {
            Family::Ip => (16, 4),
            Family::Ip6 => (24, 16),
        };
        [E::PayloadSet { sreg: FIRST, base: 1, offset, len }, E::Verdict(Verdict::Goto(remember(timeout)))]
    }

    /// The rules that find or draw an endpoint; `frontend` loads the key of the map `ids`, `draw` a slot into word 1.
    pub(super) fn select_remembered(&self, frontend: Vec<E>, ids: &str, draw: Vec<E>, timeout: u32) -> Vec<Rule> {
        let go = self.to_remember(timeout);
        let number = vec![look_up(ids), E::MetaSet { sreg: PRIORITY, key: META_PRIORITY }];
        let known = [frontend, number, self.client_key(), vec![look_up("affinity")], go.to_vec()].concat();
        let new = [vec![load_priority()], draw, vec![look_up("affinity-draws")], go.to_vec()].concat();
        vec![rule(known), rule(new)]
    }

    /// The chain that remembers a client for this time and translates.
    pub(super) fn remember(&self, timeout: u32, siblings: bool) -> Chain {
        let milliseconds = u64::from(timeout) * 1000;
        // nft, which takes 16 bytes for any such key, puts the data behind them
        let (word, set) = (4, || "affinity".to_owned());
        let entry = || [self.client_key(), vec![self.load_daddr(word)]].concat();
        let (key, data) = (FIRST, Some(Register::word(word)));
        let update = E::Update { set: set(), key, data, timeout: milliseconds };
        let add = E::Add { set: set(), key, data, timeout: milliseconds };
        let mut rules = vec![rule([entry(), vec![update]].concat())];
        if siblings {
            let sibling = vec![
                load_priority(),
                self.load_daddr(1),
                look_up("affinity-siblings"),
                E::MetaSet { sreg: PRIORITY, key: META_PRIORITY },
            ];
            rules.push(commented([sibling, entry(), vec![add]].concat(), "for the service's other list too"));
        }
        let port = Register::word(words(self.family));
        rules.push(rule(vec![
            load_priority(),
            load_l4proto(1),
            self.load_daddr(2),
            look_up("affinity-endpoints"),
            E::Dnat { family: self.family, address: FIRST, port },
        ]));
        let forget = vec![E::Delete { set: set(), key, data }, E::Counter, E::Verdict(Verdict::Drop)];
        rules.push(commented([entry(), forget].concat(), "guard: remembered while endpoints changed"));
        Chain { name: remember(timeout), rules }
    }
}

fn remember(timeout: u32) -> String {
    format!("remember-{timeout}")
}

fn load_priority() -> E {
    E::Meta { dreg: PRIORITY, key: META_PRIORITY }
}

fn look_up(map: &str) -> E {
    E::Lookup { set: map.into(), sreg: FIRST, dreg: Some(FIRST), inverted: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;
    use crate::source::{Input, Loaded, NodeFlags, load_inputs};

    fn image(services: impl IntoIterator<Item = u32>) -> Image {
        let one = |i: u32| {
            format!(
                "[[service]]\nname = 's{i}'\nport = 80\naffinity = true\ncluster-ip = '172.30.{}.{}'\n\
                 endpoints = ['10.0.0.1:80', '10.0.0.2:80', '10.0.0.2:81']\n",
                i / 250,
                i % 250 + 1
            )
        };
        let text: String = services.into_iter().map(one).collect();
        let input = Input { name: "services.toml".into(), bytes: text.clone().into(), found: false };
        let Ok(Loaded::Table { table, .. }) = load_inputs(vec![input], &NodeFlags::default()) else { panic!("{text}") };
        Image::compile(&table.as_table()).unwrap()
    }

    #[test]
    fn numbers_are_distinct_even_and_stay() {
        let (all, some) = (image(0..2000), image((0..2000).step_by(7)));
        let by_address = |image: &Image| -> BTreeMap<IpAddr, u32> {
            let program = image.program();
            let numbers = numbers(&program, false);
            program.frontends().map(|f| (f.address, numbers[&f.record.offset()])).collect()
        };
        let (all, some) = (by_address(&all), by_address(&some));
        assert_eq!(all.values().collect::<BTreeSet<_>>().len(), 2000);
        assert!(all.values().all(|n| n % 2 == 0 && *n >= 1 << 31 && *n < u32::MAX - 1));
        assert_eq!(some.len(), 286);
        assert!(some.iter().all(|(address, number)| all[address] == *number));
    }

    #[test]
    fn endpoints_are_remembered_by_address_where_that_says_which() {
        let image = image([1]);
        let program = image.program();
        let names = remembered_as(program.records().next().unwrap().endpoints());
        let name = |text: &str| names[&text.parse::<SocketAddr>().unwrap()];
        assert_eq!(name("10.0.0.1:80"), "10.0.0.1".parse::<IpAddr>().unwrap());
        for shared in ["10.0.0.2:80", "10.0.0.2:81"] {
            assert!(matches!(name(shared), IpAddr::V4(a) if a.octets()[0] >= 240), "{shared}");
        }
        assert_ne!(name("10.0.0.2:80"), name("10.0.0.2:81"));
    }
}
