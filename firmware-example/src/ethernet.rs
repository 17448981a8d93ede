//! Ethernet frames, and the one buffer that each travels in from receiver to sender.

use core::fmt;

/// Where a frame starts in its [`Buffer`]: the IP header behind 14 bytes of Ethernet is then word-aligned.
pub const OFFSET: usize = 2;
/// Length of the Ethernet header.
pub const HEADER: usize = 14;
/// Longest frame without frame check sequence.
pub const LONGEST: usize = 1514;
/// With the offset, the longest frame and its check sequence: 380 words.
const ROOM: usize = 1520;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everybody.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether frames to it are for more than one host.
    pub const fn is_group(self) -> bool {
        let [first, ..] = self.0;
        first & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What a frame carries (IEEE 802 numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtherType {
    /// 0x0800.
    Ipv4,
    /// 0x0806.
    Arp,
    /// 0x86dd.
    Ipv6,
}

impl EtherType {
    const fn number(self) -> u16 {
        match self {
            Self::Ipv4 => 0x0800,
            Self::Arp => 0x0806,
            Self::Ipv6 => 0x86dd,
        }
    }

    const fn from_number(number: u16) -> Option<Self> {
        match number {
            0x0800 => Some(Self::Ipv4),
            0x0806 => Some(Self::Arp),
            0x86dd => Some(Self::Ipv6),
            _ => None,
        }
    }
}

/// A frame's addresses and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// To whom.
    pub destination: Mac,
    /// From whom.
    pub source: Mac,
    /// What it carries; `None`: nothing of ours.
    pub ether_type: Option<EtherType>,
}

/// Room for one frame, word-aligned.
#[derive(Clone, Debug)]
#[repr(align(4))]
pub struct Buffer {
    bytes: [u8; ROOM],
    len: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Buffer {
    /// An empty frame.
    pub const fn new() -> Self {
        Self { bytes: [0; ROOM], len: 0 }
    }

    /// All bytes, for a controller's FIFO; the frame starts at [`OFFSET`].
    pub const fn words(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Says how long the frame is; at most [`LONGEST`].
    pub const fn set_len(&mut self, len: usize) {
        self.len = if len < LONGEST { len } else { LONGEST };
    }

    /// Lengthens a short frame with zeros.
    pub fn pad_to(&mut self, len: usize) {
        if self.len < len {
            let old = OFFSET.saturating_add(self.len);
            self.set_len(len);
            let end = OFFSET.saturating_add(self.len);
            if let Some(padding) = self.bytes.get_mut(old..end) {
                padding.fill(0);
            }
        }
    }

    /// The frame.
    pub fn frame(&self) -> &[u8] {
        self.bytes.get(OFFSET..OFFSET.saturating_add(self.len)).unwrap_or(&[])
    }

    /// What is behind the Ethernet header.
    pub fn payload(&self) -> &[u8] {
        self.frame().get(HEADER..).unwrap_or(&[])
    }

    /// As [`payload`](Self::payload), to change it.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let end = OFFSET.saturating_add(self.len);
        self.bytes.get_mut(OFFSET.saturating_add(HEADER)..end).unwrap_or(&mut [])
    }

    /// All room behind the Ethernet header, to write a packet into; [`set_payload_len`](Self::set_payload_len) follows.
    pub fn payload_room(&mut self) -> &mut [u8] {
        self.bytes.get_mut(OFFSET.saturating_add(HEADER)..OFFSET.saturating_add(LONGEST)).unwrap_or(&mut [])
    }

    /// Says how long the packet behind the Ethernet header is.
    pub const fn set_payload_len(&mut self, len: usize) {
        self.set_len(len.saturating_add(HEADER));
    }

    /// The Ethernet header; `None` if the frame is shorter.
    pub fn header(&self) -> Option<Header> {
        let &[a, b, c, d, e, f, g, h, i, j, k, l, m, n] = self.frame().first_chunk::<HEADER>()?;
        Some(Header {
            destination: Mac([a, b, c, d, e, f]),
            source: Mac([g, h, i, j, k, l]),
            ether_type: EtherType::from_number(u16::from_be_bytes([m, n])),
        })
    }

    /// Writes the Ethernet header of a frame that carries this.
    pub fn set_header(&mut self, destination: Mac, source: Mac, ether_type: EtherType) {
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (destination.0, source.0);
        let [m, n] = ether_type.number().to_be_bytes();
        if let Some(header) = self.bytes.get_mut(OFFSET..).and_then(|frame| frame.first_chunk_mut::<HEADER>()) {
            *header = [a, b, c, d, e, f, g, h, i, j, k, l, m, n];
        }
    }

    /// Takes over another frame.
    pub fn copy_from(&mut self, other: &Self) {
        self.set_len(other.frame().len());
        let end = OFFSET.saturating_add(self.len);
        if let Some(bytes) = self.bytes.get_mut(OFFSET..end) {
            for (to, from) in bytes.iter_mut().zip(other.frame()) {
                *to = *from;
            }
        }
    }
}
