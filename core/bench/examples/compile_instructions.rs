//! Instructions that the compiler takes for a frontend, and the check of a program for one. `instructions.sh` runs it.
//!
//! The kinds of tables are those of `benches/compile.rs`, which says how long they take.

use natlet_core::{Program, compile, max_len, scratch_len};
use natlet_core_bench::instructions::{Operation, counted, run};
use natlet_core_bench::tables::Table;
use std::hint::black_box;

fn main() {
    run(OPERATIONS);
}

const OPERATIONS: &[Operation] = &[
    ("compile, ten endpoints, 1000 frontends", || compiling(&ten_endpoints(1_000))),
    ("compile, ten endpoints, 10000 frontends", || compiling(&ten_endpoints(10_000))),
    ("compile, ten endpoints, 100000 frontends", || compiling(&ten_endpoints(100_000))),
    ("compile, ten endpoints, any order, 1000 frontends", || compiling(&Table::of_ten_endpoints(1_000, 1))),
    ("compile, ten endpoints, any order, 10000 frontends", || compiling(&Table::of_ten_endpoints(10_000, 1))),
    ("compile, ten endpoints, any order, 100000 frontends", || compiling(&Table::of_ten_endpoints(100_000, 1))),
    ("compile, two endpoints, 1000 frontends", || compiling(&two_endpoints(1_000))),
    ("compile, two endpoints, 10000 frontends", || compiling(&two_endpoints(10_000))),
    ("compile, two endpoints, 100000 frontends", || compiling(&two_endpoints(100_000))),
    ("compile, two endpoints, any order, 1000 frontends", || compiling(&Table::random(1_000, 1))),
    ("compile, two endpoints, any order, 10000 frontends", || compiling(&Table::random(10_000, 1))),
    ("compile, two endpoints, any order, 100000 frontends", || compiling(&Table::random(100_000, 1))),
    ("compile, one endpoint, 1000 frontends", || compiling(&one_endpoint(1_000))),
    ("compile, one endpoint, 10000 frontends", || compiling(&one_endpoint(10_000))),
    ("compile, one endpoint, 100000 frontends", || compiling(&one_endpoint(100_000))),
    ("compile, one service, 1000 frontends", || compiling(&Table::of_one_service(1_000, 1))),
    ("compile, one service, 10000 frontends", || compiling(&Table::of_one_service(10_000, 1))),
    ("compile, one service, 100000 frontends", || compiling(&Table::of_one_service(100_000, 1))),
    ("verify, ten endpoints, 10000 frontends", || verifying(&ten_endpoints(10_000))),
];

// in the order of their names, as most sources of tables have them

fn ten_endpoints(services: usize) -> Table {
    Table::of_ten_endpoints(services, 1).sorted_by_name()
}

fn two_endpoints(frontends: usize) -> Table {
    Table::random(frontends, 1).sorted_by_name()
}

fn one_endpoint(services: usize) -> Table {
    Table::of_one_endpoint(services, 1).sorted_by_name()
}

/// Compiles once. Returns the number of frontends, which the count is divided by.
fn compiling(table: &Table) -> u32 {
    let frontends = number(table);
    let table = table.as_table();
    let (mut scratch, mut out) = (vec![0; scratch_len(&table)], vec![0; max_len(&table)]);
    counted(1, |_| {
        black_box(compile(&table, &mut scratch, &mut out).expect("a table that compiles"));
    });
    frontends
}

/// `Program::new_checked`, once.
fn verifying(table: &Table) -> u32 {
    let bytes = table.compiled();
    counted(1, |_| {
        black_box(Program::new_checked(&bytes).expect("what compiles opens"));
    });
    number(table)
}

fn number(table: &Table) -> u32 {
    u32::try_from(table.keys.len()).expect("not so many")
}
