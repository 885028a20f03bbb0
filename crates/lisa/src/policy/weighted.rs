//! [`Weighted`]: exactly gamma layers, with probabilities in proportion to given weights.

use super::sampling::refuse;
use super::{Draw, SamplingPolicy, systematic};
use crate::LisaError;

/// Samples exactly `active_layers` layers without replacement, with given sampling weights.
///
/// Layer l is sampled with probability gamma w_l / sum(w). If that exceeds 1, the probability is 1,
/// and the excess is divided among the other layers in proportion. Systematic sampling in random
/// order (Madow) has exactly these probabilities. Sampling one layer after the other, as in
/// `numpy.random.choice(p=..)`, does not. A layer of weight 0 is never sampled. Weights may come
/// from [`Importance::probabilities`](crate::importance::Importance::probabilities). State kept:
/// none.
///
/// # Example
///
/// ```
/// use lisa::policy::{Draw, SamplingPolicy, Weighted};
///
/// let policy = Weighted::new(vec![3.0, 0.0, 1.0, 1.0, 1.0]);
/// let draw = Draw::new(42, 0, 5, 2);
/// assert_eq!(policy.draw(&draw).len(), 2);
/// let third = 1.0 / 3.0;
/// assert_eq!(policy.inclusion(&draw).unwrap(), [1.0, 0.0, third, third, third]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted {
    weights: Vec<f64>,
}

impl Weighted {
    /// One weight for each layer, in the order of the stack. Their scale does not matter.
    #[must_use]
    pub fn new(weights: Vec<f64>) -> Self {
        Self { weights }
    }

    /// By layer: the probability with which it is sampled.
    fn probabilities(&self, draw: &Draw) -> Vec<f64> {
        let weights = self.weights.iter().enumerate();
        let of = |(layer, &weight)| if draw.can_train(layer) { weight } else { 0.0 };
        let weights: Vec<f64> = weights.map(of).collect();
        systematic::inclusion(&weights, draw.active_layers)
    }
}

impl SamplingPolicy for Weighted {
    fn name(&self) -> String {
        format!("weighted{:?}", self.weights)
    }

    fn draw(&self, draw: &Draw) -> Vec<usize> {
        systematic::draw(&self.probabilities(draw), &mut draw.rng())
    }

    fn inclusion(&self, draw: &Draw) -> Option<Vec<f64>> {
        Some(self.probabilities(draw))
    }

    /// Refuses a wrong number of weights, a weight that is negative or not finite, and fewer
    /// positive weights than `active_layers`.
    fn validate(&self, draw: &Draw) -> Result<(), LisaError> {
        let (given, layers) = (self.weights.len(), draw.layers);
        if given != layers {
            return refuse(
                format!("weighted has {given} weights and the model {layers} layers"),
                "give one weight for each layer",
            );
        }
        let bad = |w: &f64| !(*w >= 0.0 && w.is_finite());
        if let Some(layer) = self.weights.iter().position(bad) {
            return refuse(
                format!("the weight of layer {layer} is {}", self.weights[layer]),
                "give a finite number of at least 0",
            );
        }
        let layers = self.weights.iter().enumerate();
        let positive = layers.filter(|&(layer, &w)| w > 0.0 && draw.can_train(layer));
        let positive = positive.count();
        if positive < draw.active_layers {
            let active = draw.active_layers;
            return refuse(
                format!(
                    "{positive} of {given} weights are positive and of layers that can train, and \
                     active_layers is {active}"
                ),
                "lower active_layers, or give more layers a weight above 0",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::test_support::{chi_square, counts, draws};

    #[test]
    fn draws_are_the_same_on_every_platform() {
        let policy = Weighted::new((1..=16).map(f64::from).collect());
        assert_eq!(draws(&policy, &Draw::new(42, 0, 16, 2)), DRAWS);
    }

    const DRAWS: &str = "[[8, 12], [3, 15], [9, 12], [9, 13], [11, 13], [1, 15]]";

    #[test]
    fn frequencies_are_the_inclusion_probabilities() {
        let weights = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 20.0];
        let policy = Weighted::new(weights.to_vec());
        let draw = Draw::new(3, 0, 10, 3);
        let p = policy.inclusion(&draw).unwrap();
        let counts = counts(&policy, &draw, 20_000);
        let expected: Vec<f64> = p.iter().map(|p| 20_000.0 * p).collect();
        let chi = chi_square(&counts, &expected);
        // 9 degrees of freedom at the most, 27.9 at 0.1 %. Drawing one by one gives over 1000.
        assert!(chi < 27.9, "{chi} {counts:?}");
    }

    #[test]
    fn zero_is_never_drawn_and_one_always() {
        // Layer 2 has by far the most, so its probability is cut to 1.
        let policy = Weighted::new(vec![1.0, 0.0, 50.0, 1.0, 1.0]);
        for period in 0..2000 {
            let layers = policy.draw(&Draw::new(9, period, 5, 2));
            assert!(layers.len() == 2 && layers.contains(&2) && !layers.contains(&1));
        }
    }

    #[test]
    fn weights_that_cannot_be_drawn_by_are_refused() {
        let message = |weights: &[f64]| {
            let draw = Draw::new(0, 0, 3, 2);
            let refused = Weighted::new(weights.to_vec()).validate(&draw);
            refused.unwrap_err().to_string()
        };
        assert!(message(&[1.0]).contains("1 weights and the model 3 layers"));
        assert!(message(&[1.0, -0.5, 1.0]).contains("layer 1 is -0.5"));
        assert!(message(&[1.0, 1.0, f64::NAN]).contains("layer 2 is NaN"));
        assert!(message(&[f64::INFINITY, 1.0, 1.0]).contains("layer 0 is inf"));
        assert!(
            message(&[1.0, 0.0, 0.0])
                .contains("1 of 3 weights are positive and of layers that can train")
        );
    }
}
