//! The difference of two programs, lowered without the elements that both have.
//!
//! Services are compared by a digest of all that the lowering reads of them: their record, name and frontends. What is left
//! is lowered for both programs, so the difference of the two rulesets is what loading the second one after the first
//! changes. Time is linear in frontends and endpoints, some nanoseconds each; nothing is built for what stays.

use super::elements::is_of_services;
use super::lower_part;
use crate::nft::model::{Element, Ruleset, Set, SetData, Verdict};
use crate::nft::read::Loaded;
use natlet_core::{Choice, Policy, Program, ProgramFrontend, Protocol, Record};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;

/// Two rulesets with all chains, rules and sets of their programs, and the elements in which they differ (and a few more).
#[derive(Clone, Debug)]
pub struct Delta {
    /// Of the old program.
    pub old: Ruleset,
    /// Of the new one.
    pub new: Ruleset,
}

impl Delta {
    /// What is loaded, with the elements of the old program in which the two differ; the new sets get the sizes that they
    /// would have whole. `None` unless `objects` are those of the old program.
    pub fn onto(&mut self, objects: &Loaded) -> Option<Loaded> {
        let loaded = objects.holding(&self.old)?;
        for (table, have) in self.new.tables.iter_mut().zip(&loaded.tables) {
            for set in table.sets.iter_mut().filter(|s| s.size.is_some() && s.memory.is_none()) {
                let Some(have) = have.sets.iter().find(|have| have.set.name == set.name) else { continue };
                let len = |set: &Set| u32::try_from(set.elements.len()).unwrap_or(u32::MAX);
                let whole = have.count().saturating_sub(len(&have.set)).saturating_add(len(set));
                set.size = Some(Set::size_for(whole));
            }
        }
        Some(loaded)
    }

    /// This, where a part of it is done already: the old elements are then those that the part has left. `None` if some of
    /// what the part has changed is no part of this.
    #[must_use]
    pub fn begun(mut self, done: &Self) -> Option<Self> {
        for (gone, come) in done.old.tables.iter().zip(&done.new.tables) {
            let table = self.old.tables.iter_mut().find(|table| table.family == gone.family)?;
            for (gone, come) in gone.sets.iter().zip(&come.sets) {
                match table.sets.iter_mut().find(|set| set.name == gone.name) {
                    Some(set) => replace(set, gone, come)?,
                    None if gone.elements.is_empty() && come.elements.is_empty() => {}
                    None => return None,
                }
            }
        }
        Some(self)
    }
}

/// Puts the elements of one set into the place of those of another, all of which are there but for those that both have.
fn replace(set: &mut Set, gone: &Set, come: &Set) -> Option<()> {
    let same = |gone_one: &Element<'_>, one: &Element<'_>, set: &Set| match gone.verdict(gone_one.data) {
        Some(verdict) => set.verdict(one.data) == Some(verdict),
        None => one.data == gone_one.data,
    };
    let mut left: HashMap<&[u8], Element<'_>> = gone.elements.iter().map(|e| (e.key, e)).collect();
    let mut new: Vec<Element<'_>> = Vec::new();
    for one in come.elements.iter() {
        if left.get(one.key).is_some_and(|gone_one| same(gone_one, &one, come)) {
            left.remove(one.key);
        } else {
            new.push(one);
        }
    }
    let mut elements = set.empty_elements();
    for have in set.elements.iter() {
        match left.remove(have.key) {
            Some(gone_one) if !same(&gone_one, &have, set) => return None,
            Some(_) => {}
            None => elements.push(have.key, have.data, have.comment),
        }
    }
    if !left.is_empty() {
        return None;
    }
    for one in new {
        match (&mut set.data, come.verdict(one.data)) {
            (SetData::Verdict(verdicts), Some(verdict)) => {
                let index = verdicts.iter().position(|v| v == verdict).unwrap_or(verdicts.len());
                if index == verdicts.len() {
                    verdicts.push(verdict.clone());
                }
                elements.push(one.key, &u16::try_from(index).ok()?.to_le_bytes(), one.comment);
            }
            _ => elements.push(one.key, one.data, one.comment),
        }
    }
    set.elements = elements;
    Some(())
}

/// A part of a program: what another program does not have.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    /// Its services, by the offset of their records.
    records: HashSet<u32>,
    /// ClusterIPs.
    pub(super) cluster_ips: Vec<IpAddr>,
    /// Addresses of endpoints.
    pub(super) endpoints: Vec<IpAddr>,
}

impl Part {
    pub(super) fn has(&self, record: &Record<'_>) -> bool {
        self.records.contains(&record.offset())
    }
}

