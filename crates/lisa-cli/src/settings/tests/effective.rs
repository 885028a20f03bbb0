//! [`Settings::effective`]: what a model card has.

use super::{Contents, Flags, Settings, defaults, toml};

/// Pairs, with held-out answers.
const PAIRS: Contents = Contents {
    held_out: true,
    held_out_files: false,
    answers: true,
    pairs: true,
    chats: false,
};

/// The lines of the settings that had an effect, and the settings of that file.
fn file_of(settings: &Settings, contents: Contents) -> (String, Settings) {
    let text = toml::to_string(&settings.effective(contents)).unwrap();
    let flags = toml(&format!("{text}model = \"m\"\ndata = \"d\"\n")).unwrap();
    let read = flags.clone().resolve(None).unwrap();
    flags.check_effect(&read).unwrap();
    (text, read)
}

fn has(text: &str, name: &str) -> bool {
    text.lines()
        .any(|line| line.starts_with(&format!("{name} = ")))
}

#[test]
fn only_settings_with_an_effect_are_written_and_they_can_be_read() {
    let of = |text: &str| {
        let settings = toml(text).unwrap().or(defaults().to_flags());
        settings.resolve(None).unwrap()
    };
    let never = [
        "memory",
        "data-memory",
        "min-lr",
        "warmup-steps",
        "model",
        "data",
        "out",
        "sublayers",
    ];
    let cases: &[(&str, &[&str], &[&str])] = &[
        (
            "steps = 4",
            &["method", "active-layers", "period", "steps", "lr"],
            &["lora-rank", "epochs", "share", "order"],
        ),
        (
            "method = \"lora\"\nsteps = 4",
            &["lora-rank", "lora-alpha", "lora-target-modules"],
            &[
                "policy",
                "period",
                "active-layers",
                "moments",
                "outer-every",
                "epochs",
            ],
        ),
        (
            "method = \"full\"\nepochs = 2",
            &["epochs", "weight-decay"],
            &["policy", "period", "lora-rank", "steps"],
        ),
        (
            "weight-decay = 0\nsave-every = 0\nno-eval = true\neval-fraction = 0\nschedule = \"constant\"",
            &["weight-decay", "save-every", "no-eval", "schedule"],
            &[
                "eval-rows",
                "eval-examples",
                "eval-fraction",
                "min-lr-ratio",
            ],
        ),
        ("min-lr = 0", &["min-lr"], &["min-lr-ratio"]),
        ("warmup-steps = 9", &["warmup-steps"], &["warmup-ratio"]),
    ];
    for (text, present, absent) in cases {
        let settings = of(text);
        let (written, read) = file_of(&settings, PAIRS);
        for name in *present {
            assert!(has(&written, name), "{name} is not in {written}");
        }
        for name in absent.iter().chain(&never) {
            let is_asked = present.contains(name);
            assert!(is_asked || !has(&written, name), "{name} is in {written}");
        }
        assert!(written.lines().count() < 40, "{written}");
        let (again, _) = file_of(&read, PAIRS);
        assert_eq!(again, written);
    }
}

#[test]
fn a_share_that_is_held_out_and_not_evaluated_is_written() {
    // As a run that is resumed with --no-eval has it.
    for (fraction, is_written) in [(0.1, true), (0.2, true), (0.0, false)] {
        let mut flags = defaults().to_flags();
        flags.output.no_eval = Some(true);
        flags.input.eval_fraction = Some(fraction);
        let (text, read) = file_of(&flags.resolve(None).unwrap(), PAIRS);
        assert_eq!(has(&text, "eval-fraction"), is_written, "{text}");
        assert_eq!(read.input.eval_fraction, fraction);
    }
}

#[test]
fn settings_without_effect_on_the_data_and_files_are_left_out() {
    let text = "chat-template = \"mine.jinja\"\neval-rows = 7";
    let settings = toml(text)
        .unwrap()
        .or(defaults().to_flags())
        .resolve(None)
        .unwrap();
    let none = Contents {
        held_out: false,
        answers: false,
        ..PAIRS
    };
    let (text, _) = file_of(&settings, none);
    for name in [
        "chat-template",
        "eval-rows",
        "eval-examples",
        "metric",
        "pairs",
    ] {
        assert!(!has(&text, name), "{name} is in {text}");
    }
    // The card says that a file of a template is to be added, as other paths are.
    assert_eq!(
        settings.flags_of_paths(),
        ["model", "data", "chat-template"]
    );
    assert_eq!(defaults().flags_of_paths(), ["model", "data"]);
    let no_answers = Contents {
        answers: false,
        ..PAIRS
    };
    let (text, _) = file_of(&settings, no_answers);
    assert!(has(&text, "eval-rows") && !has(&text, "metric"), "{text}");

    // A file without a model and data is one of the demonstration: what differs from it is written.
    let mut flags = Flags::default();
    flags.output.eval_first = Some(false);
    let settings = flags.resolve(None).unwrap();
    let text = toml::to_string(&settings.effective(PAIRS)).unwrap();
    assert!(has(&text, "eval-first") && !has(&text, "pack"), "{text}");
    assert_eq!(toml(&text).unwrap().resolve(None).unwrap(), settings);
}

#[test]
fn what_has_an_effect_on_the_data_is_written_and_what_belongs_to_a_machine_is_not() {
    let text = "loss-on-all = true\nempty-answers = \"refuse\"\nmemory = 3\ndata-memory = 0.5";
    let settings = toml(text).unwrap().or(defaults().to_flags());
    let settings = settings.resolve(None).unwrap();
    let (text, _) = file_of(&settings, PAIRS);
    assert!(has(&text, "empty-answers"), "{text}");
    assert!(
        !has(&text, "memory") && !has(&text, "data-memory"),
        "{text}"
    );
    // All tokens of a chat are trained on.
    let chats = Contents {
        chats: true,
        ..PAIRS
    };
    let (text, _) = file_of(&settings, chats);
    assert!(
        has(&text, "loss-on-all") && !has(&text, "empty-answers"),
        "{text}"
    );
}
