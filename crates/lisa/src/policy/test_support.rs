//! What the tests of several policies share.

use super::{Draw, SamplingPolicy};

/// The layers of six periods from this one on, as text.
pub(super) fn draws(policy: &impl SamplingPolicy, first: &Draw) -> String {
    let draws: Vec<Vec<usize>> = (0..6).map(|i| policy.draw(&later(first, i))).collect();
    format!("{draws:?}")
}

/// How often each layer is drawn in so many periods from this one on.
pub(super) fn counts(policy: &impl SamplingPolicy, first: &Draw, periods: u64) -> Vec<usize> {
    let mut counts = vec![0; first.layers];
    for i in 0..periods {
        for layer in policy.draw(&later(first, i)) {
            counts[layer] += 1;
        }
    }
    counts
}

fn later(first: &Draw, periods: u64) -> Draw {
    Draw {
        period: first.period + periods,
        ..first.clone()
    }
}

/// Pearson's chi-square: how far these counts are from those that are expected.
pub(super) fn chi_square(counts: &[usize], expected: &[f64]) -> f64 {
    assert_eq!(counts.len(), expected.len());
    let pairs = counts.iter().zip(expected);
    pairs
        .map(|(&n, expected)| (n as f64 - expected).powi(2) / expected)
        .sum()
}
