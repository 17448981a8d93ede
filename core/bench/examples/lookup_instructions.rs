//! Loops over look-ups, each a function of its own whose instructions callgrind counts:
//!
//! ```text
//! valgrind --tool=callgrind --toggle-collect='lookup_instructions::hit' lookup_instructions 10000
//! ```
//!
//! divided by the number of operations that is printed. The argument is the number of frontends.

use natlet_core::{KeyV4, Program};
use natlet_core_bench::tables::{Key, Table};
use std::hint::black_box;
use std::net::Ipv4Addr;

const OPERATIONS: usize = 100_000;

fn main() {
    let frontends = std::env::args().nth(1).map_or(10_000, |n| n.parse().expect("a number of frontends"));
    let table = Table::random(frontends, 1);
    let bytes = table.compiled();
    let program = Program::new_checked(&bytes).expect("what compiles opens");
    let (hits, misses) = (table.hits(OPERATIONS, 2), table.misses(OPERATIONS, 3));
    let found = [hit(&program, &hits), miss(&program, &misses), endpoint(&program, &hits), node_port(&program, &hits)];
    black_box(found);
    let pack = |keys: &[Key]| keys.iter().copied().map(packed).collect::<Vec<_>>();
    let packed = [packed_hit(&program, &pack(&hits)), packed_miss(&program, &pack(&misses))];
    assert_eq!(packed, [found[0], found[1]], "both doors lead to the same");
    let map = table.keys.iter().zip(1..).map(|(key, i)| (key.packed(), i)).collect();
    black_box(peer_hit(&map, &hits.iter().map(|k| k.packed()).collect::<Vec<_>>()));
    println!("{frontends} frontends, {} bytes; operations of each function: {OPERATIONS}", bytes.len());
}

/// Key to record, of keys that are there.
#[inline(never)]
fn hit(program: &Program<'_>, keys: &[Key]) -> u64 {
    find(program, keys)
}

/// Key to nothing.
#[inline(never)]
fn miss(program: &Program<'_>, keys: &[Key]) -> u64 {
    find(program, keys) + 1 // another function than `hit`, whatever the optimizer merges
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "each caller has a loop of its own")]
fn find(program: &Program<'_>, keys: &[Key]) -> u64 {
    keys.iter().fold(0, |sum, key| {
        let found = program.find(key.ip(), key.protocol, key.port);
        sum + found.map_or(0, |f| u64::from(f.record.offset()))
    })
}

fn packed(key: Key) -> KeyV4 {
    KeyV4::new(Ipv4Addr::from_bits(key.address), key.protocol, key.port)
}

/// As `hit`, of keys that were packed before.
#[inline(never)]
fn packed_hit(program: &Program<'_>, keys: &[KeyV4]) -> u64 {
    find_packed(program, keys)
}

/// As `miss`, of keys that were packed before.
#[inline(never)]
fn packed_miss(program: &Program<'_>, keys: &[KeyV4]) -> u64 {
    find_packed(program, keys) + 1
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "each caller has a loop of its own")]
fn find_packed(program: &Program<'_>, keys: &[KeyV4]) -> u64 {
    keys.iter().fold(0, |sum, &key| sum + program.find_v4(key).map_or(0, |f| u64::from(f.record.offset())))
}

/// The peer: hashbrown with FxHash, of keys that were packed before.
#[inline(never)]
fn peer_hit(map: &hashbrown::HashMap<u64, u32, rustc_hash::FxBuildHasher>, keys: &[u64]) -> u64 {
    keys.iter().fold(0, |sum, key| sum + u64::from(map.get(key).copied().unwrap_or(0)))
}

/// A NodePort's port to nothing: the second look-up of a packet to the node.
#[inline(never)]
fn node_port(program: &Program<'_>, keys: &[Key]) -> u64 {
    keys.iter().fold(0, |sum, key| {
        let found = program.find_node_port(key.ip(), key.protocol, key.port);
        sum + found.map_or(0, |f| u64::from(f.record.offset()))
    })
}

/// Key to the endpoint that a random number draws, which the port stands in for.
#[inline(never)]
fn endpoint(program: &Program<'_>, keys: &[Key]) -> u64 {
    keys.iter().fold(0, |sum, key| {
        let random = u32::from(key.port) << 16;
        let endpoint = program.find(key.ip(), key.protocol, key.port).and_then(|f| f.record.cluster().draw(random));
        sum + endpoint.map_or(0, |e| match e.address {
            std::net::SocketAddr::V4(a) => u64::from(a.ip().to_bits()) + u64::from(a.port()),
            std::net::SocketAddr::V6(_) => 0,
        })
    })
}
