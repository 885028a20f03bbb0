//! Quantized frozen layers: nothing that is exact is lost.

use super::*;
use crate::{ErrorKind, FrozenWeights};
use burn::module::ModuleMapper;
use burn::nn::{BatchNorm, BatchNormConfig, LinearLayout};
use burn::tensor::TensorData;

/// As [`net`], wide enough for whole blocks.
fn wide(device: &Device) -> Net {
    net_of(device, 32, 0.2)
}

/// With a smaller learning rate than that of the other tests: these weights are smaller.
fn train(lisa: &mut Lisa, net: Net, steps: std::ops::Range<usize>) -> Net {
    train_at(lisa, net, steps, 1e-3)
}

fn config(kind: FrozenWeights) -> LisaConfig {
    LisaConfig::new()
        .with_sampling_period(3)
        .with_frozen_weights(kind)
}

fn weights(net: &Net) -> Vec<TensorData> {
    let weight = |linear: &Linear| linear.weight.val().into_data();
    let all = [&net.embed, &net.head].into_iter().chain(&net.layers);
    all.map(weight).collect()
}

fn quantized(net: &Net) -> Vec<bool> {
    let is = |linear: &Linear| !linear.weight.val().dtype().is_float();
    net.layers.iter().map(is).collect()
}

#[test]
fn frozen_layers_are_quantized_and_nothing_exact_is_lost() {
    let device = device();
    for kind in [FrozenWeights::Int8, FrozenWeights::Int4] {
        let original = weights(&wide(&device));
        let (mut lisa, mut net) = config(kind).init(adamw(), wide(&device)).unwrap();
        assert_eq!(weights(&lisa.exact(&net, &device)), original);
        let mut drawn = BTreeSet::new();
        for period in 0..2 {
            drawn.extend(lisa.active_layers().iter().copied());
            let frozen: Vec<bool> = (0..LAYERS)
                .map(|layer| !lisa.active_layers().contains(&layer))
                .collect();
            assert_eq!(quantized(&net), frozen);
            let active = LAYERS - frozen.iter().filter(|f| **f).count();
            assert_eq!(
                lisa.memory().full_precision,
                ((LAYERS - active) * 32 * 32 * 4) as u64
            );
            net = train(&mut lisa, net, 3 * period..3 * period + 3);
        }
        let exact = weights(&lisa.exact(&net, &device));
        assert!(drawn.len() < LAYERS);
        for (i, (now, before)) in exact.iter().zip(&original).enumerate() {
            let trained = i < 2 || drawn.contains(&(i - 2));
            assert_eq!(now != before, trained, "weight {i}, {kind:?}");
        }
    }
}

#[test]
fn updates_below_the_rounding_of_a_quantized_weight_add_up() {
    let device = device();
    // Steps of 1e-6 on weights of 0.2: rounding would lose every one.
    let run = |kind| {
        let (mut lisa, net) = config(kind).init(adamw(), wide(&device)).unwrap();
        let net = train_at(&mut lisa, net, 0..30, 1e-6);
        weights(&lisa.exact(&net, &device))
    };
    let distance = |a: &TensorData, b: &TensorData| -> f64 {
        let pairs = a.iter::<f32>().zip(b.iter::<f32>());
        pairs.map(|(a, b)| f64::from((a - b).abs())).sum()
    };
    let start = weights(&wide(&device));
    let exact = run(FrozenWeights::Exact);
    for kind in [FrozenWeights::Int8, FrozenWeights::Int4] {
        for ((exact, found), start) in exact.iter().zip(&run(kind)).zip(&start) {
            let moved = distance(exact, start);
            assert!(distance(found, start) >= 0.3 * moved, "{kind:?}");
            // Int4's forward pass is too far off for the same way to be taken.
            let apart = distance(found, exact);
            assert!(
                kind == FrozenWeights::Int4 || apart <= 0.5 * moved,
                "{apart} of {moved}"
            );
        }
    }
}

#[test]
fn a_quantized_run_resumes_bit_for_bit() {
    let device = device();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.lisa");
    let config = config(FrozenWeights::Int8);
    let (mut lisa, net) = config.init(adamw(), wide(&device)).unwrap();
    let net = train(&mut lisa, net, 0..7);
    lisa.save(&path).unwrap();
    let saved = lisa.exact(&net, &device);
    let net = train(&mut lisa, net, 7..16);
    let expected = weights(&lisa.exact(&net, &device));

    let (mut lisa, _) = config.init(adamw(), wide(&device)).unwrap();
    let net = lisa.load(&path, saved).unwrap();
    let frozen = (LAYERS - 2) as u64;
    assert_eq!(lisa.memory().full_precision, frozen * 32 * 32 * 4);
    let net = train(&mut lisa, net, 7..16);
    assert_eq!(weights(&lisa.exact(&net, &device)), expected);
}

