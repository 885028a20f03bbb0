//! The whole job on the bundled model: resume to the bit, Ctrl-C, what is written, what is refused.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use lisa::importance::Importance;
use lisa_cli::importance::{Against, Of, Options, importance};
use lisa_cli::metrics::Line;
use lisa_cli::run::{Outcome, Start, dry_run, run};
use lisa_cli::settings::{Command, Flags};
use lisa_lm::Checkpoint;

use clap::Parser;

/// Flags as a user gives them, for a run of seven short steps into `out`.
fn flags(out: &Path, more: &[&str]) -> Flags {
    let out = out.to_str().unwrap();
    let mut line = vec!["finetune", "--out", out];
    line.extend(
        "--steps 7 --period 3 --batch-size 2 --eval-examples 3 --max-new-tokens 3".split(' '),
    );
    line.extend("--eval-every 0 --checkpoint-every 0 --max-length 48".split(' '));
    line.extend(more);
    let mut flags = Command::try_parse_from(line).unwrap().flags;
    // The loss of the first ten held-out examples will do here.
    if flags.validation.is_none() && flags.data.is_none() {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/heldout.jsonl");
        let few: Vec<String> = fs::read_to_string(base)
            .unwrap()
            .lines()
            .take(10)
            .map(String::from)
            .collect();
        let file = Path::new(out).parent().unwrap().join("few.jsonl");
        fs::write(&file, few.join("\n")).unwrap();
        flags.validation = Some(file);
    }
    flags
}

fn go(flags: Flags, start: Start, stop: bool) -> anyhow::Result<Outcome> {
    run(flags, start, &Device::flex(), &AtomicBool::new(stop))
}

fn weights_of(out: &Path) -> Vec<u8> {
    fs::read(out.join("model/model.safetensors")).unwrap()
}

fn lines(out: &Path) -> Vec<Line> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .map(|line: Line| Line {
            tokens_per_second: None,
            memory_bytes: None,
            ..line
        })
        .collect()
}

const IN_PIECES: [&str; 6] = [
    "--recompute",
    "3",
    "--pieces",
    "--update-in-backward",
    "--max-grad-norm",
    "0",
];

#[test]
fn a_run_that_is_stopped_anywhere_goes_on_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    for method in [
        &["--accumulation", "2"][..],
        &["--dtype", "bf16", "--moments", "offload"],
        &["--method", "lora"],
        &IN_PIECES,
    ] {
        let whole = dir.path().join("whole");
        let outcome = go(flags(&whole, method), Start::Overwrite, false).unwrap();
        assert_eq!(outcome, Outcome::Finished);
        // Each call takes one step and stops, at every place of a period.
        let parts = dir.path().join("parts");
        let mut outcome = go(flags(&parts, method), Start::Overwrite, true).unwrap();
        let mut calls = 1;
        while outcome == Outcome::Stopped {
            assert!(!parts.join("summary.json").exists());
            let out = Some(parts.clone());
            outcome = go(
                Flags {
                    out,
                    ..Flags::default()
                },
                Start::Resume,
                true,
            )
            .unwrap();
            calls += 1;
        }
        assert_eq!(calls, 7, "{method:?}");
        assert_eq!(weights_of(&whole), weights_of(&parts), "{method:?}");
        assert_eq!(lines(&whole), lines(&parts), "{method:?}");
        let kept = fs::read_dir(parts.join("checkpoints")).unwrap().count();
        assert_eq!(kept, 2);
        fs::remove_dir_all(&parts).unwrap();
    }
}

#[test]
fn what_is_written_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    go(
        flags(&out, &["--freeze", "embed_tokens"]),
        Start::Fresh,
        false,
    )
    .unwrap();
    let model = Checkpoint::open(out.join("model")).unwrap();
    assert!(model.load(&Device::flex(), None).is_ok());
    let lines = lines(&out);
    assert_eq!(lines.len(), 7);
    assert!(
        lines
            .iter()
            .all(|line| line.active_layers.len() == 2 && line.loss.is_some())
    );
    assert_eq!(lines[0].active_layers, lines[2].active_layers);
    let summary: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
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
    // The model that came out goes in again, with its tokenizer.
    let again = dir.path().join("again");
    let model = out.join("model");
    let more = [
        "--model",
        model.to_str().unwrap(),
        "--method",
        "full",
        "--steps",
        "1",
    ];
    let mut flags = flags(&again, &[]);
    flags = Command::try_parse_from(["finetune"].into_iter().chain(more))
        .unwrap()
        .flags
        .or(flags);
    go(flags, Start::Fresh, false).unwrap();
}

