//! Whose the tables are.
//!
//! A table can belong to a netlink socket (NFT_TABLE_F_OWNER): the kernel then refuses every change by others, and
//! `nft flush ruleset` passes it over. With NFT_TABLE_F_PERSIST it outlives its socket and waits to be adopted. Whether a
//! table can be owned is settled when it is made: one that was made without these flags can only be replaced.

use super::{ABOUT, About};
use crate::netlink::{LoadError, Netlink, Owner};
use crate::nft::model::{Family, Ownership};
use crate::nft::read::{Loaded, read_matching};
use crate::nft::wire::{Batch, Place};
use nix::errno::Errno;

/// NFT_TABLE_F_PERSIST alone: its owner has gone.
const PERSISTENT: u32 = 4;
/// A table that is never made.
const PROBE: &str = "natlet-probe";

/// Who alone may change these tables.
pub fn owner(loaded: &Loaded) -> Option<Owner> {
    port(loaded).map(Owner::of)
}

fn port(loaded: &Loaded) -> Option<u32> {
    loaded.tables.iter().find_map(|table| table.owner)
}

/// Refuses, in words, what the kernel would refuse with a number.
pub(super) fn must_be_mine(netlink: &Netlink, loaded: &Loaded) -> Result<(), LoadError> {
    match port(loaded) {
        Some(port) if port != netlink.port() => Err(LoadError::Owned(Owner::of(port))),
        _ => Ok(()),
    }
}

/// What a process that stays finds, and may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What is loaded.
    pub about: Option<About>,
    /// Whose its tables can be: the wish, as far as the kernel knows such tables.
    pub ownership: Ownership,
    /// Tables that an earlier owner had left were adopted.
    pub adopted: bool,
}

/// Claims natlet's tables for this socket. Those that their owner left behind become its own as they are: no packet and no
/// rule notices. Those that never had an owner stay as they are until [`super::Loader`] replaces them.
///
/// # Errors
/// [`LoadError::Owned`] if another process has them, whatever is wished for.
pub fn claim(netlink: &mut Netlink, wish: Ownership) -> Result<Claim, LoadError> {
    let loaded = read_matching(netlink, |set| set == ABOUT)?;
    must_be_mine(netlink, &loaded)?;
    let about = About::of(&loaded);
    if wish == Ownership::Anyone || !can_own(netlink)? {
        return Ok(Claim { about, ownership: Ownership::Anyone, adopted: false });
    }
    let mut batch = Batch::new(None);
    for table in loaded.tables.iter().filter(|t| t.owner.is_none() && t.flags == PERSISTENT) {
        batch.adopt_table(Place { family: table.family, table: &table.name });
    }
    let adopted = !batch.is_empty();
    if adopted {
        batch.end();
        netlink.send_batch(&batch)?;
    }
    Ok(Claim { about, ownership: Ownership::Socket, adopted })
}

/// Whether this kernel has tables that belong to a socket and outlive it: it is asked to check one.
fn can_own(netlink: &mut Netlink) -> Result<bool, LoadError> {
    let mut batch = Batch::new(None);
    batch.adopt_table(Place { family: Family::Ip, table: PROBE });
    match netlink.check_batch(&batch) {
        Ok(()) => Ok(true),
        Err(e) if [Errno::EOPNOTSUPP, Errno::EINVAL].iter().any(|&no| e.errno() == Some(no as i32)) => Ok(false),
        Err(e) => Err(e),
    }
}
