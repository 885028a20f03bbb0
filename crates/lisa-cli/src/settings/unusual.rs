//! [`unusual`]: settings that are far from the settings that are known to work.

use std::ops::RangeInclusive;

use super::derived::SMALL;
use super::{Method, ModelFacts, Origin, Origins, Policy, Settings};
use crate::terminal::text::counted;

/// The learning rates of pretrained models, from the lowest one that published runs have to 1.6, 2 and 5 times
/// the best ones of the study of SmolLM2 (docs/study.md): 3.2e-4, 1e-4 and 1e-3.
fn usual_rates(method: Method) -> RangeInclusive<f64> {
    match method {
        Method::Lisa => 5e-6..=5e-4,
        Method::Full => 1e-6..=2e-4,
        Method::Lora => 2e-5..=5e-3,
    }
}

/// The steps of the runs in which layers were sampled once (docs/study.md).
const STUDIED: u64 = 120;

/// What a user should know of settings that are far from the usual ones, for a run of `steps` steps. Values
/// that follow from the model and the data are not warned about.
#[must_use]
pub(crate) fn unusual(
    settings: &Settings,
    origins: &Origins,
    model: &ModelFacts,
    steps: u64,
) -> Vec<String> {
    let is_given = |name| matches!(origins.of(name), Some(Origin::Flag | Origin::File(..)));
    let (method, mut found) = (&settings.method, Vec::new());
    // Small models learn with larger steps, and with most layers active.
    if model.parameters < SMALL {
        return found;
    }
    let (lr, usual) = (settings.training.lr, usual_rates(method.method));
    if !usual.contains(&lr) {
        let (lowest, highest) = (usual.start(), usual.end());
        let effect = if lr > *highest {
            "the loss may rise, and the model may forget what it knew"
        } else {
            "the model may learn little"
        };
        found.push(format!(
            "--lr {lr:e} is far from the rates that are usual for {} on pretrained models, \
             {lowest:e} to {highest:e}; {effect}",
            method.method
        ));
    }
    if method.method != Method::Lisa || method.policy == Policy::Fixed {
        return found;
    }
    let is_counted = method.policy != Policy::Budget && method.split.is_empty();
    let (active, given) = if method.probabilities.is_empty() {
        let given = format!("--active-layers {}", method.active_layers);
        (method.active_layers as f64, given)
    } else {
        let sum = method.probabilities.iter().sum::<f64>();
        let given = format!("--probabilities, {sum:.1} layers on average,");
        (sum, given)
    };
    let layers = model.layers as f64;
    let gives_layers = is_given("active-layers") || is_given("probabilities");
    // With updates in the backward pass, which need recomputation, the gradients of one layer at a
    // time are in memory. The study has such runs of 20 of 30 layers.
    let in_backward = settings.memory.update_in_backward;
    let grow = if in_backward {
        "optimizer state grows"
    } else {
        "gradients and optimizer state grow"
    };
    let is_studied = in_backward && 3.0 * active <= 2.0 * layers;
    if gives_layers && is_counted && 2.0 * active >= layers && !is_studied {
        found.push(format!(
            "{given} is half of the {} or more: {grow} with it, up to what full training needs; `lisa plan` \
             compares the memory of LISA, LoRA and full training",
            counted(model.layers, "layer")
        ));
    }
    let is_once = method.period as u64 >= steps && !(is_counted && active >= layers);
    let is_of_warmup = is_given("layer-warmup") && method.layer_warmup == method.period;
    if is_once && (is_given("period") || is_of_warmup) {
        let of_warmup = if is_given("period") {
            ""
        } else {
            ", as long as --layer-warmup,"
        };
        found.push(format!(
            "--period {}{of_warmup} is the whole run of {}: the layers are sampled once, and the others \
             never train; this was measured for runs of about {STUDIED} steps only",
            method.period,
            counted(steps as usize, "step")
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::derived::SMOLLM2 as MODEL;
    use super::*;
    use crate::settings::Flags;

    fn settings(change: impl Fn(&mut Settings)) -> Settings {
        let mut settings = Flags::default().resolve(None).unwrap();
        settings.training.lr = 1e-4;
        (settings.method.active_layers, settings.method.period) = (2, 10);
        change(&mut settings);
        settings
    }

    /// All settings are given.
    fn all_given() -> Origins {
        let mut origins = Origins::default();
        for name in ["lr", "active-layers", "probabilities", "period"] {
            origins.set(name, Origin::Flag);
        }
        origins
    }

    fn of(change: impl Fn(&mut Settings)) -> Vec<String> {
        unusual(&settings(change), &all_given(), &MODEL, 100)
    }

    #[test]
    fn usual_settings_have_no_warning() {
        assert!(of(|_| ()).is_empty());
        assert!(of(|settings| settings.method.active_layers = 14).is_empty());
        assert!(of(|settings| settings.method.period = 99).is_empty());
        for method in [Method::Full, Method::Lora] {
            let with = |settings: &mut Settings| {
                settings.method.method = method;
                // These are LISA's.
                (settings.method.active_layers, settings.method.period) = (30, 1000);
            };
            assert!(of(with).is_empty(), "{method}");
        }
    }

    #[test]
    fn each_setting_that_is_far_from_usual_is_named() {
        let high = of(|settings| settings.training.lr = 1e-3);
        assert_eq!(
            high,
            [
                "--lr 1e-3 is far from the rates that are usual for lisa on pretrained models, 5e-6 to \
                 5e-4; the loss may rise, and the model may forget what it knew"
            ]
        );
        let low = of(|settings| settings.training.lr = 1e-7);
        assert!(low[0].ends_with("may learn little"), "{low:?}");
        let lora = |settings: &mut Settings| {
            settings.method.method = Method::Lora;
            settings.training.lr = 1e-3;
        };
        assert!(of(lora).is_empty());

        let half = of(|settings| settings.method.active_layers = 15);
        assert!(half[0].starts_with("--active-layers 15 is half of the 30 layers or more: "));
        let split = |settings: &mut Settings| {
            settings.method.split = vec!["attn".into()];
            settings.method.active_layers = 15;
        };
        assert!(of(split).is_empty());
        let given = |settings: &mut Settings| {
            settings.method.policy = Policy::Bernoulli;
            settings.method.probabilities = vec![0.6; 30];
        };
        assert!(of(given)[0].starts_with("--probabilities, 18.0 layers on average, is half of"));
        let once = of(|settings| settings.method.period = 100);
        assert!(once[0].starts_with("--period 100 is the whole run of 100 steps: "));
        let fixed = |settings: &mut Settings| {
            settings.method.policy = Policy::Fixed;
            settings.method.period = 100;
        };
        assert!(of(fixed).is_empty());

        let all = |settings: &mut Settings| {
            settings.training.lr = 1.0;
            (settings.method.active_layers, settings.method.period) = (15, 100);
        };
        assert_eq!(of(all).len(), 3);
        let small = ModelFacts {
            parameters: 1_500_000,
            ..MODEL
        };
        assert!(unusual(&settings(all), &all_given(), &small, 100).is_empty());
    }

    #[test]
    fn two_thirds_of_the_layers_are_usual_with_recomputation_and_the_update_in_the_backward_pass() {
        let of = |active: usize, in_backward: bool| {
            of(|settings| {
                settings.method.active_layers = active;
                (
                    settings.memory.recompute,
                    settings.memory.update_in_backward,
                ) = (1, in_backward);
            })
        };
        assert!(of(20, true).is_empty());
        let (more, without) = (of(21, true), of(20, false));
        assert!(
            more[0].contains(" or more: optimizer state grows with it"),
            "{more:?}"
        );
        assert!(
            without[0].contains("gradients and optimizer state grow"),
            "{without:?}"
        );
    }

    #[test]
    fn a_period_of_the_warm_up_that_is_the_whole_run_is_warned_about() {
        let mut origins = Origins::default();
        origins.set("layer-warmup", Origin::Flag);
        origins.set("period", Origin::Derived("as long as it".to_owned()));
        let of = |warmup: usize, period: usize| {
            let with = settings(|settings| {
                (settings.method.layer_warmup, settings.method.period) = (warmup, period);
            });
            unusual(&with, &origins, &MODEL, 100)
        };
        let once = of(100, 100);
        assert!(
            once[0]
                .starts_with("--period 100, as long as --layer-warmup, is the whole run of 100 "),
            "{once:?}"
        );
        assert!(of(50, 50).is_empty() && of(5, 100).is_empty());
    }

    #[test]
    fn a_default_is_not_warned_about() {
        let all = |settings: &mut Settings| {
            (settings.method.active_layers, settings.method.period) = (15, 100);
        };
        let mut origins = all_given();
        for name in ["active-layers", "probabilities", "period"] {
            origins.set(name, Origin::Derived("few rows".to_owned()));
        }
        assert!(unusual(&settings(all), &origins, &MODEL, 100).is_empty());
        origins.set(
            "period",
            Origin::File("run.toml".into(), 1, "period".into()),
        );
        assert_eq!(unusual(&settings(all), &origins, &MODEL, 100).len(), 1);
    }
}
