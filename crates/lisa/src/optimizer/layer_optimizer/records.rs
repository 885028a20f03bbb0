//! The state of a [`LayerOptimizer`] in records: saved, loaded, and assigned to parameters with other ids.

use std::collections::{BTreeMap, HashMap};

use burn::module::ParamId;
use burn::optim::OptimizerRecord;
use burn::tensor::DType;
#[cfg(feature = "train")]
use burn::tensor::TensorData;
use burn_pack::{Error, Reader, Tensor};

use super::super::bytes::StateBytes;
use super::super::deferred::deferred;
use super::super::leaves::Leaves;
use super::super::release::OnFreeze;
use super::super::shapes::{StateShapes, is_master};
use super::{Held, LayerOptimizer};
use crate::layers::Parameter;
use crate::{ErrorKind, LayerMap, LisaError};

impl LayerOptimizer {
    /// The shapes that the state of a parameter has.
    pub(crate) fn shapes(&self, parameter: &Parameter) -> StateShapes {
        let group = self.group(parameter);
        group.map_or(StateShapes::Free, |group| group.shapes)
    }

    /// The dtype of the state of this name of a parameter; `None` if the optimizer is not Burn's.
    fn dtype(&self, parameter: &Parameter, name: &str) -> Option<DType> {
        let shapes = self.shapes(parameter);
        // Adafactor's state of half-precision parameters is f32.
        let wide = self.wrapping.master_weights || shapes == StateShapes::Factored;
        let dtype = match parameter.dtype {
            DType::BF16 | DType::F16 | DType::QFloat(_) if wide => DType::F32,
            // The dtype of the weights that were quantized, in which the state was saved.
            DType::QFloat(_) => return None,
            dtype => dtype,
        };
        if is_master(name) {
            return Some(DType::F32);
        }
        (!shapes.is_free()).then_some(dtype)
    }

    /// The state as Burn records it, whose tensors are read one parameter at a time; see [`deferred`].
    pub(crate) fn deferred(&self) -> Result<(Reader, Vec<Tensor>), Error> {
        deferred(&self.optimizer)
    }

    /// Whether a learner has the inner optimizer, with the state.
    pub(crate) fn is_lent(&self) -> bool {
        self.is_lent
    }

    /// The same optimizer with the state of a record, in the dtypes that a step needs. The record may be
    /// of a run with another dtype. State that was offloaded is offloaded again. Burn loads it on
    /// `Device::default()`, as in [`reload`](Self::reload); that of this optimizer is not freed.
    pub(crate) fn with_state(&self, leaves: Leaves, map: &LayerMap) -> Result<Self, String> {
        let mut optimizer = self.clone();
        let parameters: HashMap<ParamId, &Parameter> =
            map.parameters().iter().map(|p| (p.id, p)).collect();
        let leaves = leaves.cast(|id, name| self.dtype(parameters.get(&id)?, name))?;
        optimizer.hold(leaves.bytes());
        let record = leaves.into_record(map)?;
        optimizer.optimizer = optimizer.optimizer.load_record(record);
        Ok(optimizer)
    }

    /// Assigns the state to the parameters of a model with new ids. State that was offloaded stays so.
    /// If it fails, nothing changes. Cost: if there is any state, two copies of each, of which one copy of
    /// all is in host memory.
    pub(crate) fn rename(
        &mut self,
        new_id: &HashMap<ParamId, ParamId>,
        map: &LayerMap,
    ) -> Result<(), LisaError> {
        if self.held.is_empty() {
            return Ok(());
        }
        let record = Leaves::of(&self.optimizer, new_id).and_then(|l| l.into_record(map));
        self.reload(record.map_err(unreadable)?);
        let held = std::mem::take(&mut self.held).into_iter();
        let held = held.filter_map(|(id, held)| Some((*new_id.get(&id)?, held)));
        self.held = held.collect();
        Ok(())
    }

    /// Swaps the inner `ModuleOptimizer` with another one: lends it, or takes it back.
    #[cfg(feature = "train")]
    pub(crate) fn exchange(&mut self, optimizer: &mut burn::optim::ModuleOptimizer) {
        std::mem::swap(&mut self.optimizer, optimizer);
        self.is_lent = !self.is_lent;
    }

    /// Reads from the optimizer's record which parameters have state, and drops master weights that are
    /// not those of the model's weights: the next step of such a parameter takes them from its weights.
    /// If it fails, nothing changes.
    ///
    /// `is_master` says whether a parameter's weights are the cast of master weights. Cost: a copy of
    /// each state, one at a time in host memory, and another one of states with master weights; if some
    /// are dropped, a copy of all state in host memory.
    #[cfg(feature = "train")]
    pub(crate) fn recount(
        &mut self,
        map: &LayerMap,
        is_master: impl Fn(ParamId, TensorData) -> bool,
    ) -> Result<(), LisaError> {
        let ids = map.parameters().iter().map(|p| (p.id, p.id)).collect();
        let mut leaves = Leaves::of(&self.optimizer, &ids).map_err(unreadable)?;
        let all = leaves.tensors().count();
        leaves = leaves.with_masters(is_master).map_err(unreadable)?;
        let bytes = leaves.bytes();
        if leaves.tensors().count() < all {
            self.reload(leaves.into_record(map).map_err(unreadable)?);
        }
        self.hold(bytes);
        Ok(())
    }

    /// Whether no parameter is known to have state.
    #[cfg(feature = "train")]
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Loads a record of all state in place of that state, which is freed first: the device never has both.
    ///
    /// Burn loads state on `Device::default()`, whatever the device of the model is. The next step of a
    /// parameter moves its state to the device of the parameter; until then it needs memory there.
    pub(super) fn reload(&mut self, record: OptimizerRecord) {
        self.optimizer = self
            .optimizer
            .clone()
            .load_record(OptimizerRecord::default());
        self.optimizer = self.optimizer.clone().load_record(record);
    }

    /// Notes the state that leaves have.
    fn hold(&mut self, bytes: BTreeMap<ParamId, (StateBytes, bool)>) {
        // With another setting, a record says so by mistake, and the state is to be dropped or kept.
        let can_offload = self.wrapping.on_freeze == OnFreeze::Offload;
        let held = bytes.into_iter().map(|(id, (bytes, offloaded))| {
            let on_host = offloaded && can_offload;
            (id, Held { bytes, on_host })
        });
        self.held = held.collect();
    }
}

fn unreadable(source: String) -> LisaError {
    let message = format!("cannot read the optimizer's state: {source}");
    LisaError::new(ErrorKind::Record, message)
}
