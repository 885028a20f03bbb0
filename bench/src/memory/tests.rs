//! What the counting allocator finds: in a loss, and in whole runs of the program.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use burn::module::{Module, Param, ParamId};
use burn::nn::Linear;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{DType, FloatDType, Int, Tensor};
use lisa::LisaConfig;
use lisa::recompute::Recompute;
use lisa_cli::bundled;
use lisa_cli::commands::Program;
use lisa_lm::checkpoint::{SaveOptions, save};
use lisa_lm::model::config::LlamaConfig;
use lisa_lm::model::{BatchTensors, Input, LoraConfig};
use lisa_lm::{CausalLm, Checkpoint, ModelConfig, linear_cross_entropy};

use super::*;

/// The most bytes that are in use during a call, without those in use before it. The allocator
/// counts the whole process, so a test that asks for this runs [`alone`].
fn during(run: impl FnOnce()) -> usize {
    let before = HEAP.current_usage();
    reset_heap();
    run();
    HEAP.peak_usage().saturating_sub(before)
}

/// Runs a test again in a process of its own, by its path. Returns whether this is that process.
pub(crate) fn alone(test: &str) -> bool {
    const ALONE: &str = "BENCH_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && printed.contains("1 passed");
    assert!(passed, "{printed}");
    false
}

fn tokens<const D: usize>(shape: [usize; D], vocab: usize, device: &Device) -> Tensor<D, Int> {
    let count: usize = shape.iter().product();
    let tokens = Tensor::<1, Int>::arange(0..count as i64, device);
    tokens
        .mul_scalar(7)
        .remainder_scalar(vocab as i64)
        .reshape(shape)
}

/// In bf16 the head is made of Burn's operations, as on a GPU.
#[test]
fn the_logits_of_all_rows_never_exist() {
    if !alone("memory::tests::the_logits_of_all_rows_never_exist") {
        return;
    }
    let device = Device::flex().autodiff();
    let (rows, width, vocab) = (2048, 8, 65536);
    for (dtype, share) in [
        (FloatDType::F32, 4),
        (FloatDType::BF16, 2),
        (FloatDType::F16, 2),
    ] {
        let of = |shape| {
            let ones = Tensor::<2>::ones(shape, &device).cast(dtype);
            ones.detach().require_grad()
        };
        let (hidden, weight) = (of([rows, width]), of([width, vocab]));
        let targets = tokens([rows], vocab, &device);
        let peak = during(|| {
            let loss = linear_cross_entropy(hidden.clone(), weight.clone(), targets);
            let grads = loss.backward();
            assert!(hidden.grad(&grads).is_some() && weight.grad(&grads).is_some());
        });
        // In f32, in which the softmax is in every dtype.
        let logits = rows * vocab * 4;
        assert!(peak < logits / share, "{dtype:?}: {peak} of {logits}");
    }
}

/// The most bytes in use during forward and backward pass of a row of 2048 tokens.
fn of_a_row(model: &CausalLm, device: &Device) -> usize {
    let row = tokens([1, ROW], 64, device);
    during(|| {
        let loss = model.next_token_loss(&Input::new(row.clone()), row);
        let _ = loss.backward();
    })
}

const ROW: usize = 2048;

