//! natlet on Linux: sources of service tables, the lowering of programs to nf_tables, netlink, and the `natlet` command.

pub mod netlink;
pub mod nft;
