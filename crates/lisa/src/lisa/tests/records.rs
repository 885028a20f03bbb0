//! Runs that are saved and resumed.

use super::*;
use crate::optimizer::Decay;
use crate::{ErrorKind, FrozenWeights};

#[test]
fn a_resumed_run_is_the_uninterrupted_one_bit_for_bit() {
    for on_freeze in [OnFreeze::Drop, OnFreeze::Keep, OnFreeze::Offload] {
        let config = LisaConfig::new()
            .with_sampling_period(4)
            .with_on_freeze(on_freeze);
        // The boundary, one before, one after, the middle, and before anything was stepped.
        for at in [8, 7, 9, 6, 0] {
            resumes(&config, net, at);
            resumes(&config, to_half, at);
        }
    }
    let config = LisaConfig::new()
        .with_sampling_period(4)
        .with_policy(PolicyConfig::Bernoulli(Vec::new()));
    resumes(&config, net, 6);
}

#[test]
fn a_run_whose_optimizer_has_no_state_resumes_bit_for_bit() {
    for on_freeze in [OnFreeze::Drop, OnFreeze::Keep, OnFreeze::Offload] {
        let config = LisaConfig::new()
            .with_sampling_period(4)
            .with_on_freeze(on_freeze);
        let without_masters = config.clone().with_master_weights(false);
        for at in [8, 6] {
            resumes_with(SgdConfig::new(), 12, &config, net, at);
            resumes_with(SgdConfig::new(), 12, &config, to_half, at);
            resumes_with(SgdConfig::new(), 12, &without_masters, to_half, at);
        }
    }
}

#[test]
fn a_run_with_a_group_whose_optimizer_has_no_state_resumes_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.lisa");
    let config = LisaConfig::new()
        .with_sampling_period(2)
        .with_on_freeze(OnFreeze::Offload);
    let start = |model: Net| {
        let (lisa, model) = config.init(adamw(), model).unwrap();
        let biases = ParamGroup::from_predicate("bias");
        (lisa.with_group(biases, SgdConfig::new()), model)
    };
    let (mut lisa, model) = start(net(&device()));
    let model = train(&mut lisa, model, 0..5);
    lisa.save(&path).unwrap();
    let fresh = reloaded(&model, net);
    let expected = train(&mut lisa, model, 5..12);

    let (mut second, fresh) = start(fresh);
    let fresh = second.load(&path, fresh).unwrap();
    let resumed = train(&mut second, fresh, 5..12);
    assert_eq!(resumed.bits(), expected.bits());
    assert_eq!(second.memory(), lisa.memory());
}

#[test]
fn a_run_resumes_with_weights_that_burn_saved() {
    let dir = tempfile::tempdir().unwrap();
    let (weights, record) = (dir.path().join("weights.bpk"), dir.path().join("run.lisa"));
    for on_freeze in [OnFreeze::Drop, OnFreeze::Offload] {
        let config = LisaConfig::new()
            .with_sampling_period(4)
            .with_on_freeze(on_freeze);
        let (mut lisa, model) = init(&config);
        let model = train(&mut lisa, model, 0..6);
        model.clone().save_file(&weights).unwrap();
        lisa.save(&record).unwrap();
        let expected = train(&mut lisa, model, 6..12);

        // Burn's records bring the ids of the model that was saved: after `init`, before `load`.
        let (mut second, fresh) = init(&config);
        let fresh = fresh.try_load_file(&weights).unwrap();
        let fresh = second.load(&record, fresh).unwrap();
        let resumed = train(&mut second, fresh, 6..12);
        assert_eq!(resumed.bits(), expected.bits());
        assert_eq!(
            second.memory().optimizer_state,
            lisa.memory().optimizer_state
        );
    }
}

#[test]
fn a_record_of_another_run_is_refused_by_its_difference() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.lisa");
    let config = LisaConfig::new().with_sampling_period(2);
    let (mut lisa, model) = init(&config);
    let _ = train(&mut lisa, model, 0..3);
    lisa.save(&path).unwrap();

    let refusal = |config: &LisaConfig, model: Net| -> String {
        let (mut lisa, model) = config.init(adamw(), model).unwrap();
        let message = lisa.load(&path, model).unwrap_err().to_string();
        assert_eq!(lisa.steps(), 0);
        message
    };
    let fresh = || net(&device());
    let bernoulli = PolicyConfig::Bernoulli(Vec::new());
    let like = || config.clone();
    for (difference, other) in [
        ("seed is 42, this run's is 1", like().with_seed(1)),
        (
            "policy is \"uniform\", this run's is \"bernoulli\"",
            like().with_policy(bernoulli),
        ),
        (
            "outer_every is 1, this run's is 3",
            like().with_outer_every(Some(3)),
        ),
        (
            "layer_warmup is 1, this run's is 2",
            like().with_layer_warmup(Some(2)),
        ),
        (
            "decay is All, this run's is Matrices",
            like().with_decay(Decay::Matrices),
        ),
        (
            "frozen_weights is Exact, this run's is Int8",
            like().with_frozen_weights(FrozenWeights::Int8),
        ),
    ] {
        let message = refusal(&other, fresh());
        let wanted = format!("run.lisa` is of another run: its {difference};");
        assert!(message.contains(&wanted), "{message}");
    }
    let mut short = fresh();
    short.layers.pop();
    let message = refusal(&config, short);
    assert!(
        message.contains("its number of layers is 6, this run's is 5"),
        "{message}"
    );
    let mut other = fresh();
    other.head = LinearConfig::new(WIDTH, 3).with_bias(false).init(&device());
    let message = refusal(&config, other);
    assert!(
        message.contains("`head.weight` of shape [4, 4]"),
        "{message}"
    );

    let bytes = std::fs::read(&path).unwrap();
    for (name, bytes) in [
        ("half", &bytes[..bytes.len() / 2]),
        ("empty", &[][..]),
        ("text", b"hi"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let message = refusal(&config, fresh());
        assert!(
            message.contains("cannot read the record"),
            "{name}: {message}"
        );
    }
    std::fs::remove_file(&path).unwrap();
    assert!(refusal(&config, fresh()).contains("run.lisa"));
}

