//! Steps and epochs, weight decay, and the weights that are evaluated.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use lisa_cli::train::run::Start;
use lisa_lm::Checkpoint;
use serde_json::Value;

use super::{
    HELD_OUT, file_of, flags, go, go_in_parts, lines, message, only_out, run, summary, weights_of,
};

const TRAIN: &str = include_str!("../../data/train.jsonl");

/// Files with the first nine rows of the bundled data, and with three held-out rows.
fn nine(folder: &Path) -> [String; 2] {
    [("nine", TRAIN, 9), ("three", HELD_OUT, 3)].map(|(name, text, count)| {
        let rows: Vec<&str> = text.lines().take(count).collect();
        file_of(folder, &format!("{name}.jsonl"), &rows)
    })
}

/// A run of some epochs of nine rows.
fn nine_rows(out: &Path, epochs: &str, more: &str) -> Vec<f64> {
    let [data, eval] = nine(out.parent().unwrap());
    let more = format!("--data {data} --eval {eval} --steps 0 --epochs {epochs} {more}");
    go(flags(out, &more), Start::Overwrite, false).unwrap();
    lines(out).iter().filter_map(|line| line.loss).collect()
}

#[test]
fn each_row_is_trained_once_in_each_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let tokens = |steps: usize, epochs: &str, more: &str| {
        let losses = nine_rows(&out, epochs, more);
        assert_eq!(losses.len(), steps, "{more}");
        (summary(&out)["tokens"].as_u64().unwrap(), losses)
    };
    let (once, _) = tokens(9, "1", "--batch-size 1");
    let two_by_two = "--batch-size 2 --gradient-accumulation-steps 2";
    let (thrice, losses) = tokens(9, "3", two_by_two);
    assert_eq!(thrice, 3 * once);
    // The mean is over all tokens of the step, however its rows are split into batches.
    for more in [
        "--batch-size 4",
        "--batch-size 1 --gradient-accumulation-steps 4",
        &format!("{two_by_two} --recompute"),
    ] {
        let (tokens, others) = tokens(9, "3", more);
        assert_eq!(tokens, thrice);
        for (a, b) in losses.iter().zip(&others) {
            assert!((a - b).abs() < 1e-4, "{more}: {a} is not {b}");
        }
    }
    let larger = "--batch-size 8 --gradient-accumulation-steps 8";
    assert_eq!(tokens(1, "1", larger).0, once);
    // Two of three steps, which is more than half an epoch.
    assert!(tokens(2, "0.5", two_by_two).0 < once);
}

/// The weights of messages, however the rows are split into batches.
#[test]
fn the_loss_of_a_step_is_the_mean_by_the_weights_of_its_messages() {
    let dir = tempfile::tempdir().unwrap();
    let row = |question: &str, answer: &str, weight: &str| {
        format!(
            r#"{{"messages": [{{"role": "user", "content": "{question}"}},
                {{"role": "assistant", "content": "{answer}", "weight": {weight}}}]}}"#
        )
        .replace('\n', "")
    };
    let file = |name: &str, rows: &[String]| {
        let file = dir.path().join(name);
        fs::write(&file, rows.join("\n")).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let rows = |weights: [&str; 4]| {
        let texts = [
            ("two", "2"),
            ("a red ring", "red"),
            ("Anna", "has 3 hats"),
            ("x", "y z"),
        ];
        let rows = texts.into_iter().zip(weights);
        rows.map(|((question, answer), weight)| row(question, answer, weight))
            .collect::<Vec<_>>()
    };
    let weighted = file("weighted.jsonl", &rows(["1", "0.25", "3", "0"]));
    let plain = file("plain.jsonl", &rows(["1", "1", "1", "1"]));
    let out = dir.path().join("out");
    let [_, eval] = nine(dir.path());
    let loss = |data: &str, more: &str| {
        let all = format!("--data {data} --eval {eval} --steps 0 --epochs 1 --eval-examples 0");
        let given = flags(&out, &format!("{all} {more}"));
        go(given, Start::Overwrite, false).unwrap();
        let losses: Vec<f64> = lines(&out).iter().filter_map(|line| line.loss).collect();
        assert_eq!(losses.len(), 1);
        losses[0]
    };
    // The row of weight 0 is left out.
    let whole = loss(&weighted, "--batch-size 4");
    let one_by_one = "--batch-size 1 --gradient-accumulation-steps 4";
    for more in [one_by_one, &format!("{one_by_one} --recompute")] {
        let found = loss(&weighted, more);
        assert!(
            (found - whole).abs() < 1e-4,
            "{more}: {found} is not {whole}"
        );
    }
    let unweighted = loss(&plain, "--batch-size 4");
    assert!((unweighted - whole).abs() > 1e-2, "{unweighted} is {whole}");
}

#[test]
fn a_run_that_is_resumed_at_each_step_has_the_same_steps() {
    let dir = tempfile::tempdir().unwrap();
    let [data, eval] = nine(dir.path());
    let rows = format!("--data {data} --eval {eval} --steps 0 --epochs 2");
    for pack in ["", "--pack"] {
        let by = "--batch-size 2 --gradient-accumulation-steps 2";
        let more = format!("{rows} {by} {pack}");
        let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
        go(flags(&whole, &more), Start::Overwrite, false).unwrap();
        let calls = go_in_parts(flags(&parts, &more), &parts);
        assert_eq!(
            calls,
            lines(&whole)
                .iter()
                .filter(|line| line.loss.is_some())
                .count()
        );
        assert_eq!(weights_of(&whole), weights_of(&parts), "{pack}");
        assert_eq!(summary(&whole)["tokens"], summary(&parts)["tokens"]);
        fs::remove_dir_all(&parts).unwrap();
    }
}

