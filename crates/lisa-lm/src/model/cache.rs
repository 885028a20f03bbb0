//! [`KvCache`]: the keys and values of what was read, so that each new token costs one row.
//!
//! Holds `2 * layers * key heads * head_dim` numbers for each token. Every step copies a layer's
//! keys and values once, to put the new ones behind them. Tests: with `generate.rs`.

use burn::tensor::{Int, Tensor};

use crate::model::causal_lm::CausalLm;
use crate::model::input::Input;

/// The keys and values of all layers for what a model has read so far.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use lisa_lm::{Input, KvCache, LlamaConfig, ModelConfig};
///
/// # let device = Device::default();
/// let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
/// let tokens = Tensor::<2, Int>::from_data([[1, 2, 3, 4]], &device);
/// let mut cache = KvCache::new(&model);
/// assert!(cache.is_empty());
/// let _ = model.read(tokens.clone().slice_dim(1, 0..3), &mut cache);
/// let last = model.read(tokens.clone().slice_dim(1, 3..4), &mut cache);
/// assert_eq!((last.dims(), cache.len()), ([1, 1, 64], 4));
///
/// // As one pass over all four.
/// let whole = model.forward(&Input::new(tokens)).slice_dim(1, 3..4);
/// assert!(last.all_close(whole, Some(1e-4), Some(1e-5)));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    len: usize,
}

/// Those of one layer, each `[batch, key heads, tokens, head_dim]`.
#[derive(Clone, Debug, Default)]
pub(crate) struct LayerCache {
    held: Option<(Tensor<4>, Tensor<4>)>,
}

impl LayerCache {
    /// Puts these behind what is held, and gives all.
    pub(crate) fn append(&mut self, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let all = match self.held.take() {
            None => (k, v),
            Some((old_k, old_v)) => (
                Tensor::cat(vec![old_k, k], 2),
                Tensor::cat(vec![old_v, v], 2),
            ),
        };
        self.held = Some(all.clone());
        all
    }
}

impl KvCache {
    /// An empty cache for this model.
    #[must_use]
    pub fn new(model: &CausalLm) -> Self {
        Self {
            layers: vec![LayerCache::default(); model.num_layers()],
            len: 0,
        }
    }

    /// How many tokens were read.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl CausalLm {
    /// Reads more tokens, `[batch, seq]`, and gives the logits behind the last, `[batch, 1, vocab]`.
    ///
    /// Rows have no padding. Use it on a model without autodiff (`model.valid()`), else the tape
    /// grows with every token.
    ///
    /// # Panics
    ///
    /// Ids outside the vocabulary, a cache of another model or batch size, and for GPT-2 more
    /// tokens than positions.
    #[must_use]
    pub fn read(&self, tokens: Tensor<2, Int>, cache: &mut KvCache) -> Tensor<3> {
        let [batch, seq] = tokens.dims();
        let input = Input::new(tokens);
        let context = self.context_after(&input, cache.len);
        let mut h = self.embed(&input, &context);
        for (index, layer) in cache.layers.iter_mut().enumerate() {
            h = self.layer_cached(index, h, &context, Some(layer));
        }
        cache.len += seq;
        let width = h.dims()[2];
        self.head(h.slice([0..batch, seq - 1..seq, 0..width]))
    }
}
