//! [`Trainable`]: which parameters of a model may train, and whether a model belongs to a run.

use std::collections::{HashMap, HashSet};

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Tensor};

use crate::layers::Parameter;
use crate::visit::requires_gradients;
use crate::{ErrorKind, LayerMap, LisaConfig, LisaError};

mod may_train;

use may_train::may_train;

/// The layers of a model, and which of its parameters may ever train.
#[derive(Clone, Debug)]
pub(crate) struct Trainable {
    map: LayerMap,
    /// By parameter of the map.
    may_train: Vec<bool>,
    /// By parameter of the map: whether it required gradients before the run.
    required: Vec<bool>,
}

/// A model of the run, as it was found before a step.
pub(crate) struct Found {
    /// Its parameters, if they have other ids than those of the run.
    pub(crate) renamed: Option<Renamed>,
    /// The parameters that require gradients.
    pub(crate) requiring: HashSet<ParamId>,
}

/// The parameters of a run under other ids.
pub(crate) struct Renamed {
    /// The layers of this model.
    pub(crate) map: LayerMap,
    /// The ids in this model, by the ids in the run.
    pub(crate) ids: HashMap<ParamId, ParamId>,
}

impl Trainable {
    /// Finds the layers of the model as configured, and refuses a model or settings that cannot
    /// work.
    pub(crate) fn new<M: Module>(config: &LisaConfig, model: &M) -> Result<Self, LisaError> {
        let map = map_of(config, model)?;
        Self::of(map, config)
    }

    /// The same with a map that already exists.
    pub(crate) fn of(map: LayerMap, config: &LisaConfig) -> Result<Self, LisaError> {
        let may_train = may_train(&map, config)?;
        let required = map.parameters().iter().map(|p| p.trainable).collect();
        Ok(Self {
            map,
            may_train,
            required,
        })
    }

    /// What the caller of [`LisaConfig::init`] may not have meant.
    pub(crate) fn warnings(&self, config: &LisaConfig) -> Vec<String> {
        may_train::warnings(&self.map, config, &self.may_train)
    }

    /// The layers and their parameters.
    pub(crate) fn map(&self) -> &LayerMap {
        &self.map
    }

    /// By parameter: whether it may ever train.
    pub(crate) fn may_train(&self) -> &[bool] {
        &self.may_train
    }

    /// By layer: its path, and how many of its elements may train.
    pub(crate) fn layers(&self) -> Vec<(String, u64)> {
        let size = |&i: &usize| {
            if self.may_train[i] {
                self.len(i) as u64
            } else {
                0
            }
        };
        let layers = self.map.layers().iter();
        layers
            .map(|layer| (layer.path.clone(), layer.parameters.iter().map(size).sum()))
            .collect()
    }

