//! Instruction counts: an example that lists its operations and runs one of them, for `instructions.sh` to run under
//! callgrind. A count does not depend on the machine's load, so a budget can be held to the instruction.

use std::env;
use std::hint::black_box;

/// An operation: its name, and what prepares it and then runs it by [`counted`]; returns how often it ran.
pub type Operation = (&'static str, fn() -> u32);

/// The whole of an example: without an argument the names of the operations are printed, one a line; with a name that
/// operation runs, and how often it did is printed.
///
/// # Panics
/// If there is no operation of that name.
pub fn run(operations: &[Operation]) {
    let Some(wanted) = env::args().nth(1) else {
        operations.iter().for_each(|(name, _)| println!("{name}"));
        return;
    };
    let operation = operations.iter().find(|(name, _)| *name == wanted);
    let (_, run) = operation.unwrap_or_else(|| panic!("no operation is called {wanted}"));
    println!("{}", run());
}

/// Runs `work` for 0, 1, … `times` - 1. Callgrind collects inside this function only, so what is counted is the work and
/// the loop's three instructions.
#[inline(never)]
pub fn counted(times: u32, mut work: impl FnMut(u32)) -> u32 {
    for i in 0..times {
        work(black_box(i));
    }
    times
}
