//! Importance, and every sampling policy.

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use lisa::LayerMap;
use lisa::importance::{Importance, Scores};
use lisa_cli::bundled;
use lisa_cli::commands::importance::{Against, By, Of, Options, importance};
use lisa_cli::settings::Flags;
use lisa_cli::terminal::report::report;
use lisa_cli::train::run::Start;
use lisa_lm::{CausalLm, ModelConfig};

use super::{flags, go, go_in_parts, lines, parsed, printed, refused, run, weights_of};

/// Flags for two short runs of `lisa importance`.
fn of_both(out: &Path) -> Flags {
    let short = "--steps 2 --batch-size 2 --max-seq-length 48";
    parsed(&format!("{short} --out {}", out.display()))
}

#[test]
fn importance_refuses_flags_without_effect_there() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("importance");
    let refused = |more: &str, against: Against, lora_lr: Option<f64>| {
        let options = Options {
            by: By::Ratio,
            of: None,
            against: Some(against),
            lora_lr,
            overwrite: false,
            config: None,
            flags: parsed(more).or(of_both(&out)),
        };
        let error = importance(&options, &Device::flex()).unwrap_err();
        assert!(!out.exists(), "{more}");
        let report = report(&error);
        anstream::adapter::strip_str(&report).to_string()
    };
    for flag in [
        "--method lora",
        "--update-in-backward",
        "--skip-bad-steps",
        "--epochs 2",
        "--save-every 3",
        "--keep 3",
        "--log-every 3",
        "--eval-every 3",
        "--eval-rows 3",
        "--eval-first",
        "--final-eval-all",
        "--no-eval",
        "--metric contains",
        "--eval-examples 3",
        "--max-new-tokens 3",
    ] {
        let name = flag.split(' ').next().unwrap();
        assert_eq!(
            refused(flag, Against::Lisa, None),
            format!(
                "error: {name} has no effect with `lisa importance`\n  help: leave it out, or use it \
                 with `lisa train`\n"
            )
        );
    }
    assert_eq!(
        refused("--policy cyclic", Against::Full, None),
        "error: --policy has no effect with --against full\n  help: leave it out, or use --by ratio \
         --against lisa\n"
    );
    assert_eq!(
        refused("", Against::Full, Some(-1.0)),
        "error: --lora-lr is -1\n  help: give a learning rate above 0\n"
    );
}

#[test]
fn importance_is_measured_and_every_policy_trains_and_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("importance");
    let mut options = Options {
        by: By::Ratio,
        of: None,
        against: None,
        lora_lr: None,
        overwrite: false,
        config: None,
        flags: of_both(&out),
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
    let plot = || fs::read_to_string(out.join("norms.svg")).unwrap();
    assert!(plot().contains("mean norm of the weights"));
    // Of the update alone: LoRA trains nothing outside the layers.
    options.of = Some(Of::Update);
    let error = importance(&options, &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("importance.json already"));
    options.overwrite = true;
    importance(&options, &Device::flex()).unwrap();
    assert!(plot().contains("mean norm of the update"));
    let update = Importance::load(&path).unwrap();
    assert!(update.lora.outside.iter().all(|(_, norm)| *norm == 0.0));
    assert!(update.full.outside.iter().all(|(_, norm)| *norm > 0.0));
    assert!(update.lora.layers.iter().all(|(_, norm)| *norm > 0.0));

    let path = path.display();
    for policy in [
        &format!("--policy weighted --importance {path}")[..],
        &format!("--policy bernoulli --importance {path} --unbiased"),
        "--policy cyclic --order descending",
        "--policy gradient",
        "--policy budget --share 0.3 --split attn",
        "--policy fixed --fixed-layers 1,5",
    ] {
        let whole = dir.path().join("whole");
        go(flags(&whole, policy), Start::Overwrite, false).unwrap();
        let parts = dir.path().join("parts");
        let _ = fs::remove_dir_all(&parts);
        go_in_parts(flags(&parts, policy), &parts);
        assert!(weights_of(&whole) == weights_of(&parts), "{policy}");
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
fn the_lora_run_has_three_times_the_learning_rate_of_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("importance");
    let measured = |lora_lr: Option<f64>| {
        let options = Options {
            by: By::Ratio,
            of: Some(Of::Update),
            against: None,
            lora_lr,
            overwrite: true,
            config: None,
            flags: parsed("--lr 1e-3").or(of_both(&out)),
        };
        importance(&options, &Device::flex()).unwrap();
        Importance::load(out.join("importance.json")).unwrap()
    };
    let default = measured(None);
    assert_eq!(measured(Some(3e-3)), default);
    let same = measured(Some(1e-3));
    assert!(same.full == default.full && same.lora != default.lora);
}

#[test]
fn parts_of_layers_are_counted_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let line =
        "train --policy cyclic --order descending --split attn --steps 2 --no-eval --out out";
    let printed = run(dir.path(), line);
    assert!(
        printed.contains("lisa: 2 of 16 parts of 8 layers (14, 15), sampled anew every 10 steps"),
        "{printed}"
    );
    // The axis of the plot has every part.
    let plot = fs::read_to_string(dir.path().join("out/losses.svg")).unwrap();
    assert!(plot.contains("\n14\n</text>"), "{plot}");
}

