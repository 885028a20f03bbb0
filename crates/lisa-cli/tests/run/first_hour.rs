//! The first hour of a user with a model of SmolLM2's shape and data of GSM8K's: plan, preview,
//! training, Ctrl-C, resuming, generation, export. The program runs as a process.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};
use lisa_cli::bundled;
use lisa_lm::checkpoint::{SaveOptions, save};
use lisa_lm::{Checkpoint, ModelConfig, Tokenizer};
use serde_json::{Value, json};

use super::commands::{lisa, text};
use super::{lines, run, summary, weights_of};

/// The rows of the file, of which a tenth is held out; the steps of three epochs of the others in
/// batches of four.
const ROWS: usize = 200;
const HELD_OUT: usize = 20;
const STEPS: usize = 3 * (ROWS - HELD_OUT) / 4;

const TEMPLATE: &str = "{% for m in messages %}{% if loop.first and m.role != 'system' %}\
    {{ '<|im_start|>system\nYou count things.<|im_end|>\n' }}{% endif %}\
    {{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// The keys of SmolLM2's configuration, with smaller sizes.
fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "attention_bias": false, "attention_dropout": 0.0, "mlp_bias": false,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "unk_token_id": 0,
        "hidden_act": "silu", "hidden_size": 72, "intermediate_size": 192, "head_dim": 8,
        "num_attention_heads": 9, "num_key_value_heads": 3, "num_hidden_layers": 6,
        "initializer_range": 0.02, "max_position_embeddings": 512, "pretraining_tp": 1,
        "rms_norm_eps": 9.999999747378752e-6, "rope_interleaved": false,
        "rope_parameters": {"rope_theta": 100_000.0, "rope_type": "default"},
        "tie_word_embeddings": true, "dtype": "float32", "use_cache": true, "vocab_size": 1024,
    })
}

/// Matrices of random elements; norms are unchanged.
struct Random(u64);

impl ModuleMapper for Random {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D == 1 {
            return parameter;
        }
        let mut element = || {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            ((self.0 >> 40) as f32 / (1 << 24) as f32 - 0.5) * 0.1
        };
        parameter.map(|tensor| {
            let shape = tensor.shape();
            let elements: Vec<f32> = (0..shape.num_elements()).map(|_| element()).collect();
            Tensor::from_data(TensorData::new(elements, shape), &tensor.device())
        })
    }
}

/// A folder as a user downloads it.
fn model(folder: &Path) {
    let read = |name: &str| fs::read_to_string(bundled::model().unwrap().join(name)).unwrap();
    let tokens = read("tokenizer.json")
        .replace("<|user|>", "<|im_start|>")
        .replace("<|assistant|>", "<|im_end|>");
    let special = json!({
        "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>", "tokenizer_class": "GPT2Tokenizer",
    });
    let generation = json!({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2});
    let files = [
        ("tokenizer.json", tokens),
        ("tokenizer_config.json", special.to_string()),
        ("generation_config.json", generation.to_string()),
        ("chat_template.jinja", TEMPLATE.to_owned()),
        ("LICENSE", "Everybody may use it.\n".to_owned()),
    ]
    .map(|(name, text)| (name.to_owned(), text.into_bytes()));
    let config = config().to_string();
    let model = ModelConfig::from_json(&config).unwrap();
    let model = model.init(&Device::flex()).unwrap().map(&mut Random(1));
    let options = SaveOptions {
        files: &files,
        ..SaveOptions::default()
    };
    save(&model, folder, &options).unwrap();
    fs::write(folder.join("config.json"), config).unwrap();
}

/// Question and answer of a row.
fn row(index: usize) -> (String, String) {
    let (name, a, b) = (
        ["Ann", "Bo", "Cy"][index % 3],
        1 + index % 7,
        1 + index / 7 % 9,
    );
    let sum = a + b;
    let question = format!("{name} has {a} red rings and {b} blue rings. How many rings?");
    (
        question,
        format!("{name} has {a}+{b}=<<{a}+{b}={sum}>>{sum} rings.\n#### {sum}"),
    )
}

