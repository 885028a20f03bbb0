//! Folders that a user gives or is given: of a run, an adapter, an export; and the model card in them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use super::commands::{lisa, text};
use super::{refused, run, said};

/// The settings in the card of a model.
fn settings_of(card: &Path) -> String {
    let card = fs::read_to_string(card).unwrap();
    let (_, rest) = card.split_once("```toml\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

#[test]
fn a_second_demo_has_a_folder_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("runs/lisa")).unwrap();
    fs::write(dir.path().join("runs/lisa/summary.json"), "{}").unwrap();
    for arguments in [&[][..], &["demo", "--steps", "1"]] {
        let mut child = lisa(dir.path(), arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // What it will do, before it trains.
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = output.lines().map(Result::unwrap);
        let first = lines.next().unwrap();
        assert!(
            first.ends_with("runs/lisa` has files already: this run is written to `runs/lisa-2`"),
            "{first}"
        );
        let written = lines.find(|line| line.starts_with("output  "));
        assert!(written.unwrap().contains("/runs/lisa-2: "));
        child.kill().unwrap();
        child.wait().unwrap();
        let _ = fs::remove_dir_all(dir.path().join("runs/lisa-2"));
    }
    let kept = fs::read_to_string(dir.path().join("runs/lisa/summary.json"));
    assert_eq!(kept.unwrap(), "{}");
    // `lisa train` has the one folder.
    let found = refused(dir.path(), "train --steps 1 --no-eval");
    assert!(found.contains("has files that are not of a run"), "{found}");
}

#[test]
fn the_settings_of_a_card_are_those_of_another_run() {
    let dir = tempfile::tempdir().unwrap();
    let rows =
        (0..40).map(|i| format!("{{\"prompt\": \"number {i}\", \"completion\": \"{i}\"}}\n"));
    fs::write(dir.path().join("data.jsonl"), rows.collect::<String>()).unwrap();
    let texts = (0..9).map(|i| format!("{{\"text\": \"the number {i}\"}}\n"));
    fs::write(dir.path().join("texts.jsonl"), texts.collect::<String>()).unwrap();
    let short = "--eval-examples 1 --max-new-tokens 2 --out";
    for (name, line, data) in [
        (
            "lisa",
            format!("--data data.jsonl --steps 4 {short}"),
            "--data data.jsonl",
        ),
        (
            "lora",
            format!("--data data.jsonl --method lora --epochs 0.2 {short}"),
            "--data data.jsonl",
        ),
        (
            "full",
            format!("--method full --steps 2 --eval-rows 2 {short}"),
            "",
        ),
        (
            "texts",
            "--data texts.jsonl --steps 2 --out".to_owned(),
            "--data texts.jsonl",
        ),
        (
            "none",
            "--steps 2 --no-eval --schedule constant --out".to_owned(),
            "",
        ),
    ] {
        run(dir.path(), &format!("train {line} {name}"));
        let file = settings_of(&dir.path().join(name).join("model/README.md"));
        for key in [
            "memory = ",
            "data-memory = ",
            "min-lr = ",
            "out = ",
            "data = ",
        ] {
            assert!(
                !file.lines().any(|line| line.starts_with(key)),
                "{key}: {file}"
            );
        }
        let ends = ["epochs = ", "steps = "]
            .map(|key| file.lines().filter(|line| line.starts_with(key)).count());
        assert_eq!(ends.iter().sum::<usize>(), 1, "{file}");
        fs::write(dir.path().join("card.toml"), &file).unwrap();
        let line = format!("train --dry-run --config card.toml --out again {data}");
        run(dir.path(), line.trim_end());
        // The same settings.
        let line = format!("train --config card.toml --out {name}-again {data}");
        run(dir.path(), line.trim_end());
        let again = format!("{name}-again/model/README.md");
        assert_eq!(settings_of(&dir.path().join(again)), file);
    }
}

#[test]
fn an_adapter_is_merged_in_the_dtype_of_its_run() {
    let dir = tempfile::tempdir().unwrap();
    let read = |path: &str| fs::read(dir.path().join(path)).unwrap();
    // The bundled model is stored as bf16, and trained as f32.
    let short = "--method lora --steps 2 --no-eval";
    run(dir.path(), &format!("train {short} --out r"));
    let model = read("r/model/model.safetensors");
    // As the end of the run says.
    run(dir.path(), "export r/adapter --merge --out merged");
    assert!(read("merged/model.safetensors") == model);
    run(dir.path(), "export r --merge --out finished");
    assert!(read("finished/model.safetensors") == model);
    run(dir.path(), "export r --out adapter");
    run(dir.path(), "export adapter --merge --out later");
    assert!(read("later/model.safetensors") == model);

    // The cards are those of the run.
    assert!(read("finished/README.md") == read("r/model/README.md"));
    assert!(read("adapter/README.md") == read("r/adapter/README.md"));
    run(dir.path(), "export r --merge --dtype bf16 --out half");
    let card = fs::read_to_string(dir.path().join("half/README.md")).unwrap();
    assert!(card.contains("| dtype | bf16, trained in f32 |"), "{card}");
    // An earlier step has no card, and that of the folder is of another model.
    run(
        dir.path(),
        "train --steps 2 --no-eval --save-every 1 --out lisa",
    );
    run(dir.path(), "export lisa --out step");
    assert!(dir.path().join("step/README.md").is_file());
    run(dir.path(), "export lisa --step 1 --overwrite --out step");
    assert!(!dir.path().join("step/README.md").exists());
}

#[test]
fn an_export_keeps_the_card_of_the_user() {
    let dir = tempfile::tempdir().unwrap();
    let card = dir.path().join("copy/README.md");
    let mine = "# Mine\n\nI wrote this.\n";
    run(
        dir.path(),
        "train --method lora --steps 2 --no-eval --save-every 1 --out r",
    );
    // With a card of the run, without one, and with that of an adapter.
    for line in [
        "export r --merge --out copy",
        "export r --merge --step 1 --out copy",
        "export r --out copy",
    ] {
        let _ = fs::remove_dir_all(dir.path().join("copy"));
        run(dir.path(), line);
        fs::write(&card, mine).unwrap();
        let found = said(dir.path(), &format!("{line} --overwrite"));
        assert_eq!(fs::read_to_string(&card).unwrap(), mine, "{line}");
        assert!(
            found.contains("copy/README.md is kept: it is not of an export"),
            "{found}"
        );
    }
    // A card of an export may have been changed: the user is told.
    fs::remove_file(&card).unwrap();
    let line = "export r --out copy --overwrite";
    let found = said(dir.path(), line);
    assert!(!found.contains("README.md"), "{found}");
    let ours = fs::read_to_string(&card).unwrap();
    let found = said(dir.path(), line);
    assert!(!found.contains("README.md"), "{found}");
    fs::write(&card, format!("{ours}\nMore.\n")).unwrap();
    let found = said(dir.path(), line);
    assert!(
        found.contains("copy/README.md of an earlier export is replaced"),
        "{found}"
    );
    assert_eq!(fs::read_to_string(&card).unwrap(), ours);
}

#[test]
fn the_folder_of_the_run_is_named_if_a_part_of_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), "train --steps 2 --no-eval --out r");
    for part in ["checkpoints/step-00000002", "checkpoints", "model"] {
        let found = refused(dir.path(), &format!("train --resume r/{part} --steps 3"));
        assert!(found.contains("give the folder of the run, `/"), "{found}");
        assert!(
            found.contains("/r`: it continues from its newest checkpoint, of step 2\n"),
            "{found}"
        );
    }
    let found = refused(dir.path(), "export r/checkpoints/step-00000002 --out x");
    assert!(found.contains("/r`, and a step with --step\n"), "{found}");
}

