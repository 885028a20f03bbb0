//! [`Settings::effective`]: what a model card has.

use super::{Flags, Settings, defaults, toml};

/// The lines of the settings that had an effect, and the settings of that file.
fn file_of(settings: &Settings, evaluates: (bool, bool)) -> (String, Settings) {
    let text = toml::to_string(&settings.effective(evaluates)).unwrap();
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
            "weight-decay = 0\nsave-every = 0\nno-eval = true\nschedule = \"constant\"",
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
        let (written, read) = file_of(&settings, (true, true));
        for name in *present {
            assert!(has(&written, name), "{name} is not in {written}");
        }
        for name in absent.iter().chain(&never) {
            let is_asked = present.contains(name);
            assert!(is_asked || !has(&written, name), "{name} is in {written}");
        }
        assert!(written.lines().count() < 40, "{written}");
        let (again, _) = file_of(&read, (true, true));
        assert_eq!(again, written);
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
    let (text, _) = file_of(&settings, (false, false));
    for name in [
        "chat-template",
        "eval-rows",
        "eval-examples",
        "metric",
        "pairs",
    ] {
        assert!(!has(&text, name), "{name} is in {text}");
    }
    let (text, _) = file_of(&settings, (true, false));
    assert!(has(&text, "eval-rows") && !has(&text, "metric"), "{text}");

    // A file without a model and data is one of the demonstration: what differs from it is written.
    let mut flags = Flags::default();
    flags.output.eval_first = Some(false);
    let settings = flags.resolve(None).unwrap();
    let text = toml::to_string(&settings.effective((true, true))).unwrap();
    assert!(has(&text, "eval-first") && !has(&text, "pack"), "{text}");
    assert_eq!(toml(&text).unwrap().resolve(None).unwrap(), settings);
}
