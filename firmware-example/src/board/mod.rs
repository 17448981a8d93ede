//! The MPS2 board: its network controller, clock, interrupt vectors and stack. The only place with `unsafe`.

pub mod clock;
pub mod lan9118;
pub mod stack;
mod vectors;
