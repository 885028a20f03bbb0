//! Evaluates a model: held-out loss, perplexity, exact match, and a few answers.

use anyhow::Result;
use burn::module::Module;
use burn::tensor::Device;
use lisa_lm::text::{BatchOptions, Batches, Encoded, Example};
use lisa_lm::{CausalLm, GenerationConfig, Tokenizer, generate};
use serde::{Deserialize, Serialize};

use crate::number;
use crate::terminal::text::one_line;

/// The result of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean held-out loss per token, in nats.
    #[serde(with = "number")]
    pub loss: f64,
    /// `exp(loss)`.
    #[serde(with = "number")]
    pub perplexity: f64,
    /// The number of answers that match exactly, and the number of prompts.
    pub exact_match: Option<(usize, usize)>,
    /// The first few answers.
    pub samples: Vec<Sample>,
}

/// A generated answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The prompt.
    pub prompt: String,
    /// The answer in the data.
    pub wanted: String,
    /// The generated answer.
    pub got: String,
}

/// Mean loss over all trained tokens of the held-out examples, by their weights.
pub fn held_out_loss(
    model: &CausalLm,
    examples: &[Encoded],
    batch_size: usize,
    pad_id: u32,
    device: &Device,
) -> Result<f64> {
    let model = model.valid();
    let options = BatchOptions {
        batch_size,
        pack_to: None,
        shuffle: false,
        seed: 0,
        pad_id,
        vocab_size: model.config().vocab_size(),
    };
    let mut batches = Batches::new(examples.to_vec(), options)?;
    let (mut sum, mut weights) = (0.0, 0.0);
    for _ in 0..batches.per_epoch() {
        let batch = batches.next_batch();
        let weight = batch.weight();
        let loss = model
            .batch_loss(batch.to_tensors(device))
            .into_scalar::<f32>();
        sum += f64::from(loss) * weight;
        weights += weight;
    }
    Ok(if weights > 0.0 { sum / weights } else { 0.0 })
}

/// How a model is evaluated.
#[derive(Clone, Copy, Debug)]
pub struct Evaluate<'a> {
    /// Encodes prompts and decodes answers.
    pub tokenizer: &'a Tokenizer,
    /// Held-out examples.
    pub examples: &'a [Example],
    /// The same examples as tokens.
    pub encoded: &'a [Encoded],
    /// Rows in a batch.
    pub batch_size: usize,
    /// Number of examples to generate answers for.
    pub answers: usize,
    /// Longest generated answer in tokens.
    pub max_new_tokens: usize,
}

impl Evaluate<'_> {
    /// Evaluates the model. `tick` is called after each answer.
    pub fn run(
        &self,
        model: &CausalLm,
        device: &Device,
        mut tick: impl FnMut(),
    ) -> Result<Evaluation> {
        let pad = self.tokenizer.pad_id();
        let loss = held_out_loss(model, self.encoded, self.batch_size, pad, device)?;
        let model = model.valid();
        let (mut hits, mut asked) = (0, 0);
        let mut samples = Vec::new();
        for example in self.examples.iter().take(self.answers) {
            let Some(wanted) = &example.answer else {
                continue;
            };
            let Some(prompt) = lisa_lm::text::encode_prompt(example, self.tokenizer)? else {
                continue;
            };
            if prompt.len() >= model.config().max_positions() {
                continue;
            }
            let config = GenerationConfig {
                max_new_tokens: self.max_new_tokens,
                eos_ids: self.tokenizer.eos_ids().to_vec(),
                ..GenerationConfig::default()
            };
            let answer = generate(&model, &prompt, &config)?;
            let got = self.tokenizer.decode(&answer, true)?.trim().to_string();
            asked += 1;
            hits += usize::from(got == wanted.trim());
            if samples.len() < 3 {
                samples.push(Sample {
                    prompt: self.tokenizer.decode(&prompt, true)?.trim().to_string(),
                    wanted: wanted.trim().to_string(),
                    got,
                });
            }
            tick();
        }
        Ok(Evaluation {
            loss,
            perplexity: loss.exp(),
            exact_match: (asked > 0).then_some((hits, asked)),
            samples,
        })
    }
}

impl std::fmt::Display for Evaluation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "held-out loss {:.4}, perplexity {:.3}",
            self.loss, self.perplexity
        )?;
        if let Some((hits, asked)) = self.exact_match {
            write!(f, ", exact match {hits} of {asked}")?;
        }
        for sample in &self.samples {
            write!(f, "\n  prompt:    {}", one_line(&sample.prompt))?;
            write!(f, "\n  expected:  {}", one_line(&sample.wanted))?;
            write!(f, "\n  generated: {}", one_line(&sample.got))?;
        }
        Ok(())
    }
}
