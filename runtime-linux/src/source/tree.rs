//! From a parser's events to trees, one object at a time.
//!
//! A cluster's services are one list of tens of megabytes, whose tree would take many times that. So each item of a list
//! goes to the [`Consumer`] as soon as it is whole, and its tree is dropped.

use super::document::{Entry, MAX_DEPTH, Node, Value};
use std::borrow::Cow;
use std::collections::HashMap;

/// Byte offsets in a file.
pub(super) type Bytes = (u32, u32);

/// Who takes the trees.
pub(super) trait Consumer {
    /// An item of the list `items` of a document, and the document's entries so far. Returned where it cannot be used before
    /// the document is whole; it is then in the document's tree.
    fn item<'t>(&mut self, before: &[Entry<'t>], item: Node<'t>) -> Option<Node<'t>>;

    /// A whole document, without the items that were taken.
    fn document(&mut self, document: Node<'_>);
}

/// What a tree cannot hold.
#[derive(Debug)]
pub(super) enum Fault {
    /// A list or map starts below [`MAX_DEPTH`] others.
    TooDeep(Bytes),
    /// A key is a list or a map.
    KeyNotText(Bytes),
    /// A key stands twice in its map. Building can go on.
    KeyTwice { key: String, again: Bytes, first: Bytes },
}

/// Builds trees. Keys of a map are given as scalars, each before its value.
pub(super) struct Builder<'t, 'c, C> {
    open: Vec<Open<'t>>,
    consumer: &'c mut C,
}

/// A list or map that is not closed yet.
struct Open<'t> {
    node: Node<'t>,
    /// A map's key that waits for its value.
    key: Option<(Cow<'t, str>, Bytes)>,
    /// Where each key of a large map stands.
    keys: HashMap<Cow<'t, str>, Bytes>,
}

/// The kinds of nodes that hold others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Collection {
    Seq,
    Map,
}

/// Below this many keys, comparing with each is faster than hashing.
pub(super) const FEW_KEYS: usize = 16;

impl<'t, 'c, C: Consumer> Builder<'t, 'c, C> {
    pub fn new(consumer: &'c mut C) -> Self {
        Self { open: Vec::new(), consumer }
    }

    /// How many lists and maps are open.
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    /// A list or map starts.
    pub fn start(&mut self, collection: Collection, at: Bytes) -> Result<(), Fault> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Fault::TooDeep(at));
        }
        let value = match collection {
            Collection::Seq => Value::Seq(Vec::new()),
            Collection::Map => Value::Map(Vec::new()),
        };
        self.open.push(Open { node: Node { value, span: at }, key: None, keys: HashMap::new() });
        Ok(())
    }

    /// The innermost list or map ends at a byte.
    pub fn end(&mut self, at: u32) -> Result<(), Fault> {
        match self.close(at) {
            Some(node) => self.node(node),
            None => Ok(()),
        }
    }

    /// As [`end`](Self::end), the node given out: it is still to be handed to [`node`](Self::node).
    pub fn close(&mut self, at: u32) -> Option<Node<'t>> {
        let mut node = self.open.pop()?.node;
        node.span.1 = at.max(node.span.0);
        Some(node)
    }

    /// Text, a number, a truth value or null.
    pub fn scalar(&mut self, text: Cow<'t, str>, quoted: bool, span: Bytes) -> Result<(), Fault> {
        self.node(Node { value: Value::Scalar { text, quoted }, span })
    }

    /// Puts a complete node where it belongs.
    pub fn node(&mut self, node: Node<'t>) -> Result<(), Fault> {
        let Some(open) = self.open.last_mut() else {
            self.consumer.document(node);
            return Ok(());
        };
        match &mut open.node.value {
            Value::Scalar { .. } => Ok(()),
            Value::Map(entries) => match open.key.take() {
                Some((key, key_span)) => {
                    entries.push(Entry { key, key_span, value: node });
                    Ok(())
                }
                None => open.key(node),
            },
            Value::Seq(_) => {
                if let Some(node) = self.offer(node)
                    && let Some(Open { node: Node { value: Value::Seq(items), .. }, .. }) = self.open.last_mut()
                {
                    items.push(node);
                }
                Ok(())
            }
        }
    }

    /// Offers an item of the innermost list to the consumer, if that list is a document's `items`, and unless an item before
    /// it was not taken: items keep their order.
    fn offer(&mut self, item: Node<'t>) -> Option<Node<'t>> {
        let [Open { node: Node { value: Value::Map(before), .. }, key: Some((key, _)), .. }, list] = &self.open[..]
        else {
            return Some(item);
        };
        let kept = matches!(&list.node.value, Value::Seq(items) if !items.is_empty());
        let again = before.iter().any(|entry| entry.key == "items");
        if key != "items" || kept || again { Some(item) } else { self.consumer.item(before, item) }
    }
}

