//! What a run will need before it runs, and what it holds while it runs.
//!
//! A plan adds up what is known of the parameters and what the model says of its activations; it
//! allocates nothing, so a model whose parameters are lazy will do. Tests: `memory/tests.rs`, and
//! `compare`, which prints plan and measurement side by side.

use std::fmt;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, FloatDType, Tensor};

use crate::optimizer::{SLICE, SLICE_ON_HOST};
use crate::recompute::Recompute;
pub use crate::usage::Usage;
use crate::{FrozenWeights, LayerMap, LisaConfig, LisaError, OnFreeze};

mod parts;

use parts::{Parts, draw, training_items};

/// Bytes of a model's activations for one batch.
///
/// # Example
///
/// ```
/// # use burn::module::Module;
/// # use burn::nn::{Linear, LinearConfig};
/// # use burn::tensor::{DType, Device, FloatDType};
/// # use lisa::memory::{Activations, Footprint};
/// # use lisa::{LisaConfig, plan};
/// # #[derive(Module, Debug)]
/// # struct Network { layers: Vec<Linear> }
/// # let device = Device::flex().autodiff();
/// # let layers = (0..8).map(|_| LinearConfig::new(64, 64).init(&device)).collect();
/// # let network = Network { layers };
/// impl Footprint for Network {
///     fn activations(&self, batch: usize, sequence: usize, dtype: FloatDType) -> Activations {
///         let hidden = (batch * sequence * 64 * DType::from(dtype).size()) as u64;
///         let (frozen_layer, training_layer) = (hidden, 2 * hidden);
///         let logits = hidden;
///         Activations { frozen_layer, training_layer, hidden, logits, ..Activations::default() }
///     }
/// }
/// let of = network.activations(1, 128, FloatDType::F32);
/// assert_eq!((of.hidden, of.training_layer), (32_768, 65_536));
/// let plan = plan(&network, &LisaConfig::new(), 1, 128)?;
/// assert_eq!(plan.activations, 6 * of.frozen_layer + 2 * of.training_layer + of.logits);
/// # Ok::<(), lisa::LisaError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activations {
    /// What backward keeps of a layer whose weights are frozen.
    pub frozen_layer: u64,
    /// The same of a layer whose weights train.
    pub training_layer: u64,
    /// What of that is kept for the weights of norms alone: LoRA does not train them.
    pub norms: u64,
    /// The hidden state between two layers.
    pub hidden: u64,
    /// The logits, in the model's type.
    pub logits: u64,
    /// Whether the head's weight is the embedding's: its gradient then waits for the embedding's.
    pub tied_head: bool,
    /// Whether the head's backward pass is by hand with
    /// [`Recompute`](crate::recompute::Recompute) ([`HeadPass::by_hand`](crate::recompute::HeadPass::by_hand)), and on flex
    /// in blocks that are small.
    pub head_by_hand: bool,
    /// The most that a [piece](crate::recompute::LayeredModel::pieces) of a layer that trains holds on its way
    /// back: what it keeps, and the gradients between two [cuts](crate::recompute::Cuts). 0 where it is not known;
    /// then the whole layer counts.
    pub piece: u64,
}

/// A model that can say what its activations weigh.
///
/// # Example
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, FloatDType};
/// use lisa::memory::{Activations, Footprint};
/// use lisa::{LisaConfig, plan};
///
/// #[derive(Module, Debug)]
/// struct Network {
///     layers: Vec<Linear>,
/// }
///
/// impl Footprint for Network {
///     fn activations(&self, batch: usize, sequence: usize, _: FloatDType) -> Activations {
///         let hidden = (4 * batch * sequence * 64) as u64;
///         Activations {
///             frozen_layer: hidden,
///             training_layer: 2 * hidden,
///             hidden,
///             logits: hidden,
///             ..Activations::default()
///         }
///     }
/// }
///
/// let device = Device::flex().autodiff();
/// let layers = (0..8).map(|_| LinearConfig::new(64, 64).init(&device)).collect();
/// let network = Network { layers };
/// let plan = plan(&network, &LisaConfig::new(), 1, 128)?;
/// assert_eq!(plan.weights, 8 * 4 * (64 * 64 + 64));
/// assert_eq!(plan.moments, 2 * plan.gradients); // of two layers of eight
/// assert_eq!(plan.gradients, plan.weights / 4);
/// # Ok::<(), lisa::LisaError>(())
/// ```
pub trait Footprint: Module {
    /// Bytes for a batch of `batch` rows of `sequence` tokens, in a model of this type.
    fn activations(&self, batch: usize, sequence: usize, dtype: FloatDType) -> Activations;
}