/// A folder of `train.jsonl`, and of `test.jsonl`, which nobody may read.
fn data(folder: &Path) {
    let rows = (0..ROWS).map(|index| {
        let (question, answer) = row(index);
        json!({"question": question, "answer": answer}).to_string() + "\n"
    });
    fs::create_dir(folder).unwrap();
    fs::write(folder.join("train.jsonl"), rows.collect::<String>()).unwrap();
    fs::write(folder.join("test.jsonl"), "{").unwrap();
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Runs the program, presses Ctrl-C when a line begins with `until`, and returns what it printed. On a
/// machine with much work the run may end before it is told so.
fn interrupted(folder: &Path, line: &str, until: &str) -> String {
    let arguments: Vec<&str> = line.split(' ').collect();
    let mut program = lisa(folder, &arguments);
    let mut child = program
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut printed = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    while output.read_line(&mut printed).unwrap() > 0 {
        if printed.lines().last().unwrap().starts_with(until) {
            let kill = Command::new("kill")
                .args(["-INT", &child.id().to_string()])
                .status();
            assert!(kill.unwrap().success());
            break;
        }
    }
    output.read_to_string(&mut printed).unwrap();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut printed)
        .unwrap();
    // A run that Ctrl-C ended has the exit code of a signal, as a shell expects.
    let code = if printed.contains("\nstopped after ") {
        130
    } else {
        0
    };
    assert_eq!(child.wait().unwrap().code(), Some(code), "{printed}");
    printed
}

fn has(printed: &str, parts: &[&str]) {
    for part in parts {
        assert!(printed.contains(part), "`{part}` is not in: {printed}");
    }
}

/// The trained tokens of these rows: the answer, the end of its turn, and a line break.
fn trained(tokenizer: &Tokenizer, rows: impl Iterator<Item = usize>) -> usize {
    rows.map(|index| tokenizer.encode(&row(index).1).unwrap().len() + 2)
        .sum()
}

