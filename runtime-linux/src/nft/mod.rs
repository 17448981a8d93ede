//! nf_tables over netlink: objects, their wire form, reading back, and the difference of two rulesets.

pub mod model;
pub mod text;
pub mod wire;
