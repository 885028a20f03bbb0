//! What settings are derived from: facts of the model and of the data, and the memory.

use std::fmt;

use anyhow::Result;
use lisa_lm::{CausalLm, Checkpoint};

use super::{BLOCK, LARGE, SMALL};
use crate::settings::Dtype;

/// What is known of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModelFacts {
    /// The dtype of its files.
    pub(crate) dtype: Option<Dtype>,
    /// Its number of parameters.
    pub(crate) parameters: usize,
    /// Its number of layers.
    pub(crate) layers: usize,
    /// The largest number of tokens in a row.
    pub(crate) positions: usize,
}

impl ModelFacts {
    /// The facts of a checkpoint and its model, whose parameters may be lazy.
    ///
    /// # Errors
    ///
    /// As [`uncounted`](Self::uncounted).
    pub(crate) fn of(checkpoint: &Checkpoint, model: &CausalLm) -> Result<Self> {
        Ok(Self {
            parameters: model.num_parameters(),
            ..Self::uncounted(checkpoint)?
        })
    }

    /// The facts of a checkpoint that follow from its files without a model: its parameters are not counted,
    /// and are 0.
    ///
    /// # Errors
    ///
    /// The dtype of the files is not supported.
    pub(crate) fn uncounted(checkpoint: &Checkpoint) -> Result<Self> {
        let config = checkpoint.config();
        Ok(Self {
            dtype: Dtype::stored(checkpoint)?,
            parameters: 0,
            layers: config.num_layers(),
            positions: config.max_positions(),
        })
    }

    /// Whether the model is of about the size of the study's, so that LISA freezes embeddings and head by
    /// default, and trains as many layers as [`LikeLora`] says.
    #[must_use]
    pub(crate) fn is_of_studied_size(&self) -> bool {
        (SMALL..LARGE).contains(&self.parameters)
    }
}

/// What is known of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DataFacts {
    /// The number of tokens of each training row before truncation, in ascending order. It is not empty.
    lengths: Vec<usize>,
    /// The number of tokens of the longest held-out row; 0 if there is none.
    held_out: usize,
}

impl DataFacts {
    /// The facts of training rows with these numbers of tokens; `None` if there is no row.
    #[must_use]
    pub(crate) fn of(mut lengths: Vec<usize>) -> Option<Self> {
        lengths.sort_unstable();
        let held_out = 0;
        (!lengths.is_empty()).then_some(Self { lengths, held_out })
    }

    /// With held-out rows; the longest one has `held_out` tokens.
    #[must_use]
    pub(crate) fn with_held_out(self, held_out: usize) -> Self {
        Self { held_out, ..self }
    }

    /// The number of tokens of the longest held-out row; 0 if there is none.
    #[must_use]
    pub(crate) fn longest_held_out(&self) -> usize {
        self.held_out
    }

    /// The number of training rows.
    #[must_use]
    pub(crate) fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// At least how many rows of this length the rows make when they are packed.
    #[must_use]
    pub(crate) fn packed(&self, length: usize) -> usize {
        let tokens: usize = self.lengths.iter().map(|own| own.min(&length)).sum();
        tokens.div_ceil(length.max(1))
    }

    /// The length that this share of the rows does not exceed.
    #[must_use]
    pub(crate) fn percentile(&self, share: f64) -> usize {
        let index = (share * self.rows() as f64).ceil() as usize;
        self.lengths[index.clamp(1, self.rows()) - 1]
    }

    /// The number of tokens of the longest training row.
    #[must_use]
    pub(crate) fn longest(&self) -> usize {
        self.percentile(1.0)
    }

    /// Whether this number of tokens is at most twice what nearly all training rows have.
    pub(super) fn is_usual(&self, tokens: usize) -> bool {
        tokens <= 2 * self.percentile(0.99)
    }

    /// The length of training rows without regard to memory: the longest row has it. Rows that are much
    /// longer than nearly all others are cut, and rows above the model's limit.
    #[must_use]
    pub(crate) fn usual_length(&self, model: &ModelFacts) -> usize {
        let length = if self.is_usual(self.longest()) {
            self.longest()
        } else {
            self.percentile(0.99).next_multiple_of(BLOCK)
        };
        length.clamp(2, model.positions.max(2))
    }
}

/// The memory that a run may use.
pub(crate) struct Room<'a> {
    /// Bytes of the device, or that the machine has available.
    pub(crate) bytes: u64,
    /// Bytes that a run of these settings needs, by the rows of a batch and the tokens of a row.
    pub(crate) needs: &'a dyn Fn(usize, usize) -> Option<u64>,
}

impl fmt::Debug for Room<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Room<'_> {
    pub(super) fn fits(&self, rows: usize, tokens: usize) -> bool {
        (self.needs)(rows, tokens).is_none_or(|needed| needed <= self.bytes)
    }
}

/// How many layers LISA can train in the memory that LoRA needs, with [`OUTER`](super::OUTER) frozen, by the
/// rows of a batch and the tokens of a row.
#[derive(Clone, Copy)]
pub(crate) struct LikeLora<'a>(pub(crate) &'a dyn Fn(usize, usize) -> Option<usize>);

impl fmt::Debug for LikeLora<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LikeLora").finish_non_exhaustive()
    }
}

/// How many training rows have a token to train on within a number of tokens. The others are left out.
#[derive(Clone, Copy)]
pub(crate) struct KeptRows<'a>(pub(crate) &'a dyn Fn(usize) -> usize);

impl fmt::Debug for KeptRows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeptRows").finish_non_exhaustive()
    }
}
