//! The tree that YAML, JSON and TOML are read into, and the walker that looks for values in it.
//!
//! Every node knows where it stands in its file. The [`Walker`] never stops at a fault: it files the problem and says
//! `None`, so that one run shows all that is wrong with a file.

use super::address::{self, Role};
use super::diagnostic::{Diagnostic, Place, Sink, SourceFile, quote};
use natlet_core::table::Cidr;
use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

/// Deepest nesting of lists and maps that is read; a Service needs 8.
pub(super) const MAX_DEPTH: usize = 64;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node<'t> {
    pub value: Value<'t>,
    /// Byte offsets in the file.
    pub span: (u32, u32),
}

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value<'t> {
    /// Text, or a number, truth value or null where it is not `quoted`.
    Scalar { text: Cow<'t, str>, quoted: bool },
    /// A list.
    Seq(Vec<Node<'t>>),
    /// A map, in the order of the file, without duplicate keys.
    Map(Vec<Entry<'t>>),
}

/// One key of a map with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry<'t> {
    pub key: Cow<'t, str>,
    pub key_span: (u32, u32),
    pub value: Node<'t>,
}

impl<'t> Node<'t> {
    /// The value of `key`; `None` where this is no map, has no such key, or its value is null.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.get_even_null(key).filter(|node| !node.is_null())
    }

    /// The value of `key`, null too.
    pub fn get_even_null(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The value at the end of a path of keys.
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The keys and values; none where this is no map.
    pub fn entries(&self) -> &[Entry<'t>] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The text of a scalar, without complaint.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// YAML's null, in each of its spellings.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, quoted: false } if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What it is, for a message.
    fn describe(&self) -> &'static str {
        match &self.value {
            Value::Seq(_) => "a list",
            Value::Map(_) => "a map",
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { quoted: true, .. } => "text",
            Value::Scalar { text, .. } if text.parse::<f64>().is_ok() => "a number",
            Value::Scalar { text, .. } if matches!(&**text, "true" | "false") => "a truth value",
            Value::Scalar { .. } => "text",
        }
    }
}

/// A node's span as a range.
pub(super) fn range(span: (u32, u32)) -> Range<usize> {
    span.0 as usize..span.1 as usize
}

/// Looks for values in a tree and files what is wrong with them.
pub(super) struct Walker<'a> {
    pub file: &'a Arc<SourceFile>,
    pub sink: &'a mut Sink,
    /// Text must be quoted (TOML); otherwise `80` is taken as text where text is wanted (YAML).
    pub quoted_text: bool,
}

