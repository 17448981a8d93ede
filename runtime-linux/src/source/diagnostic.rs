//! What is wrong with an input, where, and the way out.
//!
//! A [`Diagnostic`] owns what it needs to be drawn: it shares the text of its file, so it can outlive the reading.

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// How many diagnostics are drawn before the rest is only counted.
const DRAWN: usize = 50;

/// Longest source line that is drawn whole, in bytes; of a longer one (JSON on one line) a window is drawn.
const LONGEST_LINE: usize = 400;

/// The text of an input, with its name for messages.
pub struct SourceFile {
    name: String,
    text: String,
    lines: OnceLock<Vec<usize>>,
}

impl SourceFile {
    /// A file of this name (a path, or `<stdin>`).
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into(), lines: OnceLock::new() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its text, without a byte order mark.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Line and column of a byte offset, both from 1, the column in characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line_bounds(offset);
        let number = self.starts().partition_point(|&start| start <= line.start);
        let offset = floor_boundary(&self.text, offset).max(line.start);
        let column = self.text.get(line.start..offset).map_or(0, |before| before.chars().count());
        (number, column + 1)
    }

    /// Where the line around a byte offset starts and ends, without its line break.
    fn line_bounds(&self, offset: usize) -> Range<usize> {
        let offset = offset.min(self.text.len());
        let starts = self.starts();
        let index = starts.partition_point(|&start| start <= offset).saturating_sub(1);
        let start = starts.get(index).copied().unwrap_or(0);
        let next = starts.get(index + 1).copied().unwrap_or(self.text.len());
        let line = self.text.get(start..next).unwrap_or("");
        start..start + line.trim_end_matches(['\n', '\r']).len()
    }

    fn starts(&self) -> &[usize] {
        self.lines.get_or_init(|| {
            std::iter::once(0)
                .chain(self.text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1))
                .collect()
        })
    }
}

impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceFile").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A stretch of text in an input.
#[derive(Clone, Debug)]
pub struct Place {
    file: Arc<SourceFile>,
    start: usize,
    end: usize,
}

impl Place {
    /// The bytes `span` of `file`.
    pub fn new(file: &Arc<SourceFile>, span: Range<usize>) -> Self {
        Self { file: Arc::clone(file), start: span.start, end: span.end.max(span.start) }
    }

    /// The file, by its address in memory, and the byte where it starts.
    pub(super) fn identity(&self) -> (usize, usize) {
        (Arc::as_ptr(&self.file).addr(), self.start)
    }

    /// The file's name.
    pub fn file(&self) -> &str {
        self.file.name()
    }

    /// The line it starts in, from 1.
    pub fn line(&self) -> usize {
        self.file.position(self.start).0
    }

    /// The column it starts at, in characters, from 1.
    pub fn column(&self) -> usize {
        self.file.position(self.start).1
    }

    /// The text it covers.
    pub fn text(&self) -> &str {
        self.file.text().get(self.start..self.end).unwrap_or("")
    }
}

/// The same stretch of the same file; two files of one name are two.
impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file) && (self.start, self.end) == (other.start, other.end)
    }
}

impl Eq for Place {}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.file.position(self.start);
        write!(f, "{}:{line}:{column}", self.file.name())
    }
}

/// Whether an input can be used in spite of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, and something was left out or is doubtful.
    Warning,
}

/// One thing that is wrong: what, where, and the way out.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    severity: Severity,
    title: String,
    places: Vec<(Place, String)>,
    help: String,
}

impl Diagnostic {
    /// An error with this title: a sentence without a full stop.
    pub fn error(title: impl Into<String>) -> Self {
        Self { severity: Severity::Error, title: visible(&title.into()), places: Vec::new(), help: String::new() }
    }

    /// A warning with this title.
    pub fn warning(title: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(title) }
    }

    /// Adds a place, with what is to be said about it (or nothing). The first one is where the fault is.
    #[must_use]
    pub fn at(mut self, place: Place, label: impl Into<String>) -> Self {
        self.places.push((place, visible(&label.into())));
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = visible(&help.into());
        self
    }

    /// Whether the input can be used in spite of it.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// What is wrong.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The way out, or nothing.
    pub fn way_out(&self) -> &str {
        &self.help
    }

    /// Where: the place at fault first. Empty for what has no text (a file that cannot be opened).
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().map(|(place, _)| place)
    }

    /// Draws it with its source line, as compilers do; `color` asks for terminal colours.
    pub fn render(&self, color: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = level
            .primary_title(self.title.as_str())
            .elements(std::iter::empty::<Snippet<'_, annotate_snippets::Annotation<'_>>>());
        for (index, (place, label)) in self.places.iter().enumerate() {
            let kind = if index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
            group = draw(group, place, label, kind);
        }
        if !self.help.is_empty() {
            group = group.element(Level::HELP.message(self.help.as_str()));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

fn draw<'a>(
    group: annotate_snippets::Group<'a>,
    place: &'a Place,
    label: &'a str,
    kind: AnnotationKind,
) -> annotate_snippets::Group<'a> {
    let text = place.file.text();
    let (number, column) = place.file.position(place.start);
    let line = place.file.line_bounds(place.start);
    let whole = line.len() <= LONGEST_LINE;
    let window = if whole {
        line
    } else {
        let start = floor_boundary(text, place.start.saturating_sub(60)).max(line.start);
        start..floor_boundary(text, place.start + 120).min(line.end)
    };
    let source = text.get(window.clone()).unwrap_or("");
    let start = place.start.clamp(window.start, window.end) - window.start;
    let end = place.end.clamp(window.start, window.end) - window.start;
    let mut annotation = kind.span(start..end.max(start));
    if !label.is_empty() {
        annotation = annotation.label(label);
    }
    let snippet = Snippet::source(source).line_start(number).annotation(annotation);
    if whole {
        return group.element(snippet.path(place.file.name()));
    }
    group.element(Origin::path(place.file.name()).line(number).char_column(column)).element(snippet)
}

