//! What loading a program would change in the kernel, in words by service.
//!
//! Both sides are read alike: the sets that the program is lowered to, and the sets that the kernel holds. What the sets
//! say about services is compared; what differs and belongs to no service (somebody added or deleted an element or a
//! rule, other settings of the node) is told beside it, so that nothing that would be changed goes unsaid.

mod affinity;
mod leftover;
mod meaning;
mod service;

use crate::nft::diff::{Plan, Summary};
use crate::nft::model::Ruleset;
use crate::nft::read::Loaded;
use meaning::Meaning;
use natlet_core::Protocol;
use std::collections::BTreeSet;

/// All that would change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Services that change, by name.
    pub services: Vec<ServiceChange>,
    /// Settings of the node.
    pub settings: Vec<SettingChange>,
    /// Changes that belong to no service, in words.
    pub other: Vec<String>,
    /// How much the transactions would change.
    pub summary: Summary,
}

/// A service port that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceChange {
    /// `namespace/name:port`; where nobody knows the name, its first frontend.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Whether it appears, goes or changes.
    pub kind: ServiceKind,
    /// Frontends that it gets.
    pub frontends_added: Vec<String>,
    /// Frontends that it loses.
    pub frontends_removed: Vec<String>,
    /// Endpoints that it gets.
    pub endpoints_added: Vec<String>,
    /// Endpoints that it loses.
    pub endpoints_removed: Vec<String>,
    /// What else changes, in words.
    pub details: Vec<String>,
}

/// What becomes of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// The kernel does not have it.
    New,
    /// The program does not have it.
    Gone,
    /// Both have it, and differ.
    Changed,
}

impl ServiceKind {
    /// `new`, `gone` or `changed`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Gone => "gone",
            Self::Changed => "changed",
        }
    }
}

/// A list of prefixes of the node that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingChange {
    /// The flag that sets it, without dashes: `cluster-cidr`, `service-cidr`, `node-port-address`.
    pub setting: &'static str,
    /// Prefixes that it gets.
    pub added: Vec<String>,
    /// Prefixes that it loses.
    pub removed: Vec<String>,
}

impl Difference {
    /// Tells a plan in words. `loaded` and `wanted` are what it was made from.
    pub fn of(loaded: &Loaded, wanted: &Ruleset, plan: &Plan<'_>) -> Self {
        if plan.is_empty() {
            return Self::default();
        }
        let (mut old, mut new) = (Meaning::default(), Meaning::default());
        for table in &loaded.tables {
            old.add(table.family, table.sets.iter().map(|s| &s.set));
        }
        for table in &wanted.tables {
            new.add(table.family, table.sets.iter());
        }
        service::agree_on_names(&mut old, &mut new);
        let services = service::changes(&old, &new);
        let settings = settings(&old, &new);
        let mut other = tables(loaded, wanted);
        other.extend(leftover::of(plan, &old, &new, &services));
        if services.is_empty() && settings.is_empty() && other.is_empty() {
            other.push("only what the tables say about themselves: content id, version".into());
        }
        Self { services, settings, other, summary: plan.summary.clone() }
    }

    /// Whether loading would change nothing.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

/// Tables that come and go.
fn tables(loaded: &Loaded, wanted: &Ruleset) -> Vec<String> {
    let old: BTreeSet<_> = loaded.tables.iter().map(|t| t.family).collect();
    let new: BTreeSet<_> = wanted.tables.iter().map(|t| t.family).collect();
    let added = new.difference(&old).map(|f| format!("table {} natlet is created", f.name()));
    let removed = old.difference(&new).map(|f| format!("table {} natlet is removed", f.name()));
    added.chain(removed).collect()
}

fn settings(old: &Meaning, new: &Meaning) -> Vec<SettingChange> {
    let none = BTreeSet::new();
    let flags: BTreeSet<&'static str> = old.settings.keys().chain(new.settings.keys()).copied().collect();
    let change = |setting: &'static str| {
        let (old, new) = (old.settings.get(setting).unwrap_or(&none), new.settings.get(setting).unwrap_or(&none));
        let (added, removed) = (new.difference(old).cloned().collect(), old.difference(new).cloned().collect());
        SettingChange { setting, added, removed }
    };
    flags.into_iter().map(change).filter(|c| !c.added.is_empty() || !c.removed.is_empty()).collect()
}

#[cfg(test)]
mod tests;
