//! natlet on Linux: sources of service tables, the lowering of programs to nf_tables, netlink, and the `natlet` command.
//!
//! ```text
//!  source ──▶ image (a program in memory) ─┬─▶ lower ──▶ nft (objects, difference) ──▶ netlink ──▶ kernel
//!                                          ├─▶ gateway (core's translator on a TUN device)
//!                                          └─▶ view, export, cli
//!  kernel's counters, conntrack ──▶ counters ──▶ cli top, the agent's status page
//! ```

pub mod agent;
pub mod cli;
pub mod conntrack;
pub mod counters;
pub mod difference;
pub mod export;
pub mod gateway;
pub mod image;
pub mod kernel;
pub mod lab;
pub mod lower;
pub mod netlink;
pub mod nft;
pub mod source;
pub mod view;
mod yaml;
