//! Systematic sampling of exactly n layers with given inclusion probabilities.
//! [`Weighted`](super::Weighted) and [`Gradient`](super::Gradient) use it.
//!
//! This is Madow's scheme. The layers are placed in random order on a line of length n, each as
//! wide as its probability. With one random number u in [0, 1), the layers at the points u, u + 1,
//! u + 2 and so on are sampled. In any order, a layer of width p contains one of these points with
//! probability p, so the inclusion probabilities are exact. Sampling one layer after the other does
//! not have exact probabilities. Because of the random order, nearly every pair of layers can occur
//! together.

use super::DrawRng;

/// The probabilities of being among `n` sampled layers. They are proportional to the weights, but
/// at most 1; the excess is divided among the others, again in proportion.
///
/// If at most `n` weights are positive, the probabilities of these layers are 1.
pub(crate) fn inclusion(weights: &[f64], n: usize) -> Vec<f64> {
    let mut p = vec![0.0; weights.len()];
    let mut left: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0.0).collect();
    let mut n = n;
    loop {
        if left.len() <= n {
            for i in left {
                p[i] = 1.0;
            }
            return p;
        }
        let largest = left.iter().map(|&i| weights[i]).fold(0.0, f64::max);
        let sum: f64 = left.iter().map(|&i| weights[i] / largest).sum();
        let share = |i: usize| n as f64 * (weights[i] / largest / sum);
        let (sure, rest): (Vec<usize>, Vec<usize>) = left.iter().partition(|&&i| share(i) >= 1.0);
        if sure.is_empty() {
            for &i in &left {
                p[i] = share(i);
            }
            return p;
        }
        n -= sure.len().min(n);
        for i in sure {
            p[i] = 1.0;
        }
        left = rest;
    }
}

/// Samples layers with these inclusion probabilities, in ascending order. Their number is the sum
/// of the probabilities.
pub(super) fn draw(p: &[f64], rng: &mut DrawRng) -> Vec<usize> {
    let mut taken: Vec<usize> = (0..p.len()).filter(|&i| p[i] >= 1.0).collect();
    let unsure: Vec<usize> = (0..p.len()).filter(|&i| p[i] > 0.0 && p[i] < 1.0).collect();
    let points = unsure.iter().map(|&i| p[i]).sum::<f64>().round() as usize;
    let order = rng.shuffle(unsure.len());
    let u = rng.unit();
    let mut end = 0.0;
    let mut found = 0;
    for (place, i) in order.iter().map(|&i| unsure[i]).enumerate() {
        end += p[i];
        // Rounding of the sum must not leave the last point without a layer.
        let needed = points - found == unsure.len() - place;
        if found < points && (u + (found as f64) < end || needed) {
            taken.push(i);
            found += 1;
        }
    }
    taken.sort_unstable();
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_proportional_and_at_most_one() {
        let cases: [(&[f64], usize, &[f64]); 7] = [
            (&[1.0, 1.0, 2.0], 1, &[0.25, 0.25, 0.5]),
            // 100 would have far more than 1; what is over goes to the others.
            (&[1.0, 100.0, 3.0], 2, &[0.25, 1.0, 0.75]),
            // Twice in a row: after 100 is sure, 10 exceeds 1 as well.
            (&[1.0, 100.0, 10.0, 1.0], 3, &[0.5, 1.0, 1.0, 0.5]),
            (&[0.0, 2.0, 0.0], 2, &[0.0, 1.0, 0.0]),
            (&[1.0; 4], 4, &[1.0; 4]),
            (&[1e300, 1e300], 1, &[0.5, 0.5]),
            (&[1e300, 1e-300, 1e-300], 2, &[1.0, 0.5, 0.5]),
        ];
        for (weights, n, expected) in cases {
            let found = inclusion(weights, n);
            for (a, b) in found.iter().zip(expected) {
                // 0 and 1 exactly: never and always.
                let same = if b.fract() == 0.0 {
                    a == b
                } else {
                    (a - b).abs() < 1e-12
                };
                assert!(same, "{weights:?}: {found:?}");
            }
        }
    }

    #[test]
    fn exactly_as_many_are_drawn_as_the_probabilities_sum_to() {
        let mut rng = DrawRng::new(8, 0);
        for n in 1..=9 {
            let weights: Vec<f64> = (0..9).map(|i| 0.1 + f64::from(i * i)).collect();
            let p = inclusion(&weights, n);
            assert!((p.iter().sum::<f64>() - n as f64).abs() < 1e-12);
            for _ in 0..500 {
                let drawn = draw(&p, &mut rng);
                assert_eq!(drawn.len(), n);
                assert!(drawn.is_sorted_by(|a, b| a < b));
            }
        }
    }
}
