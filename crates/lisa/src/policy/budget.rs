//! [`Budget`]: as many layers as a share of the parameters allows.

use burn::config::Config;

use super::sampling::refuse;
use super::{Draw, Observation, SamplingPolicy, Statistic};
use crate::LisaError;

/// The exponent is at most 5, so no weight is more than e^5 times another, as in MISA.
const LARGEST_EXPONENT: f64 = 5.0;

/// Samples layers until a share of the parameters is active, weighted by the size of their
/// gradients, as in MISA (module-wise importance sampling).
///
/// It ignores `active_layers`. Layers that were never active are sampled first, in random order.
/// The others are then sampled one by one, with probability proportional to `exp(min(5, eta G^2))`
/// among the remaining layers. A layer that is larger than the remaining budget is skipped. For a
/// gradient g of n elements, |g|^2 / n is averaged over the steps of a period, and then, as a
/// moving average, over the periods in which the layer was active. G^2 is this average divided by
/// its mean over the layers. The division by n is needed because the budget counts parameters: a
/// layer is rated by the average of its elements. The division by the mean makes eta independent of
/// the model and the loss. Both divisions and the defaults are choices of this crate.
///
/// It is meant for split layers ([`LisaConfig::split`](crate::LisaConfig::split)), but also works
/// on whole layers. [`LisaConfig::unbiased`](crate::LisaConfig::unbiased) refuses it: the
/// probability of a layer has no closed form. State kept, in the run: a score for each layer.
///
/// # Example
///
/// ```
/// use lisa::policy::{Budget, Draw, SamplingPolicy, Scores};
///
/// // Attention and feed-forward halves of three layers.
/// let scores = Scores::new([40, 80, 40, 80, 40, 80]);
/// let policy = Budget::new().with_share(0.5);
/// let layers = policy.draw(&Draw::new(42, 0, 6, 1).with_scores(scores.clone()));
/// let active: u64 = layers.iter().map(|&layer| scores.get(layer).parameters).sum();
/// assert!(active <= 180 && active >= 160);
/// ```
#[derive(Config, Debug, PartialEq)]
pub struct Budget {
    /// The share of the parameters of all layers that may train together, in (0, 1].
    #[config(default = 0.25)]
    pub share: f64,
    /// The factor eta of the scores, which have a mean of 1. If it is 0, all layers are equally
    /// probable.
    #[config(default = 1.0)]
    pub eta: f64,
    /// The decay of the moving average from one period to the next, in [0, 1).
    #[config(default = 0.5)]
    pub decay: f64,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

impl Budget {
    /// How many of this many parameters may train together.
    pub(crate) fn room(&self, parameters: u64) -> u64 {
        // A share that means a whole number must not lose one to rounding.
        (self.share * parameters as f64 + 1e-6).floor() as u64
    }
}

impl SamplingPolicy for Budget {
    fn name(&self) -> String {
        let Self { share, eta, decay } = *self;
        format!("budget(share {share}, eta {eta}, decay {decay})")
    }

    fn draw(&self, draw: &Draw) -> Vec<usize> {
        let mut rng = draw.rng();
        let mut room = self.room(draw.scores.parameters());
        let mut drawn = Vec::new();
        let mut take = |layer: usize| {
            let size = draw.scores.get(layer).parameters;
            if size <= room {
                room -= size;
                drawn.push(layer);
            }
        };
        let fresh = draw.scores.never_drawn();
        for i in rng.shuffle(fresh.len()) {
            take(fresh[i]);
        }
        let weight = |g: f64| libm::exp((self.eta * g).min(LARGEST_EXPONENT));
        let mut left: Vec<(usize, f64)> = draw
            .scores
            .relative()
            .into_iter()
            .enumerate()
            .filter(|(layer, _)| draw.can_train(*layer) && !fresh.contains(layer))
            .map(|(layer, g)| (layer, weight(g)))
            .collect();
        while !left.is_empty() {
            let total: f64 = left.iter().map(|(_, weight)| weight).sum();
            let mut point = rng.unit() * total;
            let hit = left.iter().position(|(_, weight)| {
                point -= weight;
                point < 0.0
            });
            // Rounding may leave the point after the last layer.
            let (layer, _) = left.remove(hit.unwrap_or(left.len() - 1));
            take(layer);
        }
        drawn.sort_unstable();
        drawn
    }

    fn observes(&self) -> Option<Observation> {
        Some(Observation {
            statistic: Statistic::MeanSquare,
            decay: self.decay,
        })
    }

