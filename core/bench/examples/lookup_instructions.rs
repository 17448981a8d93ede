//! Instructions of a look-up, beside hashbrown with FxHash on the same keys. `instructions.sh` runs it.
//!
//! A count includes the loop around the look-ups, which is the same for all. *Packed* keys were brought into one word before,
//! which is the best case of either; the others are an address, a protocol and a port.

use natlet_core::{KeyV4, Program};
use natlet_core_bench::instructions::{Operation, run};
use natlet_core_bench::tables::{Key, Table};
use std::hint::black_box;
use std::net::Ipv4Addr;

const KEYS: usize = 100_000;

const OPERATIONS: &[Operation] = &[
    ("look-up, hit, 10 frontends", || natlet(10, Table::hits, find)),
    ("look-up, hit, 10000 frontends", || natlet(10_000, Table::hits, find)),
    ("look-up, hit, 100000 frontends", || natlet(100_000, Table::hits, find)),
    ("look-up, miss, 10000 frontends", || natlet(10_000, Table::misses, find)),
    ("look-up, miss, 100000 frontends", || natlet(100_000, Table::misses, find)),
    ("look-up, packed, hit, 10 frontends", || natlet_packed(10, Table::hits)),
    ("look-up, packed, hit, 10000 frontends", || natlet_packed(10_000, Table::hits)),
    ("look-up, packed, hit, 100000 frontends", || natlet_packed(100_000, Table::hits)),
    ("look-up, packed, miss, 10000 frontends", || natlet_packed(10_000, Table::misses)),
    ("look-up, packed, miss, 100000 frontends", || natlet_packed(100_000, Table::misses)),
    ("look-up, hashbrown, hit, 10000 frontends", || hashbrown(10_000, Table::hits)),
    ("look-up, hashbrown, packed, hit, 10000 frontends", || hashbrown_packed(10_000, Table::hits)),
    ("look-up, hashbrown, packed, miss, 10000 frontends", || hashbrown_packed(10_000, Table::misses)),
    ("look-up, NodePort, miss, 10000 frontends", || natlet(10_000, Table::hits, find_node_port)),
    ("key to endpoint, 10000 frontends", || natlet(10_000, Table::hits, find_endpoint)),
];

fn main() {
    run(OPERATIONS);
}

/// Keys that are there, or not there; so many, of a seed.
type Queries = fn(&Table, usize, u64) -> Vec<Key>;

fn natlet(frontends: usize, queries: Queries, find: fn(&Program<'_>, &[Key]) -> u64) -> u32 {
    let table = Table::random(frontends, 1);
    let bytes = table.compiled();
    let program = Program::new_checked(&bytes).expect("what compiles opens");
    let keys = queries(&table, KEYS, 2);
    black_box(find(&program, &keys));
    count(&keys)
}

fn natlet_packed(frontends: usize, queries: Queries) -> u32 {
    let table = Table::random(frontends, 1);
    let bytes = table.compiled();
    let program = Program::new_checked(&bytes).expect("what compiles opens");
    let keys = queries(&table, KEYS, 2);
    let packed: Vec<KeyV4> =
        keys.iter().map(|k| KeyV4::new(Ipv4Addr::from_bits(k.address), k.protocol, k.port)).collect();
    let door = |key: &Key| program.find(key.ip(), key.protocol, key.port);
    assert!(
        keys.iter().zip(&packed).all(|(key, &packed)| door(key) == program.find_v4(packed)),
        "the same by both doors"
    );
    black_box(find_packed(&program, &packed));
    count(&keys)
}

type Map = hashbrown::HashMap<u64, u32, rustc_hash::FxBuildHasher>;

fn map(table: &Table) -> Map {
    table.keys.iter().zip(1..).map(|(key, i)| (key.packed(), i)).collect()
}

fn hashbrown(frontends: usize, queries: Queries) -> u32 {
    let table = Table::random(frontends, 1);
    let (map, keys) = (map(&table), queries(&table, KEYS, 2));
    black_box(find_in_map(&map, &keys));
    count(&keys)
}

fn hashbrown_packed(frontends: usize, queries: Queries) -> u32 {
    let table = Table::random(frontends, 1);
    let (map, keys) = (map(&table), queries(&table, KEYS, 2));
    let packed: Vec<u64> = keys.iter().map(|key| key.packed()).collect();
    black_box(find_packed_in_map(&map, &packed));
    count(&keys)
}

fn count(keys: &[Key]) -> u32 {
    u32::try_from(keys.len()).expect("not so many")
}

// What callgrind counts: functions of a module of the name that `instructions.sh` looks for.
use instructions::{
    counted_endpoint as find_endpoint, counted_find as find, counted_in_map as find_in_map,
    counted_node_port as find_node_port, counted_packed as find_packed, counted_packed_in_map as find_packed_in_map,
};

mod instructions {
    use super::{Key, KeyV4, Map, Program};

    /// Key to record.
    #[inline(never)]
    pub fn counted_find(program: &Program<'_>, keys: &[Key]) -> u64 {
        keys.iter().fold(0, |sum, key| {
            let found = program.find(key.ip(), key.protocol, key.port);
            sum + found.map_or(0, |f| u64::from(f.record.offset()) + 1)
        })
    }

    /// The same of keys that were packed before.
    #[inline(never)]
    pub fn counted_packed(program: &Program<'_>, keys: &[KeyV4]) -> u64 {
        keys.iter().fold(0, |sum, &key| sum + program.find_v4(key).map_or(0, |f| u64::from(f.record.offset()) + 1))
    }

    /// A NodePort's port to nothing: the second look-up of a packet to the node.
    #[inline(never)]
    pub fn counted_node_port(program: &Program<'_>, keys: &[Key]) -> u64 {
        keys.iter().fold(0, |sum, key| {
            let found = program.find_node_port(key.ip(), key.protocol, key.port);
            sum + found.map_or(0, |f| u64::from(f.record.offset()))
        })
    }

    /// Key to the endpoint that a random number draws, which the port stands in for.
    #[inline(never)]
    pub fn counted_endpoint(program: &Program<'_>, keys: &[Key]) -> u64 {
        keys.iter().fold(0, |sum, key| {
            let random = u32::from(key.port) << 16;
            let endpoint = program.find(key.ip(), key.protocol, key.port).and_then(|f| f.record.cluster().draw(random));
            sum + endpoint.map_or(0, |e| match e.address {
                std::net::SocketAddr::V4(a) => u64::from(a.ip().to_bits()) + u64::from(a.port()),
                std::net::SocketAddr::V6(_) => 0,
            })
        })
    }

    #[inline(never)]
    pub fn counted_in_map(map: &Map, keys: &[Key]) -> u64 {
        keys.iter().fold(0, |sum, key| sum + u64::from(map.get(&key.packed()).copied().unwrap_or(0)))
    }

    #[inline(never)]
    pub fn counted_packed_in_map(map: &Map, keys: &[u64]) -> u64 {
        keys.iter().fold(0, |sum, key| sum + u64::from(map.get(key).copied().unwrap_or(0)))
    }
}
