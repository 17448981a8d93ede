//! Which services two programs share: records that say the same under the same name.
//!
//! Where both have the same names, their records are compared as bytes, from the front and from the back, and one by one only
//! between the first and the last that differ. Else the services are walked in the order of their names.

use natlet_core::{Name, Program, ProgramFrontend, Record};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// A service of two programs that differs between them; in at least one of them.
pub(super) struct Change<'o, 'n> {
    pub old: Option<Record<'o>>,
    pub new: Option<Record<'n>>,
    /// Its frontends are the same in both.
    pub same_frontends: bool,
}

/// What two programs share.
struct Shared {
    /// Below this offset records are the same, at the same offsets.
    front: u32,
    /// From these offsets on they are the same.
    back: [u32; 2],
    /// Others that are the same: offsets in both, ascending.
    inner: Vec<[u32; 2]>,
}

impl Shared {
    /// The offset in the other program of a record that both have; `from` is 0 for the old program's, 1 for the new one's.
    fn counterpart(&self, offset: u32, from: usize) -> Option<u32> {
        if offset < self.front {
            Some(offset)
        } else if let Some(behind) = offset.checked_sub(self.back[from]) {
            Some(self.back[1 - from] + behind)
        } else {
            let at = self.inner.binary_search_by_key(&offset, |pair| pair[from]).ok()?;
            Some(self.inner[at][1 - from])
        }
    }

    /// Whether every shared record is at the same offset in both.
    fn is_in_place(&self) -> bool {
        self.back[0] == self.back[1] && self.inner.iter().all(|[old, new]| old == new)
    }
}

/// The services that differ between two programs, in the order of the old one's records, then the new one's.
pub(super) fn changes<'o, 'n>(old: &Program<'o>, new: &Program<'n>) -> Vec<Change<'o, 'n>> {
    let is_named = |program: &Program<'_>| program.services().next().is_some_and(|(_, name)| name.is_some());
    let (shared, mut changes) = match (is_named(old), is_named(new)) {
        (true, true) if !old.has_names_of(new) => by_name(old, new),
        // comments come or go everywhere
        (a, b) if a != b => {
            (Shared { front: 0, back: [u32::MAX; 2], inner: Vec::new() }, lone(old.records(), new.records()))
        }
        (named, _) => by_bytes(old, new, named),
    };
    let in_place = |c: &Change<'_, '_>| c.old.zip(c.new).is_none_or(|(old, new)| old.offset() == new.offset());
    if !(old.has_index_of(new) && shared.is_in_place() && changes.iter().all(in_place)) {
        compare_frontends(old, new, &shared, &mut changes);
    }
    changes
}

fn lone<'o, 'n>(old: impl Iterator<Item = Record<'o>>, new: impl Iterator<Item = Record<'n>>) -> Vec<Change<'o, 'n>> {
    let gone = old.map(|record| Change { old: Some(record), new: None, same_frontends: false });
    gone.chain(new.map(|record| Change { old: None, new: Some(record), same_frontends: false })).collect()
}

/// Of programs with the same names (`named`), or without any.
fn by_bytes<'o, 'n>(old: &Program<'o>, new: &Program<'n>, named: bool) -> (Shared, Vec<Change<'o, 'n>>) {
    let [in_old, in_new] = old.differing_records(new);
    let mut shared = Shared { front: in_old.start, back: [in_old.end, in_new.end], inner: Vec::new() };
    if !named {
        return (shared, lone(old.records_in(in_old), new.records_in(in_new)));
    }
    let mut changes = Vec::new();
    for (a, b) in old.records_in(in_old).zip(new.records_in(in_new)) {
        if a.is_same(&b) {
            shared.inner.push([a.offset(), b.offset()]);
        } else {
            changes.push(Change { old: Some(a), new: Some(b), same_frontends: true });
        }
    }
    (shared, changes)
}

