use super::*;

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let file: Flags =
        toml::from_str("active-layers = 4\nlr = 0.5\npolicy = \"bernoulli\"").unwrap();
    let flags = Flags {
        lr: Some(0.25),
        ..Flags::default()
    };
    let settings = flags.or(file).resolve(None).unwrap();
    assert_eq!((settings.active_layers, settings.lr), (4, 0.25));
    assert_eq!((settings.policy, settings.period), (Policy::Bernoulli, 10));
}

#[test]
fn an_unknown_key_in_the_file_is_refused_by_name() {
    let error = toml::from_str::<Flags>("active-layer = 4")
        .unwrap_err()
        .to_string();
    assert!(error.contains("active-layer"), "{error}");
}

#[test]
fn a_mistake_in_the_file_is_shown_where_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.toml");
    std::fs::write(&path, "lr = 0.1\n\nperiod = \"ten\"\n").unwrap();
    let error = Flags::from_toml(&path).unwrap_err();
    let place = error.downcast_ref::<LisaError>().unwrap().place().cloned();
    assert_eq!(place.unwrap().to_string(), format!("{}:3", path.display()));
    assert!(format!("{error:#}").contains("invalid type: string \"ten\""));
}

#[test]
fn the_help_says_each_default_and_it_is_the_default() {
    let wanted = Flags::default().resolve(None).unwrap();
    let mut command = Command::command();
    command.build();
    let mut checked = 0;
    for argument in command.get_arguments() {
        let name = argument.get_long().unwrap();
        let help = argument.get_help().unwrap().to_string();
        let in_words = ["model", "data", "dtype"].contains(&name);
        let Some((_, default)) = help.split_once("[default: ") else {
            // Switches are off and lists empty; what is no setting has no default.
            let takes = argument.get_num_args().is_some_and(|n| n.min_values() > 0);
            let none = [
                "config",
                "budget",
                "validation",
                "freeze",
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
        let line = ["finetune".to_owned(), format!("--{name}={value}")];
        let given = Command::try_parse_from(line).unwrap().flags;
        assert_ne!(given, Flags::default(), "--{name}");
        assert_eq!(given.resolve(None).unwrap(), wanted, "--{name}");
        checked += 1;
    }
    assert!(checked > 20);
}

#[test]
fn every_option_stands_under_a_heading() {
    for argument in Command::command().get_arguments() {
        let name = argument.get_id();
        assert!(argument.get_help_heading().is_some(), "{name}");
    }
}

#[test]
fn completions_know_the_flags_and_their_values() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell] {
        let script = String::from_utf8(Command::completions(shell)).unwrap();
        for word in ["active-layers", "bernoulli", "dry-run"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn settings_survive_their_file() {
    let flags = Flags {
        model: Some("somewhere".into()),
        ..Flags::default()
    };
    let settings = flags.resolve(Some(Dtype::Bf16)).unwrap();
    assert_eq!(settings.dtype, Dtype::Bf16);
    let text = serde_json::to_string(&settings.to_flags()).unwrap();
    let back: Flags = serde_json::from_str(&text).unwrap();
    assert_eq!(back.resolve(None).unwrap(), settings);
    assert_eq!(settings.differs(&settings), None);
    let mut other = settings.clone();
    other.period = 3;
    let message = settings.differs(&other).unwrap();
    assert_eq!(message, "--period is 10 and the checkpoint was made with 3");
}

#[test]
fn the_learning_rate_rises_and_falls() {
    let mut settings = Flags::default().resolve(None).unwrap();
    (settings.lr, settings.warmup, settings.min_lr) = (1.0, 0.1, 0.1);
    let rate = |step| settings.learning_rate(step, 100);
    assert!((rate(0) - 0.1).abs() < 1e-12 && (rate(9) - 1.0).abs() < 1e-12);
    assert!((rate(10) - 1.0).abs() < 1e-12 && (rate(55) - 0.55).abs() < 1e-9);
    assert!((rate(100) - 0.1).abs() < 1e-12);
}
