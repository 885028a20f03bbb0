//! Weight decay of matrices only.

use super::*;
use crate::optimizer::{Built, Decay};
use crate::recompute::Recompute;

/// A decay that is large enough to see.
fn decayed() -> AdamWConfig {
    adamw().with_weight_decay(0.5)
}

fn matrices() -> LisaConfig {
    LisaConfig::new()
        .with_sampling_period(3)
        .with_decay(Decay::Matrices)
}

/// The same by a group of Burn's, which has the biases.
fn by_group(config: &LisaConfig, model: Net) -> (Lisa, Net) {
    let config = config.clone().with_decay(Decay::All);
    let (lisa, model) = config.init(decayed(), model).unwrap();
    let biases = ParamGroup::from_predicate("bias");
    (
        lisa.with_group(biases, adamw().with_weight_decay(0.0)),
        model,
    )
}

#[test]
fn the_weights_are_those_of_torchs_adamw_with_two_groups() {
    // Printed by `tests/fixtures/make_decay.py`.
    let wanted: [(&str, usize, [f32; 4]); 5] = [
        (
            "embed.weight",
            0,
            [-0.2360273, -0.2092155, -0.03535314, 0.1574177],
        ),
        (
            "layers.2.weight",
            3,
            [0.07080244, 0.1812035, 0.618228, 0.1449917],
        ),
        (
            "layers.2.bias",
            0,
            [0.002721215, -0.3461587, -0.4841321, -0.6332147],
        ),
        (
            "layers.5.bias",
            0,
            [0.5078217, 0.5226009, 0.5091687, 0.06123485],
        ),
        (
            "head.weight",
            1,
            [0.2725663, -0.02845509, -0.1739822, -0.3760641],
        ),
    ];
    let config = matrices().with_active_layers(LAYERS);
    let (mut lisa, model) = config.init(decayed(), net(&device())).unwrap();
    let model = train(&mut lisa, model, 0..8);
    let bits = model.bits();
    for (path, row, wanted) in wanted {
        let (_, found) = bits.iter().find(|(found, _)| found == path).unwrap();
        for (found, wanted) in found[row * WIDTH..].iter().zip(wanted) {
            let found = f32::from_bits(*found);
            assert!(
                (found - wanted).abs() < 1e-6,
                "{path}: {found} is not {wanted}"
            );
        }
    }
}

#[test]
fn biases_are_not_decayed_in_any_period_dtype_or_kind_of_step() {
    for on_freeze in [OnFreeze::Drop, OnFreeze::Keep, OnFreeze::Offload] {
        for make in [net, to_half] {
            let config = matrices().with_on_freeze(on_freeze);
            let (mut lisa, mut ours) = config.init(decayed(), make(&device())).unwrap();
            let (mut layered, mut during) = config.init(decayed(), make(&device())).unwrap();
            let (mut groups, mut theirs) = by_group(&config, make(&device()));
            for step in 0..20 {
                let grads = ours.grads(step);
                ours = lisa.step(0.05, ours, grads);
                let pass = Recompute::new().forward(&during, &step);
                during = layered.step_layered(0.05, during, pass);
                let grads = theirs.grads(step);
                theirs = groups.step(0.05, theirs, grads);
            }
            assert_eq!(ours.bits(), theirs.bits(), "{on_freeze:?}");
            assert_eq!(ours.bits(), during.bits(), "{on_freeze:?}");
            assert_eq!(lisa.memory(), groups.memory());
        }
    }
    // The decay of the biases is visible in these steps.
    let of = |decay| {
        let config = matrices().with_decay(decay);
        let (mut lisa, model) = config.init(decayed(), net(&device())).unwrap();
        let before = model.clone();
        let after = train_at(&mut lisa, model, 0..1, 1e-3);
        (changed(&before, &after), after.bits())
    };
    let ((paths, matrices), (same_paths, all)) = (of(Decay::Matrices), of(Decay::All));
    assert_eq!(paths, same_paths);
    for ((path, a), (_, b)) in matrices.iter().zip(&all) {
        let bias = path.ends_with("bias") && paths.contains(path);
        assert_eq!(a != b, bias, "{path}");
    }
}

