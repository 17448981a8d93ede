//! The header before each packet of the TUN device, and the checksum that it leaves to others.
//!
//! `struct virtio_net_hdr` in its legacy form (VIRTIO 1.2 §5.1.6, `include/uapi/linux/virtio_net.h`), in this machine's byte
//! order. Where it says so, the packet's TCP or UDP checksum field holds only the sum of the pseudo-header, and whoever sends
//! the packet at last adds the rest. The translator knows nothing of that: it updates the field as if it were whole. What
//! it makes of it is worth nothing, but the addresses are right, so the field is written anew from them.

/// Its length.
pub const LEN: usize = 10;

/// The field at [`START`] + [`FIELD`] lacks the sum of everything behind [`START`] (VIRTIO_NET_HDR_F_NEEDS_CSUM).
const NEEDS_CHECKSUM: u8 = 1;
/// Where the header says what is checksummed from where, and where in that the sum is.
const START: usize = 6;
const FIELD: usize = 8;

/// The header of a packet that is complete as it is.
pub const NONE: [u8; LEN] = [0; LEN];

/// Makes a frame right again whose addresses have changed; `false`: its header and its packet do not fit together.
#[must_use]
pub fn refresh(header: &mut [u8; LEN], packet: &mut [u8]) -> bool {
    if header[0] & NEEDS_CHECKSUM == 0 {
        header[0] = 0; // "the checksum was looked at" is no longer true
        return true;
    }
    header[0] = NEEDS_CHECKSUM;
    let number = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
    let (start, field) = (number(START), number(START) + number(FIELD));
    let Some(sum) = pseudo_header(packet, start) else { return false };
    let Some(place) = packet.get_mut(field..field + 2) else { return false };
    place.copy_from_slice(&sum.to_be_bytes());
    true
}

/// The sum of the pseudo-header of the transport segment that starts at `start` (RFC 9293 §3.1, RFC 8200 §8.1).
fn pseudo_header(packet: &[u8], start: usize) -> Option<u16> {
    let (addresses, protocol) = match packet.first()? >> 4 {
        4 => (packet.get(12..20)?, *packet.get(9)?),
        6 => (packet.get(8..40)?, last_header(packet, start)?),
        _ => return None,
    };
    let length = u32::try_from(packet.len().checked_sub(start)?).ok()?;
    let words = addresses.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let mut sum = words.sum::<u32>() + (length >> 16) + (length & 0xffff) + u32::from(protocol);
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).ok()
}

/// The protocol of what starts at `start`, behind any extension headers (RFC 8200 §4).
fn last_header(packet: &[u8], start: usize) -> Option<u8> {
    const FIXED: usize = 40;
    let (mut at, mut protocol) = (FIXED, *packet.get(6)?);
    while at < start {
        protocol = *packet.get(at)?;
        at += (usize::from(*packet.get(at + 1)?) + 1) * 8;
    }
    (at == start).then_some(protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 TCP packet whose checksum field holds something old.
    fn packet() -> Vec<u8> {
        let mut packet = vec![0; 20 + 20 + 4];
        packet[0] = 0x45;
        packet[9] = 6;
        packet[12..20].copy_from_slice(&[192, 0, 2, 1, 198, 51, 100, 2]);
        packet[36..38].copy_from_slice(&[0xde, 0xad]);
        packet
    }

    fn header(flags: u8, start: u16, field: u16) -> [u8; LEN] {
        let mut header = [flags, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        header[START..FIELD].copy_from_slice(&start.to_ne_bytes());
        header[FIELD..LEN].copy_from_slice(&field.to_ne_bytes());
        header
    }

    #[test]
    fn a_pending_checksum_holds_the_pseudo_header() {
        let (mut header, mut packet) = (header(NEEDS_CHECKSUM, 20, 16), packet());
        assert!(refresh(&mut header, &mut packet));
        // c000 + 0201 + c633 + 6402 + 0006 + 0018 = 1ec54, folded ec55
        assert_eq!(packet[36..38], [0xec, 0x55]);
        assert_eq!(header[..2], [NEEDS_CHECKSUM, 1]);
    }

    #[test]
    fn extension_headers_are_passed_over() {
        let mut packet = vec![0; 40 + 8 + 20];
        packet[0] = 0x60;
        (packet[6], packet[40]) = (0, 6); // hop-by-hop options of 8 bytes, then TCP
        (packet[23], packet[39]) = (1, 2);
        assert_eq!(pseudo_header(&packet, 48), Some(1 + 2 + 6 + 20));
        assert_eq!(pseudo_header(&packet, 44), None);
    }

    #[test]
    fn a_whole_checksum_is_left_alone() {
        const DATA_VALID: u8 = 2;
        let (mut header, mut packet) = (header(DATA_VALID, 20, 16), packet());
        assert!(refresh(&mut header, &mut packet));
        assert_eq!((header[0], packet), (0, super::tests::packet()));
    }

    #[test]
    fn a_header_that_points_outside_is_refused() {
        for (start, field) in [(20, 24), (45, 0), (u16::MAX, u16::MAX)] {
            assert!(!refresh(&mut header(NEEDS_CHECKSUM, start, field), &mut packet()));
        }
        assert!(!refresh(&mut header(NEEDS_CHECKSUM, 0, 0), &mut []));
    }
}
