//! What the benchmarks share: tables and packets made from a seed.

pub mod instructions;
pub mod tables;
pub mod traffic;