/// A run at the end of a period: layers that become active have state in host memory.
#[test]
fn offloaded_state_stays_in_host_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.lisa");
    let policy = PolicyConfig::custom(Fixed(&[&[0, 1], &[2, 3]]));
    let config = LisaConfig::new()
        .with_sampling_period(2)
        .with_policy(policy)
        .with_on_freeze(OnFreeze::Offload);
    let (mut lisa, model) = init(&config);
    let model = train(&mut lisa, model, 0..4);
    let memory = lisa.memory();
    let layer = 2 * 4 * (WIDTH * WIDTH + WIDTH) as u64;
    assert_eq!(lisa.active_layers(), [0, 1]);
    assert_eq!(memory.offloaded, 4 * layer);
    assert_eq!(memory.optimizer_state, 2 * 2 * 4 * (WIDTH * WIDTH) as u64);
    let mut straight = lisa.clone();
    let expected = train(&mut straight, model.clone(), 4..9);

    // Loaded.
    lisa.save(&path).unwrap();
    let (mut loaded, _) = init(&config);
    let resumed = loaded.load(&path, model.clone()).unwrap();
    assert_eq!(loaded.memory(), memory);
    assert_eq!(train(&mut loaded, resumed, 4..9).bits(), expected.bits());
    assert_eq!(loaded.memory(), straight.memory());

    // With new ids: those of layers that do not train in the next step stay as well.
    let mut followed = lisa.clone();
    let renamed = train(&mut followed, reloaded(&model, net), 4..5);
    assert_eq!(followed.memory().offloaded, 2 * layer);
    assert_eq!(train(&mut followed, renamed, 5..9).bits(), expected.bits());

    // With a clipping that clips nothing.
    let mut clipped = lisa.with_grad_clipping(GradientClipping::Norm(1e9));
    assert_eq!(clipped.memory(), memory);
    assert_eq!(train(&mut clipped, model, 4..9).bits(), expected.bits());
}

#[test]
fn a_file_that_the_system_refuses_is_told_from_a_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.lisa");
    let (mut lisa, model) = init(&LisaConfig::new());
    let error = lisa.load(&path, model.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let source = std::error::Error::source(&error).unwrap();
    let cause: &std::io::Error = source.downcast_ref().unwrap();
    assert_eq!(cause.kind(), std::io::ErrorKind::NotFound);
    for bytes in [&b"hi"[..], &[7; 100]] {
        std::fs::write(&path, bytes).unwrap();
        let error = lisa.load(&path, model.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Record, "{error}");
        assert!(std::error::Error::source(&error).is_some() || bytes.len() > 10);
    }
    let error = lisa.save(dir.path().join("no/such/folder/run.lisa"));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn a_policy_that_ignores_the_number_of_active_layers_resumes_with_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.lisa");
    let config = |policy: &PolicyConfig, active| {
        LisaConfig::new()
            .with_sampling_period(2)
            .with_policy(policy.clone())
            .with_active_layers(active)
    };
    for policy in [
        PolicyConfig::Budget(crate::policy::Budget::new()),
        PolicyConfig::Fixed(vec![1, 4]),
        PolicyConfig::Bernoulli(vec![0.5; LAYERS]),
    ] {
        let (mut lisa, model) = init(&config(&policy, 2));
        let model = train(&mut lisa, model, 0..3);
        lisa.save(&path).unwrap();
        let (mut other, _) = init(&config(&policy, 4));
        let loaded = other.load(&path, model.clone()).unwrap();
        let expected = train(&mut lisa, model, 3..7);
        let resumed = train(&mut other, loaded, 3..7);
        assert_eq!(resumed.bits(), expected.bits(), "{policy:?}");
    }
    let uniform = PolicyConfig::Uniform;
    let (lisa, model) = init(&config(&uniform, 2));
    lisa.save(&path).unwrap();
    let (mut other, _) = init(&config(&uniform, 4));
    let error = other.load(&path, model).unwrap_err();
    let expected = "its number of active layers is 2, this run's is 4";
    assert!(error.message().ends_with(expected), "{error}");
}
