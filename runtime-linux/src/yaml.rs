//! JSON values as block YAML, in the order and the look of `kubectl get -o yaml`.

use serde_json::Value;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// A document.
pub(crate) fn write(value: &Value) -> String {
    let mut out = String::new();
    put(&mut out, value, 0, false);
    out
}

/// Writes a value that starts on the current line (`inline`) or on a new one, at this indentation.
fn put(out: &mut String, value: &Value, indent: usize, inline: bool) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (i, (key, value)) in map.iter().enumerate() {
                if i > 0 || !inline {
                    let _ = write!(out, "{:indent$}", "");
                }
                let _ = write!(out, "{}:", text(key));
                below(out, value, indent);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (i, item) in items.iter().enumerate() {
                if i > 0 || !inline {
                    let _ = write!(out, "{:indent$}", "");
                }
                out.push_str("- ");
                put(out, item, indent + 2, true);
            }
        }
        scalar => _ = writeln!(out, "{}", scalar_text(scalar)),
    }
}

/// The value of a key: a scalar behind it, anything else on the lines below.
fn below(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            put(out, value, indent + 2, false);
        }
        // kubectl does not indent lists
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            put(out, value, indent, false);
        }
        scalar => _ = writeln!(out, " {}", scalar_text(scalar)),
    }
}

fn scalar_text(value: &Value) -> String {
    match value {
        Value::String(s) => text(s),
        // empty ones are the same in JSON
        other => other.to_string(),
    }
}

/// Plain where no reader can take it for anything but text, else in JSON's quotes, which are YAML's.
fn text(text: &str) -> String {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if plain || text.parse::<Ipv4Addr>().is_ok() { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};
    use serde_json::json;

    #[test]
    fn looks_like_kubectl() {
        let value = json!({
            "kind": "List",
            "items": [{ "a": { "b": [1, "10.0.0.1", "2001:db8::1"] }, "c": "true" }, { "d": [], "e": {}, "f": "" }],
            "n.dev/x": "1", "v": "v1", "s": "say \"hi\"\n",
        });
        let expected = "items:\n- a:\n    b:\n    - 1\n    - 10.0.0.1\n    - \"2001:db8::1\"\n  c: \"true\"\n- d: []\n  \
                        e: {}\n  f: \"\"\nkind: List\nn.dev/x: \"1\"\ns: \"say \\\"hi\\\"\\n\"\nv: v1\n";
        assert_eq!(write(&value), expected);
    }

    /// The value that starts with an event, by YAML's core schema as far as JSON goes.
    fn value<'i>(event: &Event<'i>, parser: &mut Parser<'i, StrInput<'i>>) -> Value {
        match event {
            Event::Scalar(text, ScalarStyle::Plain, ..) => {
                serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_ref()))
            }
            Event::Scalar(text, ..) => Value::from(text.as_ref()),
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match next_of(parser) {
                        Event::SequenceEnd => return Value::Array(items),
                        event => items.push(value(&event, parser)),
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut map = serde_json::Map::new();
                loop {
                    match next_of(parser) {
                        Event::MappingEnd => return Value::Object(map),
                        Event::Scalar(key, ..) => {
                            let event = next_of(parser);
                            map.insert(key.into_owned(), value(&event, parser));
                        }
                        event => panic!("{event:?} is no key"),
                    }
                }
            }
            event => panic!("{event:?} starts no value"),
        }
    }

    fn next_of<'i>(parser: &mut Parser<'i, StrInput<'i>>) -> Event<'i> {
        parser.next_event().expect("more events").expect("well-formed YAML").0
    }

    fn read(text: &str) -> Value {
        let mut parser = Parser::new_from_str(text);
        for expected in ["StreamStart", "DocumentStart"] {
            let event = next_of(&mut parser);
            assert!(format!("{event:?}").starts_with(expected), "{event:?}");
        }
        let event = next_of(&mut parser);
        value(&event, &mut parser)
    }

    #[test]
    fn reads_back() {
        const TEXTS: [&str; 24] = [
            "",
            " ",
            "~",
            "null",
            "No",
            "y",
            "1",
            "-1.5",
            "1e3",
            "0x10",
            "2026-01-01",
            "a b",
            "a: b",
            "- a",
            "a #b",
            "#",
            "\"q\"",
            "it's",
            "line\nline\n",
            "\ttab",
            "é",
            "{}",
            "10.0.0.1",
            "tab\u{7f}\u{85}\u{2028}\u{1F600}",
        ];
        let scalars = json!([null, true, false, 0, -7, 0.25, 18_446_744_073_709_551_615_u64, [], {}]);
        let texts = json!(TEXTS);
        let keys: serde_json::Map<String, Value> =
            TEXTS.iter().map(|text| ((*text).to_owned(), json!([text]))).collect();
        let nested = json!([[1, [2, [3, {}], []]], [[{ "a": [[{ "b": 1, "c": [] }], 2] }]], { "d": { "e": [{}] } }]);
        for value in [
            json!({}),
            json!("a"),
            scalars.clone(),
            texts,
            Value::Object(keys),
            nested.clone(),
            json!({ "x": [scalars, nested] }),
        ] {
            let text = write(&value);
            assert_eq!(read(&text), value, "{text}");
        }
    }
}