#[cfg(unix)]
#[test]
fn the_commands_that_a_run_prints_can_be_pasted_into_a_shell() {
    let dir = tempfile::tempdir().unwrap();
    let line = "train --method lora --steps 1 --no-eval --out";
    let line: Vec<&str> = line.split(' ').chain(["my run"]).collect();
    let printed = text(&lisa(dir.path(), &line).output().unwrap());
    for command in ["lisa train --adapter", "lisa export"] {
        let (_, rest) = printed.split_once(&format!("`{command} '/")).unwrap();
        let (path, _) = rest.split_once('\'').unwrap();
        assert!(path.ends_with("/my run/adapter"), "{printed}");
    }
}

#[test]
fn a_resumed_run_says_what_becomes_of_the_card() {
    let dir = tempfile::tempdir().unwrap();
    let card = dir.path().join("r/model/README.md");
    let first = said(dir.path(), "train --steps 1 --no-eval --out r");
    assert!(!first.contains("README.md"), "{first}");
    let ours = fs::read_to_string(&card).unwrap();
    fs::write(&card, format!("{ours}\nMore.\n")).unwrap();
    let found = said(dir.path(), "train --resume r --steps 2");
    let part = "r/model/README.md is replaced, with any changes to it";
    assert!(found.contains(part), "{found}");
    let ours = fs::read_to_string(&card).unwrap();
    assert!(
        ours.contains("of step 2") && !ours.contains("More."),
        "{ours}"
    );
    let mine = "# Mine\n\nI wrote this.\n";
    fs::write(&card, mine).unwrap();
    let found = said(dir.path(), "train --resume r --steps 3");
    let part = "r/model/README.md is kept: its title is not that of a run";
    assert!(found.contains(part), "{found}");
    assert_eq!(fs::read_to_string(&card).unwrap(), mine);
}

