//! Key to service, hits and misses, against what a user would pick instead, on the same keys in the same run.
//!
//! `cargo bench -p natlet-core-bench --bench lookup`. Peers get the key packed into a word, which is the best case for them.
//! A sample looks up `KEYS` keys: independent ones, which a processor overlaps, or each one bound to the answer before. Which
//! of the two is known when it is compiled: were it a value, a look-up without a branch would wait for the answer anyway.
#![expect(clippy::cast_possible_truncation, reason = "at most a million frontends")]

use divan::{AllocProfiler, Bencher, black_box, counter::ItemsCount};
use natlet_core::{KeyV4, Program, Protocol};
use natlet_core_bench::tables::{Key, Table};
use ptr_hash::{DefaultPtrHash, PtrHashParams};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{LazyLock, Mutex};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const SIZES: [usize; 6] = [10, 100, 1_000, 10_000, 100_000, 1_000_000];
/// A rule list of more would take minutes.
const LINEAR: [usize; 3] = [10, 100, 1_000];
/// So many that a branch predictor does not learn which of a mix miss.
const KEYS: usize = 65_536;

fn main() {
    divan::main();
}

/// One table's keys and program, made once.
struct Case {
    table: Table,
    program: &'static [u8],
    queries: [Vec<Key>; 3],
}

#[derive(Clone, Copy)]
enum Mix {
    Hit,
    Miss,
    Half,
}

static CASES: LazyLock<Mutex<HashMap<usize, &'static Case>>> = LazyLock::new(Mutex::default);

fn case(size: usize) -> &'static Case {
    CASES.lock().expect("no benchmark panics").entry(size).or_insert_with(|| {
        let table = Table::random(size, 1);
        let program = table.compiled().leak();
        let (hits, misses) = (table.hits(KEYS, 2), table.misses(KEYS, 3));
        // in no order that a branch predictor learns
        let order = Table::random(KEYS, 4).keys;
        let half =
            order.iter().zip(hits.iter().zip(&misses)).map(|(o, (h, m))| if o.address & 64 == 0 { *h } else { *m });
        let queries = [hits.clone(), misses.clone(), half.collect()];
        Box::leak(Box::new(Case { table, program, queries }))
    })
}

/// Looks up all keys; a dependent look-up has to wait for the answer before.
fn run<const DEPENDENT: bool>(bencher: Bencher<'_, '_>, keys: &[Key], find: impl Fn(Key) -> u32 + Sync) {
    let zero = black_box(0);
    bencher.counter(ItemsCount::new(keys.len())).bench(|| {
        let mut answer = 0_u32;
        let mut sum = 0_u32;
        for &key in keys {
            let bound = if DEPENDENT { answer & zero } else { 0 };
            answer = find(Key { address: key.address ^ bound, ..key });
            sum = sum.wrapping_add(answer);
        }
        sum
    });
}

/// Every structure's values: a frontend's number, and one more for a miss.
fn values(table: &Table) -> impl Iterator<Item = (Key, u32)> + '_ {
    (0..).zip(&table.keys).map(|(i, k)| (*k, i + 1))
}

fn natlet<const DEPENDENT: bool>(bencher: Bencher<'_, '_>, size: usize, mix: Mix) {
    let case = case(size);
    let program = Program::new_checked(case.program).expect("what compiles opens");
    run::<DEPENDENT>(bencher, &case.queries[mix as usize], |key| {
        program.find(key.ip(), key.protocol, key.port).map_or(0, |f| f.record.offset() + 1)
    });
}

/// With keys in a word, as the peers' are.
fn natlet_packed<const DEPENDENT: bool>(bencher: Bencher<'_, '_>, size: usize, mix: Mix) {
    let case = case(size);
    let program = Program::new_checked(case.program).expect("what compiles opens");
    run::<DEPENDENT>(bencher, &case.queries[mix as usize], |key| {
        let key = KeyV4::new(Ipv4Addr::from_bits(key.address), key.protocol, key.port);
        program.find_v4(key).map_or(0, |f| f.record.offset() + 1)
    });
}

fn hashbrown<S: std::hash::BuildHasher + Default + Sync, const DEPENDENT: bool>(
    bencher: Bencher<'_, '_>,
    size: usize,
    mix: Mix,
) {
    let case = case(size);
    let map: hashbrown::HashMap<u64, u32, S> = values(&case.table).map(|(k, v)| (k.packed(), v)).collect();
    run::<DEPENDENT>(bencher, &case.queries[mix as usize], |key| map.get(&key.packed()).copied().unwrap_or(0));
}

