//! The record map: where records start, so that a frontend's record offset is checked in bounded time.
//!
//! The records are cut into pages of 255 bytes. The map has a byte for each page but the first, whose first record starts
//! at 0: how far behind the page's start its first record starts, or 255 if none does.

use super::record::{AddressForm, Shape, plain_len};
use crate::bytes::{Reader, count, index};

/// Bytes of a page.
const PAGE: u32 = 255;
/// Entry of a page that no record starts in.
const NONE: u8 = 255;

/// Bytes of the map of this many bytes of records.
pub(crate) const fn len(records: u32) -> u32 {
    records.saturating_sub(1) / PAGE
}

/// Writes a map while a reader or the compiler walks through the records.
pub(crate) struct Pages<F> {
    /// Gets each entry in order; what it says ends the walk.
    entry: F,
    /// Pages that have their entries; the first has none.
    done: u32,
}

impl<F: FnMut(u8) -> Option<()>> Pages<F> {
    pub fn new(entry: F) -> Self {
        Self { entry, done: 1 }
    }

    /// The next record starts at this offset.
    pub fn start(&mut self, offset: u32) -> Option<()> {
        let page = offset / PAGE;
        if page < self.done {
            return Some(());
        }
        while self.done < page {
            self.put(NONE)?;
        }
        self.put(u8::try_from(offset % PAGE).ok()?)
    }

    /// There are no more records; they have this many bytes.
    pub fn end(&mut self, records: u32) -> Option<()> {
        while self.done <= len(records) {
            self.put(NONE)?;
        }
        Some(())
    }

    fn put(&mut self, entry: u8) -> Option<()> {
        self.done = self.done.checked_add(1)?;
        (self.entry)(entry)
    }
}

/// Where a walk to the first record behind an offset may begin: the first record of the offset's page, or of the last page
/// before it in which one starts.
pub(crate) fn start_before(map: &[u8], offset: u32) -> u32 {
    let mut page = offset / PAGE;
    while let Some(entry) = page.checked_sub(1) {
        let first = map.get(index(entry)).copied().unwrap_or(NONE);
        let start = page.saturating_mul(PAGE).saturating_add(first.into());
        if first != NONE && start <= offset {
            return start;
        }
        page = entry;
    }
    0
}

/// Whether a record starts at this offset: walks from the start of its page.
pub(crate) fn is_start(map: &[u8], records: &[u8], form: AddressForm, offset: u32) -> bool {
    let page = offset / PAGE;
    let first = match page.checked_sub(1) {
        None => 0,
        Some(entry) => match map.get(index(entry)) {
            Some(&first) if first != NONE => first,
            _ => return false,
        },
    };
    let mut at = page.saturating_mul(PAGE).saturating_add(first.into());
    while at < offset {
        let Some(len) = record_len(records, form, at) else { return false };
        at = at.saturating_add(len);
    }
    at == offset && index(offset) < records.len()
}

/// Bytes of the record at an offset of records that are sound.
pub(crate) fn record_len(records: &[u8], form: AddressForm, at: u32) -> Option<u32> {
    let bytes = records.get(index(at)..)?;
    plain_len(*bytes.first()?, form).or_else(|| {
        let mut rest = Reader(bytes);
        Shape::read(&mut rest, form)?;
        Some(count(bytes.len().saturating_sub(rest.0.len())))
    })
}
