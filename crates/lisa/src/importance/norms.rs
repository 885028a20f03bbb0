//! [`WeightNorms`]: the mean norms of one run.

use serde::{Deserialize, Serialize};

/// Mean L2 norms of a model's weights over a run, with the paths of the weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WeightNorms {
    /// How many observations the means are of.
    pub observations: u64,
    /// One for each layer, in the order of the stack: the norm of all its elements together.
    pub layers: Vec<(String, f64)>,
    /// One for each parameter outside the layers: embeddings, final norm, head.
    pub outside: Vec<(String, f64)>,
}
