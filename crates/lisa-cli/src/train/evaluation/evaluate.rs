//! Evaluates a model: held-out loss, perplexity, and generated answers.

use std::collections::BTreeSet;

use anyhow::Result;
use burn::tensor::Device;
use lisa_lm::model::generate_while;
use lisa_lm::text::{Batch, BatchOptions, Batches, StoredRows, shuffled};
use lisa_lm::{CausalLm, GenerationConfig, Tokenizer};

use super::prompts::Prompts;
use super::result::{Answers, Evaluation, Sample};
use crate::settings::Settings;
use crate::terminal::interrupt::{Point, Stop, Stopped, check};
use crate::train::data::rows::Data;
use crate::train::method::layerwise_model::LayerwiseModel;
use crate::train::score::Scorer;

/// The rows of the evaluation before training, unless it is a full one. Every evaluation has them
/// first, so that losses before and after training are of the same rows.
const FIRST_ROWS: usize = 16;
/// How many generated answers are printed.
const SAMPLES: usize = 3;

/// Which rows an evaluation has, and whether it generates answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The loss of the rows that are evaluated before training.
    First,
    /// The loss of the rows of `--eval-rows`.
    Loss,
    /// The loss of the rows of `--eval-rows`, and answers.
    Full,
    /// The loss of all held-out rows.
    All,
}

/// What an evaluation runs with.
#[derive(Clone, Copy)]
pub(crate) struct With<'a> {
    /// Encodes prompts and decodes answers.
    pub(crate) tokenizer: &'a Tokenizer,
    /// The device of the model.
    pub(crate) device: &'a Device,
    /// Whether to stop.
    pub(crate) stop: Stop<'a>,
}

/// What is evaluated, prepared once for a run.
#[derive(Clone, Debug)]
pub(crate) struct Evaluate {
    /// The rows of `--eval-rows`; the first of them are evaluated before training.
    rows: StoredRows,
    first: usize,
    /// The other held-out rows.
    others: StoredRows,
    prompts: Prompts,
    scorer: Scorer,
    batch_size: usize,
    /// `--recompute`: how many layers there are for each hidden state that a step keeps.
    segment: usize,
}

impl Evaluate {
    /// Chooses the rows by the seed, and encodes the prompts of their examples.
    pub(crate) fn new(settings: &Settings, data: &Data, tokenizer: &Tokenizer) -> Result<Self> {
        let (output, seed) = (&settings.output, settings.training.seed);
        let rows = if output.no_eval {
            StoredRows::default()
        } else {
            data.held_out.clone()
        };
        let order = shuffled(rows.len(), seed, 0);
        let count = match output.eval_rows {
            0 => rows.len(),
            count => count.min(rows.len()),
        };
        let first = if output.eval_first {
            count
        } else {
            FIRST_ROWS.min(count)
        };
        let mut chosen = order[..count].to_vec();
        // In the order of the data, which is the order of the answers that are printed.
        chosen[..first].sort_unstable();
        chosen[first..].sort_unstable();
        let mut others = order[count..].to_vec();
        others.sort_unstable();
        let mut asked = BTreeSet::new();
        let sources = chosen.iter().map(|row| data.held_out_sources[*row]);
        let each_once: Vec<usize> = sources.filter(|source| asked.insert(*source)).collect();
        let prompts = Prompts::new(&data.held_out_examples(&each_once)?, tokenizer, settings)?;
        Ok(Self {
            rows: rows.select(chosen),
            others: rows.select(others),
            first,
            prompts,
            scorer: data.scorer.clone(),
            batch_size: settings.training.batch_size,
            segment: settings.memory.recompute.max(1),
        })
    }

    /// Whether there is nothing to evaluate.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The numbers of rows of an evaluation and of all held-out rows.
    #[must_use]
    pub(crate) fn rows(&self) -> (usize, usize) {
        (self.rows.len(), self.rows.len() + self.others.len())
    }

    /// The number of rows that are evaluated before training.
    #[must_use]
    pub(crate) fn first_rows(&self) -> usize {
        self.first
    }

    /// The number of answers of a full evaluation.
    #[must_use]
    pub(crate) fn answers(&self) -> usize {
        self.prompts.all.len()
    }

    /// The number of rows and of answers of an evaluation.
    #[must_use]
    pub(crate) fn size(&self, extent: Extent) -> (usize, usize) {
        match extent {
            Extent::First => (self.first, 0),
            Extent::Loss => (self.rows.len(), 0),
            Extent::Full => (self.rows.len(), self.answers()),
            Extent::All => (self.rows().1, 0),
        }
    }

    /// The number of batches and answers.
    #[must_use]
    pub(crate) fn length(&self, extent: Extent) -> u64 {
        let batches = |rows: usize| rows.div_ceil(self.batch_size.max(1));
        let (first, rest) = (batches(self.first), batches(self.rows.len() - self.first));
        (match extent {
            Extent::First => first,
            Extent::Loss => first + rest,
            Extent::Full => first + rest + self.answers(),
            Extent::All => first + rest + batches(self.others.len()),
        }) as u64
    }

