//! Means and their intervals. Tests: at the foot.

/// Two-sided 95 % quantiles of Student's t by degrees of freedom, from 1 (standard tables).
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// A mean with half the width of its 95 % interval; none for fewer than two values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mean {
    pub(crate) mean: f64,
    pub(crate) half: Option<f64>,
}

impl Mean {
    /// Of these values; none of no values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let half = (n > 1).then(|| {
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            let deviation = (squares / (n - 1) as f64).sqrt();
            let quantile = T.get(n - 2).copied().unwrap_or(1.96);
            quantile * deviation / (n as f64).sqrt()
        });
        Some(Self { mean, half })
    }

    /// The two ends.
    pub(crate) fn ends(self) -> (f64, f64) {
        let half = self.half.unwrap_or(0.0);
        (self.mean - half, self.mean + half)
    }

    /// In the text of a table, multiplied by `factor`.
    pub(crate) fn text(self, factor: f64, digits: usize) -> String {
        let mean = self.mean * factor;
        match self.half {
            Some(half) => format!("{mean:.digits$} ± {:.digits$}", half * factor),
            None => format!("{mean:.digits$}"),
        }
    }
}

/// The mean of `a - b`, seed by seed, and whether its interval leaves out 0.
pub(crate) fn paired(a: &[f64], b: &[f64]) -> Option<(Mean, bool)> {
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let mean = Mean::of(&differences)?;
    let (low, high) = mean.ends();
    Some((mean, mean.half.is_some() && (low > 0.0 || high < 0.0)))
}

/// The slope of the least squares line through these points.
pub(crate) fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let (x, y) = points
        .iter()
        .fold((0.0, 0.0), |(x, y), p| (x + p.0, y + p.1));
    let (x, y) = (x / n, y / n);
    let cross: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let square: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    cross / square
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
        let (low, high) = mean.ends();
        assert!(
            (low - 1.03676).abs() < 5e-4 && (high - 4.96324).abs() < 5e-4,
            "{mean:?}"
        );
        assert_eq!(mean.text(1.0, 2), "3.00 ± 1.96");
        // Two values: 12.706 times half their distance.
        let two = Mean::of(&[0.0, 2.0]).unwrap();
        assert!((two.half.unwrap() - 12.706).abs() < 1e-9);
        assert_eq!(Mean::of(&[4.0]).unwrap().text(100.0, 0), "400");
        assert_eq!(Mean::of(&[]), None);
    }

    #[test]
    fn a_difference_is_taken_seed_by_seed() {
        let (mean, clear) = paired(&[1.0, 5.0, 9.0], &[0.0, 4.0, 8.1]).unwrap();
        assert!((mean.mean - 2.9 / 3.0).abs() < 1e-9 && clear);
        assert!(!paired(&[1.0, 5.0, 9.0], &[0.0, 6.0, 8.0]).unwrap().1);
    }

    #[test]
    fn a_slope_is_that_of_least_squares() {
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), 2.0);
        assert_eq!(slope(&[(0.0, 0.0), (1.0, 1.0), (2.0, 0.0)]), 0.0);
    }
}
