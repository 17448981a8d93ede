//! What an update needs besides the two programs' memory. Its sizes are the gateway's limits.

use natlet_core::owned::OwnedTable;

/// Room for a table: 128 services, 256 frontends, 512 endpoints, 64 source ranges, 8 KiB of names.
pub type Table = OwnedTable<128, 256, 512, 64, 8192>;

/// Longest update on the wire, in bytes.
const WIRE: usize = 24 * 1024;
/// Words that the compiler needs for the largest [`Table`].
const SCRATCH: usize = 4096;

/// Memory of [`Updates`](super::Updates).
#[derive(Debug)]
pub struct Memory {
    pub(super) wire: [u8; WIRE],
    pub(super) table: Table,
    pub(super) scratch: [u32; SCRATCH],
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// Unused. All zeros, so that a static one takes no flash.
    pub const fn new() -> Self {
        Self { wire: [0; WIRE], table: Table::new(), scratch: [0; SCRATCH] }
    }
}
