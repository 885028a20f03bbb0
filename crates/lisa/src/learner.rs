//! [`LisaModule`]: LISA inside burn-train's `Learner`, by a wrapper round the module.
//!
//! burn-train calls `TrainStep::optimize` once for each optimizer step, on one device and on
//! several, and saves module and optimizer by their records. So the wrapper steps through [`Lisa`]
//! there, and adds one small tensor to the module's record (`stamp`), from which a loaded run knows
//! its step and its scores.
//! Tests: `tests/learner.rs` of the workspace.

mod metrics;
mod stamp;

use std::fmt;

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Device, Int, Tensor};
use burn::train::{InferenceStep, TrainOutput, TrainStep};

pub use metrics::{LisaMetric, LisaMetrics};

use crate::{Lisa, LisaError};
use metrics::Board;
use stamp::STAMP;

/// A module that trains by LISA in burn-train's `Learner`.
///
/// Made with its optimizer by [`Lisa::into_learner`]; the rest of the training is as it was:
/// checkpointers, gradient accumulation, early stopping, several devices. Draws happen in
/// `optimize`, by the step and the scores, so workers that step with the same gradients draw the
/// same layers. State kept: what [`Lisa`] keeps, by value; the moments are in the learner's
/// `ModuleOptimizer`.
///
/// # Records
///
/// The paths of `M` do not change. One tensor of integers, `lisa`, is added: step, seed, period,
/// active layers, and the scores of a policy that observes gradients. A record of the bare `M` loads as it is, at the step where the wrapper stands. A
/// record of the wrapper loads into the bare module by
/// `ModuleRecord::load(path)?.allow_unused(true)`. A record of another seed, period or number of
/// active layers is an error that names it.
///
/// # Example
///
/// ```
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
/// // let optimizer = AdamWConfig::new().init();
/// let (lisa, model) = LisaConfig::new().init(AdamWConfig::new(), model)?;
/// let (optimizer, model) = lisa.into_learner(model);
///
/// let mut learner = Learner::new(model, optimizer, ConstantLr::new(1e-3));
/// learner.lr_step();
/// let output = learner.train_step(Tensor::ones([1, 2], &device));
/// learner.optimizer_step(output.grads);
/// assert_eq!(learner.model().lisa().steps(), 1);
/// # Ok::<(), lisa::LisaError>(())
/// ```
#[derive(Clone, Debug)]
pub struct LisaModule<M> {
    inner: M,
    /// Its optimizer is empty but for the time of a step, when the learner's stands in its place.
    lisa: Lisa,
    stamp: ParamId,
    /// Set when a record was loaded: what the learner's optimizer holds is not known yet.
    loaded: bool,
    board: Board,
}

impl Lisa {
    /// Splits into an optimizer and a module for burn-train's `Learner` (feature `train`).
    ///
    /// `model` is the one that this optimizer trains. Cost: nothing is copied.
    ///
    /// # Errors
    ///
    /// A configuration that [quantizes](crate::LisaConfig::frozen_weights) frozen layers: burn-train
    /// saves the model as it is on the device, so the checkpoint would have quantized weights.
    pub fn into_learner<M: Module>(
        mut self,
        model: M,
    ) -> Result<(ModuleOptimizer, LisaModule<M>), LisaError> {
        let kind = self.config().frozen_weights;
        if kind != crate::FrozenWeights::Exact {
            return Err(LisaError::new(
                crate::ErrorKind::Config,
                format!(
                    "frozen_weights is {kind:?}, and burn-train would save the quantized weights \
                     in its checkpoints"
                ),
            )
            .with_help(
                "set frozen_weights to FrozenWeights::Exact, or train quantized in a loop of your \
                 own",
            ));
        }
        let mut optimizer = ModuleOptimizer::from(burn::optim::SgdConfig::new().build());
        self.exchange_optimizer(&mut optimizer);
        let module = LisaModule {
            board: Board::default(),
            inner: model,
            lisa: self,
            stamp: ParamId::new(),
            loaded: false,
        };
        module.board.show(&module.lisa);
        Ok((optimizer, module))
    }
}

impl<M: Module> LisaModule<M> {
    /// The module.
    pub fn get_ref(&self) -> &M {
        &self.inner
    }

    /// The trained module.
    pub fn into_inner(self) -> M {
        self.inner
    }

    /// Step, period, active layers and the split. Its `ModuleOptimizer` is an empty one: the
    /// learner has the other.
    pub fn lisa(&self) -> &Lisa {
        &self.lisa
    }

