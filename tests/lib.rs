//! What the tests share with tools: the sending end of a board's update protocol.

pub mod push;
