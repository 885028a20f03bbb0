//! The model and the data.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use lisa_lm::text::{Columns, EncodeOptions, LossOn};
use serde::Deserializer;
use serde::de::{SeqAccess, Visitor};

use super::group::{differing, group};
use super::kinds::{Empty, OnBad, Pairs, Turns};
use crate::model_folder::model_folder;
use crate::user_error::require;

group! { "Model and data", InputFlags, InputSettings {
    /// Folder of a model, or a hub id [default: bundled model]
    #[arg(long, value_name = "DIR")]
    model: PathBuf = PathBuf::new();
    /// Branch, tag or commit of a model on the hub [default: main]
    #[arg(long, value_name = "REVISION", hide_short_help = true)]
    revision: String = String::new();
    /// Files (JSONL, CSV, Parquet, ..) or folders [default: bundled data]
    #[arg(long, value_delimiter = ',', value_name = "FILE,..")]
    data: Vec<PathBuf> = Vec::new();
    /// Other names for the keys of the data, such as question=prompt
    #[arg(long, value_name = "KEY=NAME,..", hide_short_help = true)]
    columns: Columns = Columns::default();
    /// Held-out file or folder; else held-out files or a share of --data
    #[arg(long, value_name = "FILE")]
    eval: PathBuf = PathBuf::new();
    /// Share of the data that is held out [default: 0.1]
    #[arg(long, value_name = "SHARE", hide_short_help = true)]
    eval_fraction: f64 = 0.1;
    /// Longest row in tokens; longer rows are cut [default: from the data]
    #[arg(long, value_name = "TOKENS")]
    max_seq_length: usize = 512;
    /// Memory for encoded rows in GiB; more rows go to a file [default: by machine]
    #[arg(long, value_name = "GIB", hide_short_help = true)]
    data_memory: f64 = 0.0;
    /// Pack several examples into one row
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pack: bool = false;
    /// Train on all tokens, not only on the answers
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    loss_on_all: bool = false;
    /// Answers of a chat that are trained on [default: auto]
    #[arg(long, value_enum, hide_short_help = true)]
    turns: Turns = Turns::Auto;
    /// Empty answers: train on them and warn, or refuse [default: warn]
    #[arg(long, value_enum, hide_short_help = true)]
    empty_answers: Empty = Empty::Warn;
    /// Lines that cannot be used: stop at the first, or skip them [default: stop]
    #[arg(long, value_enum, hide_short_help = true)]
    on_bad_line: OnBad = OnBad::Stop;
    /// chatml, llama3, plain, or a Jinja file [default: the model's]
    #[arg(long, value_name = "NAME|FILE", hide_short_help = true)]
    chat_template: String = String::new();
    /// Pairs as text or as a chat; auto: text, with a warning [default: auto]
    #[arg(long, value_enum, hide_short_help = true)]
    pairs: Pairs = Pairs::Auto;
    /// Add an embedding row, the mean of the others, for each token without one
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    resize_embeddings: bool = false;
}}

impl InputFlags {
    /// Whether a model is given.
    pub(super) fn has_model(&self) -> bool {
        self.model
            .as_ref()
            .is_some_and(|path| !path.as_os_str().is_empty())
    }

    /// Whether data is given.
    pub(super) fn has_data(&self) -> bool {
        self.data.as_ref().is_some_and(|paths| !paths.is_empty())
    }
}

impl InputSettings {
    /// Whether both the model and the data are the bundled ones.
    #[must_use]
    pub(crate) fn is_demo(&self) -> bool {
        self.model.as_os_str().is_empty() && self.data.is_empty()
    }

    /// A warning if either the model or the data is the bundled one: the flag may be forgotten.
    #[must_use]
    pub(crate) fn half_bundled(&self) -> Option<&'static str> {
        match (self.model.as_os_str().is_empty(), self.data.is_empty()) {
            (true, false) => Some(
                "no --model is given: this is the bundled model, a toy of 1.5 M parameters for \
                 `lisa demo`; give yours with --model",
            ),
            (false, true) => Some(
                "no --data is given: these are the bundled rows of `lisa demo`; give yours with --data",
            ),
            _ => None,
        }
    }

    /// The folder of the model. A model on the hub is downloaded.
    pub(crate) fn folder(&self) -> Result<PathBuf> {
        model_folder(&self.model, &self.revision)
    }

    /// How the data becomes rows of at most `max_length` tokens.
    #[must_use]
    pub(crate) fn encoding(&self, max_length: usize) -> EncodeOptions {
        EncodeOptions {
            max_length,
            loss_on: if self.loss_on_all {
                LossOn::All
            } else {
                LossOn::Answer
            },
            turns: self.turns.into(),
            empty_answers: self.empty_answers.into(),
            on_bad: self.on_bad_line.into(),
        }
    }

    /// Refuses a length above the model's limit.
    pub(super) fn fits(&self, positions: usize) -> Result<()> {
        require!(
            self.max_seq_length <= positions,
            format!("give at most {positions}, or leave it out"),
            "--max-seq-length is {}, and the model has {positions} positions",
            self.max_seq_length
        );
        Ok(())
    }

    pub(super) fn check(&self) -> Result<()> {
        require!(
            !self.loss_on_all || self.turns == Turns::Auto,
            "give one of both",
            "--turns chooses answers, but --loss-on-all trains on all tokens"
        );
        require!(
            self.max_seq_length > 1,
            "give at least 2: a token is predicted from those before it",
            "--max-seq-length is {}",
            self.max_seq_length
        );
        require!(
            self.data_memory >= 0.0 && self.data_memory.is_finite(),
            "give a size in GiB, such as 4 or 0.5",
            "--data-memory is {}",
            self.data_memory
        );
        require!(
            (0.0..1.0).contains(&self.eval_fraction),
            "give a share from 0 to below 1",
            "--eval-fraction is {}",
            self.eval_fraction
        );
        Ok(())
    }

    pub(super) fn differs(&self, saved: &Self) -> Option<String> {
        differing!(self, saved;
            max_seq_length, pack, loss_on_all, turns, eval_fraction, chat_template, pairs, resize_embeddings,
            columns);
        None
    }
}

/// Reads one path, or a list of paths. Empty paths are none.
pub(super) fn paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    let paths = strings(deserializer, "a path or a list of paths")?;
    Ok(paths.into_iter().map(PathBuf::from).collect())
}

/// Reads a list of texts, or one text, which is split at commas as on the command line unless it is a file;
/// errors say that `expected` was expected. An empty text is none.
pub(super) fn strings<'de, D: Deserializer<'de>>(
    deserializer: D,
    expected: &'static str,
) -> Result<Vec<String>, D::Error> {
    struct Strings(&'static str);

    impl<'de> Visitor<'de> for Strings {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            if Path::new(text).exists() {
                return Ok(vec![text.to_owned()]);
            }
            let texts = text.split(',').map(str::trim);
            let texts = texts.filter(|text| !text.is_empty());
            Ok(texts.map(str::to_owned).collect())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut texts = Vec::new();
            while let Some(text) = list.next_element::<String>()? {
                texts.push(text);
            }
            Ok(texts)
        }
    }

    deserializer.deserialize_any(Strings(expected))
}
