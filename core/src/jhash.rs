//! Source-hash choice: the hash of a client's address, the same as the kernel's `jhash` expression computes.
//!
//! `jhash` is Bob Jenkins' lookup3 (include/linux/jhash.h, public domain), and nf_tables scales its result to the modulus by
//! `reciprocal_scale` (nft_hash.c). The kernel reads whole 12-byte blocks as words in the machine's own order and the rest
//! byte by byte from the low end: for the four bytes of an IPv4 address that is the same on every machine, for IPv6 it is
//! what a little-endian machine does, which is what all of natlet's targets are. A big-endian Linux would choose other
//! endpoints for IPv6 clients; it would still choose the same one every time.

use core::net::IpAddr;

/// The seed of source-hash choice, the same everywhere so that all choose alike ("natl").
pub const SOURCE_HASH_SEED: u32 = 0x6e61_746c;

/// Start value of the three words (`JHASH_INITVAL`).
const INITIAL: u32 = 0xdead_beef;

/// The kernel's `jhash(key, key.len(), seed)` of a little-endian machine.
///
/// ```
/// assert_eq!(natlet_core::jhash(&[198, 51, 100, 7], 0), 0x8c8e_3614);
/// ```
#[must_use]
pub fn jhash(key: &[u8], seed: u32) -> u32 {
    let len = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let start = INITIAL.wrapping_add(len).wrapping_add(seed);
    let mut state = [start; 3];
    let mut rest = key;
    while rest.len() > 12 {
        let Some((block, tail)) = rest.split_first_chunk::<12>() else { break };
        state = mix(add(state, block));
        rest = tail;
    }
    if rest.is_empty() {
        return state[2];
    }
    let mut last = [0; 12];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    finish(add(state, &last))
}

/// The hash of a source address under [`SOURCE_HASH_SEED`].
pub(crate) fn source_hash(source: IpAddr) -> u32 {
    match source {
        IpAddr::V4(a) => jhash(&a.octets(), SOURCE_HASH_SEED),
        IpAddr::V6(a) => jhash(&a.octets(), SOURCE_HASH_SEED),
    }
}

fn add([a, b, c]: [u32; 3], block: &[u8; 12]) -> [u32; 3] {
    let [d0, d1, d2, d3, e0, e1, e2, e3, f0, f1, f2, f3] = *block;
    [
        a.wrapping_add(u32::from_le_bytes([d0, d1, d2, d3])),
        b.wrapping_add(u32::from_le_bytes([e0, e1, e2, e3])),
        c.wrapping_add(u32::from_le_bytes([f0, f1, f2, f3])),
    ]
}

/// `__jhash_mix`.
fn mix([mut a, mut b, mut c]: [u32; 3]) -> [u32; 3] {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    [a, b, c]
}

/// `__jhash_final`.
fn finish([mut a, mut b, mut c]: [u32; 3]) -> u32 {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of lookup3.c's own driver (`driver5`): hashlittle(), which jhash is with an initial value for one word.
    #[test]
    fn lookup3_vectors() {
        let text = b"Four score and seven years ago";
        assert_eq!(jhash(b"", 0), 0xdead_beef);
        assert_eq!(jhash(b"", 0xdead_beef), 0xbd5b_7dde);
        assert_eq!(jhash(text, 0), 0x1777_0551);
        assert_eq!(jhash(text, 1), 0xcd62_8161);
    }
}
