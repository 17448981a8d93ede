//! Forgets what a memory holds of endpoints that are gone.
//!
//! A memory (session affinity) is filled by the kernel's rules; a load neither writes nor compares its elements. Only those
//! that refer to what the wanted ruleset no longer has are deleted: after the switch, when the rules make no new ones, and
//! before the clean-up, so that no packet is sent after an element whose endpoint is already unknown. A change that removes
//! nothing has nothing to forget and reads no memory (a full one takes the kernel some tenths of a second).

use std::collections::HashSet;

use nix::errno::Errno;

use super::apply::next;
use super::model::{Element, Ruleset, Set, Table};
use super::read::read_memory;
use super::wire::Batch;
use crate::netlink::{LoadError, Netlink};

/// How often to try many at once before going one by one: an element may expire between being read and being deleted.
const ATTEMPTS: u32 = 3;
/// Elements in one transaction, which fits any send buffer.
const AT_ONCE: usize = 1000;

/// Deletes from every memory what is out of date, and counts it. Every transaction moves `generation` by one.
pub(super) fn forget(netlink: &mut Netlink, wanted: &Ruleset, generation: &mut u32) -> Result<usize, LoadError> {
    let mut forgotten = 0;
    for table in &wanted.tables {
        for (set, of) in table.sets.iter().filter_map(|set| Some((set, set.memory.as_deref()?))) {
            let known = table.sets.iter().find(|s| s.name == of).map(known).unwrap_or_default();
            forgotten += forget_in(netlink, table, set, &known, generation)?;
        }
    }
    Ok(forgotten)
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
    generation: &mut u32,
) -> Result<usize, LoadError> {
    let mut forgotten = 0;
    for attempt in 0..=ATTEMPTS {
        let elements = read_memory(netlink, table.family, set)?;
        let stale: Vec<Element<'_>> = elements.iter().filter(|e| !known.contains(&identity(set, *e))).collect();
        // One by one, an element that has expired spoils nothing but its own deletion.
        let at_once = if attempt < ATTEMPTS { AT_ONCE } else { 1 };
        let mut all = true;
        for some in stale.chunks(at_once) {
            let mut batch = Batch::new(Some(*generation));
            batch.delete_elements(table.place(), set, &mut some.iter().copied().peekable(), usize::MAX);
            batch.end();
            match netlink.send_batch(&batch) {
                Ok(()) => {
                    forgotten += some.len();
                    *generation = next(*generation);
                }
                Err(e) if e.errno() == Some(Errno::ENOENT as i32) => all = false,
                Err(e) => return Err(e),
            }
        }
        if all {
            break;
        }
    }
    Ok(forgotten)
}
