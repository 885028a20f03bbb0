//! [`Fixed`]: the same layers in every period.

use super::sampling::refuse;
use super::{Draw, SamplingPolicy};
use crate::LisaError;

/// The given layers in every period. This is partial fine-tuning, a baseline for sampling.
///
/// It ignores `active_layers`. State kept: none.
///
/// # Example
///
/// ```
/// use lisa::policy::{Draw, Fixed, SamplingPolicy};
///
/// let last_two = Fixed::new(vec![14, 15]);
/// assert_eq!(last_two.draw(&Draw::new(0, 7, 16, 2)), [14, 15]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    layers: Vec<usize>,
}

impl Fixed {
    /// These layers, counted from 0, in any order.
    #[must_use]
    pub fn new(mut layers: Vec<usize>) -> Self {
        layers.sort_unstable();
        layers.dedup();
        Self { layers }
    }
}

impl SamplingPolicy for Fixed {
    fn name(&self) -> String {
        format!("fixed{:?}", self.layers)
    }

    fn draw(&self, _draw: &Draw) -> Vec<usize> {
        self.layers.clone()
    }

    fn inclusion(&self, draw: &Draw) -> Option<Vec<f64>> {
        let here = |layer| f64::from(u8::from(self.layers.contains(&layer)));
        Some((0..draw.layers).map(here).collect())
    }

    /// Refuses layers that do not exist. If nothing else trains in some periods, refuses an empty list, and
    /// a list in which no layer can train.
    fn validate(&self, draw: &Draw) -> Result<(), LisaError> {
        if let Some(layer) = self.layers.iter().find(|&&layer| layer >= draw.layers) {
            return refuse(
                format!(
                    "fixed asks for layer {layer} and the model has {}",
                    draw.layers
                ),
                "name layers of the model, counted from 0",
            );
        }
        if !draw.allow_empty && !self.layers.iter().any(|&layer| draw.can_train(layer)) {
            let what = if self.layers.is_empty() {
                "no layer".into()
            } else {
                format!("no layer that can train (its layers are {:?})", self.layers)
            };
            return refuse(
                format!(
                    "fixed has {what} and no parameter outside the layers trains in every period"
                ),
                "name a layer that can train, or let the embeddings train in every period",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_layers_are_drawn_always_and_others_never() {
        let policy = Fixed::new(vec![3, 1, 3]);
        for period in 0..50 {
            assert_eq!(policy.draw(&Draw::new(period, period, 4, 1)), [1, 3]);
        }
        let p = policy.inclusion(&Draw::new(0, 0, 4, 1)).unwrap();
        assert_eq!(p, [0.0, 1.0, 0.0, 1.0]);
        assert_eq!(policy.name(), "fixed[1, 3]");
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        let draw = Draw::new(0, 0, 4, 1);
        let error = Fixed::new(vec![0, 4]).validate(&draw).unwrap_err();
        assert!(error.to_string().contains("layer 4 and the model has 4"));
        assert!(Fixed::new(vec![]).validate(&draw).is_ok());
        let draw = draw.with_allow_empty(false);
        let error = Fixed::new(vec![]).validate(&draw).unwrap_err();
        assert!(error.to_string().contains("fixed has no layer"));
    }

    #[test]
    fn layers_that_cannot_train_are_refused_where_nothing_else_trains() {
        use crate::policy::Scores;
        // Layers 0 and 2 are frozen as a whole.
        let draw = Draw::new(0, 0, 4, 1).with_scores(Scores::new([0, 5, 0, 5]));
        assert!(Fixed::new(vec![0, 2]).validate(&draw).is_ok());
        let draw = draw.with_allow_empty(false);
        assert!(Fixed::new(vec![0, 1]).validate(&draw).is_ok());
        let error = Fixed::new(vec![0, 2]).validate(&draw).unwrap_err();
        let expected = "fixed has no layer that can train (its layers are [0, 2]) and no";
        assert!(error.message().contains(expected), "{error}");
    }
}
