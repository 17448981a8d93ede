//! Counts, rates and bytes as people read them.

/// What is not known.
pub const UNKNOWN: &str = "–";

/// `0`, `0.3`, `12`, `1,204`.
pub fn rate(per_second: Option<f64>) -> String {
    match per_second {
        None => UNKNOWN.into(),
        Some(rate) if rate > 0.0 && rate < 9.95 => format!("{rate:.1}"),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is a count a second")]
        Some(rate) => count(rate.round() as u64),
    }
}

/// `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `999 B`, `1.5 kB`, `12 MB`.
pub fn bytes(bytes: Option<f64>) -> String {
    let Some(mut value) = bytes else { return UNKNOWN.into() };
    let mut units = ["B", "kB", "MB", "GB", "TB", "PB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while value >= 999.5 {
        let Some(larger) = units.next() else { break };
        (value, unit) = (value / 1000.0, larger);
    }
    if unit == "B" || value >= 9.95 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_words() {
        let rates = [None, Some(0.0), Some(0.25), Some(9.96), Some(1204.4)].map(rate);
        assert_eq!(rates, ["–", "0", "0.2", "10", "1,204"]);
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        let sizes = [None, Some(0.0), Some(999.4), Some(999.6), Some(12_300_000.0), Some(9.9e21)].map(bytes);
        assert_eq!(sizes, ["–", "0 B", "999 B", "1.0 kB", "12 MB", "9900000 PB"]);
    }
}