/// What a run needs, in bytes. `Display` prints a table.
///
/// The parts are those of a steady state, in which every drawn layer has its moments; `peak` and
/// `peak_recomputed` are the most that is held at a time during a step.
///
/// # Example
///
/// ```
/// # use burn::module::Module;
/// # use burn::nn::{Linear, LinearConfig};
/// # use burn::tensor::{Device, FloatDType};
/// # use lisa::memory::{Activations, Footprint};
/// # #[derive(Module, Debug)]
/// # struct Network { layers: Vec<Linear> }
/// # impl Footprint for Network {
/// #     fn activations(&self, batch: usize, sequence: usize, _: FloatDType) -> Activations {
/// #         let hidden = (4 * batch * sequence * 64) as u64;
/// #         let (frozen_layer, training_layer) = (hidden, 2 * hidden);
/// #         let logits = hidden;
/// #         Activations { frozen_layer, training_layer, hidden, logits, ..Activations::default() }
/// #     }
/// # }
/// # let device = Device::flex().autodiff();
/// # let linear = || LinearConfig::new(64, 64).with_bias(false).init(&device);
/// # let network = Network { layers: (0..8).map(|_| linear()).collect() };
/// use lisa::{LisaConfig, plan};
///
/// // Eight layers of 64 by 64 numbers in f32; two of them train, or all.
/// let lisa = plan(&network, &LisaConfig::new(), 1, 1024)?;
/// let full = plan(&network, &LisaConfig::new().with_active_layers(8), 1, 1024)?;
/// assert_eq!((lisa.weights, full.weights), (131_072, 131_072));
/// assert_eq!((lisa.gradients, full.gradients), (32_768, 131_072));
/// assert_eq!((lisa.moments, full.moments), (65_536, 262_144));
/// assert_eq!((lisa.masters, lisa.host), (0, 0));
/// assert_eq!((lisa.peak, full.peak), (3_604_480, 5_373_952));
/// assert_eq!((lisa.peak_recomputed, full.peak_recomputed), (3_342_336, 3_538_944));
/// # Ok::<(), lisa::LisaError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Weights on the device.
    pub weights: u64,
    /// Gradients of everything that trains together.
    pub gradients: u64,
    /// Two moments of each number that trains, as AdamW has them. With
    /// [`OnFreeze::Keep`] the peaks count those of all layers.
    pub moments: u64,
    /// f32 master weights.
    pub masters: u64,
    /// What a plain backward pass keeps.
    pub activations: u64,
    /// In the host's memory: exact weights of quantized layers, and moments that were sent there.
    pub host: u64,
    /// The most at a time, with a plain backward pass.
    pub peak: u64,
    /// The most at a time with [`Recompute`](crate::recompute::Recompute) and
    /// [`Lisa::step_layered`](crate::Lisa::step_layered).
    pub peak_recomputed: u64,
}

/// The work of one step: the batch, the dtype of the weights, the device, the recomputation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Rows in a batch.
    pub batch: usize,
    /// Tokens in a row.
    pub sequence: usize,
    /// The type of the weights.
    pub dtype: FloatDType,
    /// Whether it runs on flex, which makes each result of a product twice and stores int4 as int8.
    pub flex: bool,
    /// The lowest layer that is ever drawn, where that is known; 0 for the most that can be. Where
    /// nothing below the layers trains, what lies below it keeps nothing.
    pub lowest_active: usize,
    /// How `peak_recomputed` recomputes; [`Recompute::new`] keeps the input of every layer.
    pub recompute: Recompute,
}

impl Workload {
    /// The work on batches of this shape, with the dtype and the device that the model has. A lazy
    /// parameter counts as f32.
    #[must_use]
    pub fn new<M: Module>(model: &M, batch: usize, sequence: usize) -> Self {
        let mut first = FirstDtype(None);
        model.visit(&mut first);
        Self {
            batch,
            sequence,
            dtype: first.0.unwrap_or(FloatDType::F32),
            flex: on_host(model),
            lowest_active: 0,
            recompute: Recompute::new(),
        }
    }
}

/// Looks for the dtype of the first float parameter.
struct FirstDtype(Option<FloatDType>);

impl ModuleVisitor for FirstDtype {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.0.is_some() {
            return;
        }
        let dtype = if param.is_initialized() {
            param.val().dtype()
        } else {
            DType::F32
        };
        if dtype.is_float() {
            self.0 = Some(match dtype {
                DType::BF16 => FloatDType::BF16,
                DType::F16 => FloatDType::F16,
                _ => FloatDType::F32,
            });
        }
    }
}

