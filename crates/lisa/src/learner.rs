//! [`LisaModule`]: LISA inside burn-train's `Learner`, by a wrapper round the module.
//!
//! burn-train calls `TrainStep::optimize` once for each optimizer step, on one device and on
//! several, and saves module and optimizer by their records. So the wrapper steps through [`Lisa`]
//! there, and adds one small tensor to the module's record, from which a loaded run knows its step.
//! Tests: `tests/learner.rs` of the workspace.

mod metrics;

use std::collections::BTreeMap;
use std::fmt;

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn::train::{InferenceStep, TrainOutput, TrainStep};

pub use metrics::{LisaMetric, LisaMetrics};

use crate::lisa::Held;
use crate::{ErrorKind, Lisa, LisaError, OnFreeze};
use metrics::Board;

/// The path of the wrapper's own tensor in a record.
const STAMP: &str = "lisa";
/// Version of the tensor's layout.
const FORMAT: u64 = 1;

/// A module that trains by LISA in burn-train's `Learner`.
///
/// Made with its optimizer by [`Lisa::into_learner`]; the rest of the training is as it was:
/// checkpointers, gradient accumulation, early stopping, several devices. Draws happen in
/// `optimize`, by the step alone, so every worker draws the same layers. State kept: what [`Lisa`]
/// keeps, by value; the moments are in the learner's `ModuleOptimizer`.
///
/// # Records
///
/// The paths of `M` do not change. One tensor of integers, `lisa`, is added: step, seed, period and
/// active layers. A record of the bare `M` loads as it is, at the step where the wrapper stands. A
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
/// let (lisa, model) = LisaConfig::new().init(AdamWConfig::new().build(), model)?;
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
    #[must_use]
    pub fn into_learner<M: Module>(mut self, model: M) -> (ModuleOptimizer, LisaModule<M>) {
        if self.config.frozen_weights != crate::FrozenWeights::Exact {
            log::warn!("burn-train would save quantized weights; this run holds exact ones");
            self.config.frozen_weights = crate::FrozenWeights::Exact;
        }
        let model = std::mem::take(&mut self.exact).restore(model, None);
        let empty = ModuleOptimizer::from(burn::optim::SgdConfig::new().build());
        let optimizer = std::mem::replace(&mut self.optimizer, empty);
        let module = LisaModule {
            board: Board::default(),
            inner: model,
            lisa: self,
            stamp: ParamId::new(),
            loaded: false,
        };
        module.board.show(&module.lisa);
        (optimizer, module)
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
        std::mem::swap(&mut self.lisa.optimizer, optimizer);
        if std::mem::take(&mut self.loaded) {
            match self.lisa.count_held() {
                Ok(held) => self.lisa.held = held,
                Err(error) => log::error!("{error}"),
            }
            if self.lisa.config().on_freeze == OnFreeze::Offload {
                self.inner = self.lisa.release(self.inner);
            }
        }
        self.inner = step(&mut self.lisa, self.inner);
        std::mem::swap(&mut self.lisa.optimizer, optimizer);
        self.board.show(&self.lisa);
        self
    }

    fn device(&self) -> Device {
        let device = self.inner.devices().into_iter().next();
        device.unwrap_or_default().inner()
    }

    fn stamp(&self) -> Param<Tensor<1, Int>> {
        let config = self.lisa.config();
        let words = [
            FORMAT,
            self.lisa.steps(),
            config.seed,
            config.sampling_period as u64,
            config.active_layers as u64,
        ];
        let limbs = words.map(limbs).concat();
        let data = TensorData::from(limbs.as_slice());
        Param::initialized(self.stamp, Tensor::from_data(data, &self.device()))
    }

    /// Goes to the step of a stamp.
    fn resume(&mut self, stamp: &Param<Tensor<1, Int>>) -> Result<(), RecordError> {
        let refuse = |message: String| Err(RecordError::Validation(message));
        let data = stamp.val().into_data();
        let words: Vec<u64> = data
            .iter::<i64>()
            .collect::<Vec<_>>()
            .chunks(4)
            .map(|limbs| {
                limbs
                    .iter()
                    .rev()
                    .fold(0, |word, &limb| word << 16 | (limb as u64 & 0xffff))
            })
            .collect();
        let config = self.lisa.config();
        let [format, step, seed, period, active] = words[..] else {
            return refuse(format!(
                "the record's `{STAMP}` has {} words, not 5",
                words.len()
            ));
        };
        for (what, there, here) in [
            ("format version", format, FORMAT),
            ("seed", seed, config.seed),
            ("sampling period", period, config.sampling_period as u64),
            (
                "number of active layers",
                active,
                config.active_layers as u64,
            ),
        ] {
            if there != here {
                return refuse(format!(
                    "the record is of another LISA run: its {what} is {there}, this run's is \
                     {here}; resume with the same settings"
                ));
            }
        }
        self.lisa
            .go_to(step)
            .map_err(|e| RecordError::Validation(e.to_string()))?;
        self.loaded = true;
        Ok(())
    }
}

/// Four numbers of 16 bits, the lowest first: an integer tensor may have no more than 32.
fn limbs(word: u64) -> [i32; 4] {
    [0, 16, 32, 48].map(|shift| ((word >> shift) & 0xffff) as i32)
}

impl Lisa {
    /// Moves to a step that another process reached: its draw is a function of the step.
    fn go_to(&mut self, step: u64) -> Result<(), LisaError> {
        self.schedule = crate::Schedule::at(step, self.config.sampling_period);
        self.active = self.draw().map_err(|message| {
            LisaError::new(
                ErrorKind::Policy,
                format!("`{}` {message}", self.policy.name()),
            )
        })?;
        Ok(())
    }

    /// What the optimizer holds, read from its record. Cost: a copy of it in the host's memory.
    fn count_held(&self) -> Result<BTreeMap<ParamId, Held>, LisaError> {
        let ids = self.map.parameters().iter().map(|p| (p.id, p.id)).collect();
        let (_, held) = self.renamed(&ids, &self.map)?;
        let on_device = |bytes| Held {
            bytes,
            on_host: false,
        };
        Ok(held
            .into_iter()
            .map(|(id, bytes)| (id, on_device(bytes)))
            .collect())
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
        visitor.visit_int(&self.stamp());
        visitor.exit_module(STAMP, "Param");
    }

    fn map<Mapper: ModuleMapper>(mut self, mapper: &mut Mapper) -> Self {
        self.inner = self.inner.map(mapper);
        self
    }

    /// Loads a record of the wrapped or of the bare module.
    fn try_load_record(mut self, record: ModuleRecord) -> Result<Self, RecordError> {
        #[derive(Module, Debug)]
        struct Stamp {
            lisa: Param<Tensor<1, Int>>,
        }
        let stamp = Stamp { lisa: self.stamp() };
        let fresh = stamp.lisa.id;
        let stamp = stamp.try_load_record(record.clone().allow_partial(true).allow_unused(true))?;
        let stamped = usize::from(stamp.lisa.id != fresh);
        // Strict otherwise: the stamp is the one tensor that the inner module does not know.
        let known = count(&self.inner) + stamped;
        let record = if stamped == 1 && record.len() == known {
            record.allow_unused(true)
        } else {
            record
        };
        self.inner = self.inner.try_load_record(record)?;
        if stamped == 1 {
            self.resume(&stamp.lisa)?;
        }
        let map = self.lisa.same_map(&self.inner);
        let map = map.map_err(|e| RecordError::Validation(e.to_string()))?;
        self.lisa.bind(map);
        self.inner = self.lisa.apply(self.inner);
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
