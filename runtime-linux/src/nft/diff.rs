//! From what is loaded to what is wanted, in an order in which every packet is translated by one state or the other.
//!
//! A packet does two look-ups (frontend, then endpoint) and a transaction can fall between them. So a change is up to four
//! transactions: *grow* raises the size of full sets, *prepare* adds what nothing leads to yet, *switch* changes where
//! packets are led, *clean* removes what nothing leads to any more. A table that is not there is loaded in one; a table of another shape is replaced in one.

mod elements;
mod phase;

pub use elements::{ElementChange, SetChange};
pub use phase::{Phase, PhaseName};

use super::model::{BaseChain, Chain, Family, Ownership, Ruleset, Set, SetData, Table};
use super::read::{Loaded, LoadedBase, LoadedChain, LoadedSet, LoadedTable, Shape};
use super::wire::attribute::Writer;
use super::wire::userdata::comment_text;
use super::wire::{Place, expression};
use phase::{Operation, Picked};

/// NFT_TABLE_F_DORMANT.
const DORMANT: u32 = 1;

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Plan<'a> {
    /// Transactions, in order; none if nothing differs.
    pub phases: Vec<Phase<'a>>,
    /// How much differs.
    pub summary: Summary,
    /// Differences of sets, for reports.
    pub sets: Vec<SetChange<'a>>,
    /// Chains of changed tables that differ, for reports.
    pub chains: Vec<ChainChange<'a>>,
}

/// A chain that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainChange<'a> {
    /// Family of its table.
    pub family: Family,
    /// Its name.
    pub name: &'a str,
    /// How it differs.
    pub kind: ChangeKind,
}

/// How an object differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is not there and is to be.
    New,
    /// It is there and is not to be.
    Gone,
    /// It is there otherwise than it is to be.
    Changed,
}

/// How much differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Elements that are new.
    pub added: usize,
    /// Elements that go.
    pub removed: usize,
    /// Elements whose data or comment changes.
    pub changed: usize,
    /// Tables, sets and chains that are new.
    pub new_objects: usize,
    /// Tables, sets and chains that go.
    pub gone_objects: usize,
    /// Chains whose rules are written anew.
    pub changed_chains: usize,
    /// Tables that are deleted and created in one transaction, and why.
    pub replaced: Vec<(Family, String)>,
}

impl Summary {
    /// This and what was to be done after it, as one.
    #[must_use]
    pub fn and(mut self, later: Self) -> Self {
        self.added += later.added;
        self.removed += later.removed;
        self.changed += later.changed;
        self.new_objects += later.new_objects;
        self.gone_objects += later.gone_objects;
        self.changed_chains += later.changed_chains;
        self.replaced.extend(later.replaced);
        self
    }
}

impl<'a> Plan<'a> {
    /// Whether the kernel has what is wanted.
    pub fn is_empty(&self) -> bool {
        self.phases.is_empty()
    }

    /// Whether it needs nothing but what differs: no table is made, deleted or replaced.
    pub fn is_gradual(&self) -> bool {
        let whole = |o: &Operation<'_>| matches!(o, Operation::NewTable(..) | Operation::DeleteTable(_));
        self.phases.iter().all(|phase| !phase.operations.iter().any(whole))
    }

    /// Every element that differs.
    pub fn element_changes(&self) -> impl Iterator<Item = ElementChange<'a>> + '_ {
        self.sets.iter().flat_map(SetChange::elements)
    }
}

/// The way from `current` to `wanted`.
pub fn plan<'a>(current: &'a Loaded, wanted: &'a Ruleset) -> Plan<'a> {
    make(current, wanted, None)
}

/// As [`plan`], but every table is replaced whole, for a kernel that refused the small way.
pub fn plan_replacing<'a>(current: &'a Loaded, wanted: &'a Ruleset, reason: &str) -> Plan<'a> {
    make(current, wanted, Some(reason))
}

