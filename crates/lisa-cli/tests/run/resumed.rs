//! A run is resumed only with the model and the data that it began with.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use lisa_cli::settings::Flags;
use lisa_cli::terminal::interrupt::Point;
use lisa_cli::train::run::{Allowed, Outcome, Start, run as train};
use serde_json::Value;

use super::{HELD_OUT, copy_model, file_of, flags, go, lines, message, only_out, parsed, run};

const MODEL: Start = Start::ResumeChanged(Allowed {
    model: true,
    data: false,
    paths: false,
});
const DATA: Start = Start::ResumeChanged(Allowed {
    model: false,
    data: true,
    paths: false,
});

const TEMPLATE: &str =
    "{% for m in messages %}{{ m.role + ':' + m.content + eos_token }}{% endfor %}";

/// A run that stopped after its first step, on copies of a model and of data.
struct Stopped {
    dir: tempfile::TempDir,
    out: PathBuf,
}

impl Stopped {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("base");
        copy_model(&model);
        fs::write(model.join("chat_template.jinja"), TEMPLATE).unwrap();
        let rows = |from: usize| HELD_OUT.lines().skip(from).take(8).collect::<Vec<_>>();
        file_of(dir.path(), "train.jsonl", &rows(0));
        file_of(dir.path(), "other.jsonl", &rows(8));
        let out = dir.path().join("out");
        let run = Self { dir, out };
        assert_eq!(
            go(run.flags(), Start::Fresh, true).unwrap(),
            Outcome::Stopped
        );
        run
    }

    fn flags(&self) -> Flags {
        let dir = self.dir.path().display();
        let files = format!("--model {dir}/base --data {dir}/train.jsonl --eval {dir}/other.jsonl");
        flags(&self.out, &format!("{files} --dtype f32"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The error of a resumed run.
    fn refused(&self, start: Start) -> String {
        message(only_out(&self.out), start)
    }

    /// One more step.
    fn goes_on(&self, start: Start) {
        let outcome = go(only_out(&self.out), start, true).unwrap();
        assert_eq!(outcome, Outcome::Stopped);
    }
}

fn changed(path: &Path, change: impl Fn(&str) -> String) {
    let text = fs::read_to_string(path).unwrap();
    let new = change(&text);
    assert_ne!(text, new);
    fs::write(path, new).unwrap();
}

#[test]
fn a_template_that_writes_the_time_writes_that_of_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let rows = |from: usize| HELD_OUT.lines().skip(from).take(8).collect::<Vec<_>>();
    fs::write(path("train.jsonl"), rows(0).join("\n")).unwrap();
    fs::write(path("other.jsonl"), rows(8).join("\n")).unwrap();
    // Thousandths of a second.
    let template = format!("{{{{ strftime_now('%3f') }}}}{TEMPLATE}");
    fs::write(path("dated.jinja"), template).unwrap();
    let [data, eval, dated] = ["train.jsonl", "other.jsonl", "dated.jinja"].map(path);
    let more = format!("--data {data} --eval {eval} --chat-template {dated}");
    let outcome = go(flags(&out, &more), Start::Fresh, true).unwrap();
    assert_eq!(outcome, Outcome::Stopped);
    let outcome = go(only_out(&out), Start::Resume, true).unwrap();
    assert_eq!(outcome, Outcome::Stopped);

    // Without a time in the checkpoint, later calls write the time of this one.
    let path = out.join("checkpoints/step-00000002/state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let text = state["text"].as_object_mut().unwrap();
    text.remove("time").unwrap();
    fs::write(&path, state.to_string()).unwrap();
    for start in [DATA, Start::Resume] {
        let outcome = go(only_out(&out), start, true).unwrap();
        assert_eq!(outcome, Outcome::Stopped);
    }
}

#[test]
fn other_data_is_refused_and_goes_on_with_a_flag() {
    let run = Stopped::new();
    run.goes_on(Start::Resume);
    // The order of the rows counts, since a run continues at a place in them.
    changed(&run.path("train.jsonl"), |text| {
        text.lines().rev().collect::<Vec<_>>().join("\n")
    });
    let error = run.refused(Start::Resume);
    assert!(error.contains("the training data (8 rows of "), "{error}");
    assert!(error.contains("in another order"), "{error}");
    assert!(error.contains("--allow-changed data\n"), "{error}");
    assert!(
        !error.contains("held-out") && !error.contains("model"),
        "{error}"
    );
    assert!(run.refused(MODEL).contains("the training data"));
    run.goes_on(DATA);
    // The run has the new data now.
    run.goes_on(Start::Resume);
    // Fewer rows: its place in an epoch is that of its steps.
    changed(&run.path("train.jsonl"), |text| {
        text.lines().take(3).collect::<Vec<_>>().join("\n")
    });
    run.goes_on(DATA);
    run.goes_on(Start::Resume);

    changed(&run.path("other.jsonl"), |text| {
        text.lines().take(5).collect::<Vec<_>>().join("\n")
    });
    let error = run.refused(Start::Resume);
    assert!(error.contains("the held-out data (5 rows of "), "{error}");
    assert!(error.contains(" now, 8 rows of "), "{error}");
    assert!(!error.contains("training data"), "{error}");
}

#[test]
fn another_model_is_refused_and_goes_on_with_a_flag() {
    let run = Stopped::new();
    let weights = run.path("base/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    let error = run.refused(Start::Resume);
    assert!(
        error.contains("changed: the weights of the model\n"),
        "{error}"
    );
    assert!(error.contains("--allow-changed model\n"), "{error}");
    assert!(run.refused(DATA).contains("the weights of the model"));
    run.goes_on(MODEL);
    run.goes_on(Start::Resume);
}

#[test]
fn the_error_names_tokenizer_template_and_configuration() {
    let run = Stopped::new();
    changed(&run.path("base/config.json"), |text| {
        text.replacen('{', "{ ", 1)
    });
    let error = run.refused(Start::Resume);
    assert!(
        error.contains("changed: the configuration of the model\n"),
        "{error}"
    );
    let template = run.path("base/chat_template.jinja");
    changed(&template, |text| text.replace("':'", "': '"));
    let error = run.refused(Start::Resume);
    for part in [
        "the chat template of the model",
        "the training data",
        "model,data",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn files_may_move() {
    let run = Stopped::new();
    let moved = run.path("moved.jsonl");
    fs::rename(run.path("train.jsonl"), &moved).unwrap();
    assert!(run.refused(Start::Resume).contains("train.jsonl"));
    let flags = parsed(&format!("--data {}", moved.display())).or(only_out(&run.out));
    assert_eq!(go(flags, Start::Resume, true).unwrap(), Outcome::Stopped);
    run.goes_on(Start::Resume);
}

#[test]
fn a_model_with_which_the_data_cannot_be_encoded_any_more_is_named() {
    let run = Stopped::new();
    fs::write(
        run.path("base/chat_template.jinja"),
        "{{ raise_exception('no chats') }}",
    )
    .unwrap();
    let error = run.refused(Start::Resume);
    assert!(error.contains("the chat template of the model"), "{error}");
    assert!(error.contains("--allow-changed model\n"), "{error}");
    assert!(run.refused(MODEL).contains("no chats"));
}

#[test]
fn a_run_goes_on_with_another_schedule() {
    let dir = tempfile::tempdir().unwrap();
    let line = "train --steps 2 --batch-size 2 --max-seq-length 48 --no-eval --out r";
    run(dir.path(), line);
    let line = "train --resume r --steps 4 --schedule linear --warmup-steps 1";
    let resumed = run(dir.path(), line);
    let changes: Vec<&str> = resumed
        .lines()
        .filter_map(|line| line.strip_prefix("  changed: "))
        .collect();
    assert_eq!(
        changes,
        [
            "min-lr-ratio 0, was 0.1",
            "schedule linear, was cosine",
            "steps 4, was 2",
            "warmup-steps 1, was 0"
        ]
    );
    // The last of three steps that fall to 0.
    let rates = lines(&dir.path().join("r"));
    let rate = rates.iter().rev().find_map(|line| line.lr).unwrap();
    assert!((rate - 1e-3 / 3.0).abs() < 1e-15, "{rate}");
}

#[test]
fn the_card_of_a_run_with_other_data_names_the_earlier_data_and_the_run_of_its_base() {
    let dir = tempfile::tempdir().unwrap();
    let run = |line: &str| run(dir.path(), line);
    let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
    for (name, answer) in [("a.jsonl", "two"), ("b.jsonl", "three")] {
        let row = format!("{{\"instruction\": \"one\", \"output\": \"{answer}\"}}\n");
        fs::write(dir.path().join(name), row.repeat(8)).unwrap();
    }
    run("train --data a.jsonl --steps 3 --batch-size 2 --no-eval --out r");
    let said = run("train --resume r --data b.jsonl --allow-changed data --steps 5");
    assert!(
        said.contains("the first 3 of 4 steps of the epoch are not taken in the new data"),
        "{said}"
    );
    let card = read("r/model/README.md");
    let data = "| data | a.jsonl until step 3; then b.jsonl, 8 rows |";
    assert!(card.contains(data), "{card}");

    run("train --model r/model --data b.jsonl --steps 1 --no-eval --out next");
    let card = read("next/model/README.md");
    assert!(card.contains("| base model | r/model |"), "{card}");
}

#[test]
fn the_card_of_a_run_with_other_settings_names_the_earlier_ones() {
    let dir = tempfile::tempdir().unwrap();
    let line = "train --steps 2 --lr 1e-2 --batch-size 2 --max-seq-length 48 --no-eval --out r";
    let card = |line: &str| {
        run(dir.path(), line);
        fs::read_to_string(dir.path().join("r/model/README.md")).unwrap()
    };
    let first = card(line);
    assert!(!first.contains("earlier settings"), "{first}");
    assert!(
        first.contains("\nA settings file of `lisa train --config`"),
        "{first}"
    );
    card("train --resume r --steps 3 --lr 1e-5");
    let card = card("train --resume r --steps 4");
    for part in [
        "| learning rate | 1e-5 |",
        "| earlier settings | until step 2: lr 0.01, steps 2; until step 3: steps 3 |",
        "\nThe settings since step 3, as a settings file of `lisa train --config`",
    ] {
        assert!(card.contains(part), "{part}: {card}");
    }
}

#[test]
fn the_card_of_the_best_model_names_the_data_up_to_its_step() {
    let dir = tempfile::tempdir().unwrap();
    let run = |line: &str| run(dir.path(), line);
    let rows: Vec<&str> = HELD_OUT.lines().collect();
    for (name, from) in [("a", 0), ("b", 8), ("held", 16), ("c", 24)] {
        file_of(dir.path(), &format!("{name}.jsonl"), &rows[from..from + 8]);
    }
    run(
        "train --data a.jsonl --eval held.jsonl --steps 2 --batch-size 2 --eval-every 1 --save-every 1 \
         --eval-examples 0 --out r",
    );
    // A step that makes the model worse, and two steps in other data.
    run("train --resume r --steps 3 --lr 3");
    run("train --resume r --data b.jsonl --allow-changed data --steps 4");
    run("train --resume r --data c.jsonl --allow-changed data --steps 5");
    for (folder, data) in [
        (
            "model",
            "| data | a.jsonl until step 3; then b.jsonl until step 4; then c.jsonl, 8 rows |",
        ),
        ("model-best", "| data | a.jsonl until step 2 |"),
    ] {
        let card = dir.path().join("r").join(folder).join("README.md");
        let card = fs::read_to_string(card).unwrap();
        assert!(card.contains(data), "{card}");
    }
}

#[test]
fn data_in_which_no_step_was_taken_is_not_named_on_the_card() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let rows: Vec<&str> = HELD_OUT.lines().collect();
    let names = ["a.jsonl", "b.jsonl", "c.jsonl", "held.jsonl", "other.jsonl"];
    let [a, b, c, held, other] =
        std::array::from_fn(|i| file_of(dir.path(), names[i], &rows[8 * i..8 * i + 8]));
    let more = format!("--data {a} --eval {held} --steps 3 --eval-examples 0 --eval-every 1");
    let more = format!("{more} --lr 0.002");
    let outcome = go(flags(&out, &more), Start::Fresh, true).unwrap();
    assert_eq!(outcome, Outcome::Stopped);
    // The evaluation of the new held-out rows writes the checkpoint again. No step is taken.
    let given = parsed(&format!("--data {b} --eval {other} --lr 0.5")).or(only_out(&out));
    let stop = |point| point == Point::Batch;
    let outcome = train(given, DATA, &Device::flex(), &stop).unwrap();
    assert_eq!(outcome, Outcome::Stopped);
    let state = fs::read_to_string(out.join("checkpoints/step-00000001/state.json")).unwrap();
    assert!(state.contains("b.jsonl"), "{state}");

    let given = parsed(&format!("--data {c} --lr 0.25")).or(only_out(&out));
    assert_eq!(go(given, DATA, false).unwrap(), Outcome::Finished);
    let card = fs::read_to_string(out.join("model/README.md")).unwrap();
    let data = "| data | a.jsonl until step 1; then c.jsonl, 8 rows |";
    assert!(card.contains(data), "{card}");
    let (_, earlier) = card
        .split_once("| earlier settings | until step 1: ")
        .unwrap();
    let (earlier, _) = earlier.split_once('\n').unwrap();
    assert!(earlier.contains("lr 0.002"), "{earlier}");
    assert!(!earlier.contains("lr 0.5"), "{earlier}");
}
