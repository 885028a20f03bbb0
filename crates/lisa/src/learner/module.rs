//! [`LisaModule`]: wraps a model, so that burn-train's `Learner` trains it with LISA.
//!
//! burn-train calls `TrainStep::optimize` once for each optimizer step, on one device or on
//! several. It saves the module and the optimizer as records. So the wrapper calls [`Lisa`] in
//! `optimize`, and adds a small tensor to the module's record (`stamp`). A resumed run reads its
//! step and its scores from this tensor. Tests: `learner/tests.rs`, and `learner.rs` of the system
//! tests.

use std::fmt;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::{ModuleOptimizer, SgdConfig};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Bool, Device, Int, Tensor};

use super::board::Board;
use super::metrics::LisaMetrics;
use super::stamp::{self, STAMP};
use crate::{ErrorKind, FrozenWeights, Lisa, LisaError};

/// A module that burn-train's `Learner` trains with LISA.
///
/// [`Lisa::into_learner`] makes it together with its optimizer. Layers are sampled in `optimize`,
/// from the step and the scores, so workers that step with the same gradients sample the same
/// layers. State kept: the state of [`Lisa`]. The optimizer state is in the learner's
/// `ModuleOptimizer`.
///
/// # Records
///
/// The parameter paths of `M` do not change. The wrapper adds one integer tensor, `lisa`: step, the
/// settings of the run, and the scores of a policy that observes gradients.
///
/// - A record of `M` can be loaded, also during a run: the step and the optimizer state do not change.
/// - After a record is loaded, the next step drops f32 master weights that, rounded, are not the weights
///   of their parameter, and takes them from the weights. So load the optimizer's record of the same
///   step to resume exactly.
/// - Into a module that has trained, a wrapper's record of another process needs the optimizer's
///   record of that process, and a record of `M` must be loaded without it. Otherwise the
///   optimizer's state belongs to other `ParamId`s than the run's, and the next step panics.
/// - A record of the wrapper can be loaded into `M` with
///   `ModuleRecord::load(path)?.allow_unused(true)`.
/// - Loading a record with another seed, sampling period, `layer_warmup`, number of active layers
///   (unless the policy ignores it) or `outer_every` returns an error that names the setting. If the
///   layers, the policy, the frozen parameters, `unbiased`, `on_freeze`, `master_weights` or `decay`
///   differ, the error names all of these together.
///
/// # Panics
///
/// burn-train's `TrainStep::optimize` returns no `Result`. It panics if [`Lisa::try_step`] returns
/// an error, with the message of that error. It also panics in a step with another optimizer than the
/// one that [`Lisa::into_learner`] returned, and after a record was loaded if the optimizer state
/// cannot be read or is that of other parameters.
///
/// So the module of a finished training cannot be trained further with a plain optimizer, as burn-train
/// suggests: see [`into_inner`](Self::into_inner).
#[derive(Clone, Debug)]
pub struct LisaModule<M> {
    inner: M,
    /// Between two steps its optimizer is empty. During a step it has the learner's optimizer.
    lisa: Lisa,
    stamp: ParamId,
    /// Whether a record was loaded since the last step. If so, the learner's optimizer may have
    /// other state, or master weights of other weights.
    loaded: bool,
    board: Board,
}

impl Lisa {
    /// Splits the run into an optimizer and a module for burn-train's `Learner` (feature `train`).
    ///
    /// `model` is the model of this run. No tensor is copied.
    ///
    /// # Errors
    ///
    /// The configuration [quantizes](crate::LisaConfig::frozen_weights) frozen layers. burn-train
    /// saves the weights that are on the device, so a checkpoint would have quantized weights.
    pub fn into_learner<M: Module>(
        mut self,
        model: M,
    ) -> Result<(ModuleOptimizer, LisaModule<M>), LisaError> {
        let kind = self.config().frozen_weights;
        if kind != FrozenWeights::Exact {
            return Err(LisaError::new(
                ErrorKind::Config,
                format!(
                    "frozen_weights is {kind:?}, and burn-train would save the quantized weights in \
                     its checkpoints"
                ),
            )
            .with_help(
                "set frozen_weights to FrozenWeights::Exact, or train quantized layers in your \
                 own training loop",
            ));
        }
        let mut optimizer = ModuleOptimizer::from(SgdConfig::new().build());
        self.exchange_optimizer(&mut optimizer);
        let module = LisaModule {
            inner: model,
            lisa: self,
            stamp: ParamId::new(),
            loaded: false,
            board: Board::default(),
        };
        module.board.show(&module.lisa);
        Ok((optimizer, module))
    }
}