    /// Metrics to register with burn-train; they show this run, on whichever device it steps.
    pub fn metrics(&self) -> LisaMetrics {
        let device = self.inner.devices().into_iter().next();
        LisaMetrics::new(self.board.clone(), device, self.lisa.layers())
    }

    /// One step with the learner's optimizer in the place of the empty one.
    fn stepped(
        mut self,
        optimizer: &mut ModuleOptimizer,
        step: impl FnOnce(&mut Lisa, M) -> M,
    ) -> Self {
        self.lisa.exchange_optimizer(optimizer);
        if std::mem::take(&mut self.loaded) {
            self.inner = self.lisa.recount(self.inner);
        }
        self.inner = step(&mut self.lisa, self.inner);
        self.lisa.exchange_optimizer(optimizer);
        self.board.show(&self.lisa);
        self
    }

    fn device(&self) -> Device {
        let device = self.inner.devices().into_iter().next();
        device.unwrap_or_default().inner()
    }
}

impl<M: Module> Module for LisaModule<M> {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        self.inner.collect_devices(devices)
    }

    fn fork(mut self, device: &Device) -> Self {
        self.inner = self.inner.fork(device);
        self
    }

    fn to_device(mut self, device: &Device) -> Self {
        self.inner = self.inner.to_device(device);
        self
    }

    fn train(mut self) -> Self {
        self.inner = self.inner.train();
        self
    }

    fn valid(&self) -> Self {
        Self {
            inner: self.inner.valid(),
            ..self.clone()
        }
    }

    fn materialize(mut self) -> Self {
        self.inner = self.inner.materialize();
        self
    }

    fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        self.inner.visit(visitor);
        visitor.enter_module(STAMP, "Param");
        visitor.visit_int(&stamp::write(self.stamp, &self.lisa, &self.device()));
        visitor.exit_module(STAMP, "Param");
    }

    fn map<Mapper: ModuleMapper>(mut self, mapper: &mut Mapper) -> Self {
        self.inner = self.inner.map(mapper);
        self
    }

    /// Loads a record of the wrapped or of the bare module.
    fn try_load_record(mut self, record: ModuleRecord) -> Result<Self, RecordError> {
        let stamp = stamp::find(&self.lisa, &record, &self.device())?;
        // Strict otherwise: the stamp is the one tensor that the inner module does not know.
        let record = if stamp.is_some() && record.len() == count(&self.inner) + 1 {
            record.allow_unused(true)
        } else {
            record
        };
        self.inner = self.inner.try_load_record(record)?;
        if let Some(stamp) = stamp {
            let device = self.device();
            stamp.resume(&mut self.lisa, &device)?;
            self.loaded = true;
        }
        let adopted = self.lisa.adopt(self.inner);
        self.inner = adopted.map_err(|e| RecordError::Validation(e.to_string()))?;
        self.board.show(&self.lisa);
        Ok(self)
    }
}

/// How many tensors a module's record has.
fn count<M: Module>(module: &M) -> usize {
    struct Count(usize);
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<D>>) {
            self.0 += 1;
        }
        fn visit_int<const D: usize>(&mut self, _: &Param<Tensor<D, Int>>) {
            self.0 += 1;
        }
        fn visit_bool<const D: usize>(&mut self, _: &Param<Tensor<D, burn::tensor::Bool>>) {
            self.0 += 1;
        }
    }
    let mut count = Count(0);
    module.visit(&mut count);
    count.0
}

impl<M: fmt::Display> fmt::Display for LisaModule<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl<M: Module + TrainStep> TrainStep for LisaModule<M> {
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, item: Self::Input) -> TrainOutput<Self::Output> {
        TrainStep::step(&self.inner, item)
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        lr_module: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        self.board.norms(&self.lisa, &self.inner, &grads);
        self.stepped(optim, |lisa, inner| lisa.step(lr_module, inner, grads))
    }

    fn optimize_multi(
        self,
        optim: &mut ModuleOptimizer,
        lr_module: ModuleLearningRate,
        grads: MultiGradientsParams,
    ) -> Self {
        for (grads, _) in &grads.grads {
            self.board.norms(&self.lisa, &self.inner, grads);
        }
        self.stepped(optim, |lisa, inner| {
            lisa.step_multi(lr_module, inner, grads)
        })
    }
}

impl<M: Module + InferenceStep> InferenceStep for LisaModule<M> {
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, item: Self::Input) -> Self::Output {
        self.inner.step(item)
    }
}
