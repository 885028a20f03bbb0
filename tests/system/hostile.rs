//! Hostile input in short: for each kind of file the corpus and a few hundred mutations of it. The binary
//! `hostile` runs more.

use hostile_input::{TARGETS, Target};

fn run(name: &str, runs: u64) {
    let target = Target::find(name).unwrap();
    if let Err(failure) = target.run(runs, 1, |body| Ok(body())) {
        let input = String::from_utf8_lossy(&failure.input);
        panic!("{name}, run {}: {}\n{input}", failure.run, failure.what);
    }
}

#[test]
fn records_of_any_kind_are_loaded_or_refused() {
    run("record", 400);
}

#[test]
fn configurations_of_any_kind_are_used_or_refused() {
    run("lisa_config", 400);
    run("model_config", 400);
}

#[test]
fn weights_of_any_kind_are_loaded_or_refused() {
    run("safetensors", 400);
    run("index", 400);
    run("adapter", 400);
    run("adapter_config", 400);
}

#[test]
fn data_of_any_kind_is_read_or_refused() {
    run("jsonl", 400);
}

#[test]
fn tokenizers_and_templates_of_any_kind_are_used_or_refused() {
    run("tokenizer", 300);
    run("tokenizer_config", 300);
    run("template", 300);
}

#[test]
fn every_target_has_a_corpus() {
    for target in TARGETS {
        assert!(target.corpus().len() > 1 || target.name == "record");
    }
}
