//! Table to program, and bytes to checked program. The count of allocations is core's: none.
//!
//! `cargo bench -p natlet-core-bench --bench compile`. Items are frontends: one a service, with ten endpoints and a name.

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

/// Services in random order.
#[divan::bench(args = SIZES, max_time = 3)]
fn from_any_order(bencher: Bencher<'_, '_>, size: usize) {
    compiling(bencher, &Table::of_ten_endpoints(size, 1), size);
}

/// Services by name, as most sources have them.
#[divan::bench(args = SIZES, max_time = 3)]
fn from_the_order_of_names(bencher: Bencher<'_, '_>, size: usize) {
    compiling(bencher, &Table::of_ten_endpoints(size, 1).sorted_by_name(), size);
}

/// The index and little else: one service has all frontends.
#[divan::bench(args = SIZES, max_time = 3)]
fn index(bencher: Bencher<'_, '_>, size: usize) {
    compiling(bencher, &Table::of_one_service(size, 1), size);
}

#[divan::bench(args = SIZES, max_time = 3)]
fn verify(bencher: Bencher<'_, '_>, size: usize) {
    let bytes = Table::of_ten_endpoints(size, 1).compiled();
    bencher
        .counter(ItemsCount::new(size))
        .bench_local(|| Program::new_checked(&bytes).expect("it opens").frontend_count());
}
