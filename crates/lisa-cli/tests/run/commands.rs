//! The program as a process: its output, its errors and Ctrl-C.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use burn::tensor::Device;
use lisa_cli::bundled;
use lisa_lm::ModelConfig;
use lisa_lm::checkpoint::{SaveOptions, save};

/// The program with these arguments, on flex, with a cache of its own.
pub(super) fn lisa(cache: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lisa"));
    command
        .args(arguments)
        .env("BURN_DEVICE", "flex")
        .env("XDG_CACHE_HOME", cache)
        .current_dir(cache);
    command
}

pub(super) fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn errors_have_a_line_for_message_place_and_help_and_no_colours_in_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.jsonl");
    fs::write(&bad, "{\"text\": \"fine\"}\n{\"txt\": 1}\n").unwrap();
    let output = lisa(dir.path(), &["train", "--data", bad.to_str().unwrap()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("error: the keys are"), "{text}");
    assert_eq!(lines[1], format!("  --> {}:2", bad.display()));
    assert!(lines.last().unwrap().starts_with("  help: "), "{text}");
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn a_demo_of_a_few_steps_is_exported_and_generates() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| text(&lisa(dir.path(), arguments).output().unwrap());
    let demo = "train --steps 2 --eval-examples 0 --eval-every 0 --save-every 1";
    let demo: Vec<&str> = demo.split(' ').collect();
    let printed = run(&demo);
    assert!(
        printed.contains("the bundled model") && printed.contains("lisa demo"),
        "{printed}"
    );
    let written = dir.path().join("runs/lisa/model/model.safetensors");

    // The finished model as it is, and in half the bytes.
    run(&["export", "runs/lisa", "--out", "copy"]);
    let bytes = fs::read(dir.path().join("copy/model.safetensors")).unwrap();
    assert!(bytes == fs::read(&written).unwrap());
    assert!(dir.path().join("copy/tokenizer.json").is_file());
    run(&["export", "runs/lisa", "--out", "half", "--dtype", "bf16"]);
    let half = fs::metadata(dir.path().join("half/model.safetensors"))
        .unwrap()
        .len();
    assert!(half < 6 * bytes.len() as u64 / 10);
    // A folder with a model is not replaced, and a step without a checkpoint is named.
    let refused = lisa(dir.path(), &["export", "runs/lisa", "--out", "copy"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--overwrite"));
    run(&[
        "export",
        "runs/lisa",
        "--out",
        "copy",
        "--overwrite",
        "--step",
        "1",
    ]);
    assert!(bytes != fs::read(dir.path().join("copy/model.safetensors")).unwrap());
    let refused = lisa(
        dir.path(),
        &["export", "runs/lisa", "--out", "x", "--step", "7"],
    )
    .output();
    assert!(String::from_utf8_lossy(&refused.unwrap().stderr).contains("checkpoints of steps 1"));

    let answer = run(&[
        "generate",
        "--model",
        "copy",
        "--chat",
        "Name the colour.",
        "--max-new-tokens",
        "3",
    ]);
    assert!(!answer.trim().is_empty());
    assert!(run(&["show", "--model", "copy"]).contains("8 of"));
}

/// A folder with a model of 24 layers and 11 M parameters, which has the bundled tokenizer.
pub(super) fn of_studied_size(folder: &Path) {
    let mut config: serde_json::Value = serde_json::from_str(bundled::CONFIG).unwrap();
    for (key, value) in [
        ("hidden_size", 192),
        ("intermediate_size", 512),
        ("num_hidden_layers", 24),
        ("num_attention_heads", 6),
        ("num_key_value_heads", 6),
        ("head_dim", 32),
    ] {
        config[key] = value.into();
    }
    let model = ModelConfig::from_json(&config.to_string()).unwrap();
    let model = model.init(&Device::flex()).unwrap();
    let tokenizer = fs::read(bundled::model().unwrap().join("tokenizer.json")).unwrap();
    let options = SaveOptions {
        files: &[("tokenizer.json".to_owned(), tokenizer)],
        ..SaveOptions::default()
    };
    save(&model, folder, &options).unwrap();
}

#[test]
fn the_planned_memory_is_that_of_the_layers_that_train_by_default() {
    let dir = tempfile::tempdir().unwrap();
    of_studied_size(&dir.path().join("model"));
    let row = "{\"prompt\": \"Name the colour.\", \"completion\": \"Blue.\"}\n";
    fs::write(dir.path().join("data.jsonl"), row.repeat(40)).unwrap();
    let run = |line: &str| {
        let arguments: Vec<&str> = line.split(' ').collect();
        text(&lisa(dir.path(), &arguments).output().unwrap())
    };
    // With the memory given: not every system says what it has.
    let printed =
        run("train --dry-run --memory 8 --model model --data data.jsonl --pairs text --out run");
    // As many layers as fit into the memory of LoRA for such short rows.
    let active: usize = between(&printed, "lisa: ", " of 24 layers")
        .parse()
        .unwrap();
    assert!((2..=8).contains(&active), "{printed}");
    let reason = between(&printed, "; planned ", " of ");
    assert_eq!(between(&printed, "about ", " planned"), reason, "{printed}");
    // The most, since the length of the rows is not known.
    let shown = run("show --model model");
    assert!(shown.contains(": 8 of 24 layers"), "{shown}");
    assert!(shown.contains("with embeddings and head frozen"), "{shown}");
    let given = run("show --model model --active-layers 3");
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
    let run = |more: &str| {
        let line =
            "train --dry-run --no-eval --memory 0.01 --model model --data data.jsonl --pairs text";
        let line = format!("{line} --out run{more}");
        let arguments: Vec<&str> = line.split(' ').collect();
        let output = lisa(dir.path(), &arguments).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        (output.status.success(), errors)
    };
    let (succeeded, errors) = run("");
    assert!(!succeeded, "{errors}");
    for part in [
        " tokens do not fit into 10 MiB and would be cut at 64: 30 of 40 training rows have no token to train \
         on within 64 tokens",
        "help: the least is ",
        ". To train on the other 10 rows, give --max-seq-length 64",
    ] {
        assert!(errors.contains(part), "{errors}");
    }
    let (succeeded, errors) = run(" --max-seq-length 64");
    assert!(succeeded, "{errors}");
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
fn commands_print_what_they_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| text(&lisa(dir.path(), arguments).output().unwrap());
    let plan = run(&["plan", "--memory", "0.001"]);
    assert!(
        plan.contains("--method lisa") && plan.contains("does not fit"),
        "{plan}"
    );
    assert_eq!(plan.matches(": does not fit").count(), 12, "{plan}");
    let plan = run(&[
        "plan",
        "--device",
        "cpu",
        "--memory",
        "0.03",
        "--max-seq-length",
        "128",
    ]);
    let limits = plan.split("what fits into 31 MiB").nth(1).unwrap();
    let line = limits
        .lines()
        .find(|line| line.contains("--method lisa --recompute --update-in-backward"))
        .unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let (tokens, rows): (usize, usize) = (words[0].parse().unwrap(), words[1].parse().unwrap());
    // More rows of half the length fit than one of the whole length, which the model ends at.
    assert!(tokens == 256 && rows > 1, "{plan}");
    // No more rows than a run has.
    let flags = format!("--batch-size {} --max-seq-length 128", rows.min(8));
    assert!(line.ends_with(&flags), "{plan}");
    let show = run(&["show"]);
    for part in [
        "llama",
        "1509504",
        "8 of",
        "tied",
        "1024 tokens",
        "2 of 8 layers",
    ] {
        assert!(show.contains(part), "`{part}` is not in: {show}");
    }
    let preview = run(&["preview", "--row", "2"]);
    assert!(
        preview.starts_with("row 2 of 1200 (") && preview.contains('['),
        "{preview}"
    );
    assert!(preview.contains("training data: 1200 rows, "), "{preview}");
    assert!(run(&["completions", "bash"]).contains("complete"));
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_says_how_to_continue() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::Stdio;

    let dir = tempfile::tempdir().unwrap();
    let arguments = "train --steps 100000 --eval-examples 1 --log-every 1 --out out";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let mut child = lisa(dir.path(), &arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("step 2 of") {
        line.clear();
        assert!(
            output.read_line(&mut line).unwrap() > 0,
            "it ended before it trained"
        );
    }
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(
        rest.contains("Continue with: lisa train --resume --out"),
        "{rest}"
    );
    assert_eq!(
        fs::read_dir(dir.path().join("out/checkpoints"))
            .unwrap()
            .count(),
        1
    );
}

/// Ctrl-C in the evaluation of all rows, after the model is written.
#[cfg(unix)]
#[test]
fn ctrl_c_in_the_last_evaluation_says_where_the_model_is() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::Stdio;

    let dir = tempfile::tempdir().unwrap();
    let rows = include_str!("../../data/train.jsonl").repeat(3);
    fs::write(dir.path().join("rows.jsonl"), rows).unwrap();
    let arguments = "train --steps 1 --eval-rows 4 --eval-examples 0 --final-eval-all --batch-size 1 \
                     --eval rows.jsonl --out out";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let mut child = lisa(dir.path(), &arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("after: ") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0);
    }
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(sent.success());
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let mut error = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut error)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}{error}");
    assert!(
        error.contains("stopping after the current batch, token or step"),
        "{error}"
    );
    assert!(
        rest.contains("stopped after the last step, 1, in an evaluation"),
        "{rest}"
    );
    assert!(rest.contains("lisa train --resume --out"), "{rest}");
    assert!(!rest.contains("nothing to save"), "{rest}");
    assert!(dir.path().join("out/model/lisa.json").is_file());
}