fn std_map<const DEPENDENT: bool>(bencher: Bencher<'_, '_>, size: usize, mix: Mix) {
    let case = case(size);
    let map: HashMap<Key, u32> = values(&case.table).collect();
    run::<DEPENDENT>(bencher, &case.queries[mix as usize], |key| map.get(&key).copied().unwrap_or(0));
}

fn sorted_table<const DEPENDENT: bool>(bencher: Bencher<'_, '_>, size: usize, mix: Mix) {
    let case = case(size);
    let mut all: Vec<(u64, u32)> = values(&case.table).map(|(k, v)| (k.packed(), v)).collect();
    all.sort_unstable();
    run::<DEPENDENT>(bencher, &case.queries[mix as usize], |key| {
        all.binary_search_by_key(&key.packed(), |e| e.0).map_or(0, |i| all[i].1)
    });
}

fn ptr_hash<const DEPENDENT: bool>(bencher: Bencher<'_, '_>, size: usize, mix: Mix) {
    let case = case(size);
    let keys: Vec<u64> = case.table.keys.iter().map(|k| k.packed()).collect();
    let hash = <DefaultPtrHash>::new(&keys, PtrHashParams::default());
    let mut all = vec![(0_u64, 0_u32); keys.len()];
    for (key, value) in values(&case.table) {
        all[hash.index(&key.packed())] = (key.packed(), value);
    }
    run::<DEPENDENT>(bencher, &case.queries[mix as usize], |key| {
        let (found, value) = all[hash.index(&key.packed())];
        if found == key.packed() { value } else { 0 }
    });
}

/// What a chain of iptables rules does, at best: a comparison for each.
fn rule_list<const DEPENDENT: bool>(bencher: Bencher<'_, '_>, size: usize, mix: Mix) {
    let case = case(size);
    let rules: Vec<(u32, u16, Protocol)> = case.table.keys.iter().map(|k| (k.address, k.port, k.protocol)).collect();
    run::<DEPENDENT>(bencher, &case.queries[mix as usize], |key| {
        rules.iter().position(|r| *r == (key.address, key.port, key.protocol)).map_or(0, |i| i as u32 + 1)
    });
}

macro_rules! group {
    ($name:ident, $mix:expr, $dependent:literal) => {
        mod $name {
            use super::*;
            #[divan::bench(args = SIZES)]
            fn natlet(bencher: Bencher<'_, '_>, size: usize) {
                super::natlet::<$dependent>(bencher, size, $mix);
            }
            #[divan::bench(args = SIZES)]
            fn natlet_packed(bencher: Bencher<'_, '_>, size: usize) {
                super::natlet_packed::<$dependent>(bencher, size, $mix);
            }
            #[divan::bench(args = SIZES)]
            fn hashbrown_fx(bencher: Bencher<'_, '_>, size: usize) {
                super::hashbrown::<rustc_hash::FxBuildHasher, $dependent>(bencher, size, $mix);
            }
            #[divan::bench(args = SIZES)]
            fn hashbrown_foldhash(bencher: Bencher<'_, '_>, size: usize) {
                super::hashbrown::<foldhash::fast::RandomState, $dependent>(bencher, size, $mix);
            }
            #[divan::bench(args = SIZES)]
            fn std_hash_map(bencher: Bencher<'_, '_>, size: usize) {
                super::std_map::<$dependent>(bencher, size, $mix);
            }
            #[divan::bench(args = SIZES)]
            fn sorted_table(bencher: Bencher<'_, '_>, size: usize) {
                super::sorted_table::<$dependent>(bencher, size, $mix);
            }
            #[divan::bench(args = SIZES)]
            fn ptr_hash(bencher: Bencher<'_, '_>, size: usize) {
                super::ptr_hash::<$dependent>(bencher, size, $mix);
            }
            #[divan::bench(args = LINEAR)]
            fn rule_list(bencher: Bencher<'_, '_>, size: usize) {
                super::rule_list::<$dependent>(bencher, size, $mix);
            }
        }
    };
}

group!(hit, Mix::Hit, false);
group!(miss, Mix::Miss, false);
group!(half_miss, Mix::Half, false);
group!(hit_dependent, Mix::Hit, true);
group!(miss_dependent, Mix::Miss, true);
group!(half_miss_dependent, Mix::Half, true);
