//! JSON values as block YAML, in the order and the look of `kubectl get -o yaml`.

use serde_json::Value;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// A document.
pub(super) fn write(value: &Value) -> String {
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
            for item in items {
                let _ = write!(out, "{:indent$}- ", "");
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
}