#[test]
fn the_logits_of_a_model_never_exist() {
    if !alone("memory::tests::the_logits_of_a_model_never_exist") {
        return;
    }
    let vocab = 65536;
    for dtype in [FloatDType::F32, FloatDType::BF16, FloatDType::F16] {
        let batch = |device: &Device| BatchTensors {
            input: Input::new(tokens([1, ROW], vocab, device)),
            targets: tokens([1, ROW], vocab, device),
            weights: None,
        };
        let device = Device::flex().autodiff();
        let config = ModelConfig::Llama(LlamaConfig::new(vocab, 8, 1, 1));
        let model = config.init(&device).unwrap().cast(dtype);
        let evaluated = model.valid();
        let losses: [(&str, &dyn Fn()); 3] = [
            ("plain", &|| {
                let _ = model.batch_loss(batch(&device)).backward();
            }),
            ("recomputed", &|| {
                let pass = Recompute::new().forward(&model, &batch(&device));
                let _ = pass.backward(&model);
            }),
            ("evaluated", &|| {
                let _ = evaluated.batch_loss(batch(&Device::flex())).into_data();
            }),
        ];
        for (name, loss) in losses {
            let (peak, logits) = (during(loss), ROW * vocab * 4);
            assert!(peak < logits / 2, "{name}, {dtype:?}: {peak} of {logits}");
        }
    }
}

#[test]
fn the_logits_of_a_head_with_an_adapter_never_exist() {
    if !alone("memory::tests::the_logits_of_a_head_with_an_adapter_never_exist") {
        return;
    }
    let device = Device::flex().autodiff();
    let vocab = 65536;
    let config = ModelConfig::Llama(LlamaConfig::new(vocab, 8, 1, 1));
    let lora = LoraConfig::new(2).with_modules(["lm_head"]);
    let model = config.init(&device).unwrap().with_lora(&lora).unwrap();
    let (peak, logits) = (of_a_row(&model, &device), ROW * vocab * 4);
    assert!(peak < logits, "{peak} of {logits}");
}

/// In bf16 attention is made of Burn's operations, as on a GPU.
#[test]
fn a_square_of_scores_never_exists() {
    if !alone("memory::tests::a_square_of_scores_never_exists") {
        return;
    }
    let device = Device::flex().autodiff();
    for dtype in [FloatDType::F32, FloatDType::BF16] {
        let heads = 8;
        let config = ModelConfig::Llama(LlamaConfig::new(64, 4 * heads, 3, heads));
        let model = config.init(&device).unwrap();
        let model = model.cast(dtype);
        let (peak, scores) = (of_a_row(&model, &device), heads * ROW * ROW * 4);
        assert!(peak < scores, "{dtype:?}: {peak} of {scores}");
    }
}

const WIDTH: usize = 2048;

#[test]
fn clipping_and_the_search_for_bad_gradients_copy_no_gradient() {
    if !alone("memory::tests::clipping_and_the_search_for_bad_gradients_copy_no_gradient") {
        return;
    }
    let device = Device::flex().autodiff();
    for dtype in [DType::F32, DType::BF16] {
        let layer = || Linear {
            weight: Param::from_tensor(Tensor::ones([WIDTH, WIDTH], (&device, dtype))),
            bias: None,
        };
        let config = LisaConfig::new().with_max_grad_norm(Some(1e-3));
        // Without momentum there is no state, so the step itself needs no more than a slice.
        let optimizer = SgdConfig::new();
        let (mut lisa, model) = config.init(optimizer, vec![layer(), layer()]).unwrap();
        let ids: Vec<ParamId> = model.iter().map(|layer| layer.weight.id).collect();
        let gradients = || {
            let mut grads = GradientsParams::new();
            for id in &ids {
                let device = device.clone().inner();
                let ones = Tensor::<2>::ones([WIDTH, WIDTH], (&device, dtype));
                grads.register(*id, ones);
            }
            grads
        };
        let grads = gradients();
        let one = WIDTH * WIDTH * dtype.size();
        let peak = during(|| lisa.check_finite(&model, &grads).unwrap());
        assert!(peak < one / 8, "{dtype:?}: {peak} of {one}");
        // In bf16, the first step makes the f32 master weights.
        let mut model = Some(lisa.step(1e-3, model, grads));
        let grads = gradients();
        let peak = during(|| model = Some(lisa.step(1e-3, model.take().unwrap(), grads)));
        // In bf16, new weights are made from the master weights.
        let made = if dtype == DType::F32 { 0 } else { one };
        assert!(peak < made + one / 8, "{dtype:?}: {peak} of {one}");
    }
}

