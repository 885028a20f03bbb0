//! [`Gradient`]: exactly gamma layers, weighted by the size of their gradients.

use burn::config::Config;

use super::sampling::refuse;
use super::{Draw, Observation, SamplingPolicy, Statistic, systematic};
use crate::LisaError;

/// Samples exactly `active_layers` layers, weighted by the size of their gradients, as in GRASS
/// (arXiv 2604.07808).
///
/// For a gradient g of n elements, sqrt(|g|^2 / n) is averaged over the steps of a period. The
/// score m of a layer is the moving average of these values over the periods in which the layer was
/// active. Layers that were never active are sampled first, in random order. The others have the
/// sampling weight `(1 - floor) softmax(m / (mean(m) temperature)) + floor / N` and are sampled as
/// in [`Weighted`](super::Weighted). The division by the mean makes the temperature independent of
/// the model and the loss; it and the defaults are choices of this crate.
///
/// The softmax is computed by `libm`, so the same scores give the same layers on every platform.
/// [`LisaConfig::unbiased`](crate::LisaConfig::unbiased) refuses this policy: as long as some
/// layers were never active, the others have probability 0. State kept, in the run: a score for
/// each layer.
///
/// # Example
///
/// ```
/// use lisa::policy::{Draw, Gradient, SamplingPolicy, Scores};
///
/// let policy = Gradient::new().with_temperature(0.1);
/// let mut scores = Scores::new([100; 4]);
/// scores.close(0, &[0, 1, 2]);
/// for (layer, score) in [(0, 0.1), (1, 0.1), (2, 0.4)] {
///     scores.observe(layer, score, 0.5);
/// }
/// let draw = Draw::new(42, 1, 4, 2).with_scores(scores);
/// // The layer that was never active, and the one with the largest gradients.
/// assert_eq!(policy.draw(&draw), [2, 3]);
/// ```
#[derive(Config, Debug, PartialEq)]
pub struct Gradient {
    /// Divides the scores, which have a mean of 1, before the softmax. If it is near 0, the layers
    /// with the largest gradients are sampled nearly always; if it is large, all layers are sampled
    /// equally often.
    #[config(default = 1.0)]
    pub temperature: f64,
    /// The share of the sampling weight that is divided equally among all layers, in [0, 1]. If it
    /// is above 0, every layer can be sampled.
    #[config(default = 0.1)]
    pub floor: f64,
    /// The decay of the moving average from one period to the next, in [0, 1).
    #[config(default = 0.5)]
    pub decay: f64,
}

impl Gradient {
    /// The weight of each layer, above 0 if it can train; they sum to 1.
    fn weights(&self, draw: &Draw) -> Vec<f64> {
        let scores = draw.scores.relative();
        let layers = draw.trainable_layers();
        let largest = layers.iter().map(|&i| scores[i]).fold(f64::MIN, f64::max);
        let exponent = |i: usize| (scores[i] - largest) / self.temperature;
        let softmax: Vec<f64> = layers.iter().map(|&i| libm::exp(exponent(i))).collect();
        let sum: f64 = softmax.iter().sum();
        let equal = self.floor / layers.len() as f64;
        let mut weights = vec![0.0; scores.len()];
        for (i, w) in layers.into_iter().zip(softmax) {
            // The weight of a small score underflows at a low temperature; it must not exclude the layer.
            weights[i] = ((1.0 - self.floor) * w / sum + equal).max(f64::MIN_POSITIVE);
        }
        weights
    }
}

impl Default for Gradient {
    fn default() -> Self {
        Self::new()
    }
}

impl SamplingPolicy for Gradient {
    fn name(&self) -> String {
        let Self {
            temperature,
            floor,
            decay,
        } = *self;
        format!("gradient(temperature {temperature}, floor {floor}, decay {decay})")
    }

    fn draw(&self, draw: &Draw) -> Vec<usize> {
        let mut rng = draw.rng();
        let fresh = draw.scores.never_drawn();
        let first = rng.choose(fresh.len(), draw.active_layers);
        let mut drawn: Vec<usize> = first.into_iter().map(|i| fresh[i]).collect();
        if drawn.len() < draw.active_layers {
            let mut weights = self.weights(draw);
            for &layer in &fresh {
                weights[layer] = 0.0;
            }
            let p = systematic::inclusion(&weights, draw.active_layers - drawn.len());
            drawn.extend(systematic::draw(&p, &mut rng));
            drawn.sort_unstable();
        }
        drawn
    }

