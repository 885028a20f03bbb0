use std::fs;

use lisa_lm::text::shuffled;
use serde_json::json;

use super::*;
use crate::bundled;
use crate::settings::{Flags, Metric};

/// The settings of a run on rows with these answers, some of which are held out. The files are in a
/// folder.
fn settings(folder: &Path, answers: &[&str], held_out: &[&str]) -> Settings {
    let file = |name: &str, answers: &[&str]| {
        let rows = answers
            .iter()
            .map(|answer| json!({"instruction": "Is it?", "output": answer}).to_string() + "\n");
        let path = folder.join(name);
        fs::write(&path, rows.collect::<String>()).unwrap();
        path
    };
    let mut settings = Flags::default().resolve(None).unwrap();
    settings.input.data = vec![file("train.jsonl", answers)];
    settings.input.eval = file("held.jsonl", held_out);
    settings
}

#[test]
fn an_answer_of_training_rows_alone_is_a_choice() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path(), &["maybe", "no"], &["no"]);
    settings.output.metric = Metric::Choice;
    let tokenizer = Tokenizer::from_dir(bundled::model().unwrap()).unwrap();
    let scorer = read(&settings, tokenizer, 64, dir.path()).unwrap().scorer;
    assert!(scorer.is_right("no", "perhaps, or no"));
    assert!(!scorer.is_right("no", "maybe, or no"));
}

#[test]
fn batches_have_the_rows_in_the_order_of_the_seed() {
    let dir = tempfile::tempdir().unwrap();
    let answers = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut settings = settings(dir.path(), &answers, &["i"]);
    let folder = bundled::model().unwrap();
    let tokenizer = Tokenizer::from_dir(&folder).unwrap();
    let whole = read(&settings, tokenizer, 64, dir.path()).unwrap();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let (data, tokenizer) = whole.cut(&settings, &checkpoint).unwrap();
    settings.training.batch_size = 1;
    for seed in [1, 2] {
        settings.training.seed = seed;
        let mut all = batches(&settings, &tokenizer, &data).unwrap();
        assert_eq!(all.per_epoch(), 8);
        let found: Vec<Vec<u32>> = (0..8)
            .map(|_| all.next_batch().rows()[0].tokens.clone())
            .collect();
        let rows = shuffled(8, seed, 0).into_iter();
        let expected: Vec<Vec<u32>> = rows.map(|row| data.train.get(row).unwrap().ids).collect();
        assert_eq!(found, expected, "{seed}");
    }
    settings.training.batch_size = 3;
    let all = batches(&settings, &tokenizer, &data).unwrap();
    assert_eq!(all.per_epoch(), 3);
}
