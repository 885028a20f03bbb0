//! [`Uniform`]: exactly gamma layers, every set of them with the same probability.

use super::{Draw, SamplingPolicy};

/// Samples exactly `active_layers` layers, uniformly, without replacement.
///
/// The later versions of the paper (arXiv 2403.17919), LMFlow and Axolotl sample this way. State
/// kept: none.
///
/// # Example
///
/// ```
/// use lisa::policy::{Draw, SamplingPolicy, Uniform};
///
/// let layers = Uniform.draw(&Draw::new(42, 0, 16, 2));
/// assert_eq!(layers.len(), 2);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uniform;

impl SamplingPolicy for Uniform {
    fn name(&self) -> String {
        "uniform".into()
    }

    fn draw(&self, draw: &Draw) -> Vec<usize> {
        let layers = draw.trainable_layers();
        let chosen = draw.rng().choose(layers.len(), draw.active_layers);
        chosen.into_iter().map(|i| layers[i]).collect()
    }

    fn inclusion(&self, draw: &Draw) -> Option<Vec<f64>> {
        let p = draw.active_layers as f64 / draw.trainable_layers().len() as f64;
        let of = |layer| {
            if draw.can_train(layer) {
                p.min(1.0)
            } else {
                0.0
            }
        };
        Some((0..draw.layers).map(of).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::test_support::{chi_square, draws};

    #[test]
    fn draws_are_the_same_on_every_platform() {
        assert_eq!(draws(&Uniform, &Draw::new(0, 0, 4, 2)), DRAWS_0_4_2);
        assert_eq!(draws(&Uniform, &Draw::new(42, 0, 32, 2)), DRAWS_42_32_2);
    }

    const DRAWS_0_4_2: &str = "[[0, 2], [1, 3], [0, 1], [0, 3], [2, 3], [0, 2]]";
    const DRAWS_42_32_2: &str = "[[7, 31], [12, 30], [20, 29], [14, 18], [3, 10], [20, 24]]";

    #[test]
    fn every_layer_is_drawn_equally_often() {
        let mut counts = [0usize; 16];
        for period in 0..8000 {
            let layers = Uniform.draw(&Draw::new(1, period, 16, 2));
            assert!(layers.len() == 2 && layers[0] < layers[1] && layers[1] < 16);
            for layer in layers {
                counts[layer] += 1;
            }
        }
        // 1000 expected of each; chi-square with 15 degrees of freedom, 37.7 at 0.1 %.
        let chi = chi_square(&counts, &[1000.0; 16]);
        assert!(chi < 37.7, "{chi} {counts:?}");
    }
}
