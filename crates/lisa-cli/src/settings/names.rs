//! Other names of the settings: those of other trainers.

use serde::Deserialize;
use strsim::osa_distance;

/// The other names of settings whose value needs no change, without regard to `-` and `_`.
const NAMES: &[(&str, &[&str])] = &[
    (
        "model",
        &["model-name-or-path", "base-model", "checkpoint-dir"],
    ),
    (
        "data",
        &[
            "dataset",
            "datasets",
            "dataset-name",
            "dataset-path",
            "train-file",
        ],
    ),
    ("eval", &["validation", "validation-file", "eval-dataset"]),
    (
        "eval-fraction",
        &[
            "validation-split",
            "val-size",
            "val-set-size",
            "val-split-fraction",
        ],
    ),
    (
        "max-seq-length",
        &[
            "max-length",
            "max-seq-len",
            "sequence-len",
            "cutoff-len",
            "block-size",
        ],
    ),
    ("pack", &["packing", "sample-packing"]),
    ("loss-on-all", &["train-on-inputs", "train-on-prompt"]),
    ("chat-template", &["template", "chat-template-path"]),
    (
        "resize-embeddings",
        &["resize-vocab", "resize-token-embeddings"],
    ),
    ("method", &["finetuning-type", "fine-tune-type"]),
    (
        "active-layers",
        &["lisa-activated-layers", "lisa-n-layers", "activated-layers"],
    ),
    (
        "period",
        &[
            "sampling-period",
            "lisa-interval-steps",
            "lisa-step-interval",
            "badam-switch-interval",
            "switch-block-every",
        ],
    ),
    ("lora-rank", &["lora-r", "lora-dim"]),
    (
        "rslora",
        &["use-rslora", "lora-use-rslora", "peft-use-rslora"],
    ),
    ("lora-target-modules", &["target-modules", "lora-target"]),
    (
        "adapter",
        &["adapter-name-or-path", "lora-model-dir", "adapter-dir"],
    ),
    (
        "batch-size",
        &[
            "per-device-train-batch-size",
            "micro-batch-size",
            "train-batch-size",
        ],
    ),
    (
        "gradient-accumulation-steps",
        &[
            "accumulation",
            "gradient-accumulation",
            "grad-accumulation-steps",
        ],
    ),
    ("lr", &["learning-rate"]),
    ("epochs", &["num-train-epochs", "num-epochs"]),
    ("steps", &["max-steps", "iters"]),
    ("warmup-ratio", &["warmup"]),
    ("warmup-steps", &["num-warmup-steps"]),
    ("dtype", &["torch-dtype"]),
    ("min-lr-ratio", &["min-lr-rate", "cosine-min-lr-ratio"]),
    (
        "max-grad-norm",
        &["max-norm", "grad-clip", "gradient-clip-val"],
    ),
    ("out", &["output", "output-dir", "out-dir"]),
    (
        "save-every",
        &["checkpoint-every", "save-steps", "save-interval"],
    ),
    ("keep", &["save-total-limit"]),
    (
        "eval-every",
        &["eval-steps", "eval-interval", "steps-per-eval"],
    ),
    (
        "log-every",
        &["logging-steps", "log-interval", "steps-per-report"],
    ),
    ("overwrite", &["overwrite-output-dir"]),
];

/// A name, its setting, and the word of each value.
type Words = (&'static str, &'static str, &'static [(&'static str, Word)]);

/// The other names whose values have other words.
const WORDS: &[Words] = {
    use Word::{Absent, Number, Switch, Text};
    &[
        (
            "skip-bad-lines",
            "on-bad-line",
            &[("true", Text("skip")), ("false", Text("stop"))],
        ),
        (
            "gradient-checkpointing",
            "recompute",
            &[("true", Number(1)), ("false", Number(0))],
        ),
        (
            "bf16",
            "dtype",
            &[("true", Text("bf16")), ("false", Absent)],
        ),
        ("fp16", "dtype", &[("true", Text("f16")), ("false", Absent)]),
        ("lr-scheduler-type", "schedule", SCHEDULES),
        ("lr-scheduler", "schedule", SCHEDULES),
        (
            "assistant-only-loss",
            "loss-on-all",
            &[("true", Switch(false)), ("false", Switch(true))],
        ),
        (
            "mask-prompt",
            "loss-on-all",
            &[("true", Switch(false)), ("false", Switch(true))],
        ),
    ]
};

