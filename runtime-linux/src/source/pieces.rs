//! The pieces that a text falls into, one object of its list each, found without parsing it.
//!
//! A cluster's services are one text of many megabytes. Where a few of its pieces are others than before, these can be read
//! alone. Text that looks like a border and is none cuts an object in two, neither of which reads without a problem.

use super::detect::Kind;
use super::json;
use memchr::memmem;

/// How far into a text its list has to begin.
const HEAD: usize = 4096;

/// How a text falls into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `services.toml`: each `[[service]]` with what follows it.
    Toml,
    /// YAML: each document.
    Documents,
    /// A YAML list as `kubectl` prints it: each item, which begins in the first column.
    Items,
    /// A JSON list as `kubectl` prints it: each item, which begins behind so many blanks.
    JsonItems(usize),
    /// Not at all: one piece.
    Whole,
}

impl Form {
    /// The form of a text of this kind.
    pub fn of(text: &str, kind: Kind) -> Self {
        let bytes = text.as_bytes();
        let head = bytes.get(..HEAD).unwrap_or(bytes);
        match kind {
            // lines of a long string may look like anything
            Kind::Toml if ["\"\"\"", "'''"].iter().any(|quotes| memmem::find(bytes, quotes.as_bytes()).is_some()) => {
                Self::Whole
            }
            Kind::Toml => Self::Toml,
            Kind::Manifest if json::looks_like(text) => json_items(head).map_or(Self::Whole, Self::JsonItems),
            Kind::Manifest => {
                let items = memmem::find(head, b"\nitems:\n- ");
                let document = memmem::find(head, b"\n---");
                match (items, document) {
                    (Some(items), Some(document)) if document < items => Self::Documents,
                    // an item may say what an anchor of another item says
                    (Some(_), _) if memmem::find(bytes, b" &").is_some() => Self::Whole,
                    (Some(_), _) => Self::Items,
                    (None, _) => Self::Documents,
                }
            }
            Kind::Listing | Kind::Empty | Kind::Unknown => Self::Whole,
        }
    }

    /// The pieces, which are all of the text. What stands before and behind a list is a piece too.
    pub fn split(self, text: &str) -> Vec<&str> {
        let separator = match self {
            Self::Toml => "\n[[service]]".to_owned(),
            Self::Documents => "\n---".to_owned(),
            Self::Items => "\n- ".to_owned(),
            Self::JsonItems(blanks) => format!("\n{}{{", " ".repeat(blanks)),
            Self::Whole => return vec![text],
        };
        let mut pieces = Vec::new();
        let mut rest = text;
        let mut start = 0;
        for at in memmem::find_iter(text.as_bytes(), separator.as_bytes()) {
            let (piece, behind) = rest.split_at(at + 1 - start);
            pieces.push(piece);
            (rest, start) = (behind, at + 1);
        }
        let (last, behind) = rest.split_at(self.end_of_last(rest));
        pieces.push(last);
        pieces.extend((!behind.is_empty()).then_some(behind));
        pieces
    }

    /// Where the last item ends and what stands behind the list begins.
    fn end_of_last(self, piece: &str) -> usize {
        let lines = || memchr::memchr_iter(b'\n', piece.as_bytes()).map(|at| at + 1);
        let found = match self {
            Self::Items => lines().find(|at| piece.as_bytes().get(*at).is_some_and(|byte| !b" -\n\r#".contains(byte))),
            Self::JsonItems(blanks) => {
                let closing = format!("\n{}}}", " ".repeat(blanks));
                memmem::find(piece.as_bytes(), closing.as_bytes()).map(|at| at + closing.len())
            }
            Self::Toml | Self::Documents | Self::Whole => None,
        };
        found.unwrap_or(piece.len())
    }

    /// A text of these pieces alone, of the same form.
    pub fn join<'p>(self, pieces: impl Iterator<Item = &'p str>) -> String {
        let mut text = String::new();
        match self {
            Self::Toml | Self::Documents | Self::Whole => text.extend(pieces),
            Self::Items => {
                text.push_str("apiVersion: v1\nkind: List\nitems:\n");
                text.extend(pieces);
            }
            Self::JsonItems(_) => {
                text.push_str("{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [");
                for (index, piece) in pieces.enumerate() {
                    text.push_str(if index > 0 { "," } else { "" });
                    text.push_str(piece.trim_end().trim_end_matches(','));
                }
                text.push_str("]}");
            }
        }
        text
    }
}

/// The blanks before each item of a JSON list.
fn json_items(head: &[u8]) -> Option<usize> {
    let key = b"\"items\": [\n";
    let items = head.get(memmem::find(head, key)? + key.len()..)?;
    let blanks = items.iter().take_while(|byte| **byte == b' ').count();
    (items.get(blanks) == Some(&b'{')).then_some(blanks)
}

#[cfg(test)]
mod tests {
    use super::super::detect;
    use super::*;

    const YAML: &str = "apiVersion: v1\nitems:\n- a: 1\n  b:\n  - 2\n- a: 2\n  # c\nkind: List\n";
    const JSON: &str = "{\n  \"items\": [\n    {\n      \"a\": {}\n    },\n    {\n      \"a\": 2\n    }\n  ],\n  \"kind\": \"List\"\n}\n";

    fn split(text: &str) -> (Form, Vec<&str>) {
        let form = Form::of(text, detect::kind(text));
        let pieces = form.split(text);
        assert_eq!(pieces.concat(), text, "nothing is left out");
        (form, pieces)
    }

    #[test]
    fn each_object_is_a_piece() {
        let (form, pieces) = split("[node]\n[[service]]\nname = \"a\"\n[[service.endpoints]]\n[[service]]\n");
        assert_eq!((form, pieces.len()), (Form::Toml, 3));
        let (form, pieces) = split("a: 1\n---\nb:\n- 2\n---\n");
        assert_eq!((form, pieces.len()), (Form::Documents, 3));
        let (form, pieces) = split(YAML);
        assert_eq!(form, Form::Items);
        assert_eq!(pieces[1..], ["- a: 1\n  b:\n  - 2\n", "- a: 2\n  # c\n", "kind: List\n"]);
        let (form, pieces) = split(JSON);
        assert_eq!(form, Form::JsonItems(4));
        assert_eq!(pieces[1..3], ["    {\n      \"a\": {}\n    },\n", "    {\n      \"a\": 2\n    }"]);
    }

    #[test]
    fn pieces_alone_are_texts() {
        for (text, expected) in [
            (YAML, "apiVersion: v1\nkind: List\nitems:\n- a: 2\n  # c\n"),
            (JSON, "{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [    {\n      \"a\": 2\n    }]}"),
        ] {
            let (form, pieces) = split(text);
            assert_eq!(form.join(pieces[2..3].iter().copied()), expected);
        }
    }

    #[test]
    fn what_may_be_misread_is_whole() {
        for text in [
            "[[service]]\nhosts = [\"\"\"\n[[service]]\n\"\"\"]\n",
            "{\"items\":[{\"a\":1}]}",
            "kind: List\nitems:\n- a: &x 1\n- a: *x\n",
            "*nat\nCOMMIT\n",
        ] {
            assert_eq!(split(text).0, Form::Whole, "{text}");
        }
    }
}