    /// Evaluates the model. Losses are of its full-precision weights, answers of those that are on the
    /// device. `tick` is called after each batch and each answer.
    pub(crate) fn run(
        &self,
        model: &LayerwiseModel<'_>,
        extent: Extent,
        with: &With<'_>,
        mut tick: impl FnMut(),
    ) -> Result<Evaluation> {
        let mut loss_of = |rows: &StoredRows| self.loss(model, rows, with, &mut tick);
        let first = loss_of(&self.rows.select(0..self.first))?;
        let mut mean = first;
        if extent != Extent::First {
            let rest = self.first..self.rows.len();
            mean = mean.and(loss_of(&self.rows.select(rest))?);
        }
        if extent == Extent::All {
            mean = mean.and(loss_of(&self.others)?);
        }
        let loss = mean.value();
        let mut result = Evaluation {
            loss,
            perplexity: loss.exp(),
            rows: self.size(extent).0,
            first_rows_loss: first.value(),
            answers: None,
            samples: Vec::new(),
        };
        if extent == Extent::Full {
            self.answer(model.on_device(), with, tick, &mut result)?;
        }
        Ok(result)
    }

    /// Mean loss over all trained tokens of the rows, by their weights.
    fn loss(
        &self,
        model: &LayerwiseModel<'_>,
        rows: &StoredRows,
        with: &With<'_>,
        tick: &mut impl FnMut(),
    ) -> Result<Mean> {
        let mut mean = Mean::default();
        if rows.is_empty() {
            return Ok(mean);
        }
        // Rows of similar length have little padding.
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|row| rows.length(*row));
        let rows = rows.select(order);
        let config = model.on_device().config();
        let options = BatchOptions {
            batch_size: self.batch_size,
            pack_to: None,
            shuffle: false,
            seed: 0,
            pad_id: with.tokenizer.pad_id(),
            vocab_size: config.vocab_size(),
        };
        let mut batches = Batches::from_rows(rows, options)?;
        // As many hidden states as a step keeps, for each layer that is read.
        let together = if model.is_whole() {
            1
        } else {
            config.num_layers().div_ceil(self.segment)
        };
        let mut left = batches.per_epoch();
        while left > 0 {
            let mut group = Vec::new();
            for _ in 0..together.min(left) {
                check(with.stop, Point::Evaluate)?;
                group.push(batches.try_next_batch()?);
            }
            left -= group.len();
            let tensors = |batch: &Batch| batch.to_tensors(with.device);
            let losses = model.losses(group.iter().map(tensors).collect());
            for (batch, loss) in group.iter().zip(losses) {
                mean.sum += loss * batch.weight();
                mean.weight += batch.weight();
                tick();
            }
        }
        Ok(mean)
    }

    fn answer(
        &self,
        model: &CausalLm,
        with: &With<'_>,
        mut tick: impl FnMut(),
        result: &mut Evaluation,
    ) -> Result<()> {
        let tokenizer = with.tokenizer;
        let prompts = &self.prompts;
        let mut answers = Answers {
            metric: self.scorer.metric(),
            right: 0,
            asked: 0,
            cut: 0,
            too_long: prompts.too_long,
            empty: prompts.empty,
            refused: prompts.refused,
        };
        let config = GenerationConfig {
            max_new_tokens: prompts.max_new_tokens,
            eos_ids: tokenizer.eos_ids().to_vec(),
            ..GenerationConfig::default()
        };
        for prompt in &prompts.all {
            let mut stopped = false;
            let answer = generate_while(model, &prompt.ids, &config, |_| {
                stopped = (with.stop)(Point::Generate);
                !stopped
            })?;
            if stopped {
                return Err(Stopped.into());
            }
            let positions = model.config().max_positions();
            let cut = answer.len() >= config.max_new_tokens
                || prompt.ids.len() + answer.len() > positions;
            let got = tokenizer.decode(&answer, true)?.trim().to_string();
            answers.asked += 1;
            answers.cut += usize::from(cut);
            answers.right += usize::from(self.scorer.is_right(&prompt.wanted, &got));
            if result.samples.len() < SAMPLES {
                result.samples.push(Sample {
                    prompt: tokenizer.decode(&prompt.ids, true)?.trim().to_string(),
                    wanted: prompt.wanted.clone(),
                    got,
                    cut,
                });
            }
            tick();
        }
        let any = answers.asked + answers.too_long + answers.empty + answers.refused > 0;
        result.answers = any.then_some(answers);
        Ok(())
    }
}

/// A mean loss over tokens, by their weights.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    fn and(self, other: Self) -> Self {
        Self {
            sum: self.sum + other.sum,
            weight: self.weight + other.weight,
        }
    }

    fn value(self) -> f64 {
        if self.weight > 0.0 {
            self.sum / self.weight
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests;
