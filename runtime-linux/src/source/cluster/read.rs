//! Answers of an API server: pages of lists, and events of watches.

use super::super::Report;
use super::super::diagnostic::{Sink, SourceFile};
use super::super::document::{Entry, Node, Value, Walker};
use super::super::manifest::node::RawNode;
use super::super::manifest::service::RawService;
use super::super::manifest::slice::RawSlice;
use super::super::manifest::{node, service, slice};
use super::super::tree::Consumer;
use super::super::{Diagnostic, json};
use super::{Held, Kind, sentence};
use natlet_core::table::Cidr;
use std::sync::Arc;
use std::time::SystemTime;

/// What a table needs of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Raw {
    Service(Box<RawService>),
    Slice(RawSlice),
    /// A Node and its pod CIDRs.
    Node(Box<RawNode>, Vec<Cidr>),
    ServiceCidr(Vec<Cidr>),
}

/// An object of an answer.
#[derive(Debug)]
pub struct Object {
    key: String,
    /// Its resource version.
    pub version: String,
    created: Option<SystemTime>,
    /// When that happened which the endpoints controller answered with this slice.
    pub triggered: Option<SystemTime>,
    /// What was not understood, one sentence each.
    pub remarks: Vec<String>,
    raw: Option<Raw>,
}

impl Object {
    pub(super) fn into_held(self) -> (String, Held) {
        (self.key, Held { version: self.version.parse().ok(), created: self.created, raw: self.raw })
    }
}

/// A page of a list.
#[derive(Debug)]
pub struct Page {
    /// The resource version of the whole list.
    pub version: String,
    /// What to ask for next; `None` on the last page.
    pub next: Option<String>,
    /// Its objects.
    pub objects: Vec<Object>,
}

/// An event of a watch.
#[derive(Debug)]
pub enum Event {
    /// An object was added or changed.
    Set(Object),
    /// An object was removed.
    Removed(Object),
    /// Everything up to this resource version was told.
    Bookmark(String),
    /// The watch failed, with this status of HTTP and words.
    Failed(u16, String),
}

/// Reads answers about one kind of object.
#[derive(Debug)]
pub struct Reader {
    kind: Kind,
    /// Stands in for the file that places of a diagnostic are in: objects that are kept share it, without a text.
    file: Arc<SourceFile>,
}

impl Reader {
    /// For this kind.
    pub fn new(kind: Kind) -> Self {
        Self { kind, file: Arc::new(SourceFile::new("the API server", "")) }
    }

    /// A page of a list; `None` if the text is none.
    pub fn page(&self, text: &str) -> Option<Page> {
        with_document(text, |page| self.page_of(page))
    }

    fn page_of(&self, page: &Node<'_>) -> Option<Page> {
        // what answers `{}` is no API server: it must not count as an empty list
        let listed = page.get("kind")?.as_text()?.strip_suffix("List")?;
        let metadata = page.get("metadata")?;
        let version = metadata.get("resourceVersion")?.as_text()?.to_owned();
        if listed != self.kind.name() {
            return None;
        }
        let next = metadata.get("continue").and_then(Node::as_text).filter(|t| !t.is_empty()).map(str::to_owned);
        let mut sink = Sink::default();
        let mut walker = Walker { file: &self.file, sink: &mut sink, quoted_text: false };
        let items = walker.seq_at(page, "items");
        let objects = items.iter().map(|item| self.object(item)).collect::<Option<_>>()?;
        sink.problems.is_empty().then_some(Page { version, next, objects })
    }

    /// An event of a watch; `None` if the text is none.
    pub fn event(&self, text: &str) -> Option<Event> {
        with_document(text, |event| self.event_of(event))
    }

    fn event_of(&self, event: &Node<'_>) -> Option<Event> {
        let object = event.get("object")?;
        Some(match event.get("type")?.as_text()? {
            "ADDED" | "MODIFIED" => Event::Set(self.object(object)?),
            "DELETED" => Event::Removed(self.object(object)?),
            "BOOKMARK" => Event::Bookmark(object.at(&["metadata", "resourceVersion"])?.as_text()?.to_owned()),
            "ERROR" => {
                let code = object.get("code").and_then(Node::as_text).and_then(|code| code.parse().ok());
                let words = object.get("message").and_then(Node::as_text).unwrap_or_default();
                Event::Failed(code.unwrap_or(500), words.to_owned())
            }
            _ => return None,
        })
    }

