//! What a run reads from the configuration and the model before its first draw. Tests:
//! `lisa/tests.rs`.

use burn::module::{Module, ParamId};

use crate::layers::Parameter;
use crate::policy::{Draw, Scores};
use crate::{ErrorKind, LayerMap, LisaConfig, LisaError, PolicyConfig};

/// Refuses what a run would refuse at its start, as far as shapes tell.
pub(crate) fn check(map: &LayerMap, config: &LisaConfig) -> Result<(), LisaError> {
    config.validate()?;
    let may_train = trainable(map, config)?;
    let outside = (0..may_train.len()).any(|i| may_train[i] && map.layer_of(i).is_none());
    let layers = map.layers().len();
    let draw = Draw::new(config.seed, 0, layers, config.active_layers)
        .with_allow_empty(outside)
        .with_scores(unobserved(map, &may_train));
    config.policy.build().validate(&draw)
}

/// By parameter: whether it may ever train. Refuses what cannot work.
pub(super) fn trainable(map: &LayerMap, config: &LisaConfig) -> Result<Vec<bool>, LisaError> {
    let refuse = |message: String| Err(LisaError::new(ErrorKind::Config, message));
    let layers = map.layers().len();
    // These two draw without it.
    let counted = !matches!(
        config.policy,
        PolicyConfig::Budget(_) | PolicyConfig::Fixed(_)
    );
    if counted && config.active_layers > layers {
        let what = if config.split.is_empty() {
            "layers"
        } else {
            "parts of layers"
        };
        return refuse(format!(
            "active_layers is {} and the model has {layers} {what}; give at most {layers}",
            config.active_layers
        ));
    }
    let parameters = map.parameters();
    if !parameters.iter().any(|p| p.trainable) {
        return refuse(
            "no parameter of the model requires gradients; make it on `device.autodiff()`, or \
             call `train()` on it"
                .into(),
        );
    }
    let held = |p: &Parameter| {
        config
            .frozen
            .as_ref()
            .is_some_and(|group| group.matches(&p.id, Some(&p.path)))
    };
    if config.frozen.is_some() && !parameters.iter().any(held) {
        let outside: Vec<&str> = map.outside().map(|p| p.path.as_str()).collect();
        return refuse(format!(
            "the group of frozen parameters matches none of {}; outside the layers there are: {}",
            parameters.len(),
            outside.join(", ")
        ));
    }
    let may_train: Vec<bool> = parameters.iter().map(|p| p.trainable && !held(p)).collect();
    let outside = (0..may_train.len()).any(|i| may_train[i] && map.layer_of(i).is_none());
    let dead = map
        .layers()
        .iter()
        .find(|l| !l.parameters.iter().any(|&i| may_train[i]));
    match dead {
        Some(layer) if !outside => refuse(format!(
            "nothing outside the layers trains and `{}` is frozen altogether, so a draw of it \
             would train nothing; unfreeze one of them",
            layer.path
        )),
        _ => Ok(may_train),
    }
}

pub(super) fn map_of<M: Module>(config: &LisaConfig, model: &M) -> Result<LayerMap, LisaError> {
    let map = if config.layers.is_empty() {
        LayerMap::find(model)
    } else {
        LayerMap::at(model, &config.layers)
    };
    map?.split(&config.split)
}

/// The parameters of a map that require gradients.
pub(super) fn requiring(map: &LayerMap) -> impl Iterator<Item = ParamId> + '_ {
    let requiring = map.parameters().iter().filter(|p| p.trainable);
    requiring.map(|p| p.id)
}

/// Nothing observed yet of the layers of a map, and how many numbers may train in each.
pub(super) fn unobserved(map: &LayerMap, may_train: &[bool]) -> Scores {
    let parameters = map.parameters();
    let trains = |&i: &usize| {
        if may_train[i] {
            parameters[i].len() as u64
        } else {
            0
        }
    };
    let layers = map.layers().iter();
    Scores::new(layers.map(|layer| layer.parameters.iter().map(trains).sum()))
}