/// What differs between two programs; `old_info` and `new_info` are what the kernel keeps with each, as in
/// [`lower`](super::lower).
pub fn delta(old: &Program<'_>, old_info: &str, new: &Program<'_>, new_info: &str) -> Delta {
    let [old_part, new_part] = parts(old, new);
    Delta { old: lower_part(old, old_info, Some(&old_part)), new: lower_part(new, new_info, Some(&new_part)) }
}

/// As [`delta`], to the program that differs from `old` in some services only, of which `some` is a program of their own. They
/// are those with the names that `is_one` tells, and the kernel is to keep what it keeps with `old`. `None` unless they have
/// the frontends that they have in `old`, remember no clients, and need no chain or set that is not there for `old`.
pub fn delta_of_some(
    old: &Program<'_>,
    info: &str,
    some: &Program<'_>,
    is_one: &dyn Fn(&str) -> bool,
) -> Option<Delta> {
    let (had, has) = (Chosen::of(old, is_one)?, Chosen::of(some, is_one)?);
    if had.frontends != has.frontends {
        return None;
    }
    let (mut old_part, mut new_part) = (had.part(), has.part());
    endpoints_apart([(old, &mut old_part), (some, &mut new_part)]);
    let (old, some) = (lower_part(old, info, Some(&old_part)), lower_part(some, info, Some(&new_part)));
    let mut new = old.clone();
    for table in &mut new.tables {
        let part = some.tables.iter().find(|part| part.family == table.family);
        for set in table.sets.iter_mut().filter(|set| is_of_services(&set.name)) {
            set.elements = set.empty_elements();
        }
        for from in part.into_iter().flat_map(|part| &part.sets).filter(|set| is_of_services(&set.name)) {
            if from.elements.is_empty() {
                continue;
            }
            let has_chain = |verdict: &Verdict| match verdict {
                Verdict::Goto(chain) | Verdict::Jump(chain) => table.chains.iter().any(|c| c.name == *chain),
                _ => true,
            };
            if matches!(&from.data, SetData::Verdict(verdicts) if !verdicts.iter().all(has_chain)) {
                return None;
            }
            let set = table.sets.iter_mut().find(|set| set.name == from.name)?;
            (set.data, set.elements) = (from.data.clone(), from.elements.clone());
        }
    }
    Some(Delta { old, new })
}

/// What each of two programs has and the other has not.
fn parts(old: &Program<'_>, new: &Program<'_>) -> [Part; 2] {
    // The seed is new each time: nobody can make a change that has the digest of what it changes.
    let seed = RandomState::new();
    let [records, new_records] = unmatched(&digests(old, &seed), &digests(new, &seed));
    let mut old_part = Part { records, ..Part::default() };
    let mut new_part = Part { records: new_records, ..Part::default() };
    [old_part.cluster_ips, new_part.cluster_ips] = unshared(old.cluster_ips(), new.cluster_ips());
    endpoints_apart([(old, &mut old_part), (new, &mut new_part)]);
    [old_part, new_part]
}

/// So many numbers are found faster one by one than by halves.
const FEW: usize = 8;

