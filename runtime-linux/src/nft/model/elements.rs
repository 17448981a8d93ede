//! Elements of one set.

/// Elements of one set, flat: no allocation per element.
///
/// For an interval set the data is the inclusive upper end of the range, as wide as the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elements {
    key_len: usize,
    data_len: usize,
    bytes: Vec<u8>,
    /// One end offset into `text` per element, or empty if no element has a comment.
    comment_ends: Vec<u32>,
    text: String,
    /// One per element up to the last that has counted anything.
    counts: Vec<Count>,
}

/// What a counter has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Their bytes, network headers included.
    pub bytes: u64,
}

/// One element of [`Elements`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// Key bytes.
    pub key: &'a [u8],
    /// Data bytes; empty for a set without data.
    pub data: &'a [u8],
    /// Comment; empty for none.
    pub comment: &'a str,
    /// What it has counted; a new element goes on from there.
    pub count: Count,
}

impl Elements {
    /// An empty list of elements of these widths, in bytes.
    pub fn new(key_len: usize, data_len: usize) -> Self {
        Self { key_len, data_len, ..Self::default() }
    }

    /// Room for `additional` more elements.
    pub fn reserve(&mut self, additional: usize) {
        self.bytes.reserve(additional * (self.key_len + self.data_len));
    }

    /// Appends an element; `comment` may be empty.
    ///
    /// # Panics
    /// If key or data are not of the widths given to [`Elements::new`].
    pub fn push(&mut self, key: &[u8], data: &[u8], comment: &str) {
        assert!(key.len() == self.key_len && data.len() == self.data_len, "element of another width");
        if !comment.is_empty() && self.comment_ends.is_empty() {
            self.comment_ends.resize(self.len(), 0);
        }
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(data);
        if !comment.is_empty() || !self.comment_ends.is_empty() {
            self.text.push_str(comment);
            self.comment_ends.push(self.text_len());
        }
    }

    fn text_len(&self) -> u32 {
        u32::try_from(self.text.len()).expect("comments of a set stay under 4 GiB")
    }

    /// Appends an element without a comment whose data stand behind its key.
    ///
    /// # Panics
    /// If both are not together as wide as was given to [`Elements::new`].
    pub fn push_joined(&mut self, key_and_data: &[u8]) {
        assert!(key_and_data.len() == self.key_len + self.data_len, "element of another width");
        self.bytes.extend_from_slice(key_and_data);
        if !self.comment_ends.is_empty() {
            self.comment_ends.push(self.text_len());
        }
    }

    /// Says what the last element has counted.
    pub fn set_count(&mut self, count: Count) {
        if count != Count::default() {
            self.counts.resize(self.len(), Count::default());
            if let Some(last) = self.counts.last_mut() {
                *last = count;
            }
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len().checked_div(self.key_len + self.data_len).unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes of a key.
    pub fn key_len(&self) -> usize {
        self.key_len
    }

    /// Bytes of an element's data.
    pub fn data_len(&self) -> usize {
        self.data_len
    }

    /// Whether any element has a comment.
    pub fn has_comments(&self) -> bool {
        !self.text.is_empty()
    }

    /// The element at a position of [`Elements::iter`].
    ///
    /// # Panics
    /// If there are not so many elements.
    pub fn get(&self, i: usize) -> Element<'_> {
        let stride = self.key_len + self.data_len;
        let (key, data) = self.bytes[i * stride..(i + 1) * stride].split_at(self.key_len);
        Element { key, data, comment: self.comment(i), count: self.counts.get(i).copied().unwrap_or_default() }
    }

    /// The elements, in order of insertion.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Element<'_>> + '_ {
        (0..self.len()).map(|i| self.get(i))
    }

    fn comment(&self, i: usize) -> &str {
        let Some(&end) = self.comment_ends.get(i) else { return "" };
        let start = i.checked_sub(1).map_or(0, |i| self.comment_ends[i]);
        &self.text[start as usize..end as usize]
    }
}
