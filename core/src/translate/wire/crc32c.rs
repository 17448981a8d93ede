//! SCTP's checksum (CRC32c, RFC 9260 §6.8 and appendix A), updated incrementally.
//!
//! A CRC is linear: changing four bytes that lie `n` bytes before the end changes it by those bytes' own CRC moved on
//! over `n` zeros, which is a multiplication by x^(8n) modulo the polynomial. So rewriting the ports costs some hundred
//! operations whatever the packet's length, needs 64 bytes of constants where a table of remainders needs 1 KiB, and, as
//! with the other protocols, keeps the checksum of a damaged packet wrong. A crate (`crc`) computes whole checksums only.

/// The Castagnoli polynomial, bits reflected, without x^32.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// The polynomial 1: bits are reflected.
const ONE: u32 = 1 << 31;
/// x^(8 * 2^i), for each bit of a 16-bit length.
const POWERS: [u32; 16] = powers();

/// What a change of the first four bytes of a packet of `len` bytes changes in its checksum; XOR it to the checksum.
/// `change` is the XOR of the old and the new bytes, read as a little-endian word.
pub(crate) fn delta(change: u32, len: u16) -> u32 {
    // the word stands for itself times x^32, so the whole length counts
    let mut product = change;
    for (i, &power) in POWERS.iter().enumerate() {
        if len >> i & 1 != 0 {
            product = multiply(product, power);
        }
    }
    product
}

/// Product of two polynomials modulo the CRC's.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = ONE;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = (b >> 1) ^ if b & 1 != 0 { POLYNOMIAL } else { 0 };
        bit >>= 1;
    }
    product
}

const fn powers() -> [u32; 16] {
    let mut powers = [0; 16];
    let mut power = ONE >> 8;
    let mut rest: &mut [u32] = &mut powers;
    while let Some((first, tail)) = rest.split_first_mut() {
        *first = power;
        power = multiply(power, power);
        rest = tail;
    }
    powers
}

/// The whole checksum of bytes, bit by bit; for packets that are built, not for ones that pass.
#[cfg(test)]
pub(crate) fn whole(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| (c >> 1) ^ if c & 1 != 0 { POLYNOMIAL } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::cast_possible_truncation, reason = "bytes of a pattern")]

    use super::*;
    use std::vec::Vec;

    #[test]
    fn the_check_value() {
        assert_eq!(whole(b"123456789"), 0xe306_9283, "the check value of CRC-32/ISCSI");
    }

    #[test]
    fn a_change_of_the_first_word_at_every_length() {
        for len in (4..600_u16).chain([1_000, 1_480, 9_000, 65_515]) {
            let mut bytes: Vec<u8> = (0..len).map(|i| (i.wrapping_mul(37) >> 3) as u8).collect();
            let before = whole(&bytes);
            let new = [0x12, 0xff, 0x00, 0x80];
            let old: [u8; 4] = bytes[..4].try_into().unwrap();
            let change = u32::from_le_bytes(old) ^ u32::from_le_bytes(new);
            bytes[..4].copy_from_slice(&new);
            assert_eq!(before ^ delta(change, len), whole(&bytes), "{len}");
        }
    }
}
