//! YAML and JSON text into the document tree.
//!
//! JSON is read by the YAML parser (it is a part of YAML 1.2), so that both have positions. Where that fails on a text
//! that begins as JSON, `serde_json` is asked for the complaint.

use super::diagnostic::{Diagnostic, Place, Sink, SourceFile};
use super::document::{Entry, MAX_DEPTH, Node, Value};
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// How many nodes aliases may add to a file before it is taken for an attack ("billion laughs").
const MAX_ALIASED: usize = 100_000;

/// The documents of a file. Syntax errors and duplicate keys are filed in `sink`; what was read before a syntax error
/// is returned all the same.
pub(super) fn parse(file: &Arc<SourceFile>, sink: &mut Sink) -> Vec<Node> {
    let text = pair_surrogates(file.text());
    let mut parser = Parser::new_from_str(&text);
    let mut builder = Builder::new(file, &text, sink);
    while let Some(event) = parser.next_event() {
        let result = match event {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => Err(builder.syntax(&error)),
        };
        if let Err(problem) = result {
            builder.sink.push(json_complaint(file).unwrap_or(problem));
            break;
        }
    }
    builder.documents
}

/// A list or map that is not closed yet.
struct Open {
    node: Node,
    anchor: usize,
    /// A map's key that waits for its value.
    key: Option<(String, (u32, u32))>,
    /// Places of a map's keys, to find duplicates.
    keys: HashMap<String, (u32, u32)>,
}

struct Builder<'a> {
    file: &'a Arc<SourceFile>,
    sink: &'a mut Sink,
    offsets: Offsets,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    aliased: usize,
    documents: Vec<Node>,
}

impl<'a> Builder<'a> {
    fn new(file: &'a Arc<SourceFile>, text: &str, sink: &'a mut Sink) -> Self {
        let offsets = Offsets::new(text);
        Self { file, sink, offsets, open: Vec::new(), anchors: HashMap::new(), aliased: 0, documents: Vec::new() }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Diagnostic> {
        let at = (self.offsets.byte(span.start.index()), self.offsets.byte(span.end.index()));
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let quoted =
                    style != ScalarStyle::Plain || tag.is_some_and(|t| t.is_yaml_core_schema() && t.suffix == "str");
                let span = if style == ScalarStyle::Plain { (at.0, self.trimmed(at)) } else { at };
                self.finished(Node { value: Value::Scalar { text: text.into_owned(), quoted }, span }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.start(Value::Seq(Vec::new()), at, anchor),
            Event::MappingStart(anchor, _) => self.start(Value::Map(Vec::new()), at, anchor),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(mut open) => {
                    open.node.span.1 = at.1.max(open.node.span.0);
                    self.finished(open.node, open.anchor)
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn start(&mut self, value: Value, at: (u32, u32), anchor: usize) -> Result<(), Diagnostic> {
        if self.open.len() >= MAX_DEPTH {
            return Err(self.problem(at, format!("nested deeper than {MAX_DEPTH} levels"), "no Kubernetes object is"));
        }
        self.open.push(Open { node: Node { value, span: at }, anchor, key: None, keys: HashMap::new() });
        Ok(())
    }

    /// Puts a complete node where it belongs.
    fn finished(&mut self, node: Node, anchor: usize) -> Result<(), Diagnostic> {
        if anchor != 0 {
            self.count_aliased(&node)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        match &mut open.node.value {
            Value::Seq(items) => items.push(node),
            Value::Scalar { .. } => {}
            Value::Map(entries) => {
                if let Some((key, key_span)) = open.key.take() {
                    entries.push(Entry { key, key_span, value: node });
                } else {
                    let Value::Scalar { text, .. } = node.value else {
                        return Err(self.problem(node.span, "a key must be text", "write key: value"));
                    };
                    let first = open.keys.insert(text.clone(), node.span);
                    open.key = Some((text.clone(), node.span));
                    if let Some(first) = first {
                        let title = format!("the key {text} is given twice");
                        let problem =
                            self.problem(node.span, title, "remove one of the two").at(self.place(first), "first here");
                        self.sink.push(problem);
                    }
                }
            }
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, at: (u32, u32)) -> Result<(), Diagnostic> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(self.problem(at, "an alias stands inside what it repeats", "write the value out"));
        };
        self.count_aliased(&node)?;
        if self.open.len() + depth(&node) > MAX_DEPTH {
            return Err(self.problem(at, format!("nested deeper than {MAX_DEPTH} levels"), "no Kubernetes object is"));
        }
        self.finished(node, 0)
    }

    fn count_aliased(&mut self, node: &Node) -> Result<(), Diagnostic> {
        self.aliased += size(node);
        if self.aliased > MAX_ALIASED {
            let title = format!("anchors and aliases repeat more than {MAX_ALIASED} values");
            return Err(self.problem(node.span, title, "write the values out, or split the file"));
        }
        Ok(())
    }

    fn syntax(&self, error: &ScanError) -> Diagnostic {
        let at = self.offsets.byte(error.marker().index());
        self.problem(
            (at, at),
            format!("YAML syntax: {}", error.info()),
            "check the indentation, quotes and brackets here",
        )
    }

    fn problem(&self, at: (u32, u32), title: impl Into<String>, help: &str) -> Diagnostic {
        Diagnostic::error(title).at(self.place(at), "").help(help)
    }

    fn place(&self, at: (u32, u32)) -> Place {
        Place::new(self.file, super::document::range(at))
    }

    /// The end of a plain scalar without the blanks and line breaks that the parser counts in.
    fn trimmed(&self, at: (u32, u32)) -> u32 {
        let text = self.file.text().get(super::document::range(at)).unwrap_or("");
        at.0 + u32::try_from(text.trim_end().len()).unwrap_or(0)
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Scalar { .. } => 0,
        Value::Seq(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|entry| size(&entry.value)).sum(),
    }
}

fn depth(node: &Node) -> usize {
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
struct Offsets {
    /// Byte offset of each 64th character; empty where all are one byte.
    stride: Vec<u32>,
    text: String,
}

impl Offsets {
    const STRIDE: usize = 64;

    fn new(text: &str) -> Self {
        if text.is_ascii() {
            return Self { stride: Vec::new(), text: String::new() };
        }
        let stride =
            text.char_indices().step_by(Self::STRIDE).map(|(at, _)| u32::try_from(at).unwrap_or(u32::MAX)).collect();
        Self { stride, text: text.to_owned() }
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
    use super::*;

    fn read(text: &str) -> (Vec<Node>, Vec<(String, usize, usize)>) {
        let file = Arc::new(SourceFile::new("x.yaml", text));
        let mut sink = Sink::default();
        let documents = parse(&file, &mut sink);
        let problems = sink.problems.iter().map(|p| {
            let place = p.places().next().expect("a place");
            (p.title().to_owned(), place.line(), place.column())
        });
        (documents, problems.collect())
    }

    fn spanned<'t>(text: &'t str, node: &Node) -> &'t str {
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
    fn deep_nesting_is_refused() {
        assert_eq!(read(&"- ".repeat(100_000)).1[0].0, "nested deeper than 64 levels");
        assert_eq!(read(&"[".repeat(100_000)).1.len(), 1);
        assert_eq!(read(&"{\"a\":".repeat(100_000)).1.len(), 1);
    }
}
