//! What kind of input a text is, by its content alone: a pipe has no file name.

use super::iptables;

/// The bytes that a compiled program starts with.
pub(super) const PROGRAM_MAGIC: &[u8] = b"NATP";

/// The kinds of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Kubernetes manifests, YAML or JSON.
    Manifest,
    /// `services.toml`.
    Toml,
    /// An `iptables-save` listing, perhaps inside other text.
    Listing,
    /// Nothing but blanks and comments.
    Empty,
    /// None of these.
    Unknown,
}

/// The kind of a text. A listing is known by any of its lines, since it may stand inside prose; the others by their first
/// line that says something.
pub(super) fn kind(text: &str) -> Kind {
    if line_starts(text).any(|start| tells(text, start)) {
        return Kind::Listing;
    }
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let Some(first) = lines.next() else { return Kind::Empty };
    if first.starts_with('[') || is_assignment(first) {
        return Kind::Toml;
    }
    if first.starts_with('{') || first.starts_with("---") || first.starts_with('%') || is_mapping(first) {
        return Kind::Manifest;
    }
    if first.starts_with("- ") && lines.take(50).any(is_mapping) { Kind::Manifest } else { Kind::Unknown }
}

/// Where lines start: found faster than the lines themselves, and few of them begin as a listing's do.
fn line_starts(text: &str) -> impl Iterator<Item = usize> {
    std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1))
}

/// Whether the line that starts here is one of a listing.
fn tells(text: &str, start: usize) -> bool {
    text.as_bytes().get(start).is_some_and(|first| b"*:-[".contains(first))
        && text.get(start..).and_then(|rest| rest.lines().next()).is_some_and(iptables::is_telling_line)
}

/// `key = value`, the key bare, dotted or quoted.
fn is_assignment(line: &str) -> bool {
    line.split_once('=').is_some_and(|(key, _)| is_key(key.trim_end()))
}

/// `key: value` or `key:`.
fn is_mapping(line: &str) -> bool {
    let line = line.trim_start_matches("- ");
    line.split_once(':').is_some_and(|(key, rest)| is_key(key) && (rest.is_empty() || rest.starts_with([' ', '\t'])))
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./\"'".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_known_by_its_content() {
        let cases = [
            ("", Kind::Empty),
            ("# nothing\n\n", Kind::Empty),
            ("apiVersion: v1\nkind: Service\n", Kind::Manifest),
            ("# comment\n---\napiVersion: v1\n", Kind::Manifest),
            ("{\n \"kind\": \"List\"}", Kind::Manifest),
            ("# mine\n[[service]]\n", Kind::Toml),
            ("[node]\n", Kind::Toml),
            ("service = []\n", Kind::Toml),
            ("*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n", Kind::Listing),
            ("A post about services\n\n-A KUBE-SERVICES -j KUBE-NODEPORTS\n", Kind::Listing),
            ("[12:34] -A KUBE-SERVICES -j KUBE-NODEPORTS\n", Kind::Listing),
            ("Dear reader,\nthis is a letter.\n", Kind::Unknown),
            ("#!/bin/sh\necho hello\n", Kind::Unknown),
        ];
        for (text, expected) in cases {
            assert_eq!(kind(text), expected, "{text:?}");
        }
    }
}
