//! What a run writes, and that an interrupted run ends like an uninterrupted one.

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use clap::Parser;
use lisa_cli::commands::Program;
use lisa_cli::terminal::interrupt::Point;
use lisa_cli::train::run::{Outcome, Start, dry_run};
use lisa_lm::checkpoint::{SaveOptions, save};
use lisa_lm::{Checkpoint, ModelConfig};
use serde_json::Value;

use super::watched::{checkpoints, until};
use super::{HELD_OUT, file_of, flags, go, go_in_parts, lines, only_out, run, summary, weights_of};

const IN_PIECES: &str = "--recompute 3 --sublayers --update-in-backward --max-grad-norm 0";

#[test]
fn a_run_stopped_after_every_step_writes_bit_identical_weights() {
    let dir = tempfile::tempdir().unwrap();
    for method in [
        "--gradient-accumulation-steps 2",
        "--dtype bf16 --moments offload",
        "--method lora",
        "--outer-every 2 --moments offload",
        IN_PIECES,
        &format!("{IN_PIECES} --outer-every 2 --layer-warmup 3"),
    ] {
        let whole = dir.path().join("whole");
        let outcome = go(flags(&whole, method), Start::Overwrite, false).unwrap();
        assert_eq!(outcome, Outcome::Finished);
        // Each call takes one step and stops, so that every step of a period is a resume.
        let parts = dir.path().join("parts");
        let calls = go_in_parts(flags(&parts, method), &parts);
        assert_eq!(calls, 7, "{method}");
        assert_eq!(weights_of(&whole), weights_of(&parts), "{method}");
        assert_eq!(lines(&whole), lines(&parts), "{method}");
        let kept = fs::read_dir(parts.join("checkpoints")).unwrap().count();
        assert_eq!(kept, 2);
        fs::remove_dir_all(&parts).unwrap();
    }
}

/// Burn reads optimizer state in the default dtype; f16 without master weights does not train.
#[test]
fn half_precision_runs_are_resumed_to_bit_identical_weights() {
    let dir = tempfile::tempdir().unwrap();
    let plain = "--no-master-weights --dtype bf16";
    for line in [
        "--dtype bf16",
        "--dtype f16",
        "--dtype bf16 --method full",
        "--dtype f16 --method full",
        "--dtype bf16 --method lora",
        plain,
        &format!("{plain} --method full"),
        &format!("{plain} --moments keep"),
        &format!("{plain} --moments offload"),
    ] {
        let more = format!("{line} --no-eval");
        let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
        go(flags(&whole, &more), Start::Overwrite, false).unwrap();
        // It stops at the end of a period, after step 3, and within the next one, after step 4.
        let after =
            |steps: usize| move |point: Point, count: usize| point == Point::Step && count == steps;
        until(flags(&parts, &more), Start::Overwrite, after(3));
        until(only_out(&parts), Start::Resume, after(1));
        assert_eq!(checkpoints(&parts), ["step-00000003", "step-00000004"]);
        let outcome = go(only_out(&parts), Start::Resume, false).unwrap();
        assert_eq!(outcome, Outcome::Finished);
        assert_eq!(weights_of(&whole), weights_of(&parts), "{line}");
        let losses = |out| -> Vec<_> { lines(out).iter().map(|line| line.loss).collect() };
        assert_eq!(losses(&whole), losses(&parts), "{line}");
        fs::remove_dir_all(&parts).unwrap();
    }
}

#[test]
fn the_written_files_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    go(flags(&out, "--freeze embed_tokens"), Start::Fresh, false).unwrap();
    let model = Checkpoint::open(out.join("model")).unwrap();
    assert!(model.load(&Device::flex(), None).is_ok());
    let lines = lines(&out);
    // The first and the last have the held-out loss.
    let held_out: Vec<u64> = lines
        .iter()
        .filter_map(|line| line.held_out_loss.map(|_| line.step))
        .collect();
    assert_eq!(held_out, [0, 7]);
    let lines: Vec<_> = lines.iter().filter(|line| line.loss.is_some()).collect();
    assert_eq!(lines.len(), 7);
    assert!(
        lines
            .iter()
            .all(|line| line.active_layers.len() == 2 && line.loss.is_some())
    );
    assert_eq!(lines[0].active_layers, lines[2].active_layers);
    let summary = summary(&out);
    assert_eq!(summary["after"]["samples"].as_array().unwrap().len(), 3);
    assert!(summary["after"]["loss"].as_f64() < summary["before"]["loss"].as_f64());
    assert!(
        fs::read_to_string(out.join("losses.svg"))
            .unwrap()
            .contains("</svg>")
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |name: &str| {
            fs::metadata(out.join("model").join(name))
                .unwrap()
                .permissions()
                .mode()
        };
        assert_eq!(mode("model.safetensors"), mode("config.json"));
    }
    // The written model can be trained again, with its tokenizer.
    let again = dir.path().join("again");
    let model = out.join("model");
    let more = format!("--model {} --method full --steps 1", model.display());
    go(flags(&again, &more), Start::Fresh, false).unwrap();
}

