//! [`CatchUp`]: learning rates that are higher for layers that were frozen longer.

use burn::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler};
use burn::module::{ParamGroup, ParamId};
use lisa::Lisa;

/// Counts the steps in which each layer was active.
pub(super) struct CatchUp {
    period: usize,
    /// Steps, and those in which each layer was active.
    steps: usize,
    active: Vec<usize>,
    /// The factor of each layer in this period.
    factors: Vec<f64>,
}

impl CatchUp {
    pub(super) fn new(layers: usize, period: usize) -> Self {
        Self {
            period,
            steps: 0,
            active: vec![0; layers],
            factors: vec![1.0; layers],
        }
    }

    /// The learning rates of the next step. The rate of a layer is multiplied by (p T + K) / (a + K), where T is the
    /// number of steps before the period, a that of the steps in which the layer was active, p the share of active
    /// layers, and K the period: 1 for a layer that had its share.
    pub(super) fn rates(&mut self, lisa: &Lisa, rate: f64) -> ModuleLearningRate {
        self.count(lisa.active_layers());
        let map = lisa.layers();
        let base = ModuleLrScheduler::new(rate);
        let groups = lisa.active_layers().iter().fold(base, |groups, &layer| {
            let parameters = map.layers()[layer].parameters.iter();
            let ids: Vec<ParamId> = parameters.map(|&i| map.parameters()[i].id).collect();
            groups.with_group(ParamGroup::from_ids(ids), rate * self.factors[layer])
        });
        { groups }.step()
    }

    /// Counts a step of these layers.
    fn count(&mut self, layers: &[usize]) {
        if self.steps.is_multiple_of(self.period) {
            let share = layers.len() as f64 / self.active.len() as f64;
            let period = self.period as f64;
            let mean = share * self.steps as f64 + period;
            let factors = self.active.iter();
            self.factors = factors.map(|&a| mean / (a as f64 + period)).collect();
        }
        self.steps += 1;
        for &layer in layers {
            self.active[layer] += 1;
        }
    }
}

#[test]
fn layers_that_were_frozen_longer_have_higher_rates() {
    let mut rates = CatchUp::new(4, 2);
    for layers in [[0, 1], [0, 1], [0, 2], [0, 2]] {
        rates.count(&layers);
    }
    assert_eq!(rates.factors, [3.0 / 4.0, 3.0 / 4.0, 3.0 / 2.0, 3.0 / 2.0]);
    rates.count(&[1, 3]);
    // Half of the layers have 2 of 4 steps each: (2 + 2) / (a + 2).
    assert_eq!(rates.factors, [4.0 / 6.0, 1.0, 1.0, 2.0]);
}