const VOCAB: usize = 200_000;
const OF_EMBEDDING: usize = VOCAB * 256;

/// A model of one layer whose embedding is nearly all of it, and a batch of eight tokens.
fn of_an_embedding(is_tied: bool) -> (CausalLm, BatchTensors) {
    let device = Device::flex().autodiff();
    let mut config = LlamaConfig::new(VOCAB, 256, 1, 2);
    config.tie_word_embeddings = is_tied;
    let model = ModelConfig::Llama(config).init(&device).unwrap();
    let batch = BatchTensors {
        input: Input::new(tokens([1, 8], VOCAB, &device)),
        targets: tokens([1, 8], VOCAB, &device),
        weights: None,
    };
    // Initializes the weights.
    let _ = model
        .valid()
        .next_token_loss(&batch.input, batch.targets.clone().inner());
    (model, batch)
}

/// In bf16 the loss is made of Burn's operations, as on a GPU, and keeps the gradients that it computes. Its
/// matmuls copy the weight on flex, so only the backward pass is measured.
#[test]
fn a_backward_pass_in_half_precision_makes_no_gradient_twice() {
    if !alone("memory::tests::a_backward_pass_in_half_precision_makes_no_gradient_twice") {
        return;
    }
    // A tied embedding adds to the gradient of the head; another one makes its own.
    for (is_tied, made) in [(true, 0), (false, OF_EMBEDDING * 2)] {
        let (model, batch) = of_an_embedding(is_tied);
        let half = model.cast(FloatDType::BF16);
        let loss = half.batch_loss(batch);
        let backward = during(|| {
            let grads = GradientsParams::from_grads(loss.backward(), &half);
            assert_eq!(grads.len(), if is_tied { 11 } else { 12 });
        });
        let most = made + OF_EMBEDDING / 4;
        assert!(backward < most, "{is_tied}: {backward} of {most}");
    }
}

#[test]
fn a_tied_embedding_has_one_gradient() {
    if !alone("memory::tests::a_tied_embedding_has_one_gradient") {
        return;
    }
    let (model, batch) = of_an_embedding(true);
    let plain = during(|| {
        let grads = model.batch_loss(batch.clone()).backward();
        assert_eq!(GradientsParams::from_grads(grads, &model).len(), 11);
    });
    let recomputed = during(|| {
        let pass = Recompute::new().forward(&model, &batch);
        assert_eq!(pass.backward(&model).len(), 11);
    });
    let one = OF_EMBEDDING * 4;
    for peak in [plain, recomputed] {
        assert!(peak > one && peak < one + one / 2, "{peak} of {one}");
    }
}

/// A folder with a model whose weights are in many layers, and the bundled tokenizer. Returns the bytes
/// of its weights.
fn deep_model(folder: &Path) -> usize {
    let base = Checkpoint::open(bundled::model().unwrap()).unwrap();
    let mut config = LlamaConfig::new(base.config().vocab_size(), 256, 16, 4);
    config.tie_word_embeddings = true;
    let device = Device::flex();
    device.seed(7);
    let model = ModelConfig::Llama(config).init(&device).unwrap();
    let tokenizer = ["tokenizer.json", "tokenizer_config.json"];
    let files = tokenizer.map(|name| (name.to_owned(), fs::read(base.dir().join(name)).unwrap()));
    let options = SaveOptions {
        files: &files,
        ..SaveOptions::default()
    };
    save(&model, folder, &options).unwrap();
    model.num_parameters() * 4
}

