//! [`Bernoulli`]: each layer independently, as in the paper's Algorithm 1.

use super::sampling::refuse;
use super::{Draw, SamplingPolicy};
use crate::LisaError;

/// After this many empty samples in a row, one layer is sampled in proportion to its probability.
const REDRAWS: usize = 64;

/// Each layer is active with its own probability, independently of the others, so the number of
/// active layers varies. This is Algorithm 1 of arXiv 2403.17919.
///
/// If no probabilities are given, each layer has probability gamma / N, so gamma layers are active
/// on average. In a period without active layers, only the parameters outside the layers train. If
/// those are frozen, an empty sample is rejected and layers are sampled again. State kept: none.
///
/// # Example
///
/// ```
/// use lisa::policy::{Bernoulli, Draw, SamplingPolicy};
///
/// let policy = Bernoulli::new(vec![1.0, 0.5, 0.0]);
/// let layers = policy.draw(&Draw::new(42, 0, 3, 1));
/// assert!(layers.contains(&0) && !layers.contains(&2));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bernoulli {
    probabilities: Vec<f64>,
}

impl Bernoulli {
    /// One probability for each layer, in the order of the stack. If the list is empty, each is
    /// gamma / N.
    #[must_use]
    pub fn new(probabilities: Vec<f64>) -> Self {
        Self { probabilities }
    }

    /// By layer: the probability with which it is sampled, before an empty sample is drawn again.
    fn probabilities(&self, draw: &Draw) -> Vec<f64> {
        let equal = draw.active_layers as f64 / draw.trainable_layers().len() as f64;
        let of = |layer: usize| match self.probabilities.get(layer) {
            _ if !draw.can_train(layer) => 0.0,
            Some(&p) => p,
            None if self.probabilities.is_empty() => equal.min(1.0),
            None => 0.0,
        };
        (0..draw.layers).map(of).collect()
    }
}

impl SamplingPolicy for Bernoulli {
    fn name(&self) -> String {
        if self.probabilities.is_empty() {
            "bernoulli".into()
        } else {
            format!("bernoulli{:?}", self.probabilities)
        }
    }

    fn draw(&self, draw: &Draw) -> Vec<usize> {
        let mut rng = draw.rng();
        let p = self.probabilities(draw);
        for _ in 0..REDRAWS {
            let layers: Vec<usize> = (0..draw.layers)
                .filter(|&layer| rng.unit() < p[layer])
                .collect();
            if draw.allow_empty || !layers.is_empty() {
                return layers;
            }
        }
        let mut left = rng.unit() * p.iter().sum::<f64>();
        let mut taken = Vec::new();
        for (layer, p) in p.into_iter().enumerate() {
            if p > 0.0 {
                taken = vec![layer];
                if left < p {
                    break;
                }
                left -= p;
            }
        }
        taken
    }

    /// The given probabilities if a sample may be empty. Otherwise, the probabilities given that
    /// the sample is not empty.
    fn inclusion(&self, draw: &Draw) -> Option<Vec<f64>> {
        let p = self.probabilities(draw);
        if draw.allow_empty {
            return Some(p);
        }
        let empty: f64 = p.iter().map(|p| 1.0 - p).product();
        let total: f64 = p.iter().sum();
        let tried: f64 = (0..REDRAWS).map(|redraws| empty.powi(redraws as i32)).sum();
        let last = empty.powi(REDRAWS as i32) / total;
        Some(p.iter().map(|p| p * (tried + last)).collect())
    }

    /// Refuses a wrong number of probabilities, one outside [0, 1], and only zeros if nothing else
    /// trains.
    fn validate(&self, draw: &Draw) -> Result<(), LisaError> {
        let (given, layers) = (self.probabilities.len(), draw.layers);
        if given != 0 && given != layers {
            return refuse(
                format!("bernoulli has {given} probabilities and the model {layers} layers"),
                "give one probability for each layer, or none for gamma / N each",
            );
        }
        if let Some((layer, p)) = self
            .probabilities
            .iter()
            .enumerate()
            .find(|(_, p)| !(0.0..=1.0).contains(*p))
        {
            return refuse(
                format!("the probability of layer {layer} is {p}"),
                "give a number in [0, 1]",
            );
        }
        if !draw.allow_empty && given != 0 && self.probabilities(draw).iter().all(|&p| p == 0.0) {
            return refuse(
                "every layer that can train has probability 0 and no parameter outside the layers trains in every period"
                    .into(),
                "raise a probability, or let the embeddings train in every period",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::test_support::{counts, draws};

    #[test]
    fn draws_are_the_same_on_every_platform() {
        let found = draws(&Bernoulli::default(), &Draw::new(42, 0, 16, 2));
        assert_eq!(found, DRAWS);
    }

    const DRAWS: &str = "[[5], [3], [], [4, 12], [3], [14]]";

    #[test]
    fn zero_is_never_drawn_and_one_always() {
        let policy = Bernoulli::new(vec![0.0, 1.0, 0.25]);
        let counts = counts(&policy, &Draw::new(5, 0, 3, 1), 4000);
        assert_eq!(counts[..2], [0, 4000]);
        assert!((900..1100).contains(&counts[2]), "{counts:?}");
    }

    #[test]
    fn an_empty_draw_is_drawn_again_where_nothing_else_trains() {
        let policy = Bernoulli::new(vec![1e-9, 0.0, 1e-9]);
        let empty = Draw::new(5, 0, 3, 1);
        assert!(policy.draw(&empty).is_empty());
        let mut counts = [0; 3];
        for period in 0..200 {
            let draw = Draw::new(5, period, 3, 1).with_allow_empty(false);
            let layers = policy.draw(&draw);
            assert_eq!(layers.len(), 1);
            counts[layers[0]] += 1;
        }
        assert!(
            counts[1] == 0 && counts[0] > 60 && counts[2] > 60,
            "{counts:?}"
        );
    }

    #[test]
    fn drawing_again_raises_the_probabilities() {
        let policy = Bernoulli::new(vec![0.5, 0.25]);
        let draw = Draw::new(5, 0, 2, 1);
        assert_eq!(policy.inclusion(&draw).unwrap(), [0.5, 0.25]);
        let draw = draw.with_allow_empty(false);
        let p = policy.inclusion(&draw).unwrap();
        let nothing = 0.5 * 0.75;
        for (p, alone) in p.iter().zip([0.5, 0.25]) {
            assert!((p - alone / (1.0 - nothing)).abs() < 1e-12, "{p}");
        }
        // Where nearly every draw is empty, the one that is taken instead counts.
        let rare = Bernoulli::new(vec![3e-9, 1e-9]);
        let p = rare.inclusion(&draw).unwrap();
        assert!((p[0] - 0.75).abs() < 1e-6 && (p[1] - 0.25).abs() < 1e-6);
    }

    #[test]
    fn impossible_probabilities_are_refused_by_name() {
        let message = |p: Vec<f64>, empty: bool| {
            let draw = Draw::new(0, 0, 2, 1).with_allow_empty(empty);
            Bernoulli::new(p).validate(&draw).unwrap_err().to_string()
        };
        assert!(message(vec![0.5], true).contains("1 probabilities and the model 2 layers"));
        assert!(message(vec![0.5, 1.5], true).contains("layer 1 is 1.5"));
        assert!(message(vec![f64::NAN, 0.5], true).contains("layer 0 is NaN"));
        assert!(
            message(vec![0.0, 0.0], false).contains("every layer that can train has probability 0")
        );
        assert!(
            Bernoulli::new(vec![0.0, 0.0])
                .validate(&Draw::new(0, 0, 2, 1))
                .is_ok()
        );
    }
}
