//! The difference of two programs, lowered without the elements that both have.
//!
//! Which services differ is found by comparing the programs' bytes (`matching.rs`). What differs is lowered for both programs,
//! so the difference of the two rulesets is what loading the second one after the first changes. Nothing is built for what
//! stays: with the same names and frontends, time is that of some passes over the programs' bytes.

use super::part::parts;
use super::{Needs, lower_part};
use crate::nft::model::{Ruleset, Set};
use crate::nft::read::Loaded;
use natlet_core::Program;

/// Two rulesets with all chains, rules and sets of their programs, and the elements in which they differ (and a few more).
#[derive(Clone, Debug)]
pub struct Delta {
    /// Of the old program.
    pub old: Ruleset,
    /// Of the new one.
    pub new: Ruleset,
    /// What the new program's frontends need rules for.
    pub needs: Needs,
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
}

/// How much of services that differ is to be in a [`Delta`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// What differs, so that it can be sent.
    Differing,
    /// Whole services, so that it can be told by their names.
    Services,
}

/// What differs between two programs; `old_info` and `new_info` are what the kernel keeps with each, as in
/// [`lower`](super::lower).
pub fn delta(old: &Program<'_>, old_info: &str, new: &Program<'_>, new_info: &str) -> Delta {
    delta_knowing(&Needs::of_program(old), (old, old_info), (new, new_info), Detail::Differing)
}

/// As [`delta`], for who knows what the old program's frontends need: no frontend of a service that stays is looked at.
pub fn delta_knowing(needs: &Needs, old: (&Program<'_>, &str), new: (&Program<'_>, &str), detail: Detail) -> Delta {
    let (old_part, new_part) = parts(old.0, new.0, detail == Detail::Services);
    let new_needs = needs.after(old_part.frontends.iter(), new_part.frontends.iter());
    Delta {
        old: lower_part(old.0, old.1, needs, Some(&old_part)),
        new: lower_part(new.0, new.1, &new_needs, Some(&new_part)),
        needs: new_needs,
    }
}
