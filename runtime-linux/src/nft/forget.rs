//! Forgets what a memory holds of endpoints that are gone.
//!
//! A memory (session affinity) is filled by the kernel's rules; a load neither writes nor compares its elements. Only those
//! that refer to what the wanted ruleset no longer has are deleted: after the switch, when the rules make no new ones, and
//! before the clean-up, so that no packet is sent after an element whose endpoint is already unknown.

use std::collections::HashSet;

use nix::errno::Errno;

use super::model::{Element, Elements, Ruleset, Set, Table};
use super::read::read_memory;
use super::wire::Batch;
use crate::netlink::{LoadError, Netlink};

/// How often to try all at once before going one by one: an element may expire between being read and being deleted.
const ATTEMPTS: u32 = 3;

/// What [`forget`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Forgotten {
    /// Elements deleted.
    pub elements: usize,
    /// Transactions that were committed.
    pub transactions: u32,
}

/// Deletes from every memory what is out of date.
pub(super) fn forget(netlink: &mut Netlink, wanted: &Ruleset, generation: u32) -> Result<Forgotten, LoadError> {
    let mut done = Forgotten::default();
    for table in &wanted.tables {
        for (set, of) in table.sets.iter().filter_map(|set| Some((set, set.memory.as_deref()?))) {
            let known = table.sets.iter().find(|s| s.name == of).map(known).unwrap_or_default();
            forget_in(netlink, table, set, &known, generation, &mut done)?;
        }
    }
    Ok(done)
}

/// First key field and data of every element.
fn known(set: &Set) -> HashSet<(&[u8], &[u8])> {
    set.elements.iter().map(|e| identity(set, e)).collect()
}

fn identity<'e>(set: &Set, element: Element<'e>) -> (&'e [u8], &'e [u8]) {
    let first = set.key.first().map_or(0, |f| f.width());
    (element.key.get(..first).unwrap_or_default(), element.data)
}

fn forget_in(
    netlink: &mut Netlink,
    table: &Table,
    set: &Set,
    known: &HashSet<(&[u8], &[u8])>,
    generation: u32,
    done: &mut Forgotten,
) -> Result<(), LoadError> {
    for attempt in 0..=ATTEMPTS {
        let elements = read_memory(netlink, table.family, set)?;
        let stale: Vec<usize> =
            (0..elements.len()).filter(|&i| !known.contains(&identity(set, elements.get(i)))).collect();
        // One by one an expired element spoils nothing but its own deletion.
        let step = if attempt < ATTEMPTS { stale.len().max(1) } else { 1 };
        let mut all = true;
        for some in stale.chunks(step) {
            match delete(netlink, table, set, &elements, some, generation.wrapping_add(done.transactions)) {
                Ok(transactions) => {
                    done.elements += some.len();
                    done.transactions += transactions;
                }
                Err(e) if e.errno() == Some(Errno::ENOENT as i32) => all = false,
                Err(e) => return Err(e),
            }
        }
        if all {
            break;
        }
    }
    Ok(())
}

fn delete(
    netlink: &mut Netlink,
    table: &Table,
    set: &Set,
    elements: &Elements,
    stale: &[usize],
    generation: u32,
) -> Result<u32, LoadError> {
    let mut stale = stale.iter().map(|&i| elements.get(i)).peekable();
    let limit = netlink.max_batch_len() / 2;
    let mut transactions = 0;
    while stale.peek().is_some() {
        let mut batch = Batch::new(Some(generation.wrapping_add(transactions)));
        batch.delete_elements(table.place(), set, &mut stale, limit);
        batch.end();
        netlink.send_batch(&batch)?;
        transactions += 1;
    }
    Ok(transactions)
}