#[test]
fn a_record_loads_into_a_model_whose_frozen_layers_are_quantized() {
    let device = device();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.lisa");
    let config = config(FrozenWeights::Int8).with_on_freeze(OnFreeze::Offload);
    let (mut lisa, net) = config.init(adamw(), wide(&device)).unwrap();
    let net = train(&mut lisa, net, 0..13);
    lisa.save(&path).unwrap();
    let saved = lisa.exact(&net, &device);
    let net = train(&mut lisa, net, 13..22);
    let expected = weights(&lisa.exact(&net, &device));
    let memory = lisa.memory();

    // A layer with state that the first period does not train: the fresh model has it quantized.
    // The order that Burn users know: weights, optimizer, optimizer state.
    let (mut lisa, net) = config.init(adamw(), reloaded(&saved, wide)).unwrap();
    let net = lisa.load(&path, net).unwrap();
    assert!(lisa.memory().offloaded > 0);
    let net = train(&mut lisa, net, 13..22);
    assert_eq!(weights(&lisa.exact(&net, &device)), expected);
    assert_eq!(lisa.memory(), memory);
}

#[test]
fn quantized_weights_of_another_run_are_refused() {
    let device = device();
    let dir = tempfile::tempdir().unwrap();
    let (weights_file, record) = (dir.path().join("model.bpk"), dir.path().join("run.lisa"));
    // The layers of the second period are trained, and quantized in the third.
    let policy = Fixed(&[&[0, 1], &[2, 3]]);
    let config = config(FrozenWeights::Int8).with_policy(PolicyConfig::custom(policy));
    let start = || config.init(adamw(), wide(&device)).unwrap();
    let (mut lisa, net) = start();
    let net = train(&mut lisa, net, 0..7);
    lisa.save(&record).unwrap();
    let expected = weights(&lisa.exact(&net, &device));

    // Burn writes what is on the device.
    net.clone().save_file(&weights_file).unwrap();
    let (mut again, fresh) = start();
    let loaded = fresh.load_file(&weights_file);
    let error = again.load(&record, loaded.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Layers);
    let text = error.to_string();
    assert!(
        text.contains("4 parameters of the model are quantized"),
        "{text}"
    );
    assert!(text.contains("Lisa::save_weights"), "{text}");
    assert_eq!(again.steps(), 0);
    let grads = loaded.grads(0);
    let error = again.try_step(1e-3, loaded, grads).unwrap_err();
    assert!(error.to_string().contains("are quantized"), "{error}");

    lisa.save_weights(&net, &weights_file).unwrap();
    let (mut again, fresh) = start();
    let loaded = again.load(&record, fresh.load_file(&weights_file)).unwrap();
    assert_eq!(weights(&again.exact(&loaded, &device)), expected);
}

#[test]
fn an_earlier_model_whose_weights_are_not_kept_any_more_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let policy = Fixed(&[&[0], &[1]]);
    let config = config(FrozenWeights::Int8).with_policy(PolicyConfig::custom(policy));
    let (mut lisa, start) = config.init(adamw(), wide(&device())).unwrap();
    let (first, earlier) = (lisa.clone(), start.clone());
    let expected = weights(&lisa.exact(&start, &device()));
    let _ = train(&mut lisa, start, 0..3);
    // Layer 1 is active now, and quantized in the earlier model.
    let error = lisa
        .save_weights(&earlier, dir.path().join("w"))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Layers);
    assert!(
        error.message().contains("first `layers.1.weight`"),
        "{error}"
    );
    assert_eq!(weights(&first.exact(&earlier, &device())), expected);
}

#[test]
#[should_panic(expected = "first `layers.1.weight`")]
fn an_earlier_model_whose_weights_are_not_kept_any_more_panics() {
    let policy = Fixed(&[&[0], &[1]]);
    let config = config(FrozenWeights::Int8).with_policy(PolicyConfig::custom(policy));
    let (mut lisa, earlier) = config.init(adamw(), wide(&device())).unwrap();
    let _ = train(&mut lisa, earlier.clone(), 0..3);
    let _ = lisa.exact(&earlier, &device());
}