#[test]
fn a_checkpoint_whose_steps_went_on_in_the_next_epoch_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let [data, eval] = nine(dir.path());
    let more = format!("--data {data} --eval {eval} --gradient-accumulation-steps 2");
    go(flags(&out, &more), Start::Fresh, true).unwrap();
    let path = out.join("checkpoints/step-00000001/state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(state["position"]["index"], 2);
    let mut change = |epoch: u64, index: u64, skipped: u64| {
        state["position"]["epoch"] = epoch.into();
        state["position"]["index"] = index.into();
        state["skipped"] = skipped.into();
        fs::write(&path, state.to_string()).unwrap();
    };
    let mut refused = |epoch: u64, index: u64| {
        change(epoch, index, 0);
        message(only_out(&out), Start::Resume)
    };
    let text = refused(1, 1);
    for part in [
        "cannot resume",
        "step-00000001",
        "batch 2 of epoch 2",
        "--gradient-accumulation-steps 2 does not begin",
        "--out",
    ] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    assert!(refused(0, 4).contains("after 1 step, is at batch 5 of epoch 1"));
    // Steps that were skipped are counted.
    change(0, 4, 1);
    go(only_out(&out), Start::Resume, false).unwrap();
}

/// The parameters of a model folder, by path.
fn parameters(folder: PathBuf) -> BTreeMap<String, (usize, Vec<f32>)> {
    struct Parameters(Vec<String>, BTreeMap<String, (usize, Vec<f32>)>);
    impl ModuleVisitor for Parameters {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let values = param.val().into_data().convert::<f32>();
            let values = values.iter::<f32>().collect();
            self.1.insert(self.0.join("."), (D, values));
        }
    }
    let model = Checkpoint::open(folder).unwrap();
    let model = model.load(&Device::flex(), None).unwrap();
    let mut parameters = Parameters(Vec::new(), BTreeMap::new());
    model.visit(&mut parameters);
    parameters.1
}

#[test]
fn biases_and_norms_are_decayed_only_with_decay_all() {
    let dir = tempfile::tempdir().unwrap();
    let trained = |more: &str| {
        let out = dir.path().join("out");
        let one = "--steps 1 --lr 1e-3 --weight-decay 100 --eval-examples 0";
        let given = flags(&out, &format!("{one} {more}"));
        go(given, Start::Overwrite, false).unwrap();
        parameters(out.join("model"))
    };
    let layered = "--recompute --update-in-backward --max-grad-norm 0";
    for more in ["", "--method full", layered] {
        let matrices = trained(more);
        let all = trained(&format!("{more} --decay-all"));
        let mut vectors = 0;
        for (path, (rank, values)) in &matrices {
            let differ = *values != all[path].1;
            assert!(*rank < 2 || !differ, "{more}: {path}");
            vectors += usize::from(differ);
        }
        assert!(vectors > 1, "{more}");
    }
    // Adapters are matrices; nothing else is trained.
    let (one, other) = (
        trained("--method lora"),
        trained("--method lora --weight-decay 0"),
    );
    let (mut same, mut differ) = (0, 0);
    for (path, (rank, values)) in &one {
        let changed = *values != other[path].1;
        assert!(*rank > 1 || !changed, "{path}");
        same += usize::from(!changed);
        differ += usize::from(changed);
    }
    assert!(same > 2 && differ > 2, "{same} {differ}");
    let out = dir.path().join("out");
    let text = message(flags(&out, "--method lora --decay-all"), Start::Overwrite);
    assert!(
        text.contains("--decay-all has no effect with --method lora"),
        "{text}"
    );
}

#[test]
fn with_quantized_layers_every_held_out_loss_is_of_the_weights_that_are_saved() {
    let dir = tempfile::tempdir().unwrap();
    // A learning rate that changes no weight.
    let still = "--steps 3 --lr 1e-30 --eval-every 1 --eval-examples 0";
    let mut exact = None;
    for quantize in ["none", "int8", "int4"] {
        let out = dir.path().join(quantize);
        let more = format!("{still} --recompute --quantize {quantize}");
        go(flags(&out, &more), Start::Fresh, false).unwrap();
        let summary = summary(&out);
        let before = summary["before"]["loss"].as_f64().unwrap();
        assert_eq!(
            summary["after"]["loss"].as_f64().unwrap(),
            before,
            "{quantize}"
        );
        assert_eq!(*exact.get_or_insert(before), before, "{quantize}");
        let during = lines(&out)
            .into_iter()
            .filter_map(|line| line.held_out_loss);
        let during: Vec<f64> = during.collect();
        assert!(during.len() > 1);
        assert!(
            during.iter().all(|loss| *loss == before),
            "{quantize}: {during:?}"
        );
    }
}

#[test]
fn a_run_says_which_answers_are_of_quantized_layers() {
    let dir = tempfile::tempdir().unwrap();
    let line = "train --steps 1 --batch-size 2 --max-seq-length 48 --eval-rows 4 --eval-examples 1 \
                --max-new-tokens 2 --eval-first --recompute --period 1 --out run";
    for (quantize, expected) in [("none", 0), ("int8", 1)] {
        let line = format!("{line} --overwrite --quantize {quantize}");
        let said = run(dir.path(), &line);
        // Those after training are of the full-precision weights, which a CPU has in host memory.
        let found = said
            .matches("the answers are those of the model with quantized layers")
            .count();
        assert_eq!(found, expected, "{said}");
    }
}
