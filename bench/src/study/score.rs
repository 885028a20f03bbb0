//! Scores of a model on rows: losses, choices and generated answers.

use anyhow::Result;
use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use lisa_cli::settings::Metric;
use lisa_cli::train::score::Scorer;
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
        let logits = model.forward(&batch.to_tensors(device).input);
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

#[cfg(test)]
mod tests {
    use burn::tensor::FloatDType;
    use lisa_lm::Checkpoint;
    use lisa_lm::model::Input;

    use super::*;
    use crate::files::bundled;

    fn model(device: &Device) -> CausalLm {
        let checkpoint = Checkpoint::open(bundled("base")).unwrap();
        checkpoint.load(device, Some(FloatDType::F32)).unwrap()
    }

    /// A prompt and an answer, of which the answer is trained.
    fn row(prompt: &[u32], answer: &[u32]) -> Encoded {
        let mut labels = vec![IGNORED; prompt.len()];
        labels.extend(answer.iter().map(|id| i64::from(*id)));
        Encoded::new([prompt, answer].concat(), labels)
    }

    #[test]
    fn losses_are_those_of_the_model() {
        let device = Device::default();
        let model = model(&device);
        let rows = [row(&[5, 6, 7], &[8, 9]), row(&[5, 9], &[4, 4, 3, 11])];
        let scores = score(&model, &rows, 0, &device, false);
        assert_eq!(scores.counts, [2, 4]);
        for (row, loss) in rows.iter().zip(&scores.losses) {
            let batch = Batch::collate(vec![Row::new([row])], 0);
            let count = batch.trained() as f64;
            let mean = model
                .batch_loss(batch.to_tensors(&device))
                .into_scalar::<f32>();
            assert!(
                (loss - count * f64::from(mean)).abs() < 1e-3,
                "{loss} {mean}"
            );
        }
        assert!(scores.right.is_empty());
    }

    #[test]
    fn a_choice_is_right_if_it_is_the_most_probable_of_the_rows_choices() {
        let device = Device::default();
        let model = model(&device);
        let prompt = [5, 6, 7];
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(vec![5, 6, 7], [1, 3]), &device);
        let logits = model.forward(&Input::new(tokens)).slice([0..1, 2..3]);
        let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
        // Neither of the two needs to be the most probable token of all.
        let (likely, unlikely) = if logits[20] > logits[21] {
            (20, 21)
        } else {
            (21, 20)
        };
        let rows = [likely, unlikely].map(|first| row(&prompt, &[first, 3]));
        assert_eq!(score(&model, &rows, 0, &device, true).right, [1, 0]);
        // Alone, a choice has no other.
        assert_eq!(score(&model, &rows[1..], 0, &device, true).right, [1]);
    }

    #[test]
    fn generated_answers_are_compared_with_those_of_the_rows() {
        let device = Device::default();
        let model = model(&device);
        let tokenizer = Tokenizer::from_dir(bundled("base")).unwrap();
        let example = |answer: &str| {
            let line = serde_json::json!({"prompt": "Anna has 3 hats", "completion": answer});
            Example::from_json(&line.to_string()).unwrap()
        };
        let prompt = encode_prompt(&example(" x"), &tokenizer).unwrap().unwrap();
        let config = GenerationConfig {
            max_new_tokens: ANSWER,
            eos_ids: tokenizer.eos_ids().to_vec(),
            ..GenerationConfig::default()
        };
        let found = generate(&model, &prompt, &config).unwrap();
        let found = tokenizer.decode(&found, true).unwrap();
        let examples = [example(&found), example(&format!("{found} no"))];
        let (right, asked) = answers(&model, &examples, &tokenizer, Metric::Exact).unwrap();
        assert_eq!((right, asked), (1, 2), "{found}");
        assert_eq!(metric("gsm8k"), Some(Metric::LastNumber));
        assert_eq!(metric("instruct"), None);
    }
}
