//! [`Recompute`]: which hidden states are kept, and what is recomputed from them.

use std::ops::Range;

use burn::tensor::Device;

/// How a [`LayeredModel`](super::LayeredModel) is recomputed.
///
/// Memory: one hidden state for each segment, and the activations of one segment at a time. Time:
/// one more forward pass over the layers from the lowest trainable one to the last; with segments
/// of more than one layer that are not divided into sublayers, the last segment is not recomputed.
/// The gradients equal those of plain autodiff, except that sums may have another order. A model
/// with dropout needs [`with_dropout_seed`](Self::with_dropout_seed).
///
/// # Example
///
/// ```
/// use lisa::recompute::Recompute;
///
/// // Keep the input of every fourth layer, and replay dropout with this seed.
/// let plan = Recompute::new().with_every(4).with_dropout_seed(7);
/// // The least memory: sublayer by sublayer.
/// let least = plan.with_sublayers();
/// # assert_ne!(least, plan);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recompute {
    /// Layers in a segment.
    every: usize,
    sublayers: bool,
    dropout_seed: Option<u64>,
}

impl Default for Recompute {
    fn default() -> Self {
        Self::new()
    }
}

impl Recompute {
    /// Uses segments of one layer: the input of every layer is kept.
    #[must_use]
    pub fn new() -> Self {
        Self {
            every: 1,
            sublayers: false,
            dropout_seed: None,
        }
    }

    /// Uses segments of `n` layers: the input of every `n`-th layer is kept.
    ///
    /// Without [`with_sublayers`](Self::with_sublayers), the activations of `n` layers are in memory
    /// at a time, the last segment is not recomputed if `n` is above 1, and this is plain autodiff if
    /// `n` is the number of layers. Zero counts as 1.
    #[must_use]
    pub fn with_every(mut self, n: usize) -> Self {
        self.every = n.max(1);
        self
    }

    /// Recomputes one layer at a time, and a trainable layer one
    /// [sublayer](super::LayeredModel::sublayers) at a time. This needs the least memory.
    ///
    /// Memory: for `n` layers, `n / every + every` hidden states, which is smallest if `every` is
    /// near the square root of `n`; the activations of one sublayer; and with
    /// [`Pass::backward_with`](super::Pass::backward_with), the gradients of one sublayer. Time:
    /// the layers of a segment run once more, to compute their inputs.
    #[must_use]
    pub fn with_sublayers(mut self) -> Self {
        self.sublayers = true;
        self
    }

    /// Repeats dropout: seeds the random numbers of the device before each segment, in the forward
    /// pass and again when the segment is recomputed.
    ///
    /// A backend of Burn has one random number generator for the whole process. So nothing else may
    /// use it during the pass: no other thread, and no other device that trains in this process.
    /// Otherwise the masks, and so the gradients, are wrong.
    ///
    /// Layers that use random numbers need it: without it they are recomputed with other masks, and the
    /// gradients are wrong. Give each step a different seed.
    #[must_use]
    pub fn with_dropout_seed(mut self, seed: u64) -> Self {
        self.dropout_seed = Some(seed);
        self
    }

    /// Whether layers are recomputed sublayer by sublayer.
    pub(crate) fn by_sublayer(self) -> bool {
        self.sublayers
    }

    /// The number of hidden states in memory at a time during the backward pass through this many
    /// layers.
    pub(crate) fn states_kept(self, layers: usize) -> usize {
        let segments = self.segments(layers);
        if self.sublayers {
            // The inputs of the segments and of the other layers of one segment, and the gradient.
            segments + self.every.min(layers)
        } else {
            segments + 1
        }
    }

    /// How many layers are on an autodiff graph at a time.
    pub(crate) fn layers_recorded(self) -> usize {
        if self.sublayers { 1 } else { self.every }
    }

    pub(crate) fn segments(self, layers: usize) -> usize {
        layers.div_ceil(self.every)
    }

    /// How many segments are recomputed. The last one is not recomputed if its graph can be kept
    /// from the forward pass at no extra cost.
    pub(super) fn recomputed_segments(self, layers: usize) -> usize {
        let segments = self.segments(layers);
        if self.every > 1 && !self.sublayers {
            segments.saturating_sub(1)
        } else {
            segments
        }
    }

    /// The layers of a segment.
    pub(super) fn layers_of(self, segment: usize, layers: usize) -> Range<usize> {
        let first = segment * self.every;
        first..(first + self.every).min(layers)
    }

    /// Whether the random numbers of the forward pass are repeated.
    pub(super) fn repeats_dropout(self) -> bool {
        self.dropout_seed.is_some()
    }

    /// Seeds the random numbers of a device for the `index`-th segment or sublayer.
    pub(super) fn seed(self, device: &Device, index: usize) {
        if let Some(seed) = self.dropout_seed {
            let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            device.seed(seed.wrapping_add(index as u64));
        }
    }
}