    /// Indices of the parameters that train with these layers; `None`: those outside the layers.
    pub(crate) fn with<'a>(
        &'a self,
        is_active: impl Fn(Option<usize>) -> bool + 'a,
    ) -> impl Iterator<Item = usize> + 'a {
        (0..self.may_train.len()).filter(move |&i| self.trains(i, &is_active))
    }

    /// The ids of the parameters that train with these layers.
    pub(crate) fn ids(&self, is_active: impl Fn(Option<usize>) -> bool) -> HashSet<ParamId> {
        let parameters = self.map.parameters();
        self.with(is_active).map(|i| parameters[i].id).collect()
    }

    /// Whether a parameter trains with these layers.
    pub(crate) fn trains(&self, i: usize, is_active: impl Fn(Option<usize>) -> bool) -> bool {
        self.may_train[i] && is_active(self.map.layer_of(i))
    }

    /// How many elements these parameters have.
    pub(crate) fn elements(&self, indices: impl Iterator<Item = usize>) -> usize {
        indices.map(|i| self.len(i)).sum()
    }

    fn len(&self, i: usize) -> usize {
        self.map.parameters()[i].len()
    }

    /// The ids of the parameters that required gradients before the run, in a map of the same
    /// parameters.
    pub(crate) fn required(&self, map: &LayerMap) -> HashSet<ParamId> {
        let parameters = map.parameters().iter().zip(&self.required);
        // A quantized parameter cannot require gradients.
        let found = parameters.filter(|(p, required)| **required && p.dtype.is_float());
        found.map(|(p, _)| p.id).collect()
    }

    /// The parameters that require gradients in the model as it was read.
    pub(crate) fn requiring(map: &LayerMap) -> impl Iterator<Item = ParamId> + '_ {
        let requiring = map.parameters().iter().filter(|p| p.trainable);
        requiring.map(|p| p.id)
    }

    /// Checks that a model belongs to this run, and that the active parameters require gradients in
    /// it. If all parameters of the model have other ids, they are matched by path, and the result has
    /// their new ids. Cost: one visit of the module.
    pub(crate) fn follow<M: Module>(
        &self,
        config: &LisaConfig,
        model: &M,
        is_active: impl Fn(Option<usize>) -> bool,
    ) -> Result<Found, LisaError> {
        let mut count = Count {
            map: &self.map,
            known: HashSet::new(),
            unknown: 0,
            recast: None,
            requiring: HashSet::new(),
        };
        model.visit(&mut count);
        if let Some((i, dtype)) = count.recast {
            return Err(recast(&self.map.parameters()[i], dtype));
        }
        let requiring = count.requiring;
        let renamed = self.renamed(config, model, count.known.len(), count.unknown)?;
        let map = renamed.as_ref().map_or(&self.map, |renamed| &renamed.map);
        let training = self.with(is_active).map(|i| &map.parameters()[i]);
        let missing: Vec<_> = training.filter(|p| !requiring.contains(&p.id)).collect();
        if let [first, ..] = missing[..] {
            return Err(LisaError::new(
                ErrorKind::Layers,
                format!(
                    "{} parameters that train in this period require no gradients in the model of \
                     this step, first `{}`",
                    missing.len(),
                    first.path
                ),
            )
            .with_help(
                "step the model that the last step returned; to go back to an earlier one, also go \
                 back to the `Lisa` of that time: a clone of it, or `load`",
            ));
        }
        Ok(Found { renamed, requiring })
    }

    /// The new ids of a model in which so many ids are known, and so many are not.
    fn renamed<M: Module>(
        &self,
        config: &LisaConfig,
        model: &M,
        known: usize,
        unknown: usize,
    ) -> Result<Option<Renamed>, LisaError> {
        if known == self.map.parameters().len() && unknown == 0 {
            return Ok(None);
        }
        let map = self.same(config, model)?;
        if known > 0 {
            return Err(LisaError::new(
                ErrorKind::Layers,
                format!(
                    "of the model of this step, {known} parameters are those that the optimizer was \
                     made for, and {unknown} have other ids"
                ),
            )
            .with_help("step the model that `init` returned, or one that was loaded as a whole"));
        }
        self.check_dtypes(&map)?;
        let pairs = self.map.parameters().iter().zip(map.parameters());
        let ids = pairs.map(|(old, new)| (old.id, new.id)).collect();
        Ok(Some(Renamed { map, ids }))
    }

    /// Refuses a map of the same parameters in which one has another float dtype.
    pub(crate) fn check_dtypes(&self, map: &LayerMap) -> Result<(), LisaError> {
        let mut pairs = self.map.parameters().iter().zip(map.parameters());
        match pairs.find(|(own, new)| is_recast(own.dtype, new.dtype)) {
            Some((own, new)) => Err(recast(own, new.dtype)),
            None => Ok(()),
        }
    }

    /// The map of a model, which must have the parameters of this run.
    pub(crate) fn same<M: Module>(
        &self,
        config: &LisaConfig,
        model: &M,
    ) -> Result<LayerMap, LisaError> {
        let map = map_of(config, model)?;
        let (ours, theirs) = (self.map.parameters(), map.parameters());
        let refuse = |what: String| {
            let message =
                format!("the model is not the one that the optimizer was made for: {what}");
            Err(LisaError::new(ErrorKind::Layers, message)
                .with_help("make the optimizer with the model that it trains"))
        };
        if ours.len() != theirs.len() {
            let (there, here) = (theirs.len(), ours.len());
            return refuse(format!("it has {there} parameters and that had {here}"));
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

    /// Takes the ids of another map of the same parameters. Those that are quantized there keep the dtype
    /// in which they train.
    pub(crate) fn rebind(&mut self, map: LayerMap) {
        self.map = map.with_float_dtypes_of(&self.map);
    }
}

/// Counts the parameters that are in a map with the same shape, and the others. Of the former, finds one
/// that has another float dtype.
struct Count<'a> {
    map: &'a LayerMap,
    known: HashSet<ParamId>,
    unknown: usize,
    /// The first such parameter, and its dtype.
    recast: Option<(usize, DType)>,
    requiring: HashSet<ParamId>,
}