/// The file of quantized layers is that of Burn, with and without a mapper.
#[test]
fn weights_of_any_layout_are_saved_as_burn_saves_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).with_extension("bpk");
    for layout in [LinearLayout::Row, LinearLayout::Col] {
        let mut net = wide(&device());
        let linear = LinearConfig::new(32, 32).with_layout(layout);
        net.layers = (0..LAYERS).map(|_| linear.init(&device())).collect();
        let (lisa, net) = config(FrozenWeights::Int8).init(adamw(), net).unwrap();
        assert_eq!(quantized(&net).iter().filter(|q| **q).count(), LAYERS - 2);
        lisa.save_weights(&net, file("streamed")).unwrap();
        let exact = lisa.exact(&net, &device());
        exact.save_file(file("copied")).unwrap();
        let [copied, streamed] = ["copied", "streamed"].map(|name| std::fs::read(file(name)));
        assert_eq!(streamed.unwrap(), copied.unwrap(), "{layout:?}");
    }
}

#[test]
fn weights_that_the_caller_has_quantized_are_saved_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).with_extension("bpk");
    for kind in [FrozenWeights::Exact, FrozenWeights::Int8] {
        let mut net = wide(&device());
        let scheme = FrozenWeights::Int8.scheme(&[32, 32]).unwrap();
        let tensor = net.layers[0]
            .weight
            .val()
            .detach()
            .quantize_dynamic(&scheme);
        net.layers[0].weight = Param::initialized(net.layers[0].weight.id, tensor);
        let (lisa, net) = config(kind).init(adamw(), net).unwrap();
        lisa.save_weights(&net, file("streamed")).unwrap();
        let exact = lisa.exact(&net, &device());
        assert!(quantized(&exact)[0], "{kind:?}");
        exact.save_file(file("copied")).unwrap();
        let [copied, streamed] = ["copied", "streamed"].map(|name| std::fs::read(file(name)));
        assert_eq!(streamed.unwrap(), copied.unwrap(), "{kind:?}");
    }
}

#[test]
fn a_model_moves_to_its_device_on_the_way() {
    let device = device();
    let start = wide(&device);
    let expected = weights(&start);
    let (mut lisa, net) = config(FrozenWeights::Int8)
        .init_on(adamw(), start, &device)
        .unwrap();
    assert_eq!(quantized(&net).iter().filter(|q| **q).count(), LAYERS - 2);
    assert_eq!(weights(&lisa.exact(&net, &Device::flex())), expected);
    let net = train(&mut lisa, net, 0..4);
    assert_ne!(weights(&lisa.exact(&net, &device)), expected);
    let refused = config(FrozenWeights::Exact).init_on(adamw(), wide(&device), &Device::flex());
    let error = refused.unwrap_err();
    assert!(error.to_string().contains("has no gradients"), "{error}");
}

#[test]
fn weights_are_saved_and_taken_in_full_precision() {
    let device = device();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).with_extension("bpk");
    for kind in [
        FrozenWeights::Exact,
        FrozenWeights::Int8,
        FrozenWeights::Int4,
    ] {
        let (mut lisa, net) = config(kind).init(adamw(), wide(&device)).unwrap();
        let net = train(&mut lisa, net, 0..4);
        let exact = lisa.exact(&net, &device);
        let expected = weights(&exact);
        exact.save_file(file("copied")).unwrap();
        lisa.save_weights(&net, file("streamed")).unwrap();
        // Burn writes the same file.
        let [copied, streamed] = ["copied", "streamed"].map(|name| std::fs::read(file(name)));
        assert_eq!(streamed.unwrap(), copied.unwrap(), "{kind:?}");
        let loaded = wide(&device).load_file(file("streamed"));
        assert_eq!(weights(&loaded), expected, "{kind:?}");

        let taken = lisa.take_exact(net, &Device::flex());
        assert_eq!(weights(&taken), expected, "{kind:?}");
        assert_eq!(lisa.memory().full_precision, 0);
    }
    let (lisa, net) = config(FrozenWeights::Exact)
        .init(adamw(), wide(&device))
        .unwrap();
    let nowhere = dir.path().join("absent/weights.bpk");
    let error = lisa.save_weights(&net, &nowhere).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.message().contains("absent/weights.bpk"), "{error}");
}

