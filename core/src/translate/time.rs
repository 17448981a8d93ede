//! Time as the caller tells it: milliseconds that may wrap.

/// A moment, in milliseconds of a clock that starts anywhere and wraps at 2^32 (after 49.7 days).
///
/// Only differences count, so a 32-bit tick can be passed on as it is. A moment may be up to a minute before the last one,
/// as where packets of several queues are told their time of arrival; it counts as the same moment. Nothing may be left unattended for a whole turn of
/// the clock: [`super::Translator::expire`] has to reach every entry within [`Instant::HORIZON`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant(u32);

impl Instant {
    /// The longest time, in milliseconds, that [`super::Translator::expire`] may take once around: half a turn of the
    /// clock, 24.8 days. No timeout is longer.
    pub const HORIZON: u32 = 1 << 31;

    /// From a tick of any width; bits above 32 are dropped.
    #[expect(clippy::cast_possible_truncation, reason = "the clock wraps")]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis as u32)
    }

    /// How far back a clock may step, in milliseconds.
    const STEP_BACK: u32 = 60_000;

    /// Milliseconds from `earlier` to `self`; 0 where the clock stepped back.
    #[inline(never)] // in a dozen places, none of them on the short way: 600 bytes of flash
    pub(crate) const fn since(self, earlier: Self) -> u32 {
        let passed = self.since_unchecked(earlier);
        if passed > const { u32::MAX.wrapping_sub(Self::STEP_BACK) } { 0 } else { passed }
    }

    /// The same for who treats a very long time as one that has to be looked at again.
    #[inline]
    pub(crate) const fn since_unchecked(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    pub(crate) const ZERO: Self = Self(0);

    /// The number, for entries that keep something else there while they are free.
    pub(crate) const fn to_raw(self) -> u32 {
        self.0
    }

    pub(crate) const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }
}

/// Milliseconds of a number of seconds, at most [`Instant::HORIZON`].
pub(crate) const fn millis(seconds: u32) -> u32 {
    let millis = seconds.saturating_mul(1_000);
    if millis < Instant::HORIZON { millis } else { Instant::HORIZON }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_wraps_or_steps_back() {
        let at = |ms: u32| Instant::from_raw(ms);
        assert_eq!(at(5).since(at(u32::MAX)), 6);
        assert_eq!(at(100_000).since(at(40_000)), 60_000);
        assert_eq!(at(40_000).since(at(40_001)), 0);
        assert_eq!(at(40_000).since(at(100_000)), 0, "a minute back");
        assert_eq!(at(0).since(at(60_001)), u32::MAX - 60_000, "more is nearly a turn ahead");
    }
}