impl MemoryPlan {
    /// Plans a LISA run.
    ///
    /// With `active_layers` of the configuration equal to the number of layers it is the plan of
    /// full training. Where layers have different sizes, the largest are taken as the active ones;
    /// a budget is taken as filled, and fixed layers as they are. On flex the plan counts the second
    /// copy that flex makes of each result of a matrix product. Nothing is allocated, so a model
    /// with lazy parameters will do.
    ///
    /// # Errors
    ///
    /// What [`LisaConfig::init`] refuses of the model's structure and the settings: a stack of layers
    /// that is not found or ambiguous, more active layers than there are, a model in which nothing
    /// trains.
    pub fn lisa<M: Footprint>(
        model: &M,
        config: &LisaConfig,
        workload: &Workload,
    ) -> Result<Self, LisaError> {
        let Workload {
            batch,
            sequence,
            dtype,
            flex,
            lowest_active,
            recompute,
        } = *workload;
        let map = LayerMap::of_shapes(model, &config.layers)?.split(&config.split)?;
        crate::lisa::check(&map, config)?;
        let parts = Parts::of(&map, config, !flex);
        let number = bytes_of(dtype);
        let masters = number < 4 && config.master_weights;
        let per_moment = if masters { 4 } else { number };

        // The largest layers are drawn, the smallest stay quantized.
        let mut layers = parts.layers.clone();
        layers.sort_by_key(|layer| std::cmp::Reverse(layer.trains));
        let (drawn, asleep) = draw(&layers, config);
        let layer_trains: u64 = drawn.iter().map(|layer| layer.trains).sum();
        let trains = parts.outside_trains + layer_trains;
        let asleep_matrices: u64 = asleep.iter().map(|layer| layer.matrices).sum();
        let asleep_quantized: u64 = asleep.iter().map(|layer| layer.quantized).sum();
        let host = asleep_matrices * number;
        let weights = (parts.all - asleep_matrices) * number + asleep_quantized;

        let activations = model.activations(batch, sequence, dtype);
        // Items of the stack, of which parts may be drawn.
        let items = layers
            .iter()
            .map(|layer| layer.item)
            .max()
            .map_or(0, |last| last + 1);
        let training = training_items(&drawn, &layers, config).min(items);
        // Backward comes by here.
        let passed = if parts.below_trains {
            items
        } else {
            items - lowest_active.min(items)
        };
        let frozen = passed.saturating_sub(training);
        let kept =
            activations.training_layer * training as u64 + activations.frozen_layer * frozen as u64;
        let copies = if flex { 2 } else { 1 };
        let state = 2 * per_moment + if masters { 4 } else { 0 };
        // In the end every layer has been drawn.
        let ever: u64 = layers.iter().map(|layer| layer.trains).sum::<u64>() - layer_trains;
        let (kept_state, host_state) = match config.on_freeze {
            OnFreeze::Drop => (0, 0),
            OnFreeze::Keep => (ever * state, 0),
            OnFreeze::Offload => (0, ever * state),
        };
        let fixed = weights + trains * state + kept_state;
        let gradients = trains * number;
        let logits = activations.logits;
        let outside = parts.largest_outside * number;
        let (head, head_alone) = heads(&activations, outside, copies, parts.outside_trains > 0);
        let hidden = activations.hidden;
        // What AdamW computes on the way: four f32 tensors of a slice.
        let slice = if flex { SLICE_ON_HOST } else { SLICE };
        let largest = layers.iter().map(|layer| layer.largest).max().unwrap_or(0);
        let update = 16 * (slice as u64).min(largest.max(parts.largest_outside));
        let layer_step = on_the_way_back(&activations, recompute, items, |item| {
            // All parts of an item may be among the drawn.
            let parts = || {
                layers
                    .iter()
                    .filter(|layer| layer.item == item)
                    .take(drawn.len())
            };
            let trains: u64 = parts().map(|layer| layer.trains).sum();
            let largest = parts().map(|layer| layer.largest).max().unwrap_or(0);
            trains * number + largest * number * (copies - 1)
        });
        // Of a tied head, while the embedding's is made.
        let waits = if activations.tied_head { outside } else { 0 };
        let peak = (kept + head).max(gradients + update + outside * (copies - 1) + waits);
        let starts = hidden * recompute.states_kept(passed) as u64;
        // Of quantized layers one at a time is dense.
        let quantized = config.frozen_weights != FrozenWeights::Exact;
        let dense_of = |item: usize| -> u64 {
            let asleep = asleep.iter().filter(|layer| layer.item == item);
            asleep.map(|layer| layer.matrices).sum()
        };
        let dense = (0..items).map(dense_of).max().unwrap_or(0);
        let dense = activations.frozen_layer + if quantized { dense * number } else { 0 };
        let above = head_alone.max(layer_step).max(dense).max(outside + update);
        let embedding = if parts.below_trains {
            outside * copies + waits + update
        } else {
            0
        };
        let recomputed = (starts + above).max(embedding);
        Ok(Self {
            weights,
            gradients,
            moments: trains * 2 * per_moment,
            masters: if masters { 4 * trains } else { 0 },
            activations: kept + logits,
            host: host + host_state,
            // A plain backward pass keeps every weight dense.
            peak: fixed
                + peak
                + if quantized {
                    asleep_matrices * number
                } else {
                    0
                },
            peak_recomputed: fixed + recomputed,
        })
    }

