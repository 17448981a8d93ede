//! A one-armed NAT gateway on natlet's core: all of it that needs no hardware.
//!
//! ```text
//! frame ─▶ Node::receive ─▶ Gateway::receive ─┬─▶ ARP, NDP, echo: answered
//!                                             ├─▶ control datagram ─▶ Updates::handle ─▶ another program
//!                                             └─▶ packet ─▶ Translator::process ─▶ Gateway::send ─▶ frame
//! ```
//!
//! `no_std`, no allocation, no panic: `src/main.rs` lends it the board's memory, and its tests run on the host.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic))]

#[cfg(test)]
extern crate std;

pub mod arp;
mod bytes;
pub mod config;
pub mod ethernet;
pub mod gateway;
pub mod ip;
pub mod ndp;
pub mod neighbours;
pub mod node;
pub mod random;
pub mod time;
pub mod update;
