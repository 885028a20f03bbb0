//! [`Settings::differs`]: which settings a resumed run must have in common with its checkpoint.

use serde_json::Value;

use super::{Facts, Flags, ModelFacts, Settings, defaults, toml};

/// A change of each setting that must be the same.
const SAME: [&str; 39] = [
    "method = \"full\"",
    "active-layers = 3",
    "period = 3",
    "policy = \"cyclic\"",
    "importance = \"other\"",
    "probabilities = [0.5]",
    "order = \"ascending\"",
    "fixed-layers = [1]",
    "share = 0.5",
    "split = [\"attn\"]",
    "unbiased = true",
    "outer-every = 3",
    "layer-warmup = 3",
    "moments = \"keep\"",
    "freeze = [\"norm\"]",
    "lora-rank = 3",
    "lora-alpha = 3.0",
    "lora-dropout = 0.5",
    "rslora = true",
    "lora-target-modules = [\"q_proj\"]",
    "adapter = \"other\"",
    "dtype = \"bf16\"",
    "no-master-weights = true",
    "quantize = \"int8\"",
    "batch-size = 3",
    "gradient-accumulation-steps = 3",
    "decay-all = true",
    "seed = 3",
    "max-seq-length = 3",
    "pack = true",
    "loss-on-all = true",
    "turns = \"last\"",
    "eval-fraction = 0.5",
    "chat-template = \"plain\"",
    "pairs = \"chat\"",
    "resize-embeddings = true",
    "columns = \"question=prompt\"",
    "eval-rows = 3",
    "eval-first = true",
];

/// A change of each of the others.
const OTHERS: [&str; 33] = [
    "model = \"other\"",
    "revision = \"other\"",
    "data = \"other\"",
    "eval = \"other\"",
    "data-memory = 3.0",
    "empty-answers = \"refuse\"",
    "on-bad-line = \"skip\"",
    "no-merge = true",
    "memory = 3.0",
    "recompute = 3",
    "sublayers = true",
    "update-in-backward = true",
    "lr = 0.5",
    "epochs = 7.0",
    "steps = 3",
    "schedule = \"linear\"",
    "warmup-ratio = 0.5",
    "warmup-steps = 3",
    "min-lr-ratio = 0.5",
    "min-lr = 0.5",
    "weight-decay = 0.5",
    "max-grad-norm = 0.5",
    "skip-bad-steps = true",
    "out = \"other\"",
    "save-every = 3",
    "keep = 3",
    "log-every = 3",
    "eval-every = 3",
    "final-eval-all = true",
    "no-eval = true",
    "eval-examples = 3",
    "metric = \"choice\"",
    "max-new-tokens = 3",
];

fn name(line: &str) -> &str {
    line.split_once(" = ").unwrap().0
}

/// The defaults with this line of a settings file. They are not checked.
fn with(line: &str) -> Settings {
    let flags = toml(line).unwrap().or(defaults().to_flags());
    Settings {
        input: flags.input.or_defaults(),
        method: flags.method.or_defaults(),
        memory: flags.memory.or_defaults(),
        training: flags.training.or_defaults(),
        output: flags.output.or_defaults(),
    }
}

#[test]
fn each_setting_that_must_be_the_same_is_named() {
    let saved = defaults();
    for line in SAME {
        let message = with(line).differs(&saved);
        let message = message.unwrap_or_else(|| panic!("{line} is accepted"));
        let named = format!("--{} is ", name(line));
        assert!(message.starts_with(&named), "{line}: {message}");
    }
    for line in OTHERS {
        let other = with(line);
        assert_ne!(other, saved, "{line}");
        assert_eq!(other.differs(&saved), None, "{line}");
    }
    // No setting is left out here.
    let Value::Object(all) = serde_json::to_value(saved.to_flags()).unwrap() else {
        unreachable!();
    };
    let mut all: Vec<String> = all.into_iter().map(|(name, _)| name).collect();
    all.sort();
    let mut named: Vec<&str> = SAME.iter().chain(&OTHERS).map(|line| name(line)).collect();
    named.sort_unstable();
    assert_eq!(named, all);
}

#[test]
fn values_are_named_as_they_are_given() {
    let saved = defaults();
    for (line, message) in [
        (
            "dtype = \"bf16\"",
            "--dtype is bf16, and the checkpoint was made with f32",
        ),
        (
            "moments = \"keep\"",
            "--moments is keep, and the checkpoint was made with drop",
        ),
        (
            "share = 0.5",
            "--share is 0.5, and the checkpoint was made with 0.25",
        ),
        (
            "chat-template = \"plain\"",
            "--chat-template is plain, and in the checkpoint it is not given",
        ),
        (
            "freeze = [\"norm\", \"lm_head\"]",
            "--freeze is norm,lm_head, and in the checkpoint it is not given",
        ),
        (
            "columns = \"question=prompt\"",
            "--columns is question=prompt, and in the checkpoint it is not given",
        ),
    ] {
        assert_eq!(with(line).differs(&saved).unwrap(), message);
    }
    let back = saved.differs(&with("chat-template = \"plain\"")).unwrap();
    assert_eq!(
        back,
        "--chat-template is not given, and in the checkpoint it is plain"
    );
    let changes = |line: &str| with(line).changes(&saved);
    assert_eq!(changes("metric = \"choice\""), ["metric choice, was exact"]);
    assert_eq!(
        changes("revision = \"main\""),
        ["revision main, was not given"]
    );
    // It has no effect.
    assert!(changes("share = 0.5").is_empty());
}

/// The settings that the run goes on with, and what is changed.
fn resumed(flags: &str, saved: &Flags) -> (Settings, Vec<String>) {
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
    let flags = toml(flags).unwrap().or_saved(saved.clone());
    let settings = flags.resolve_with(facts).unwrap().0;
    let earlier = saved.clone().resolve(None).unwrap();
    let changes = settings.changes(&earlier);
    (settings, changes)
}

#[test]
fn another_schedule_has_its_own_final_rate() {
    let of = |saved: &str, flags: &str| {
        let saved = toml(saved).unwrap().or(defaults().to_flags());
        let (settings, changes) = resumed(flags, &saved);
        (settings.training.min_lr_ratio, changes.join("; "))
    };
    let cosine = "schedule = \"cosine\"\nmin-lr-ratio = 0.1";
    let linear = "schedule = \"linear\"\nmin-lr-ratio = 0";
    assert_eq!(
        of(cosine, "schedule = \"linear\""),
        (
            0.0,
            "min-lr-ratio 0, was 0.1; schedule linear, was cosine".to_owned()
        )
    );
    assert_eq!(of(linear, "schedule = \"cosine\"").0, 0.1);
    assert_eq!(
        of(cosine, "schedule = \"linear\"\nmin-lr-ratio = 0.3").0,
        0.3
    );
    // The same schedule.
    let given = "schedule = \"linear\"\nmin-lr-ratio = 0.3";
    for flags in ["", "schedule = \"linear\""] {
        assert_eq!(of(given, flags), (0.3, String::new()), "{flags}");
    }
}
