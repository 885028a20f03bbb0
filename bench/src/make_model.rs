//! Makes the bundled base model and the instruction set, from nothing but a seed.
//!
//! ```text
//! cargo run --release -p bench -- make-model
//! ```
//!
//! Generates the corpus, trains a tokenizer on it, pretrains a small Llama, and writes a folder
//! that transformers opens, and the data beside it. `--data-only` writes the data alone.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::corpus::{Instruction, instructions, pretraining_text};
use anyhow::{Context, Result, anyhow};
use burn::module::{Module, ModuleMapper, Param};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, FloatDType, Tensor};
use lisa::LisaConfig;
use lisa_lm::{
    BatchOptions, Batches, Encoded, Input, LlamaConfig, ModelConfig, SaveOptions, Tokenizer, save,
};
use tokenizers::AddedToken;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};

/// Ends a document and an answer.
const END: &str = "<|endoftext|>";

/// Layers of the model.
const LAYERS: usize = 8;

/// Positions that the model is said to have; pretraining reads shorter rows to take more steps.
const CONTEXT: usize = 256;

/// Width of the model.
const WIDTH: usize = 128;

/// How the base model's chats are written down.
const TEMPLATE: &str = "{% for message in messages %}\
{% if message['role'] == 'user' %}{{ '<|user|> ' + message['content'] + '\\n' }}\
{% elif message['role'] == 'assistant' %}\
{{ '<|assistant|> ' + message['content'] + eos_token }}\
{% else %}{{ message['content'] + '\\n' }}{% endif %}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

/// What the model is made of.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// Where the model goes.
    #[arg(long = "model-dir", id = "model_dir", value_name = "DIR", default_value_os_t = bundled().join("base"))]
    out: PathBuf,
    /// Where the instruction set goes.
    #[arg(long = "data-dir", id = "data_dir", value_name = "DIR", default_value_os_t = bundled().join("data"))]
    data: PathBuf,
    /// Write the instruction set and stop.
    #[arg(long)]
    data_only: bool,
    /// What everything is drawn from.
    #[arg(long = "model-seed", id = "model_seed", default_value_t = 1)]
    seed: u64,
    /// Optimizer steps of pretraining.
    #[arg(long = "model-steps", id = "model_steps", default_value_t = 2000)]
    steps: usize,
    /// Rows in a batch.
    #[arg(long = "rows", id = "rows", default_value_t = 8)]
    batch: usize,
    /// Tokens in a row.
    #[arg(long, default_value_t = 128)]
    context: usize,
    /// The highest learning rate, after 5 % of the steps; it falls to a tenth along a cosine.
    #[arg(long = "model-lr", id = "model_lr", default_value_t = 3e-3)]
    lr: f64,
    /// Tokens in the vocabulary, at most.
    #[arg(long, default_value_t = 1024)]
    vocabulary: usize,
}

/// The program's folder, in which the bundled model and data are.
pub(crate) fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/lisa-cli")
}

/// Makes the data, and the model.
pub(crate) fn run(arguments: &Options) -> Result<()> {
    let (train, held_out) = instructions(arguments.seed, 1200, 150);
    fs::create_dir_all(&arguments.data)?;
    write_jsonl(&arguments.data.join("train.jsonl"), &train)?;
    write_jsonl(&arguments.data.join("heldout.jsonl"), &held_out)?;
    println!(
        "{} instructions to train on and {} held out in {}",
        train.len(),
        held_out.len(),
        arguments.data.display()
    );
    if arguments.data_only {
        return Ok(());
    }

    // Three paragraphs make a document. More text than the steps read, so none is seen twice.
    let tokens_needed = arguments.steps * arguments.batch * arguments.context;
    let paragraphs = pretraining_text(arguments.seed, (tokens_needed / 24).max(3000));
    let documents: Vec<String> = paragraphs
        .chunks(3)
        .map(|three| three.join("\n\n"))
        .collect();
    fs::create_dir_all(&arguments.out)?;
    let tokenizer = make_tokenizer(&documents, &train, arguments)?;
    println!("a vocabulary of {} tokens", tokenizer.vocab_size());

    let rows = rows(&documents, &tokenizer, arguments.context)?;
    println!(
        "{} documents, {} rows of {} tokens",
        documents.len(),
        rows.len(),
        arguments.context
    );
    pretrain(rows, &tokenizer, arguments)
}

