//! Element counts of a model ([`Elements`]), and the [`Draw`] of layers that needs the most memory.

use std::cmp::Reverse;
use std::collections::HashSet;

use burn::module::ParamId;

use crate::{FrozenWeights, LayerMap, LisaConfig, PolicyConfig};

/// How often more units may be active than a plan assumes.
const RARE: f64 = 1e-3;

/// Element counts of a unit. A unit is what a policy samples: a layer, or a part of one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unit {
    pub(super) index: usize,
    /// The layer that the unit is, or is a part of.
    pub(super) layer: usize,
    pub(super) trainable: u64,
    /// Elements of the largest trainable parameter.
    pub(super) largest: u64,
    /// Tensors of the optimizer state of the trainable parameters in a record.
    pub(super) state_tensors: u64,
    /// The trainable matrices, which are quantized while the unit is frozen.
    pub(super) matrices: Matrices,
    /// The matrices that never train, which are quantized in every period.
    pub(super) never_trained: Matrices,
}

/// Matrices that can be quantized.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Matrices {
    pub(super) elements: u64,
    /// Their bytes, quantized.
    pub(super) quantized: u64,
}

impl Unit {
    /// Elements of the matrices that are quantized while the unit is frozen.
    pub(super) fn quantized_elements(&self) -> u64 {
        self.matrices.elements + self.never_trained.elements
    }

    /// Whether a run with this configuration can sample the unit. A unit in which nothing may train is
    /// never sampled.
    pub(super) fn can_be_sampled(&self, config: &LisaConfig) -> bool {
        let is_positive = |values: &[f64]| values.get(self.index).is_none_or(|value| *value > 0.0);
        self.trainable > 0
            && match &config.policy {
                PolicyConfig::Fixed(fixed) => fixed.contains(&self.index),
                PolicyConfig::Bernoulli(values) | PolicyConfig::Weighted(values) => {
                    is_positive(values)
                }
                _ => true,
            }
    }
}

/// Element counts of a model.
pub(super) struct Elements {
    pub(super) total: u64,
    /// Trainable elements outside the layers.
    pub(super) outside: u64,
    /// Elements of the largest trainable parameter outside the layers.
    pub(super) largest_outside: u64,
    /// Tensors of the optimizer state of the parameters outside the layers in a record.
    pub(super) state_tensors_outside: u64,
    /// Whether the weight of the head is trainable; if that is unknown, whether a matrix outside the layers
    /// is.
    pub(super) head_trains: bool,
    /// Whether a parameter before the layers, such as an embedding, is trainable.
    pub(super) trainable_below: bool,
    /// The units, in descending order of trainable elements.
    pub(super) units: Vec<Unit>,
}

impl Elements {
    /// `may_train`: by parameter, whether it may ever train. `head`: the weight of the head, if it
    /// is known. `packed`: whether the device stores two int4 values in a byte. `state_tensors`: the
    /// tensors of the optimizer state of a parameter of a shape in a record.
    pub(super) fn of(
        map: &LayerMap,
        may_train: &[bool],
        quantized: FrozenWeights,
        head: Option<ParamId>,
        packed: bool,
        state_tensors: impl Fn(&[usize]) -> u64,
    ) -> Self {
        let unit = |index| Unit {
            index,
            layer: map.item_of(index),
            ..Unit::default()
        };
        let mut elements = Self {
            total: 0,
            outside: 0,
            largest_outside: 0,
            state_tensors_outside: 0,
            head_trains: false,
            trainable_below: false,
            units: (0..map.layers().len()).map(unit).collect(),
        };
        let in_layer = |i: &usize| map.layer_of(*i).is_some();
        let first = (0..map.parameters().len()).find(in_layer).unwrap_or(0);
        for (i, (parameter, &trainable)) in map.parameters().iter().zip(may_train).enumerate() {
            let len = parameter.len() as u64;
            elements.total += len;
            if let Some(unit) = map.layer_of(i) {
                let unit = &mut elements.units[unit];
                if let Some(bytes) = quantized.bytes(&parameter.shape, packed) {
                    let matrices = if trainable {
                        &mut unit.matrices
                    } else {
                        &mut unit.never_trained
                    };
                    matrices.elements += len;
                    matrices.quantized += bytes;
                }
                if trainable {
                    unit.trainable += len;
                    unit.largest = unit.largest.max(len);
                    unit.state_tensors += state_tensors(&parameter.shape);
                }
            } else if trainable {
                elements.outside += len;
                elements.largest_outside = elements.largest_outside.max(len);
                elements.state_tensors_outside += state_tensors(&parameter.shape);
                elements.head_trains |= match head {
                    Some(head) => parameter.id == head,
                    None => parameter.shape.len() > 1,
                };
                elements.trainable_below |= i < first;
            }
        }
        elements.units.sort_by_key(|unit| Reverse(unit.trainable));
        elements
    }

