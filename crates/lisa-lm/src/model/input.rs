//! [`Input`] and [`BatchTensors`]: the input of a model.

use burn::tensor::{Bool, Int, Tensor};

/// A batch of token ids, with padding and packing. Every tensor is `[batch, seq]`.
///
/// If there are no optional tensors, every row is one text without padding.
///
/// # Example
///
/// ```
/// use burn::tensor::{Bool, Device, Int, Tensor};
/// use lisa_lm::model::Input;
/// # use lisa_lm::{ModelConfig, model::config::LlamaConfig};
///
/// # let device = Device::default();
/// # let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
/// let of = |ids: [[i32; 3]; 2]| Input::new(Tensor::<2, Int>::from_data(ids, &device));
/// let padding = Tensor::<2, Bool>::from_data([[false; 3], [false, false, true]], &device);
/// let first = of([[1, 2, 3], [4, 5, 0]]).with_padding(padding.clone());
/// let other = of([[1, 2, 3], [4, 5, 9]]).with_padding(padding);
///
/// // The tokens of the padding do not change the logits of the others.
/// let [first, other] = [first, other].map(|input| model.forward(&input).slice([1..2, 0..2]));
/// assert_eq!(first.into_data(), other.into_data());
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Input {
    /// The token ids, each below the vocabulary size.
    pub tokens: Tensor<2, Int>,
    /// True at padding, which no token attends to. `None`: no row is padded.
    pub padding: Option<Tensor<2, Bool>>,
    /// The index of the text, within its row, that each token belongs to; tokens attend only within
    /// their text. `None`: every row is one text.
    pub segments: Option<Tensor<2, Int>>,
    /// The position of each token in its text. `None`: its position in the row.
    pub positions: Option<Tensor<2, Int>>,
}

impl Input {
    /// Rows with one text each, without padding.
    #[must_use]
    pub fn new(tokens: Tensor<2, Int>) -> Self {
        Self {
            tokens,
            padding: None,
            segments: None,
            positions: None,
        }
    }

    /// Adds padding: the mask is true at each padded position.
    #[must_use]
    pub fn with_padding(mut self, padding: Tensor<2, Bool>) -> Self {
        self.padding = Some(padding);
        self
    }
}

/// The input of a training step with its targets. Every tensor is `[batch, seq]`.
#[derive(Clone, Debug)]
pub struct BatchTensors {
    /// The token ids, with padding and packing.
    pub input: Input,
    /// The token to predict at each position, or -100 where no loss is computed.
    pub targets: Tensor<2, Int>,
    /// The weight of each target in the loss, in f32. `None`: all weights are 1.
    pub weights: Option<Tensor<2>>,
}
