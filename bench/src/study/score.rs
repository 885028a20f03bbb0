//! Scores of a model on rows: losses, choices and generated answers.

use anyhow::Result;
use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use lisa_cli::settings::Metric;
use lisa_cli::train::score::Scorer;
use lisa_lm::model::Input;
use lisa_lm::text::{Batch, Encoded, Example, IGNORED, Row, encode_prompt};
use lisa_lm::{CausalLm, GenerationConfig, Tokenizer, generate};

use super::job::Scores;

/// The most tokens of a generated answer.
const ANSWER: usize = 256;

/// The metric of a task, by its name; none where only the loss counts.
pub(crate) fn metric(task: &str) -> Option<Metric> {
    match task {
        "gsm8k" => Some(Metric::LastNumber),
        "pubmedqa" => Some(Metric::Choice),
        _ => None,
    }
}

/// The losses of the rows; with `choices` also whether the first token of the answer is more probable
/// than the first tokens of the other rows' answers.
pub(crate) fn score(
    model: &CausalLm,
    rows: &[Encoded],
    pad_id: u32,
    device: &Device,
    choices: bool,
) -> Scores {
    let model = model.valid();
    let mut scores = Scores::default();
    let firsts: Vec<i64> = rows.iter().filter_map(first).map(|(_, id)| id).collect();
    let mut options = firsts.clone();
    options.sort_unstable();
    options.dedup();
    for chunk in rows.chunks(at_a_time(device)) {
        let batch = Batch::collate(chunk.iter().map(|row| Row::new([row])).collect(), pad_id);
        let [count, width] = batch.shape();
        let logits = model.forward(&Input::from(batch.to_tensors(device)));
        let kept: Vec<i64> = batch
            .rows()
            .iter()
            .flat_map(|row| row.targets.iter().map(|target| (*target).max(0)))
            .collect();
        let kept = Tensor::<3, Int>::from_data(TensorData::new(kept, [count, width, 1]), device);
        let log_p = log_softmax(logits.clone(), 2).gather(2, kept);
        let log_p: Vec<f32> = log_p.into_data().iter::<f32>().collect();
        for (row, log_p) in batch.rows().iter().zip(log_p.chunks(width)) {
            let trained = row.targets.iter().zip(log_p);
            let trained = trained.filter(|(target, _)| **target != IGNORED);
            let (sum, count) = trained.fold((0.0, 0), |(sum, count), (_, log_p)| {
                (sum - f64::from(*log_p), count + 1)
            });
            scores.losses.push((sum * 1e4).round() / 1e4);
            scores.counts.push(count);
        }
        if choices {
            let places: Vec<usize> = chunk.iter().filter_map(first).map(|(at, _)| at).collect();
            for (row, at) in places.into_iter().enumerate() {
                let found = logits.clone().slice([row..row + 1, at..at + 1]);
                let found: Vec<f32> = found.into_data().iter::<f32>().collect();
                let wanted = firsts[scores.right.len()];
                let best = options
                    .iter()
                    .max_by(|a, b| found[**a as usize].total_cmp(&found[**b as usize]));
                scores.right.push(u8::from(best == Some(&wanted)));
            }
        }
    }
    scores
}

/// The place of a row's first target, and the target.
fn first(row: &Encoded) -> Option<(usize, i64)> {
    let row = Row::new([row]);
    let mut targets = row.targets.iter().enumerate();
    targets.find_map(|(at, target)| (*target != IGNORED).then_some((at, *target)))
}

/// Rows of a forward pass: on the CPU one, without padding.
fn at_a_time(device: &Device) -> usize {
    if device.memory_pool_usage().is_none() {
        1
    } else {
        8
    }
}

/// How many greedy answers to these examples are right.
pub(crate) fn answers(
    model: &CausalLm,
    examples: &[Example],
    tokenizer: &Tokenizer,
    metric: Metric,
) -> Result<(usize, usize)> {
    let wanted: Vec<&str> = examples
        .iter()
        .filter_map(|example| example.answer.as_deref())
        .collect();
    let scorer = Scorer::new(metric, wanted.iter().copied());
    let config = GenerationConfig {
        max_new_tokens: ANSWER,
        eos_ids: tokenizer.eos_ids().to_vec(),
        ..GenerationConfig::default()
    };
    let (mut right, mut asked) = (0, 0);
    for example in examples {
        let prompt = encode_prompt(example, tokenizer)?;
        let (Some(prompt), Some(wanted)) = (prompt, &example.answer) else {
            continue;
        };
        let found = tokenizer.decode(&generate(model, &prompt, &config)?, true)?;
        right += usize::from(scorer.is_right(wanted, &found));
        asked += 1;
    }
    Ok((right, asked))
}