#[test]
fn a_model_with_layers_that_a_run_has_quantized_begins_no_other_run() {
    let device = device();
    let config = config(FrozenWeights::Int8);
    let (mut lisa, net) = config.init(adamw(), wide(&device)).unwrap();
    let error = lisa.unfreeze(net.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Layers);
    let found = format!("has quantized {} parameters", LAYERS - 2);
    assert!(error.message().contains(&found), "{error}");
    assert!(error.help().unwrap().contains("Lisa::take_exact"));
    let net = lisa.take_exact(net, &device);
    let net = lisa.unfreeze(net).unwrap();
    let (again, net) = config.init(adamw(), net).unwrap();
    assert_eq!(
        weights(&again.exact(&net, &device)),
        weights(&wide(&device))
    );
}

#[test]
fn a_record_of_another_step_needs_the_full_precision_weights_of_that_step() {
    let device = device();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.lisa");
    let policy = Fixed(&[&[0], &[1], &[0]]);
    let config = config(FrozenWeights::Int8).with_policy(PolicyConfig::custom(policy));
    let (mut lisa, net) = config.init(adamw(), wide(&device)).unwrap();
    let net = train(&mut lisa, net, 0..2);
    lisa.save(&path).unwrap();
    let expected = weights(&lisa.exact(&net, &device));
    let (then, earlier) = (lisa.clone(), net.clone());

    // The weights of layer 1 that the run keeps are trained since.
    let now = train(&mut lisa, net, 2..7);
    assert_eq!(lisa.active_layers(), [0]);
    let error = lisa.load(&path, earlier.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Layers);
    let text = error.to_string();
    assert!(
        text.contains("this run has quantized 5 parameters"),
        "{text}"
    );
    assert!(text.contains("those of its step 7"), "{text}");
    assert_eq!(lisa.steps(), 7);
    // Of the dequantized weights, those of layer 1 are not from weights that the run still keeps.
    let error = lisa.load(&path, earlier.clone().fork(&device)).unwrap_err();
    assert!(
        error.message().contains("has quantized 4 parameters"),
        "{error}"
    );

    let mut back = lisa.clone();
    let loaded = back.load(&path, then.exact(&earlier, &device)).unwrap();
    assert_eq!(weights(&back.exact(&loaded, &device)), expected);
    // With the record of its own step, the run has the weights.
    let expected = weights(&lisa.exact(&now, &device));
    lisa.save(&path).unwrap();
    let now = lisa.load(&path, now).unwrap();
    assert_eq!(weights(&lisa.exact(&now, &device)), expected);
}

#[test]
fn layers_that_burn_has_dequantized_keep_their_full_precision_weights() {
    let device = device();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("weights.bpk");
    let original = weights(&wide(&device));
    for kind in [FrozenWeights::Int8, FrozenWeights::Int4] {
        let (mut lisa, net) = config(kind).init(adamw(), wide(&device)).unwrap();
        let memory = lisa.memory();
        let start = weights(&net);
        let net = net.fork(&device);
        assert_eq!(quantized(&net), [false; LAYERS]);
        assert_ne!(weights(&net), original);
        assert_eq!(weights(&lisa.exact(&net, &device)), original, "{kind:?}");
        lisa.save_weights(&net, &file).unwrap();
        let saved = wide(&device).load_file(&file);
        assert_eq!(weights(&saved), original, "{kind:?}");
        let error = lisa.unfreeze(net.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Layers);
        let found = format!("has quantized {} parameters", LAYERS - 2);
        assert!(error.message().contains(&found), "{error}");

        // At the end of the period, they are quantized again, to the same values.
        let mut again = lisa.clone();
        let trained = train_at(&mut again, net.clone(), 0..3, 0.0);
        assert_eq!(again.memory().full_precision, memory.full_precision);
        for layer in 0..LAYERS {
            if quantized(&trained)[layer] && !lisa.active_layers().contains(&layer) {
                assert_eq!(weights(&trained)[2 + layer], start[2 + layer], "{kind:?}");
            }
        }
        assert_eq!(weights(&again.exact(&trained, &device)), original);

        let net = net.valid().fork(&Device::flex()).train();
        assert_eq!(weights(&lisa.take_exact(net, &device)), original);
        assert_eq!(lisa.memory().full_precision, 0);
    }
}

