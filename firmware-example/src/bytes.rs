//! Writing packets without a possible panic, and the Internet checksum.

/// Writes parts behind each other at the start of `room` and returns their length; 0 if they do not fit.
pub fn concat(room: &mut [u8], parts: &[&[u8]]) -> usize {
    let mut rest = room.iter_mut();
    let mut len: usize = 0;
    for part in parts {
        for byte in *part {
            let Some(to) = rest.next() else { return 0 };
            *to = *byte;
            len = len.saturating_add(1);
        }
    }
    len
}

/// The Internet checksum (RFC 1071) over parts, each of which but the last has an even length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            let word = match *pair {
                [high, low] => u16::from_be_bytes([high, low]),
                [high] => u16::from_be_bytes([high, 0]),
                _ => 0,
            };
            sum = sum.wrapping_add(word.into()); // at most 760 words of a frame: it cannot wrap
        }
    }
    let folded = (sum & 0xffff).wrapping_add(sum >> 16);
    let folded = (folded & 0xffff).wrapping_add(folded >> 16);
    #[expect(clippy::cast_possible_truncation, reason = "folded twice, it has 16 bits")]
    let folded = folded as u16;
    !folded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_rfc_1071s_example() {
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03], &[0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
        assert_eq!(checksum(&[&[0xff]]), 0x00ff);
    }

    #[test]
    fn what_does_not_fit_has_length_0() {
        let mut room = [0; 3];
        assert_eq!(concat(&mut room, &[&[1], &[2, 3]]), 3);
        assert_eq!(room, [1, 2, 3]);
        assert_eq!(concat(&mut room, &[&[1], &[2, 3], &[4]]), 0);
    }
}
