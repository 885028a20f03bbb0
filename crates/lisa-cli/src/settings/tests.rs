use std::path::Path;

use super::*;
use clap::{CommandFactory, Parser};

mod effect;
mod effective;
mod files;
mod refused;
mod resumed;
mod round_trip;
mod schedule;

use crate::commands::{Command, Program};
use crate::user_error::UserError;

fn toml(text: &str) -> Result<Flags> {
    Flags::from_toml(text, Path::new("run.toml"))
}

/// Line and help of the error that the file gives.
fn mistake(text: &str) -> (Option<usize>, Option<String>, String) {
    let error = toml(text).unwrap_err();
    let text = format!("{error:#}");
    let error = error.downcast_ref::<UserError>().unwrap();
    let line = error.place().and_then(|(_, line)| line);
    (line, error.help().map(str::to_owned), text)
}

/// What `lisa train` with these arguments is given.
fn given(arguments: &[String]) -> Flags {
    let line = ["lisa".to_owned(), "train".to_owned()];
    match Program::try_parse_from(line.iter().chain(arguments))
        .unwrap()
        .command
    {
        Some(Command::Train(options)) => options.flags,
        _ => unreachable!(),
    }
}

/// Defaults of a run with a model and data.
fn defaults() -> Settings {
    let flags = Flags {
        input: InputFlags {
            model: Some("model".into()),
            data: Some(vec!["data".into()]),
            ..InputFlags::default()
        },
        ..Flags::default()
    };
    flags.resolve(None).unwrap()
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let file = toml("active-layers = 4\nlr = 0.5\npolicy = \"bernoulli\"").unwrap();
    let mut flags = Flags::default();
    flags.training.lr = Some(0.25);
    let settings = flags.or(file).resolve(None).unwrap();
    assert_eq!(
        (settings.method.active_layers, settings.training.lr),
        (4, 0.25)
    );
    assert_eq!(
        (settings.method.policy, settings.method.period),
        (Policy::Bernoulli, 10)
    );
}

#[test]
fn the_defaults_of_the_program_are_those_of_the_library() {
    let (library, program) = (lisa::LisaConfig::new(), defaults());
    assert_eq!(program.method.active_layers, library.active_layers);
    assert_eq!(program.method.period, library.sampling_period);
    assert_eq!(program.training.seed, library.seed);
    assert_eq!(library.policy, lisa::PolicyConfig::Uniform);
    assert_eq!(program.method.policy, Policy::Uniform);
    assert_eq!(library.on_freeze, lisa::OnFreeze::Drop);
    assert_eq!(program.method.moments, Moments::Drop);
    assert_eq!(program.memory.no_master_weights, !library.master_weights);
    assert_eq!(program.method.unbiased, library.unbiased);
    assert_eq!((program.method.outer_every, library.outer_every), (1, None));
    let warmup = (program.method.layer_warmup, library.layer_warmup);
    assert_eq!(warmup, (0, None));
    // It decays matrices alone, as other trainers do; the library decays what Burn decays.
    assert!(!program.training.decay_all);
    assert_eq!(library.decay, lisa::optimizer::Decay::All);
}

#[test]
fn the_bundled_model_and_data_are_trained_with_the_settings_of_the_demo() {
    let demo = toml(bundled::DEMO).unwrap();
    let settings = Flags::default().resolve(Some(Dtype::Bf16)).unwrap();
    assert_eq!(settings, demo.clone().resolve(None).unwrap());
    assert_eq!(settings.memory.dtype, Dtype::F32);
    // A flag wins, and a run that is resumed keeps its own.
    let mut flags = Flags::default();
    flags.training.epochs = Some(1.0);
    let settings = flags.resolve(None).unwrap();
    assert_eq!(settings.training.epochs, 1.0);
    assert_eq!(settings.to_flags().resolve(None).unwrap(), settings);
}

#[test]
fn the_help_names_each_default_and_it_is_the_default() {
    let wanted = defaults();
    let program = Program::command();
    let train = program.find_subcommand("train").unwrap();
    let mut checked = 0;
    for argument in train.get_arguments() {
        let name = argument.get_long().unwrap();
        let help = argument.get_help().unwrap().to_string();
        let in_words = [
            "model",
            "data",
            "dtype",
            "chat-template",
            "revision",
            "max-seq-length",
            "data-memory",
            "active-layers",
            "freeze",
            "period",
            "lora-alpha",
            "memory",
            "batch-size",
            "lr",
            "epochs",
        ]
        .contains(&name);
        let Some((_, default)) = help.split_once("[default: ") else {
            // Switches are off and lists empty; what is no setting has no default.
            let takes = argument.get_num_args().is_some_and(|n| n.min_values() > 0);
            let none = [
                "config",
                "eval",
                "adapter",
                "importance",
                "probabilities",
                "fixed-layers",
                "split",
            ];
            assert!(!takes || none.contains(&name), "--{name} names no default");
            continue;
        };
        if in_words {
            continue;
        }
        let value = default.trim_end_matches(']');
        let flags = given(&[format!("--{name}={value}")]);
        assert_ne!(flags, Flags::default(), "--{name}");
        let with_files = flags.or(wanted.to_flags());
        assert_eq!(with_files.resolve(None).unwrap(), wanted, "--{name}");
        checked += 1;
    }
    assert!(checked >= 18, "{checked}");
}

