//! [`LisaMetric`]: what a run shows in burn-train's dashboard and logs.
//!
//! Metrics run in burn-train's own thread, so the steps write to a board and metrics read from it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorReadError};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};

use crate::{LayerMap, Lisa};

/// What the last step left, for metrics to read. For display alone: no draw depends on it.
#[derive(Clone, Debug, Default)]
pub(super) struct Board(Arc<Mutex<Shown>>);

#[derive(Debug, Default)]
struct Shown {
    active: Vec<usize>,
    trainable: usize,
    moments: u64,
    /// Whether any metric asks for norms.
    wants_norms: bool,
    /// Sums of squares by layer; summed over the devices of one step.
    squares: BTreeMap<usize, Tensor<1>>,
    squares_of: u64,
}

impl Board {
    fn with<T>(&self, f: impl FnOnce(&mut Shown) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn show(&self, lisa: &Lisa) {
        let (always_on, active) = lisa.trainable_elements();
        let trainable = always_on + active;
        let moments = lisa.memory().optimizer_state;
        self.with(|shown| {
            shown.active = lisa.active_layers().to_vec();
            shown.trainable = trainable;
            shown.moments = moments;
        });
    }

    /// Notes the gradients' norms where a metric wants them; nothing waits for the device.
    pub(super) fn norms<M: Module>(&self, lisa: &Lisa, module: &M, grads: &GradientsParams) {
        if !self.with(|shown| shown.wants_norms) {
            return;
        }
        let mut squares = Squares {
            lisa,
            grads,
            sums: BTreeMap::new(),
        };
        module.visit(&mut squares);
        let (sums, step) = (squares.sums, lisa.steps());
        self.with(|shown| {
            if shown.squares_of != step {
                shown.squares.clear();
                shown.squares_of = step;
            }
            for (layer, sum) in sums {
                let sum = match shown.squares.remove(&layer) {
                    Some(before) => {
                        let device = before.device();
                        before + sum.to_device(&device)
                    }
                    None => sum,
                };
                shown.squares.insert(layer, sum);
            }
        });
    }
}

struct Squares<'a> {
    lisa: &'a Lisa,
    grads: &'a GradientsParams,
    sums: BTreeMap<usize, Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let map = self.lisa.layers();
        let layer = map.index_of(param.id).and_then(|i| map.layer_of(i));
        let (Some(layer), Some(grad)) = (layer, self.grads.get::<D>(param.id)) else {
            return;
        };
        let square = grad.cast(burn::tensor::FloatDType::F32).square().sum();
        let sum = match self.sums.remove(&layer) {
            Some(sum) => sum + square,
            None => square,
        };
        self.sums.insert(layer, sum);
    }
}

/// The metrics of one run: made by [`LisaModule::metrics`](super::LisaModule::metrics).
///
/// # Example
///
/// ```
/// # use burn::data::dataloader::Progress;
/// # use burn::module::Module;
/// # use burn::nn::{Linear, LinearConfig};
/// # use burn::optim::AdamWConfig;
/// # use burn::tensor::Device;
/// # use lisa::{LisaConfig, PolicyConfig};
/// # #[derive(Module, Debug)]
/// # struct Model { layers: Vec<Linear> }
/// # let device = Device::flex().autodiff();
/// # let model = Model { layers: (0..4).map(|_| LinearConfig::new(2, 2).init(&device)).collect() };
/// use burn::train::metric::{Metric, MetricMetadata, SerializedEntry};
///
/// let config = LisaConfig::new().with_policy(PolicyConfig::Fixed(vec![1, 3]));
/// let (lisa, model) = config.init(AdamWConfig::new(), model)?;
/// let (_optimizer, model) = lisa.into_learner(model);
/// let metrics = model.metrics();
/// // `SupervisedTraining::metric_train_numeric` takes one; burn-train then calls `update`.
/// let (mut active, mut trainable) = (metrics.active_layers(), metrics.trainable_parameters());
/// # let progress = Progress::new(1, 1, None);
/// # let metadata = MetricMetadata { progress, iteration: None, lr: None };
/// assert_eq!(active.update(&(), &metadata)?.formatted, "[1, 3] layers");
/// assert_eq!(trainable.update(&(), &metadata)?.formatted, "12 parameters");
/// // Flex keeps no account of its memory.
/// let memory = metrics.device_memory().update(&(), &metadata)?;
/// assert_eq!(memory.formatted, SerializedEntry::not_available(None).formatted);
/// let norm = metrics.gradient_norm(3).map(|norm| norm.name().to_string());
/// assert_eq!(norm.as_deref(), Some("Gradient norm layers.3"));
/// assert!(metrics.gradient_norm(4).is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct LisaMetrics {
    board: Board,
    device: Option<Device>,
    layers: Vec<String>,
}

