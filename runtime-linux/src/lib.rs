//! natlet on Linux: sources of service tables, the lowering of programs to nf_tables, netlink, and the `natlet` command.

pub mod lab;
pub mod lower;
pub mod nft;
pub mod source;
