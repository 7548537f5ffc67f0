//! The few statistics that the benchmark quotes. None of them assumes a distribution.

/// How far two runs may be apart and still agree: 15 %.
pub const TOLERANCE: f64 = 0.15;

/// The middle sample, or the mean of the two in the middle; None without samples.
pub fn median(samples: &[f64]) -> Option<f64> {
    let sorted = sorted(samples);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 { Some(upper) } else { Some((sorted[sorted.len() / 2 - 1] + upper) / 2.0) }
}

/// The smallest sample that at least the share `part` (0 to 1) of all samples does not exceed (nearest rank); None without
/// samples. With fewer than 100 samples the 99th percentile is the largest.
pub fn percentile(samples: &[f64], part: f64) -> Option<f64> {
    let sorted = sorted(samples);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

/// `a / b`, None when it means nothing.
pub fn ratio(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a? / b?).filter(|ratio| ratio.is_finite())
}

/// Whether the larger of two positive figures is at most [`TOLERANCE`] above the smaller.
pub fn agree(a: f64, b: f64) -> bool {
    a == b || (a > 0.0 && b > 0.0 && a.max(b) / a.min(b) <= 1.0 + TOLERANCE)
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_whatever_the_order() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[9.0, 1.0, 2.0, 4.0]), Some(3.0));
    }

    #[test]
    fn one_slow_sample_moves_the_percentile_and_not_the_median() {
        let mut samples: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&samples, 0.99), Some(198.0));
        assert_eq!(percentile(&samples, 1.0), Some(200.0));
        assert_eq!(percentile(&samples, 0.0), Some(1.0));
        samples.truncate(30);
        samples[0] = 5000.0;
        assert_eq!(percentile(&samples, 0.99), Some(5000.0));
        assert_eq!(median(&samples), Some(16.5));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn ratio_of_nothing_or_by_nothing_is_none() {
        assert_eq!(ratio(Some(8.0), Some(2.0)), Some(4.0));
        assert_eq!(ratio(Some(8.0), Some(0.0)), None);
        assert_eq!(ratio(None, Some(2.0)), None);
    }

    #[test]
    fn runs_agree_within_fifteen_percent_either_way() {
        assert!(agree(10.0, 11.5) && agree(11.5, 10.0));
        assert!(!agree(10.0, 11.6) && !agree(11.6, 10.0));
        assert!(agree(0.0, 0.0) && !agree(0.0, 1.0));
    }
}
