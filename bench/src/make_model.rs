//! `bench make-model`: makes the bundled model and the instruction set from a seed.
//!
//! Generates the corpus, trains a tokenizer on it, pretrains a small Llama, and writes the instruction
//! set and a Hugging Face folder that transformers opens.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, FloatDType};
use clap::Args;
use lisa::LisaConfig;
use lisa_lm::checkpoint::SaveOptions;
use lisa_lm::model::Input;
use lisa_lm::model::config::LlamaConfig;
use lisa_lm::text::{BatchOptions, Batches, Encoded};
use lisa_lm::{ModelConfig, Tokenizer};
use tokenizers::AddedToken;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};

use crate::corpus::{Example, instructions, pretraining_text};
use crate::files::{self, bundled};

/// Ends a document and an answer.
const END: &str = "<|endoftext|>";

/// Layers of the model.
const LAYERS: usize = 8;

/// Positions of the model; pretraining reads shorter rows.
const CONTEXT: usize = 256;

/// Width of the model.
const WIDTH: usize = 128;

/// The chat template.
const TEMPLATE: &str = "{% for message in messages %}\
{% if message['role'] == 'user' %}{{ '<|user|> ' + message['content'] + '\\n' }}\
{% elif message['role'] == 'assistant' %}\
{{ '<|assistant|> ' + message['content'] + eos_token }}\
{% else %}{{ message['content'] + '\\n' }}{% endif %}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

/// Options of the model.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Folder of the model
    #[arg(long, value_name = "DIR", default_value_os_t = bundled("base"))]
    out: PathBuf,
    /// Folder of the instruction set
    #[arg(long, value_name = "DIR", default_value_os_t = bundled("data"))]
    data: PathBuf,
    /// Write the instruction set only
    #[arg(long)]
    data_only: bool,
    /// Seed of the corpus and the weights
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Optimizer steps of pretraining
    #[arg(long, default_value_t = 2000)]
    steps: usize,
    /// Rows in a batch
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Tokens in a row
    #[arg(long, default_value_t = 128)]
    context: usize,
    /// The highest learning rate, after 5 % of the steps; it falls to a tenth along a cosine
    #[arg(long, default_value_t = 3e-3)]
    lr: f64,
    /// The most tokens of the vocabulary
    #[arg(long, default_value_t = 1024)]
    vocabulary: usize,
}

/// Makes the instruction set and the model.
pub(crate) fn run(options: &Options) -> Result<()> {
    let (train, held_out) = instructions(options.seed, 1200, 150);
    files::make_folder(&options.data)?;
    write_jsonl(&options.data.join("train.jsonl"), &train)?;
    write_jsonl(&options.data.join("heldout.jsonl"), &held_out)?;
    println!(
        "{} training and {} held-out instructions in {}",
        train.len(),
        held_out.len(),
        options.data.display()
    );
    if options.data_only {
        return Ok(());
    }

    // Three paragraphs make a document. The text is longer than the steps read, so none is seen twice.
    let tokens = options.steps * options.batch * options.context;
    let paragraphs = pretraining_text(options.seed, (tokens / 24).max(3000));
    let documents: Vec<String> = paragraphs
        .chunks(3)
        .map(|three| three.join("\n\n"))
        .collect();
    files::make_folder(&options.out)?;
    let tokenizer = make_tokenizer(&documents, &train, options)?;
    let rows = rows(&documents, &tokenizer, options.context)?;
    println!(
        "{} documents, {} rows of {} tokens, a vocabulary of {}",
        documents.len(),
        rows.len(),
        options.context,
        tokenizer.vocab_size()
    );
    pretrain(rows, &tokenizer, options)
}

/// Trains a small Llama on the rows and saves it in bf16, in less than 4 MB.
fn pretrain(rows: Vec<Encoded>, tokenizer: &Tokenizer, options: &Options) -> Result<()> {
    let device = Device::default().autodiff();
    device.seed(options.seed);
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
    let batching = BatchOptions {
        batch_size: options.batch,
        pack_to: None,
        shuffle: true,
        seed: options.seed,
        pad_id: tokenizer.pad_id(),
        vocab_size: tokenizer.vocab_size(),
    };
    let batches = Batches::new(rows, batching)?;
    let (start, mut recent) = (Instant::now(), 0.0);
    for (step, batch) in batches.take(options.steps).enumerate() {
        let tensors = batch.to_tensors(&device);
        let loss = net.next_token_loss(&Input::new(tensors.input.tokens), tensors.targets);
        recent += loss.clone().into_scalar::<f64>();
        let grads = GradientsParams::from_grads(loss.backward(), &net);
        net = optimizer.step(learning_rate(step, options), net, grads);
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
    lisa_lm::checkpoint::save(
        &net.cast(FloatDType::BF16),
        &options.out,
        &SaveOptions::default(),
    )?;
    let generation = serde_json::json!({
        "do_sample": false,
        "eos_token_id": tokenizer.eos_id(),
        "pad_token_id": tokenizer.pad_id(),
    });
    write_json(&options.out.join("generation_config.json"), &generation)?;
    println!("written to {}", options.out.display());
    Ok(())
}

/// Rises linearly over the first 5 % of the steps, then falls to a tenth along a cosine.
fn learning_rate(step: usize, options: &Options) -> f64 {
    let warm_up = (options.steps / 20).max(1);
    if step < warm_up {
        return options.lr * (step + 1) as f64 / warm_up as f64;
    }
    let done = (step - warm_up) as f64 / (options.steps - warm_up).max(1) as f64;
    options.lr * (0.55 + 0.45 * (std::f64::consts::PI * done).cos())
}

fn write_jsonl(path: &Path, lines: &[Example]) -> Result<()> {
    let mut text = String::new();
    for line in lines {
        text.push_str(&serde_json::to_string(line)?);
        text.push('\n');
    }
    files::write(path, &text)
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    files::write(path, &(serde_json::to_string_pretty(value)? + "\n"))
}

/// Trains a byte-level BPE on the documents and the instructions, and writes its two files.
fn make_tokenizer(documents: &[String], train: &[Example], options: &Options) -> Result<Tokenizer> {
    let special: Vec<AddedToken> = [END, "<|user|>", "<|assistant|>"]
        .map(|token| AddedToken::from(token, true))
        .into();
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    tokenizer
        .with_pre_tokenizer(Some(ByteLevel::new(false, true, true)))
        .with_decoder(Some(ByteLevel::default()));
    let mut trainer = TrainerWrapper::from(
        BpeTrainer::builder()
            .vocab_size(options.vocabulary)
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
        .save(options.out.join("tokenizer.json"), false)
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
    write_json(&options.out.join("tokenizer_config.json"), &config)?;
    Ok(Tokenizer::from_dir(&options.out)?)
}

/// The documents in one stream, each followed by an end token, cut into rows.
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
