//! YAML text to trees.
//!
//! JSON that `json` gave up is read here too: it is a part of YAML 1.2. Where that fails on a text that begins as JSON,
//! `serde_json` is asked for the complaint.

use super::diagnostic::{Diagnostic, Place, SourceFile};
use super::document::{MAX_DEPTH, Node, Value};
use super::tree::{Builder, Bytes, Collection, Consumer, Fault};
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// How much aliases may add to a file before it is taken for an attack ("billion laughs"): in values, each counted once and
/// once more for each [`ALIASED_TEXT`] bytes of text.
const MAX_ALIASED: usize = 100_000;
const ALIASED_TEXT: usize = 256;

/// Hands a file's documents to `consumer` and returns syntax errors and duplicate keys. What stands before a syntax error is
/// read all the same.
pub(super) fn read<C: Consumer>(file: &Arc<SourceFile>, consumer: &mut C) -> Vec<Diagnostic> {
    let text = pair_surrogates(file.text());
    let mut parser = Parser::new_from_str(&text);
    let mut reader = Reader {
        file,
        offsets: Offsets::new(&text),
        tree: Builder::new(consumer),
        anchors: Vec::new(),
        anchored: HashMap::new(),
        aliased: 0,
        complaints: Vec::new(),
    };
    while let Some(event) = parser.next_event() {
        let result = match event {
            Ok((event, span)) => reader.event(event, span),
            Err(error) => Err(reader.syntax(&error)),
        };
        if let Err(problem) = result {
            reader.complaints.push(json_complaint(file).unwrap_or(problem));
            break;
        }
    }
    reader.complaints
}

struct Reader<'t, 'c, C> {
    file: &'c Arc<SourceFile>,
    offsets: Offsets<'t>,
    tree: Builder<'t, 'c, C>,
    /// The anchor of each open list and map, 0 for none.
    anchors: Vec<usize>,
    anchored: HashMap<usize, Node<'t>>,
    aliased: usize,
    complaints: Vec<Diagnostic>,
}

