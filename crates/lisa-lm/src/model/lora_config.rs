//! [`LoraConfig`]: rank, scale, dropout and modules of LoRA adapters.

use crate::error::{Error, ErrorKind};

/// The largest rank: more than the width of any model.
const MAX_RANK: usize = 1 << 16;

/// The configuration of LoRA adapters, with the meaning of PEFT's `LoraConfig`.
///
/// # Example
///
/// ```
/// use lisa_lm::model::LoraConfig;
///
/// let config = LoraConfig::new(16).with_dropout(0.05).with_modules(["q_proj", "v_proj"]);
/// assert_eq!(config.scale(), 2.0);
/// assert_eq!(config.with_rslora(true).scale(), 8.0);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// The rank `r`.
    pub rank: usize,
    /// `alpha`: the adapters are scaled by `alpha / r`.
    pub alpha: f64,
    /// The probability with which an element of an adapter's input is dropped in training.
    pub dropout: f64,
    /// Whether the adapters are scaled by `alpha / sqrt(r)` instead (rank-stabilized LoRA).
    pub rslora: bool,
    /// The modules with an adapter, by their names in transformers: `q_proj`, or a longer end of
    /// their path, such as `layers.0.self_attn.q_proj`. Empty: all linear modules of the layers,
    /// which PEFT calls `all-linear`.
    pub modules: Vec<String>,
    /// The seed of the initial values.
    pub seed: u64,
}

impl LoraConfig {
    /// Adapters of this rank, scaled by 2, on all linear modules of the layers, without dropout.
    #[must_use]
    pub fn new(rank: usize) -> Self {
        Self {
            rank,
            alpha: 2.0 * rank as f64,
            dropout: 0.0,
            rslora: false,
            modules: Vec::new(),
            seed: 0,
        }
    }

    /// Sets [`alpha`](Self::alpha).
    #[must_use]
    pub fn with_alpha(self, alpha: f64) -> Self {
        Self { alpha, ..self }
    }

    /// Sets [`dropout`](Self::dropout).
    #[must_use]
    pub fn with_dropout(self, dropout: f64) -> Self {
        Self { dropout, ..self }
    }

    /// Sets [`rslora`](Self::rslora).
    #[must_use]
    pub fn with_rslora(self, rslora: bool) -> Self {
        Self { rslora, ..self }
    }

    /// Sets [`modules`](Self::modules).
    #[must_use]
    pub fn with_modules(self, modules: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let modules = modules.into_iter().map(Into::into).collect();
        Self { modules, ..self }
    }

    /// Sets [`seed`](Self::seed).
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The factor of the adapters' output: `alpha / r`, or `alpha / sqrt(r)` with
    /// [`rslora`](Self::rslora).
    #[must_use]
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// Whether the module at this path gets an adapter; `in_layers` says whether it is one of the
    /// layers.
    pub(crate) fn selects(&self, path: &str, in_layers: bool) -> bool {
        if self.modules.is_empty() {
            return in_layers;
        }
        self.names(path)
    }

    /// Whether one of the names is of the module at this path.
    pub(crate) fn names(&self, path: &str) -> bool {
        self.modules.iter().any(|name| ends_with(path, name))
    }

    /// Returns an error if a value is out of range.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |message: String, help: &str| {
            Err(Error::new(ErrorKind::Config, message).with_help(help))
        };
        if self.rank == 0 {
            return refuse(
                "the rank of the LoRA adapters is 0".to_owned(),
                "give at least 1",
            );
        }
        if self.rank > MAX_RANK {
            return refuse(
                format!("the rank of the LoRA adapters is {}", self.rank),
                "give at most 65536",
            );
        }
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return refuse(
                format!("alpha of the LoRA adapters is {}", self.alpha),
                "give a number above 0",
            );
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse(
                format!("the dropout of the LoRA adapters is {}", self.dropout),
                "give a probability from 0 to below 1",
            );
        }
        Ok(())
    }
}

/// Whether a path is `end` or ends with `.` and `end`.
pub(crate) fn ends_with(path: &str, end: &str) -> bool {
    let start = path.strip_suffix(end);
    start.is_some_and(|start| start.is_empty() || start.ends_with('.'))
}