impl ModuleVisitor for Count<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let known = self.map.index_of(param.id);
        let shape = |i: usize| &self.map.parameters()[i].shape[..];
        match known.filter(|&i| *shape(i) == param.lazy_shape()[..]) {
            // One at two paths, which was tied after the run began, is no parameter of the run.
            Some(i) if self.known.insert(param.id) => {
                let dtype = param.val().dtype();
                if is_recast(self.map.parameters()[i].dtype, dtype) {
                    self.recast.get_or_insert((i, dtype));
                }
            }
            _ => self.unknown += 1,
        }
        if requires_gradients(param) {
            self.requiring.insert(param.id);
        }
    }
}

/// Whether a parameter has another float dtype than in the run. The run quantizes layers, and a layer that
/// the caller has quantized may be loaded.
fn is_recast(own: DType, dtype: DType) -> bool {
    own != dtype && own.is_float() && dtype.is_float()
}

fn recast(parameter: &Parameter, dtype: DType) -> LisaError {
    let (path, own) = (&parameter.path, parameter.dtype);
    let message = format!(
        "the model is not the one that the optimizer was made for: it has `{path}` in {dtype:?} where that \
         had it in {own:?}"
    );
    LisaError::new(ErrorKind::Layers, message).with_help(format!(
        "step a model in {own:?} (a record loads in its own dtype, unless ModuleRecord::cast_to_module_dtype \
         is set), or call `init` with the model in {dtype:?}"
    ))
}

fn map_of<M: Module>(config: &LisaConfig, model: &M) -> Result<LayerMap, LisaError> {
    LayerMap::of(model, &config.layers)?.split(&config.split)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    #[derive(Module, Debug)]
    struct Model {
        layers: Vec<Linear>,
        head: Linear,
    }

    fn model(layers: usize) -> Model {
        let device = Device::flex().autodiff();
        let linear = || LinearConfig::new(2, 2).with_bias(false).init(&device);
        Model {
            layers: (0..layers).map(|_| linear()).collect(),
            head: linear(),
        }
    }

    #[test]
    fn parameters_train_with_their_layer_or_with_those_outside_the_layers() {
        let trainable = Trainable::new(&LisaConfig::new(), &model(3)).unwrap();
        let with = |active: &[Option<usize>]| -> Vec<usize> {
            trainable.with(|layer| active.contains(&layer)).collect()
        };
        assert_eq!(with(&[Some(1), None]), [1, 3]);
        assert_eq!((with(&[Some(1)]), with(&[None])), (vec![1], vec![3]));
        assert_eq!(trainable.layers()[2], ("layers.2".into(), 4));
        assert_eq!(trainable.elements(trainable.with(|_| true)), 16);
    }

    #[test]
    fn a_model_is_known_by_its_ids_or_by_all_of_its_paths() {
        let config = LisaConfig::new();
        let own = model(3);
        let trainable = Trainable::new(&config, &own).unwrap();
        let found = |model: &Model| trainable.follow(&config, model, |_| true);
        assert!(found(&own).unwrap().renamed.is_none());
        let loaded = model(3);
        let renamed = found(&loaded).unwrap().renamed.unwrap();
        assert_eq!(renamed.ids[&own.head.weight.id], loaded.head.weight.id);

        let message = |model: &Model| match found(model) {
            Ok(_) => String::new(),
            Err(error) => error.message().to_owned(),
        };
        assert!(message(&model(4)).contains("it has 5 parameters and that had 4"));
        let mut mixed = own.clone();
        mixed.layers[1] = loaded.layers[1].clone();
        assert!(
            message(&mixed).contains("3 parameters are those"),
            "{}",
            message(&mixed)
        );
        let mut fewer = own.clone();
        fewer.layers.pop();
        assert!(message(&fewer).contains("it has 3 parameters and that had 4"));
        let mut tied = own.clone();
        tied.head = tied.layers[0].clone();
        assert!(message(&tied).contains("tied"), "{}", message(&tied));
    }
}
