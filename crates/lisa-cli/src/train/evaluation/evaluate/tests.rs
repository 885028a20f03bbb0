use burn::tensor::FloatDType;
use lisa_lm::text::{Encoded, Row};
use lisa_lm::{Checkpoint, generate};

use super::*;
use crate::bundled;
use crate::settings::Metric;
use crate::train::evaluation::prompts::Prompt;

fn bundled_model() -> (CausalLm, Tokenizer) {
    let folder = bundled::model().unwrap();
    let device = Device::flex().autodiff();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let model = checkpoint.load(&device, Some(FloatDType::F32)).unwrap();
    (model, Tokenizer::from_dir(&folder).unwrap())
}

#[test]
fn a_held_out_loss_is_the_mean_over_tokens_by_their_weights_in_batches_of_any_size() {
    let (model, tokenizer) = bundled_model();
    let (exact, device) = (LayerwiseModel::whole(&model), Device::flex());
    let with = With {
        tokenizer: &tokenizer,
        device: &device,
        stop: &|_| false,
    };
    let text = |text: &str| Encoded::all_trained(tokenizer.encode(text).unwrap());
    let mut light = text("Hugo found a yellow apple in the park.");
    light.weights = Some(vec![0.25; light.ids.len()]);
    // Tokens that follow each other nowhere have large losses.
    let rows = [
        text("Mary found a yellow bottle in the library. Hugo went there with his dog."),
        Encoded::all_trained(vec![900, 13]),
        Encoded::all_trained(vec![67, 504, 871]),
        light,
        text("The yellow ring of David is in the garden."),
        Encoded::all_trained(vec![13, 900, 700, 13]),
    ];
    // Of each row alone: its loss, and its trained tokens by their weights.
    let alone = |row: &Encoded| {
        let batch = Batch::collate(vec![Row::new([row])], tokenizer.pad_id());
        let loss = exact.losses(vec![batch.to_tensors(&device)])[0];
        let weight = row.weights.as_ref().map_or(1.0, |_| 0.25);
        (loss, weight * (row.ids.len() - 1) as f64)
    };
    let alone: Vec<(f64, f64)> = rows.iter().map(alone).collect();
    let mean = |count: usize| {
        let sum: f64 = alone[..count]
            .iter()
            .map(|(loss, weight)| loss * weight)
            .sum();
        let weights: f64 = alone[..count].iter().map(|(_, weight)| weight).sum();
        sum / weights
    };
    // It is another mean than that over rows.
    let over_rows = alone.iter().map(|(loss, _)| loss).sum::<f64>() / 6.0;
    assert!((over_rows - mean(6)).abs() > 0.1, "{alone:?}");
    let rows = StoredRows::from(rows.to_vec());
    for batch_size in [1, 3, 4] {
        let evaluate = Evaluate {
            rows: rows.select(0..4),
            first: 2,
            others: rows.select(4..6),
            prompts: Prompts::default(),
            scorer: Scorer::new(Metric::Exact, []),
            batch_size,
            segment: 1,
        };
        for (extent, count) in [(Extent::First, 2), (Extent::Loss, 4), (Extent::All, 6)] {
            let found = evaluate.run(&exact, extent, &with, || ()).unwrap();
            let said = format!("{extent:?} by {batch_size}: {found:?} of {alone:?}");
            assert!((found.loss - mean(count)).abs() < 1e-4, "{said}");
            assert!((found.first_rows_loss - mean(2)).abs() < 1e-4, "{said}");
            assert_eq!((found.rows, found.answers), (count, None), "{said}");
        }
    }
}

#[test]
fn an_answer_is_right_if_it_is_that_of_its_own_row() {
    let (model, tokenizer) = bundled_model();
    let device = Device::flex();
    let config = GenerationConfig {
        max_new_tokens: 4,
        eos_ids: tokenizer.eos_ids().to_vec(),
        ..GenerationConfig::default()
    };
    let prompt = |text: &str, wanted: &dyn Fn(String) -> String| {
        let ids = tokenizer.encode(text).unwrap();
        let generated = generate(&model, &ids, &config).unwrap();
        let generated = tokenizer.decode(&generated, true).unwrap();
        let wanted = wanted(generated.trim().to_owned());
        Prompt { ids, wanted }
    };
    // The second answer is in that of the data, and not the other way round.
    let prompts = vec![
        prompt("Name the colour. ", &|generated| generated),
        prompt("The dog", &|generated| format!("{generated} and more")),
        prompt("The park", &|_| "something else".to_owned()),
    ];
    for metric in [Metric::Exact, Metric::Contains] {
        let evaluate = Evaluate {
            rows: StoredRows::default(),
            first: 0,
            others: StoredRows::default(),
            prompts: Prompts {
                all: prompts.clone(),
                max_new_tokens: 4,
                ..Prompts::default()
            },
            scorer: Scorer::new(metric, []),
            batch_size: 2,
            segment: 1,
        };
        let with = With {
            tokenizer: &tokenizer,
            device: &device,
            stop: &|_| false,
        };
        let found = evaluate.run(&LayerwiseModel::whole(&model), Extent::Full, &with, || ());
        let found = found.unwrap();
        let answers = found.answers.unwrap();
        assert_eq!(
            (answers.right, answers.asked),
            (1, 3),
            "{:?}",
            found.samples
        );
        let is_same = |sample: &Sample| sample.got == sample.wanted;
        let same: Vec<bool> = found.samples.iter().map(is_same).collect();
        assert_eq!(same, [true, false, false], "{:?}", found.samples);
    }
}