#[test]
fn a_demo_is_resumed_and_replaced_in_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let step = |folder: &str| {
        let text = fs::read_to_string(dir.path().join(folder).join("model/lisa.json")).unwrap();
        let text: serde_json::Value = serde_json::from_str(&text).unwrap();
        text["step"].as_u64().unwrap()
    };
    let runs = || {
        let entries = fs::read_dir(dir.path().join("runs")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    // A demo that was killed while it read its data has left its lock.
    fs::create_dir_all(dir.path().join("runs/lisa")).unwrap();
    fs::write(dir.path().join("runs/lisa/.lisa-lock"), "").unwrap();
    run(dir.path(), "demo --steps 1");
    assert_eq!((runs(), step("runs/lisa")), (vec!["lisa".into()], 1));
    run(dir.path(), "demo --steps 1");
    assert_eq!(runs(), ["lisa", "lisa-2"]);
    run(dir.path(), "demo --resume --steps 2");
    assert_eq!((step("runs/lisa"), step("runs/lisa-2")), (1, 2));
    // The last one is that with the highest number.
    let moved = ["runs/lisa-2", "runs/lisa-4"].map(|name| dir.path().join(name));
    fs::rename(&moved[0], &moved[1]).unwrap();
    run(dir.path(), "demo --resume --steps 3");
    assert_eq!((step("runs/lisa"), step("runs/lisa-4")), (1, 3));
    run(dir.path(), "demo --overwrite --steps 2");
    assert_eq!((step("runs/lisa"), step("runs/lisa-4")), (2, 3));
    assert_eq!(runs(), ["lisa", "lisa-4"]);
}

#[test]
fn without_a_merged_model_the_end_of_a_run_names_the_adapter_once() {
    let dir = tempfile::tempdir().unwrap();
    let line = "train --method lora --no-merge --steps 2 --no-eval --out r";
    let printed = said(dir.path(), line);
    assert!(
        printed.contains("; the adapter of step 2 is in "),
        "{printed}"
    );
    assert!(!printed.contains("the model of step"), "{printed}");
    assert!(!printed.contains("the adapter alone"), "{printed}");
    assert!(printed.contains("`lisa export "), "{printed}");
    let card = fs::read_to_string(dir.path().join("r/adapter/README.md")).unwrap();
    assert!(card.contains("This adapter is of step 2 of 2"), "{card}");

    // The folder of a run, or of an adapter, in place of a model.
    let found = refused(dir.path(), "generate --model r --prompt a");
    assert!(found.contains("`r` is the folder of a run"), "{found}");
    assert!(
        found.contains("`lisa export r --merge --out DIR`"),
        "{found}"
    );
    let found = refused(dir.path(), "generate --model r/adapter --prompt a");
    assert!(
        found.contains("`lisa export r/adapter --merge --out DIR`"),
        "{found}"
    );
    let found = refused(dir.path(), "train --adapter r --steps 1 --out x");
    assert!(
        found.contains("/r`, which is the folder of a run"),
        "{found}"
    );
    assert!(found.contains("/r/adapter`"), "{found}");
    let found = refused(dir.path(), "show --model r/adapter");
    assert!(found.contains("is the folder of an adapter"), "{found}");
    run(dir.path(), "train --steps 1 --no-eval --out whole");
    let found = refused(dir.path(), "generate --model whole --prompt a");
    assert!(
        found.contains("give the folder of its model, `whole/model`"),
        "{found}"
    );
    let help = run(dir.path(), "generate --help");
    assert!(
        help.contains("--prompt") && help.contains("--chat"),
        "{help}"
    );
}