#[test]
fn a_large_parameter_is_stepped_in_slices_with_its_own_decay() {
    #[derive(Module, Debug)]
    struct Wide {
        layers: Vec<Linear>,
    }
    let device = device();
    let ones = |shape: [usize; 2]| Tensor::<2>::ones(shape, &device);
    let layer = || Linear {
        weight: Param::from_tensor(ones([1, 100_000])),
        bias: Some(Param::from_tensor(ones([1, 100_000]).reshape([100_000]))),
    };
    let model = Wide {
        layers: vec![layer(), layer()],
    };
    let (mut lisa, model) = matrices().init(decayed(), model).unwrap();
    let mut grads = GradientsParams::new();
    for layer in &model.layers {
        let bias = layer.bias.as_ref().unwrap();
        grads.register(layer.weight.id, layer.weight.val().inner().zeros_like());
        grads.register(bias.id, bias.val().inner().zeros_like());
    }
    let model = lisa.step(0.1, model, grads);
    let first = |data: burn::tensor::TensorData| {
        let values: BTreeSet<u32> = data.iter::<f32>().map(f32::to_bits).collect();
        values.into_iter().map(f32::from_bits).collect::<Vec<_>>()
    };
    for layer in &model.layers {
        let bias = layer.bias.as_ref().unwrap();
        assert_eq!(first(layer.weight.val().into_data()), [0.95]);
        assert_eq!(first(bias.val().into_data()), [1.0]);
    }
}

#[test]
fn a_run_that_is_saved_loaded_and_given_new_ids_decays_the_same_parameters() {
    for on_freeze in [OnFreeze::Drop, OnFreeze::Keep, OnFreeze::Offload] {
        let config = matrices().with_on_freeze(on_freeze);
        for at in [0, 5, 6, 7] {
            resumes(&config, net, at);
            resumes(&config, to_half, at);
        }
    }
}

#[test]
fn learning_rates_and_optimizers_of_groups_are_as_without_it() {
    use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
    use burn::lr_scheduler::module_lr_scheduler::ModuleLrSchedulerConfig;
    let lr = || {
        let base = LinearLrSchedulerConfig::new(0.01, 0.01, 9);
        let biases = LinearLrSchedulerConfig::new(0.09, 0.09, 9);
        let config = ModuleLrSchedulerConfig::new(base.into());
        let group = ParamGroup::from_predicate("bias");
        config.with_group(group, biases).init().unwrap().step()
    };
    let config = matrices().with_active_layers(LAYERS);
    let (mut lisa, mut ours) = config.init(decayed(), net(&device())).unwrap();
    let plain = decayed().init();
    let biases = adamw().with_weight_decay(0.0).build();
    let mut plain = plain.with_group(ParamGroup::from_predicate("bias"), biases, None);
    let mut theirs = net(&device());
    for step in 0..5 {
        let (a, b) = (ours.grads(step), theirs.grads(step));
        ours = lisa.step(lr(), ours, a);
        theirs = plain.step(lr(), theirs, b);
    }
    assert_eq!(ours.bits(), theirs.bits());

    // A group's optimizer decays matrices only as well.
    let (lisa, ours) = init(&config);
    let mut lisa = lisa.with_group(ParamGroup::all(), decayed());
    let ours = train(&mut lisa, ours, 0..5);
    let (mut groups, theirs) = by_group(&config, net(&device()));
    assert_eq!(ours.bits(), train(&mut groups, theirs, 0..5).bits());
}

#[test]
fn an_optimizer_that_cannot_be_made_without_decay_is_refused() {
    let built = || Built(decayed().build());
    let error = matrices().init(built(), net(&device())).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("decay is Decay::Matrices"), "{text}");
    assert!(text.contains("set decay to Decay::All"), "{text}");
    let all = matrices().with_decay(Decay::All);
    assert!(all.init(built(), net(&device())).is_ok());
}

#[test]
#[should_panic(expected = "decay is Decay::Matrices")]
fn a_group_whose_optimizer_cannot_be_made_without_decay_is_refused() {
    let (lisa, _) = matrices().init(decayed(), net(&device())).unwrap();
    let _ = lisa.with_group(ParamGroup::all(), Built(decayed().build()));
}
