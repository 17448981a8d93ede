//! What the tests of natlet share: flows, what is expected of them, what becomes of them in the real kernel, and the sending
//! end of a board's update protocol.

pub mod case;
pub mod flow;
pub mod push;
pub mod translated;