fn make<'a>(current: &'a Loaded, wanted: &'a Ruleset, replace: Option<&str>) -> Plan<'a> {
    let mut work = Work { ownership: wanted.ownership, ..Work::default() };
    for table in &wanted.tables {
        match current.tables.iter().find(|t| t.family == table.family) {
            None => work.fresh(table),
            Some(old) => match replace.map(str::to_owned).or_else(|| incompatible(old, table, wanted.ownership)) {
                Some(reason) => work.replaced(old, table, reason),
                None => work.changed(old, table),
            },
        }
    }
    for old in current.tables.iter().filter(|old| wanted.tables.iter().all(|t| t.family != old.family)) {
        work.gone(old);
    }
    work.finish()
}

/// Why the table cannot become the wanted one by small steps.
fn incompatible(old: &LoadedTable, table: &Table, ownership: Ownership) -> Option<String> {
    if old.flags & DORMANT != 0 {
        return Some("the table is dormant".into());
    }
    // Whose a table is the kernel decides when it makes it; one left by its owner was adopted before.
    if ownership == Ownership::Socket && old.owner.is_none() {
        return Some("the table could be changed by anyone".into());
    }
    for set in &table.sets {
        if set_named(old, &set.name).is_some_and(|have| have.odd || !have.shape.fits(&Shape::of(set))) {
            return Some(format!("{} {} has another form", set.noun(), set.name));
        }
    }
    let chain = |name: &str| old.chains.iter().find(|c| c.name == name);
    if let Some(c) = table.chains.iter().find(|c| chain(&c.name).is_some_and(|have| have.base.is_some())) {
        return Some(format!("chain {} has a hook", c.name));
    }
    let moved = |b: &&BaseChain| chain(&b.chain.name).is_some_and(|have| have.base.as_ref() != Some(&attached(b)));
    table
        .base_chains
        .iter()
        .find(moved)
        .map(|b| format!("chain {} has another type, hook, priority or policy", b.chain.name))
}

fn attached(base: &BaseChain) -> LoadedBase {
    LoadedBase { kind: base.kind.name().into(), hook: base.hook.number(), priority: base.priority, policy: 1 }
}

fn set_named<'t>(table: &'t LoadedTable, name: &str) -> Option<&'t LoadedSet> {
    table.sets.iter().find(|s| s.set.name == name)
}

/// Whether a chain in the kernel has exactly these rules.
fn same_rules(have: &LoadedChain, family: Family, want: &Chain) -> bool {
    have.rules.len() == want.rules.len()
        && have.rules.iter().zip(&want.rules).all(|(have, want)| {
            let mut w = Writer::default();
            expression::expressions(&mut w, family, want);
            have.comment == comment_text(&want.comment) && expression::covers(&have.expressions, &w.bytes)
        })
}

/// The phases as they come together.
#[derive(Default)]
struct Work<'a> {
    grow: Vec<Operation<'a>>,
    prepare: Vec<Operation<'a>>,
    switch: Vec<Operation<'a>>,
    clean: Vec<Operation<'a>>,
    ownership: Ownership,
    plan: Plan<'a>,
}

