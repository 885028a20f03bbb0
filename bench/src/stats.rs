//! Medians, means with intervals, the bootstrap, a slope, and the chi-square test.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Two-sided 95 % quantiles of Student's t by degrees of freedom, from 1 (standard tables).
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// Half the width of Student's 95 % interval of the mean of at least two values.
fn half_width(values: &[f64]) -> f64 {
    let n = values.len();
    let mean = values.iter().sum::<f64>() / n as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let deviation = (squares / (n - 1) as f64).sqrt();
    T.get(n - 2).copied().unwrap_or(1.96) * deviation / (n as f64).sqrt()
}

/// The median; NaN for no values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n.is_multiple_of(2) => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// The first and the third quartile, between two values where they fall there; NaN for no values.
pub(crate) fn quartiles(values: &[f64]) -> [f64; 2] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    [0.25, 0.75].map(|share| {
        let Some(last) = sorted.len().checked_sub(1) else {
            return f64::NAN;
        };
        let place = share * last as f64;
        let below = sorted[place as usize];
        below + (sorted[(place as usize + 1).min(last)] - below) * place.fract()
    })
}

/// A mean with half the width of its 95 % interval. Fewer than three values do not estimate a spread, and
/// have no interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mean {
    pub(crate) mean: f64,
    pub(crate) half: Option<f64>,
}

impl Mean {
    /// The mean of these values; none of no values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        (n > 0).then(|| Self {
            mean: values.iter().sum::<f64>() / n as f64,
            half: (n > 2).then(|| half_width(values)),
        })
    }

    /// The text of a table cell.
    pub(crate) fn text(self, digits: usize) -> String {
        let mean = self.mean;
        match self.half {
            Some(half) => format!("{mean:.digits$} ± {half:.digits$}"),
            None => format!("{mean:.digits$}"),
        }
    }
}

/// A mean with its 95 % interval.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Interval {
    pub(crate) mean: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// The mean of each seed.
    pub(crate) of_seeds: Vec<f64>,
}

impl Interval {
    /// Whether the interval excludes 0 and covers the variation between seeds, which fewer than three do
    /// not estimate.
    pub(crate) fn is_clear(&self) -> bool {
        self.of_seeds.len() > 2 && (self.low > 0.0 || self.high < 0.0)
    }
}

/// Resamples of the bootstrap.
const RESAMPLES: usize = 2000;

/// A difference of a row, and its weight.
pub(crate) type Weighted = (f64, f64);

/// The sum of differences divided by that of their weights.
fn ratio<'a>(values: impl IntoIterator<Item = &'a Weighted>) -> f64 {
    let sum = |(a, b): Weighted, (c, d): &Weighted| (a + c, b + d);
    let (differences, weights) = values.into_iter().fold((0.0, 0.0), sum);
    differences / weights
}

/// The mean of differences and its 95 % interval. Its distance from the mean is, on each side, the root of
/// the sum of two squares: of that of the bootstrap's percentile interval, in which rows are drawn with
/// replacement, the same ones in every seed; and, with several seeds, of half of Student's interval of the
/// seeds' means. Seeds have their rows in common, so neither contains the other.
/// `differences` has a list for each seed; rows that not every seed has are ignored. None without values,
/// or where a value is not finite.
pub(crate) fn bootstrap(differences: &[Vec<Weighted>]) -> Option<Interval> {
    let rows = differences.iter().map(Vec::len).min()?;
    let all = || differences.iter().flat_map(|seed| &seed[..rows]);
    if rows == 0 || !all().all(|value| value.0.is_finite()) {
        return None;
    }
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut below = |count: usize| (random.next_u64() % count as u64) as usize;
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn: Vec<usize> = (0..rows).map(|_| below(rows)).collect();
            let of_row = |row: usize| differences.iter().map(move |seed| &seed[row]);
            ratio(drawn.into_iter().flat_map(of_row))
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let mean = ratio(all());
    let of_seeds = differences.iter().map(|seed| ratio(&seed[..rows]));
    let of_seeds: Vec<f64> = of_seeds.collect();
    let half = if of_seeds.len() > 1 {
        half_width(&of_seeds)
    } else {
        0.0
    };
    let [low, high] = [RESAMPLES / 40, RESAMPLES - RESAMPLES / 40 - 1]
        .map(|place| (means[place] - mean).hypot(half));
    Some(Interval {
        mean,
        low: mean - low,
        high: mean + high,
        of_seeds,
    })
}

/// The slope of the least squares line through these points.
pub(crate) fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let x = points.iter().map(|p| p.0).sum::<f64>() / n;
    let y = points.iter().map(|p| p.1).sum::<f64>() / n;
    let cross: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let square: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    cross / square
}

