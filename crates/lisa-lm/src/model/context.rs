//! [`Context`]: values of a batch that every layer needs, computed once.

use burn::tensor::{Bool, Int, Tensor};

use crate::model::rope::RopeTables;

/// The masks and positions of a batch. [`CausalLm::context`](crate::CausalLm::context) computes
/// them for a model and its device. Use a context only with the model it was computed for; the
/// model without autodiff needs a separate one.
///
/// A mask has `batch * seq * seq` elements with padding or packing, and `seq * seq` without. An
/// element has one byte; on some devices of wgpu it has four.
#[derive(Clone, Debug)]
pub struct Context {
    /// The mask of layers without a sliding window; `None` if every token attends to every other.
    pub(crate) full: Option<Tensor<4, Bool>>,
    /// The mask of layers with a sliding window; the same as `full` if the window covers the row.
    pub(crate) sliding: Option<Tensor<4, Bool>>,
    /// The rotary positions, if the model has them.
    pub(crate) rope: Option<RopeTables>,
    /// The positions, `[batch or 1, seq]`, if the model has embeddings for them.
    pub(crate) positions: Option<Tensor<2, Int>>,
}
