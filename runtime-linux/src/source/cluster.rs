//! What an API server holds, object by object: Services, EndpointSlices, this Node and the service CIDRs.
//!
//! An object is read when it arrives, by the readers of [manifests](super::manifest), and only what a table needs of it is
//! kept. [`Cluster::table`] joins what is there as manifests are joined. What differs from files is who is at fault: a file
//! is this node's administrator's, who is told and waited for; an object may be anybody's in the cluster, so what cannot be
//! used is left out with a remark and the rest goes on:
//!
//! - A Service that is not understood in full is left out whole: half of it might be open where it should be closed. Of a
//!   slice only the faulty endpoints are.
//! - A frontend that two Services claim goes to the one with the better right to it, the same on every node
//!   ([`claims`]).

mod claims;
mod read;

pub use read::{Event, Object, Page, Reader};

use super::diagnostic::Sink;
use super::manifest::View;
use super::manifest::join::join;
use super::this_node::ThisNode;
use super::{Diagnostic, NodeBuf, NodeFlags, TableBuf, table_buf};
use natlet_core::table::Cidr;
use read::Raw;
use std::collections::HashMap;
use std::time::SystemTime;

/// A kind of object that a table is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Node, this one alone.
    Node,
    /// `networking.k8s.io/v1` ServiceCIDR, which servers before 1.33 lack.
    ServiceCidr,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Service, Self::EndpointSlice, Self::Node, Self::ServiceCidr];

    /// As the API server calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node => "Node",
            Self::ServiceCidr => "ServiceCIDR",
        }
    }
}

/// How pods are told from other sources; kube-proxy's `--detect-local-mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pods {
    /// Sources in the cluster CIDRs, where those are known; pods of other nodes count too.
    #[default]
    ClusterCidr,
    /// Sources in `spec.podCIDRs` of this Node.
    NodeCidr,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Something that a table needs is different now.
    Changed,
    /// Nothing that matters is new: a repetition, an older state, or a field that no table needs.
    Known,
    /// It is older than what was heard of others, and of an object that is not there: whether it was removed since
    /// cannot be told.
    Doubtful,
}

/// Why there is no table yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotYet {
    /// The first list of this kind is not complete.
    #[error("the first list of {} objects is not complete", .0.name())]
    List(Kind),
    /// Pods are to be told by the node's CIDRs, and it has none.
    #[error("this Node has no spec.podCIDRs yet, by which its pods are to be told")]
    PodCidrs,
}

/// An object, or what is known of one that has no part in a table.
#[derive(Debug)]
struct Held {
    /// Its resource version, where that is a number.
    version: Option<u64>,
    created: Option<SystemTime>,
    raw: Option<Raw>,
}

/// The objects of one kind, by `namespace/name`.
#[derive(Debug, Default)]
struct Shelf {
    held: HashMap<String, Held>,
    /// The newest resource version that was heard of.
    newest: u64,
    complete: bool,
}

/// A list on its way in.
#[derive(Debug, Default)]
pub struct List(Shelf);

impl List {
    /// Adds the objects of a page.
    pub fn add(&mut self, objects: Vec<Object>) {
        self.0.held.extend(objects.into_iter().map(Object::into_held));
    }
}

/// Everything that is known of the cluster.
#[derive(Debug, Default)]
pub struct Cluster {
    shelves: [Shelf; Kind::ALL.len()],
}

impl Cluster {
    /// Puts a complete list, or none where the server has no such kind, in the place of all that was known.
    pub fn replace(&mut self, kind: Kind, list: List, version: &str) {
        let newest = version.parse().unwrap_or(0);
        *self.shelf_mut(kind) = Shelf { newest, complete: true, ..list.0 };
    }