/// The peak of a command of the program, in units of the weights of a deep model. Training on `train.jsonl`
/// makes the loss of `held_out.jsonl` larger, so an earlier checkpoint is the best.
fn of_command(dir: &Path, line: &str) -> f64 {
    let (model, out) = (dir.join("base"), dir.join("run"));
    let bytes = deep_model(&model);
    let rows = |name: &str, answer: &str| {
        let row = format!("{{\"instruction\": \"Name it.\", \"output\": \"{answer}\"}}\n");
        let path = dir.join(name);
        fs::write(&path, row.repeat(8)).unwrap();
        path.to_string_lossy().into_owned()
    };
    let mut arguments = vec!["lisa".to_owned()];
    arguments.extend(line.split(' ').map(str::to_owned));
    let paths = [("--model", &model), ("--out", &out)];
    let paths = paths.map(|(flag, path)| (flag, path.to_string_lossy().into_owned()));
    let data = [
        (
            "--data",
            rows(
                "train.jsonl",
                "black black black black black black black black",
            ),
        ),
        (
            "--eval",
            rows(
                "held_out.jsonl",
                "white kite forest hat Tina Oscar colour red boat tree",
            ),
        ),
    ];
    for (flag, path) in paths.into_iter().chain(data) {
        arguments.extend([flag.to_owned(), path]);
    }
    let arguments = arguments.into_iter().map(OsString::from);
    let program = Program::parsed(arguments).unwrap();
    let peak = during(|| {
        program.run().unwrap();
    });
    peak as f64 / bytes as f64
}

/// A run of three steps, each of which is evaluated and saved.
const TRAIN: &str = "train --steps 3 --batch-size 1 --eval-every 1 --save-every 1 --eval-examples 2 \
                     --max-new-tokens 2 --recompute";

/// Whether the model of an earlier checkpoint is written as the best one.
fn has_best(dir: &Path) -> bool {
    let text = fs::read(dir.join("run/summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&text).unwrap();
    summary["best"]["step"].is_u64()
}

/// Runs a test in a process of its own: the peak of a run whose last checkpoint is not the best is below
/// `most` times the weights.
fn trains_within(test: &str, flags: &str, most: f64) {
    if !alone(test) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let peak = of_command(dir.path(), &format!("{TRAIN} {flags}"));
    assert!((1.0..most).contains(&peak), "{peak}");
    assert!(has_best(dir.path()));
}

/// The full-precision weights, their quantized copy, and one layer that trains, with its gradient, its
/// state, and their copies in a checkpoint.
#[test]
fn a_run_with_quantized_layers_has_its_weights_once_in_full_precision() {
    trains_within(
        "memory::tests::a_run_with_quantized_layers_has_its_weights_once_in_full_precision",
        "--lr 1 --active-layers 1 --period 5 --quantize int8 --freeze embed_tokens",
        1.8,
    );
}

#[test]
fn a_checkpoint_and_the_best_model_are_written_without_a_copy_of_the_weights() {
    trains_within(
        "memory::tests::a_checkpoint_and_the_best_model_are_written_without_a_copy_of_the_weights",
        "--lr 1 --active-layers 1 --period 5 --freeze embed_tokens",
        1.6,
    );
}

#[test]
fn adapters_are_merged_without_a_copy_of_the_weights() {
    trains_within(
        "memory::tests::adapters_are_merged_without_a_copy_of_the_weights",
        "--lr 0.02 --method lora --lora-rank 2",
        1.4,
    );
}

#[test]
fn adapters_are_written_alone_without_a_copy_of_the_weights() {
    trains_within(
        "memory::tests::adapters_are_written_alone_without_a_copy_of_the_weights",
        "--lr 0.02 --method lora --lora-rank 2 --no-merge",
        1.4,
    );
}

/// The base model, and the merged layers.
#[test]
fn importance_by_a_lora_update_merges_once_and_loads_one_model() {
    if !alone("memory::tests::importance_by_a_lora_update_merges_once_and_loads_one_model") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let line = "importance --by lora-update --steps 3 --batch-size 1 --lora-rank 2 --recompute";
    let peak = of_command(dir.path(), line);
    assert!((1.9..2.4).contains(&peak), "{peak}");
}
