//! What is loaded, for who knows the elements without reading them.

use super::super::model::{Ruleset, Set, Table};
use super::{Loaded, LoadedTable, Shape};

impl Loaded {
    /// These objects with the elements of a ruleset. `None` unless they are of the same tables and sets.
    pub fn holding(&self, ruleset: &Ruleset) -> Option<Self> {
        let mut loaded = self.clone();
        let same = |a: &LoadedTable, b: &Table| a.family == b.family && a.sets.len() == b.sets.len();
        if loaded.tables.len() != ruleset.tables.len() {
            return None;
        }
        for (have, table) in loaded.tables.iter_mut().zip(&ruleset.tables) {
            if !same(have, table) {
                return None;
            }
            for set in &table.sets {
                let have = have.sets.iter_mut().find(|s| s.set.name == set.name)?;
                if have.odd || !have.shape.fits(&Shape::of(set)) {
                    return None;
                }
                (have.set.data, have.set.elements) = (set.data.clone(), set.elements.clone());
            }
        }
        Some(loaded)
    }

    /// These objects after elements of a ruleset have taken the place of those that they hold. No elements are left in
    /// them, but how many the kernel has is known.
    #[must_use]
    pub fn after(mut self, generation: u32, ruleset: &Ruleset) -> Self {
        self.generation = generation;
        for (have, table) in self.tables.iter_mut().zip(&ruleset.tables) {
            let len = |set: &Set| u32::try_from(set.elements.len()).unwrap_or(u32::MAX);
            for have in &mut have.sets {
                let Some(set) = table.sets.iter().find(|s| s.name == have.set.name) else { continue };
                have.said = have.said.map(|said| said.saturating_sub(len(&have.set)).saturating_add(len(set)));
                have.set.elements = have.set.empty_elements();
            }
        }
        self
    }
}