impl<'t> Open<'t> {
    /// A key of this map. One that it has already is a fault, and waits for its value all the same.
    fn key(&mut self, node: Node<'t>) -> Result<(), Fault> {
        let span = node.span;
        let Value::Scalar { text, .. } = node.value else { return Err(Fault::KeyNotText(span)) };
        let first = self.place_of(text.clone(), span);
        let fault = first.map(|first| Fault::KeyTwice { key: text.clone().into_owned(), again: span, first });
        self.key = Some((text, span));
        fault.map_or(Ok(()), Err)
    }

    /// Where the map has this key already; if it has not, it is remembered to stand at `span`.
    fn place_of(&mut self, key: Cow<'t, str>, span: Bytes) -> Option<Bytes> {
        let Value::Map(entries) = &self.node.value else { return None };
        if entries.len() < FEW_KEYS {
            return entries.iter().find(|entry| entry.key == key).map(|entry| entry.key_span);
        }
        if self.keys.is_empty() {
            self.keys.extend(entries.iter().map(|entry| (entry.key.clone(), entry.key_span)));
        }
        self.keys.insert(key, span)
    }
}

/// A consumer for tests of the parsers.
#[cfg(test)]
pub(super) mod collect {
    use super::*;

    /// All documents, whole.
    #[derive(Default)]
    pub struct Documents(pub Vec<Node<'static>>);

    impl Consumer for Documents {
        fn item<'t>(&mut self, _: &[Entry<'t>], item: Node<'t>) -> Option<Node<'t>> {
            Some(item)
        }

        fn document(&mut self, document: Node<'_>) {
            self.0.push(owned(document));
        }
    }

    impl Documents {
        /// All of them with their places in `text`, as short as can be. A place ends before blanks: the YAML parser counts
        /// a line break behind a value into it.
        pub fn show(&self, text: &str) -> String {
            self.0.iter().map(|node| show(node, text)).collect::<Vec<_>>().join("\n")
        }
    }

    fn show(node: &Node<'_>, text: &str) -> String {
        let place = |span: Bytes| {
            let covered = text.get(span.0 as usize..span.1 as usize).expect("a place in the text");
            format!("{}-{}", span.0, span.0 as usize + covered.trim_end().len())
        };
        let at = place(node.span);
        match &node.value {
            Value::Scalar { text, quoted } => format!("{at}{}{text:?}", if *quoted { "q" } else { "" }),
            Value::Seq(items) => format!("{at}[{}]", items.iter().map(|n| show(n, text)).collect::<Vec<_>>().join(",")),
            Value::Map(entries) => {
                let entry = |e: &Entry<'_>| format!("{}{}:{}", place(e.key_span), e.key, show(&e.value, text));
                format!("{at}{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(","))
            }
        }
    }

    fn owned(node: Node<'_>) -> Node<'static> {
        let value = match node.value {
            Value::Scalar { text, quoted } => Value::Scalar { text: text.into_owned().into(), quoted },
            Value::Seq(items) => Value::Seq(items.into_iter().map(owned).collect()),
            Value::Map(entries) => Value::Map(entries.into_iter().map(owned_entry).collect()),
        };
        Node { value, span: node.span }
    }

    fn owned_entry(entry: Entry<'_>) -> Entry<'static> {
        Entry { key: entry.key.into_owned().into(), key_span: entry.key_span, value: owned(entry.value) }
    }
}
