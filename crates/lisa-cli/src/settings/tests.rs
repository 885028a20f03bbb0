use std::path::Path;

use super::*;
use clap::{CommandFactory, Parser};

mod effective;
mod files;
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
fn a_file_may_set_every_setting() {
    let text = toml::to_string(&defaults().to_flags()).unwrap();
    assert_eq!(toml(&text).unwrap(), defaults().to_flags());
    assert!(text.lines().count() > 40);
}

#[test]
fn a_file_may_use_the_names_of_other_trainers() {
    for (other, own) in [
        ("skip-bad-lines = true", "on-bad-line = \"skip\""),
        ("num_train_epochs = 3", "epochs = 3.0"),
        ("gradient_checkpointing = true", "recompute = 1"),
        ("train_on_inputs = true", "loss-on-all = true"),
        ("assistant_only_loss = true", "loss-on-all = false"),
        ("torch_dtype = \"bfloat16\"", "dtype = \"bf16\""),
        ("lora_r = 4", "lora-rank = 4"),
        ("use_rslora = true", "rslora = true"),
        (
            "lora_target_modules = \"all-linear\"",
            "lora-target-modules = [\"all-linear\"]",
        ),
        (
            "target_modules = [\"q_proj\", \"v_proj\"]",
            "lora-target-modules = [\"q_proj\", \"v_proj\"]",
        ),
        ("lisa_interval_steps = 4", "period = 4"),
        ("max_steps = 4", "steps = 4"),
        ("min_lr = 1e-6", "min-lr = 1e-6"),
        ("min_lr_rate = 0.2", "min-lr-ratio = 0.2"),
    ] {
        assert_eq!(toml(other).unwrap(), toml(own).unwrap(), "{other}");
        assert_ne!(toml(other).unwrap(), Flags::default(), "{other}");
    }
    // What other trainers write for "not given".
    for other in ["max_steps = -1", "iters = -1", "bf16 = false"] {
        assert_eq!(toml(other).unwrap(), Flags::default(), "{other}");
    }
    let (line, help, text) = mistake("lr = 0.1\n# as in transformers\nlearning_rate = 0.1\n");
    assert_eq!(
        (line, help.as_deref()),
        (Some(3), Some("leave one of them out"))
    );
    assert!(
        text.contains("`lr` and `learning_rate` are the same setting"),
        "{text}"
    );
    let (_, _, text) = mistake("gradient_checkpointing = \"unsloth\"");
    assert!(
        text.contains("`gradient_checkpointing` is true or false"),
        "{text}"
    );
    let (_, help, _) = mistake("max_step = 3");
    assert_eq!(help.unwrap(), "did you mean `max-steps`?");
}

