//! How long a stretch of an input can go on without a key or a line.
//!
//! A text of a hundred megabytes that is one value is refused while it is read, before it takes its memory. Kubernetes
//! keeps objects below 1.5 MiB, so no value is that long.

/// The longest stretch, in bytes.
pub(super) const LONGEST: usize = 4 * 1024 * 1024;

/// Watches an input that comes in chunks.
#[derive(Debug, Default)]
pub(super) struct Stretch {
    /// Bytes since the last chunk with a byte that ends a key.
    keyless: usize,
    /// Bytes since the last chunk with a byte that ends a line or a text.
    endless: usize,
}

impl Stretch {
    /// Takes the next chunk; `false` if the input has gone on too long. Whole chunks count, so a stretch may be two chunks
    /// longer before it is noticed; most chunks are not looked at beyond their first line.
    pub fn goes_on(&mut self, chunk: &[u8]) -> bool {
        let since = |before: usize, marks: [u8; 2]| {
            if chunk.iter().any(|byte| marks.contains(byte)) { 0 } else { before + chunk.len() }
        };
        self.keyless = since(self.keyless, [b':', b'=']);
        self.endless = since(self.endless, [b'\n', b'"']);
        self.keyless.max(self.endless) <= LONGEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes of an endless repetition are taken; none if there is no end.
    fn taken(text: &str) -> Option<usize> {
        let chunk = text.repeat(64 * 1024 / text.len());
        let mut stretch = Stretch::default();
        let chunks = (0..1_000).position(|_| !stretch.goes_on(chunk.as_bytes()))?;
        Some(chunks * chunk.len())
    }

    #[test]
    fn one_value_is_too_much() {
        for text in ["a", "  aaaa\n", "aaaa: ", "\"", "[", "- x\n"] {
            assert!(taken(text).is_some_and(|bytes| bytes <= LONGEST), "{text:?}");
        }
    }

    #[test]
    fn keys_and_lines_go_on() {
        for text in ["{\"a\":\"b\"},", "name: x\n", "name = x\n", "-A KUBE-SVC -m comment --comment \"a/b:c\" -j X\n"] {
            assert_eq!(taken(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_longest_stretch_is_taken() {
        let mut stretch = Stretch::default();
        assert!(stretch.goes_on(&vec![b'a'; LONGEST]));
        assert!(!stretch.goes_on(b"a"));
    }
}
