//! Which parameters of a model may ever train, and which models and settings cannot work.

use crate::layers::{Layer, Parameter};
use crate::{ErrorKind, LayerMap, LisaConfig, LisaError, PolicyConfig};

/// By parameter: whether it may ever train. Refuses a model or settings that cannot work.
pub(super) fn may_train(map: &LayerMap, config: &LisaConfig) -> Result<Vec<bool>, LisaError> {
    check_active_layers(map, config)?;
    let may_train = not_frozen(map, config)?;
    check_outside(map, config, &may_train)?;
    Ok(may_train)
}

fn refuse<T>(message: String, help: impl Into<String>) -> Result<T, LisaError> {
    Err(LisaError::new(ErrorKind::Config, message).with_help(help))
}

/// Refuses more active layers than the model has.
fn check_active_layers(map: &LayerMap, config: &LisaConfig) -> Result<(), LisaError> {
    let (active, layers) = (config.active_layers, map.layers().len());
    if config.policy.ignores_active_layers() || active <= layers {
        return Ok(());
    }
    let what = if config.split.is_empty() {
        "layers"
    } else {
        "parts of layers"
    };
    refuse(
        format!("active_layers is {active} and the model has {layers} {what}"),
        format!("set it to at most {layers}"),
    )
}

/// By parameter: whether it requires gradients and is not frozen for the whole run. Refuses a model
/// without such parameters.
fn not_frozen(map: &LayerMap, config: &LisaConfig) -> Result<Vec<bool>, LisaError> {
    let parameters = map.parameters();
    if !parameters.iter().any(|p| p.trainable) {
        return refuse(
            "no parameter of the model requires gradients".into(),
            "make the model on `device.autodiff()`, or call `train()` on it",
        );
    }
    let is_frozen = |p: &Parameter| {
        let group = config.frozen.as_ref();
        group.is_some_and(|group| group.matches(&p.id, Some(&p.path)))
    };
    if config.frozen.is_some() && !parameters.iter().any(is_frozen) {
        let outside: Vec<&str> = map.outside().map(|p| p.path.as_str()).collect();
        return refuse(
            format!(
                "the group of frozen parameters matches none of {}",
                parameters.len()
            ),
            format!(
                "name some; outside the layers there are: {}",
                outside.join(", ")
            ),
        );
    }
    let may_train: Vec<bool> = parameters
        .iter()
        .map(|p| p.trainable && !is_frozen(p))
        .collect();
    if !may_train.contains(&true) {
        return refuse(
            "the group of frozen parameters has every parameter that requires gradients".into(),
            "leave some of them out",
        );
    }
    Ok(may_train)
}

/// Refuses periods without the parameters outside the layers if only these, or none of these, can train.
fn check_outside(map: &LayerMap, config: &LisaConfig, may_train: &[bool]) -> Result<(), LisaError> {
    let any = |outside: bool| {
        (0..may_train.len()).any(|i| may_train[i] && map.layer_of(i).is_none() == outside)
    };
    let (in_layers, outside, every) = (any(false), any(true), config.outer_every_nth());
    if every <= 1 || (in_layers && outside) {
        return Ok(());
    }
    let what = if outside { "in" } else { "outside" };
    refuse(
        format!("outer_every is {every}, and no parameter {what} the layers can train"),
        "set outer_every to 1, or unfreeze some of them",
    )
}

