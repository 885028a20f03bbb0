//! [`Lengths`] and [`Roles`]: what is measured of rows and examples before rows are cut.

use std::collections::BTreeMap;

use lisa_lm::Tokenizer;
use lisa_lm::text::{Example, role_tokens};

/// How many examples the shares of the roles are measured on. Each costs several renderings.
const MEASURED: usize = 200;

/// Tokens of the roles in the first examples.
#[derive(Debug, Default)]
pub(crate) struct Roles {
    pub(super) tokens: BTreeMap<String, usize>,
    pub(super) measured: usize,
}

impl Roles {
    /// Measures an example, if it is one of the first.
    pub(crate) fn see(&mut self, example: &Example, tokenizer: &Tokenizer) {
        if self.measured == MEASURED {
            return;
        }
        self.measured += 1;
        // An example that is refused has no row.
        for (role, count) in role_tokens(example, tokenizer).unwrap_or_default() {
            *self.tokens.entry(role).or_insert(0) += count;
        }
    }
}

/// What is known of rows before they are truncated.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Lengths {
    lengths: Vec<usize>,
    pub(super) untrained: usize,
}

impl Lengths {
    /// Of rows with these numbers of tokens, and the number of other rows, which have no token in the
    /// loss.
    pub(crate) fn new(mut lengths: Vec<usize>, untrained: usize) -> Self {
        lengths.sort_unstable();
        Self { lengths, untrained }
    }

    /// Tokens of the longest row.
    pub(crate) fn longest(&self) -> usize {
        self.quantile(1.0)
    }

    pub(super) fn quantiles(&self) -> Quantiles {
        Quantiles {
            median: self.quantile(0.5),
            most: [0.95, 0.99].map(|share| self.quantile(share)),
            longest: self.longest(),
        }
    }

    /// The smallest length that this share of the rows does not exceed.
    fn quantile(&self, share: f64) -> usize {
        let index = (share * self.lengths.len() as f64).ceil() as usize;
        let at = index.saturating_sub(1);
        self.lengths.get(at).copied().unwrap_or_default()
    }
}

/// Lengths that a half, 95 %, 99 % and all of the rows do not exceed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Quantiles {
    pub(super) median: usize,
    pub(super) most: [usize; 2],
    pub(super) longest: usize,
}
