//! Importance, and every sampling policy.

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use lisa::importance::Importance;
use lisa_cli::commands::importance::{Against, Of, Options, importance};
use lisa_cli::train::run::Start;

use super::commands::{lisa, text};
use super::{flags, go, go_in_parts, lines, weights_of};

#[test]
fn importance_is_measured_and_every_policy_trains_and_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("importance");
    let mut options = Options {
        of: Of::Weights,
        against: Against::Full,
        lora_lr: None,
        overwrite: false,
        config: None,
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
    // Of the update alone: LoRA trains nothing outside the layers.
    options.of = Of::Update;
    let error = importance(&options, &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("importance.json already"));
    options.overwrite = true;
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
        let _ = fs::remove_dir_all(&parts);
        go_in_parts(flags(&parts, policy), &parts);
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
fn parts_of_layers_are_counted_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let line =
        "train --policy cyclic --order descending --split attn --steps 2 --no-eval --out out";
    let arguments: Vec<&str> = line.split(' ').collect();
    let printed = text(&lisa(dir.path(), &arguments).output().unwrap());
    assert!(
        printed.contains("lisa: 2 of 16 parts of 8 layers (14, 15), sampled anew every 10 steps"),
        "{printed}"
    );
    // The axis of the plot has every part.
    let plot = fs::read_to_string(dir.path().join("out/losses.svg")).unwrap();
    assert!(plot.contains("\n14\n</text>"), "{plot}");
}
