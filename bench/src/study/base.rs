//! The base model: a small Llama, pretrained once and kept beside the log.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::Device;
use lisa_lm::{
    BatchOptions, Batches, CausalLm, Checkpoint, Encoded, Input, LlamaConfig, ModelConfig,
    SaveOptions,
};

use super::scale::Scale;
use super::text::pretraining_text;
use super::train::learning_rate;
use super::words::{END, Vocabulary};

/// Seed of the base model, its text and the questions.
pub(crate) const SEED: u64 = 1;

/// The folder of the base model of this scale.
pub(crate) fn folder(out: &Path, scale: &Scale) -> PathBuf {
    out.join(format!("base-{}", scale.print_of_base()))
}

/// Pretrains the base model, unless it is there.
pub(crate) fn prepare(out: &Path, scale: &Scale) -> Result<()> {
    let folder = folder(out, scale);
    if folder.join("config.json").exists() {
        return Ok(());
    }
    let device = Device::default().autodiff();
    let model = pretrain(scale, &device)?;
    // The configuration is written last, so a folder that has one is whole.
    Ok(lisa_lm::save(&model, &folder, &SaveOptions::default())?)
}

/// The base model on this device.
pub(crate) fn load(out: &Path, scale: &Scale, device: &Device) -> Result<CausalLm> {
    Ok(Checkpoint::open(folder(out, scale))?.load(device, None)?)
}

fn pretrain(scale: &Scale, device: &Device) -> Result<CausalLm> {
    device.seed(SEED);
    let words = Vocabulary::new();
    let mut config = LlamaConfig::new(words.len(), scale.width, scale.layers, scale.heads);
    config.intermediate_size = scale.inner;
    config.max_position_embeddings = 128;
    config.initializer_range = 0.06;
    config.common.eos_token_ids = vec![END];
    config.common.pad_token_id = Some(END);
    let mut model = ModelConfig::Llama(config).init(device)?;
    let [steps, batch, row] = scale.pretraining;
    let options = BatchOptions {
        batch_size: batch,
        pack_to: None,
        shuffle: true,
        seed: SEED,
        pad_id: END,
    };
    // More text than the steps read, so none is seen twice.
    let text = pretraining_text(SEED, steps * batch * row / 8, &words);
    let mut batches = Batches::new(rows(&text, row, &words)?, options)?;
    let mut optimizer = AdamWConfig::new()
        .with_beta_2(0.95)
        .with_epsilon(1e-8)
        .with_weight_decay(0.05)
        .init();
    let mut recent = 0.0;
    for step in 0..steps {
        let batch = batches.next_batch().to_tensors(device);
        let loss = model.next_token_loss(&Input::new(batch.tokens), batch.targets);
        recent += f64::from(loss.clone().into_scalar::<f32>());
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(learning_rate(3e-3, step, steps), model, grads);
        if (step + 1) % 100 == 0 {
            eprintln!(
                "pretraining: step {} of {steps}, loss {:.4}",
                step + 1,
                recent / 100.0
            );
            recent = 0.0;
        }
    }
    eprintln!("a base model of {} parameters", model.num_params());
    Ok(model)
}

/// The text as one stream, cut into rows.
pub(crate) fn rows(text: &[String], row: usize, words: &Vocabulary) -> Result<Vec<Encoded>> {
    let mut stream = Vec::new();
    for line in text {
        stream.extend(words.encode(line)?);
        stream.push(END);
    }
    let rows: Vec<Encoded> = stream
        .chunks_exact(row)
        .map(|ids| Encoded::all_trained(ids.to_vec()))
        .collect();
    if rows.is_empty() {
        return Err(anyhow!("the text is shorter than a row of {row} tokens"));
    }
    Ok(rows)
}