#[test]
fn a_dry_run_loads_everything_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let dry = |more: &[&str], start| dry_run(flags(&out, more), start, &Device::flex());
    for more in [
        &["--quantize", "int8", "--recompute"][..],
        &["--method", "full"],
        &["--method", "lora"],
    ] {
        dry(more, Start::Fresh).unwrap();
    }
    assert!(!out.exists());
    // What a run would refuse it refuses, the last thing that is loaded included.
    assert!(dry(&["--freeze", "nonsense"], Start::Fresh).is_err());
    go(flags(&out, &[]), Start::Fresh, true).unwrap();
    assert!(dry(&[], Start::Fresh).is_err());
    dry(&[], Start::Resume).unwrap();
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
    assert!(dry(&[], Start::Resume).is_err());
    dry(&[], Start::Overwrite).unwrap();
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
fn errors_say_what_where_and_what_to_do_without_colours_in_a_pipe() {
    use std::process::Command;

    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.jsonl");
    fs::write(&bad, "{\"text\": \"fine\"}\n{\"txt\": 1}\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lisa"))
        .args(["--data", bad.to_str().unwrap(), "--out"])
        .arg(dir.path().join("out"))
        .env("BURN_DEVICE", "flex")
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

#[cfg(unix)]
#[test]
fn importance_is_measured_and_every_policy_trains_and_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("importance");
    let mut options = Options {
        of: Of::Weights,
        against: Against::Full,
        lora_lr: None,
        flags: flags(&out, &["--steps", "2"]),
    };
    importance(&options, &Device::flex()).unwrap();
    let path = out.join("importance.json");
    let weights = Importance::load(&path).unwrap();
    assert_eq!(
        (weights.full.layers.len(), weights.lora.layers.len()),
        (8, 8)
    );
    assert_eq!(weights.full.observations, 2);
    let p = weights.probabilities().unwrap();
    assert!(p.iter().all(|p| *p > 0.9), "{p:?}");
    assert!(
        fs::read_to_string(out.join("norms.svg"))
            .unwrap()
            .contains("LoRA")
    );
    // The update alone: LoRA leaves what is in no layer as it was.
    options.of = Of::Update;
    importance(&options, &Device::flex()).unwrap();
    let update = Importance::load(&path).unwrap();
    assert!(update.lora.outside.iter().all(|(_, norm)| *norm == 0.0));
    assert!(update.full.outside.iter().all(|(_, norm)| *norm > 0.0));
    assert!(update.lora.layers.iter().all(|(_, norm)| *norm > 0.0));

    let path = path.to_str().unwrap();
    for policy in [
        &["--policy", "weighted", "--importance", path][..],
        &["--policy", "bernoulli", "--importance", path, "--unbiased"],
        &["--policy", "cyclic", "--order", "descending"],
        &["--policy", "gradient"],
        &["--policy", "budget", "--share", "0.3", "--split", "attn"],
        &["--policy", "fixed", "--fixed-layers", "1,5"],
    ] {
        let whole = dir.path().join("whole");
        go(flags(&whole, policy), Start::Overwrite, false).unwrap();
        let parts = dir.path().join("parts");
        let mut outcome = go(flags(&parts, policy), Start::Overwrite, true).unwrap();
        while outcome == Outcome::Stopped {
            let out = Some(parts.clone());
            let again = Flags {
                out,
                ..Flags::default()
            };
            outcome = go(again, Start::Resume, true).unwrap();
        }
        assert!(weights_of(&whole) == weights_of(&parts), "{policy:?}");
        let layers = |out: &Path| -> Vec<Vec<usize>> {
            lines(out)
                .into_iter()
                .map(|line| line.active_layers)
                .collect()
        };
        assert_eq!(layers(&whole), layers(&parts));
    }
}

#[test]
fn options_of_one_policy_are_refused_with_another() {
    let dir = tempfile::tempdir().unwrap();
    let message = |more: &[&str]| {
        let error = go(flags(&dir.path().join("out"), more), Start::Fresh, false);
        format!("{:#}", error.unwrap_err())
    };
    assert!(message(&["--policy", "weighted"]).contains("finetune importance"));
    assert!(
        message(&["--probabilities", "1,0"]).contains("--policy weighted or --policy bernoulli")
    );
    assert!(message(&["--policy", "fixed"]).contains("--fixed-layers"));
    assert!(message(&["--fixed-layers", "1"]).contains("--policy fixed"));
    let absent = message(&["--policy", "weighted", "--importance", "nowhere.json"]);
    assert!(absent.contains("nowhere.json"), "{absent}");
    let few = message(&["--policy", "weighted", "--probabilities", "1,1"]);
    assert!(few.contains("8 layers"), "{few}");
}