impl<M: Module> LisaModule<M> {
    /// The model.
    pub fn get_ref(&self) -> &M {
        &self.inner
    }

    /// The trained model. Most of its layers require no gradients.
    ///
    /// To train it further, with LISA or without it, give them their gradient requirements back
    /// with [`Lisa::unfreeze`]. burn-train returns the module in validation mode: also call
    /// `train()`.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::module::Module;
    /// use lisa::LisaError;
    /// use lisa::learner::LisaModule;
    ///
    /// /// The model of a finished training, ready for another one.
    /// fn again<M: Module>(trained: LisaModule<M>) -> Result<M, LisaError> {
    ///     let lisa = trained.lisa().clone();
    ///     lisa.unfreeze(trained.into_inner().train())
    /// }
    /// ```
    pub fn into_inner(self) -> M {
        self.inner
    }

    /// The state of the run: step, period, active layers. Its `ModuleOptimizer` is empty, because
    /// the learner has the optimizer; so [`Lisa::save`] of it is refused.
    pub fn lisa(&self) -> &Lisa {
        &self.lisa
    }

    /// The metrics of this run.
    pub fn metrics(&self) -> LisaMetrics {
        let device = self.inner.devices().into_iter().next();
        LisaMetrics::new(self.board.clone(), device, self.lisa.layers())
    }

    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    /// Runs one step with the learner's optimizer instead of the empty one.
    pub(super) fn stepped(
        mut self,
        optimizer: &mut ModuleOptimizer,
        step: impl FnOnce(&mut Lisa, M) -> M,
    ) -> Self {
        self.lisa.exchange_optimizer(optimizer);
        if std::mem::take(&mut self.loaded) {
            self.inner = match self.lisa.recount(self.inner) {
                Ok(model) => model,
                Err(error) => panic!("{error}"),
            };
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
        visitor.visit_int(&stamp::tensor(self.stamp, &self.lisa, &self.device()));
        visitor.exit_module(STAMP, "Param");
    }

    fn map<Mapper: ModuleMapper>(mut self, mapper: &mut Mapper) -> Self {
        self.inner = self.inner.map(mapper);
        self
    }

    /// Loads a record of the wrapper or of the wrapped model.
    fn try_load_record(mut self, record: ModuleRecord) -> Result<Self, RecordError> {
        let device = self.device();
        let stamp = stamp::find(&self.lisa, &record, &device)?;
        // Unused tensors are still an error, except for the stamp, which the model does not have.
        let record = if stamp.is_some() && record.len() == tensors(&self.inner) + 1 {
            record.allow_unused(true)
        } else {
            record
        };
        self.inner = self.inner.try_load_record(record)?;
        // A record of the wrapped model changes no layers. Its ids are adopted in the next step, with
        // the optimizer, whose state has the ids of before.
        self.loaded = true;
        if let Some(stamp) = stamp {
            stamp.resume(&mut self.lisa, &device)?;
            let adopted = self.lisa.adopt(self.inner);
            self.inner = adopted.map_err(|error| RecordError::Validation(error.to_string()))?;
            self.board.show(&self.lisa);
        }
        Ok(self)
    }
}

/// The number of tensors in a module's record.
fn tensors<M: Module>(module: &M) -> usize {
    struct Count(usize);
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<D>>) {
            self.0 += 1;
        }
        fn visit_int<const D: usize>(&mut self, _: &Param<Tensor<D, Int>>) {
            self.0 += 1;
        }
        fn visit_bool<const D: usize>(&mut self, _: &Param<Tensor<D, Bool>>) {
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