/// All that is wrong with the inputs, in the order of the files; never empty.
#[derive(Clone, Debug)]
pub struct Problems(Vec<Diagnostic>);

impl Problems {
    /// The problems of a reading; `None` when there are none.
    pub fn new(diagnostics: Vec<Diagnostic>) -> Option<Self> {
        (!diagnostics.is_empty()).then_some(Self(diagnostics))
    }

    /// One problem.
    pub fn one(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// Draws them one below the other; from the 51st on they are only counted.
    pub fn render(&self, color: bool) -> String {
        render_all(&self.0, color)
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}

/// Draws diagnostics one below the other; beyond the first 50 it only counts.
pub fn render_all(diagnostics: &[Diagnostic], color: bool) -> String {
    let mut drawn: Vec<String> = diagnostics.iter().take(DRAWN).map(|d| d.render(color)).collect();
    if let Some(more) = diagnostics.len().checked_sub(DRAWN).filter(|more| *more > 0) {
        drawn.push(format!("… and {more} more like these"));
    }
    drawn.join("\n\n")
}

/// Where errors and warnings of a reading gather.
#[derive(Debug, Default)]
pub(super) struct Sink {
    pub problems: Vec<Diagnostic>,
    pub warnings: Vec<Diagnostic>,
}

impl Sink {
    /// Files it under its severity.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        match diagnostic.severity {
            Severity::Error => self.problems.push(diagnostic),
            Severity::Warning => self.warnings.push(diagnostic),
        }
    }
}

/// An input's text in quotation marks, shortened, for a title.
pub(super) fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.chars().count() <= LONGEST {
        return format!("\"{text}\"");
    }
    let short: String = text.chars().take(LONGEST).collect();
    format!("\"{short}…\"")
}

/// Control characters as escapes: an input's text must not steer the terminal it is printed on.
fn visible(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, needle: &str) -> Place {
        let file = Arc::new(SourceFile::new("a.yaml", text));
        let start = text.find(needle).expect("the needle is in the text");
        Place::new(&file, start..start + needle.len())
    }

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let file = SourceFile::new("x", "é: 1\r\nb: 2\n");
        assert_eq!(file.position(0), (1, 1));
        assert_eq!(file.position(2), (1, 2));
        assert_eq!(file.position(7), (2, 1));
        assert_eq!(file.position(12), (3, 1));
        assert_eq!(file.position(999), (3, 1));
        assert_eq!(SourceFile::new("x", "").position(0), (1, 1));
    }

    #[test]
    fn a_problem_is_drawn_with_its_line() {
        let drawn = Diagnostic::error("port 70000 is out of range")
            .at(place("a: 1\nport: 70000\n", "70000"), "ports are 1 to 65535")
            .help("use a port from 1 to 65535")
            .render(false);
        assert_eq!(
            drawn,
            "error: port 70000 is out of range\n --> a.yaml:2:7\n  |\n2 | port: 70000\n  |       ^^^^^ ports are 1 to 65535\n  |\n  \
             = help: use a port from 1 to 65535"
        );
    }

    #[test]
    fn a_line_of_a_megabyte_is_drawn_through_a_window() {
        let text = format!("{}WRONG{}", "x".repeat(500_000), "y".repeat(500_000));
        let drawn = Diagnostic::error("wrong").at(place(&text, "WRONG"), "here").render(false);
        assert!(drawn.contains("a.yaml:1:500001"), "{drawn}");
        assert!(drawn.contains("WRONG") && drawn.len() < 1_000, "{drawn}");
    }

    #[test]
    fn an_input_cannot_steer_the_terminal() {
        let drawn = Diagnostic::error("bad \u{1b}[31m").at(place("a\u{1b}[31mb", "b"), "").render(false);
        assert!(!drawn.contains('\u{1b}'), "{drawn:?}");
    }

    #[test]
    fn many_problems_are_counted() {
        let many = Problems::new(vec![Diagnostic::error("x"); DRAWN + 7]).expect("not empty");
        assert!(many.to_string().ends_with("… and 7 more like these"));
        assert!(Problems::new(Vec::new()).is_none());
    }
}
