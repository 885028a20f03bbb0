//! The planned memory.

use std::fs;

use super::commands::of_studied_size;
use super::{printed, refused, run};

#[test]
fn the_planned_memory_is_that_of_the_layers_that_train_by_default() {
    let dir = tempfile::tempdir().unwrap();
    of_studied_size(&dir.path().join("model"));
    let row = "{\"prompt\": \"Name the colour.\", \"completion\": \"Blue.\"}\n";
    fs::write(dir.path().join("data.jsonl"), row.repeat(40)).unwrap();
    // With the memory given: not every system says what it has.
    let line = "train --dry-run --memory 8 --model model --data data.jsonl --pairs text --out run";
    let printed = run(dir.path(), line);
    // As many layers as fit into the memory of LoRA for such short rows.
    let active: usize = between(&printed, "lisa: ", " of 24 layers")
        .parse()
        .unwrap();
    assert!((2..=8).contains(&active), "{printed}");
    let reason = between(&printed, "; planned ", " of ");
    assert_eq!(between(&printed, "about ", " planned"), reason, "{printed}");
    // The most, since the length of the rows is not known.
    let shown = run(dir.path(), "show --model model");
    assert!(shown.contains(": 8 of 24 layers"), "{shown}");
    assert!(shown.contains("with embeddings and head frozen"), "{shown}");
    let given = run(dir.path(), "show --model model --active-layers 3");
    assert!(
        given.contains(": 3 of 24 layers") && !given.contains("frozen"),
        "{given}"
    );
}

#[test]
fn a_length_that_leaves_most_rows_out_is_refused_unless_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    of_studied_size(&dir.path().join("model"));
    let row = |times: usize| {
        let prompt = "Name the colour. ".repeat(times);
        format!("{{\"prompt\": \"{prompt}\", \"completion\": \"Blue.\"}}\n")
    };
    let rows = row(20).repeat(30) + &row(1).repeat(10);
    fs::write(dir.path().join("data.jsonl"), rows).unwrap();
    let line = "train --dry-run --no-eval --memory 0.01 --model model --data data.jsonl --pairs text \
                --out run";
    let errors = refused(dir.path(), line);
    for part in [
        " tokens do not fit into 10 MiB and would be cut at 64: 30 of 40 training rows have no token to train \
         on within 64 tokens",
        "help: the least is ",
        ". To train on the other 10 rows, give --max-seq-length 64",
    ] {
        assert!(errors.contains(part), "{errors}");
    }
    run(dir.path(), &format!("{line} --max-seq-length 64"));
}

#[test]
fn a_model_whose_limit_leaves_most_rows_out_is_refused_unless_the_length_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let row = |times: usize| {
        let prompt = "Name the colour. ".repeat(times);
        format!("{{\"prompt\": \"{prompt}\", \"completion\": \"Blue.\"}}\n")
    };
    let write = |long: usize| {
        let rows = row(100).repeat(long) + &row(1).repeat(20);
        fs::write(dir.path().join("data.jsonl"), rows).unwrap();
    };
    // The bundled model has 256 positions.
    let line = "train --dry-run --no-eval --memory 1 --data data.jsonl --pairs text --out run";
    write(21);
    let errors = refused(dir.path(), line);
    assert!(
        errors.contains(
            "error: the model has 256 positions: 21 of 41 training rows have no token to train on within 256 \
             tokens\n  help: use a model with more positions, or shorten the prompts of the data. To train on \
             the other 20 rows, give --max-seq-length 256\n"
        ),
        "{errors}"
    );
    for (long, more) in [(20, ""), (21, " --max-seq-length 256")] {
        write(long);
        let (_, warnings) = printed(dir.path(), &format!("{line}{more}"));
        assert!(warnings.contains("rows left out"), "{warnings}");
    }
}

#[test]
fn the_epochs_of_a_run_follow_from_the_rows_that_are_not_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let row = |times: usize| {
        let prompt = "Name the colour. ".repeat(times);
        format!("{{\"prompt\": \"{prompt}\", \"completion\": \"Blue.\"}}\n")
    };
    // With all 2010 rows there would be two epochs.
    let rows = row(30).repeat(20) + &row(1).repeat(1990);
    fs::write(dir.path().join("data.jsonl"), rows).unwrap();
    let line =
        "train --dry-run --no-eval --data data.jsonl --pairs text --max-seq-length 64 --out run";
    let said = run(dir.path(), line);
    assert!(said.contains("\n  epochs 3 (1990 rows)\n"), "{said}");
}

/// The text after the first `before` up to the next `after`.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text
        .split_once(before)
        .unwrap_or_else(|| panic!("{before}: {text}"));
    rest.split_once(after)
        .unwrap_or_else(|| panic!("{after}: {text}"))
        .0
}

#[test]
fn the_plan_adds_up_and_says_what_would_fit() {
    let dir = tempfile::tempdir().unwrap();
    let plan = run(dir.path(), "plan --memory 1");
    assert!(plan.contains("fits: --method lisa\n"), "{plan}");
    assert!(
        !plan.contains("does not fit") && !plan.contains("none fits"),
        "{plan}"
    );
    // 18 MiB: too little for 8 rows of 256 tokens with every method, and enough for one.
    let plan = run(dir.path(), "plan --device cpu --memory 0.0176");
    assert!(!plan.contains("  fits: "), "{plan}");
    assert!(plan.contains(" --batch-size 1"), "{plan}");
    assert!(!plan.contains("none fits"), "{plan}");
    let nothing = run(dir.path(), "plan --memory 0.001");
    let least = nothing.lines().last().unwrap();
    let (_, flags) = least
        .split_once("none fits into 1 MiB; the least is a peak of ")
        .unwrap();
    assert!(flags.contains(", with --method "), "{nothing}");
    assert!(
        flags.ends_with(" --batch-size 1 --max-seq-length 64"),
        "{nothing}"
    );
    // The parts of a row are its peak, to the rounding of each.
    let plan = run(dir.path(), "plan");
    let row = plan
        .lines()
        .find(|line| line.ends_with("--method full"))
        .unwrap();
    let sizes: Vec<f64> = row
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let sum: f64 = sizes[1..7].iter().sum();
    assert!((sizes[0] - sum).abs() <= 3.5, "{row}");
    // Quantized layers without recomputation need more than exact ones.
    let peak = |flags: &str| -> f64 {
        let line = plan.lines().find(|line| line.ends_with(flags)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert!(peak("--method lisa --quantize int8") > peak("--method lisa"));
}

#[test]
fn a_run_says_one_figure_of_planned_memory() {
    let dir = tempfile::tempdir().unwrap();
    let after = |text: &str, before: &str| {
        let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{text}"));
        let words = rest.split_whitespace().take(2);
        words.collect::<Vec<_>>().join(" ")
    };
    let int8 = "--quantize int8";
    for more in [
        int8,
        "--quantize int8 --recompute",
        "--split attn",
        "--split mlp --active-layers 9",
        "--method lora",
        "--method lora --recompute --lora-target-modules v_proj",
    ] {
        let (said, warned) = printed(dir.path(), &format!("train --dry-run {more}"));
        let figure = after(&said, "memory      about ");
        assert_eq!(after(&said, "  peak "), figure, "{said}");
        let quantizes = more.starts_with(int8);
        assert_eq!(said.contains("  host memory "), quantizes, "{said}");
        if more == int8 {
            let needed = after(&warned, "--quantize without --recompute needs ");
            assert_eq!(needed, figure, "{warned}");
        }
    }
}