#[test]
fn settings_survive_the_state_of_a_checkpoint() {
    let flags = Flags {
        input: InputFlags {
            model: Some("somewhere".into()),
            ..InputFlags::default()
        },
        ..Flags::default()
    };
    let settings = flags.resolve(Some(Dtype::Bf16)).unwrap();
    assert_eq!(settings.memory.dtype, Dtype::Bf16);
    let text = serde_json::to_string(&settings.to_flags()).unwrap();
    let back: Flags = serde_json::from_str(&text).unwrap();
    assert_eq!(back.clone().resolve(None).unwrap(), settings);
    let renamed = text.replace("\"save-every\"", "\"checkpoint-every\"");
    assert_eq!(serde_json::from_str::<Flags>(&renamed).unwrap(), back);
    let unknown = text.replace("\"lr\"", "\"rate\"");
    assert!(serde_json::from_str::<Flags>(&unknown).is_err());
    assert_eq!(settings.differs(&settings), None);
    let mut other = settings.clone();
    other.method.period = 3;
    let message = settings.differs(&other).unwrap();
    assert_eq!(
        message,
        "--period is 20, and the checkpoint was made with 3"
    );
}

#[test]
fn steps_of_a_flag_replace_the_epochs_of_a_file_and_of_a_checkpoint() {
    let mut flags = Flags::default();
    flags.training.steps = Some(7);
    let merged = flags.or(toml("epochs = 3").unwrap());
    assert_eq!(
        (merged.training.steps, merged.training.epochs),
        (Some(7), None)
    );
    let mut flags = Flags::default();
    flags.training.epochs = Some(2.0);
    let saved = defaults().to_flags().all_from(&Origin::Checkpoint);
    let settings = flags.clone().or(saved).resolve(None).unwrap();
    assert_eq!(
        (settings.training.steps, settings.training.epochs),
        (0, 2.0)
    );
    // What a checkpoint has is not asked for again.
    let saved = defaults().to_flags().all_from(&Origin::Checkpoint);
    let mut flags = Flags::default();
    flags.method.method = Some(Method::Lora);
    let merged = flags.or(saved);
    let settings = merged.clone().resolve(None).unwrap();
    merged.check_effect(&settings).unwrap();
}

#[test]
fn what_follows_from_model_and_data_is_said_with_its_reason() {
    let model = ModelFacts {
        dtype: Some(Dtype::Bf16),
        parameters: 135_000_000,
        layers: 30,
        positions: 8192,
    };
    let data = DataFacts::of(vec![300; 7473]).unwrap();
    let facts = Facts {
        model: Some(&model),
        data: Some(&data),
        ..Facts::default()
    };
    let mut flags = toml("model = \"m\"\ndata = \"d\"\nsteps = 50").unwrap();
    flags.training.seed = Some(7);
    let (settings, origins) = flags.resolve_with(facts).unwrap();
    assert_eq!(
        origins.lines(&settings, false),
        [
            "active-layers 2 (of 30 layers)",
            "dtype bf16 (as stored)",
            "lr 3e-4 (lisa on a model of 135 M parameters)",
            "max-seq-length 300 (99th percentile of the data 300, longest row 300; the model's limit \
             8192)",
            "period 5 (the shortest: about 50 steps are too few for a turn of each of 30 layers)",
        ]
    );
    let all = origins.lines(&settings, true);
    for line in [
        "steps 50 (run.toml:3)",
        "seed 7 (given)",
        "batch-size 4 (default)",
        "weight-decay 0.01 (default)",
    ] {
        assert!(
            all.iter().any(|found| found == line),
            "`{line}` is not in {all:?}"
        );
    }
    // What has no effect is not said.
    assert!(
        !all.iter()
            .any(|line| line.starts_with("share") || line.starts_with("epochs"))
    );
    // What is given is said also if it turns something off.
    let off = toml(
        "model = \"m\"\nweight_decay = 0.0\nmax_grad_norm = 0.0\nwarmup_ratio = 0.0\nseed = 0\n\
         val_size = 0\nsave_steps = 0\nmin_lr_ratio = 0.0\ngradient_checkpointing = false",
    );
    let (zeros, origins) = off.unwrap().resolve_with(Facts::default()).unwrap();
    let shown = origins.lines(&zeros, true);
    for line in [
        "weight-decay 0 (run.toml:2)",
        "max-grad-norm 0 (run.toml:3)",
        "warmup-ratio 0 (run.toml:4)",
        "seed 0 (run.toml:5)",
        "eval-fraction 0 (run.toml:6)",
        "save-every 0 (run.toml:7)",
        "min-lr-ratio 0 (run.toml:8)",
        "recompute 0 (run.toml:9)",
    ] {
        assert!(
            shown.iter().any(|found| found == line),
            "`{line}` is not in {shown:?}"
        );
    }
    // The settings of a checkpoint are those that were settled.
    let saved = settings.to_flags().all_from(&Origin::Checkpoint);
    let more = DataFacts::of(vec![3; 9]).unwrap();
    let facts = Facts {
        data: Some(&more),
        ..facts
    };
    assert_eq!(saved.resolve_with(facts).unwrap().0, settings);

    let long = toml("model = \"m\"\nmax-seq-length = 9000").unwrap();
    let error = long.resolve_with(facts).unwrap_err();
    assert_eq!(
        error.to_string(),
        "--max-seq-length is 9000, and the model has 8192 positions"
    );
    assert_eq!(
        error
            .downcast_ref::<UserError>()
            .unwrap()
            .place()
            .unwrap()
            .1,
        Some(2)
    );
}

#[test]
fn an_empty_path_freezes_and_splits_nothing() {
    let mut flags = Flags::default();
    flags.method.freeze = Some(vec![String::new()]);
    flags.method.split = Some(vec![String::new(), "attn".into()]);
    let method = flags.resolve(None).unwrap().method;
    assert!(method.freeze.is_empty());
    assert_eq!(method.split, ["attn"]);
}
