//! nf_tables over netlink: objects, their wire form, reading back, and the difference of two rulesets.

pub mod apply;
pub mod diff;
#[cfg(test)]
mod fixture;
mod forget;
pub mod model;
pub mod read;
pub mod script;
pub mod text;
pub mod wire;