#[test]
fn the_first_hour() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    model(&home.join("model"));
    data(&home.join("data"));
    let run = |line: &str| run(home, line);

    let plan = run("plan --model model");
    has(
        &plan,
        &[
            "0.4 M parameters in 6 layers, f32, 4 rows of 512 tokens;",
            "--method lisa\n",
        ],
    );

    let tokenizer = Tokenizer::from_dir(home.join("model")).unwrap();
    let all = trained(&tokenizer, 0..ROWS);
    let preview = run("preview --model model --data data");
    let first = trained(&tokenizer, 0..1);
    has(
        &preview,
        &[
            &format!(
                "data/train.jsonl:1): {} tokens, {first} trained;",
                length(&tokenizer, 0)
            ),
            "200 rows as one turn (question -> user, answer -> assistant)",
            "data/test.jsonl",
            &format!(", {all} trained ("),
        ],
    );

    marks_the_answer(&preview, &tokenizer);

    let whole = run("train --model model --data data --metric last-number --out whole");
    has(
        &whole,
        &[
            "0.4 M parameters in 6 layers, f32",
            "180 rows to train on, 20 held out",
            &format!("{STEPS} steps of 4 rows, 3 epochs; learning rate up to 1e-3"),
            "lisa: 2 of 6 layers (",
            ", sampled anew every 20 steps\n",
            "16 rows before training, 20 held-out rows at the end with 4 generated answers\n",
            ", f32 on Flex(Cpu)\n",
            "evaluating 16 held-out rows\nbefore: ",
            "evaluating 20 held-out rows, generating 4 answers\nafter: ",
            &format!("step {STEPS} of {STEPS}: loss "),
            "last number right",
            &format!("the model of step {STEPS} is in "),
        ],
    );

    // A run that ended before Ctrl-C begins again.
    let line = "train --model model --data data --metric last-number --overwrite --out run";
    let stopped = (0..5)
        .map(|_| interrupted(home, line, "step 10 of "))
        .find(|printed| printed.contains("\nstopped after step "))
        .expect("five runs ended before Ctrl-C");
    has(
        &stopped,
        &[
            "Press Ctrl-C again to end now",
            "Continue with: lisa train --resume --out ",
        ],
    );
    let (_, rest) = stopped.split_once("stopped after step ").unwrap();
    let step: usize = rest.split(';').next().unwrap().parse().unwrap();
    assert!((10..STEPS).contains(&step), "{stopped}");
    assert_eq!(
        names(&home.join("run/checkpoints")),
        [format!("step-{step:08}")]
    );

    let resumed = run("train --resume run");
    has(
        &resumed,
        &[
            // Not the layers of the first period.
            "lisa: 2 of 6 layers, sampled anew every 20 steps\n",
            &format!("resumed at step {step} from "),
            &format!("step {STEPS} of {STEPS}: loss "),
        ],
    );
    assert!(!resumed.contains("step 10 of"), "{resumed}");
    let finished = run("train --resume run");
    let said = format!("finished at step {STEPS}; give --steps M to go on to step M\n");
    assert!(finished.ends_with(&said), "{finished}");

    let (whole, stopped) = (home.join("whole"), home.join("run"));
    let one = the_same_run(&whole, &stopped);

    // Three epochs of the tokens that the summary of the data says.
    let (_, rest) = resumed.split_once("training data: 180 rows, ").unwrap();
    let tokens: usize = rest.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(one["tokens"], 3 * tokens);
    has(
        &fs::read_to_string(stopped.join("model/README.md")).unwrap(),
        &[&format!("| tokens, prompts included | {} |", 3 * tokens)],
    );

    files_of_a_run(&stopped);
    the_saved_model(home, &tokenizer, &run);
}

/// The marked tokens of the first row are those of its answer.
fn marks_the_answer(preview: &str, tokenizer: &Tokenizer) {
    let (tokens, _) = preview.split_once("training files").unwrap();
    let marked: Vec<u32> = tokens
        .split("[\"")
        .skip(1)
        .map(|token| token.split_once("\":").unwrap().1)
        .map(|id| id.split_once(']').unwrap().0.parse().unwrap())
        .collect();
    let answer = format!("{}<|im_end|>\n", row(0).1);
    assert_eq!(marked, tokenizer.encode(&answer).unwrap());
}

/// Stopped and resumed, or not: the same run. Returns its summary.
fn the_same_run(whole: &Path, stopped: &Path) -> Value {
    assert!(weights_of(whole) == weights_of(stopped));
    assert_eq!(lines(whole), lines(stopped));
    let (one, other) = (summary(whole), summary(stopped));
    for name in ["before", "after", "best", "tokens", "steps"] {
        assert_eq!(one[name], other[name], "{name}");
    }
    assert_eq!(
        (&one["steps"], &one["after"]["rows"]),
        (&STEPS.into(), &HELD_OUT.into())
    );
    assert_eq!(one["after"]["answers"]["asked"], 4);
    let (before, after) = (&one["before"], &one["after"]);
    let loss = |of: &Value, name: &str| of[name].as_f64().unwrap();
    assert!((6.0..8.0).contains(&loss(before, "loss")), "{before}");
    assert!(
        loss(after, "first_rows_loss") < 0.5 * loss(before, "loss"),
        "{after}"
    );
    one
}

/// The number of tokens of a row.
fn length(tokenizer: &Tokenizer, index: usize) -> usize {
    let (question, answer) = row(index);
    let rendered = format!(
        "<|im_start|>system\nYou count things.<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n\
         <|im_start|>assistant\n{answer}<|im_end|>\n"
    );
    tokenizer.encode(&rendered).unwrap().len()
}

