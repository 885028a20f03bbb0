//! [`LayerOptimizer`]: Burn's `ModuleOptimizer` with the wrappers of this module, and a record of
//! which parameters have state.

use std::collections::{BTreeMap, HashSet};

use burn::grad_clipping::GradientClipping;
use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;

use super::bytes::StateBytes;
use super::config::OptimizerConfig;
use super::decay::{Decay, by_rank};
use super::ledger::{Ledger, ledgered};
use super::master::master_weights;
use super::release::{OnFreeze, RELEASE, Release, release};
use super::shapes::StateShapes;
use super::slices::slices;
use super::usage::Usage;
use crate::gradients::Gradients;
use crate::layers::Parameter;
use crate::{ErrorKind, FreezeMask, LayerMap, LisaError};

mod records;

/// An optimizer that drops or offloads the state of frozen parameters.
#[derive(Clone)]
pub(crate) struct LayerOptimizer {
    optimizer: ModuleOptimizer,
    wrapping: Wrapping,
    /// The parameter groups, each with its own optimizer; the last one that matches wins.
    groups: Vec<Group>,
    /// The parameters that have state.
    held: BTreeMap<ParamId, Held>,
    /// Whether the inner optimizer is exchanged for an empty one, because a learner has it.
    is_lent: bool,
}

/// The optimizer of a parameter group.
#[derive(Clone)]
struct Group {
    members: ParamGroup,
    ledger: Ledger,
    shapes: StateShapes,
}

/// The state of one parameter.
#[derive(Clone, Copy, Debug)]
struct Held {
    bytes: StateBytes,
    on_host: bool,
}

/// The settings of the wrappers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wrapping {
    pub(crate) on_freeze: OnFreeze,
    pub(crate) master_weights: bool,
    pub(crate) decay: Decay,
}

impl Wrapping {
    /// The wrappers in their order, and the ledger that they write. An error if the optimizer
    /// cannot be made without weight decay and this is needed.
    fn wrap<C: OptimizerConfig>(
        self,
        config: &C,
    ) -> Result<(Release<impl burn::optim::Optimizer + use<C>>, Ledger), LisaError> {
        let optimizer = by_rank(config, self.decay, slices)?;
        let (inner, ledger) = ledgered(master_weights(optimizer, self.master_weights));
        Ok((release(inner, self.on_freeze), ledger))
    }
}

impl LayerOptimizer {
    /// Wraps the optimizer of this configuration; its gradient clipping is kept.
    pub(crate) fn new<C: OptimizerConfig>(
        config: &C,
        wrapping: Wrapping,
    ) -> Result<Self, LisaError> {
        let (wrapped, ledger) = wrapping.wrap(config)?;
        let mut optimizer = ModuleOptimizer::from(wrapped);
        if let Some(clipping) = config.grad_clipping() {
            optimizer = optimizer.with_grad_clipping(clipping);
        }
        Ok(Self {
            optimizer,
            wrapping,
            groups: vec![Group {
                members: ParamGroup::all(),
                ledger,
                shapes: StateShapes::of::<C::Optimizer>(),
            }],
            held: BTreeMap::new(),
            is_lent: false,
        })
    }

    /// Uses another optimizer for the parameters of a group. Their state is dropped, as Burn does.
    pub(crate) fn with_group<C: OptimizerConfig>(
        mut self,
        members: ParamGroup,
        config: &C,
        map: &LayerMap,
    ) -> Result<Self, LisaError> {
        let (wrapped, ledger) = self.wrapping.wrap(config)?;
        let parameters = map.parameters().iter();
        let found = parameters.filter(|p| members.matches(&p.id, Some(&p.path)));
        let (ids, paths): (Vec<_>, Vec<_>) = found.map(|p| (p.id, p.path.clone())).unzip();
        if ids.is_empty() {
            let all = map.parameters().len();
            let message = format!("the group matches none of {all} parameters");
            return Err(LisaError::new(ErrorKind::Config, message)
                .with_help("name parameters by their paths, as `LayerMap::parameters` has them"));
        }
        for id in &ids {
            self.held.remove(id);
        }
        // By id and by path: loading changes ids, and a module around the model changes paths.
        let members = ParamGroup::from_ids(ids).fuse(&ParamGroup::from_paths(paths));
        self.groups.push(Group {
            members: members.clone(),
            ledger,
            shapes: StateShapes::of::<C::Optimizer>(),
        });
        let clipping = config.grad_clipping();
        self.optimizer = self.optimizer.with_group(members, wrapped, clipping);
        Ok(self)
    }

