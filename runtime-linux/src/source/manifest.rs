//! Kubernetes manifests: Service, EndpointSlice, Node and Ingress, and lists of them.
//!
//! What `kubectl get services,endpointslices,nodes,ingresses -A -o yaml` prints is read as it is; so are manifests written
//! by hand, with the API server's defaults filled in. Other kinds are skipped and counted. An object is read into a raw
//! form first, since the parts of one service may lie in several files; these are then joined to service ports.
//!
//! Some annotations are natlet's own:
//!
//! | on | annotation | means |
//! | --- | --- | --- |
//! | Service | `natlet.dev/hosts: "https/tcp=www.example.com"` | hosts that ride on a port (its name, protocol), comma-separated; beside those of Ingress objects |
//! | Service | `natlet.dev/choice: source-hash` | the same client address gets the same endpoint (`random`: the default) |
//! | EndpointSlice | `natlet.dev/weights: "10.0.0.1=3,10.0.0.2=1"` | shares of new connections by endpoint address; 1 where none is given |
//! | Node | `natlet.dev/cluster-cidrs` and others | see [`natlet export`](crate::export::manifest): settings of the node that are flags elsewhere |

pub(super) mod ingress;
pub(super) mod join;
pub(super) mod node;
pub(super) mod service;
pub(super) mod slice;

use super::diagnostic::{Place, Sink, SourceFile};
use super::document::{Entry, Node, Walker};
use super::tree::Consumer;
use super::{Report, json, yaml};
use natlet_core::table::Protocol;
use std::sync::Arc;

/// What was found in all manifests.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub services: Vec<service::RawService>,
    pub slices: Vec<slice::RawSlice>,
    pub nodes: Vec<node::RawNode>,
    pub ingresses: Vec<ingress::RawIngress>,
}

impl Objects {
    /// All of them, borrowed.
    pub fn view(&self) -> View<'_> {
        View {
            services: self.services.iter().collect(),
            slices: self.slices.iter().collect(),
            nodes: self.nodes.iter().collect(),
            ingresses: self.ingresses.iter().collect(),
        }
    }
}

/// Objects to be joined, wherever they are kept.
#[derive(Debug, Default)]
pub(super) struct View<'a> {
    pub services: Vec<&'a service::RawService>,
    pub slices: Vec<&'a slice::RawSlice>,
    pub nodes: Vec<&'a node::RawNode>,
    pub ingresses: Vec<&'a ingress::RawIngress>,
}

/// Who an object is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub namespace: String,
    pub name: String,
    pub place: Place,
}

/// Service and slice ports name their protocol alike.
const PROTOCOLS: [(&str, Protocol); 3] = [("TCP", Protocol::Tcp), ("UDP", Protocol::Udp), ("SCTP", Protocol::Sctp)];

/// The kinds that are read, with the `apiVersion` they are read in.
const KINDS: [(&str, &str); 4] =
    [("v1", "Service"), ("discovery.k8s.io/v1", "EndpointSlice"), ("v1", "Node"), ("networking.k8s.io/v1", "Ingress")];

/// Reads a file into `objects`.
pub(super) fn read(file: &Arc<SourceFile>, sink: &mut Sink, objects: &mut Objects, report: &mut Report) {
    let text = file.text();
    let mut reader = Reader { walker: Walker { file, sink, quoted_text: false }, objects, report, list: None };
    let before = reader.mark();
    if json::looks_like(text) && json::read(text, &mut reader).is_ok() {
        return;
    }
    reader.back_to(&before);
    let complaints = yaml::read(file, &mut reader);
    reader.undo_open_list();
    // what the text itself is at fault of comes before what its objects lack
    let [first, _] = before.diagnostics;
    reader.walker.sink.problems.splice(first..first, complaints);
}

/// Takes objects from their trees.
pub(super) struct Reader<'a> {
    walker: Walker<'a>,
    objects: &'a mut Objects,
    report: &'a mut Report,
    /// How far it was when the first item of the present document came, if one has come.
    list: Option<Mark>,
}

/// How far a reader was, to undo what it has read since.
struct Mark {
    objects: [usize; 4],
    diagnostics: [usize; 2],
    report: Report,
}

impl Reader<'_> {
    fn mark(&self) -> Mark {
        let Objects { services, slices, nodes, ingresses } = &*self.objects;
        Mark {
            objects: [services.len(), slices.len(), nodes.len(), ingresses.len()],
            diagnostics: [self.walker.sink.problems.len(), self.walker.sink.warnings.len()],
            report: self.report.clone(),
        }
    }

    fn back_to(&mut self, mark: &Mark) {
        let [services, slices, nodes, ingresses] = mark.objects;
        self.objects.services.truncate(services);
        self.objects.slices.truncate(slices);
        self.objects.nodes.truncate(nodes);
        self.objects.ingresses.truncate(ingresses);
        let [problems, warnings] = mark.diagnostics;
        self.walker.sink.problems.truncate(problems);
        self.walker.sink.warnings.truncate(warnings);
        self.report.clone_from(&mark.report);
        self.list = None;
    }

    /// Undoes the items of a document that was cut off.
    fn undo_open_list(&mut self) {
        if let Some(mark) = self.list.take() {
            self.back_to(&mark);
        }
    }
}

