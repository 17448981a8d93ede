//! Reading and writing of little-endian fields in byte slices; every access is checked and total.

/// A little-endian `u32` in memory of bytes, which may lie anywhere.
pub(crate) type Word = [u8; 4];

/// A byte slice that is read from its front. Each method is `None` where the slice is too short.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A byte slice that is filled from its front. Each method is `None`, and writes nothing, where the room is short.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    pub fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0 }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.at
    }

    pub fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.at.checked_add(bytes.len())?;
        self.out.get_mut(self.at..end)?.copy_from_slice(bytes);
        self.at = end;
        Some(())
    }

    /// The next so many bytes, to be written by the caller.
    pub fn take(&mut self, len: usize) -> Option<&mut [u8]> {
        let start = self.at;
        self.at = start.checked_add(len).filter(|end| *end <= self.out.len())?;
        self.out.get_mut(start..self.at)
    }

    /// What was written since `len` bytes were written.
    pub fn since(&mut self, len: usize) -> Option<&mut [u8]> {
        self.out.get_mut(len..self.at)
    }

    pub fn u8(&mut self, value: u8) -> Option<()> {
        self.put(&[value])
    }

    pub fn u16(&mut self, value: u16) -> Option<()> {
        self.put(&value.to_le_bytes())
    }

    pub fn u32(&mut self, value: u32) -> Option<()> {
        self.put(&value.to_le_bytes())
    }
}

/// `usize` of a `u32`; saturates on 16-bit targets, where no such table fits anyway.
pub(crate) fn index(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// `u32` of a length; saturates, so that a comparison with a limit fails.
pub(crate) fn count(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The high half of a 32 by 32 bit product: `value` scaled from `0..2^32` to `0..range`, as the kernel's
/// `reciprocal_scale` does it for `numgen random` and `jhash`.
#[allow(clippy::cast_possible_truncation, reason = "the product of two u32 shifted by 32 fits")]
pub(crate) const fn scale(value: u32, range: u32) -> u32 {
    let product = (value as u64).wrapping_mul(range as u64) >> 32;
    product as u32
}
