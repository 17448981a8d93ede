//! Which lists a frontend's connections draw from, and when they are masqueraded.

use super::lists::List;
use natlet_core::{FrontendKind, Policy, ProgramFrontend};

/// Where a frontend's connections go.
pub(super) struct Route<'a> {
    /// The list of everybody, or of everybody who is not from outside.
    pub main: List<'a>,
    /// It is the record's Local list.
    pub main_is_local: bool,
    /// The list for sources outside, where there is one of its own.
    pub outside: Option<List<'a>>,
    pub masquerade: Masquerade,
}

/// Which connections of a frontend are masqueraded by its kind and policy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Masquerade {
    AsClusterIp,
    Always,
    FromNode,
}

impl<'a> Route<'a> {
    pub(super) fn of(f: &ProgramFrontend<'a>) -> Self {
        let record = &f.record;
        let (external, node_port) = (f.kind.is_external(), f.kind == FrontendKind::NodePort);
        let policy = if external { record.external_policy() } else { record.internal_policy() };
        // ClusterIPs look at one list only; external frontends under policy Local at both, by class of source
        let main_is_local = !external && policy == Policy::Local;
        let main = if main_is_local { record.local() } else { record.cluster() };
        let passed_over = f.is_passed_over() && !node_port;
        let main = if passed_over { List::PassOver } else { List::of(record, main, node_port, false) };
        let outside = external && policy == Policy::Local && record.any_usable();
        Self {
            main,
            main_is_local,
            outside: outside.then(|| List::of(record, record.local(), node_port, true)),
            masquerade: match (f.kind, policy) {
                (FrontendKind::ClusterIp, _) => Masquerade::AsClusterIp,
                (_, Policy::Cluster) => Masquerade::Always,
                (_, Policy::Local) => Masquerade::FromNode,
            },
        }
    }
}
