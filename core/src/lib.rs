//! natlet's core: a service table compiled to a compact NAT program, and the program's interpreter.
//!
//! ```text
//! ServiceTable ──compile──▶ Program (bytes) ──decide──▶ Decision (verdict, endpoints, reason)
//! ```
//!
//! `no_std`, no allocation, no panic: memory, time and randomness are the caller's. The same bytes run from flash on a
//! microcontroller, from a file mapping on a gateway, and are lowered to nf_tables by the crate `natlet`.
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects))]

#[cfg(test)]
extern crate std;

mod bytes;
mod compile;
mod decide;
mod error;
mod hash;
mod jhash;
pub mod owned;
mod program;
pub mod table;
pub mod translate;

pub use compile::{compile, max_len, scratch_len, strip_names};
pub use decide::{Class, Decision, ListKind, Masquerade, Packet, Reason, Verdict};
pub use error::{CompileError, ProgramError};
pub use jhash::{SOURCE_HASH_SEED, jhash};
pub use program::{
    ContentId, Context, EndpointList, KeyV4, MAGIC, Name, Program, ProgramFrontend, Record, RecordEndpoint, VERSION,
};
pub use table::{
    Choice, Cidr, Endpoint, Frontend, FrontendKind, Node, Policy, Protocol, Service, ServiceTable, ServiceType, Span,
};