/// The probability of a chi-square at least as large, by Wilson and Hilferty's cube root.
pub(crate) fn chi_square_tail(square: f64, degrees: f64) -> f64 {
    if degrees < 1.0 {
        return 1.0;
    }
    let spread = 2.0 / (9.0 * degrees);
    let normal = ((square / degrees).cbrt() - 1.0 + spread) / spread.sqrt();
    // The upper tail of the normal distribution, by Abramowitz and Stegun 26.2.17.
    let t = 1.0 / (1.0 + 0.231_641_9 * normal.abs());
    let powers = [
        0.319_381_530,
        -0.356_563_782,
        1.781_477_937,
        -1.821_255_978,
        1.330_274_429,
    ];
    let sum = powers.iter().rev().fold(0.0, |sum, c| (sum + c) * t);
    let tail = sum * (-0.5 * normal * normal).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if normal > 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_that_of_student() {
        // scipy.stats.t.interval(0.95, 4, loc=3, scale=scipy.stats.sem([1, 2, 3, 4, 5])):
        // (1.0367568385224393, 4.9632431614775605)
        let mean = Mean::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert_eq!(mean.mean, 3.0);
        assert!((mean.half.unwrap() - 1.96324).abs() < 5e-4, "{mean:?}");
        assert_eq!(mean.text(2), "3.00 ± 1.96");
        // Two values: 12.706 times half their distance. A table does not show it.
        assert!((half_width(&[0.0, 2.0]) - 12.706).abs() < 1e-9);
        assert_eq!(Mean::of(&[0.0, 2.0]).unwrap().text(0), "1");
        assert_eq!(Mean::of(&[4.0]).unwrap().text(0), "4");
        assert_eq!(Mean::of(&[]), None);
    }

    #[test]
    fn the_bootstrap_covers_rows_and_seeds() {
        let of = |seeds: &[Vec<f64>]| {
            let weighted = seeds
                .iter()
                .map(|rows| rows.iter().map(|value| (*value, 1.0)));
            bootstrap(&weighted.map(Iterator::collect).collect::<Vec<_>>())
        };
        let same = |seeds: usize| of(&vec![vec![0.5; 8]; seeds]).unwrap();
        let three = same(3);
        assert_eq!((three.mean, three.low, three.high), (0.5, 0.5, 0.5));
        // Two seeds may be equal by chance.
        assert!(three.is_clear() && !same(2).is_clear());
        // Of one seed, the interval is that of the rows' mean: 1.96 times 1 / sqrt(100) around 0.
        let rows: Vec<f64> = (0..100)
            .map(|row| if row % 2 == 0 { 1.0 } else { -1.0 })
            .collect();
        let one = of(std::slice::from_ref(&rows)).unwrap();
        assert!(
            (one.low + 0.196).abs() < 0.03 && (one.high - 0.196).abs() < 0.03,
            "{one:?}"
        );
        assert!(!one.is_clear() && one.mean == 0.0);
        // Rows without spread, seeds at 1, 2 and 3: Student's interval, that of `Mean`.
        let seeds = of(&[vec![1.0; 9], vec![2.0; 9], vec![3.0; 9]]).unwrap();
        let half = Mean::of(&[1.0, 2.0, 3.0]).unwrap().half.unwrap();
        assert_eq!(
            (seeds.mean, seeds.low, seeds.high),
            (2.0, 2.0 - half, 2.0 + half)
        );
        assert!(half > 2.4 && !seeds.is_clear());
        // Both: the rows' and the seeds' variances add up.
        let plus = |seed: f64| rows.iter().map(|row| row + seed).collect();
        let both = of(&[plus(1.0), plus(2.0), plus(3.0)]).unwrap();
        assert!((both.mean - 2.0).abs() < 1e-12);
        let expected = (one.high - one.mean).hypot(half);
        assert!((both.high - both.mean - expected).abs() < 1e-9, "{both:?}");
        // The mean is that of all tokens: a row of three, with a difference of 3, and one of one, with 5.
        let rows = bootstrap(&[vec![(3.0, 3.0), (5.0, 1.0)]]).unwrap();
        assert_eq!((rows.mean, rows.low, rows.high), (2.0, 1.0, 5.0));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[vec![f64::NAN]]), None);
    }

    #[test]
    fn a_median_of_an_even_count_is_between_the_two_middle_values() {
        assert_eq!(median(&[4.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn quartiles_are_those_of_numpy() {
        // numpy.quantile(values, [0.25, 0.75])
        assert_eq!(quartiles(&[4.0, 1.0, 2.0]), [1.5, 3.0]);
        assert_eq!(quartiles(&[8.0, 1.0, 2.0, 4.0]), [1.75, 5.0]);
        assert_eq!(quartiles(&[3.0]), [3.0, 3.0]);
        assert!(quartiles(&[])[0].is_nan());
    }

    #[test]
    fn a_slope_is_that_of_least_squares() {
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), 2.0);
        assert_eq!(slope(&[(0.0, 0.0), (1.0, 1.0), (2.0, 0.0)]), 0.0);
    }

    #[test]
    fn chi_square_tails_are_those_of_tables() {
        // scipy.stats.chi2.sf: 0.05, 0.01, 0.5 at these.
        for (square, degrees, p) in [(14.067, 7.0, 0.05), (48.278, 28.0, 0.01), (6.346, 7.0, 0.5)] {
            let found = chi_square_tail(square, degrees);
            assert!((found - p).abs() < 0.003, "{found} {p}");
        }
        assert_eq!(chi_square_tail(0.0, 0.0), 1.0);
    }
}
