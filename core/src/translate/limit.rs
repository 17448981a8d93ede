//! A limit on answers: a token bucket.

use super::time::Instant;

/// Answers that may be sent: `rate` a second, `burst` at once (RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyLimit {
    /// A second.
    pub rate: u32,
    /// At once, after a pause.
    pub burst: u32,
}

impl ReplyLimit {
    /// 1,000 a second, 50 at once, as Linux limits its ICMP messages (`icmp_msgs_per_sec`, `icmp_msgs_burst`).
    pub const DEFAULT: Self = Self { rate: 1_000, burst: 50 };
}

/// The bucket: thousandths of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limiter {
    limit: ReplyLimit,
    thousandths: u32,
    filled: Instant,
    started: bool,
}

impl Limiter {
    pub const fn new(limit: ReplyLimit) -> Self {
        Self { limit, thousandths: limit.burst.saturating_mul(1_000), filled: Instant::ZERO, started: false }
    }

    /// Takes one answer; whether there was one.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed = if self.started { now.since(self.filled) } else { 0 };
        self.started = true;
        self.filled = now;
        // a rate per second is thousandths per millisecond
        let full = self.limit.burst.saturating_mul(1_000);
        self.thousandths = self.thousandths.saturating_add(passed.saturating_mul(self.limit.rate)).min(full);
        match self.thousandths.checked_sub(1_000) {
            Some(rest) => {
                self.thousandths = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_also_over_the_clocks_end() {
        let mut limiter = Limiter::new(ReplyLimit { rate: 10, burst: 3 });
        let at = |ms: u64| Instant::from_millis(u64::from(u32::MAX) - 50 + ms);
        let mut answers = |ms| (0..5).filter(|_| limiter.take(at(ms))).count();
        assert_eq!(answers(0), 3);
        assert_eq!(answers(99), 0);
        assert_eq!(answers(100), 1);
        assert_eq!(answers(10_000), 3);
        let mut none = Limiter::new(ReplyLimit { rate: 0, burst: 0 });
        assert!(!none.take(at(0)) && !none.take(at(9_999)));
    }
}