impl<'a> Work<'a> {
    fn finish(mut self) -> Plan<'a> {
        for set in &self.plan.sets {
            let (added, removed, changed) = set.counts();
            self.plan.summary.added += added;
            self.plan.summary.removed += removed;
            self.plan.summary.changed += changed;
        }
        let phases = [
            (PhaseName::Grow, self.grow),
            (PhaseName::Prepare, self.prepare),
            (PhaseName::Switch, self.switch),
            (PhaseName::Clean, self.clean),
        ];
        self.plan.phases = phases
            .into_iter()
            .filter(|(_, operations)| !operations.is_empty())
            .map(|(name, operations)| Phase { name, operations })
            .collect();
        self.plan
    }

    /// A whole table: elements last, because binding a rule to a verdict map walks the map.
    fn fresh(&mut self, table: &'a Table) {
        let place = table.place();
        self.plan.summary.new_objects += 1 + table.sets.len() + table.chains.len() + table.base_chains.len();
        let (out, ownership) = (&mut self.switch, self.ownership);
        out.push(Operation::NewTable(table, ownership));
        out.extend(table.sets.iter().map(|set| Operation::NewSet(place, set)));
        out.extend(table.chains.iter().map(|chain| Operation::NewChain(place, chain)));
        out.extend(table.base_chains.iter().map(|base| Operation::NewBaseChain(place, base)));
        out.extend(table.chains.iter().map(|chain| Operation::NewRules(place, chain, false)));
        out.extend(table.base_chains.iter().map(|base| Operation::NewRules(place, &base.chain, true)));
        let filled = || table.sets.iter().filter(|set| !set.elements.is_empty());
        out.extend(filled().map(|set| Operation::Add(place, Picked::all(set))));
        self.plan.sets.extend(filled().map(|set| SetChange::new(place, set)));
    }

    fn replaced(&mut self, old: &'a LoadedTable, table: &'a Table, reason: String) {
        self.plan.summary.replaced.push((table.family, reason));
        self.switch.push(Operation::DeleteTable(table.place()));
        self.fresh(table);
        // Reported is what differs, not that everything is written again.
        let place = table.place();
        self.plan.sets.retain(|s| s.place() != place);
        for set in &table.sets {
            match set_named(old, &set.name).filter(|have| have.shape.fits(&Shape::of(set))) {
                Some(have) => self.plan.sets.push(SetChange::between(place, &have.set, set)),
                None => self.plan.sets.push(SetChange::new(place, set)),
            }
        }
        let unknown = |s: &&LoadedSet| table.sets.iter().all(|t| t.name != s.set.name);
        self.plan.sets.extend(old.sets.iter().filter(unknown).map(|s| SetChange::gone(place, &s.set)));
    }

    fn gone(&mut self, old: &'a LoadedTable) {
        let place = Place { family: old.family, table: &old.name };
        self.clean.push(Operation::DeleteTable(place));
        self.plan.summary.gone_objects += 1 + old.sets.len() + old.chains.len();
        self.plan.sets.extend(old.sets.iter().map(|s| SetChange::gone(place, &s.set)));
    }

    fn changed(&mut self, old: &'a LoadedTable, table: &'a Table) {
        let place = table.place();
        // Sets are made before chains, chains before rules, and elements come last: a rule names its sets, an element its
        // chain.
        let mut fill = Vec::new();
        for set in &table.sets {
            if let Some(have) = set_named(old, &set.name) {
                self.changed_set(place, have, set, &mut fill);
            } else {
                self.plan.summary.new_objects += 1;
                self.prepare.push(Operation::NewSet(place, set));
                if !set.elements.is_empty() {
                    fill.push(Operation::Add(place, Picked::all(set)));
                    self.plan.sets.push(SetChange::new(place, set));
                }
            }
        }
        self.chains(place, old, table);
        self.prepare.extend(fill);
        self.unused(place, old, table);
    }

    fn changed_set(&mut self, place: Place<'a>, have: &'a LoadedSet, set: &'a Set, fill: &mut Vec<Operation<'a>>) {
        let change = SetChange::between(place, &have.set, set);
        let (added, removed, changed) = change.counts();
        if let Some(size) = have.set.size {
            let during = have.count().saturating_add(u32::try_from(added).unwrap_or(u32::MAX));
            let needed = set.size.unwrap_or(0).max(during);
            if needed > size {
                self.grow.push(Operation::GrowSet(place, set, needed));
            }
        }
        if added + removed + changed == 0 {
            return;
        }
        let operation =
            |out: &mut Vec<Operation<'a>>, make: fn(Place<'a>, Picked<'a>) -> Operation<'a>, picked: Picked<'a>| {
                if !picked.is_empty() {
                    out.push(make(place, picked));
                }
            };
        let picks = change.picks();
        let removed_or_changed = [&picks.removed[..], &picks.changed_old].concat();
        let added_or_changed = [&picks.added[..], &picks.changed_new].concat();
        match set.data {
            // Nothing leads to a new key, and a removed one is not led to any more after the switch.
            SetData::Value(_) => {
                operation(fill, Operation::Delete, Picked::of(set, &have.set, picks.changed_old));
                operation(fill, Operation::Add, Picked::of(set, set, added_or_changed));
                operation(&mut self.clean, Operation::Delete, Picked::of(set, &have.set, picks.removed));
            }
            SetData::None if removed + changed == 0 => {
                operation(fill, Operation::Add, Picked::of(set, set, picks.added));
            }
            SetData::None | SetData::Verdict(_) => {
                operation(&mut self.switch, Operation::Delete, Picked::of(set, &have.set, removed_or_changed));
                let pairs = picks.changed_old.iter().copied().zip(picks.changed_new.iter().copied());
                let added_or_changed = Picked::of(set, set, added_or_changed).counting_on(&have.set, pairs);
                operation(&mut self.switch, Operation::Add, added_or_changed);
            }
        }
        self.plan.sets.push(change);
    }

    fn chains(&mut self, place: Place<'a>, old: &'a LoadedTable, table: &'a Table) {
        let named = |name: &str| old.chains.iter().find(|c| c.name == name);
        let new = |c: &&Chain| named(&c.name).is_none();
        self.prepare.extend(table.chains.iter().filter(new).map(|c| Operation::NewChain(place, c)));
        self.prepare.extend(table.chains.iter().filter(new).map(|c| Operation::NewRules(place, c, false)));
        self.plan.summary.new_objects += table.chains.iter().filter(new).count();
        table.chains.iter().filter(new).for_each(|c| self.chain(place, &c.name, ChangeKind::New));
        for chain in &table.chains {
            if let Some(have) = named(&chain.name) {
                self.changed_chain(place, have, chain, false);
            }
        }
        for base in &table.base_chains {
            if let Some(have) = named(&base.chain.name) {
                self.changed_chain(place, have, &base.chain, true);
            } else {
                self.plan.summary.new_objects += 1;
                self.chain(place, &base.chain.name, ChangeKind::New);
                self.switch.push(Operation::NewBaseChain(place, base));
                self.switch.push(Operation::NewRules(place, &base.chain, true));
            }
        }
    }

    fn chain(&mut self, place: Place<'a>, name: &'a str, kind: ChangeKind) {
        self.plan.chains.push(ChainChange { family: place.family, name, kind });
    }

    fn changed_chain(&mut self, place: Place<'a>, have: &LoadedChain, want: &'a Chain, base: bool) {
        if !same_rules(have, place.family, want) {
            self.plan.summary.changed_chains += 1;
            self.chain(place, &want.name, ChangeKind::Changed);
            self.switch.push(Operation::FlushChain(place, &want.name, base));
            self.switch.push(Operation::NewRules(place, want, base));
        }
    }

    /// Removes what the table has too much: rules first, then sets (their verdicts hold chains), then chains.
    fn unused(&mut self, place: Place<'a>, old: &'a LoadedTable, table: &'a Table) {
        let wanted = |name: &str| {
            table
                .chains
                .iter()
                .map(|c| &c.name)
                .chain(table.base_chains.iter().map(|b| &b.chain.name))
                .any(|n| n == name)
        };
        let chains: Vec<_> = old.chains.iter().filter(|c| !wanted(&c.name)).collect();
        let sets: Vec<_> = old.sets.iter().filter(|s| table.sets.iter().all(|t| t.name != s.set.name)).collect();
        self.plan.summary.gone_objects += chains.len() + sets.len();
        for chain in &chains {
            self.chain(place, &chain.name, ChangeKind::Gone);
        }
        self.clean.extend(chains.iter().map(|c| Operation::FlushChain(place, &c.name, c.base.is_some())));
        self.clean.extend(sets.iter().map(|s| Operation::DeleteSet(place, &s.set.name)));
        self.clean.extend(chains.iter().map(|c| Operation::DeleteChain(place, &c.name)));
        self.plan.sets.extend(sets.iter().map(|s| SetChange::gone(place, &s.set)));
    }
}
