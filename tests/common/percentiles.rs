//! Prints what examples measure, in the form that the benchmark reads.

use std::time::Duration;

/// A line with percentiles of `times`, at least one, in microseconds.
pub fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |permille: usize| {
        let time = times[(times.len() * permille / 1000).min(times.len() - 1)];
        format!("{:>9.1}", time.as_secs_f64() * 1e6)
    };
    println!("{what:<8} p50 {} p90 {} p99 {} max {} us", at(500), at(900), at(990), at(1000));
}