fn files_of_a_run(run: &Path) {
    let files = names(run);
    let (events, others): (Vec<_>, Vec<_>) = files
        .into_iter()
        .partition(|name| name.starts_with("events.out.tfevents."));
    assert_eq!(events.len(), 2, "one for each session: {events:?}");
    assert_eq!(
        others,
        [
            "checkpoints",
            "losses.svg",
            "memory.svg",
            "metrics.csv",
            "metrics.jsonl",
            "model",
            "summary.json"
        ]
    );
    let all = lines(run);
    let steps: Vec<_> = all.iter().filter(|line| line.loss.is_some()).collect();
    assert_eq!(steps.len(), STEPS);
    assert!(steps.iter().all(|line| line.active_layers.len() == 2));
    let held_out: Vec<u64> = all
        .iter()
        .filter(|line| line.held_out_loss.is_some())
        .map(|line| line.step)
        .collect();
    assert_eq!(held_out.last(), Some(&(STEPS as u64)), "{held_out:?}");
    let table = fs::read_to_string(run.join("metrics.csv")).unwrap();
    assert_eq!(table.lines().count(), 1 + all.len());
    for plot in ["losses.svg", "memory.svg"] {
        let plot = fs::read_to_string(run.join(plot)).unwrap();
        assert!(
            plot.starts_with("<svg") && plot.ends_with("</svg>\n"),
            "{plot}"
        );
    }
}

fn the_saved_model(home: &Path, tokenizer: &Tokenizer, run: &dyn Fn(&str) -> String) {
    let saved = home.join("run/model");
    assert_eq!(
        names(&saved),
        [
            "LICENSE",
            "README.md",
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "lisa.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
    let read = |folder: &Path, name: &str| fs::read_to_string(folder.join(name)).unwrap();
    for name in ["chat_template.jinja", "tokenizer.json", "LICENSE"] {
        assert_eq!(
            read(&saved, name),
            read(&home.join("model"), name),
            "{name}"
        );
    }
    let config_of =
        |folder: &Path| -> Value { serde_json::from_str(&read(folder, "config.json")).unwrap() };
    assert_eq!(config_of(&saved), config());
    has(
        &read(&saved, "README.md"),
        &[
            "| base model | model |",
            "| data | data, 180 rows |",
            "| learning rate | 1e-3 |",
            "metric = \"last-number\"",
        ],
    );

    // Opened and saved again, and exported: the same bits.
    let opened = Checkpoint::open(&saved).unwrap();
    let trained = opened.load(&Device::flex(), None).unwrap();
    let copy = home.join("copy");
    save(&trained, &copy, &SaveOptions::default()).unwrap();
    let weights = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
    assert!(weights(&copy) == weights(&saved));
    assert_eq!(
        run("export run --out exported"),
        "the finished model of run is in exported\n"
    );
    assert!(weights(&home.join("exported")) == weights(&saved));
    let mut wanted = names(&saved);
    // Of the run, not of a model.
    wanted.retain(|name| name != "lisa.json");
    assert_eq!(names(&home.join("exported")), wanted);
    assert_eq!(
        read(&home.join("exported"), "README.md"),
        read(&saved, "README.md")
    );

    let prompt = "<|im_start|>system\nYou count things.<|im_end|>\n<|im_start|>user\nHow many?\
                  <|im_end|>\n<|im_start|>assistant\n";
    let config = lisa_lm::GenerationConfig {
        max_new_tokens: 12,
        eos_ids: vec![2],
        ..lisa_lm::GenerationConfig::default()
    };
    let ids = tokenizer.encode(prompt).unwrap();
    let answer = lisa_lm::generate(&trained, &ids, &config).unwrap();
    let answer = tokenizer.decode(&answer, true).unwrap();
    let arguments = ["generate", "--model", "run/model", "--chat", "How many?"];
    let more = ["--max-new-tokens", "12"];
    let output = lisa(home, &[&arguments[..], &more].concat())
        .output()
        .unwrap();
    assert_eq!(text(&output), answer + "\n");
}
