//! Table to program, and bytes to checked program. The count of allocations is core's: none.
//!
//! `cargo bench -p natlet-core-bench --bench compile`. Items are frontends. The services are in the order of their names, as
//! most sources have them, unless it is said that they are in any order.

use divan::{AllocProfiler, Bencher, counter::ItemsCount};
use natlet_core::{Program, compile, max_len, scratch_len};
use natlet_core_bench::tables::Table;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const SIZES: [usize; 6] = [10, 100, 1_000, 10_000, 100_000, 1_000_000];

fn main() {
    divan::main();
}

fn compiling(bencher: Bencher<'_, '_>, table: &Table, size: usize) {
    let table = table.as_table();
    let (mut scratch, mut out) = (vec![0; scratch_len(&table)], vec![0; max_len(&table)]);
    bencher
        .counter(ItemsCount::new(size))
        .bench_local(|| compile(&table, &mut scratch, &mut out).expect("it compiles"));
}

/// One frontend and ten endpoints a service.
#[divan::bench(args = SIZES, max_time = 3)]
fn ten_endpoints(bencher: Bencher<'_, '_>, size: usize) {
    compiling(bencher, &Table::of_ten_endpoints(size, 1).sorted_by_name(), size);
}

#[divan::bench(args = SIZES, max_time = 3)]
fn ten_endpoints_in_any_order(bencher: Bencher<'_, '_>, size: usize) {
    compiling(bencher, &Table::of_ten_endpoints(size, 1), size);
}

/// One to three frontends and two endpoints a service.
#[divan::bench(args = SIZES, max_time = 3)]
fn two_endpoints(bencher: Bencher<'_, '_>, size: usize) {
    compiling(bencher, &Table::random(size, 1).sorted_by_name(), size);
}

#[divan::bench(args = SIZES, max_time = 3)]
fn two_endpoints_in_any_order(bencher: Bencher<'_, '_>, size: usize) {
    compiling(bencher, &Table::random(size, 1), size);
}

/// One frontend and one endpoint a service.
#[divan::bench(args = SIZES, max_time = 3)]
fn one_endpoint(bencher: Bencher<'_, '_>, size: usize) {
    compiling(bencher, &Table::of_one_endpoint(size, 1).sorted_by_name(), size);
}

/// The index and little else: one service has all frontends.
#[divan::bench(args = SIZES, max_time = 3)]
fn index(bencher: Bencher<'_, '_>, size: usize) {
    compiling(bencher, &Table::of_one_service(size, 1), size);
}

/// Programs of ten endpoints a service.
#[divan::bench(args = SIZES, max_time = 3)]
fn verify(bencher: Bencher<'_, '_>, size: usize) {
    let bytes = Table::of_ten_endpoints(size, 1).compiled();
    bencher
        .counter(ItemsCount::new(size))
        .bench_local(|| Program::new_checked(&bytes).expect("it opens").frontend_count());
}
