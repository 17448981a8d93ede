//! How long to wait before the API server is asked again.

use rand::rngs::{StdRng, SysRng};
use rand::{RngExt, SeedableRng};
use std::time::Duration;

/// The first wait, and the longest.
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Waits that double, each shortened at random by up to a half: a thousand nodes whose server restarts must not come back
/// in step. Time that went well shortens the next wait by as much.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    random: StdRng,
}

impl Backoff {
    /// At its first wait.
    pub fn new() -> Self {
        let random =
            StdRng::try_from_rng(&mut SysRng).unwrap_or_else(|_| StdRng::seed_from_u64(std::process::id().into()));
        Self { next: WAIT.0, random }
    }

    /// The next wait, at least `asked` (what the server said).
    pub fn wait(&mut self, asked: Option<Duration>) -> Duration {
        let wait = self.next.mul_f64(self.random.random_range(0.5..=1.0));
        self.next = (self.next * 2).min(WAIT.1);
        asked.map_or(wait, |asked| asked.min(WAIT.1).max(wait))
    }

    /// A request lived this long.
    pub fn credit(&mut self, lived: Duration) {
        self.next = self.next.saturating_sub(lived).max(WAIT.0);
    }

    /// A time between three quarters of this one and all of it.
    pub fn spread(&mut self, time: Duration) -> Duration {
        time.mul_f64(self.random.random_range(0.75..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_are_never_the_same() {
        let mut backoff = Backoff::new();
        let waits: Vec<u128> = (0..12).map(|_| backoff.wait(None).as_millis()).collect();
        let whole = [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000, 30_000, 30_000];
        assert!(waits.iter().zip(whole).all(|(w, whole)| (whole / 2..=whole).contains(w)), "{waits:?}");
        assert!(waits[7..].windows(2).any(|w| w[0] != w[1]), "{waits:?}");
        backoff.credit(Duration::from_secs(20));
        assert!((5_000..=10_000).contains(&backoff.wait(None).as_millis()));
        backoff.credit(Duration::from_secs(300));
        assert!(backoff.wait(None) <= WAIT.0);
        assert_eq!(backoff.wait(Some(Duration::from_secs(5))), Duration::from_secs(5));
        assert_eq!(backoff.wait(Some(Duration::from_secs(3600))), WAIT.1);
    }
}