#[test]
fn ctrl_c_saves_and_says_how_to_go_on() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};

    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_lisa"))
        .args(["--steps", "100000", "--eval-examples", "1", "--out"])
        .arg(dir.path().join("out"))
        .env("BURN_DEVICE", "flex")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("before:") {
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
        rest.contains("Go on with: finetune --resume --out"),
        "{rest}"
    );
    assert_eq!(
        fs::read_dir(dir.path().join("out/checkpoints"))
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn what_cannot_be_done_is_refused_in_words_that_help() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let bad = dir.path().join("bad.jsonl");
    fs::write(&bad, "{\"text\": \"fine\"}\n{\"txt\": 1}\n").unwrap();
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let (bad, empty) = (bad.to_str().unwrap(), empty.to_str().unwrap());
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--active-layers", "9"],
            &["active_layers is 9", "8 layers"],
        ),
        (&["--active-layers", "0"], &["active_layers is 0"]),
        (&["--period", "0"], &["sampling_period is 0"]),
        (&["--freeze", "nonsense"], &["matches none", "embed_tokens"]),
        (
            &["--policy", "bernoulli", "--probabilities", "0.5,2"],
            &["2 probabilities", "8 layers"],
        ),
        (&["--probabilities", "0.5"], &["--policy bernoulli"]),
        (&["--batch-size", "0"], &["--batch-size is 0"]),
        (&["--pieces"], &["--pieces", "add --recompute"]),
        (&["--lr", "-1"], &["--lr is -1"]),
        (&["--data", bad], &["bad.jsonl", "2", "txt"]),
        (&["--data", "/nowhere/at/all"], &["/nowhere/at/all"]),
        (&["--model", empty], &[empty, "config.json"]),
        (&["--model", "some/model"], &["--features hub"]),
        (
            &["--validation-split", "0", "--data", "DATA"],
            &["--validation"],
        ),
    ];
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/heldout.jsonl");
    for (arguments, parts) in cases {
        let arguments: Vec<String> = arguments
            .iter()
            .map(|a| a.replace("DATA", data.to_str().unwrap()))
            .collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut line = vec!["finetune"];
        if let Some(at) = arguments.iter().position(|a| *a == "-1") {
            line.extend(&arguments[..at - 1]);
            line.push("--lr=-1");
        } else {
            line.extend(&arguments);
        }
        let asked = Command::try_parse_from(line).unwrap().flags;
        let flags = if arguments.contains(&"--data") {
            asked.or(Flags {
                out: Some(out.clone()),
                ..Flags::default()
            })
        } else {
            asked.or(flags(&out, &[]))
        };
        let error = format!("{:#}", go(flags, Start::Fresh, true).unwrap_err());
        for part in *parts {
            assert!(
                error.contains(part),
                "{arguments:?}: `{part}` is not in: {error}"
            );
        }
    }
    // A folder that holds a run, a setting that changed, nothing to resume.
    let message = |flags, start| format!("{:#}", go(flags, start, true).unwrap_err());
    assert!(message(flags(&out, &[]), Start::Resume).contains("no checkpoint"));
    go(flags(&out, &[]), Start::Overwrite, true).unwrap();
    assert!(message(flags(&out, &[]), Start::Fresh).contains("--resume"));
    let changed = message(flags(&out, &["--active-layers", "3"]), Start::Resume);
    assert!(changed.contains("--active-layers is 3"), "{changed}");
    // A truncated checkpoint names its file.
    let checkpoint = fs::read_dir(out.join("checkpoints"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let record = checkpoint.path().join("optimizer.bpk");
    let bytes = fs::read(&record).unwrap();
    fs::write(&record, &bytes[..bytes.len() / 2]).unwrap();
    assert!(message(flags(&out, &[]), Start::Resume).contains("optimizer.bpk"));
}

#[cfg(unix)]
mod crashes {
    use super::*;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    /// The program, on a run of forty short steps that saves every other one.
    fn program(out: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lisa"));
        command
            .args("--steps 40 --period 3 --batch-size 2 --eval-examples 0".split(' '))
            .args("--eval-every 0 --checkpoint-every 2 --max-length 48 --out".split(' '))
            .arg(out)
            .args(more)
            .env("BURN_DEVICE", "flex")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// Ends with the process, or kills it after a while; whether it ended by itself.
    fn kill_after(mut child: Child, while_: Duration) -> bool {
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success());
                return true;
            }
            if started.elapsed() > while_ {
                child.kill().unwrap();
                child.wait().unwrap();
                return false;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_run_killed_twenty_times_ends_in_the_same_bits() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
        let started = Instant::now();
        assert!(program(&whole, &[]).status().unwrap().success());
        let once = started.elapsed();
        let mut rng = lisa::policy::DrawRng::new(std::process::id().into(), 0);
        let mut kills = 0;
        let mut finished = false;
        while kills < 20 {
            // A run that came to its end has its last part done again, the final write included.
            let has_checkpoint = fs::read_dir(killed.join("checkpoints"))
                .is_ok_and(|mut all| all.any(|entry| entry.unwrap().path().extension().is_none()));
            let how = if has_checkpoint {
                "--resume"
            } else {
                "--overwrite"
            };
            let child = program(&killed, &[how]).spawn().unwrap();
            finished = kill_after(child, once.mul_f64(rng.unit()));
            kills += usize::from(!finished);
        }
        if !finished {
            assert!(program(&killed, &["--resume"]).status().unwrap().success());
        }
        assert_eq!(weights_of(&killed), weights_of(&whole));
        assert_eq!(lines(&killed), lines(&whole));
    }

    #[test]
    fn a_full_disk_and_a_damaged_checkpoint_leave_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        // No file above 64 KiB can be written, as if the disk were full.
        let shell = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
        let limited = |how: &[&str]| {
            let program = program(&out, how);
            let mut command = Command::new("bash");
            command.args(["-c", shell]).arg(program.get_program());
            let output = command.args(program.get_args()).output().unwrap();
            assert!(!output.status.success());
            String::from_utf8(output.stderr).unwrap()
        };
        assert!(limited(&[]).contains("cannot write the checkpoint"));
        assert!(
            program(&out, &["--overwrite", "--steps", "7"])
                .status()
                .unwrap()
                .success()
        );
        let last = weights_of(&out);
        assert!(limited(&["--resume"]).contains("cannot write the checkpoint"));
        assert_eq!(weights_of(&out), last);

        let newest = out.join("checkpoints/step-00000006");
        for (file, damage) in [
            ("weights.bpk", 100),
            ("optimizer.bpk", 1000),
            ("state.json", 20),
        ] {
            let path = newest.join(file);
            let good = fs::read(&path).unwrap();
            for bad in [good[..good.len() - damage].to_vec(), vec![0; good.len()]] {
                fs::write(&path, bad).unwrap();
                let flags = Flags {
                    out: Some(out.clone()),
                    ..Flags::default()
                };
                let error = format!("{:#}", go(flags, Start::Resume, true).unwrap_err());
                assert!(error.contains(file), "{error}");
            }
            fs::write(&path, good).unwrap();
        }
        fs::remove_dir_all(newest).unwrap();
        assert!(
            program(&out, &["--resume", "--steps", "7"])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(weights_of(&out), last);
        // A place where nobody may write, the administrator included.
        if cfg!(target_os = "linux") {
            let flags = flags(&out, &["--out", "/proc/nowhere"]);
            let error = go(flags, Start::Fresh, true).unwrap_err();
            assert!(format!("{error:#}").contains("/proc/nowhere"), "{error:#}");
        }
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = go(flags(&file, &[]), Start::Fresh, true).unwrap_err();
        assert!(
            format!("{error:#}").contains("cannot make the folder"),
            "{error:#}"
        );
    }

    #[test]
    fn numbers_that_are_none_stop_the_run_or_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let more = [
            "--lr",
            "1e30",
            "--max-grad-norm",
            "0",
            "--checkpoint-every",
            "1",
        ];
        let error = go(flags(&out, &more), Start::Fresh, false).unwrap_err();
        let error = format!("{error:#}");
        for part in [
            "step",
            "batch",
            "epoch 1",
            "first row begins `",
            "layers",
            "--lr",
            "--skip-bad-steps",
        ] {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
        assert!(out.join("checkpoints/step-00000001/state.json").is_file());
        assert!(!out.join("model").exists());
        let more = [&more[..], &["--skip-bad-steps"]].concat();
        let error = go(flags(&out, &more), Start::Overwrite, false).unwrap_err();
        assert!(
            format!("{error:#}").contains("batch 12 of epoch 1"),
            "{error:#}"
        );
    }
}