    /// An object; `None` without a name and a resource version, which every object has.
    fn object(&self, node: &Node<'_>) -> Option<Object> {
        let metadata = node.get("metadata")?;
        let text = |key| metadata.get(key).and_then(Node::as_text);
        let time = |node: Option<&Node<'_>>| humantime::parse_rfc3339(node?.as_text()?).ok();
        let (name, version) = (text("name")?, text("resourceVersion")?.to_owned());
        let key = format!("{}/{name}", text("namespace").unwrap_or_default());
        let created = time(metadata.get("creationTimestamp"));
        let triggered = time(metadata.at(&["annotations", "endpoints.kubernetes.io/last-change-trigger-time"]));
        let mut sink = Sink::default();
        let raw = self.raw(node, &mut sink);
        let named = |d: &Diagnostic| format!("{} {key}: {}", self.kind.name(), sentence(d));
        // warnings are about what people write by hand; the API server's own checks and defaults settle these
        let remarks: Vec<String> = sink.problems.iter().map(named).collect();
        let whole = remarks.is_empty() || self.kind != Kind::Service;
        Some(Object { version, created, triggered, raw: raw.filter(|_| whole), remarks, key })
    }

    fn raw(&self, node: &Node<'_>, sink: &mut Sink) -> Option<Raw> {
        let mut walker = Walker { file: &self.file, sink, quoted_text: false };
        let mut ignored = Report::default();
        match self.kind {
            Kind::Service => {
                service::read(node, &mut walker, &mut ignored).map(|service| Raw::Service(Box::new(service)))
            }
            Kind::EndpointSlice => slice::read(node, &mut walker, &mut ignored).map(Raw::Slice),
            Kind::Node => {
                let pods = cidrs(node, "podCIDRs", &mut walker);
                node::read(node, &mut walker).map(|node| Raw::Node(Box::new(node), pods))
            }
            Kind::ServiceCidr => Some(Raw::ServiceCidr(cidrs(node, "cidrs", &mut walker))),
        }
    }
}

/// The prefixes of a list in `spec`.
fn cidrs(node: &Node<'_>, key: &str, walker: &mut Walker<'_>) -> Vec<Cidr> {
    let Some(spec) = walker.map_at(node, "spec") else { return Vec::new() };
    let items = walker.seq_at(spec, key);
    items.iter().filter_map(|item| walker.cidr(item, key)).collect()
}

/// What `read` makes of a text that is one JSON document; `None` if it is not, or if that is nothing.
fn with_document<T>(text: &str, read: impl FnOnce(&Node<'_>) -> Option<T>) -> Option<T> {
    let mut answer = Answer { read: Some(read), result: None, more: false };
    json::read(text, &mut answer).ok()?;
    answer.result.filter(|_| !answer.more)
}

struct Answer<F, T> {
    read: Option<F>,
    result: Option<T>,
    /// Something follows the document.
    more: bool,
}

impl<T, F: FnOnce(&Node<'_>) -> Option<T>> Consumer for Answer<F, T> {
    fn item<'t>(&mut self, _: &[Entry<'t>], item: Node<'t>) -> Option<Node<'t>> {
        Some(item) // pages are small, and what kind their items are may follow behind them
    }

    fn document(&mut self, mut document: Node<'_>) {
        forget_places(&mut document);
        match self.read.take() {
            Some(read) => self.result = read(&document),
            None => self.more = true,
        }
    }
}

/// What is kept of an answer has no text that a place could be in.
fn forget_places(node: &mut Node<'_>) {
    node.span = (0, 0);
    match &mut node.value {
        Value::Scalar { .. } => {}
        Value::Seq(items) => items.iter_mut().for_each(forget_places),
        Value::Map(entries) => {
            for entry in entries {
                entry.key_span = (0, 0);
                forget_places(&mut entry.value);
            }
        }
    }
}