/// What the caller may not have meant.
pub(super) fn warnings(map: &LayerMap, config: &LisaConfig, may_train: &[bool]) -> Vec<String> {
    let mut found = Vec::new();
    let layers = map.layers().len();
    let is_dead = |layer: &&Layer| !layer.parameters.iter().any(|&i| may_train[i]);
    let dead = map.layers().iter().filter(is_dead).count();
    let is_sampled = match &config.policy {
        PolicyConfig::Bernoulli(p) if !p.is_empty() => true,
        _ => !config.policy.ignores_active_layers() && config.active_layers < layers,
    };
    if dead > 0 && is_sampled {
        found.push(format!(
            "{dead} of {layers} layers have no parameter that requires gradients, and are not sampled"
        ));
    }
    if let PolicyConfig::Fixed(fixed) = &config.policy {
        let layers = map.layers().iter().enumerate();
        let named = layers.filter(|(layer, _)| fixed.contains(layer));
        let dead = named.filter(|(_, layer)| is_dead(layer));
        let paths: Vec<&str> = dead.map(|(_, layer)| layer.path.as_str()).collect();
        if !paths.is_empty() {
            found.push(format!(
                "the policy fixed has layers that do not train, because none of their parameters can: `{}`",
                paths.join("`, `")
            ));
        }
    }
    let mut outside = map.outside().peekable();
    // Full training, and LoRA, whose base is frozen, have no periods in which they freeze.
    if is_sampled && outside.peek().is_some() && !outside.any(|p| p.trainable) {
        found.push(
            "no parameter outside the layers requires gradients, so embeddings and head do not train; \
             if an earlier run has frozen them, call `Lisa::unfreeze` of that run before `init`"
                .into(),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::Module;
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    #[derive(Module, Debug)]
    struct Model {
        layers: Vec<Linear>,
        head: Linear,
    }

    fn model() -> Model {
        let device = Device::flex().autodiff();
        let linear = || LinearConfig::new(2, 2).with_bias(false).init(&device);
        Model {
            layers: (0..3).map(|_| linear()).collect(),
            head: linear(),
        }
    }

    #[test]
    fn what_an_earlier_run_has_frozen_is_warned_of() {
        let said = |model: &Model| {
            let config = LisaConfig::new();
            let map = LayerMap::find(model).unwrap();
            warnings(&map, &config, &may_train(&map, &config).unwrap())
        };
        let frozen = |linear: &Linear| Linear {
            weight: linear.weight.clone().set_require_grad(false),
            bias: None,
        };
        let own = model();
        assert!(said(&own).is_empty());
        let mut without_head = own.clone();
        without_head.head = frozen(&own.head);
        let warnings = said(&without_head);
        assert!(
            warnings.len() == 1 && warnings[0].contains("outside the layers"),
            "{warnings:?}"
        );
        let all = LisaConfig::new().with_active_layers(3);
        let map = LayerMap::find(&without_head).unwrap();
        let found = super::warnings(&map, &all, &may_train(&map, &all).unwrap());
        assert!(found.is_empty(), "{found:?}");
        let mut without_layer = own.clone();
        without_layer.layers[0] = frozen(&own.layers[0]);
        let warnings = said(&without_layer);
        assert!(
            warnings.len() == 1 && warnings[0].contains("1 of 3 layers"),
            "{warnings:?}"
        );
    }

    #[test]
    fn fixed_layers_that_cannot_train_are_warned_of() {
        let mut own = model();
        own.layers[0].weight = own.layers[0].weight.clone().set_require_grad(false);
        let map = LayerMap::find(&own).unwrap();
        let said = |fixed: &[usize]| {
            let policy = PolicyConfig::Fixed(fixed.to_vec());
            let config = LisaConfig::new().with_policy(policy);
            warnings(&map, &config, &may_train(&map, &config).unwrap())
        };
        assert!(said(&[1, 2]).is_empty());
        let found = said(&[0, 1]);
        assert!(
            found.len() == 1 && found[0].ends_with("can: `layers.0`"),
            "{found:?}"
        );
    }

    #[test]
    fn probabilities_that_are_given_need_no_number_of_active_layers() {
        let config = |p: Vec<f64>| {
            let policy = PolicyConfig::Bernoulli(p);
            LisaConfig::new().with_active_layers(4).with_policy(policy)
        };
        let map = LayerMap::find(&model()).unwrap();
        let error = may_train(&map, &config(Vec::new())).unwrap_err();
        assert!(error.message().contains("active_layers is 4"), "{error}");
        let with = may_train(&map, &config(vec![0.5; 3])).unwrap();
        assert_eq!(with, [true; 4]);
    }
}