impl Walker<'_> {
    /// The place of a span.
    pub fn place(&self, span: (u32, u32)) -> Place {
        Place::new(self.file, range(span))
    }

    /// Files a problem at a span.
    pub fn problem(
        &mut self,
        span: (u32, u32),
        title: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) {
        let place = self.place(span);
        self.sink.push(Diagnostic::error(title).at(place, label).help(help));
    }

    /// Files a warning at a span.
    pub fn warning(
        &mut self,
        span: (u32, u32),
        title: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) {
        let place = self.place(span);
        self.sink.push(Diagnostic::warning(title).at(place, label).help(help));
    }

    fn wrong_type(&mut self, node: &Node<'_>, what: &str, wanted: &str) {
        let got = node.describe();
        self.problem(node.span, format!("{what} must be {wanted}"), format!("this is {got}"), format!("give {wanted}"));
    }

    /// The node if it is a map.
    pub fn map<'n>(&mut self, node: &'n Node<'n>, what: &str) -> Option<&'n Node<'n>> {
        if !matches!(node.value, Value::Map(_)) {
            self.wrong_type(node, what, "a map");
            return None;
        }
        Some(node)
    }

    /// The map under a key, if there.
    pub fn map_at<'n>(&mut self, node: &'n Node<'n>, key: &str) -> Option<&'n Node<'n>> {
        self.map(node.get(key)?, key)
    }

    /// The items of a list.
    pub fn seq<'n>(&mut self, node: &'n Node<'n>, what: &str) -> &'n [Node<'n>] {
        if let Value::Seq(items) = &node.value {
            items
        } else {
            self.wrong_type(node, what, "a list");
            &[]
        }
    }

    /// The items of the list under a key; none if it is absent.
    pub fn seq_at<'n>(&mut self, node: &'n Node<'n>, key: &str) -> &'n [Node<'n>] {
        node.get(key).map_or(&[], |list| self.seq(list, key))
    }

    /// The items of a list, or the single value itself.
    pub fn one_or_many<'n>(&mut self, node: &'n Node<'n>, what: &str) -> &'n [Node<'n>] {
        match &node.value {
            Value::Seq(items) => items,
            Value::Scalar { .. } => std::slice::from_ref(node),
            Value::Map(_) => {
                self.wrong_type(node, what, "a value or a list");
                &[]
            }
        }
    }

    /// The text.
    pub fn text<'n>(&mut self, node: &'n Node<'n>, what: &str) -> Option<&'n str> {
        match &node.value {
            Value::Scalar { text, quoted } if *quoted || !(self.quoted_text || node.is_null()) => Some(text),
            _ => {
                self.wrong_type(node, what, "text");
                None
            }
        }
    }

    /// The text under a key, if there.
    pub fn text_at<'n>(&mut self, node: &'n Node<'n>, key: &str) -> Option<&'n str> {
        self.text(node.get(key)?, key)
    }

    /// The text under a key that must be there.
    pub fn required_text<'n>(&mut self, node: &'n Node<'n>, key: &str, owner: &str) -> Option<&'n str> {
        let Some(value) = node.get(key) else {
            self.problem(node.span, format!("{owner} has no {key}"), "", format!("add {key}"));
            return None;
        };
        self.text(value, key)
    }

    /// A whole number within a range.
    pub fn integer(&mut self, node: &Node<'_>, what: &str, allowed: RangeInclusive<u64>) -> Option<u64> {
        let Value::Scalar { text, quoted: false } = &node.value else {
            self.wrong_type(node, what, "a whole number");
            return None;
        };
        if let Ok(number) = text.parse::<i128>() {
            if let Some(number) = u64::try_from(number).ok().filter(|n| allowed.contains(n)) {
                Some(number)
            } else {
                let (low, high) = allowed.into_inner();
                self.problem(
                    node.span,
                    format!("{what} {text} is out of range"),
                    "",
                    format!("use a number from {low} to {high}"),
                );
                None
            }
        } else {
            self.wrong_type(node, what, "a whole number");
            None
        }
    }

    /// A port: 1 to 65535.
    pub fn port(&mut self, node: &Node<'_>, what: &str) -> Option<u16> {
        self.integer(node, what, 1..=65535).and_then(|port| u16::try_from(port).ok())
    }

    /// The port under a key; absent and 0 both mean none, as Kubernetes has it.
    pub fn port_or_none(&mut self, node: &Node<'_>, key: &str) -> Option<u16> {
        let value = node.get(key)?;
        let port = self.integer(value, key, 0..=65535)?;
        u16::try_from(port).ok().filter(|port| *port != 0)
    }

    /// A truth value.
    pub fn boolean(&mut self, node: &Node<'_>, what: &str) -> Option<bool> {
        match &node.value {
            Value::Scalar { text, quoted: false } if text == "true" => Some(true),
            Value::Scalar { text, quoted: false } if text == "false" => Some(false),
            _ => {
                self.wrong_type(node, what, "true or false");
                None
            }
        }
    }

    /// The truth value under a key, if there.
    pub fn boolean_at(&mut self, node: &Node<'_>, key: &str) -> Option<bool> {
        self.boolean(node.get(key)?, key)
    }

    /// One word out of a few.
    pub fn word<T: Copy>(&mut self, node: &Node<'_>, what: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, what)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let help = match nearest(text, known.iter().copied()) {
            Some(near) => format!("did you mean {near}? It is one of {}", known.join(", ")),
            None => format!("use one of {}", known.join(", ")),
        };
        self.problem(node.span, format!("unknown {what} {}", quote(text)), "", help);
        None
    }

    /// The word under a key, or the default.
    pub fn word_at<T: Copy + Default>(&mut self, node: &Node<'_>, key: &str, words: &[(&str, T)]) -> T {
        node.get(key).and_then(|value| self.word(value, key, words)).unwrap_or_default()
    }

    /// An address that can play this role.
    pub fn address(&mut self, node: &Node<'_>, what: &str, role: Role) -> Option<IpAddr> {
        let text = self.text(node, what)?;
        let parsed = address::parse(text).and_then(|address| address::suits(address, role).map(|()| address));
        self.found(parsed, node, what, text)
    }

    /// An address prefix.
    pub fn cidr(&mut self, node: &Node<'_>, what: &str) -> Option<Cidr> {
        let text = self.text(node, what)?;
        self.found(address::parse_cidr(text), node, what, text)
    }

    /// What was parsed, or `None` and the complaint filed.
    pub fn found<T>(
        &mut self,
        parsed: Result<T, address::Fault>,
        node: &Node<'_>,
        what: &str,
        text: &str,
    ) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(fault) => {
                self.problem(node.span, format!("{what} {}: {}", quote(text), fault.why), "", fault.help);
                None
            }
        }
    }

    /// Complains about keys that are not in `known`, with the nearest one that is.
    pub fn only_keys(&mut self, node: &Node<'_>, owner: &str, known: &[&str]) {
        for entry in node.entries() {
            if known.contains(&&*entry.key) {
                continue;
            }
            let help = match nearest(&entry.key, known.iter().copied()) {
                Some(near) => format!("did you mean {near}? {owner} takes {}", known.join(", ")),
                None => format!("{owner} takes {}", known.join(", ")),
            };
            self.problem(entry.key_span, format!("{owner} has no key {}", quote(&entry.key)), "unknown key", help);
        }
    }
}

/// The word most like `text`, if one is like it at all.
fn nearest<'a>(text: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.75;
    let text: String = text.chars().take(64).flat_map(char::to_lowercase).collect();
    words
        .map(|word| (strsim::jaro_winkler(&text, &word.to_lowercase()), word))
        .filter(|(likeness, _)| *likeness > ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}