#[test]
fn a_resumed_run_says_what_changed_and_a_run_without_checkpoints_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let run = |line: &str| {
        let arguments: Vec<&str> = line.split(' ').collect();
        text(&lisa(dir.path(), &arguments).output().unwrap())
    };
    let begun =
        run("train --steps 1 --lr 1e-3 --save-every 0 --eval-rows 2 --eval-examples 0 --out r");
    assert!(
        begun.contains("a checkpoint at the end only, none of the best step"),
        "{begun}"
    );
    let resumed = run("train --resume r --steps 2 --lr 5e-4 --eval-every 1");
    let changes: Vec<&str> = resumed
        .lines()
        .filter_map(|line| line.strip_prefix("  changed: "))
        .collect();
    assert_eq!(
        changes,
        [
            "eval-every 1, was 200",
            "lr 5e-4, was 0.001",
            "steps 2, was 1"
        ]
    );
}

#[test]
fn commands_without_a_device_ignore_an_unknown_one() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [&["completions", "bash"][..], &["preview"]] {
        let mut command = lisa(dir.path(), arguments);
        let output = command.env("BURN_DEVICE", "nonsense").output().unwrap();
        assert!(!text(&output).is_empty());
    }
}

#[test]
fn an_unknown_device_is_an_error_and_devices_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["show", "plan", "devices", "demo"] {
        let mut command = lisa(dir.path(), &[command]);
        let output = command.env("BURN_DEVICE", "nonsense").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            text.starts_with("error: BURN_DEVICE is `nonsense`, which is no backend\n  help: "),
            "{text}"
        );
    }
    let listed = text(&lisa(dir.path(), &["devices"]).output().unwrap());
    assert!(
        listed.contains("flex ") && listed.contains("(used by `lisa train`)"),
        "{listed}"
    );
    assert!(listed.contains("CPU thread"), "{listed}");
}

