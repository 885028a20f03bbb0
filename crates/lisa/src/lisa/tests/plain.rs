//! Steps against those of Burn's own optimizers.

use super::*;

#[test]
fn with_every_layer_active_it_is_the_plain_optimizer_bit_for_bit() {
    fn check<C: OptimizerConfig>(name: &str, optimizer: C) {
        let config = LisaConfig::new()
            .with_active_layers(LAYERS)
            .with_sampling_period(2);
        let model = net(&device());
        let mut plain = ModuleOptimizer::from(optimizer.build());
        let (mut lisa, mut ours) = config.init(optimizer, model.clone()).unwrap();
        let mut theirs = model;
        for step in 0..10 {
            let (a, b) = (ours.grads(step), theirs.grads(step));
            ours = lisa.step(0.01, ours, a);
            theirs = plain.step(0.01, theirs, b);
        }
        assert_eq!(ours.bits(), theirs.bits(), "{name}");
        let bytes: usize = lisa.memory().optimizer_state as usize;
        assert_eq!(bytes, state_bytes(plain), "{name}");
    }
    let momentum = MomentumConfig::new();
    check("AdamW", adamw());
    check("SGD", SgdConfig::new());
    check(
        "SGD with momentum",
        SgdConfig::new().with_momentum(Some(momentum)),
    );
    check("Lion", LionConfig::new());
    check("Adafactor", AdafactorConfig::new());
    check("Adan", AdanConfig::new());
}

/// Muon takes matrices only, so biases have AdamW, by a parameter group.
#[test]
fn groups_have_their_own_optimizer_and_their_moments_are_dropped_as_well() {
    let bias = ParamGroup::from_predicate("bias");
    let config = LisaConfig::new()
        .with_sampling_period(2)
        .with_active_layers(LAYERS);
    let model = net(&device());
    let mut plain = ModuleOptimizer::from(MuonConfig::new().build()).with_group(
        bias.clone(),
        adamw().build(),
        None,
    );
    let (lisa, mut ours) = config.init(MuonConfig::new(), model.clone()).unwrap();
    let mut lisa = lisa.with_group(bias.clone(), adamw());
    let mut theirs = model.clone();
    for step in 0..6 {
        let (a, b) = (ours.grads(step), theirs.grads(step));
        ours = lisa.step(0.01, ours, a);
        theirs = plain.step(0.01, theirs, b);
    }
    assert_eq!(ours.bits(), theirs.bits());

    let config = config.with_active_layers(2);
    let (lisa, model) = config.init(MuonConfig::new(), model).unwrap();
    let mut lisa = lisa.with_group(bias, adamw());
    let _ = train(&mut lisa, model, 0..41);
    // Muon: one tensor each for embed, head and two weights; AdamW: two for each of two biases.
    assert_eq!(moments(&lisa), 2 + 2 + 2 * 2);
}

#[test]
fn a_group_by_ids_is_the_same_group_after_loading_weights_with_other_ids() {
    let config = LisaConfig::new().with_active_layers(LAYERS);
    let start = net(&device());
    let head = |model: &Net| ParamGroup::ids_from_module(model.head.clone());
    let fast = || adamw().with_weight_decay(0.5);
    let (lisa, model) = config.init(adamw(), start.clone()).unwrap();
    let mut lisa = lisa.with_group(head(&model), fast());
    let expected = train_at(&mut lisa, model, 0..3, 0.1);

    let (lisa, model) = init(&config);
    let mut lisa = lisa.with_group(head(&model), fast());
    let loaded = train_at(&mut lisa, reloaded(&start, net), 0..3, 0.1);
    assert_eq!(loaded.bits(), expected.bits());
}

#[test]
fn clipping_that_is_set_on_burns_config_is_kept() {
    let norm = GradientClippingConfig::Norm(0.01);
    let clipped = || adamw().with_grad_clipping(Some(norm.clone()));
    let config = LisaConfig::new().with_active_layers(LAYERS);
    let model = net(&device());
    let steps = |mut optimizer: ModuleOptimizer| {
        (0..3).fold(model.clone(), |model, step| {
            let grads = model.grads(step);
            optimizer.step(0.1, model, grads)
        })
    };
    let (mut lisa, ours) = config.init(clipped(), model.clone()).unwrap();
    let ours = train_at(&mut lisa, ours, 0..3, 0.1);
    assert_eq!(ours.bits(), steps(clipped().init()).bits());
    assert_ne!(ours.bits(), steps(adamw().init()).bits());
    // A group has the clipping of its own config.
    let (lisa, ours) = config.init(adamw(), model.clone()).unwrap();
    let mut lisa = lisa.with_group(ParamGroup::all(), clipped());
    let ours = train_at(&mut lisa, ours, 0..3, 0.1);
    assert_eq!(ours.bits(), steps(clipped().init()).bits());
}

