//! [`Input`]: a batch of tokens with what is known about them, and [`Context`]: what every layer
//! needs of it, computed once.
//!
//! Masks are kept at `[batch or 1, 1, rows, keys]`, with the rows of the query heads that share a
//! key head one below the other, which is how `attention.rs` lays out its scores. Tests: with the
//! models.

use burn::tensor::{Bool, Device, Int, Tensor};

use crate::model::rope::RopeTables;

/// A batch of token ids, `[batch, seq]`, and what is known about them. Where a field is none, every
/// row is one text without padding.
///
/// # Example
///
/// ```
/// use burn::tensor::{Bool, Device, Int, Tensor};
/// use lisa_lm::Input;
/// # use lisa_lm::{LlamaConfig, ModelConfig};
///
/// # let device = Device::default();
/// # let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
/// let of = |ids: [[i32; 3]; 2]| Input::new(Tensor::<2, Int>::from_data(ids, &device));
/// let padding = Tensor::<2, Bool>::from_data([[false; 3], [false, false, true]], &device);
/// let first = of([[1, 2, 3], [4, 5, 0]]).with_padding(padding.clone());
/// let other = of([[1, 2, 3], [4, 5, 9]]).with_padding(padding);
///
/// // What stands in the padding does not matter to the rest of the row.
/// let [first, other] = [first, other].map(|input| model.forward(&input).slice([1..2, 0..2]));
/// assert_eq!(first.into_data(), other.into_data());
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Input {
    /// The token ids, each below the vocabulary's size.
    pub tokens: Tensor<2, Int>,
    /// True where a row is padded: nothing attends to it.
    pub padding: Option<Tensor<2, Bool>>,
    /// Which text of its row each token belongs to: tokens attend within theirs only.
    pub segments: Option<Tensor<2, Int>>,
    /// The place of each token in its text; none: its place in the row.
    pub positions: Option<Tensor<2, Int>>,
}

impl Input {
    /// Tokens with nothing known about them: rows of one length, each one text.
    #[must_use]
    pub fn new(tokens: Tensor<2, Int>) -> Self {
        Self {
            tokens,
            padding: None,
            segments: None,
            positions: None,
        }
    }

    /// The same with padding, true where a row is padded.
    #[must_use]
    pub fn with_padding(mut self, padding: Tensor<2, Bool>) -> Self {
        self.padding = Some(padding);
        self
    }
}

/// The tensors of one training step, each of shape `[batch, seq]`: tokens, the target at each
/// position, and what is known about the rows. [`Input::from`] takes all but the targets.
#[derive(Clone, Debug)]
pub struct BatchTensors {
    /// The token ids, each below the vocabulary size.
    pub tokens: Tensor<2, Int>,
    /// The token to predict at each position, or -100 where no loss is computed.
    pub targets: Tensor<2, Int>,
    /// True at padding. `None`: no row is padded.
    pub padding: Option<Tensor<2, Bool>>,
    /// The index of the text, within its row, that each token belongs to. `None`: every row is one
    /// text.
    pub segments: Option<Tensor<2, Int>>,
    /// The position of each token in its text. `None`: every row is one text.
    pub positions: Option<Tensor<2, Int>>,
}

impl From<BatchTensors> for Input {
    fn from(batch: BatchTensors) -> Self {
        Self {
            tokens: batch.tokens,
            padding: batch.padding,
            segments: batch.segments,
            positions: batch.positions,
        }
    }
}

/// What every layer needs to know of a batch: masks and rotary tables. Made by
/// [`CausalLm::context`](crate::CausalLm::context) for a model and its device; use it with that
/// model, and make another for the model without autodiff.
///
/// Costs `batch * heads per key head * seq * seq` bytes where there is padding or packing, and the
/// same without `batch` otherwise.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use lisa_lm::Input;
/// # use lisa_lm::{LlamaConfig, ModelConfig};
///
/// # let device = Device::default();
/// # let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
/// let input = Input::new(Tensor::<2, Int>::from_data([[1, 2, 3]], &device));
/// // Once for the batch, then layer by layer.
/// let context = model.context(&input);
/// let mut h = model.embed(&input, &context);
/// for index in 0..model.num_layers() {
///     h = model.layer(index, h, &context);
/// }
/// assert_eq!(h.dims(), [1, 3, 16]);
/// assert_eq!(model.head(h).into_data(), model.forward(&input).into_data());
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Context {
    /// Which keys a layer that sees everything must not see; none: all may be seen.
    pub(crate) full: Option<Tensor<4, Bool>>,
    /// The same for a layer with a sliding window.
    pub(crate) sliding: Option<Tensor<4, Bool>>,
    pub(crate) rope: Option<RopeTables>,
    /// The place in the row of each token, `[batch or 1, seq]`, where the model embeds it.
    pub(crate) positions: Option<Tensor<2, Int>>,
}

/// Where the queries of a mask stand among the keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MaskShape {
    /// Keys before the first query: what a cache holds.
    pub(crate) past: usize,
    /// How many query heads share a key head.
    pub(crate) groups: usize,
}

impl MaskShape {
    /// The mask of a layer; none where everything may be seen. True is masked.
    pub(crate) fn mask(
        self,
        input: &Input,
        window: Option<usize>,
        device: &Device,
    ) -> Option<Tensor<4, Bool>> {
        let [batch, seq] = input.tokens.dims();
        let (past, groups) = (self.past, self.groups);
        let keys = past + seq;
        let slides = window.is_some_and(|window| keys > window);
        if seq == 1 && !slides && input.padding.is_none() && input.segments.is_none() {
            return None;
        }
        let offset = past as i64;
        let mut mask = Tensor::<2, Bool>::tril_mask([seq, keys], offset, device);
        if let (Some(window), true) = (window, slides) {
            let first = offset - window as i64 + 1;
            mask = mask.bool_or(Tensor::triu_mask([seq, keys], first, device));
        }
        let mut mask: Tensor<4, Bool> = mask.reshape([1, 1, seq, keys]);
        if let Some(padding) = &input.padding {
            let padding = padding.clone().reshape([batch, 1, 1, keys]);
            let shape = [batch, 1, seq, keys];
            mask = mask.expand(shape).bool_or(padding.expand(shape));
        }
        if let Some(segments) = &input.segments {
            let shape = [batch, 1, seq, keys];
            let rows: Tensor<4, Int> = segments.clone().reshape([batch, 1, seq, 1]);
            let columns: Tensor<4, Int> = segments.clone().reshape([batch, 1, 1, keys]);
            let differ = rows.expand(shape).not_equal(columns.expand(shape));
            mask = mask.expand(shape).bool_or(differ);
        }
        Some(if groups == 1 {
            mask
        } else {
            mask.repeat_dim(2, groups)
        })
    }
}
