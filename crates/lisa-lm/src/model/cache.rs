//! [`KvCache`]: the keys and values of the tokens read so far.

use burn::tensor::Tensor;

/// The keys and values of all layers for the tokens that a model has read. With the cache, only new
/// tokens run through the layers.
///
/// Its size is `2 * layers * key heads * head_dim` elements for each token. Each call of
/// [`read`](crate::CausalLm::read) copies these elements once, to append the new ones.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use lisa_lm::ModelConfig;
/// use lisa_lm::model::{Input, KvCache, config::LlamaConfig};
///
/// # let device = Device::default();
/// let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
/// let tokens = Tensor::<2, Int>::from_data([[1, 2, 3, 4]], &device);
/// let mut cache = KvCache::new(model.num_layers());
/// assert!(cache.is_empty());
/// let _ = model.read(tokens.clone().slice_dim(1, 0..3), &mut cache);
/// let last = model.read(tokens.clone().slice_dim(1, 3..4), &mut cache);
/// assert_eq!((last.dims(), cache.len()), ([1, 1, 64], 4));
///
/// // The same as one pass over all four tokens.
/// let whole = model.forward(&Input::new(tokens)).slice_dim(1, 3..4);
/// assert!(last.all_close(whole, Some(1e-4), Some(1e-5)));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    tokens: usize,
}

/// The keys and values of one layer, each `[batch, key heads, tokens, head_dim]`.
#[derive(Clone, Debug, Default)]
pub(crate) struct LayerCache {
    stored: Option<(Tensor<4>, Tensor<4>)>,
}

impl LayerCache {
    /// Appends keys and values, and returns all.
    pub(crate) fn append(&mut self, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let all = match self.stored.take() {
            None => (k, v),
            Some((old_k, old_v)) => (
                Tensor::cat(vec![old_k, k], 2),
                Tensor::cat(vec![old_v, v], 2),
            ),
        };
        self.stored = Some(all.clone());
        all
    }
}

impl KvCache {
    /// An empty cache for a model with this many layers.
    #[must_use]
    pub fn new(layers: usize) -> Self {
        Self {
            layers: vec![LayerCache::default(); layers],
            tokens: 0,
        }
    }

    /// The number of tokens read.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens
    }

    /// Whether no token was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    /// The caches of all layers, in order.
    pub(crate) fn layers_mut(&mut self) -> impl Iterator<Item = &mut LayerCache> {
        self.layers.iter_mut()
    }

    /// Counts tokens that every layer has appended.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.tokens += tokens;
    }
}