#[test]
fn fixed_layers_are_not_sampled_anew() {
    let dir = tempfile::tempdir().unwrap();
    let line = "train --policy fixed --fixed-layers 0,2 --steps 1 --no-eval --out out";
    let printed = run(dir.path(), line);
    assert!(
        printed.contains("lisa: 2 of 8 layers (0, 2), always the same\n"),
        "{printed}"
    );
    let card = fs::read_to_string(dir.path().join("out/model/README.md")).unwrap();
    let method = "| method | LISA: layers 0, 2, always the same |";
    assert!(card.contains(method), "{card}");
}

#[test]
fn embeddings_and_head_train_in_a_share_of_the_periods() {
    let dir = tempfile::tempdir().unwrap();
    let line = "train --steps 8 --period 2 --no-eval --out out";
    let refusal = |more: &str| refused(dir.path(), &format!("{line} {more}"));
    let method = "sampled anew every 2 steps; parameters outside the layers in 1 of 2 periods";
    let printed = run(dir.path(), &format!("{line} --outer-every 2"));
    assert!(printed.contains(method), "{printed}");
    let out = dir.path().join("out");
    let card = fs::read_to_string(out.join("model/README.md")).unwrap();
    assert!(card.contains(method), "{card}");
    let steps = lines(&out);
    let active: Vec<_> = steps.iter().map(|line| line.outer_active).collect();
    let (on, off) = (Some(true), Some(false));
    assert_eq!(active, [on, on, off, off, on, on, off, off]);
    // The first step of each period: two layers have state, and in half of the periods the others.
    let state = |step: usize| steps[step].state_bytes.unwrap();
    assert!(state(2) < state(0), "{} {}", state(2), state(0));
    assert_eq!((state(4), state(6)), (state(0), state(2)));
    let table = fs::read_to_string(out.join("metrics.csv")).unwrap();
    assert!(table.lines().nth(3).unwrap().ends_with(",false"), "{table}");

    let refused = refusal("--outer-every 3 --resume");
    assert!(
        refused.contains("--outer-every is 3, and the checkpoint was made with 2"),
        "{refused}"
    );
    for (more, message) in [
        ("--outer-every 0 --overwrite", "--outer-every is 0"),
        (
            "--layer-warmup 3 --overwrite",
            "--layer-warmup is 3, and --period is 2",
        ),
        (
            "--outer-every 2 --unbiased --overwrite",
            "--unbiased and --outer-every 2 are both given",
        ),
    ] {
        let refused = refusal(more);
        assert!(refused.contains(message), "{refused}");
    }
    fs::write(dir.path().join("run.toml"), "outer-every = 3\n").unwrap();
    let planned = run(dir.path(), "plan --config run.toml");
    assert!(
        planned.contains("a period in which the parameters outside the layers train, 1 of 3."),
        "{planned}"
    );
}