/// The schedules of transformers, and the nearest ones here. With the defaults, `cosine` falls to 0 there
/// and to 10 % of the rate here, and `constant` has a warm-up here.
const SCHEDULES: &[(&str, Word)] = &[
    ("cosine", Word::Text("cosine")),
    ("cosine_with_min_lr", Word::Text("cosine")),
    ("linear", Word::Text("linear")),
    ("constant", Word::Text("constant")),
    ("constant_with_warmup", Word::Text("constant")),
];

/// Values that mean "not given" in other trainers, with their names.
const ABSENT: &[(&str, &str)] = &[("max-steps", "-1"), ("iters", "-1")];

/// A value of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// One of a few words.
    Text(&'static str),
    /// A count.
    Number(u64),
    /// On or off.
    Switch(bool),
    /// None: the setting is not given.
    Absent,
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
            Self::Switch(switch) => write!(f, "{switch}"),
            Self::Absent => Ok(()),
        }
    }
}

/// Whether this value means in other trainers that the setting is not given.
pub(crate) fn is_absent(name: &str, value: &str) -> bool {
    ABSENT.contains(&(&*name.replace('_', "-"), value))
}

/// The setting that a name means, with hyphens. A name that is no other name is returned as it is.
pub(crate) fn setting(name: &str) -> String {
    let name = name.replace('_', "-");
    let found = NAMES.iter().find(|(_, others)| others.contains(&&*name));
    found.map_or(name, |(setting, _)| (*setting).to_owned())
}

/// The value of a switch as this program writes it: Python's `True` and `False` in small letters. Other
/// values are unchanged.
pub(crate) fn lowercase_switch(value: &str) -> &str {
    match value {
        "True" => "true",
        "False" => "false",
        other => other,
    }
}

/// The setting of a name whose values have other words, and those words.
pub(crate) fn translated(name: &str) -> Option<(&'static str, &'static [(&'static str, Word)])> {
    let name = name.replace('_', "-");
    let found = WORDS.iter().find(|(other, _, _)| *other == name)?;
    Some((found.1, found.2))
}

/// A value in a file that is translated.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Written {
    /// On or off.
    Switch(bool),
    /// A word.
    Text(String),
}

impl Written {
    /// The value among the words.
    pub(super) fn among(&self, words: &[(&str, Word)]) -> Option<Word> {
        let written = match self {
            Self::Switch(switch) => switch.to_string(),
            Self::Text(text) => lowercase_switch(text).to_owned(),
        };
        let found = words.iter().find(|(word, _)| *word == written);
        found.map(|(_, word)| *word)
    }
}

/// The name with the smallest edit distance among `settings` and their other names: at most a third
/// of the name's length, and at most three. Two swapped letters are one edit.
pub(crate) fn nearest<'a>(name: &str, settings: impl Iterator<Item = &'a str>) -> Option<String> {
    let name = name.replace('_', "-");
    let others = |setting: &str| {
        let plain = NAMES.iter().filter(|(of, _)| *of == setting);
        let plain = plain.flat_map(|(_, others)| others.iter().copied());
        let worded = WORDS.iter().filter(|(_, of, _)| *of == setting);
        plain
            .chain(worded.map(|(other, _, _)| *other))
            .collect::<Vec<_>>()
    };
    let near = settings
        .flat_map(|setting| {
            std::iter::once(setting)
                .chain(others(setting))
                .collect::<Vec<_>>()
        })
        .map(|known| (osa_distance(&name, known), known))
        .min()?;
    (near.0 <= (name.len() / 3).clamp(1, 3)).then(|| near.1.to_owned())
}

#[cfg(test)]
pub(crate) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    let plain = NAMES
        .iter()
        .flat_map(|(setting, others)| others.iter().map(move |o| (*o, *setting)));
    plain.chain(WORDS.iter().map(|(other, setting, _)| (*other, *setting)))
}
