//! Parts of programs: what one has and another has not.

use super::matching::{Change, changes, kept_endpoints};
use natlet_core::{Choice, Program, ProgramFrontend, Record};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A part of a program: what another program does not have.
#[derive(Clone, Debug, Default)]
pub(super) struct Part<'p> {
    /// Its services, by the offset of their records, ascending.
    records: Vec<(u32, Depth)>,
    /// Their frontends.
    pub(super) frontends: Vec<ProgramFrontend<'p>>,
    /// Names of those that go whole, by offset, ascending.
    pub(super) names: Vec<(u32, &'p str)>,
    /// ClusterIPs.
    pub(super) cluster_ips: Vec<IpAddr>,
    /// Addresses of endpoints.
    pub(super) endpoints: Vec<IpAddr>,
}

/// How much of a service is in a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    Nothing,
    /// Its endpoints: where its frontends lead, and all else, is the same in the other program.
    Endpoints,
    All,
}

impl<'p> Part<'p> {
    pub(super) fn depth_of(&self, record: &Record<'_>) -> Depth {
        self.depth(record.offset())
    }

    fn depth(&self, offset: u32) -> Depth {
        self.records.binary_search_by_key(&offset, |r| r.0).map_or(Depth::Nothing, |at| self.records[at].1)
    }

    /// Of these records of a program.
    fn of(program: &Program<'p>, mut records: Vec<(u32, Depth)>) -> Self {
        records.sort_unstable_by_key(|r| r.0);
        records.dedup_by_key(|r| r.0);
        let mut part = Self { records, ..Self::default() };
        let (Some(&(first, _)), Some(&(last, _))) = (part.records.first(), part.records.last()) else { return part };
        part.frontends = program
            .frontends_of(|offset| (first..=last).contains(&offset) && part.depth(offset) != Depth::Nothing)
            .collect();
        let whole = part.records.iter().filter(|r| r.1 == Depth::All).count();
        let names = program.services().filter(|(record, _)| part.depth_of(record) == Depth::All);
        let names = names.filter_map(|(record, name)| Some((record.offset(), name?.name)));
        part.names = if whole == 0 { Vec::new() } else { names.take(whole).collect() };
        part
    }

    fn addresses(&self, program: &Program<'_>) -> BTreeSet<IpAddr> {
        let records = self.records.iter().flat_map(|&(offset, _)| program.records_in(offset..offset + 1));
        records.flat_map(|r| r.endpoints().iter().map(|e| e.address.ip())).collect()
    }
}

/// What each of two programs has and the other has not. `whole`: services that differ in their endpoints alone are whole too.
pub(super) fn parts<'o, 'n>(old: &Program<'o>, new: &Program<'n>, whole: bool) -> (Part<'o>, Part<'n>) {
    let changes = changes(old, new);
    let depth = |change: &Change<'_, '_>| {
        let same =
            change.same_frontends && change.old.zip(change.new).is_some_and(|(old, new)| leads_alike(&old, &new));
        if same && !whole { Depth::Endpoints } else { Depth::All }
    };
    let in_old = changes.iter().filter_map(|c| Some((c.old?.offset(), depth(c)))).collect();
    let in_new = changes.iter().filter_map(|c| Some((c.new?.offset(), depth(c)))).collect();
    let (mut old_part, mut new_part) = (Part::of(old, in_old), Part::of(new, in_new));
    if !old.has_index_of(new) {
        [old_part.cluster_ips, new_part.cluster_ips] = unshared(old.cluster_ips(), new.cluster_ips());
    }
    let (have, want) = (old_part.addresses(old), new_part.addresses(new));
    [old_part.endpoints, new_part.endpoints] = unshared(have.into_iter(), want.into_iter());
    // An address that comes or goes here may be another service's endpoint all the time.
    let moved: BTreeSet<IpAddr> = old_part.endpoints.iter().chain(&new_part.endpoints).copied().collect();
    let kept = kept_endpoints(old, &moved, |offset| old_part.depth(offset) == Depth::Nothing);
    old_part.endpoints.retain(|address| !kept.contains(address));
    new_part.endpoints.retain(|address| !kept.contains(address));
    (old_part, new_part)
}

/// Whether frontends of two records lead to the same chain, and are masqueraded and restricted alike.
fn leads_alike(old: &Record<'_>, new: &Record<'_>) -> bool {
    let leads = |r: &Record<'_>| {
        let hashed = r.choice() == Choice::SourceHash;
        let lists = (r.cluster().slots(), r.local().slots());
        let policies = [r.internal_policy(), r.external_policy()].map(|p| p as u8);
        (lists, policies, hashed, r.any_usable(), r.affinity_timeout())
    };
    let ranges = |r: &Record<'_>| r.source_ranges().map(|ranges| ranges.collect::<Vec<_>>());
    leads(old) == leads(new) && ranges(old) == ranges(new)
}

/// What only one of two ascending lists has.
fn unshared<T: Ord>(old: impl Iterator<Item = T>, new: impl Iterator<Item = T>) -> [Vec<T>; 2] {
    let (mut old, mut new) = (old.peekable(), new.peekable());
    let (mut gone, mut added) = (Vec::new(), Vec::new());
    loop {
        match (old.peek(), new.peek()) {
            (Some(a), Some(b)) if a == b => {
                old.next();
                new.next();
            }
            (Some(a), Some(b)) if a < b => gone.extend(old.next()),
            (_, Some(_)) => added.extend(new.next()),
            (Some(_), None) => gone.extend(old.next()),
            (None, None) => return [gone, added],
        }
    }
}
