//! Source ports for masqueraded connections.

/// Tries per random start. A range of up to this many ports is searched whole.
const RUN: u32 = 128;
/// Random starts for larger ranges.
const STARTS: u32 = 4;

/// The ports that masqueraded connections may leave from. They must not be ones that the node itself uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// What Linux's masquerading uses for connections from high ports.
    pub const DEFAULT: Self = Self { first: 1024, last: 65_535 };

    /// Ports `first..=last`; `None` if there are none, or 0 is among them.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first == 0 || first > last { None } else { Some(Self { first, last }) }
    }

    /// A port that `is_free`. The search starts at random (RFC 6056 §3.3.1: a guess at the port of a connection has to
    /// be wrong), and ends after a bounded number of tries; `None` if all of them were taken.
    ///
    /// What must be unique is the whole reply tuple, so one port serves as many connections as there are endpoints.
    pub(crate) fn pick(self, random: &mut dyn FnMut() -> u32, mut is_free: impl FnMut(u16) -> bool) -> Option<u16> {
        let size = u32::from(self.last).saturating_sub(self.first.into()).saturating_add(1);
        let starts = if size <= RUN { 1 } else { STARTS };
        for _ in 0..starts {
            let start = crate::bytes::scale(random(), size);
            for i in 0..RUN.min(size) {
                let offset = start.wrapping_add(i).checked_rem(size)?;
                let port = u16::try_from(offset.saturating_add(self.first.into())).ok()?;
                if is_free(port) {
                    return Some(port);
                }
            }
        }
        None
    }
}

impl Default for PortRange {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_range_is_searched_whole_and_never_left() {
        let range = PortRange::new(65_532, 65_535).unwrap();
        for start in [0, 1 << 30, 1 << 31, u32::MAX] {
            let mut tried = std::vec![];
            let picked = range.pick(&mut || start, |port| {
                tried.push(port);
                false
            });
            assert_eq!(picked, None);
            tried.sort_unstable();
            assert_eq!(tried, [65_532, 65_533, 65_534, 65_535]);
            assert_eq!(range.pick(&mut || start, |port| port == 65_534), Some(65_534));
        }
        assert_eq!(PortRange::new(0, 9), None);
        assert_eq!(PortRange::new(9, 8), None);
        assert_eq!(PortRange::new(9, 9).unwrap().pick(&mut || 77, |_| true), Some(9));
    }

    #[test]
    fn a_large_range_costs_a_bounded_search() {
        let mut tries = 0;
        let picked = PortRange::DEFAULT.pick(&mut || 0x8000_0000, |_| {
            tries += 1;
            false
        });
        assert_eq!((picked, tries), (None, 512));
    }
}
