//! What the benchmarks share: tables and packets made from a seed.
#![allow(
    clippy::inline_always,
    clippy::missing_panics_doc,
    clippy::needless_for_each,
    clippy::single_match_else,
    reason = "a tool of this repository"
)]

pub mod instructions;
pub mod tables;
pub mod traffic;
