//! [`WeightNorms`]: the mean norms of one run.

use serde::{Deserialize, Serialize};

/// Mean L2 norms of a model's weights over a run, with the paths of the weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WeightNorms {
    /// The number of observations in each mean.
    pub observations: u64,
    /// For each layer, in the order of the stack: its path, and the mean norm of all its elements
    /// together.
    pub layers: Vec<(String, f64)>,
    /// For each parameter outside the layers (embeddings, final norm, head): its path and its mean
    /// norm.
    pub outside: Vec<(String, f64)>,
}
