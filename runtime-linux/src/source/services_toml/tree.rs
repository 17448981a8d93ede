//! TOML text into the document tree.

use super::super::diagnostic::{Diagnostic, Place, Sink, SourceFile};
use super::super::document::{Entry, Node, Value};
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Parses a file into the document tree. After a syntax error there is no tree: what the parser guesses would only
/// raise more complaints.
pub(in super::super) fn parse<'t>(file: &'t Arc<SourceFile>, sink: &mut Sink) -> Option<Node<'t>> {
    let (table, errors) = DeTable::parse_recoverable(file.text());
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        sink.push(
            Diagnostic::error(format!("TOML syntax: {}", error.message()))
                .at(Place::new(file, span), "")
                .help("text needs quotes, lists need brackets"),
        );
    }
    errors.is_empty().then(|| convert_table(table.get_ref(), span(&table.span())))
}

fn convert<'t>(value: &Spanned<DeValue<'t>>) -> Node<'t> {
    let plain = |text: String| Value::Scalar { text: text.into(), quoted: false };
    let at = span(&value.span());
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Scalar { text: text.clone(), quoted: true },
        DeValue::Integer(number) if number.radix() != 10 => plain(
            i128::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| number.to_string(), |n| n.to_string()),
        ),
        DeValue::Integer(number) => plain(number.as_str().to_owned()),
        DeValue::Float(number) => plain(number.as_str().to_owned()),
        DeValue::Boolean(truth) => plain(truth.to_string()),
        DeValue::Datetime(time) => plain(time.to_string()),
        DeValue::Array(items) => Value::Seq(items.iter().map(convert).collect()),
        DeValue::Table(table) => return convert_table(table, at),
    };
    Node { value, span: at }
}

fn convert_table<'t>(table: &DeTable<'t>, at: (u32, u32)) -> Node<'t> {
    let entry = |(key, value): (&Spanned<toml::de::DeString<'t>>, &Spanned<DeValue<'t>>)| Entry {
        key: key.get_ref().clone(),
        key_span: span(&key.span()),
        value: convert(value),
    };
    Node { value: Value::Map(table.iter().map(entry).collect()), span: at }
}

fn span(range: &std::ops::Range<usize>) -> (u32, u32) {
    let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    (offset(range.start), offset(range.end))
}