    /// The number of layers in the stack.
    pub(super) fn layers(&self) -> usize {
        let last = self.units.iter().map(|unit| unit.layer).max();
        last.map_or(0, |last| last + 1)
    }

    /// Trainable elements of all units.
    fn trainable_units(&self) -> u64 {
        self.units.iter().map(|unit| unit.trainable).sum()
    }
}

/// The active units that need the most memory, of all that a policy can sample.
pub(super) struct Draw {
    pub(super) active: Vec<Unit>,
    pub(super) frozen: Vec<Unit>,
    /// The largest number of layers that can have an active unit.
    pub(super) active_layers: usize,
}

impl Draw {
    /// Takes the largest units that the policy can sample together, or those that it always
    /// samples.
    pub(super) fn largest(elements: &Elements, config: &LisaConfig) -> Self {
        let mut left = match &config.policy {
            PolicyConfig::Budget(budget) => budget.room(elements.trainable_units()),
            _ => 0,
        };
        let most = most_active(&elements.units, config);
        let mut taken = 0;
        let (active, frozen): (Vec<Unit>, Vec<Unit>) =
            elements.units.iter().copied().partition(|unit: &Unit| {
                let fits = match &config.policy {
                    PolicyConfig::Fixed(_) => true,
                    PolicyConfig::Budget(_) => unit.trainable <= left,
                    _ => taken < most,
                };
                let drawn = fits && unit.can_be_sampled(config);
                if drawn {
                    taken += 1;
                    left = left.saturating_sub(unit.trainable);
                }
                drawn
            });
        let active_layers = active_layers(elements, &active, config).min(elements.layers());
        Self {
            active,
            frozen,
            active_layers,
        }
    }

    /// Trainable elements of the active units.
    pub(super) fn trainable(&self) -> u64 {
        self.active.iter().map(|unit| unit.trainable).sum()
    }
}

/// The number of units that a policy samples. That of [`Bernoulli`](crate::policy::Bernoulli) varies:
/// the number that at most one in a thousand samples exceeds.
fn most_active(units: &[Unit], config: &LisaConfig) -> usize {
    let PolicyConfig::Bernoulli(probabilities) = &config.policy else {
        return config.active_layers;
    };
    let units = units.iter().filter(|unit| unit.can_be_sampled(config));
    let units: Vec<&Unit> = units.collect();
    let mean = (config.active_layers as f64 / units.len().max(1) as f64).min(1.0);
    // The probability of each number of active units.
    let mut counts = vec![1.0];
    for unit in &units {
        let p = probabilities.get(unit.index).copied().unwrap_or(mean);
        counts.push(0.0);
        for count in (0..counts.len()).rev() {
            let below = if count > 0 { counts[count - 1] } else { 0.0 };
            counts[count] = counts[count] * (1.0 - p) + below * p;
        }
    }
    let mut above = 1.0;
    let enough = |count: &f64| {
        above -= count;
        above <= RARE
    };
    counts.iter().position(enough).unwrap_or(units.len())
}

/// The largest number of layers that can have an active unit. Parts of layers count as parts of
/// different layers.
fn active_layers(elements: &Elements, active: &[Unit], config: &LisaConfig) -> usize {
    match &config.policy {
        PolicyConfig::Fixed(_) => {
            let layers: HashSet<usize> = active.iter().map(|unit| unit.layer).collect();
            layers.len()
        }
        // A budget buys more of the smallest units.
        PolicyConfig::Budget(budget) => {
            let mut left = budget.room(elements.trainable_units());
            let units = elements.units.iter().rev();
            let sampled = units.filter(|unit| unit.can_be_sampled(config));
            let smallest = sampled.take_while(|unit| {
                let fits = unit.trainable <= left;
                left = left.saturating_sub(unit.trainable);
                fits
            });
            smallest.count()
        }
        _ => active.len(),
    }
}
