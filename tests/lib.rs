//! What the tests of natlet share: flows, what is expected of them, and what becomes of them in the real kernel.

pub mod case;
pub mod flow;
pub mod translated;