/// The addresses of endpoints that come or go with two parts: what is in the first program and in neither part stays.
fn endpoints_apart([(old, old_part), (new, new_part)]: [(&Program<'_>, &mut Part); 2]) {
    let addresses = |program: &Program<'_>, part: &Part| -> BTreeSet<IpAddr> {
        let records = program.records().filter(|r| part.has(r));
        records.flat_map(|r| r.endpoints().iter().map(|e| e.address.ip())).collect()
    };
    let (have, want) = (addresses(old, old_part), addresses(new, new_part));
    [old_part.endpoints, new_part.endpoints] = unshared(have.into_iter(), want.into_iter());
    // An address that comes or goes here may be another service's endpoint all the time.
    if old_part.endpoints.is_empty() && new_part.endpoints.is_empty() {
        return;
    }
    // All endpoints of the program are looked at, and these are few: numbers are compared faster than addresses.
    let mut sought: Vec<IpAddr> = old_part.endpoints.iter().chain(&new_part.endpoints).copied().collect();
    let number = |address: &IpAddr| if let IpAddr::V4(ip) = address { Some(ip.to_bits()) } else { None };
    let mut numbers: Vec<u32> = sought.iter().filter_map(number).collect();
    numbers.sort_unstable();
    sought.sort_unstable();
    let is_sought = |address: &IpAddr| match number(address) {
        Some(number) if numbers.len() <= FEW => numbers.contains(&number),
        Some(number) => numbers.binary_search(&number).is_ok(),
        None => sought.binary_search(address).is_ok(),
    };
    let mut shared = BTreeSet::new();
    for record in old.records().filter(|r| !old_part.has(r)) {
        shared.extend(record.endpoints().iter().map(|e| e.address.ip()).filter(is_sought));
    }
    for part in [old_part, new_part] {
        part.endpoints.retain(|address| !shared.contains(address));
    }
}

/// Some services of a program.
struct Chosen {
    records: HashSet<u32>,
    /// Their frontends with their names, sorted.
    frontends: Vec<(String, u8, IpAddr, u8, u16)>,
}

impl Chosen {
    /// Those of these names; `None` if one of them remembers clients: numbers of theirs depend on other services.
    fn of(program: &Program<'_>, is_one: &dyn Fn(&str) -> bool) -> Option<Self> {
        let mut names: HashMap<u32, &str> = HashMap::new();
        for (record, name) in program.services() {
            let Some(name) = name.filter(|name| is_one(name.name)) else { continue };
            if record.affinity_timeout().is_some() {
                return None;
            }
            names.insert(record.offset(), name.name);
        }
        let own = program.frontends().filter_map(|f| Some((*names.get(&f.record.offset())?, f)));
        let mut frontends: Vec<_> =
            own.map(|(name, f)| (name.to_owned(), f.kind as u8, f.address, f.protocol.number(), f.port)).collect();
        frontends.sort_unstable();
        Some(Self { records: names.into_keys().collect(), frontends })
    }

    fn part(self) -> Part {
        Part { records: self.records, ..Part::default() }
    }
}

/// Offset and digest of each service, in the program's order.
fn digests(program: &Program<'_>, seed: &RandomState) -> Vec<(u32, u64)> {
    let mut digests: Vec<(u32, u64)> = program
        .services()
        .map(|(r, name)| (r.offset(), digest(&r, name.map(|n| (n.name, n.protocol)), seed)))
        .collect();
    for f in program.frontends() {
        if let Ok(at) = digests.binary_search_by_key(&f.record.offset(), |d| d.0) {
            // Frontends come in no order, so theirs are summed.
            digests[at].1 = digests[at].1.wrapping_add(frontend_digest(&f, seed));
        }
    }
    digests
}

fn digest(record: &Record<'_>, name: Option<(&str, Protocol)>, seed: &RandomState) -> u64 {
    let mut hasher = seed.build_hasher();
    name.map(|(name, protocol)| (name, protocol.number())).hash(&mut hasher);
    let [internal, external] = [record.internal_policy(), record.external_policy()].map(|p| p == Policy::Local);
    let hashed = record.choice() == Choice::SourceHash;
    (record.is_v6(), internal, external, record.any_usable(), hashed, record.affinity_timeout()).hash(&mut hasher);
    (record.cluster().len(), record.local().len(), record.endpoints().len()).hash(&mut hasher);
    for endpoint in record.endpoints().iter() {
        match endpoint.address.ip() {
            IpAddr::V4(ip) => hasher.write_u64(
                u64::from(ip.to_bits()) << 32 | u64::from(endpoint.address.port()) << 16 | u64::from(endpoint.weight),
            ),
            IpAddr::V6(ip) => {
                hasher.write_u128(ip.to_bits());
                hasher.write_u32(u32::from(endpoint.address.port()) << 16 | u32::from(endpoint.weight));
            }
        }
    }
    for range in record.source_ranges().into_iter().flatten() {
        (range.address, range.prefix).hash(&mut hasher);
    }
    hasher.finish()
}

fn frontend_digest(f: &ProgramFrontend<'_>, seed: &RandomState) -> u64 {
    seed.hash_one((f.kind as u8, f.address, f.protocol.number(), f.port))
}

/// The offsets whose digest the other list has not (or has less often). Most programs differ in a few neighbours, so what both
/// begin and end with is passed over first.
fn unmatched(old: &[(u32, u64)], new: &[(u32, u64)]) -> [HashSet<u32>; 2] {
    let same = |(a, b): &(&(u32, u64), &(u32, u64))| a.1 == b.1;
    let front = old.iter().zip(new).take_while(same).count();
    let (old, new) = (&old[front..], &new[front..]);
    let back = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
    let (old, new) = (&old[..old.len() - back], &new[..new.len() - back]);
    let mut left: HashMap<u64, Vec<u32>> = HashMap::with_capacity(old.len());
    for (offset, digest) in old {
        left.entry(*digest).or_default().push(*offset);
    }
    let is_new = |(offset, digest): &(u32, u64)| left.get_mut(digest).and_then(Vec::pop).is_none().then_some(*offset);
    let added = new.iter().filter_map(is_new).collect();
    [left.into_values().flatten().collect(), added]
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
