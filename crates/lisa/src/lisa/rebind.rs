//! A model whose parameters have new identities is followed by its paths. Tests: `lisa/tests.rs`.

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;

use super::Lisa;
use super::setup::{map_of, requiring};
use crate::layers::Parameter;
use crate::{ErrorKind, FreezeMask, LayerMap, LisaError};

impl Lisa {
    /// Checks that the model is the one of this run. Where all its parameters have other ids it is
    /// matched by paths; true where it was.
    pub(super) fn follow<M: Module>(&mut self, model: &M) -> Result<bool, LisaError> {
        let mut count = Count {
            map: &self.map,
            known: 0,
            unknown: 0,
        };
        model.visit(&mut count);
        let (known, unknown) = (count.known, count.unknown);
        let all = self.map.parameters().len();
        if known == all && unknown == 0 {
            return Ok(false);
        }
        if known > 0 {
            // Of another structure, which says more; or else of two models.
            self.same_map(model)?;
            return Err(LisaError::new(
                ErrorKind::Layers,
                format!(
                    "the model of the step has {known} parameters of the model that the optimizer \
                     was made for, and {unknown} others",
                ),
            )
            .with_help("step the model that `init` returned, or one that was loaded as a whole"));
        }
        self.rebind(model)?;
        Ok(true)
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
            let message =
                format!("the model is not the one that the optimizer was made for: {what}");
            Err(LisaError::new(ErrorKind::Layers, message)
                .with_help("make the optimizer with the model that it trains"))
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

/// Counts the parameters that the map has, and the others.
struct Count<'a> {
    map: &'a LayerMap,
    known: usize,
    unknown: usize,
}

impl ModuleVisitor for Count<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        match self.map.index_of(param.id) {
            Some(_) => self.known += 1,
            None => self.unknown += 1,
        }
    }
}
