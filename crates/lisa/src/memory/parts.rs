//! Numbers of a model by what becomes of them, and which of its layers a plan takes for drawn. Knows no bytes
//! but those of quantized weights. Tests: `memory/tests.rs`.

use crate::{LayerMap, LisaConfig, PolicyConfig};

/// Numbers of one layer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LayerPart {
    /// Its place among the layers.
    pub(super) index: usize,
    /// The item of the stack that it is, or is a part of.
    pub(super) item: usize,
    /// That may train.
    pub(super) trains: u64,
    /// In matrices that are quantized while they are frozen.
    pub(super) matrices: u64,
    /// Bytes of these, quantized.
    pub(super) quantized: u64,
    /// In the largest parameter.
    pub(super) largest: u64,
}

/// Numbers of a model by what becomes of them.
pub(super) struct Parts {
    pub(super) all: u64,
    pub(super) outside_trains: u64,
    /// In the largest parameter outside the layers that trains.
    pub(super) largest_outside: u64,
    /// Whether one before the layers, in the order of the module, trains: an embedding.
    pub(super) below_trains: bool,
    pub(super) layers: Vec<LayerPart>,
}

impl Parts {
    pub(super) fn of(map: &LayerMap, config: &LisaConfig, packed: bool) -> Self {
        let mut parts = Self {
            all: 0,
            outside_trains: 0,
            largest_outside: 0,
            below_trains: false,
            layers: vec![LayerPart::default(); map.layers().len()],
        };
        for (index, layer) in parts.layers.iter_mut().enumerate() {
            (layer.index, layer.item) = (index, map.item_of(index));
        }
        let stack = |i: &usize| map.layer_of(*i).is_some();
        let first = (0..map.parameters().len()).find(stack).unwrap_or(0);
        for (i, parameter) in map.parameters().iter().enumerate() {
            let numbers = parameter.len() as u64;
            parts.all += numbers;
            let held = config.frozen.as_ref();
            let held = held.is_some_and(|g| g.matches(&parameter.id, Some(&parameter.path)));
            let trains = parameter.trainable && !held;
            if let Some(layer) = map.layer_of(i) {
                let layer = &mut parts.layers[layer];
                if let Some(bytes) = config.frozen_weights.bytes(&parameter.shape, packed) {
                    layer.matrices += numbers;
                    layer.quantized += bytes;
                }
                if trains {
                    layer.trains += numbers;
                    layer.largest = layer.largest.max(numbers);
                }
            } else if trains {
                parts.outside_trains += numbers;
                parts.largest_outside = parts.largest_outside.max(numbers);
                parts.below_trains |= i < first;
            }
        }
        parts
    }
}

/// The layers that train together at the most and those that do not, of all in descending size.
pub(super) fn draw(layers: &[LayerPart], config: &LisaConfig) -> (Vec<LayerPart>, Vec<LayerPart>) {
    let mut room = match &config.policy {
        PolicyConfig::Budget(budget) => budget.room(layers.iter().map(|l| l.trains).sum()),
        _ => 0,
    };
    let mut taken = 0;
    layers.iter().partition(|layer| {
        let drawn = match &config.policy {
            PolicyConfig::Fixed(fixed) => fixed.contains(&layer.index),
            PolicyConfig::Budget(_) => layer.trains <= room,
            _ => taken < config.active_layers,
        };
        if drawn {
            taken += 1;
            room = room.saturating_sub(layer.trains);
        }
        drawn
    })
}

/// In how many items of the stack something trains at the most.
pub(super) fn training_items(
    drawn: &[LayerPart],
    layers: &[LayerPart],
    config: &LisaConfig,
) -> usize {
    match &config.policy {
        PolicyConfig::Fixed(_) => {
            let items: std::collections::HashSet<usize> = drawn.iter().map(|l| l.item).collect();
            items.len()
        }
        // A budget has room for the most of the smallest.
        PolicyConfig::Budget(budget) => {
            let mut room = budget.room(layers.iter().map(|layer| layer.trains).sum());
            let smallest = layers.iter().rev().take_while(|layer| {
                let fits = layer.trains <= room;
                room = room.saturating_sub(layer.trains);
                fits
            });
            smallest.count()
        }
        _ => drawn.len(),
    }
}