    /// Clips each gradient tensor separately, except those of a group. Cost: that of
    /// [`reload`](Self::reload), and a copy of the state in host memory, if there is any state.
    pub(crate) fn with_grad_clipping(mut self, clipping: GradientClipping) -> Self {
        self.optimizer = self.optimizer.with_grad_clipping(clipping);
        if !self.held.is_empty() {
            // Burn stores the clipping with the state of each parameter. Loading it takes the new one.
            self.reload(self.optimizer.to_record());
        }
        self
    }

    /// Burn's optimizer.
    pub(crate) fn get_ref(&self) -> &ModuleOptimizer {
        &self.optimizer
    }

    /// Steps the parameters that have a gradient, which are `stepped`, and records their state.
    ///
    /// Panics if the inner optimizer is not the one that this was made with: burn-train steps with the
    /// optimizer that the user gave it, and another one would not know the learning rate of a release
    /// pass.
    pub(crate) fn step<'a, M: Module, G: Gradients>(
        &mut self,
        lr: ModuleLearningRate,
        model: M,
        grads: G,
        stepped: impl IntoIterator<Item = &'a Parameter>,
    ) -> M {
        let steps = |groups: &[Group]| groups.iter().map(|group| group.ledger.steps()).sum::<u64>();
        let before = steps(&self.groups);
        let model = grads.step(&mut self.optimizer, lr, model);
        let has_stepped = steps(&self.groups) > before;
        for parameter in stepped {
            assert!(
                has_stepped,
                "the learner's optimizer is not the one that `Lisa::into_learner` returned; give \
                 that one to the learner"
            );
            let group = self.group(parameter);
            let bytes = group.map(|group| group.ledger.bytes(&parameter.shape, parameter.dtype));
            let held = Held {
                bytes: bytes.unwrap_or_default(),
                on_host: false,
            };
            self.held.insert(parameter.id, held);
        }
        model
    }

    /// The parameters whose state a [`release`](Self::release) pass would free on the device.
    pub(crate) fn to_release(&self, trainable: &HashSet<ParamId>) -> impl Iterator<Item = ParamId> {
        let keep = self.wrapping.on_freeze == OnFreeze::Keep;
        let held = self.held.iter();
        held.filter(move |(id, held)| !(keep || held.on_host || trainable.contains(id)))
            .map(|(id, _)| *id)
    }

    /// Drops or offloads the state of the frozen parameters, depending on [`OnFreeze`].
    ///
    /// A release pass steps those that still have state on the device, with one-element gradients
    /// and the learning rate [`RELEASE`], so that the wrapper frees the state on the device.
    pub(crate) fn release<M: Module>(&mut self, model: M, mask: &FreezeMask) -> M {
        if self.wrapping.on_freeze == OnFreeze::Keep || self.held.is_empty() {
            return model;
        }
        let mut frozen = Frozen {
            mask,
            held: &self.held,
            grads: GradientsParams::new(),
            ids: Vec::new(),
        };
        model.visit(&mut frozen);
        let (grads, ids) = (frozen.grads, frozen.ids);
        if ids.is_empty() {
            return model;
        }
        for id in ids {
            if self.wrapping.on_freeze == OnFreeze::Offload {
                if let Some(held) = self.held.get_mut(&id) {
                    held.on_host = true;
                }
            } else {
                self.held.remove(&id);
            }
        }
        self.optimizer.step(f64::from_bits(RELEASE), model, grads)
    }

    /// The memory of all state. It does not include the full-precision weights, which do not belong
    /// to the optimizer.
    pub(crate) fn usage(&self) -> Usage {
        let sum = |bytes: fn(&Held) -> u64| self.held.values().map(bytes).sum();
        Usage {
            optimizer_state: sum(|held| if held.on_host { 0 } else { held.bytes.state }),
            master_weights: sum(|held| if held.on_host { 0 } else { held.bytes.master }),
            offloaded: sum(|held| if held.on_host { held.bytes.total() } else { 0 }),
            full_precision: 0,
        }
    }

    /// The group whose optimizer steps a parameter.
    fn group(&self, parameter: &Parameter) -> Option<&Group> {
        let (id, path) = (&parameter.id, Some(parameter.path.as_str()));
        let mut groups = self.groups.iter();
        groups.rfind(|group| group.members.matches(id, path))
    }
}

/// The frozen parameters that have state on the device, with one-element gradients.
struct Frozen<'a> {
    mask: &'a FreezeMask,
    held: &'a BTreeMap<ParamId, Held>,
    grads: GradientsParams,
    ids: Vec<ParamId>,
}

impl ModuleVisitor for Frozen<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let held = self.held.get(&param.id).is_some_and(|held| !held.on_host);
        if held && !self.mask.contains(param.id) {
            let tensor = param.val();
            let options = (&tensor.device().inner(), tensor.dtype());
            let one = Tensor::<D>::ones([1; D], options);
            self.grads.register(param.id, one);
            self.ids.push(param.id);
        }
    }
}
