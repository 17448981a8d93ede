//! Programs in the forms that other tools read.

pub mod chain_names;
pub mod iptables;
pub mod nft;
