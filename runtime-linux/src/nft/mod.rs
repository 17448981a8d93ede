//! nf_tables over netlink: objects, their wire form, reading back, and the difference of two rulesets.

#[cfg(test)]
mod fixture;
pub mod apply;
pub mod diff;
pub mod model;
pub mod read;
pub mod text;
pub mod wire;
