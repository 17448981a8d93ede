//! Views of packet headers. Each `new_checked` is the only door for untrusted bytes; behind it no accessor can fail,
//! because a view holds its header as an array of the header's length.
//!
//! A view borrows its header mutably and leaves the payload to the caller: headers of different layers are rewritten
//! side by side. Addresses and ports stay in the packet's byte order throughout (`from_ne_bytes`): hashes, comparisons
//! and one's complement sums do not care, and a byte swap per field is saved.

pub(crate) mod address;
pub(crate) mod checksum;
pub(crate) mod crc32c;
pub(crate) mod icmp;
pub(crate) mod ipv4;
pub(crate) mod ipv6;
pub(crate) mod sctp;
pub(crate) mod tcp;
pub(crate) mod transport;
pub(crate) mod udp;

use address::Address;

/// Why bytes are no packet that can be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireError {
    /// A length is wrong, or a header is cut off.
    Malformed,
    /// An IPv4 source-route option.
    SourceRouted,
    /// A well-formed packet that names no transport ports of its own: it cannot belong to a service.
    Foreign,
}

/// Where a fragment lies in its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// What the fragments of a packet have in common, with the addresses and the protocol.
    pub id: u32,
    /// It starts the packet and so holds the ports.
    pub first: bool,
}

/// Hops that forwarding takes off a packet: one or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hops {
    pub count: u8,
    /// What that adds to the sum of an IPv4 header.
    pub delta: u16,
}

impl Hops {
    pub const NONE: Self = Self { count: 0, delta: 0 };
    pub const ONE: Self = Self { count: 1, delta: checksum::HOP };

    /// Whether they leave none to a packet that arrives with this limit.
    #[inline]
    pub const fn use_up(self, limit: u8) -> bool {
        self.count != 0 && limit <= self.count
    }
}

/// An address's family: what its packets look like.
pub(crate) trait Family: Address {
    /// Its header.
    type Header<'a>: IpHeader<'a, Address = Self>;
    /// Protocol number of its ICMP.
    const ICMP: u8;

    /// Length of a header that is built here.
    const HEADER_LEN: usize;
    /// Longest packet that carries an ICMP error.
    const MAX_ERROR: usize;

    /// Writes the header of a packet that is built here, at the front of `out`.
    fn write_header(out: &mut [u8], source: Self, destination: Self, protocol: u8, payload_len: u16) -> Option<()>;
}

/// The header of an IP packet of either version.
pub(crate) trait IpHeader<'a>: Sized {
    /// Its addresses.
    type Address: Address;

    /// Opens a whole packet; returns its header and what follows the header's options or extensions. Bytes behind the
    /// packet's own length (Ethernet padding) are left out.
    fn new_checked(bytes: &'a mut [u8]) -> Result<(Self, &'a mut [u8]), WireError>;

    /// Opens a whole packet of a protocol if it is plain: without options or extension headers, no fragment, and with at
    /// least the `N` bytes of the transport header that are returned.
    fn new_plain<const N: usize>(bytes: &'a mut [u8], protocol: u8) -> Option<(Self, &'a mut [u8; N])>;

    /// Opens the start of a packet that an ICMP error quotes: the payload may be cut off.
    fn new_quoted(bytes: &'a mut [u8]) -> Result<(Self, &'a mut [u8]), WireError>;

    fn source(&self) -> Self::Address;
    fn destination(&self) -> Self::Address;
    /// Both addresses.
    fn addresses(&self) -> (Self::Address, Self::Address);
    /// Whether those are its addresses: cheaper than comparing them one by one.
    fn is_between(&self, source: Self::Address, destination: Self::Address) -> bool;
    /// Protocol of the payload.
    fn protocol(&self) -> u8;
    /// TTL or hop limit.
    fn hop_limit(&self) -> u8;
    /// `None` for a packet that is not fragmented.
    fn fragment(&self) -> Option<Fragment>;
    /// Length of the payload as the header tells it, which is more than there is in a quotation.
    fn payload_len(&self) -> usize;
    /// Length of the packet as the header tells it.
    fn total_len(&self) -> usize;

    /// Writes the addresses, takes hops off, which have to be there, and updates the header's own checksum where there is
    /// one; `delta` is the change of the addresses' sum.
    fn rewrite(&mut self, source: Self::Address, destination: Self::Address, delta: u16, hops: Hops);
}
