//! Steps that are refused: the model comes back, and the error says whether it was updated.

use burn::optim::MultiGradientsParams;

use super::*;
use crate::recompute::Recompute;
use crate::{ErrorKind, StepError};

/// The three kinds of steps.
const STEPS: [&str; 3] = ["step", "step_multi", "step_layered"];

fn stepped(kind: &str, lisa: &mut Lisa, model: Net, step: usize) -> Result<Net, StepError<Net>> {
    match kind {
        "step" => {
            let grads = model.grads(step);
            lisa.try_step(0.05, model, grads)
        }
        "step_multi" => {
            let device = model.head.weight.val().device().inner();
            let grads = vec![(model.grads(step), device)];
            lisa.try_step_multi(0.05, model, MultiGradientsParams { grads })
        }
        _ => {
            let pass = Recompute::new().forward(&model, &step);
            lisa.try_step_layered(0.05, model, pass)
        }
    }
}

#[test]
fn another_model_is_refused_before_anything_changes() {
    let mut fewer = net(&device());
    fewer.layers.pop();
    let wider = || {
        let mut model = net(&device());
        model.head.weight = Param::from_tensor(Tensor::ones([WIDTH, 2], &device()));
        model
    };
    for kind in STEPS {
        let (mut lisa, own) = init(&LisaConfig::new().with_sampling_period(1));
        let mut mixed = own.clone();
        mixed.layers[1] = net(&device()).layers[1].clone();
        let mut missing = own.clone();
        missing.layers.pop();
        let mut resized = own.clone();
        let head = Tensor::ones([WIDTH, 2], &device()).require_grad();
        resized.head.weight = Param::initialized(own.head.weight.id, head);
        for (what, model, message) in [
            (
                "fewer layers",
                fewer.clone(),
                "it has 12 parameters and that had 14",
            ),
            ("another shape", wider(), "`head.weight` of shape [4, 2]"),
            (
                "own, with another shape",
                resized,
                "`head.weight` of shape [4, 2]",
            ),
            (
                "some ids",
                mixed,
                "12 parameters are those that the optimizer was made for",
            ),
            (
                "own, without a layer",
                missing,
                "it has 12 parameters and that had 14",
            ),
        ] {
            let before = model.bits();
            let active = lisa.active_layers().to_vec();
            let error = stepped(kind, &mut lisa, model, 0).unwrap_err();
            let of = format!("{kind}, {what}: {error}");
            assert_eq!(error.error().kind(), ErrorKind::Layers, "{of}");
            assert!(error.error().message().contains(message), "{of}");
            assert!(
                error.error().help().is_some() && !error.is_updated(),
                "{of}"
            );
            assert_eq!(error.into_model().bits(), before, "{of}");
            assert_eq!(
                (lisa.steps(), lisa.active_layers()),
                (0, &active[..]),
                "{of}"
            );
        }
        // The run goes on with its own model.
        let before = own.clone();
        let own = stepped(kind, &mut lisa, own, 0).unwrap();
        assert!(changed(&before, &own).contains("embed.weight"));
    }
}

#[test]
fn a_model_that_was_loaded_anew_is_followed_by_its_paths() {
    for kind in STEPS {
        for on_freeze in [OnFreeze::Drop, OnFreeze::Keep, OnFreeze::Offload] {
            let config = LisaConfig::new()
                .with_sampling_period(2)
                .with_on_freeze(on_freeze);
            let run = |anew: bool| {
                let (mut lisa, mut model) = init(&config);
                for step in 0..7 {
                    if anew && step == 5 {
                        model = reloaded(&model, net);
                    }
                    model = stepped(kind, &mut lisa, model, step).unwrap();
                }
                let frozen = model.layers.iter().map(|l| !l.weight.is_require_grad());
                let frozen: Vec<bool> = frozen.collect();
                (model.bits(), frozen, lisa.memory())
            };
            assert_eq!(run(false), run(true), "{kind}, {on_freeze:?}");
        }
    }
}

#[test]
fn an_invalid_draw_gives_the_updated_model_back_with_the_old_layers() {
    for kind in STEPS {
        let policy = PolicyConfig::custom(Fixed(&[&[1], &[77], &[2]]));
        let config = LisaConfig::new()
            .with_sampling_period(1)
            .with_policy(policy);
        let (mut lisa, model) = init(&config);
        let before = model.clone();
        let error = stepped(kind, &mut lisa, model, 0).unwrap_err();
        assert_eq!(error.error().kind(), ErrorKind::Policy);
        let message = error.error().message();
        assert!(
            message.contains("the update of step 1 was applied"),
            "{message}"
        );
        assert!(message.contains("drew layer 77 of 6"), "{message}");
        assert!(error.is_updated());
        let model = error.into_model();
        assert!(changed(&before, &model).contains("layers.1.weight"));
        assert_eq!((lisa.active_layers(), lisa.steps()), (&[1][..], 1));
        assert!(model.layers[1].weight.is_require_grad());
        assert!(!model.layers[2].weight.is_require_grad());
        // The next period is sampled as usual.
        let model = stepped(kind, &mut lisa, model, 1).unwrap();
        assert_eq!(lisa.active_layers(), [2]);
        assert!(model.layers[2].weight.is_require_grad());
    }
}

#[test]
fn an_empty_draw_where_nothing_else_trains_is_an_error() {
    let outside = ParamGroup::from_any_predicates(vec!["embed", "head"]);
    let config = LisaConfig::new()
        .with_sampling_period(1)
        .with_frozen(Some(outside))
        .with_policy(PolicyConfig::custom(Fixed(&[&[1], &[]])));
    let (mut lisa, model) = init(&config);
    let error = stepped("step", &mut lisa, model, 0).unwrap_err();
    assert!(error.error().message().contains("drew no layer"), "{error}");
    assert_eq!(lisa.active_layers(), [1]);
}

#[test]
#[should_panic(expected = "the model is not the one that the optimizer was made for")]
fn step_panics_with_the_message_of_its_error() {
    let (mut lisa, _) = init(&LisaConfig::new());
    let mut other = net(&device());
    other.layers.pop();
    let _ = lisa.step(0.1, other, GradientsParams::new());
}

#[test]
fn a_record_of_another_structure_is_refused() {
    let (mut lisa, _) = init(&LisaConfig::new());
    let mut other = net(&device());
    other.layers.pop();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.lisa");
    lisa.save(&path).unwrap();
    let error = lisa.load(&path, other).unwrap_err().to_string();
    assert!(
        error.contains("it has 12 parameters and that had 14"),
        "{error}"
    );
}
