//! A model whose parameters have new identities is followed by its paths. Tests: `lisa/tests.rs`.

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;

use super::Lisa;
use super::setup::{map_of, requiring};
use crate::{ErrorKind, FreezeMask, LayerMap, LisaError, Parameter};

impl Lisa {
    /// Follows the model where it has parameters that the map does not; true where it had.
    pub(super) fn follow<M: Module>(&mut self, model: &M) -> bool {
        let mut unknown = Unknown {
            map: &self.map,
            any: false,
        };
        model.visit(&mut unknown);
        let rebound = unknown.any;
        if rebound && let Err(error) = self.rebind(model) {
            log::error!("step {}: {error}", self.steps() + 1);
        }
        rebound
    }

    /// Follows a model whose parameters have new `ParamId`s, as one that was loaded from a file
    /// has: everything known of a parameter goes to the one at the same path.
    fn rebind<M: Module>(&mut self, model: &M) -> Result<(), LisaError> {
        let map = self.same_map(model)?;
        let new_id: HashMap<ParamId, ParamId> = self
            .map
            .parameters()
            .iter()
            .zip(map.parameters())
            .map(|(old, new)| (old.id, new.id))
            .collect();
        if !self.held.is_empty() {
            let (record, _) = self.renamed(&new_id, &map)?;
            self.optimizer = self.optimizer.clone().load_record(record);
        }
        self.held = std::mem::take(&mut self.held)
            .into_iter()
            .filter_map(|(id, held)| Some((*new_id.get(&id)?, held)))
            .collect();
        self.exact.rename(&new_id);
        self.bind(map);
        log::info!("step {}: the model has new parameter ids", self.steps() + 1);
        Ok(())
    }

    /// The map of `model`, which must have the parameters of this run.
    pub(crate) fn same_map<M: Module>(&self, model: &M) -> Result<LayerMap, LisaError> {
        let map = map_of(&self.config, model)?;
        let (ours, theirs) = (self.map.parameters(), map.parameters());
        let refuse = |what: String| {
            let message = format!(
                "the model is not the one that the optimizer was made for: {what}; make the \
                 optimizer of the model that it trains"
            );
            Err(LisaError::new(ErrorKind::Layers, message))
        };
        if ours.len() != theirs.len() {
            return refuse(format!(
                "it has {} parameters and that had {}",
                theirs.len(),
                ours.len()
            ));
        }
        let differ = |(a, b): &(&Parameter, &Parameter)| a.path != b.path || a.shape != b.shape;
        match ours.iter().zip(theirs).find(differ) {
            Some((a, b)) => refuse(format!(
                "it has `{}` of shape {:?} where that had `{}` of shape {:?}",
                b.path, b.shape, a.path, a.shape
            )),
            None => Ok(map),
        }
    }

    /// Takes the identities and the gradient requirements of this map's parameters.
    pub(crate) fn bind(&mut self, map: LayerMap) {
        self.mask = FreezeMask::new(requiring(&map));
        self.map = map;
    }
}

/// Looks for a parameter that the map does not have.
struct Unknown<'a> {
    map: &'a LayerMap,
    any: bool,
}

impl ModuleVisitor for Unknown<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.any |= self.map.index_of(param.id).is_none();
    }
}