/// Wrong commands, and what is said.
const WRONG: [(&str, &str); 31] = [
    (
        "train --steps 1e9",
        "error: --steps is `1e9`\n  help: give a whole number, 0 or more, in digits alone\n",
    ),
    (
        "train --lr -1",
        "error: --lr is -1\n  help: give a learning rate above 0\n",
    ),
    (
        "train --max_step 3",
        "error: --max_step is not a flag of `lisa train`\n  help: did you mean `--max-steps`?\n",
    ),
    (
        "train --method full --period 3",
        "error: --period has no effect with --method full\n  help: leave it out, or use \
         --method lisa\n",
    ),
    (
        "train --max_length 9000",
        "error: --max-seq-length is 9000, and the model has 256 positions\n  help: give at most \
         256, or leave it out\n",
    ),
    (
        "train --data t.jsonl --metric contains",
        "error: --metric has no effect with held-out data without answers\n  help: leave it out, \
         or give data with answers, such as prompt and completion\n",
    ),
    (
        "train --eval-fraction 0.2",
        "error: --eval-fraction has no effect with data that has held-out files of its own\n  \
         help: leave it out, or give the training files alone with --data\n",
    ),
    (
        "preview --data t.jsonl --turns last",
        "error: --turns has no effect with data without chats\n  help: leave it out, or give \
         chats\n",
    ),
    (
        "plan --memory 0",
        "error: --memory is `0`\n  help: give the memory of the device in GiB, above 0 (or as 24GB), or leave \
         it out\n",
    ),
    (
        "plan --lora-rank 18446744073709551615",
        "error: --lora-rank is 18446744073709551615\n  help: give 1 to 65536\n",
    ),
    (
        "plan --recompute",
        "error: --recompute is not a flag of `lisa plan`\n  help: leave it out: `lisa plan` compares \
         methods; `lisa train --dry-run` plans a run with its flags\n",
    ),
    (
        "plan --gradient_checkpointing",
        "error: --gradient_checkpointing is not a flag of `lisa plan`\n  help: leave it out: `lisa plan` \
         compares methods; `lisa train --dry-run` plans a run with its flags\n",
    ),
    (
        "plan --no-master-weights",
        "error: --no-master-weights has no effect with --dtype f32, which has no master \
         weights\n  help: leave it out, or use --dtype bf16\n",
    ),
    (
        "generate --prompt a --top-p 0.5",
        "error: --top-p has no effect with --temperature 0, which takes the most probable \
         token\n  help: leave it out, or give a --temperature above 0\n",
    ),
    (
        "generate --prompt a --chat-template chatml",
        "error: --chat-template has no effect with --prompt, which is plain text\n  help: leave \
         it out, or give the message with --chat\n",
    ),
    (
        "train --method foo",
        "error: --method is `foo`\n  help: give one of lisa, full, lora\n",
    ),
    (
        "train --steps",
        "error: --steps has no value\n  help: give one: --steps <STEPS>\n",
    ),
    (
        "train --overwrite --resume",
        "error: --overwrite cannot be given with --resume [<DIR>]\n  help: leave one of them \
         out\n",
    ),
    (
        "export runs/lisa",
        "error: `lisa export` also needs --out <DIR>\n  help: add it; `lisa export --help` lists the flags\n",
    ),
    (
        "generate",
        "error: `lisa generate` also needs --prompt <TEXT> or --chat <TEXT>\n  help: add one of them; \
         `lisa generate --help` lists the flags\n",
    ),
    (
        "export nope --out new",
        "error: there is no folder `nope`\n  help: give the output folder of `lisa train`, or the folder of \
         an adapter\n",
    ),
    (
        "train --resume nope",
        "error: there is no folder `DIR/nope`, and so no checkpoint\n  help: give the folder of a run with \
         --out; without --resume a new run begins here\n",
    ),
    (
        "train here",
        "error: `here` is not an argument of `lisa train`\n  help: `lisa train --help` lists \
         the flags\n",
    ),
    (
        "tran",
        "error: `tran` is not a command of lisa\n  help: did you mean `lisa train`?\n",
    ),
    (
        "train --columns a",
        "error: --columns: `a` in the columns `a` is not KEY=NAME\n  help: give pairs such as \
         question=prompt,answer=completion\n",
    ),
    (
        "train --revision main",
        "error: --revision is `main`, but the bundled model is not on the hub\n  help: leave \
         --revision out, or give the id of a model on the hub: owner/name\n",
    ),
    (
        "train --epochs nan",
        "error: --epochs is NaN\n  help: give a number above 0, or --steps\n",
    ),
    (
        "train --config latin.toml",
        "error: cannot read the settings `latin.toml`\n  because: invalid utf-8 sequence of 1 \
         bytes from index 0\n  help: give a text file in UTF-8\n",
    ),
    (
        "train --policy weighted --importance latin.toml --out new",
        "error: cannot read norms from `DIR/latin.toml`: stream did not contain valid UTF-8\n  \
         help: give a file of norms that `save` or `lisa importance` wrote\n",
    ),
    (
        "train --chat-template foo",
        "error: cannot use `--chat-template foo`\n  because: there is no chat template named \
         \"foo\"\n  help: give one of chatml, llama3, plain, or of the model's own: default; or a \
         file with a Jinja template\n",
    ),
    (
        "generate --prompt a --max-new-tokens 0",
        "error: --max-new-tokens is 0\n  help: give at least 1\n",
    ),
];