impl<'t, C: Consumer> Reader<'t, '_, C> {
    fn event(&mut self, event: Event<'t>, span: Span) -> Result<(), Diagnostic> {
        let at = (self.offsets.byte(span.start.index()), self.offsets.byte(span.end.index()));
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let quoted =
                    style != ScalarStyle::Plain || tag.is_some_and(|t| t.is_yaml_core_schema() && t.suffix == "str");
                let span = if style == ScalarStyle::Plain { (at.0, self.trimmed(at)) } else { at };
                self.finished(Node { value: Value::Scalar { text, quoted }, span }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.start(Collection::Seq, at, anchor),
            Event::MappingStart(anchor, _) => self.start(Collection::Map, at, anchor),
            Event::SequenceEnd | Event::MappingEnd => match (self.tree.close(at.1), self.anchors.pop()) {
                (Some(node), Some(anchor)) => self.finished(node, anchor),
                _ => Ok(()),
            },
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::DocumentStart(_) => {
                self.anchored.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn start(&mut self, collection: Collection, at: Bytes, anchor: usize) -> Result<(), Diagnostic> {
        let started = self.tree.start(collection, at);
        self.anchors.push(anchor);
        self.accept(started)
    }

    fn finished(&mut self, node: Node<'t>, anchor: usize) -> Result<(), Diagnostic> {
        if anchor != 0 {
            self.count_aliased(&node)?;
            self.anchored.insert(anchor, node.clone());
        }
        let built = self.tree.node(node);
        self.accept(built)
    }

    /// A key that stands twice is told and read on; what else a tree cannot hold ends the reading.
    fn accept(&mut self, built: Result<(), Fault>) -> Result<(), Diagnostic> {
        match built {
            Ok(()) => Ok(()),
            Err(Fault::TooDeep(at)) => Err(self.too_deep(at)),
            Err(Fault::KeyNotText(at)) => Err(self.problem(at, "a key must be text", "write key: value")),
            Err(Fault::KeyTwice { key, again, first }) => {
                let problem = self
                    .problem(again, format!("the key {key} is given twice"), "remove one of the two")
                    .at(self.place(first), "first here");
                self.complaints.push(problem);
                Ok(())
            }
        }
    }

    fn alias(&mut self, anchor: usize, at: Bytes) -> Result<(), Diagnostic> {
        let Some(node) = self.anchored.get(&anchor).cloned() else {
            return Err(self.problem(at, "an alias stands inside what it repeats", "write the value out"));
        };
        self.count_aliased(&node)?;
        if self.tree.depth() + depth(&node) > MAX_DEPTH {
            return Err(self.too_deep(at));
        }
        self.finished(node, 0)
    }

    fn count_aliased(&mut self, node: &Node<'_>) -> Result<(), Diagnostic> {
        self.aliased += size(node);
        if self.aliased > MAX_ALIASED {
            let title = format!("anchors and aliases repeat more than {MAX_ALIASED} values");
            return Err(self.problem(node.span, title, "write the values out, or split the file"));
        }
        Ok(())
    }

    fn too_deep(&self, at: Bytes) -> Diagnostic {
        self.problem(at, format!("nested deeper than {MAX_DEPTH} levels"), "no Kubernetes object is")
    }

    fn syntax(&self, error: &ScanError) -> Diagnostic {
        let at = self.offsets.byte(error.marker().index());
        self.problem(
            (at, at),
            format!("YAML syntax: {}", error.info()),
            "check the indentation, quotes and brackets here",
        )
    }

    fn problem(&self, at: Bytes, title: impl Into<String>, help: &str) -> Diagnostic {
        Diagnostic::error(title).at(self.place(at), "").help(help)
    }

    fn place(&self, at: Bytes) -> Place {
        Place::new(self.file, super::document::range(at))
    }

    /// The end of a plain scalar without the blanks and line breaks that the parser counts in.
    fn trimmed(&self, at: Bytes) -> u32 {
        let text = self.file.text().get(super::document::range(at)).unwrap_or("");
        at.0 + u32::try_from(text.trim_end().len()).unwrap_or(0)
    }
}

/// What a copy of a node counts for.
fn size(node: &Node<'_>) -> usize {
    1 + match &node.value {
        Value::Scalar { text, .. } => text.len() / ALIASED_TEXT,
        Value::Seq(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|entry| entry.key.len() / ALIASED_TEXT + size(&entry.value)).sum(),
    }
}

fn depth(node: &Node<'_>) -> usize {
    match &node.value {
        Value::Scalar { .. } => 0,
        Value::Seq(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|entry| depth(&entry.value)).max().unwrap_or(0),
    }
}

/// What serde_json says about a text that begins as JSON.
fn json_complaint(file: &Arc<SourceFile>) -> Option<Diagnostic> {
    let text = file.text();
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<serde::de::IgnoredAny>();
    let error = values.find_map(Result::err)?;
    let line = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
    let at = (line + error.column().saturating_sub(1)).min(text.len());
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or("");
    let place = Place::new(file, at..at);
    Some(
        Diagnostic::error(format!("JSON syntax: {said}"))
            .at(place, "")
            .help("check the commas, quotes and brackets here"),
    )
}

/// JSON writes characters beyond U+FFFF as two `\uXXXX` escapes, which YAML does not know. They become one `\UXXXXXXXX`
/// and two blanks: every other byte keeps its place, and no name or address holds such a character.
fn pair_surrogates(text: &str) -> Cow<'_, str> {
    let mut out = None::<String>;
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|b| *b == b'\\')) {
        let start = at + found;
        let unit = |from: usize| {
            let escape = text.get(from..from + 6)?.strip_prefix("\\u")?;
            escape.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u16::from_str_radix(escape, 16).ok())?
        };
        let pair = unit(start).zip(unit(start + 6)).and_then(|(a, b)| char::decode_utf16([a, b]).next()?.ok());
        match pair.filter(|c| u32::from(*c) > 0xFFFF) {
            Some(c) => {
                let escape = format!("\\U{:08X}  ", u32::from(c));
                out.get_or_insert_with(|| text.to_owned()).replace_range(start..start + 12, &escape);
                at = start + 12;
            }
            None => at = start + 2,
        }
    }
    out.map_or(Cow::Borrowed(text), Cow::Owned)
}

/// From the parser's character positions to byte offsets.
struct Offsets<'t> {
    /// Byte offset of each 16th character; empty where all are one byte.
    stride: Vec<u32>,
    text: &'t str,
}

impl<'t> Offsets<'t> {
    const STRIDE: usize = 16;

    fn new(text: &'t str) -> Self {
        if text.is_ascii() {
            return Self { stride: Vec::new(), text };
        }
        let stride =
            text.char_indices().step_by(Self::STRIDE).map(|(at, _)| u32::try_from(at).unwrap_or(u32::MAX)).collect();
        Self { stride, text }
    }

