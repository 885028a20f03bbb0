//! What is given is what a run does: its layers, its seed, its learning rate, its dtype.

use std::fs;

use lisa_cli::bundled;
use lisa_cli::train::run::Start;
use serde_json::Value;

use super::{copy_model, file_of, flags, go, go_in_parts, lines, printed, run, summary};

#[test]
fn the_active_layers_are_those_that_are_given_or_sampled_with_the_seed() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let active = |more: &str| -> Vec<Vec<usize>> {
        let line = format!("--steps 3 --no-eval {more}");
        go(flags(&out, &line), Start::Overwrite, false).unwrap();
        let lines = lines(&out).into_iter();
        lines.map(|line| line.active_layers).collect()
    };
    let fixed = active("--policy fixed --fixed-layers 1,5");
    assert_eq!(fixed, [[1, 5], [1, 5], [1, 5]]);
    let one = active("--period 1 --seed 1");
    assert_eq!(one, [[6, 7], [3, 4], [2, 7]]);
    let two = active("--period 1 --seed 2");
    assert_eq!(two, [[1, 5], [5, 7], [3, 7]]);
}

#[test]
fn the_learning_rate_of_each_step_is_that_of_the_schedule() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let line = "--steps 10 --no-eval --lr 1e-3 --warmup-ratio 0.2 --min-lr-ratio 0.1";
    go(flags(&out, line), Start::Fresh, false).unwrap();
    let rates: Vec<f64> = lines(&out).iter().filter_map(|line| line.lr).collect();
    assert_eq!(rates.len(), 10);
    // It rises in two steps. The last one is after 7 of 8 parts of the cosine's way:
    // 0.1 + 0.9 * (1 + cos(7 / 8 pi)) / 2.
    for (step, expected) in [(1, 5e-4), (2, 1e-3), (3, 1e-3), (10, 1.3425421036992e-4)] {
        let rate = rates[step - 1];
        assert!((rate - expected).abs() < 1e-15, "{step}: {rate}");
    }
}

#[test]
fn a_resumed_run_keeps_the_schedule() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let line = "--steps 8 --no-eval --lr 1e-3 --schedule linear --warmup-steps 2 --min-lr-ratio 0";
    assert_eq!(go_in_parts(flags(&out, line), &out), 8);
    let rates: Vec<f64> = lines(&out).iter().filter_map(|line| line.lr).collect();
    assert_eq!(rates.len(), 8);
    for (step, expected) in [(1, 0.5), (2, 1.0), (3, 1.0), (6, 0.5), (8, 1.0 / 6.0)] {
        let rate = rates[step - 1];
        assert!((rate - 1e-3 * expected).abs() < 1e-15, "{step}: {rate}");
    }
    assert_eq!(summary(&out)["settings"]["schedule"], "linear");
    let line = "train --dry-run --schedule linear --warmup-steps 2 --out dry";
    let said = run(dir.path(), line);
    for part in [
        "\n  schedule linear (given)\n",
        "\n  warmup-steps 2 (given)\n",
    ] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
    assert!(!said.contains("  warmup-ratio "), "{said}");
}

#[test]
fn the_dtype_is_that_of_the_files_of_the_model_if_its_configuration_names_none() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    copy_model(&model);
    let mut config: Value = serde_json::from_str(bundled::CONFIG).unwrap();
    assert_eq!(config["dtype"], "bfloat16");
    config.as_object_mut().unwrap().remove("dtype");
    fs::write(model.join("config.json"), config.to_string()).unwrap();
    let row = r#"{"instruction": "one", "output": "two"}"#;
    file_of(dir.path(), "rows.jsonl", &[row; 4]);
    let line = "train --dry-run --model model --data rows.jsonl --no-eval --steps 1 --out run";
    let said = run(dir.path(), line);
    for part in ["in 8 layers, bf16 on ", "\n  dtype bf16 (as stored)\n"] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
}

#[test]
fn a_model_or_data_that_is_not_given_is_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let row = r#"{"prompt": "red ", "completion": "ring"}"#;
    file_of(dir.path(), "a.jsonl", &[row; 4]);
    copy_model(&dir.path().join("model"));
    let (no_model, no_data) = ("no --model is given", "no --data is given");
    for (line, is_warned) in [
        ("train --dry-run --data a.jsonl", [true, false]),
        ("preview --data a.jsonl", [true, false]),
        ("train --dry-run --model model", [false, true]),
        ("preview --model model", [false, true]),
        (
            "train --dry-run --model model --data a.jsonl",
            [false, false],
        ),
        ("train --dry-run", [false, false]),
        (
            "importance --data a.jsonl --steps 1 --out importance",
            [true, false],
        ),
    ] {
        let (_, warnings) = printed(dir.path(), line);
        let found = [no_model, no_data].map(|part| warnings.contains(part));
        assert_eq!(found, is_warned, "{line}: {warnings}");
    }
}

#[test]
fn a_path_that_freezes_nothing_is_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let warned = |freeze: &str| {
        let line = format!("train --dry-run --no-eval --freeze {freeze} --out r");
        let (_, warnings) = printed(dir.path(), &line);
        warnings.contains("--freeze has `layrs.3`, and no parameter's path contains it")
    };
    assert!(warned("embed_tokens,layrs.3"));
    assert!(!warned("embed_tokens"));
}

#[test]
fn held_out_rows_that_are_not_evaluated_change_no_training() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("rows");
    fs::create_dir(&folder).unwrap();
    let row = |times: usize| {
        let prompt = "Name the colour. ".repeat(times);
        format!(r#"{{"prompt": "{prompt}", "completion": "Blue."}}"#)
    };
    file_of(&folder, "train.jsonl", &[&row(2)[..]; 9]);
    file_of(&folder, "valid.jsonl", &[&row(4)[..]]);
    let length = |more: &str| -> usize {
        let line = format!("train --dry-run --data rows --pairs text --steps 2 --out run{more}");
        let said = run(dir.path(), &line);
        let line = said
            .lines()
            .find(|line| line.starts_with("  max-seq-length "));
        let length = line.and_then(|line| line.split_whitespace().nth(1));
        length.unwrap().parse().unwrap()
    };
    let (with, without) = (length(""), length(" --no-eval"));
    assert!(without < with, "{without} {with}");
}
