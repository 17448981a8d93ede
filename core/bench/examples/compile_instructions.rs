//! Compiles and opens a table, each a function of its own whose instructions callgrind counts:
//!
//! ```text
//! valgrind --tool=callgrind --toggle-collect='compile_instructions::compiling' compile_instructions 10000
//! ```
//!
//! divided by the number of frontends, which is printed. The argument is that number.

use natlet_core::{Program, ServiceTable, compile, max_len, scratch_len};
use natlet_core_bench::tables::Table;
use std::hint::black_box;
use std::time::Instant;

fn main() {
    let frontends = std::env::args().nth(1).map_or(10_000, |n| n.parse().expect("a number of frontends"));
    let table = Table::of_ten_endpoints(frontends, 1);
    let sorted = table.clone().sorted_by_name();
    let (table, sorted) = (table.as_table(), sorted.as_table());
    let (mut scratch, mut out) = (vec![0; scratch_len(&table)], vec![0; max_len(&table)]);
    let len = compiling(&table, &mut scratch, &mut out);
    let sorted_len = compiling_sorted(&sorted, &mut scratch, &mut out);
    assert_eq!(len, sorted_len);
    opening(&out[..len]);
    let (scratch_bytes, room) = (scratch.len() * 4, out.len());
    println!("operations of each function: {frontends}; {len} bytes, {scratch_bytes} of scratch, {room} of room");
    if std::env::args().nth(2).is_some() {
        for _ in 0..5 {
            let start = Instant::now();
            compiling(&table, &mut scratch, &mut out);
            let unsorted = start.elapsed();
            let start = Instant::now();
            compiling_sorted(&sorted, &mut scratch, &mut out);
            let sorted = start.elapsed();
            let start = Instant::now();
            opening(&out[..len]);
            println!("{unsorted:?}, sorted by name {sorted:?}, opened in {:?}", start.elapsed());
        }
    }
}

/// Services in random order of names.
#[inline(never)]
fn compiling(table: &ServiceTable<'_>, scratch: &mut [u32], out: &mut [u8]) -> usize {
    black_box(compile(table, scratch, out).expect("a table that compiles"))
}

/// Services in the order of their names.
#[inline(never)]
fn compiling_sorted(table: &ServiceTable<'_>, scratch: &mut [u32], out: &mut [u8]) -> usize {
    black_box(compile(table, scratch, out).expect("a table that compiles")) + black_box(0)
}

/// `Program::new_checked`.
#[inline(never)]
fn opening(bytes: &[u8]) {
    black_box(Program::new_checked(bytes).expect("what compiles opens"));
}