    /// An object was added or changed.
    pub fn set(&mut self, kind: Kind, object: Object) -> Taken {
        let shelf = self.shelf_mut(kind);
        let (key, new) = object.into_held();
        let old = shelf.held.get(&key);
        // Versions of one kind are ordered numbers (KEP-5504); one that is none says nothing about order.
        if let Some(version) = new.version {
            match old {
                Some(old) if old.version.is_some_and(|known| version <= known) => return Taken::Known,
                None if version <= shelf.newest => return Taken::Doubtful,
                _ => shelf.newest = shelf.newest.max(version),
            }
        }
        let changed = old.and_then(|old| old.raw.as_ref()) != new.raw.as_ref();
        shelf.held.insert(key, new);
        if changed { Taken::Changed } else { Taken::Known }
    }

    /// An object was removed.
    pub fn remove(&mut self, kind: Kind, object: Object) -> Taken {
        let shelf = self.shelf_mut(kind);
        let (key, last) = object.into_held();
        let Some(old) = shelf.held.get(&key) else { return Taken::Known };
        if last.version.zip(old.version).is_some_and(|(removed, known)| removed < known) {
            return Taken::Known; // of an earlier one with this name
        }
        shelf.newest = shelf.newest.max(last.version.unwrap_or(0));
        match shelf.held.remove(&key) {
            Some(Held { raw: Some(_), .. }) => Taken::Changed,
            _ => Taken::Known,
        }
    }

    /// The table as seen from a node, with a remark on each thing that was left out.
    ///
    /// # Errors
    /// Something that a table needs was not heard yet.
    pub fn table(&self, flags: &NodeFlags, pods: Pods) -> Result<(TableBuf, Vec<String>), NotYet> {
        if let Some(kind) = Kind::ALL.into_iter().find(|kind| !self.shelf(*kind).complete) {
            return Err(NotYet::List(kind));
        }
        let mut sink = Sink::default();
        let mut view = View::default();
        let (mut service_cidrs, mut pod_cidrs): (Vec<Cidr>, Vec<Cidr>) = (Vec::new(), Vec::new());
        for raw in self.shelves.iter().flat_map(|shelf| shelf.held.values()).filter_map(|held| held.raw.as_ref()) {
            match raw {
                Raw::Service(service) => view.services.push(service),
                Raw::Slice(slice) => view.slices.push(slice),
                Raw::Node(node, cidrs) => {
                    view.nodes.push(node);
                    pod_cidrs.extend(cidrs);
                }
                Raw::ServiceCidr(cidrs) => service_cidrs.extend(cidrs),
            }
        }
        let mut remarks = Vec::new();
        if let (Some(name), []) = (&flags.node_name, &view.nodes[..]) {
            remarks
                .push(format!("the API server has no Node {name}: its addresses and zone are unknown (--node-name)"));
        }
        let node = ThisNode::new(flags, NodeBuf::default(), &view.nodes, &mut sink);
        let mut drafts = join(&view, node.here(), &mut sink);
        remarks.extend(claims::settle(&mut drafts, |name| self.created(name)));
        let mut node = node.into_buf();
        if node.service_cidrs.is_empty() {
            service_cidrs.sort_unstable_by_key(|cidr| (cidr.address, cidr.prefix));
            service_cidrs.dedup();
            node.service_cidrs = service_cidrs;
        }
        if pods == Pods::NodeCidr {
            if pod_cidrs.is_empty() {
                return Err(NotYet::PodCidrs);
            }
            node.cluster_cidrs = pod_cidrs;
        }
        let table = table_buf::assemble(drafts, node, &mut sink);
        remarks.extend(sink.warnings.iter().chain(&sink.problems).map(sentence));
        Ok((table, remarks))
    }

    /// When the Service of this `namespace/name` was made.
    fn created(&self, name: &str) -> Option<SystemTime> {
        self.shelf(Kind::Service).held.get(name)?.created
    }

    fn shelf(&self, kind: Kind) -> &Shelf {
        &self.shelves[kind as usize]
    }

    fn shelf_mut(&mut self, kind: Kind) -> &mut Shelf {
        &mut self.shelves[kind as usize]
    }
}

/// A diagnostic in a line: an object of the API server has no lines to point at.
fn sentence(diagnostic: &Diagnostic) -> String {
    match diagnostic.way_out() {
        "" => diagnostic.title().to_owned(),
        help => format!("{}; {help}", diagnostic.title()),
    }
}

#[cfg(test)]
mod tests;