#[test]
fn a_run_without_held_out_rows_trains_on_every_row_and_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let (out, data) = (dir.path().join("out"), dir.path().join("one.jsonl"));
    fs::write(&data, HELD_OUT.lines().next().unwrap()).unwrap();
    let none = format!("--eval-fraction 0 --data {}", data.display());
    let calls = go_in_parts(flags(&out, &none), &out);
    assert_eq!(calls, 7);
    let lines = lines(&out);
    assert!(
        lines
            .iter()
            .all(|line| line.held_out_loss.is_none() && line.loss.is_some())
    );
    let summary = summary(&out);
    assert!(summary["before"].is_null() && summary["after"].is_null());
    let plot = fs::read_to_string(out.join("losses.svg")).unwrap();
    assert!(plot.contains("training") && !plot.contains("held out"));
}

#[test]
fn what_is_exported_of_a_replaced_run_is_not_the_model_of_the_earlier_run() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    go(flags(&out, ""), Start::Fresh, false).unwrap();
    let earlier = weights_of(&out);
    // It stops after a step, with a checkpoint.
    let outcome = go(flags(&out, ""), Start::Overwrite, true).unwrap();
    assert_eq!(outcome, Outcome::Stopped);
    assert!(!out.join("summary.json").exists());
    let copy = dir.path().join("copy");
    let line = [
        Path::new("lisa"),
        Path::new("export"),
        &out,
        Path::new("--out"),
        &copy,
    ];
    Program::try_parse_from(line).unwrap().run().unwrap();
    let exported = fs::read(copy.join("model.safetensors")).unwrap();
    assert_eq!(exported.len(), earlier.len());
    assert!(exported != earlier);
}

#[test]
fn a_dry_run_loads_everything_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let dry = |more: &str, start| dry_run(flags(&out, more), start, &Device::flex());
    for more in [
        "--quantize int8 --recompute",
        "--method full",
        "--method lora",
    ] {
        dry(more, Start::Fresh).unwrap();
    }
    assert!(!out.exists());
    // It refuses what a run would refuse, including what is loaded last.
    assert!(dry("--freeze nonsense", Start::Fresh).is_err());
    go(flags(&out, ""), Start::Fresh, true).unwrap();
    assert!(dry("", Start::Fresh).is_err());
    dry("", Start::Resume).unwrap();
    let files = || {
        let mut files: Vec<_> = walk(&out).collect();
        files.sort();
        files
    };
    let before = files();
    fs::write(
        &before
            .iter()
            .find(|(path, _)| path.ends_with("weights.bpk"))
            .unwrap()
            .0,
        "",
    )
    .unwrap();
    let cut = files();
    assert!(dry("", Start::Resume).is_err());
    dry("", Start::Overwrite).unwrap();
    assert_eq!(files(), cut);
}

/// The files below a folder, with their bytes.
fn walk(folder: &Path) -> Box<dyn Iterator<Item = (std::path::PathBuf, Vec<u8>)>> {
    Box::new(fs::read_dir(folder).unwrap().flat_map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path)
        } else {
            let bytes = fs::read(&path).unwrap();
            Box::new(std::iter::once((path, bytes)))
        }
    }))
}

#[test]
fn a_model_of_one_layer_is_planned_and_trains_with_every_method() {
    let dir = tempfile::tempdir().unwrap();
    let base = Checkpoint::open(lisa_cli::bundled::model().unwrap()).unwrap();
    let path = base.dir().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    config["num_hidden_layers"] = 1.into();
    let model = ModelConfig::from_json(&config.to_string()).unwrap();
    let options = SaveOptions {
        source: Some(&base),
        ..SaveOptions::default()
    };
    let model = model.init(&Device::flex()).unwrap();
    save(&model, dir.path().join("one"), &options).unwrap();
    let run = |line: &str| run(dir.path(), line);
    let row = r#"{"instruction": "one", "output": "two"}"#;
    let data = file_of(dir.path(), "rows.jsonl", &[row; 4]);
    for method in ["lisa", "full", "lora"] {
        let said = run(&format!(
            "train --model one --data {data} --no-eval --steps 2 --method {method} --out {method}"
        ));
        assert!(said.contains("2 steps in"), "{said}");
    }
    run("plan --model one");
    run("show --model one");
    run(&format!(
        "importance --by gradient --model one --data {data} --steps 1 --out importance"
    ));
}