    /// Plans LoRA of this rank on all matrices of the layers, with adapters, gradients and optimizer
    /// state in the dtype of the weights.
    ///
    /// `merged`: whether each product forms `W + A B` first, as Burn's own LoRA does, or runs a side
    /// path. Nothing is recomputed, so both peaks are the same. Only batch, sequence and dtype of the
    /// workload count.
    ///
    /// # Errors
    ///
    /// A stack of layers that is not found or ambiguous.
    pub fn lora<M: Footprint>(
        model: &M,
        rank: usize,
        merged: bool,
        workload: &Workload,
    ) -> Result<Self, LisaError> {
        let Workload {
            batch,
            sequence,
            dtype,
            ..
        } = *workload;
        let map = LayerMap::of_shapes(model, &[])?;
        let number = bytes_of(dtype);
        let (mut adapters, mut matrices) = (0, 0);
        for (i, parameter) in map.parameters().iter().enumerate() {
            if let (Some(_), [input, output]) = (map.layer_of(i), &parameter.shape[..]) {
                adapters += (rank * (input + output)) as u64;
                matrices += (input * output) as u64;
            }
        }
        let all: u64 = map.parameters().iter().map(|p| p.len() as u64).sum();
        let activations = model.activations(batch, sequence, dtype);
        // The inputs of all products are kept, the norms' are not.
        let layers = map.layers().len() as u64;
        let kept = layers * activations.training_layer.saturating_sub(activations.norms)
            + if merged { matrices * number } else { 0 };
        let fixed = (all + adapters) * number + 2 * adapters * number;
        Ok(Self {
            weights: (all + adapters) * number,
            gradients: adapters * number,
            moments: 2 * adapters * number,
            masters: 0,
            activations: kept + activations.logits,
            host: 0,
            peak: fixed + kept + 2 * activations.logits,
            peak_recomputed: fixed + kept + 2 * activations.logits,
        })
    }
}

/// What is held of the layers that are on the tape together, with recomputation, given what the gradients
/// of each weigh.
fn on_the_way_back(
    activations: &Activations,
    recompute: Recompute,
    items: usize,
    gradients: impl Fn(usize) -> u64,
) -> u64 {
    let gradients = (0..items).map(gradients).max().unwrap_or(0);
    let layer = gradients + activations.training_layer;
    if recompute.in_pieces() && activations.piece > 0 {
        return layer.min(activations.piece);
    }
    let more = recompute.layers_at_a_time().min(items).saturating_sub(1);
    layer + more as u64 * activations.frozen_layer
}

/// What the head's backward pass holds on top of the layers: on a tape of the whole model, and with
/// recomputation.
fn heads(activations: &Activations, outside: u64, copies: u64, trains: bool) -> (u64, u64) {
    let logits = activations.logits;
    let on_tape = if trains {
        logits + (2 * logits).max(logits + outside * copies)
    } else {
        3 * logits
    };
    let alone = if activations.head_by_hand {
        (3 * logits).max(logits + outside + (copies - 1) * HEAD_BLOCK)
    } else {
        on_tape
    };
    (on_tape, alone)
}

/// What is made twice on flex of a head's gradient in blocks.
const HEAD_BLOCK: u64 = 2 << 20;

fn bytes_of(dtype: FloatDType) -> u64 {
    DType::from(dtype).size() as u64
}

/// Whether the model's device keeps no account of its memory.
fn on_host<M: Module>(model: &M) -> bool {
    let devices = model.devices();
    devices
        .first()
        .is_none_or(|device| device.memory_pool_usage().is_none())
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, bytes) in [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("moments", self.moments),
            ("master weights", self.masters),
            ("activations", self.activations),
            ("on the host", self.host),
            ("peak", self.peak),
            ("peak, recomputed", self.peak_recomputed),
        ] {
            writeln!(f, "  {name:<18}{:>9.2} GB", bytes as f64 / 1e9)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