impl LisaMetrics {
    pub(super) fn new(board: Board, device: Option<Device>, layers: &LayerMap) -> Self {
        let layers = layers.layers().iter().map(|layer| layer.path.clone());
        Self {
            board,
            device,
            layers: layers.collect(),
        }
    }

    /// How many layers train now; the text names them.
    #[must_use]
    pub fn active_layers(&self) -> LisaMetric {
        self.metric("Active layers", "layers", Kind::ActiveLayers)
    }

    /// How many numbers train now.
    #[must_use]
    pub fn trainable_parameters(&self) -> LisaMetric {
        self.metric("Trainable parameters", "parameters", Kind::Trainable)
    }

    /// Bytes of moments on the device.
    #[must_use]
    pub fn moments_bytes(&self) -> LisaMetric {
        self.metric("Moments", "bytes", Kind::Moments)
    }

    /// Bytes in use on the device; not available where the backend does not say, as on flex.
    #[must_use]
    pub fn device_memory(&self) -> LisaMetric {
        self.metric("Device memory", "bytes", Kind::Memory)
    }

    /// The L2 norm of a layer's gradient in the last step, before clipping; not available while
    /// it is frozen. None for a layer that does not exist. With gradients of several devices that
    /// are not summed yet (the sharded optimizer), the root of the sum of their squares.
    #[must_use]
    pub fn gradient_norm(&self, layer: usize) -> Option<LisaMetric> {
        let path = self.layers.get(layer)?;
        self.board.with(|shown| shown.wants_norms = true);
        Some(self.metric(&format!("Gradient norm {path}"), "", Kind::Norm(layer)))
    }