/// Trains a small Llama on the rows and saves it in half precision, which keeps it under 4 MB.
fn pretrain(rows: Vec<Encoded>, tokenizer: &Tokenizer, arguments: &Options) -> Result<()> {
    let device = Device::default().autodiff();
    device.seed(arguments.seed);
    let mut config = LlamaConfig::new(tokenizer.vocab_size(), WIDTH, LAYERS, 4);
    config.num_key_value_heads = 2;
    config.intermediate_size = 320;
    config.max_position_embeddings = CONTEXT;
    config.tie_word_embeddings = true;
    config.initializer_range = 0.06;
    config.common.eos_token_ids = tokenizer.eos_ids().to_vec();
    config.common.pad_token_id = Some(tokenizer.pad_id());
    let net = ModelConfig::Llama(config).init(&device)?;
    println!("{} parameters", net.num_parameters());

    // LISA with every layer active is plain AdamW, with the norm of all gradients clipped.
    let (mut optimizer, mut net) = LisaConfig::new()
        .with_active_layers(LAYERS)
        .with_max_grad_norm(Some(1.0))
        .init(
            AdamWConfig::new()
                .with_beta_2(0.95)
                .with_epsilon(1e-8)
                .with_weight_decay(0.05),
            net,
        )?;
    let options = BatchOptions {
        batch_size: arguments.batch,
        pack_to: None,
        shuffle: true,
        seed: arguments.seed,
        pad_id: tokenizer.pad_id(),
    };
    let batches = Batches::new(rows, options)?;
    let (start, mut recent) = (Instant::now(), 0.0);
    for (step, batch) in batches.take(arguments.steps).enumerate() {
        let tensors = batch.to_tensors(&device);
        let loss = net.next_token_loss(&Input::new(tensors.tokens), tensors.targets);
        recent += loss.clone().into_scalar::<f64>();
        let grads = GradientsParams::from_grads(loss.backward(), &net);
        net = optimizer.step(learning_rate(step, arguments), net, grads);
        if (step + 1) % 50 == 0 {
            println!(
                "step {:5}  loss {:.4}  {:.0} s",
                step + 1,
                recent / 50.0,
                start.elapsed().as_secs_f64()
            );
            recent = 0.0;
        }
    }
    save(
        &net.map(&mut ToHalf),
        &arguments.out,
        &SaveOptions::default(),
    )?;
    let generation = serde_json::json!({
        "do_sample": false,
        "eos_token_id": tokenizer.eos_id(),
        "pad_token_id": tokenizer.pad_id(),
    });
    let path = arguments.out.join("generation_config.json");
    fs::write(path, serde_json::to_string_pretty(&generation)? + "\n")?;
    println!("written to {}", arguments.out.display());
    Ok(())
}

/// Rounds every parameter to bf16.
struct ToHalf;

impl ModuleMapper for ToHalf {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        parameter.map(|tensor| tensor.cast(FloatDType::BF16))
    }
}

/// Rises along a line over the first 5 % of the steps, then falls to a tenth along a cosine.
fn learning_rate(step: usize, arguments: &Options) -> f64 {
    let warm_up = (arguments.steps / 20).max(1);
    if step < warm_up {
        return arguments.lr * (step + 1) as f64 / warm_up as f64;
    }
    let done = (step - warm_up) as f64 / (arguments.steps - warm_up).max(1) as f64;
    arguments.lr * (0.55 + 0.45 * (std::f64::consts::PI * done).cos())
}

fn write_jsonl(path: &Path, lines: &[Instruction]) -> Result<()> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line)?;
        text.write_all(b"\n")?;
    }
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// Trains a byte-level BPE on the documents and the instructions' words, and writes its two files.
fn make_tokenizer(
    documents: &[String],
    train: &[Instruction],
    arguments: &Options,
) -> Result<Tokenizer> {
    let special: Vec<AddedToken> = [END, "<|user|>", "<|assistant|>"]
        .map(|token| AddedToken::from(token, true))
        .into();
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    tokenizer
        .with_pre_tokenizer(Some(ByteLevel::new(false, true, true)))
        .with_decoder(Some(ByteLevel::default()));
    let mut trainer = TrainerWrapper::from(
        BpeTrainer::builder()
            .vocab_size(arguments.vocabulary)
            .min_frequency(2)
            .show_progress(false)
            .special_tokens(special)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build(),
    );
    let asked = train
        .iter()
        .flat_map(|i| [&i.instruction, &i.input, &i.output]);
    let texts = documents.iter().chain(asked).map(String::as_str);
    tokenizer
        .train(&mut trainer, texts)
        .map_err(|e| anyhow!("training the tokenizer: {e}"))?;
    tokenizer
        .save(arguments.out.join("tokenizer.json"), false)
        .map_err(|e| anyhow!("saving the tokenizer: {e}"))?;
    let config = serde_json::json!({
        "add_prefix_space": false,
        "bos_token": null,
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "eos_token": END,
        "model_max_length": CONTEXT,
        "pad_token": END,
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    let path = arguments.out.join("tokenizer_config.json");
    fs::write(path, serde_json::to_string_pretty(&config)? + "\n")?;
    Ok(Tokenizer::from_dir(&arguments.out)?)
}

/// The documents one after the other, an end behind each, cut into rows.
fn rows(documents: &[String], tokenizer: &Tokenizer, context: usize) -> Result<Vec<Encoded>> {
    let end = tokenizer.eos_id().context("the tokenizer has no end")?;
    let mut stream = Vec::new();
    for document in documents {
        stream.extend(tokenizer.encode(document)?);
        stream.push(end);
    }
    Ok(stream
        .chunks_exact(context)
        .map(|row| Encoded::all_trained(row.to_vec()))
        .collect())
}
