//! From a chain of probabilities to weights.
//!
//! kube-proxy draws among n endpoints with rules of probability 1/n, 1/(n-1), … and a last one without. The kernel keeps
//! a probability in 31 bits, and old versions of kube-proxy printed five digits.

/// How far a probability may be from 1/n: kube-proxy's five digits.
const ROUNDING: f64 = 1.1e-5;
/// How far each rule may take a share from a ratio of weights: half of the kernel's last bit, and rounding in print.
const PRECISION: f64 = 2.5e-10;
/// The largest sum of weights that is tried.
const LARGEST: u32 = 65_535;

/// Weights of rules with these probabilities in this order; a rule without one takes all that is left. `None` if no
/// whole numbers up to 65535 give them.
pub(super) fn weights(probabilities: &[Option<f64>]) -> Option<Vec<u16>> {
    let count = probabilities.len();
    let left = |index: usize| f64::from(u32::try_from(count - index).unwrap_or(u32::MAX));
    let equal =
        probabilities.iter().enumerate().all(|(index, p)| (p.unwrap_or(1.0) - 1.0 / left(index)).abs() < ROUNDING);
    if equal {
        return Some(vec![1; count]);
    }
    let precision = PRECISION * left(0);
    let mut rest = 1.0;
    let shares: Vec<f64> = probabilities
        .iter()
        .map(|p| {
            let share = rest * p.unwrap_or(1.0);
            rest -= share;
            share
        })
        .collect();
    if rest > precision {
        return None; // the last rule does not take what is left
    }
    (1..=LARGEST).find_map(|sum| {
        let sum = f64::from(sum);
        shares.iter().map(|share| whole(share * sum, sum * precision)).collect()
    })
}

fn whole(number: f64, tolerance: f64) -> Option<u16> {
    let rounded = number.round();
    if (number - rounded).abs() > tolerance || !(0.0..=f64::from(LARGEST)).contains(&rounded) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number from 0 to 65535")]
    Some(rounded as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A probability as iptables-save prints it: in steps of 2^-31.
    fn printed(p: f64) -> Option<f64> {
        format!("{:.11}", (p * 2_147_483_648.0).round() / 2_147_483_648.0).parse().ok()
    }

    #[test]
    fn equal_shares_have_weight_one() {
        assert_eq!(weights(&[]), Some(vec![]));
        assert_eq!(weights(&[None]), Some(vec![1]));
        assert_eq!(weights(&[printed(0.5), None]), Some(vec![1, 1]));
        assert_eq!(weights(&[Some(0.333_329_999_82), Some(0.5), None]), Some(vec![1, 1, 1]));
        let many: Vec<_> =
            (0..1_000).map(|i| (i < 999).then(|| printed(1.0 / f64::from(1_000 - i))).flatten()).collect();
        assert_eq!(weights(&many), Some(vec![1; 1_000]));
    }

    #[test]
    fn other_shares_are_ratios() {
        assert_eq!(weights(&[printed(0.75), None]), Some(vec![3, 1]));
        assert_eq!(weights(&[printed(2.0 / 7.0), printed(4.0 / 5.0), None]), Some(vec![2, 4, 1]));
        assert_eq!(weights(&[printed(1.0 / 10_000.0), None]), Some(vec![1, 9_999]));
        assert_eq!(weights(&[Some(0.5), Some(0.5)]), None);
    }
}