    fn metric(&self, name: &str, unit: &'static str, kind: Kind) -> LisaMetric {
        LisaMetric {
            name: Arc::new(name.to_string()),
            unit,
            kind,
            board: self.board.clone(),
            device: self.device.clone(),
            value: None,
            sum: 0.0,
            count: 0,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    ActiveLayers,
    Trainable,
    Moments,
    Memory,
    Norm(usize),
}

/// One value of a run, as a metric of burn-train: register it like any other, with
/// `metric_train_numeric` or `metrics`. The epoch's value is the mean of its steps.
///
/// # Example
///
/// ```
/// # use burn::data::dataloader::Progress;
/// # use burn::module::Module;
/// # use burn::nn::{Linear, LinearConfig};
/// # use burn::optim::{AdamWConfig, lr_scheduler::constant::ConstantLr};
/// # use burn::tensor::{Device, Tensor};
/// # use burn::train::{InferenceStep, ItemLazy, Learner, TrainOutput, TrainStep};
/// # use lisa::LisaConfig;
/// # #[derive(Module, Debug)]
/// # struct Model { layers: Vec<Linear> }
/// # struct Item;
/// # impl ItemLazy for Item {
/// #     fn sync(self) -> Result<Self, burn::tensor::ExecutionError> { Ok(self) }
/// # }
/// # impl TrainStep for Model {
/// #     type Input = Tensor<2>;
/// #     type Output = Item;
/// #     fn step(&self, x: Tensor<2>) -> TrainOutput<Item> {
/// #         let loss = self.layers.iter().fold(x, |x, layer| layer.forward(x)).mean();
/// #         TrainOutput::new(self, loss.backward(), Item)
/// #     }
/// # }
/// # impl InferenceStep for Model {
/// #     type Input = Tensor<2>;
/// #     type Output = Item;
/// #     fn step(&self, _: Tensor<2>) -> Item { Item }
/// # }
/// # let device = Device::flex().autodiff();
/// # let model = Model { layers: (0..4).map(|_| LinearConfig::new(2, 2).init(&device)).collect() };
/// # let (lisa, model) = LisaConfig::new().init(AdamWConfig::new(), model)?;
/// # let (optimizer, model) = lisa.into_learner(model);
/// # let mut learner = Learner::new(model, optimizer, ConstantLr::new(1e-3));
/// # learner.lr_step();
/// use burn::train::metric::{Metric, MetricMetadata, Numeric};
///
/// let mut moments = learner.model().metrics().moments_bytes();
/// # let progress = Progress::new(1, 1, None);
/// # let metadata = MetricMetadata { progress, iteration: None, lr: None };
/// moments.update(&(), &metadata)?;
/// let output = learner.train_step(Tensor::ones([1, 2], &device));
/// learner.optimizer_step(output.grads);
/// moments.update(&(), &metadata)?;
/// // AdamW now holds two moments of 6 numbers for each of two layers, and held none before.
/// assert_eq!(moments.value().map(|value| value.current()), Some(96.0));
/// assert_eq!(moments.compute()?.formatted, "48 bytes");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct LisaMetric {
    name: Arc<String>,
    unit: &'static str,
    kind: Kind,
    board: Board,
    device: Option<Device>,
    value: Option<f64>,
    sum: f64,
    count: usize,
}

impl LisaMetric {
    fn read(&self) -> Result<(Option<f64>, String), TensorReadError> {
        let plain = |value: f64| (Some(value), format!("{value}"));
        Ok(match self.kind {
            Kind::ActiveLayers => {
                let active = self.board.with(|shown| shown.active.clone());
                (Some(active.len() as f64), format!("{active:?}"))
            }
            Kind::Trainable => plain(self.board.with(|shown| shown.trainable) as f64),
            Kind::Moments => plain(self.board.with(|shown| shown.moments) as f64),
            Kind::Memory => {
                let usage = self.device.as_ref().and_then(Device::memory_pool_usage);
                match usage {
                    Some(usage) => plain(usage.bytes_in_use as f64),
                    None => (None, String::new()),
                }
            }
            Kind::Norm(layer) => {
                match self.board.with(|shown| shown.squares.get(&layer).cloned()) {
                    Some(squares) => plain(squares.try_into_scalar::<f64>()?.sqrt()),
                    None => (None, String::new()),
                }
            }
        })
    }

    fn with_unit(&self, text: &str) -> String {
        format!("{text} {}", self.unit).trim_end().to_owned()
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

impl Metric for LisaMetric {
    type Input = ();

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: (!self.unit.is_empty()).then(|| self.unit.to_string()),
            higher_is_better: false,
        }
        .into()
    }

    fn update(
        &mut self,
        (): &(),
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let (value, text) = self.read()?;
        self.value = value;
        let Some(value) = value else {
            return Ok(SerializedEntry::not_available(None));
        };
        self.sum += value;
        self.count += 1;
        Ok(SerializedEntry::new(
            self.with_unit(&text),
            value.to_string(),
        ))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(match self.mean() {
            Some(mean) => SerializedEntry::new(self.with_unit(&mean.to_string()), mean.to_string()),
            None => SerializedEntry::not_available(None),
        })
    }

    fn clear(&mut self) {
        (self.sum, self.count, self.value) = (0.0, 0, None);
    }
}

impl Numeric for LisaMetric {
    fn value(&self) -> Option<NumericEntry> {
        self.value.map(NumericEntry::Value)
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.mean().map(NumericEntry::Value)
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Value(self.mean().unwrap_or(f64::NAN))
    }
}
