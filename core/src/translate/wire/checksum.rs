//! The Internet checksum (RFC 1071), updated incrementally (RFC 1624 §3, equation 3).
//!
//! All sums are over 16-bit words in memory order: a one's complement sum does not depend on the byte order (RFC 1071
//! §2 (B)). An update keeps a right checksum right and a wrong one wrong; forwarding never hides damage.

/// What taking one hop off adds to a header's sum: the word of TTL and protocol falls by 0x0100.
pub(crate) const HOP: u16 = u16::from_ne_bytes([0xfe, 0xff]);

/// Folds a sum to 16 bits. A sum that is not zero stays so.
pub(crate) const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff).wrapping_add(sum >> 16);
    low((once & 0xffff).wrapping_add(once >> 16))
}

#[expect(clippy::cast_possible_truncation, reason = "the caller folded the sum")]
const fn low(sum: u32) -> u16 {
    sum as u16
}

/// The change from one sum to another, to be given to [`update`].
pub(crate) const fn delta(old: u32, new: u32) -> u16 {
    fold((!fold(old) as u32).wrapping_add(fold(new) as u32))
}

/// Both changes together.
pub(crate) const fn add(a: u16, b: u16) -> u16 {
    let sum = (a as u32).wrapping_add(b as u32);
    low((sum & 0xffff).wrapping_add(sum >> 16))
}

/// The checksum after its data's sum changed by `delta`.
pub(crate) const fn updated(checksum: u16, delta: u16) -> u16 {
    // RFC 1624's ~(~checksum + delta): the complements turn the addition and its carry into a subtraction and its borrow
    let (difference, borrow) = checksum.overflowing_sub(delta);
    difference.wrapping_sub(borrow as u16)
}

/// Updates a checksum field of IP, TCP or ICMP.
pub(crate) fn update(field: [u8; 2], delta: u16) -> [u8; 2] {
    updated(u16::from_ne_bytes(field), delta).to_ne_bytes()
}

/// Updates UDP's checksum field: 0 means that there is none and stays, a computed 0 is written as 0xffff (RFC 768).
/// The same holds on IPv6, where a zero is legal for tunnels (RFC 6935 §5) and must not turn into a value.
pub(crate) fn update_udp(field: [u8; 2], delta: u16) -> [u8; 2] {
    let checksum = u16::from_ne_bytes(field);
    if checksum == 0 {
        return field;
    }
    match updated(checksum, delta) {
        0 => [0xff, 0xff],
        other => other.to_ne_bytes(),
    }
}

/// The sum of a packet's bytes (at most 128 KiB), folded; an odd last byte is padded with a zero.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<2>();
    let last = rest.first().map_or(0, |&b| u16::from_ne_bytes([b, 0]));
    fold(words.iter().fold(last.into(), |sum: u32, &w| sum.wrapping_add(u16::from_ne_bytes(w).into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(words: &[u16]) -> u16 {
        let mut sum: u32 = words.iter().map(|&w| u32::from(w)).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !low(sum)
    }

    #[test]
    fn every_checksum_takes_every_kind_of_change() {
        // every old word, and new words on both sides of every carry
        for old in 0..=u16::MAX {
            for new in [0, 1, old, !old, old.wrapping_add(1), old.wrapping_sub(1), 0x7fff, 0x8000, 0xfffe, 0xffff] {
                let before = reference(&[old, 0x1234, 0x0045]);
                let change = delta(old.into(), new.into());
                assert_eq!(updated(before, change), reference(&[new, 0x1234, 0x0045]), "{old:#x} to {new:#x}");
                assert_eq!(updated(updated(before, change), !change), before, "the complement undoes the change");
            }
        }
    }

    /// The UDP rule for every checksum, under deltas around every edge.
    #[test]
    fn udp_zero_rule_exhaustively() {
        for checksum in 0..=u16::MAX {
            for change in [0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff, checksum, !checksum, checksum.wrapping_add(1)] {
                let out = u16::from_ne_bytes(update_udp(checksum.to_ne_bytes(), change));
                if checksum == 0 {
                    assert_eq!(out, 0, "no checksum stays none");
                    continue;
                }
                assert_ne!(out, 0, "{checksum:#x} + {change:#x}");
                // 0 and 0xffff are the same number in one's complement
                let expected = (u32::from(!checksum) + u32::from(change)) % 0xffff;
                assert_eq!(u32::from(!out) % 0xffff, expected, "{checksum:#x} + {change:#x}");
            }
        }
    }

    #[test]
    fn a_hop_is_one_less_in_the_ttl() {
        let word = |ttl: u8| u16::from_ne_bytes([ttl, 6]);
        for ttl in 1..=255 {
            let change = delta(word(ttl).into(), word(ttl - 1).into());
            assert_eq!(updated(0x1234, change), updated(0x1234, HOP));
        }
    }

    #[test]
    fn sums_of_bytes() {
        // RFC 1071 §3's example: 00 01 f2 03 f4 f5 f6 f7 sums to ddf2
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&bytes).to_ne_bytes(), [0xdd, 0xf2]);
        assert_eq!(sum(&[1]), u16::from_ne_bytes([1, 0]));
        assert_eq!(sum(&[]), 0);
    }
}