    fn observes(&self) -> Option<Observation> {
        Some(Observation {
            statistic: Statistic::RootMeanSquare,
            decay: self.decay,
        })
    }

    /// Refuses settings out of range.
    fn validate(&self, _draw: &Draw) -> Result<(), LisaError> {
        let Self {
            temperature,
            floor,
            decay,
        } = *self;
        if !(temperature > 0.0 && temperature.is_finite()) {
            return refuse(
                format!("the temperature of gradient is {temperature}"),
                "give a finite number above 0",
            );
        }
        if !(0.0..=1.0).contains(&floor) {
            return refuse(
                format!("the floor of gradient is {floor}"),
                "give a number in [0, 1]",
            );
        }
        if !(0.0..1.0).contains(&decay) {
            return refuse(
                format!("the decay of gradient is {decay}"),
                "give a number in [0, 1)",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Scores;
    use crate::policy::test_support::{chi_square, counts, draws};

    /// Scores of layers that were all active once.
    fn scored(scores: &[f32]) -> Scores {
        let mut all = Scores::new(vec![10; scores.len()]);
        for (layer, &score) in scores.iter().enumerate() {
            all.close(0, &[layer]);
            all.observe(layer, score, 0.5);
        }
        all
    }

    #[test]
    fn draws_are_the_same_on_every_platform() {
        let scores = scored(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]);
        let draw = Draw::new(42, 1, 8, 2).with_scores(scores);
        assert_eq!(draws(&Gradient::default(), &draw), DRAWS);
    }

    const DRAWS: &str = "[[6, 7], [3, 6], [2, 4], [1, 6], [5, 6], [2, 3]]";

    #[test]
    fn as_many_layers_as_asked_train_at_a_low_temperature_without_a_floor() {
        let policy = Gradient::new().with_temperature(1e-3).with_floor(0.0);
        let scores = scored(&[2.5, 0.5, 0.5, 0.5]);
        let mut sampled = [0; 4];
        for period in 1..100 {
            let draw = Draw::new(1, period, 4, 2).with_scores(scores.clone());
            let layers = policy.draw(&draw);
            assert_eq!(layers.len(), 2);
            for layer in layers {
                sampled[layer] += 1;
            }
        }
        assert_eq!(sampled[0], 99);
        assert!(sampled.iter().all(|count| *count > 0), "{sampled:?}");
    }

    #[test]
    fn layers_that_never_trained_come_first() {
        let policy = Gradient::default();
        let mut scores = Scores::new([10; 7]);
        for period in 0..4 {
            let draw = Draw::new(3, period, 7, 2).with_scores(scores.clone());
            let layers = policy.draw(&draw);
            assert_eq!(layers.len(), 2);
            let fresh = scores.never_drawn();
            let expected = fresh.len().min(2);
            assert_eq!(
                layers.iter().filter(|l| fresh.contains(l)).count(),
                expected
            );
            for &layer in &layers {
                scores.observe(layer, 1.0, 0.5);
            }
            scores.close(period, &layers);
        }
        assert!(scores.never_drawn().is_empty());
    }

    #[test]
    fn frequencies_are_those_of_the_softmax_and_the_floor() {
        let policy = Gradient::new().with_temperature(0.5).with_floor(0.2);
        let scores = scored(&[1.0, 1.0, 2.0, 4.0]);
        let draw = Draw::new(5, 0, 4, 1).with_scores(scores);
        // Relative scores 0.5, 0.5, 1, 2; exponents 1, 1, 2, 4.
        let e = [1.0, 1.0, 2.0, 4.0f64].map(f64::exp);
        let sum: f64 = e.iter().sum();
        let counts = counts(&policy, &draw, 20_000);
        let expected = e.map(|e| 20_000.0 * (0.8 * e / sum + 0.05));
        let chi = chi_square(&counts, &expected);
        // 3 degrees of freedom, 16.3 at 0.1 %.
        assert!(chi < 16.3, "{chi} {counts:?}");
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let message = |policy: Gradient| {
            let refused = policy.validate(&Draw::new(0, 0, 4, 1));
            refused.unwrap_err().to_string()
        };
        let config = Gradient::new;
        assert!(message(config().with_temperature(0.0)).contains("temperature of gradient is 0"));
        assert!(message(config().with_floor(1.5)).contains("floor of gradient is 1.5"));
        assert!(message(config().with_decay(1.0)).contains("decay of gradient is 1"));
    }
}
