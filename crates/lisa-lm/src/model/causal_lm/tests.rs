use burn::module::{ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::store::bridge::to_data;
use burn::store::{ModuleStore, SafetensorsStore};
use burn::tensor::{Bool, FloatDType, TensorData};
use serde_json::Value;

use super::*;
use crate::checkpoint::Checkpoint;
use crate::model::config::{Gpt2Config, LlamaConfig};
use crate::model::input::BatchTensors;
use crate::test_support::{MODELS, fixture};

mod gradients;

/// A tensor of a fixture's `reference.safetensors`.
fn reference(name: &str, tensor: &str) -> TensorData {
    let mut store = SafetensorsStore::from_file(fixture(name).join("reference.safetensors"));
    to_data(store.get_tensor(tensor).unwrap().unwrap()).unwrap()
}

fn reference_ints(name: &str, tensor: &str, device: &Device) -> Tensor<2, Int> {
    Tensor::from_data(reference(name, tensor), device)
}

fn load(name: &str, device: &Device) -> CausalLm {
    Checkpoint::open(fixture(name))
        .unwrap()
        .load(device, None)
        .unwrap()
}

fn numbers(name: &str) -> Value {
    let text = std::fs::read_to_string(fixture(name).join("fixture.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn largest_difference(a: &TensorData, b: &TensorData) -> f32 {
    assert_eq!(a.shape(), b.shape());
    a.iter::<f32>()
        .zip(b.iter::<f32>())
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

fn scalar(loss: &Tensor<1>) -> f64 {
    f64::from(loss.clone().into_scalar::<f32>())
}

/// With autodiff twice: with Burn's gradient checkpointing, operations are not fused (`ops.rs`), as on a
/// GPU.
fn with_autodiff() -> [Device; 2] {
    let device = Device::default().autodiff();
    [device.clone(), device.gradient_checkpointing()]
}

fn devices() -> [Device; 3] {
    let [fused, written_out] = with_autodiff();
    [Device::default(), fused, written_out]
}

#[test]
fn logits_are_those_of_transformers() {
    for name in MODELS {
        let expected = reference(name, "logits");
        for device in devices() {
            let tokens = reference_ints(name, "input_ids", &device);
            let logits = load(name, &device).forward(&Input::new(tokens)).into_data();
            let difference = largest_difference(&logits, &expected);
            assert!(difference < 1e-4, "{name}: {difference}");
        }
    }
}

#[test]
fn losses_are_those_of_transformers() {
    for name in MODELS {
        let expected = numbers(name)["loss_step0"].as_f64().unwrap();
        for device in devices() {
            let tokens = reference_ints(name, "input_ids", &device);
            let input = Input::new(tokens.clone());
            let loss = scalar(&load(name, &device).loss(&input, tokens));
            assert!((loss - expected).abs() < 1e-5, "{name}: {loss} {expected}");
        }
    }
}

#[test]
fn losses_of_padded_rows_are_those_of_transformers() {
    for name in ["llama", "gpt2"] {
        let expected = numbers(name)["masked"]["loss"].as_f64().unwrap();
        for device in devices() {
            let model = load(name, &device);
            let input = Input::new(reference_ints(name, "input_ids", &device));
            let padding: Tensor<2, Bool> =
                reference_ints(name, "attention_mask", &device).equal_scalar(0);
            let labels = reference_ints(name, "masked_labels", &device);
            let loss = scalar(&model.loss(&input.with_padding(padding), labels));
            assert!((loss - expected).abs() < 1e-5, "{name}: {loss} {expected}");
        }
    }
}

#[test]
fn shifted_targets_give_the_loss_of_their_labels() {
    let device = Device::default();
    let model = load("llama", &device);
    let input = Input::new(reference_ints("llama", "input_ids", &device));
    let labels = reference_ints("llama", "masked_labels", &device);
    let ends = Tensor::full([2, 1], IGNORED, &device);
    let targets = Tensor::cat(vec![labels.clone().slice([0..2, 1..32]), ends], 1);
    let difference = model.loss(&input, labels) - model.next_token_loss(&input, targets);
    assert!(scalar(&difference).abs() < 1e-6);
}

#[test]
fn packed_texts_have_the_logits_that_they_have_alone() {
    for name in MODELS {
        let device = Device::default();
        let model = load(name, &device);
        let all = reference_ints(name, "input_ids", &device).slice([0..1, 0..20]);
        let parts = [0..8, 8..20];
        let mut packed = Input::new(all.clone());
        let ints = |values: Vec<i64>| Tensor::<1, Int>::from_data(values.as_slice(), &device);
        packed.segments = Some(ints([vec![0; 8], vec![1; 12]].concat()).reshape([1, 20]));
        packed.positions = Some(ints((0..8).chain(0..12).collect()).reshape([1, 20]));
        let logits = model.forward(&packed);
        for part in parts {
            let alone = model.forward(&Input::new(all.clone().slice([0..1, part.clone()])));
            let vocab = alone.dims()[2];
            let found = logits.clone().slice([0..1, part, 0..vocab]);
            let difference = largest_difference(&found.into_data(), &alone.into_data());
            assert!(difference < 1e-4, "{name}: {difference}");
        }
    }
}

#[test]
fn padding_changes_nothing_for_what_is_not_padding() {
    let device = Device::default();
    let model = load("llama", &device);
    let tokens = reference_ints("llama", "input_ids", &device).slice([0..2, 0..10]);
    let short = model
        .forward(&Input::new(tokens.clone().slice([0..2, 0..7])))
        .into_data();
    let flags: Vec<bool> = (0..20).map(|place| place % 10 >= 7).collect();
    let padding = Tensor::<2, Bool>::from_data(TensorData::new(flags, [2, 10]), &device);
    let padded = model.forward(&Input::new(tokens.clone()).with_padding(padding));
    let padded = padded.slice([0..2, 0..7, 0..256]).into_data();
    assert!(largest_difference(&padded, &short) < 1e-5);

    // On the left too, where the first rows have nothing to attend to.
    let flags: Vec<bool> = (0..20).map(|place| place % 10 < 3).collect();
    let padding = Tensor::<2, Bool>::from_data(TensorData::new(flags, [2, 10]), &device);
    for device in devices() {
        let model = load("llama", &device);
        let on = |bits: &Tensor<2, Bool>| Tensor::<2, Bool>::from_data(bits.to_data(), &device);
        let tokens = Tensor::<2, Int>::from_data(tokens.to_data(), &device);
        let logits = model.forward(&Input::new(tokens).with_padding(on(&padding)));
        assert!(logits.into_data().iter::<f32>().all(f32::is_finite));
    }
}

#[test]
fn layers_one_by_one_are_the_forward_pass() {
    let device = Device::default();
    for name in MODELS {
        let model = load(name, &device);
        let input = Input::new(reference_ints(name, "input_ids", &device));
        let context = model.context(&input);
        let mut h = model.embed(&input, &context);
        for index in 0..model.num_layers() {
            h = model.layer(index, h, &context);
        }
        let logits = model.head(h).into_data();
        assert_eq!(logits, model.forward(&input).into_data(), "{name}");
    }
}

/// The first part is longer than the windows, and the second is one token, as in generation.
#[test]
fn tokens_read_in_parts_have_the_logits_of_one_pass() {
    let device = Device::default();
    for name in MODELS {
        let model = load(name, &device);
        let tokens = reference_ints(name, "input_ids", &device);
        let logits = model.forward(&Input::new(tokens.clone()));
        let mut cache = KvCache::new(model.num_layers());
        for part in [0..7, 7..8, 8..24] {
            let end = part.end;
            let last = model.read(tokens.clone().slice_dim(1, part), &mut cache);
            let expected = logits.clone().slice_dim(1, end - 1..end);
            let difference = largest_difference(&last.into_data(), &expected.into_data());
            assert!(difference < 1e-4, "{name}, up to {end}: {difference}");
        }
    }
}

#[test]
fn half_precision_trains_without_configuring_the_device() {
    use burn::optim::AdamWConfig;
    for (name, dtype) in [
        ("llama", FloatDType::BF16),
        ("gpt2", FloatDType::BF16),
        ("qwen3", FloatDType::BF16),
        ("llama", FloatDType::F16),
    ] {
        let device = Device::default().autodiff();
        let checkpoint = Checkpoint::open(fixture(name)).unwrap();
        let mut model = checkpoint.load(&device, Some(dtype)).unwrap();
        assert_eq!(model.dtype(), DType::from(dtype));
        let tokens = reference_ints(name, "input_ids", &device);
        let input = Input::new(tokens.clone());
        let exact = load(name, &device).loss(&input, tokens.clone());
        let first = scalar(&model.loss(&input, tokens.clone()));
        assert!(
            (first - scalar(&exact)).abs() < 0.05,
            "{name}: {first} {}",
            scalar(&exact)
        );
        let mut optimizer = AdamWConfig::new().init();
        for _ in 0..8 {
            let loss = model.loss(&input, tokens.clone());
            assert_eq!(loss.dtype(), DType::F32);
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(3e-3, model, gradients);
        }
        assert_eq!(model.dtype(), DType::from(dtype));
        let last = scalar(&model.loss(&input, tokens));
        assert!(last < first - 0.5, "{name}: {first} {last}");
    }
}

#[test]
fn labels_that_are_all_ignored_give_no_loss_and_no_gradient() {
    let device = Device::default().autodiff();
    let model = load("llama", &device);
    let tokens = reference_ints("llama", "input_ids", &device);
    let loss = model.loss(
        &Input::new(tokens.clone()),
        tokens.clone().full_like(IGNORED),
    );
    assert_eq!(scalar(&loss), 0.0);
    let one = tokens.slice([0..2, 0..1]);
    assert_eq!(scalar(&model.loss(&Input::new(one.clone()), one)), 0.0);
}

/// Asks every parameter whether it trains, and counts them.
struct Ready(usize);
impl ModuleVisitor for Ready {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        assert!(param.val().is_require_grad());
        self.0 += 1;
    }
}

#[test]
fn parameters_are_counted_and_ready_for_freezing() {
    let device = Device::default().autodiff();
    let model = load("llama", &device);
    let (embedding, layer) = (256 * 64, 64 * 64 * 2 + 32 * 64 * 2 + 3 * 64 * 128 + 2 * 64);
    assert_eq!(model.num_parameters(), 2 * embedding + 4 * layer + 64);
    // What transformers counts.
    for (name, count) in [
        ("mistral", 19_616),
        ("qwen2", 17_696),
        ("qwen3", 22_736),
        ("llama_tied", 18_016),
        ("qwen3_yarn", 25_824),
        ("ministral", 19_616),
        ("gpt2_scaled", 11_408),
    ] {
        assert_eq!(load(name, &device).num_parameters(), count);
    }

    let new = [
        ModelConfig::Llama(LlamaConfig::new(16, 8, 2, 2))
            .init(&device)
            .unwrap(),
        ModelConfig::Gpt2(Gpt2Config::new(16, 8, 2, 2))
            .init(&device)
            .unwrap(),
    ];
    for model in new.into_iter().chain([model]) {
        let mut ready = Ready(0);
        model.visit(&mut ready);
        assert!(ready.0 > 20);
    }
}

#[test]
fn models_move_between_threads() {
    fn check<T: Send + Sync + Clone>() {}
    check::<CausalLm>();
}

#[test]
#[should_panic(expected = "there is no token to read")]
fn reading_no_token_is_refused() {
    let device = Device::default();
    let model = load("llama", &device);
    let mut cache = KvCache::new(model.num_layers());
    let _ = model.read(Tensor::<2, Int>::empty([1, 0], &device), &mut cache);
}

#[test]
#[should_panic(expected = "another number of layers")]
fn a_cache_of_another_depth_is_refused() {
    let device = Device::default();
    let tokens = reference_ints("llama", "input_ids", &device);
    let _ = load("llama", &device).read(tokens, &mut KvCache::new(1));
}

/// A layer of a family that does not exist yet: the norms are where the description puts them.
#[test]
fn norms_are_before_and_after_as_described() {
    use crate::model::block::Block;
    use crate::model::cache::KvCache;
    use crate::model::spec::NormPlacement;
    let device = Device::default();
    let config = ModelConfig::Llama(LlamaConfig::new(32, 8, 1, 2));
    let model = config.init(&device).unwrap();
    let context = model.context(&Input::new(Tensor::from_data([[1, 2, 3]], &device)));
    let h = Tensor::<3>::from_data(
        TensorData::new((0..24).collect::<Vec<i32>>(), [1, 3, 8]),
        &device,
    );
    let h = h.cast(FloatDType::F32).sin();
    for placement in [
        NormPlacement::Before,
        NormPlacement::After,
        NormPlacement::Both,
    ] {
        let mut spec = config.spec();
        spec.block.placement = placement;
        let block = Block::new(&spec.block, spec.layers[0], 8, spec.init, &device).materialize();
        let norms = [
            &block.input_layernorm,
            &block.post_attention_layernorm,
            &block.attention_output_norm,
            &block.feed_forward_output_norm,
        ];
        let (before, after) = (placement.before(), placement.after());
        assert_eq!(norms.map(Option::is_some), [before, before, after, after]);
        // New norms have the scale 1.
        let norm = |wanted: bool, x: Tensor<3>| {
            if wanted {
                model.model.norm.forward(x)
            } else {
                x
            }
        };
        let attended = block
            .self_attn
            .forward(norm(before, h.clone()), &context, None);
        let middle = h.clone() + norm(after, attended);
        let inner = block.mlp.inner(norm(before, middle.clone()));
        let expected = middle + norm(after, block.mlp.down_proj.forward(inner));
        let mut cache = KvCache::new(1);
        let found = run(&block, h.clone(), &context, cache.layers_mut().next());
        assert_eq!(found.into_data(), expected.into_data(), "{placement:?}");
    }
}

/// Also with adapters at the head, whose logits are not one product.
#[test]
fn the_loss_of_a_batch_is_the_mean_by_its_weights() {
    use burn::module::{Lora, ParamGroup};
    use lisa::recompute::Recompute;
    let device = Device::default().autodiff();
    for (name, adapters) in [("llama", false), ("llama_tied", false), ("llama", true)] {
        let mut model = load(name, &device);
        if adapters {
            let head = ParamGroup::from_regex(r"lm_head.*weight$").unwrap();
            model = model.apply_lora(Lora::new(2, 4.0).set_param_group(head));
        }
        let tokens = reference_ints(name, "input_ids", &device);
        let [rows, width] = tokens.dims();
        let targets = tokens.clone().roll_dim(-1, 1);
        let mut weights = vec![0.0f32; rows * width];
        let single = |at: usize| {
            let flat = Tensor::<1, Int>::full([rows * width], -100, &device);
            let target = targets.clone().reshape([rows * width]).slice([at..=at]);
            let one = flat.slice_assign([at..=at], target).reshape([rows, width]);
            scalar(&model.next_token_loss(&Input::new(tokens.clone()), one))
        };
        let (mut sum, mut all) = (0.0, 0.0);
        for (at, weight) in [(0, 0.5f32), (3, 2.0), (rows * width - 1, 0.25)] {
            weights[at] = weight;
            sum += f64::from(weight) * single(at);
            all += f64::from(weight);
        }
        let weights = TensorData::new(weights, [rows, width]);
        let batch = BatchTensors {
            input: Input::new(tokens.clone()),
            targets: targets.clone(),
            weights: Some(Tensor::from_data(weights, &device)),
        };
        let expected = sum / all;
        for found in [
            scalar(&model.batch_loss(batch.clone())),
            scalar(&model.valid().batch_loss(batch.clone())),
            scalar(&Recompute::new().forward(&model, &batch).loss()),
        ] {
            assert!(
                (found - expected).abs() < 2e-6 * expected,
                "{name}: {found} {expected}"
            );
        }
    }
}