#[test]
fn layers_of_half_precision_that_burn_has_dequantized_keep_their_weights() {
    struct Narrow;
    impl ModuleMapper for Narrow {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.cast(FloatDType::BF16).detach())
        }
    }
    let device = device();
    let original = weights(&half(wide(&device)));
    let (lisa, net) = config(FrozenWeights::Int8)
        .init(adamw(), half(wide(&device)))
        .unwrap();
    // Burn dequantizes to f32.
    let net = net.fork(&device);
    assert_eq!(weights(&lisa.exact(&net, &device)), original);
    let net = net.map(&mut Narrow);
    assert_ne!(weights(&net), original);
    assert_eq!(weights(&lisa.exact(&net, &device)), original);
}

#[test]
fn weights_that_are_loaded_during_a_run_replace_those_that_it_keeps() {
    let device = device();
    let (mut lisa, net) = config(FrozenWeights::Int8)
        .init(adamw(), wide(&device))
        .unwrap();
    let frozen = (0..LAYERS).find(|layer| !lisa.active_layers().contains(layer));
    let frozen = frozen.unwrap();
    // Dequantized weights of which one differs are others.
    let mut net = net.fork(&device);
    let changed = |weight: Tensor<2>| weight.slice_fill([0..1, 0..1], 0.5).detach();
    net.layers[frozen].weight = net.layers[frozen].weight.clone().map(changed);
    let mut expected = weights(&wide(&device));
    expected[2 + frozen] = net.layers[frozen].weight.val().into_data();
    assert_eq!(weights(&lisa.exact(&net, &device)), expected);
    let net = train_at(&mut lisa, net, 0..3, 0.0);
    assert_eq!(weights(&lisa.exact(&net, &device)), expected);
    assert_eq!(weights(&lisa.take_exact(net, &device)), expected);
}

#[test]
fn a_model_takes_the_autodiff_setting_of_the_device_that_it_moves_to() {
    let setting = |net: &Net| -> Vec<_> {
        let all = [&net.embed, &net.head].into_iter().chain(&net.layers);
        let devices = all.map(|linear| linear.weight.val().device());
        devices
            .map(|device| device.gradient_checkpointing_strategy())
            .collect()
    };
    let trains = |net: &Net| -> Vec<bool> {
        let layers = net.layers.iter();
        layers.map(|layer| layer.weight.is_require_grad()).collect()
    };
    let host = device();
    let target = device().gradient_checkpointing();
    let expected = weights(&wide(&host));
    for kind in [FrozenWeights::Exact, FrozenWeights::Int8] {
        let (mut lisa, net) = config(kind).init_on(adamw(), wide(&host), &target).unwrap();
        let on = |device: &Device| vec![device.gradient_checkpointing_strategy(); 2 + LAYERS];
        assert_eq!(setting(&net), on(&target), "{kind:?}");
        for to in [&Device::flex(), &host, &target] {
            let copy = lisa.exact(&net, to);
            assert_eq!(setting(&copy), on(to), "{kind:?}");
            assert_eq!(weights(&copy), expected, "{kind:?}");
            if to.is_autodiff() {
                assert_eq!(trains(&copy), trains(&net), "{kind:?}");
                let _ = copy.grads(0);
            }
        }
        assert_eq!(setting(&net), on(&target), "{kind:?}");
        let net = train_at(&mut lisa, net, 0..4, 0.0);
        assert_eq!(setting(&net), on(&target), "{kind:?}");
        let taken = lisa.take_exact(net, &Device::flex());
        assert_eq!(setting(&taken), on(&Device::flex()), "{kind:?}");
        assert_eq!(weights(&taken), expected, "{kind:?}");
    }
}

#[derive(Module, Debug)]
struct Normed {
    norm: BatchNorm,
    layers: Vec<Linear>,
}

#[test]
fn a_copy_with_another_autodiff_setting_leaves_the_running_statistics_of_the_model() {
    let device = device();
    let linear = |_| LinearConfig::new(4, 4).init(&device);
    let model = Normed {
        norm: BatchNormConfig::new(4).init(&device),
        layers: (0..4).map(linear).collect(),
    };
    let (lisa, model) = LisaConfig::new().init(adamw(), model).unwrap();
    let setting = |model: &Normed| {
        let device = model.norm.running_mean.value().device();
        device.gradient_checkpointing_strategy()
    };
    let before = setting(&model);
    for to in [Device::flex(), device.clone().gradient_checkpointing()] {
        let copy = lisa.exact(&model, &to);
        assert_eq!(setting(&copy), to.gradient_checkpointing_strategy());
        assert_eq!(setting(&model), before);
    }
}