fn bundled_model() -> CausalLm {
    let config = ModelConfig::from_json(bundled::CONFIG).unwrap();
    config.init(&Device::flex()).unwrap()
}

#[test]
fn importance_that_is_nearly_uniform_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let of = |flags: &str| {
        let line = format!("importance {flags} --steps 2 --batch-size 2 --max-seq-length 48");
        let (text, warnings) = printed(dir.path(), &line);
        assert!(text.contains("distance from uniform"), "{text}");
        warnings
    };
    // Two steps hardly change a norm. The gradients of layers differ, and are the default.
    assert!(
        of("--by ratio --out ratio").contains("nearly uniform: `--policy uniform` does the same")
    );
    assert!(!of("--out default").contains("nearly uniform"));
    assert!(dir.path().join("default/scores.svg").is_file());
}

#[test]
fn importance_by_gradients_or_a_lora_update_gives_weights_to_the_policy() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("importance");
    let mut options = Options {
        by: By::Gradient,
        of: None,
        against: None,
        lora_lr: None,
        overwrite: true,
        config: None,
        flags: of_both(&out),
    };
    let measured = |options: &Options| {
        importance(options, &Device::flex()).unwrap();
        let svg = fs::read_to_string(out.join("scores.svg")).unwrap();
        assert!(svg.contains("scores of the layers by"), "{svg}");
        Scores::load(out.join("importance.json")).unwrap()
    };
    let gradient = measured(&options);
    assert_eq!((&*gradient.by, gradient.observations), ("gradient", 2));
    assert_eq!(gradient.layers.len(), 8);
    assert_eq!(gradient.layers[7].0, "model.layers.7");
    options.by = By::SquaredGradient;
    let squared = measured(&options);
    assert_eq!(
        (&*squared.by, squared.observations),
        ("squared gradient", 2)
    );
    // The mean square of two norms is at most twice the square of their mean.
    let elements = |path: &str| {
        let map = LayerMap::find(&bundled_model()).unwrap();
        let layer = map.layers().iter().find(|layer| layer.path == path);
        layer.unwrap().size as f64
    };
    for ((path, square), (_, size)) in squared.layers.iter().zip(&gradient.layers) {
        let ratio = square / (size * size * elements(path));
        assert!((0.999..2.0).contains(&ratio), "{path}: {ratio}");
    }
    options.by = By::LossDecrease;
    let decrease = measured(&options);
    assert_eq!(
        (&*decrease.by, decrease.observations),
        ("expected decrease of the loss", 2)
    );
    // If the second moment were that of one element in one batch, it would be the sum of the absolute values: at
    // most the norm times the root of the size, and less where few elements are large.
    for ((path, decrease), (_, size)) in decrease.layers.iter().zip(&gradient.layers) {
        let ratio = decrease / (size * elements(path));
        assert!((0.2..1.2).contains(&ratio), "{path}: {ratio}");
    }
    options.by = By::SquaredGradient;
    measured(&options);
    let path = out.join("importance.json");
    let by = |policy: &str| {
        let path = path.display();
        let more = format!("--policy {policy} --no-eval --importance {path}");
        flags(&dir.path().join(policy), &more)
    };
    go(by("weighted"), Start::Fresh, false).unwrap();
    options.by = By::Gradient;
    // The same batches have the same gradients, however many make a step.
    options.flags.training.steps = Some(1);
    options.flags.training.gradient_accumulation_steps = Some(2);
    assert_eq!(measured(&options), gradient);
    for policy in ["weighted", "bernoulli"] {
        go(by(policy), Start::Overwrite, false).unwrap();
    }

    options.by = By::LoraUpdate;
    options.flags.training.gradient_accumulation_steps = None;
    let update = measured(&options);
    assert_eq!(update.by, "LoRA update");
    assert!(update.weights().unwrap().iter().all(|weight| *weight > 0.1));
    assert!(update.layers.iter().all(|(_, score)| *score < 0.1));
    options.lora_lr = Some(1e-3);
    let error = importance(&options, &Device::flex()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "--lora-lr has no effect with --by lora-update"
    );
}