/// Of programs whose names differ: both have their services in the order of names, protocols and families.
fn by_name<'o, 'n>(old: &Program<'o>, new: &Program<'n>) -> (Shared, Vec<Change<'o, 'n>>) {
    let mut shared = Shared { front: 0, back: [u32::MAX; 2], inner: Vec::new() };
    let mut changes = Vec::new();
    let key = |name: Option<Name<'_>>, record: &Record<'_>| name.map(|n| (n.protocol.number(), record.is_v6()));
    let (mut a, mut b) = (old.services().peekable(), new.services().peekable());
    loop {
        let order = match (a.peek(), b.peek()) {
            (None, None) => return (shared, changes),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((old, old_name)), Some((new, new_name))) => old_name
                .map(|n| n.name)
                .cmp(&new_name.map(|n| n.name))
                .then_with(|| key(*old_name, old).cmp(&key(*new_name, new))),
        };
        let old = if order.is_le() { a.next().map(|(record, _)| record) } else { None };
        let new = if order.is_ge() { b.next().map(|(record, _)| record) } else { None };
        match (old, new) {
            (Some(old), Some(new)) if old.is_same(&new) => shared.inner.push([old.offset(), new.offset()]),
            (old, new) => changes.push(Change { old, new, same_frontends: old.is_some() && new.is_some() }),
        }
    }
}

/// Finds the services whose frontends differ: each of one program is looked up in the other.
fn compare_frontends<'o, 'n>(old: &Program<'o>, new: &Program<'n>, shared: &Shared, changes: &mut Vec<Change<'o, 'n>>) {
    let pairs: HashMap<u32, u32> = changes.iter().filter_map(|c| Some((c.old?.offset(), c.new?.offset()))).collect();
    let to_new = |offset: u32| shared.counterpart(offset, 0).or_else(|| pairs.get(&offset).copied());
    let mut touched: [BTreeMap<u32, Record<'_>>; 2] = Default::default();
    let [touched_old, touched_new] = &mut touched;
    let mut found = 0_u32;
    for f in new.frontends() {
        match same_key(old, &f) {
            Some(g) => {
                found += 1;
                if g.kind != f.kind || to_new(g.record.offset()) != Some(f.record.offset()) {
                    touched_old.insert(g.record.offset(), g.record);
                    touched_new.insert(f.record.offset(), f.record);
                }
            }
            None => drop(touched_new.insert(f.record.offset(), f.record)),
        }
    }
    if found < old.frontend_count() {
        let gone = old.frontends().filter(|g| same_key(new, g).is_none());
        touched_old.extend(gone.map(|g| (g.record.offset(), g.record)));
    }
    for change in changes.iter_mut() {
        let is_touched = change.old.is_some_and(|r| touched_old.remove(&r.offset()).is_some())
            | change.new.is_some_and(|r| touched_new.remove(&r.offset()).is_some());
        change.same_frontends &= !is_touched;
    }
    // What is left are services whose records are the same.
    let mut done = BTreeSet::new();
    for record in touched_old.values() {
        let Some(at) = shared.counterpart(record.offset(), 0) else { continue };
        done.insert(at);
        changes.push(Change { old: record_at(old, record.offset()), new: record_at(new, at), same_frontends: false });
    }
    for record in touched_new.values().filter(|r| !done.contains(&r.offset())) {
        let at = shared.counterpart(record.offset(), 1);
        let old = at.and_then(|at| record_at(old, at));
        changes.push(Change { old, new: record_at(new, record.offset()), same_frontends: false });
    }
}

fn record_at<'p>(program: &Program<'p>, offset: u32) -> Option<Record<'p>> {
    program.records_in(offset..offset + 1).next()
}

/// The frontend of a program that packets to this one of another program would meet.
fn same_key<'p>(program: &Program<'p>, f: &ProgramFrontend<'_>) -> Option<ProgramFrontend<'p>> {
    if f.address.is_unspecified() {
        program.find_node_port(f.address, f.protocol, f.port)
    } else {
        program.find(f.address, f.protocol, f.port)
    }
}

/// Those of some addresses that are endpoints of services that both programs have alike. `is_shared` says of a record of
/// `program` whether it is of one.
pub(super) fn kept_endpoints(
    program: &Program<'_>,
    addresses: &BTreeSet<IpAddr>,
    is_shared: impl Fn(u32) -> bool,
) -> BTreeSet<IpAddr> {
    /// From so many addresses on one walk over all endpoints is faster than a search for each.
    const MANY: usize = 64;
    if addresses.len() < MANY {
        let is_kept = |address: &&IpAddr| program.records_with_endpoint(**address).any(|r| is_shared(r.offset()));
        return addresses.iter().filter(is_kept).copied().collect();
    }
    let records = program.records().filter(|r| is_shared(r.offset()));
    let all = records.flat_map(|r| r.endpoints().iter().map(|e| e.address.ip()));
    all.filter(|address| addresses.contains(address)).collect()
}
