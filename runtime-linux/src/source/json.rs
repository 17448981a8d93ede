//! JSON text into the document tree, quickly and without places.
//!
//! A table of 10,000 services is tens of megabytes of JSON, for which the YAML parser takes 45 times their size in memory.
//! So JSON is first read here; only when something has to be said about an input is it read again by the YAML parser, which
//! knows where everything stands.

use super::document::{Entry, MAX_DEPTH, Node, Value};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

/// Whether a text may be JSON.
pub(super) fn looks_like(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// The documents of a text that is JSON through and through and has no duplicate key; `None` for every other, whose faults
/// the YAML parser will name.
pub(super) fn parse(text: &str) -> Option<Vec<Node>> {
    let mut documents = Vec::new();
    for document in serde_json::Deserializer::from_str(text).into_iter::<Document>() {
        documents.push(document.ok()?.0);
    }
    Some(documents)
}

struct Document(Node);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Tree { depth: 0 }.deserialize(deserializer).map(Document)
    }
}

/// A value at some depth.
#[derive(Clone, Copy)]
struct Tree {
    depth: usize,
}

fn node(value: Value) -> Node {
    Node { value, span: (0, 0) }
}

fn plain(text: &impl ToString) -> Node {
    node(Value::Scalar { text: text.to_string(), quoted: false })
}

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(plain(&"null"))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(plain(&value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(plain(&value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(plain(&value))
    }

    /// A fraction is nowhere wanted; the YAML parser shall show it as it was written.
    fn visit_f64<E: Error>(self, _: f64) -> Result<Node, E> {
        Err(E::custom("a fraction"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(node(Value::Scalar { text: value.to_owned(), quoted: true }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let inner = self.deeper()?;
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            all.push(item);
        }
        Ok(node(Value::Seq(all)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let inner = self.deeper()?;
        let (mut all, mut keys) = (Vec::new(), HashSet::new());
        while let Some(key) = entries.next_key::<String>()? {
            // who changed which field and when: the larger half of what the API server gives, and nothing of it is read
            let value = if key == "managedFields" {
                entries.next_value::<IgnoredAny>()?;
                plain(&"null")
            } else {
                entries.next_value_seed(inner)?
            };
            if !keys.insert(key.clone()) {
                return Err(A::Error::custom("a key twice"));
            }
            all.push(Entry { key, key_span: (0, 0), value });
        }
        all.shrink_to_fit();
        Ok(node(Value::Map(all)))
    }
}

impl Tree {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth < MAX_DEPTH { Ok(Self { depth: self.depth + 1 }) } else { Err(E::custom("too deep")) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnostic::{Sink, SourceFile};
    use super::*;
    use std::sync::Arc;

    /// The tree as text, without places.
    fn show(node: &Node) -> String {
        match &node.value {
            Value::Scalar { text, quoted } => format!("{}{text:?}", if *quoted { "q" } else { "" }),
            Value::Seq(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(",")),
            Value::Map(entries) => {
                let entries: Vec<String> = entries.iter().map(|e| format!("{}:{}", e.key, show(&e.value))).collect();
                format!("{{{}}}", entries.join(","))
            }
        }
    }

    #[test]
    fn the_tree_is_the_yaml_parsers() {
        let text = r#"{"a": [1, -2, true, null, "x\n\u00e9"], "b": {"c": "", "d": {}}, "e": []} {"f": "g"}"#;
        let file = Arc::new(SourceFile::new("x", text));
        let slow: Vec<String> = super::super::yaml::parse(&file, &mut Sink::default()).iter().map(show).collect();
        let quick: Vec<String> = parse(text).expect("JSON").iter().map(show).collect();
        assert_eq!(quick, ["{a:[\"1\",\"-2\",\"true\",\"null\",q\"x\\né\"],b:{c:q\"\",d:{}},e:[]}", "{f:q\"g\"}"]);
        assert_eq!(quick[0], slow[0]);
    }

    #[test]
    fn what_needs_a_word_is_left_to_the_yaml_parser() {
        let deep = format!("{}{}", "{\"a\":".repeat(80), "1".to_owned() + &"}".repeat(80));
        for text in ["{a: 1}", "{\"a\": 1, \"a\": 2}", "{\"a\": 1", "{\"a\": 1.5}", deep.as_str()] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