#[test]
fn learning_rates_by_group_and_clipping_by_tensor_are_burns() {
    let lr = || {
        use burn::lr_scheduler::module_lr_scheduler::ModuleLrSchedulerConfig;
        let base = burn::lr_scheduler::linear::LinearLrSchedulerConfig::new(0.1, 0.1, 9);
        let head = burn::lr_scheduler::linear::LinearLrSchedulerConfig::new(0.9, 0.9, 9);
        let config = ModuleLrSchedulerConfig::new(base.into());
        config
            .with_group(ParamGroup::from_predicate("head"), head)
            .init()
            .unwrap()
            .step()
    };
    let clipping = GradientClipping::Norm(0.01);
    let config = LisaConfig::new().with_active_layers(LAYERS);
    let model = net(&device());
    let mut plain = adamw().init().with_grad_clipping(clipping.clone());
    let (lisa, mut ours) = config.init(adamw(), model.clone()).unwrap();
    let mut lisa = lisa.with_grad_clipping(clipping);
    let mut theirs = model;
    for step in 0..4 {
        let (a, b) = (ours.grads(step), theirs.grads(step));
        ours = lisa.step(lr(), ours, a);
        theirs = plain.step(lr(), theirs, b);
    }
    assert_eq!(ours.bits(), theirs.bits());
}

#[test]
fn clipping_that_is_set_during_a_run_is_kept() {
    let config = LisaConfig::new()
        .with_sampling_period(2)
        .with_on_freeze(OnFreeze::Offload);
    let run = |clipping: f32| {
        let (mut lisa, model) = init(&config);
        let model = train_at(&mut lisa, model, 0..3, 0.1);
        let before = lisa.memory();
        let mut lisa = lisa.with_grad_clipping(GradientClipping::Norm(clipping));
        let model = train_at(&mut lisa, model, 3..4, 0.1);
        assert_eq!(lisa.memory().on_host() > 0, before.on_host() > 0);
        model.bits()
    };
    assert_ne!(run(1e-4), run(1e4));
}

#[test]
fn the_global_norm_is_taken_over_all_that_trains() {
    let config = LisaConfig::new()
        .with_max_grad_norm(Some(0.125))
        .with_active_layers(1);
    let sgd = SgdConfig::new();
    let policy = Fixed(&[&[3]]);
    let (mut lisa, model) = config
        .clone()
        .with_policy(PolicyConfig::custom(policy))
        .init(sgd, net(&device()))
        .unwrap();
    let before = model.clone();
    let grads = model.grads(0);
    let squares = |t: Tensor<2>| t.square().sum().into_scalar::<f32>();
    let weight =
        |net: &Net| [&net.embed.weight, &net.head.weight, &net.layers[3].weight].map(Param::val);
    let ids = [
        before.embed.weight.id,
        before.head.weight.id,
        before.layers[3].weight.id,
    ];
    let bias = before.layers[3].bias.as_ref().unwrap().id;
    let norm = (ids
        .iter()
        .map(|&id| squares(grads.get::<2>(id).unwrap()))
        .sum::<f32>()
        + grads
            .get::<1>(bias)
            .unwrap()
            .square()
            .sum()
            .into_scalar::<f32>())
    .sqrt();
    assert!(norm > 0.2, "{norm}");
    let model = lisa.step(1.0, model, grads);
    let moved: f32 = weight(&before)
        .into_iter()
        .zip(weight(&model))
        .map(|(a, b)| squares((a - b).inner()))
        .sum::<f32>()
        + (before.layers[3].bias.as_ref().unwrap().val()
            - model.layers[3].bias.as_ref().unwrap().val())
        .inner()
        .square()
        .sum()
        .into_scalar::<f32>();
    assert!((moved.sqrt() - 0.125).abs() < 1e-5, "{}", moved.sqrt());
}

#[test]
fn several_devices_step_as_one_with_the_sum_of_their_gradients() {
    use burn::optim::MultiGradientsParams;
    let config = LisaConfig::new()
        .with_sampling_period(2)
        .with_max_grad_norm(Some(0.5));
    let (mut one, mut a) = init(&config);
    let (mut many, mut b) = init(&config);
    for step in 0..6 {
        let sum = {
            let mut accumulator = GradientsAccumulator::new();
            accumulator.accumulate(&a, a.grads(step));
            accumulator.accumulate(&a, a.grads(step + 100));
            accumulator.grads()
        };
        a = one.step(0.05, a, sum);
        let device = b.head.weight.val().device().inner();
        let grads = vec![
            (b.grads(step), device.clone()),
            (b.grads(step + 100), device),
        ];
        b = many.step_multi(0.05, b, MultiGradientsParams { grads });
    }
    let (a, b) = (a.bits(), b.bits());
    for ((path, x), (_, y)) in a.iter().zip(&b) {
        for (x, y) in x.iter().zip(y) {
            let (x, y) = (f32::from_bits(*x), f32::from_bits(*y));
            assert!((x - y).abs() < 1e-6, "{path}: {x} {y}");
        }
    }
    assert_eq!(one.active_layers(), many.active_layers());
}