#[test]
fn a_wrong_flag_is_reported_as_other_errors_are() {
    let dir = tempfile::tempdir().unwrap();
    let texts = "{\"text\": \"one two\"}\n{\"text\": \"three\"}\n";
    fs::write(dir.path().join("t.jsonl"), texts).unwrap();
    fs::write(dir.path().join("latin.toml"), b"\xe9\n").unwrap();
    let folder = dir.path().canonicalize().unwrap();
    for (line, expected) in WRONG {
        let arguments: Vec<&str> = line.split(' ').collect();
        let output = lisa(dir.path(), &arguments).output().unwrap();
        assert!(!output.status.success(), "{line}");
        let text = String::from_utf8(output.stderr).unwrap();
        let text = text.replace(folder.to_str().unwrap(), "DIR");
        assert_eq!(text, expected, "{line}");
    }
}

#[test]
fn the_plan_adds_up_and_says_what_would_fit() {
    let dir = tempfile::tempdir().unwrap();
    let run = |line: &str| {
        let arguments: Vec<&str> = line.split(' ').collect();
        text(&lisa(dir.path(), &arguments).output().unwrap())
    };
    let plan = run("plan --memory 1");
    assert!(plan.contains("fits: --method lisa\n"), "{plan}");
    assert!(
        !plan.contains("does not fit") && !plan.contains("none fits"),
        "{plan}"
    );
    // 18 MiB: too little for 8 rows of 256 tokens with every method, and enough for one.
    let plan = run("plan --device cpu --memory 0.0176");
    assert!(!plan.contains("  fits: "), "{plan}");
    assert!(plan.contains(" --batch-size 1"), "{plan}");
    assert!(!plan.contains("none fits"), "{plan}");
    let nothing = run("plan --memory 0.001");
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
    let plan = run("plan");
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
        let line = format!("train --dry-run {more}");
        let arguments: Vec<&str> = line.split(' ').collect();
        let output = lisa(dir.path(), &arguments).output().unwrap();
        let said = text(&output);
        let figure = after(&said, "memory      about ");
        assert_eq!(after(&said, "  peak "), figure, "{said}");
        let quantizes = more.starts_with(int8);
        assert_eq!(said.contains("  host memory "), quantizes, "{said}");
        let warned = String::from_utf8(output.stderr).unwrap();
        if more == int8 {
            let needed = after(&warned, "--quantize without --recompute needs ");
            assert_eq!(needed, figure, "{warned}");
        }
    }
}

#[test]
fn without_evaluation_all_rows_are_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let rows = (0..20).map(|i| format!("{{\"text\": \"the number {i}\"}}\n"));
    std::fs::write(dir.path().join("data.jsonl"), rows.collect::<String>()).unwrap();
    for (more, expected) in [
        ("", "18 rows to train on, 2 held out"),
        (" --no-eval", "20 rows to train on, 0 held out"),
        (
            " --no-eval --eval-fraction 0.2",
            "16 rows to train on, 4 held out",
        ),
    ] {
        let line = format!("train --data data.jsonl --dry-run{more}");
        let arguments: Vec<&str> = line.split(' ').collect();
        let said = text(&lisa(dir.path(), &arguments).output().unwrap());
        assert!(said.contains(expected), "{more}: {said}");
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    for line in [
        "show",
        "preview",
        "plan",
        "completions bash",
        "train --dry-run",
        "generate --prompt red --max-new-tokens 1",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = lisa(dir.path(), &arguments);
        let output = command.stdout(writer).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        assert!(output.stderr.is_empty(), "{line}: {output:?}");
    }
}