    /// Refuses settings out of range, and a share that is smaller than one of the layers.
    fn validate(&self, draw: &Draw) -> Result<(), LisaError> {
        let Self { share, eta, decay } = *self;
        if !(share > 0.0 && share <= 1.0) {
            return refuse(
                format!("the share of budget is {share}"),
                "give a number in (0, 1]",
            );
        }
        if !(eta >= 0.0 && eta.is_finite()) {
            return refuse(
                format!("the eta of budget is {eta}"),
                "give a finite number of at least 0",
            );
        }
        if !(0.0..1.0).contains(&decay) {
            return refuse(
                format!("the decay of budget is {decay}"),
                "give a number in [0, 1)",
            );
        }
        let all = draw.scores.parameters();
        let sizes = draw.scores.iter().map(|layer| layer.parameters);
        match sizes.enumerate().max_by_key(|(_, size)| *size) {
            Some((layer, size)) if size > self.room(all) => refuse(
                format!(
                    "layer {layer} has {size} of {all} parameters, more than a share of {share}, so \
                     it would never train"
                ),
                &format!(
                    "give a share of at least {:.4}, or split the layers",
                    (size as f64 / all as f64 * 1e4).ceil() / 1e4
                ),
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Scores;
    use crate::policy::test_support::{chi_square, counts, draws};

    /// Layers of 40 and 80 elements that were all active once.
    fn halves(layers: usize) -> Scores {
        let mut scores = Scores::new((0..2 * layers as u64).map(|i| 40 + 40 * (i % 2)));
        for layer in 0..2 * layers {
            scores.close(0, &[layer]);
            scores.observe(layer, 0.5 + layer as f32, 0.5);
        }
        scores
    }

    #[test]
    fn draws_are_the_same_on_every_platform() {
        let draw = Draw::new(42, 1, 8, 1).with_scores(halves(4));
        assert_eq!(draws(&Budget::default(), &draw), DRAWS);
    }

    const DRAWS: &str = "[[2, 7], [3, 6], [5, 6], [6, 7], [5, 6], [2, 7]]";

    #[test]
    fn the_share_is_never_exceeded_and_has_no_room_left() {
        for share in [0.25, 0.3, 0.5, 0.99, 1.0] {
            let policy = Budget::new().with_share(share);
            let scores = halves(4);
            for period in 0..500 {
                let draw = Draw::new(1, period, 8, 1).with_scores(scores.clone());
                let layers = policy.draw(&draw);
                let size = |layer: usize| scores.get(layer).parameters;
                let active: u64 = layers.iter().map(|&l| size(l)).sum();
                let room = share * 480.0 - active as f64;
                assert!(room >= 0.0 && !layers.is_empty(), "{share}: {layers:?}");
                let fits = (0..8).any(|l| !layers.contains(&l) && size(l) as f64 <= room);
                assert!(!fits, "{share}: {layers:?} leaves {room}");
            }
        }
    }

    #[test]
    fn layers_that_never_trained_come_first() {
        let mut scores = Scores::new([10; 6]);
        scores.close(0, &[0, 1, 2, 3]);
        for layer in 0..4 {
            scores.observe(layer, 9.0, 0.5);
        }
        let policy = Budget::new().with_share(0.5);
        for period in 1..50 {
            let layers = policy.draw(&Draw::new(1, period, 6, 1).with_scores(scores.clone()));
            assert!(layers.len() == 3 && layers.contains(&4) && layers.contains(&5));
        }
    }

    #[test]
    fn frequencies_are_those_of_the_exponential() {
        // One of four equal layers at a time; the last one's exponent is cut at 5.
        let mut scores = Scores::new([10; 4]);
        for (layer, g) in [1.0, 2.0, 3.0, 18.0].into_iter().enumerate() {
            scores.close(0, &[layer]);
            scores.observe(layer, g, 0.5);
        }
        let policy = Budget::new().with_eta(3.0);
        let e = [0.5, 1.0, 1.5, 5.0f64].map(f64::exp);
        let sum: f64 = e.iter().sum();
        let draw = Draw::new(6, 0, 4, 1).with_scores(scores);
        let counts = counts(&policy, &draw, 40_000);
        let chi = chi_square(&counts, &e.map(|e| 40_000.0 * e / sum));
        // 3 degrees of freedom, 16.3 at 0.1 %.
        assert!(chi < 16.3, "{chi} {counts:?}");
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let message = |policy: Budget| {
            let draw = Draw::new(0, 0, 4, 1).with_scores(Scores::new([10, 10, 10, 30]));
            let refused = policy.validate(&draw);
            refused.unwrap_err().to_string()
        };
        let config = Budget::new;
        assert!(message(config().with_share(0.0)).contains("share of budget is 0"));
        assert!(message(config().with_share(1.1)).contains("share of budget is 1.1"));
        assert!(message(config().with_eta(-1.0)).contains("eta of budget is -1"));
        assert!(message(config().with_decay(1.0)).contains("decay of budget is 1"));
        let small = message(config().with_share(0.4));
        assert!(small.contains("layer 3 has 30 of 60"), "{small}");
        assert!(small.contains("at least 0.5"), "{small}");
    }
}
