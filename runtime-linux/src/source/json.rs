//! JSON text to trees.
//!
//! What is not JSON through and through is given up: the YAML parser reads it again, and either it is YAML after all or the
//! parser says what is wrong.

use super::document::MAX_DEPTH;
use super::tree::{Builder, Bytes, Collection, Consumer, Fault};
use hifijson::num::LexWrite as _;
use hifijson::str::LexAlloc as _;
use hifijson::token::Lex as _;
use hifijson::{Read as _, SliceLexer};
use std::borrow::Cow;

/// Whether a text may be JSON.
pub(super) fn looks_like(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// That a text is no JSON, or holds what a tree cannot.
#[derive(Debug)]
pub(super) struct NotJson;

impl From<Fault> for NotJson {
    fn from(_: Fault) -> Self {
        Self
    }
}

/// Reads the objects of a text, which may follow each other.
pub(super) fn read<C: Consumer>(text: &str, consumer: &mut C) -> Result<(), NotJson> {
    let mut reader = Reader { text, lexer: SliceLexer::new(text.as_bytes()), tree: Builder::new(consumer) };
    while let Some(next) = reader.lexer.ws_peek() {
        if next != b'{' {
            return Err(NotJson);
        }
        reader.value(next)?;
    }
    Ok(())
}

struct Reader<'t, 'c, C> {
    text: &'t str,
    lexer: SliceLexer<'t>,
    tree: Builder<'t, 'c, C>,
}

impl<'t, C: Consumer> Reader<'t, '_, C> {
    fn offset(&self) -> u32 {
        u32::try_from(self.text.len() - self.lexer.as_slice().len()).unwrap_or(u32::MAX)
    }

    /// A value; `next` is its first byte. Lists and maps nest no deeper than the tree lets them.
    fn value(&mut self, next: u8) -> Result<(), NotJson> {
        let start = self.offset();
        match next {
            b'{' => self.collection(Collection::Map, b'}', Self::entry),
            b'[' => self.collection(Collection::Seq, b']', Self::value),
            b'"' => {
                let (text, span) = self.string()?;
                Ok(self.tree.scalar(text, true, span)?)
            }
            _ => {
                self.plain(next)?;
                let span = (start, self.offset());
                let text = self.text.get(super::document::range(span)).ok_or(NotJson)?;
                Ok(self.tree.scalar(Cow::Borrowed(text), false, span)?)
            }
        }
    }

    fn collection(
        &mut self,
        kind: Collection,
        closing: u8,
        member: impl FnMut(&mut Self, u8) -> Result<(), NotJson>,
    ) -> Result<(), NotJson> {
        let start = self.offset();
        self.tree.start(kind, (start, start))?;
        self.members(closing, member)?;
        Ok(self.tree.end(self.offset())?)
    }

    fn entry(&mut self, next: u8) -> Result<(), NotJson> {
        let (key, span) = self.key(next)?;
        // who changed which field and when: a large part of what the API server gives, and nothing of it is read
        let unread = key == "managedFields";
        self.tree.scalar(key, true, span)?;
        let next = self.lexer.ws_peek().ok_or(NotJson)?;
        if !unread {
            return self.value(next);
        }
        let start = self.offset();
        self.skip(next, self.tree.depth())?;
        Ok(self.tree.scalar(Cow::Borrowed("null"), false, (start, self.offset()))?)
    }

    /// Passes a value inside so many others.
    fn skip(&mut self, next: u8, depth: usize) -> Result<(), NotJson> {
        if depth > MAX_DEPTH {
            return Err(NotJson);
        }
        match next {
            b'{' => self.members(b'}', |reader, next| {
                reader.key(next)?;
                let next = reader.lexer.ws_peek().ok_or(NotJson)?;
                reader.skip(next, depth + 1)
            }),
            b'[' => self.members(b']', |reader, next| reader.skip(next, depth + 1)),
            b'"' => self.string().map(drop),
            _ => self.plain(next),
        }
    }

    /// What stands between a bracket and the closing one, separated by commas.
    fn members(
        &mut self,
        closing: u8,
        mut member: impl FnMut(&mut Self, u8) -> Result<(), NotJson>,
    ) -> Result<(), NotJson> {
        self.lexer.take_next();
        let mut next = self.lexer.ws_peek().ok_or(NotJson)?;
        while next != closing {
            member(self, next)?;
            next = self.lexer.ws_peek().ok_or(NotJson)?;
            if next == b',' {
                self.lexer.take_next();
                // a comma before the bracket is no JSON, and the bracket no member
                next = self.lexer.ws_peek().filter(|next| *next != closing).ok_or(NotJson)?;
            } else if next != closing {
                return Err(NotJson);
            }
        }
        self.lexer.take_next();
        Ok(())
    }

    /// A key with its colon.
    fn key(&mut self, next: u8) -> Result<(Cow<'t, str>, Bytes), NotJson> {
        if next != b'"' {
            return Err(NotJson);
        }
        let key = self.string()?;
        self.lexer.expect(SliceLexer::ws_peek, b':').ok_or(NotJson)?;
        Ok(key)
    }

    fn string(&mut self) -> Result<(Cow<'t, str>, Bytes), NotJson> {
        let start = self.offset();
        self.lexer.take_next();
        let text = self.lexer.str_string().map_err(|_| NotJson)?;
        Ok((text, (start, self.offset())))
    }

    /// Passes a number, a truth value or null.
    fn plain(&mut self, next: u8) -> Result<(), NotJson> {
        if next == b'-' || next.is_ascii_digit() {
            self.lexer.num_string().validated().map_err(|_| NotJson)?;
        } else {
            self.lexer.null_or_bool().ok_or(NotJson)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnostic::SourceFile;
    use super::super::tests::Random;
    use super::super::tree::FEW_KEYS;
    use super::super::tree::collect::Documents;
    use super::super::yaml;
    use std::fmt::Write as _;
    use std::sync::Arc;

    fn read(text: &str) -> Option<String> {
        let mut documents = Documents::default();
        super::read(text, &mut documents).ok().map(|()| documents.show(text))
    }

    /// What the YAML parser makes of it, unless it complains.
    fn slowly(text: &str) -> Option<String> {
        let mut documents = Documents::default();
        let complaints = yaml::read(&Arc::new(SourceFile::new("x", text)), &mut documents);
        complaints.is_empty().then(|| documents.show(text))
    }

    #[test]
    fn trees_and_places_are_the_yaml_parsers() {
        let text = "{\"a\": [1, -2, true ,null,\n\t\"x\\n\\u00e9é\"], \"b\": {\"c\":\"\", \"d\": { }},\n \"e\": [ ], \"f\": 1.50e3}";
        assert_eq!(read(text).expect("JSON"), slowly(text).expect("YAML"));
    }

    /// A value of random shape, with random blanks.
    fn value(random: &mut Random, depth: usize, out: &mut String) {
        const SCALARS: [&str; 16] = [
            "0",
            "-7",
            "80",
            "1.5",
            "2e-3",
            "true",
            "false",
            "null",
            "\"\"",
            "\"a b\"",
            "\"10.0.0.1\"",
            "\"# no: comment\"",
            "\"\\\"q\\\\\"",
            "\"\\u00e9\"",
            "\"é\"",
            "\"~\"",
        ];
        const BLANKS: [&str; 5] = ["", " ", "\n", "\n  ", " \r\n    "];
        let blank = |random: &mut Random, out: &mut String| out.push_str(BLANKS[random.below(BLANKS.len())]);
        let kind = if depth == 0 { 0 } else { random.below(2 + depth) };
        match kind {
            0 | 1 => {
                let map = kind == 0;
                out.push(if map { '{' } else { '[' });
                for index in 0..random.below(FEW_KEYS + 4) / depth.max(1) {
                    out.push_str(if index > 0 { "," } else { "" });
                    blank(random, out);
                    if map {
                        let _ = write!(out, "\"k{index}é\":");
                        out.push_str(if random.below(2) == 0 { " " } else { "\n" });
                    }
                    value(random, depth + 1, out);
                    blank(random, out);
                }
                out.push(if map { '}' } else { ']' });
            }
            _ => out.push_str(SCALARS[random.below(SCALARS.len())]),
        }
    }

    #[test]
    fn any_json_gives_the_trees_of_the_yaml_parser() {
        let mut random = Random(0x6A73_6F6E);
        for _ in 0..100 {
            let mut text = String::new();
            value(&mut random, 0, &mut text);
            assert_eq!(read(&text), slowly(&text), "{text}");
        }
    }

    /// Whatever is read here the YAML parser reads alike, if it reads it at all: it knows no objects one behind the other.
    #[test]
    fn damaged_json_gives_the_trees_of_the_yaml_parser_or_none() {
        let mut random = Random(3);
        let (mut both, mut neither) = (0, 0);
        for _ in 0..100 {
            let mut text = String::new();
            value(&mut random, 0, &mut text);
            for _ in 0..=random.below(3) {
                let at = random.below(text.len());
                let pieces = ["{", "}", "[", "]", ",", ":", "\"", "x", "1", "-", "."];
                if text.is_char_boundary(at) {
                    text.insert_str(at, pieces[random.below(pieces.len())]);
                }
            }
            match (read(&text), slowly(&text)) {
                (Some(here), Some(there)) => {
                    both += 1;
                    assert_eq!(here, there, "{text}");
                }
                (None, _) => neither += 1,
                (Some(_), None) => {}
            }
        }
        assert!(both > 5 && neither > 20, "{both} {neither}");
    }

    #[test]
    fn what_is_no_json_is_given_up() {
        let deep = "{\"a\":".repeat(100_000);
        let deep_unread = format!("{{\"managedFields\": {}", "[".repeat(100_000));
        for text in [
            "{a: 1}",
            "{\"a\": 1, \"a\": 2}",
            "{\"a\": 1",
            "{\"a\": 1,}",
            "{\"a\": [1,]}",
            "{\"a\": [,]}",
            "{\"a\" 1}",
            "{\"a\": 01}",
            "{\"a\": 1.}",
            "{\"a\": tru}",
            "{\"a\": \"\t\"}",
            "{\"a\": \"\\q\"}",
            "{} x",
            "[]",
            &deep,
            &deep_unread,
        ] {
            assert!(read(text).is_none(), "{text:.60}");
        }
    }

    #[test]
    fn objects_may_follow_each_other() {
        let text = "{\"a\": 1} {\"b\": \"\\ud83d\\ude00\"}\n";
        assert_eq!(read(text).expect("JSON"), "0-8{1-4a:6-7\"1\"}\n9-30{10-13b:15-29q\"\u{1F600}\"}");
    }

    #[test]
    fn managed_fields_are_passed() {
        let text = "{\"managedFields\": [{\"x\": {}, \"x\": \"]\", \"y\": [1, null]}], \"z\": 1}";
        let tree = read(text).expect("JSON");
        assert_eq!(tree, "0-64{1-16managedFields:18-55\"null\",57-60z:62-63\"1\"}");
    }
}
