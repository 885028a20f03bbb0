//! Half-precision models, with master weights and without.

use super::*;

#[test]
fn half_precision_trains_through_masters_and_without_them_does_not_move() {
    // Weights near 0.06 are 2.4e-4 apart in bf16: a step of 1e-5 is lost, the sum of 150 is not.
    let run = |masters: bool, half_precision: bool| {
        let config = LisaConfig::new()
            .with_active_layers(LAYERS)
            .with_master_weights(masters);
        let model = net_of(&device(), WIDTH, 0.06);
        let model = if half_precision { half(model) } else { model };
        let (mut lisa, mut model) = config.init(adamw(), model).unwrap();
        let first = model.loss(0).into_scalar::<f32>();
        for _ in 0..150 {
            let grads = model.grads(0);
            model = lisa.step(1e-5, model, grads);
        }
        assert_eq!(lisa.memory().master_weights > 0, masters && half_precision);
        first - model.loss(0).into_scalar::<f32>()
    };
    let exact = run(true, false);
    let masters = run(true, true);
    let plain = run(false, true);
    assert!(exact > 0.0);
    assert!(
        (masters / exact - 1.0).abs() < 0.25,
        "masters {masters}, f32 {exact}"
    );
    assert!(plain.abs() < 0.25 * exact, "plain {plain}, f32 {exact}");
}

#[test]
fn half_precision_moments_are_f32_with_masters_only() {
    for (masters, bytes) in [(true, 4), (false, 2)] {
        let config = LisaConfig::new()
            .with_master_weights(masters)
            .with_active_layers(1);
        let (mut lisa, model) = config.init(adamw(), to_half(&device())).unwrap();
        let model = train(&mut lisa, model, 0..2);
        let trained = (2 * WIDTH * WIDTH + WIDTH * WIDTH + WIDTH) as u64;
        assert_eq!(lisa.memory().optimizer_state, 2 * bytes * trained);
        assert_eq!(
            lisa.memory().master_weights,
            if masters { 4 * trained } else { 0 }
        );
        assert_eq!(model.head.weight.val().dtype(), DType::BF16);
    }
}

#[test]
fn dropped_masters_are_taken_anew_from_the_weights() {
    let config = LisaConfig::new().with_sampling_period(1);
    let policy = Fixed(&[&[0], &[1]]);
    let (mut lisa, model) = config
        .clone()
        .with_policy(PolicyConfig::custom(policy))
        .init(adamw(), to_half(&device()))
        .unwrap();
    let _ = train(&mut lisa, model, 0..9);
    // Only embed and head are trainable in the next period and were updated before, so only they
    // have master weights.
    assert_eq!(lisa.memory().master_weights, 4 * (2 * WIDTH * WIDTH) as u64);
}

#[test]
fn a_run_without_masters_resumes_with_the_same_bits_and_its_state_fits_an_f32_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.lisa");
    for on_freeze in [OnFreeze::Drop, OnFreeze::Keep, OnFreeze::Offload] {
        let config = LisaConfig::new()
            .with_master_weights(false)
            .with_sampling_period(2)
            .with_on_freeze(on_freeze);
        resumes(&config, to_half, 5);

        let (mut lisa, model) = config.init(adamw(), to_half(&device())).unwrap();
        let _ = train(&mut lisa, model, 0..5);
        lisa.save(&path).unwrap();
        let (mut lisa, model) = init(&config);
        let model = lisa.load(&path, model).unwrap();
        let _ = train(&mut lisa, model, 5..7);
    }
}

#[test]
fn a_model_that_was_cast_after_init_is_refused() {
    let (mut lisa, model) = init(&LisaConfig::new());
    let model = train(&mut lisa, model, 0..2);
    let (memory, before) = (lisa.memory(), model.clone());
    let cast = half(model);
    let grads = cast.grads(2);
    let error = lisa.try_step(0.05, cast, grads).unwrap_err();
    let message = error.error().message();
    assert!(
        message.contains("it has `embed.weight` in BF16 where that had it in F32"),
        "{message}"
    );
    assert!(!error.is_updated() && lisa.steps() == 2);
    assert_eq!(lisa.memory(), memory);
    // So is one that was loaded from a file, with ids of its own.
    let loaded = reloaded(&half(before.clone()), to_half);
    let grads = loaded.grads(2);
    let error = lisa.try_step(0.05, loaded, grads).unwrap_err();
    let help = error.error().help().unwrap();
    assert!(help.starts_with("step a model in F32"), "{help}");
    assert!(!error.is_updated() && lisa.steps() == 2);
    // The run continues, and the cast model begins another one.
    let _ = train(&mut lisa, before.clone(), 2..3);
    let (mut lisa, model) = LisaConfig::new().init(adamw(), half(before)).unwrap();
    let _ = train(&mut lisa, model, 0..2);
    assert!(lisa.memory().optimizer_state > 0);
}