    fn byte(&self, character: usize) -> u32 {
        let whole = u32::try_from(character).unwrap_or(u32::MAX);
        if self.stride.is_empty() {
            return whole;
        }
        let Some(base) = self.stride.get(character / Self::STRIDE).copied() else {
            return u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        };
        let rest = self.text.get(base as usize..).unwrap_or("");
        let bytes = rest.chars().take(character % Self::STRIDE).map(char::len_utf8).sum::<usize>();
        base.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::collect::Documents;
    use super::*;

    fn read(text: &str) -> (Vec<Node<'static>>, Vec<(String, usize, usize)>) {
        let file = Arc::new(SourceFile::new("x.yaml", text));
        let mut documents = Documents::default();
        let problems = super::read(&file, &mut documents).into_iter().map(|p| {
            let place = p.places().next().expect("a place");
            (p.title().to_owned(), place.line(), place.column())
        });
        let problems = problems.collect();
        (documents.0, problems)
    }

    fn spanned<'t>(text: &'t str, node: &Node<'_>) -> &'t str {
        &text[super::super::document::range(node.span)]
    }

    #[test]
    fn nodes_know_their_text() {
        let text = "é: ü # c\nlist:\n- 'a b'\n- {x: 1, y: \"2\"}\n---\nsecond: ~\n";
        let (documents, problems) = read(text);
        assert_eq!((documents.len(), problems), (2, vec![]));
        assert_eq!(spanned(text, documents[0].get("é").unwrap()), "ü");
        let Value::Seq(items) = &documents[0].get("list").unwrap().value else { panic!("a list") };
        assert_eq!(spanned(text, &items[0]), "'a b'");
        assert_eq!(spanned(text, items[1].get("x").unwrap()), "1");
        assert!(documents[1].get("second").is_none() && documents[1].get_even_null("second").is_some());
    }

    #[test]
    fn json_is_read_with_positions() {
        let text = "{\n\t\"a\": [1, \"x\\/y\"],\n\t\"smile\": \"\\ud83d\\ude00\",\n\t\"b\": \"z\"\n}\n";
        let (documents, problems) = read(text);
        assert_eq!(problems, vec![]);
        assert_eq!(documents[0].get("smile").unwrap().as_text(), Some("\u{1F600}  "));
        assert_eq!(spanned(text, documents[0].get("b").unwrap()), "\"z\"");
    }

    #[test]
    fn syntax_errors_have_a_position() {
        assert_eq!(read("{\n\"a\": 1,\n\"b\" 2\n}").1, [("JSON syntax: expected `:`".to_owned(), 3, 5)]);
        let (documents, problems) = read("ok: 1\n---\na: [1, 2\nb: 3\n");
        assert_eq!(documents.len(), 1);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].0.starts_with("YAML syntax: ") && problems[0].1 >= 3, "{problems:?}");
    }

    #[test]
    fn duplicate_keys_are_problems_both_named() {
        let (_, problems) = read("a: 1\nb: 2\na: 3\n{}");
        assert_eq!(problems[0], ("the key a is given twice".to_owned(), 3, 1));
    }

    #[test]
    fn aliases_repeat_within_bounds() {
        let (documents, problems) = read("a: &x {p: 1}\nb: *x\n");
        assert_eq!(problems, vec![]);
        assert_eq!(documents[0].at(&["b", "p"]).unwrap().as_text(), Some("1"));

        let mut lines = vec!["a0: &a0 [x, x, x, x, x, x, x, x, x, x]".to_owned()];
        for level in 1..12 {
            let before = format!("*a{}", level - 1);
            lines.push(format!("a{level}: &a{level} [{}]", [before.as_str(); 10].join(", ")));
        }
        let bomb = lines.join("\n");
        let (_, problems) = read(&bomb);
        assert_eq!(problems[0].0, "anchors and aliases repeat more than 100000 values");
    }

    #[test]
    fn aliases_of_long_texts_count_for_more() {
        let bomb = format!("a: &a \"{}\"\nb: [{}]\n", "x\\n".repeat(500_000), ["*a"; 1_000].join(", "));
        let (_, problems) = read(&bomb);
        assert_eq!(problems[0].0, "anchors and aliases repeat more than 100000 values");
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert_eq!(read(&"- ".repeat(100_000)).1[0].0, "nested deeper than 64 levels");
        assert_eq!(read(&"[".repeat(100_000)).1.len(), 1);
        assert_eq!(read(&"{\"a\":".repeat(100_000)).1.len(), 1);
    }
}