#[test]
fn a_mistake_in_a_file_is_reported_with_its_line() {
    let (line, help, text) = mistake("lr = 0.1\n\nactive-layer = 4\n");
    assert_eq!(line, Some(3));
    assert_eq!(help.unwrap(), "did you mean `active-layers`?");
    assert!(text.contains("`active-layer` is not a setting"), "{text}");
    let (_, help, _) = mistake("something-else = 4");
    assert!(help.unwrap().contains("lisa train --help"));

    let (line, _, text) = mistake("lr = 0.1\n\nperiod = \"ten\"\n");
    assert_eq!(line, Some(3));
    assert!(text.contains("invalid type: string \"ten\""), "{text}");
    let (_, _, text) = mistake("steps = -1");
    assert!(
        text.contains("integer `-1`, expected a whole number, 0 or more"),
        "{text}"
    );
    for (text, message, wanted) in [
        (
            "method = \"lissa\"",
            "`lissa` is not one of lisa, full, lora",
            "did you mean `lisa`?",
        ),
        (
            "dtype = \"float8\"",
            "`float8` is not one of f32, bf16, f16",
            "give one of f32, bf16, f16",
        ),
        (
            "lr = ",
            "the value is missing, or is a text without quotes",
            "put a text in double quotes",
        ),
        (
            "seed = 1\nseed = 2",
            "duplicate key",
            "leave one of them out",
        ),
        (
            "pack = \"yes\"",
            "string \"yes\", expected true or false",
            "`lisa train --help` lists the settings and their values",
        ),
    ] {
        let error = toml(text).unwrap_err();
        let source = std::error::Error::source(error.downcast_ref::<UserError>().unwrap());
        let source = source.unwrap().downcast_ref::<UserError>().unwrap();
        assert!(source.to_string().contains(message), "{text}: {source}");
        assert_eq!(source.help(), Some(wanted), "{text}");
    }
    // The first mistake of the file, not that of the first key in the alphabet.
    let (line, _, text) = mistake("zeal = 1\n\nahead = 2\n");
    assert_eq!(line, Some(1));
    assert!(text.contains("`zeal`"), "{text}");
    let (line, _, _) = mistake("probabilities = [\n  0.5,\n  \"half\",\n]\n");
    assert_eq!(line, Some(3));
    let (line, help, _) = mistake("lr = 0.1\n[training]\nepochs = 3\n");
    assert_eq!(line, Some(2));
    assert!(help.unwrap().contains("not in tables"));
    let (line, _, _) = mistake("lr = 0.1\nperiod =\n");
    assert_eq!(line, Some(2));
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
fn the_learning_rate_rises_and_falls() {
    let mut training = defaults().training;
    (training.lr, training.warmup_ratio, training.min_lr_ratio) = (1.0, 0.1, 0.1);
    let rate = |step| training.learning_rate(step, 100);
    assert!((rate(0) - 0.1).abs() < 1e-12 && (rate(9) - 1.0).abs() < 1e-12);
    assert!((rate(10) - 1.0).abs() < 1e-12 && (rate(55) - 0.55).abs() < 1e-9);
    assert!((rate(100) - 0.1).abs() < 1e-12);
    // The final rate itself, instead of its ratio.
    training.lr = 0.5;
    training.min_lr = 0.2;
    assert!((training.learning_rate(100, 100) - 0.2).abs() < 1e-12);
    assert!((training.learning_rate(55, 100) - 0.35).abs() < 1e-9);
    training.min_lr = 0.0;
    assert!(training.learning_rate(100, 100).abs() < 1e-12);
}

#[test]
fn the_final_rate_is_at_most_the_highest_and_replaces_its_ratio() {
    let error = toml("lr = 1e-4\nmin_lr = 1e-3").unwrap();
    let error = error.resolve(None).unwrap_err();
    let error = error.downcast_ref::<UserError>().unwrap();
    assert_eq!(error.to_string(), "--min-lr is 0.001, and --lr is 0.0001");
    assert_eq!(
        error.help(),
        Some("give a rate from 0 to 0.0001, which is --lr")
    );
    assert_eq!(error.place(), Some((Path::new("run.toml"), Some(2))));
    // The highest rate follows from the model, which is not known yet.
    let unknown = toml("model = \"m\"\nmin_lr = 1e-3").unwrap();
    unknown.clone().resolve(None).unwrap();
    let model = ModelFacts {
        dtype: None,
        parameters: 135_000_000,
        layers: 30,
        positions: 8192,
    };
    let facts = Facts {
        model: Some(&model),
        ..Facts::default()
    };
    assert!(unknown.clone().resolve_with(facts).is_err());
    // A ratio on the command line replaces the rate of a file, and a checkpoint has both.
    let mut flags = Flags::default();
    flags.training.min_lr_ratio = Some(0.5);
    let settings = flags
        .or(toml("lr = 1e-4\nmin_lr = 1e-5").unwrap())
        .resolve(None)
        .unwrap();
    assert_eq!(
        (settings.training.min_lr, settings.training.min_lr_ratio),
        (-1.0, 0.5)
    );
    let saved = settings.to_flags().all_from(&Origin::Checkpoint);
    assert_eq!(saved.resolve(None).unwrap(), settings);
}

/// The error of the effect check, and its help.
fn idle(text: &str) -> Option<(String, String)> {
    let flags = toml(text).unwrap();
    let settings = flags.clone().resolve(None).unwrap();
    let error = flags.check_effect(&settings).err()?;
    let error = error.downcast_ref::<UserError>().unwrap();
    assert_eq!(
        error.place(),
        Some((Path::new("run.toml"), Some(2))),
        "{text}"
    );
    Some((error.to_string(), error.help().unwrap().to_owned()))
}

#[test]
fn a_setting_without_effect_is_an_error_that_says_so() {
    for (text, message, help) in [
        (
            "method = \"lora\"\npolicy = \"cyclic\"",
            "--policy has no effect with --method lora",
            "leave it out, or use --method lisa",
        ),
        (
            "method = \"full\"\nperiod = 4",
            "--period has no effect with --method full",
            "leave it out, or use --method lisa",
        ),
        (
            "method = \"lisa\"\nlora-rank = 4",
            "--lora-rank has no effect with --method lisa",
            "leave it out, or use --method lora",
        ),
        (
            "policy = \"uniform\"\nshare = 0.3",
            "--share has no effect with --policy uniform",
            "leave it out, or use --policy budget",
        ),
        (
            "method = \"full\"\nshare = 0.3",
            "--share has no effect with --method full",
            "leave it out, or use --method lisa",
        ),
        (
            "method = \"full\"\nouter-every = 3",
            "--outer-every has no effect with --method full",
            "leave it out, or use --method lisa",
        ),
        (
            "method = \"full\"\nlayer-warmup = 3",
            "--layer-warmup has no effect with --method full",
            "leave it out, or use --method lisa",
        ),
        (
            "policy = \"gradient\"\norder = \"shuffled\"",
            "--order has no effect with --policy gradient",
            "leave it out, or use --policy cyclic",
        ),
        (
            "policy = \"budget\"\nactive-layers = 2",
            "--active-layers has no effect with --policy budget",
            "leave it out, or give --share",
        ),
        (
            "policy = \"cyclic\"\nprobabilities = [0.5]",
            "--probabilities has no effect with --policy cyclic",
            "leave it out, or use --policy weighted or --policy bernoulli",
        ),
        (
            "steps = 9\nepochs = 2",
            "--epochs has no effect with --steps 9",
            "leave it out, or leave --steps out",
        ),
        (
            "dtype = \"f32\"\nno-master-weights = true",
            "--no-master-weights has no effect with --dtype f32, which has no master weights",
            "leave it out, or use --dtype bf16",
        ),
        (
            "no-eval = true\neval-every = 3",
            "--eval-every has no effect with --no-eval",
            "leave it out, or leave --no-eval out",
        ),
        (
            "eval = \"held.jsonl\"\neval-fraction = 0.2",
            "--eval-fraction has no effect with --eval, which gives the held-out rows",
            "leave it out, or leave --eval out",
        ),
        (
            "min-lr = 1e-5\nmin-lr-ratio = 0.2",
            "--min-lr-ratio has no effect with --min-lr, which gives the rate itself",
            "leave it out, or leave --min-lr out",
        ),
        (
            "eval-examples = 0\nmax-new-tokens = 9",
            "--max-new-tokens has no effect with --eval-examples 0",
            "leave it out, or give the number of generated answers",
        ),
        (
            "eval-rows = 0\nfinal-eval-all = true",
            "--final-eval-all has no effect with --eval-rows 0, which evaluates all rows",
            "leave it out, or give a number of --eval-rows",
        ),
    ] {
        let (found, found_help) = idle(text).unwrap_or_else(|| panic!("{text} is accepted"));
        assert_eq!((&*found, &*found_help), (message, help), "{text}");
    }
    for text in [
        "policy = \"budget\"\nshare = 0.3",
        "method = \"lora\"\nlora-rank = 4",
        "outer-every = 3\npolicy = \"fixed\"\nfixed-layers = [1]\nperiod = 4\nmoments = \"keep\"",
        // A switch that is off asks for nothing.
        "method = \"lora\"\nunbiased = false",
        "policy = \"cyclic\"\norder = \"ascending\"\nperiod = 4",
    ] {
        assert_eq!(idle(text), None, "{text}");
    }
}

#[test]
fn a_setting_without_effect_on_the_data_is_an_error_that_says_so() {
    let check = |text: &str, contents: Contents| {
        let flags = toml(text).unwrap();
        let settings = flags.clone().resolve(None).unwrap();
        let error = flags.check_effect_on(contents, &settings).err()?;
        let error = error.downcast_ref::<UserError>().unwrap();
        assert_eq!(error.place(), Some((Path::new("run.toml"), Some(1))));
        Some((error.to_string(), error.help().unwrap().to_owned()))
    };
    let all = Contents {
        held_out: true,
        held_out_files: true,
        answers: true,
        pairs: true,
        chats: true,
    };
    let texts = Contents {
        held_out: true,
        ..Contents::default()
    };
    let pairs = Contents {
        pairs: true,
        answers: true,
        ..texts
    };
    let none_held_out = Contents {
        held_out: false,
        held_out_files: false,
        answers: false,
        ..all
    };
    let plain = "plain text, all of which is trained on";
    let answers = "held-out data without answers";
    let rows = "data without held-out rows";
    for (text, contents, with) in [
        (
            "eval-fraction = 0.2",
            all,
            "data that has held-out files of its own",
        ),
        ("eval-rows = 3", none_held_out, rows),
        ("eval-every = 3", none_held_out, rows),
        ("eval-first = true", none_held_out, rows),
        ("final-eval-all = true", none_held_out, rows),
        ("eval-examples = 3", none_held_out, rows),
        ("metric = \"contains\"", none_held_out, rows),
        ("max-new-tokens = 3", none_held_out, rows),
        ("metric = \"contains\"", texts, answers),
        ("max-new-tokens = 3", texts, answers),
        ("eval-examples = 3", texts, answers),
        (
            "pairs = \"text\"",
            texts,
            "data without pairs of prompt and completion",
        ),
        ("turns = \"last\"", pairs, "data without chats"),
        ("turns = \"last\"", texts, "data without chats"),
        ("empty-answers = \"refuse\"", texts, plain),
        (
            "empty-answers = \"refuse\"\nloss-on-all = true",
            all,
            "--loss-on-all, which trains on all tokens of a chat",
        ),
        ("loss-on-all = true", texts, plain),
    ] {
        let (found, help) = check(text, contents).unwrap_or_else(|| panic!("{text} is accepted"));
        let name = text.split(' ').next().unwrap();
        assert_eq!(found, format!("--{name} has no effect with {with}"));
        assert!(help.starts_with("leave it out, or "), "{help}");
    }
    for (text, contents) in [
        ("eval-fraction = 0.2", pairs),
        ("eval-examples = 0\neval-every = 0", none_held_out),
        ("pairs = \"chat\"\nturns = \"last\"", pairs),
        ("empty-answers = \"refuse\"\nloss-on-all = true", pairs),
        (
            "turns = \"last\"\nmax-new-tokens = 3\nmetric = \"exact\"",
            all,
        ),
    ] {
        assert_eq!(check(text, contents), None, "{text}");
    }
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
fn a_value_of_a_file_that_is_out_of_range_has_its_line() {
    let error = toml("seed = 1\n\nlr = -1.0\n")
        .unwrap()
        .resolve(None)
        .unwrap_err();
    let error = error.downcast_ref::<UserError>().unwrap();
    assert_eq!(error.to_string(), "--lr is -1");
    assert_eq!(error.place(), Some((Path::new("run.toml"), Some(3))));
    assert_eq!(error.help(), Some("give a learning rate above 0"));
    // The value of a flag has no line.
    let mut flags = Flags::default();
    flags.training.lr = Some(-2.0);
    let error = flags
        .or(toml("lr = -1.0").unwrap())
        .resolve(None)
        .unwrap_err();
    assert_eq!(error.downcast_ref::<UserError>().unwrap().place(), None);
    for text in [
        "eval-fraction = 1.0",
        "share = 0.0",
        "lora-alpha = nan",
        "lora-dropout = 1.0",
        "lora-target-modules = [\"all\", \"q_proj\"]",
        "max-seq-length = 1",
        "period = 0",
        "active-layers = 0",
        "memory = -1.0",
        "weight-decay = inf",
        "lora-rank = 0",
        "lora-rank = 65537",
        "batch-size = 65537",
        "gradient-accumulation-steps = 65537",
        "min-lr = -0.5",
    ] {
        assert!(toml(text).unwrap().resolve(None).is_err(), "{text}");
    }
}

#[test]
fn settings_that_would_destroy_the_weights_are_refused() {
    let refused = |text: &str| {
        let error = toml(text).unwrap().resolve(None).unwrap_err();
        let error = error.downcast::<UserError>().unwrap();
        (error.to_string(), error.help().unwrap().to_owned())
    };
    let (message, help) = refused("dtype = \"f16\"\nno-master-weights = true");
    assert!(
        message.starts_with("--no-master-weights makes weights of --dtype f16 infinite"),
        "{message}"
    );
    assert_eq!(help, "leave --no-master-weights out, or use --dtype bf16");
    // The dtype of the model's files.
    let flags = toml("model = \"m\"\ndata = [\"d\"]\nno-master-weights = true").unwrap();
    assert!(flags.clone().resolve(Some(Dtype::F16)).is_err());
    flags.resolve(Some(Dtype::Bf16)).unwrap();

    let in_backward = "recompute = 1\nupdate-in-backward = true\nmax-grad-norm = 0.0\n";
    let clipped = in_backward.replace("0.0", "0.5");
    let (message, _) = refused(&clipped);
    assert!(
        message.contains("--max-grad-norm 0.5 needs those of all"),
        "{message}"
    );
    let (message, help) = refused(&format!("{in_backward}skip-bad-steps = true"));
    assert!(
        message.starts_with("--update-in-backward updates layers before the gradients of all"),
        "{message}"
    );
    assert_eq!(help, "leave one of them out");
    toml(in_backward).unwrap().resolve(None).unwrap();
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
