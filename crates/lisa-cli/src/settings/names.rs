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
            "split-dataset-ratio",
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
    ("lora-rank", &["lora-r", "lora-dim", "r"]),
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
        &["per-device-train-batch-size", "micro-batch-size"],
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
    ("steps", &["max-steps"]),
    ("warmup-ratio", &["warmup"]),
    ("warmup-steps", &["num-warmup-steps"]),
    ("dtype", &["torch-dtype"]),
    ("min-lr-ratio", &["min-lr-rate", "cosine-min-lr-ratio"]),
    (
        "max-grad-norm",
        &[
            "max-norm",
            "grad-clip",
            "gradient-clip-val",
            "clip-grad-norm",
        ],
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
        &[
            "logging-steps",
            "log-interval",
            "log-every-n-steps",
            "steps-per-report",
        ],
    ),
    ("eval-first", &["eval-on-start"]),
    ("revision", &["model-revision"]),
    ("overwrite", &["overwrite-output-dir"]),
];

/// Another name of a setting whose values have other words.
pub(crate) struct Worded {
    name: &'static str,
    /// The name of the setting.
    pub(crate) setting: &'static str,
    /// The words, and what they mean.
    words: &'static [(&'static str, Word)],
}

impl Worded {
    /// What a word means; `None` if it is none of them.
    pub(crate) fn meaning(&self, word: &str) -> Option<Word> {
        let found = self.words.iter().find(|(known, _)| *known == word);
        found.map(|(_, meaning)| *meaning)
    }

    /// The words that are read.
    pub(crate) fn choices(&self) -> String {
        let is_read = |meaning: &Word| !matches!(meaning, Word::Refused(_));
        let words = self.words.iter().filter(|(_, meaning)| is_read(meaning));
        let words: Vec<&str> = words.map(|(word, _)| *word).collect();
        words.join(" or ")
    }
}

/// The other names whose values have other words.
const WORDS: &[Worded] = {
    use Word::{Absent, Number, Refused, Switch, Text};
    &[
        Worded {
            name: "skip-bad-lines",
            setting: "on-bad-line",
            words: &[("true", Text("skip")), ("false", Text("stop"))],
        },
        Worded {
            name: "gradient-checkpointing",
            setting: "recompute",
            words: &[("true", Number(1)), ("false", Number(0))],
        },
        Worded {
            name: "bf16",
            setting: "dtype",
            words: &[
                ("true", Text("bf16")),
                ("false", Absent),
                ("auto", Refused(AUTO)),
            ],
        },
        Worded {
            name: "fp16",
            setting: "dtype",
            words: &[
                ("true", Text("f16")),
                ("false", Absent),
                ("auto", Refused(AUTO)),
            ],
        },
        Worded {
            name: "lr-scheduler-type",
            setting: "schedule",
            words: SCHEDULES,
        },
        Worded {
            name: "lr-scheduler",
            setting: "schedule",
            words: SCHEDULES,
        },
        // In TRL, `false` trains all tokens of a chat, but only the completion after a prompt.
        Worded {
            name: "assistant-only-loss",
            setting: "loss-on-all",
            words: &[("true", Switch(false)), ("false", Refused(ANSWERS))],
        },
        Worded {
            name: "mask-prompt",
            setting: "loss-on-all",
            words: &[("true", Switch(false)), ("false", Switch(true))],
        },
    ]
};

const AUTO: &str = "leave it out: the default is the dtype of the model's files";
const ANSWERS: &str = "leave it out: the loss is of the answers and completions; to train on all tokens of \
                       every row, give `loss-on-all`";

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
const ABSENT: &[(&str, &str)] = &[("max-steps", "-1")];

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
    /// It is refused, with what to do.
    Refused(&'static str),
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
            Self::Switch(switch) => write!(f, "{switch}"),
            Self::Absent | Self::Refused(_) => Ok(()),
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

/// The value of a switch as this program writes it. On the command line of other trainers it may also
/// be 0 or 1, and Python writes `True` and `False`. Other values are unchanged.
pub(crate) fn plain_switch(value: &str) -> &str {
    match value {
        "True" | "1" | "yes" => "true",
        "False" | "0" | "no" => "false",
        other => other,
    }
}

/// The setting of a name whose values have other words, and those words.
pub(crate) fn translated(name: &str) -> Option<&'static Worded> {
    let name = name.replace('_', "-");
    WORDS.iter().find(|other| other.name == name)
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
    /// What the value means.
    pub(super) fn among(&self, name: &Worded) -> Option<Word> {
        match self {
            Self::Switch(switch) => name.meaning(&switch.to_string()),
            Self::Text(text) => name.meaning(plain_switch(text)),
        }
    }
}

/// The name with the smallest edit distance among `settings` and their other names: at most a third
/// of the name's length, and at most three. Two swapped letters are one edit. A name of one or two
/// letters is near to none.
pub(crate) fn nearest<'a>(name: &str, settings: impl Iterator<Item = &'a str>) -> Option<String> {
    let name = name.replace('_', "-");
    let others = |setting: &str| {
        let plain = NAMES.iter().filter(|(of, _)| *of == setting);
        let plain = plain.flat_map(|(_, others)| others.iter().copied());
        let worded = WORDS.iter().filter(|other| other.setting == setting);
        plain
            .chain(worded.map(|other| other.name))
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
    (near.0 <= (name.len() / 3).min(3)).then(|| near.1.to_owned())
}

#[cfg(test)]
pub(crate) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    let plain = NAMES
        .iter()
        .flat_map(|(setting, others)| others.iter().map(move |o| (*o, *setting)));
    plain.chain(WORDS.iter().map(|other| (other.name, other.setting)))
}
