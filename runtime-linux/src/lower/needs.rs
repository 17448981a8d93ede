//! How many frontends need each kind of rule: counted, so that after a change what is needed follows from what changed.

use super::Select;
use super::lists::List;
use super::route::{Masquerade, Route};
use natlet_core::{FrontendKind, Program, ProgramFrontend, Protocol};
use std::collections::{BTreeMap, BTreeSet};

/// What the frontends of a program need, by family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs([FamilyNeeds; 2]);

/// What the frontends of a family need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FamilyNeeds {
    /// Chains that draw an endpoint.
    selects: BTreeMap<Select, u32>,
    /// Sets that some rule looks into, and the protocols of the frontends in them.
    places: BTreeMap<(Place, u8), u32>,
}

/// A set, or two that go together, or a chain, that exists where some frontend is in it or is sent there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    NodePorts,
    LocalServices,
    LocalNodePorts,
    Restricted,
    PassedOver,
    /// `local`: the frontend's policy is Local.
    Masquerade {
        node_port: bool,
        local: bool,
    },
}

impl Needs {
    /// Of all of a program's frontends.
    pub fn of_program(program: &Program<'_>) -> Self {
        let mut needs = Self::default();
        program.frontends().for_each(|f| needs.add(&f, &Route::of(&f)));
        needs
    }

    /// Of another program, whose frontends are the same but that these are gone and those are new.
    #[must_use]
    pub(super) fn after<'p>(
        &self,
        gone: impl Iterator<Item = &'p ProgramFrontend<'p>>,
        new: impl Iterator<Item = &'p ProgramFrontend<'p>>,
    ) -> Self {
        let mut needs = self.clone();
        gone.for_each(|f| needs.count(f, &Route::of(f), |n| *n = n.saturating_sub(1)));
        new.for_each(|f| needs.add(f, &Route::of(f)));
        for family in &mut needs.0 {
            family.selects.retain(|_, n| *n > 0);
            family.places.retain(|_, n| *n > 0);
        }
        needs
    }

    pub(super) fn of(&self, v6: bool) -> &FamilyNeeds {
        &self.0[usize::from(v6)]
    }

    /// Whether some frontend remembers its clients.
    pub(super) fn has_affinity(&self) -> bool {
        self.0.iter().any(|family| family.selects.keys().any(|select| select.affinity.is_some()))
    }

    pub(super) fn add(&mut self, f: &ProgramFrontend<'_>, route: &Route<'_>) {
        self.count(f, route, |n| *n += 1);
    }

    fn count(&mut self, f: &ProgramFrontend<'_>, route: &Route<'_>, step: impl Fn(&mut u32)) {
        let family = &mut self.0[usize::from(f.address.is_ipv6())];
        for select in [Some(&route.main), route.outside.as_ref()].into_iter().flatten().filter_map(List::select) {
            step(family.selects.entry(select).or_default());
        }
        let node_port = f.kind == FrontendKind::NodePort;
        let outside = if node_port { Place::LocalNodePorts } else { Place::LocalServices };
        let restricted = f.kind == FrontendKind::LoadBalancer && f.record.source_ranges().is_some();
        let passed_over = matches!(route.main, List::PassOver);
        let masquerade = |local| Place::Masquerade { node_port, local };
        let places = [
            node_port.then_some(Place::NodePorts),
            route.outside.is_some().then_some(outside),
            restricted.then_some(Place::Restricted),
            passed_over.then_some(Place::PassedOver),
            match route.masquerade {
                Masquerade::AsClusterIp => None,
                // whom a NodePort translates in its place is masqueraded as that says
                _ if passed_over => None,
                Masquerade::Always => Some(masquerade(false)),
                Masquerade::FromNode => Some(masquerade(true)),
            },
        ];
        for place in places.into_iter().flatten() {
            step(family.places.entry((place, f.protocol.number())).or_default());
        }
    }
}

impl FamilyNeeds {
    pub(super) fn selects(&self) -> BTreeSet<Select> {
        self.selects.keys().copied().collect()
    }

    pub(super) fn has(&self, place: Place) -> bool {
        self.places.keys().any(|(p, _)| *p == place)
    }

    /// Protocols of the frontends in a place.
    pub(super) fn protocols(&self, place: Place) -> BTreeSet<Protocol> {
        let in_place = |protocol: &Protocol| self.places.contains_key(&(place, protocol.number()));
        Protocol::ALL.into_iter().filter(in_place).collect()
    }
}
