//! [`Cyclic`]: all layers in turn, gamma layers per period.

use serde::{Deserialize, Serialize};

use super::{Draw, DrawRng, SamplingPolicy};

/// The order in which [`Cyclic`] activates the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CyclicOrder {
    /// From the first layer to the last.
    Ascending,
    /// From the last layer to the first.
    Descending,
    /// In a new random order for each sweep.
    Reshuffled,
}

/// All layers in turn, `active_layers` per period. This is block coordinate descent, as in BAdam
/// (arXiv 2404.02827, with one layer per period).
///
/// In each sweep, every layer is active in exactly one period. The last period of a sweep has fewer
/// layers if `active_layers` does not divide their number.
/// [`LisaConfig::unbiased`](crate::LisaConfig::unbiased) refuses this policy: the layers of a
/// period depend on earlier periods. State kept: none.
///
/// # Example
///
/// ```
/// use lisa::policy::{Cyclic, CyclicOrder, Draw, SamplingPolicy};
///
/// let policy = Cyclic::new(CyclicOrder::Descending);
/// let draws: Vec<_> = (0..4).map(|period| policy.draw(&Draw::new(0, period, 5, 2))).collect();
/// assert_eq!(draws, [vec![3, 4], vec![1, 2], vec![0], vec![3, 4]]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cyclic {
    order: CyclicOrder,
}

impl Cyclic {
    /// The layers in this order.
    #[must_use]
    pub fn new(order: CyclicOrder) -> Self {
        Self { order }
    }
}

impl SamplingPolicy for Cyclic {
    fn name(&self) -> String {
        let order = match self.order {
            CyclicOrder::Ascending => "ascending",
            CyclicOrder::Descending => "descending",
            CyclicOrder::Reshuffled => "reshuffled",
        };
        format!("cyclic({order})")
    }

    fn draw(&self, draw: &Draw) -> Vec<usize> {
        let mut order = draw.trainable_layers();
        let layers = order.len();
        let active = draw.active_layers.max(1);
        let periods = (layers.div_ceil(active) as u64).max(1);
        let (sweep, place) = (draw.period / periods, (draw.period % periods) as usize);
        match self.order {
            CyclicOrder::Ascending => {}
            CyclicOrder::Descending => order.reverse(),
            CyclicOrder::Reshuffled => {
                let shuffled = DrawRng::new(draw.seed, sweep).shuffle(layers);
                order = shuffled.into_iter().map(|i| order[i]).collect();
            }
        }
        let from = (place * active).min(layers);
        let mut drawn = order[from..(from + active).min(layers)].to_vec();
        drawn.sort_unstable();
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::test_support::{chi_square, draws};

    #[test]
    fn draws_are_the_same_on_every_platform() {
        let draws = |order| draws(&Cyclic::new(order), &Draw::new(42, 0, 5, 2));
        let up = "[[0, 1], [2, 3], [4], [0, 1], [2, 3], [4]]";
        let down = "[[3, 4], [1, 2], [0], [3, 4], [1, 2], [0]]";
        assert_eq!(draws(CyclicOrder::Ascending), up);
        assert_eq!(draws(CyclicOrder::Descending), down);
        assert_eq!(draws(CyclicOrder::Reshuffled), RESHUFFLED);
    }

    const RESHUFFLED: &str = "[[0, 4], [1, 3], [2], [1, 2], [0, 3], [4]]";

    #[test]
    fn every_sweep_has_each_layer_once() {
        for order in [
            CyclicOrder::Ascending,
            CyclicOrder::Descending,
            CyclicOrder::Reshuffled,
        ] {
            for (layers, active) in [(12usize, 3), (7, 3), (5, 5), (3, 1), (2, 9)] {
                let periods = layers.div_ceil(active) as u64;
                for sweep in 0..20 {
                    let mut seen: Vec<usize> = (0..periods)
                        .flat_map(|place| {
                            let period = sweep * periods + place;
                            Cyclic::new(order).draw(&Draw::new(1, period, layers, active))
                        })
                        .collect();
                    seen.sort_unstable();
                    assert_eq!(seen, (0..layers).collect::<Vec<_>>(), "{order:?}");
                }
            }
        }
    }

    #[test]
    fn a_reshuffled_order_begins_with_each_layer_equally_often() {
        let mut counts = [0usize; 8];
        for sweep in 0..8000 {
            let draw = Draw::new(2, 4 * sweep, 8, 2);
            for layer in Cyclic::new(CyclicOrder::Reshuffled).draw(&draw) {
                counts[layer] += 1;
            }
        }
        // 2000 expected of each; 7 degrees of freedom, 24.3 at 0.1 %.
        let chi = chi_square(&counts, &[2000.0; 8]);
        assert!(chi < 24.3, "{chi} {counts:?}");
    }
}