impl Consumer for Reader<'_> {
    /// An item is taken if it says itself what it is, or the list has said it already. Whether the document is a list may
    /// follow behind its items (`kubectl` sorts keys): if it turns out to be none, what was taken is undone.
    fn item<'t>(&mut self, before: &[Entry<'t>], item: Node<'t>) -> Option<Node<'t>> {
        let said = |key: &str| before.iter().find(|entry| entry.key == key).and_then(|entry| entry.value.as_text());
        let (version, kind) = (said("apiVersion"), said("kind"));
        let of_typed_list = version.zip(kind).and_then(|(version, kind)| item_kind(version, kind));
        let itself = item.get("apiVersion").and(item.get("kind")).is_some();
        if !itself && of_typed_list.is_none() {
            return Some(item);
        }
        if self.list.is_none() {
            self.list = Some(self.mark());
        }
        object(&item, of_typed_list, &mut self.walker, self.objects, self.report);
        None
    }

    fn document(&mut self, document: Node<'_>) {
        let text = |key| document.get(key).and_then(Node::as_text);
        let is_list = text("apiVersion")
            .zip(text("kind"))
            .is_some_and(|(version, kind)| is_list(version, kind) || item_kind(version, kind).is_some());
        match self.list.take() {
            Some(mark) if !is_list => self.back_to(&mark),
            _ => {}
        }
        if !document.is_null() {
            object(&document, None, &mut self.walker, self.objects, self.report);
        }
    }
}

fn is_list(version: &str, kind: &str) -> bool {
    version == "v1" && kind == "List"
}

/// What the items of a typed list, such as a `ServiceList`, are.
fn item_kind(version: &str, kind: &str) -> Option<(&'static str, &'static str)> {
    KINDS.into_iter().find(|(v, k)| *v == version && kind.strip_suffix("List") == Some(*k))
}

/// Reads one object, or each item of a list. `inherited` is the version and kind of the items of a typed list, which may
/// leave them out.
fn object(
    node: &Node<'_>,
    inherited: Option<(&str, &str)>,
    walker: &mut Walker<'_>,
    objects: &mut Objects,
    report: &mut Report,
) {
    let Some(node) = walker.map(node, "an object") else { return };
    let own = |key| node.get(key).and_then(Node::as_text);
    let (Some(version), Some(kind)) =
        (own("apiVersion").or(inherited.map(|i| i.0)), own("kind").or(inherited.map(|i| i.1)))
    else {
        walker.problem(
            node.span,
            "a document without apiVersion and kind is no Kubernetes object",
            "",
            "add apiVersion and kind, or write natlet's own table in TOML ([[service]])",
        );
        return;
    };
    if is_list(version, kind) {
        for item in walker.seq_at(node, "items") {
            object(item, None, walker, objects, report);
        }
        return;
    }
    if let Some(kind) = item_kind(version, kind) {
        for item in walker.seq_at(node, "items") {
            object(item, Some(kind), walker, objects, report);
        }
        return;
    }
    match (version, kind) {
        ("v1", "Service") => objects.services.extend(service::read(node, walker, report)),
        ("discovery.k8s.io/v1", "EndpointSlice") => objects.slices.extend(slice::read(node, walker, report)),
        ("v1", "Node") => objects.nodes.extend(node::read(node, walker)),
        ("networking.k8s.io/v1", "Ingress") => objects.ingresses.extend(ingress::read(node, walker)),
        _ => {
            let core = KINDS.iter().any(|(_, k)| *k == kind);
            let shown = if core { format!("{version} {kind}") } else { kind.to_owned() };
            *report.skipped.entry(shown).or_default() += 1;
            return;
        }
    }
    *report.objects.entry(kind.to_owned()).or_default() += 1;
}

/// Namespace and name of an object; the namespace is `default` where none is given.
fn meta(node: &Node<'_>, kind: &str, walker: &mut Walker<'_>) -> Option<Meta> {
    let Some(metadata) = node.get("metadata") else {
        walker.problem(node.span, format!("{kind} has no metadata"), "", "add metadata with a name");
        return None;
    };
    let metadata = walker.map(metadata, "metadata")?;
    let name = walker.required_text(metadata, "name", kind)?.to_owned();
    let namespace = walker.text_at(metadata, "namespace").filter(|n| !n.is_empty()).unwrap_or("default").to_owned();
    let place = metadata.get("name").map_or(metadata.span, |name| name.span);
    Some(Meta { namespace, name, place: walker.place(place) })
}

/// The text of a label; absent and null are the same.
fn label<'n>(node: &'n Node<'n>, name: &str) -> Option<&'n str> {
    node.at(&["metadata", "labels"])?.get(name)?.as_text()
}

/// The node of an annotation.
fn annotation<'n>(node: &'n Node<'n>, name: &str) -> Option<&'n Node<'n>> {
    node.at(&["metadata", "annotations"])?.get(name)
}

#[cfg(test)]
mod tests;
