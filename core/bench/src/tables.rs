//! Service tables and keys to look up, made from a seed.
//!
//! Services have random addresses in 10/8, one to three ports each, four of five from twelve usual ports; 95 of 100 are TCP.
//! Of the keys that miss, half have a service's address and another port, half a random address.
#![expect(clippy::cast_possible_truncation, reason = "random bits are cut to size")]

use natlet_core::{
    Endpoint, Frontend, FrontendKind, Protocol, Service, ServiceTable, Span, compile, max_len, scratch_len,
};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

/// Ports that four of five frontends have.
const USUAL_PORTS: [u16; 12] = [80, 443, 8080, 53, 8443, 9090, 5432, 6379, 3306, 9093, 50051, 27017];

/// splitmix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `range`.
    pub fn below(&mut self, range: u32) -> u32 {
        ((u64::from(self.next_bits() as u32) * u64::from(range)) >> 32) as u32
    }
}

/// What a look-up asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// IPv4 address, as a number.
    pub address: u32,
    /// Port, host order.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl Key {
    /// The key in 50 bits of a word: the best that a user of a hash map can do.
    #[must_use]
    pub fn packed(self) -> u64 {
        u64::from(self.address) | u64::from(self.port) << 32 | u64::from(self.protocol.number()) << 48
    }

    /// The address.
    #[must_use]
    pub const fn ip(self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(self.address))
    }
}

/// A table in `Vec`s.
#[derive(Clone, Debug, Default)]
pub struct Table {
    services: Vec<Service>,
    frontends: Vec<Frontend>,
    endpoints: Vec<Endpoint>,
    text: String,
    /// A key for each frontend, in their order.
    pub keys: Vec<Key>,
}

impl Table {
    /// A table of this many frontends, three services for six of them, with two endpoints each.
    #[must_use]
    pub fn random(frontends: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut taken = HashSet::new();
        let mut table = Self::default();
        while table.keys.len() < frontends {
            let address = 0x0a00_0000 | random.below(1 << 24);
            let protocol = if random.below(100) < 95 { Protocol::Tcp } else { Protocol::Udp };
            let ports = (0..=random.below(3)).map(|_| random_port(&mut random));
            let left = frontends - table.keys.len();
            let keys: Vec<Key> =
                ports.map(|port| Key { address, port, protocol }).filter(|k| taken.insert(*k)).collect();
            table.add(&keys[..keys.len().min(left)], 2, false, &mut random);
        }
        table
    }

    /// Services with one ClusterIP and ten endpoints each, in 10/8; in one of five each endpoint has a port of its own.
    #[must_use]
    pub fn of_ten_endpoints(services: usize, seed: u64) -> Self {
        Self::of_endpoints(10, services, seed)
    }

    /// Services with one ClusterIP and one endpoint each, in 10/8.
    #[must_use]
    pub fn of_one_endpoint(services: usize, seed: u64) -> Self {
        Self::of_endpoints(1, services, seed)
    }

    fn of_endpoints(endpoints: u32, services: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut taken = HashSet::new();
        let mut table = Self::default();
        while table.services.len() < services {
            let address = 0x0a00_0000 | random.below(1 << 24);
            let key = Key { address, port: random_port(&mut random), protocol: Protocol::Tcp };
            if taken.insert(key) {
                let own_ports = random.below(5) == 0;
                table.add(&[key], endpoints, own_ports, &mut random);
            }
        }
        table
    }

    /// One service with this many frontends and two endpoints.
    #[must_use]
    pub fn of_one_service(frontends: usize, seed: u64) -> Self {
        let keys = Self::random(frontends, seed).keys;
        let mut taken = HashSet::new();
        // the service has one protocol
        let one = keys.into_iter().map(|k| Key { protocol: Protocol::Tcp, ..k });
        let mut keys: Vec<Key> = one.filter(|k| taken.insert(*k)).collect();
        let mut random = Random::new(seed);
        while keys.len() < frontends {
            let key = Key { address: 0x0a00_0000 | random.below(1 << 24), port: 1, protocol: Protocol::Tcp };
            if taken.insert(key) {
                keys.push(key);
            }
        }
        let mut table = Self::default();
        table.add(&keys, 2, false, &mut random);
        table
    }

    fn add(&mut self, keys: &[Key], endpoints: u32, own_ports: bool, random: &mut Random) {
        let Some(first) = keys.first() else { return };
        let number = self.services.len();
        let name = self.text.len();
        for part in ["namespace-", &(number % 50).to_string(), "/service-", &number.to_string(), ":http"] {
            self.text.push_str(part);
        }
        let port = random_port(random);
        let frontends = span(self.frontends.len(), keys.len());
        let first_endpoint = self.endpoints.len();
        for _ in 0..endpoints {
            let address = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | (1 + random.below((1 << 24) - 1))));
            let port = if own_ports { random_port(random) } else { port };
            self.endpoints.push(Endpoint::new(address, port));
        }
        for key in keys {
            self.frontends.push(Frontend { kind: FrontendKind::ClusterIp, address: key.ip(), port: key.port });
        }
        self.services.push(Service {
            name: span(name, self.text.len() - name),
            protocol: first.protocol,
            frontends,
            endpoints: span(first_endpoint, endpoints as usize),
            ..Service::default()
        });
        self.keys.extend(keys);
    }

    /// Services in the order of their names, as most sources of tables have them.
    #[must_use]
    pub fn sorted_by_name(mut self) -> Self {
        let text = &self.text;
        self.services.sort_by_key(|s| s.name.of_str(text));
        self
    }

    /// The table, borrowed.
    #[must_use]
    pub fn as_table(&self) -> ServiceTable<'_> {
        ServiceTable {
            services: &self.services,
            frontends: &self.frontends,
            endpoints: &self.endpoints,
            text: &self.text,
            ..ServiceTable::default()
        }
    }

    /// The program.
    ///
    /// # Panics
    /// If it does not compile, which is a mistake in this file.
    #[must_use]
    pub fn compiled(&self) -> Vec<u8> {
        let table = self.as_table();
        let (mut scratch, mut out) = (vec![0; scratch_len(&table)], vec![0; max_len(&table)]);
        let len = compile(&table, &mut scratch, &mut out).unwrap_or_else(|e| panic!("{e}"));
        out.truncate(len);
        out.shrink_to_fit();
        out
    }

    /// This many keys of the table, in random order.
    #[must_use]
    pub fn hits(&self, number: usize, seed: u64) -> Vec<Key> {
        let mut random = Random::new(seed);
        (0..number).map(|_| self.keys[random.below(self.keys.len() as u32) as usize]).collect()
    }

    /// This many keys that the table has not.
    #[must_use]
    pub fn misses(&self, number: usize, seed: u64) -> Vec<Key> {
        let mut random = Random::new(seed);
        let all: HashSet<Key> = self.keys.iter().copied().collect();
        let mut keys = Vec::with_capacity(number);
        while keys.len() < number {
            let mut key = self.keys[random.below(self.keys.len() as u32) as usize];
            if keys.len() % 2 == 0 {
                key.port = random.below(1 << 16) as u16;
            } else {
                key.address = random.next_bits() as u32;
            }
            if !all.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }
}

fn random_port(random: &mut Random) -> u16 {
    if random.below(5) == 0 { 1 + random.below(65_535) as u16 } else { USUAL_PORTS[random.below(12) as usize] }
}

fn span(start: usize, len: usize) -> Span {
    Span { start: start as u32, len: len as u32 }
}
