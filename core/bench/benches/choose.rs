//! Key to endpoint: look-up and a draw, against what a user would pick instead. Ten endpoints a service; in one of five
//! services each has a port of its own.
//!
//! `cargo bench -p natlet-core-bench --bench choose`

use divan::{AllocProfiler, Bencher, counter::ItemsCount};
use natlet_core::{EndpointList, Program};
use natlet_core_bench::tables::{Key, Random, Table};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::SocketAddr;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const SIZES: [usize; 4] = [100, 1_000, 10_000, 100_000];
const KEYS: usize = 8_192;

fn main() {
    divan::main();
}

struct Case {
    bytes: Vec<u8>,
    queries: Vec<(Key, u32)>,
    lists: Vec<(Key, Vec<SocketAddr>)>,
}

fn case(size: usize) -> Case {
    let table = Table::of_ten_endpoints(size, 1);
    let bytes = table.compiled();
    let mut random = Random::new(5);
    let queries = table.hits(KEYS, 2).into_iter().map(|k| (k, random.below(u32::MAX))).collect();
    let program = Program::new_checked(&bytes).expect("it opens");
    let list = |key: &Key| program.find(key.ip(), key.protocol, key.port).expect("a frontend").record.cluster();
    let lists = table.keys.iter().map(|k| (*k, list(k).iter().map(|e| e.address).collect())).collect();
    Case { bytes, queries, lists }
}

fn run(bencher: Bencher<'_, '_>, queries: &[(Key, u32)], choose: impl Fn(Key, u32) -> Option<SocketAddr> + Sync) {
    bencher.counter(ItemsCount::new(queries.len())).bench(|| {
        queries.iter().fold(0_u32, |sum, &(key, random)| match choose(key, random) {
            Some(SocketAddr::V4(a)) => sum.wrapping_add(a.ip().to_bits()).wrapping_add(a.port().into()),
            _ => sum,
        })
    });
}

#[divan::bench(args = SIZES)]
fn natlet(bencher: Bencher<'_, '_>, size: usize) {
    let case = case(size);
    let program = Program::new_checked(&case.bytes).expect("it opens");
    run(bencher, &case.queries, |key, random| {
        program.find(key.ip(), key.protocol, key.port)?.record.cluster().draw(random).map(|e| e.address)
    });
}

fn draw(list: &[SocketAddr], random: u32) -> Option<SocketAddr> {
    list.get(((u64::from(random) * list.len() as u64) >> 32) as usize).copied()
}

fn map_of_lists<S: BuildHasher + Default + Sync>(bencher: Bencher<'_, '_>, size: usize) {
    let case = case(size);
    let map: hashbrown::HashMap<u64, Vec<SocketAddr>, S> =
        case.lists.iter().map(|(k, list)| (k.packed(), list.clone())).collect();
    run(bencher, &case.queries, |key, random| draw(map.get(&key.packed())?, random));
}

#[divan::bench(args = SIZES)]
fn hashbrown_fx(bencher: Bencher<'_, '_>, size: usize) {
    map_of_lists::<rustc_hash::FxBuildHasher>(bencher, size);
}

#[divan::bench(args = SIZES)]
fn hashbrown_foldhash(bencher: Bencher<'_, '_>, size: usize) {
    map_of_lists::<foldhash::fast::RandomState>(bencher, size);
}

#[divan::bench(args = SIZES)]
fn std_hash_map(bencher: Bencher<'_, '_>, size: usize) {
    let case = case(size);
    let map: HashMap<Key, Vec<SocketAddr>> = case.lists.iter().cloned().collect();
    run(bencher, &case.queries, |key, random| draw(map.get(&key)?, random));
}

/// Only the draw: the list is at hand.
#[divan::bench]
fn natlet_draw_alone(bencher: Bencher<'_, '_>) {
    let case = case(100);
    let program = Program::new_checked(&case.bytes).expect("it opens");
    let lists: Vec<EndpointList<'_>> = program.records().map(|r| r.cluster()).collect();
    bencher.counter(ItemsCount::new(case.queries.len())).bench(|| {
        case.queries.iter().fold(0_u32, |sum, &(key, random)| {
            let list = lists.get(usize::from(key.port) % 100);
            sum.wrapping_add(list.and_then(|l| l.draw(random)).map_or(0, |e| e.address.port().into()))
        })
    });
}
