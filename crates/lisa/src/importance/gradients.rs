//! [`GradientTracker`]: the size of each layer's gradient over a few batches.

use burn::module::Module;
use burn::optim::GradientsParams;

use super::scores::Scores;
use super::second_moments::SecondMoments;
use crate::gradients::{LayerSquares, measure};
use crate::{LayerMap, LisaError};

/// Measures the gradient of each layer over a few batches, without an optimizer.
///
/// Gradients may be observed in parts.
/// [`Pass::backward_with`](crate::recompute::Pass::backward_with) gives the gradients of one layer
/// after the other, so that only those of one layer exist at a time.
///
/// Cost of a batch: a sum of squares over all gradients; [`end_batch`](Self::end_batch) waits for
/// the device and reads one value for each layer. State kept: two values for each layer; for
/// [`with_loss_decreases`](Self::with_loss_decreases), see there.
///
/// # Example
///
/// ```
/// # use burn::module::Module;
/// # use burn::nn::{Linear, LinearConfig};
/// # use burn::optim::GradientsParams;
/// # use burn::tensor::{Device, Tensor};
/// # #[derive(Module, Debug)]
/// # struct Model { layers: Vec<Linear> }
/// # let device = Device::flex().autodiff();
/// # let linear = |_| LinearConfig::new(2, 2).with_bias(false).init(&device);
/// # let model = Model { layers: (0..2).map(linear).collect() };
/// use lisa::importance::GradientTracker;
///
/// let mut tracker = GradientTracker::new(&model)?;
/// for scale in [1.0, 3.0] {
///     // The gradient of each element of the second layer is `scale`.
///     let loss = model.layers[1].weight.val().sum() * scale;
///     tracker.observe(&model, GradientsParams::from_grads(loss.backward(), &model));
///     tracker.end_batch();
/// }
/// let sizes = tracker.root_mean_squares();
/// assert_eq!(sizes.layers, [("layers.0".into(), 0.0), ("layers.1".into(), 2.0)]);
/// assert_eq!(tracker.squares().layers[1].1, 20.0);
/// # Ok::<(), lisa::LisaError>(())
/// ```
#[derive(Clone, Debug)]
pub struct GradientTracker {
    map: LayerMap,
    /// Of the batch that is being observed.
    batch: LayerSquares,
    /// For each layer, the sums over batches of the norm and of the squared norm.
    norms: Vec<f64>,
    squares: Vec<f64>,
    batches: u64,
    decreases: Option<Decreases>,
}

/// The expected decreases of the loss.
#[derive(Clone, Debug)]
struct Decreases {
    moments: SecondMoments,
    /// Of the batch that is being observed.
    batch: LayerSquares,
    /// For each layer, the sum over batches.
    sums: Vec<f64>,
}

impl GradientTracker {
    /// A tracker for this model and for models with its `ParamId`s.
    ///
    /// # Errors
    ///
    /// As [`LayerMap::find`].
    pub fn new<M: Module>(model: &M) -> Result<Self, LisaError> {
        Ok(Self::of_layers(LayerMap::find(model)?))
    }

    /// A tracker for these layers: of several stacks ([`LayerMap::at`]), or parts of layers
    /// ([`LayerMap::split`]), in models with their `ParamId`s.
    ///
    /// # Example
    ///
    /// ```
    /// # use burn::module::Module;
    /// # use burn::nn::{Linear, LinearConfig};
    /// # use burn::tensor::Device;
    /// # #[derive(Module, Debug)]
    /// # struct Model { encoder: Vec<Linear>, decoder: Vec<Linear> }
    /// # let device = Device::flex().autodiff();
    /// # let stack = || (0..2).map(|_| LinearConfig::new(2, 2).init(&device)).collect();
    /// # let model = Model { encoder: stack(), decoder: stack() };
    /// use lisa::LayerMap;
    /// use lisa::importance::GradientTracker;
    ///
    /// // `model` has the stacks `encoder` and `decoder`.
    /// let map = LayerMap::at(&model, &["encoder".into(), "decoder".into()])?;
    /// let tracker = GradientTracker::of_layers(map.split(&["bias".into()])?);
    /// assert_eq!(tracker.squares().layers.len(), 8);
    /// # Ok::<(), lisa::LisaError>(())
    /// ```
    #[must_use]
    pub fn of_layers(map: LayerMap) -> Self {
        let layers = map.layers().len();
        Self {
            map,
            batch: LayerSquares::default(),
            norms: vec![0.0; layers],
            squares: vec![0.0; layers],
            batches: 0,
            decreases: None,
        }
    }

    /// Also measures what [`loss_decreases`](Self::loss_decreases) returns, of the batches after this call.
    ///
    /// Cost of a batch: three reductions over all gradients, with temporary f32 tensors of the size of
    /// the largest parameter, and one more value for each layer to read. State kept, on the device: for
    /// each parameter, the sums of the rows and of the columns of its squared gradients.
    #[must_use]
    pub fn with_loss_decreases(mut self) -> Self {
        self.decreases = Some(Decreases {
            moments: SecondMoments::default(),
            batch: LayerSquares::default(),
            sums: vec![0.0; self.squares.len()],
        });
        self
    }

    /// Adds gradients of the batch: all of them, or a part that was not observed yet.
    ///
    /// Gradients of parameters with other `ParamId`s are ignored, without an error: a model that
    /// was loaded from a file after the tracker was made has a gradient of 0 in every layer.
    pub fn observe<M: Module>(&mut self, model: &M, mut grads: GradientsParams) {
        self.batch.merge(measure(model, &mut grads, &self.map));
        if let Some(decreases) = &mut self.decreases {
            let found = decreases.moments.add(model, &mut grads, &self.map);
            decreases.batch.merge(found);
        }
    }

    /// Ends the batch. A layer without gradients counts as 0.
    pub fn end_batch(&mut self) {
        for (layer, square) in std::mem::take(&mut self.batch).into_sums() {
            let square = f64::from(square.into_scalar::<f32>());
            self.norms[layer] += square.sqrt();
            self.squares[layer] += square;
        }
        if let Some(decreases) = &mut self.decreases {
            for (layer, decrease) in std::mem::take(&mut decreases.batch).into_sums() {
                decreases.sums[layer] += f64::from(decrease.into_scalar::<f32>());
            }
        }
        self.batches += 1;
    }

    /// For each layer, the mean over the batches of the gradient's norm, divided by the square root of
    /// the layer's number of elements.
    #[must_use]
    pub fn root_mean_squares(&self) -> Scores {
        let sizes = self.map.layers().iter().map(|layer| layer.size as f64);
        let values = self.norms.iter().zip(sizes);
        self.scores("gradient", values.map(|(sum, size)| sum / size.sqrt()))
    }

    /// For each layer, the mean over the batches of the gradient's squared norm.
    #[must_use]
    pub fn squares(&self) -> Scores {
        self.scores("squared gradient", self.squares.iter().copied())
    }

    /// For each layer, the decrease of the loss that a small step of Adam is expected to cause, divided
    /// by the learning rate: the sum over its elements of g^2 / sqrt(v), averaged over the batches.
    /// g is the gradient of a batch, and v the second moment up to this batch, estimated from the means
    /// of the rows and columns of g^2, as in Adafactor (arXiv 1804.04235). Without
    /// [`with_loss_decreases`](Self::with_loss_decreases), `None`.
    ///
    /// # Example
    ///
    /// ```
    /// # use burn::module::Module;
    /// # use burn::nn::{Linear, LinearConfig};
    /// # use burn::optim::GradientsParams;
    /// # use burn::tensor::{Device, Tensor};
    /// # #[derive(Module, Debug)]
    /// # struct Model { layers: Vec<Linear> }
    /// # let device = Device::flex().autodiff();
    /// # let linear = |_| LinearConfig::new(2, 2).with_bias(false).init(&device);
    /// # let model = Model { layers: (0..2).map(linear).collect() };
    /// use lisa::importance::GradientTracker;
    ///
    /// let mut tracker = GradientTracker::new(&model)?.with_loss_decreases();
    /// // The gradient of each element of the second layer is 3.
    /// let loss = model.layers[1].weight.val().sum() * 3.0;
    /// tracker.observe(&model, GradientsParams::from_grads(loss.backward(), &model));
    /// tracker.end_batch();
    /// // Its root mean square is 3, too, so Adam's step is the learning rate in each of 4 elements.
    /// let decreases = tracker.loss_decreases().unwrap();
    /// assert!((decreases.layers[1].1 - 4.0 * 3.0).abs() < 1e-5);
    /// assert_eq!(decreases.layers[0].1, 0.0);
    /// # Ok::<(), lisa::LisaError>(())
    /// ```
    #[must_use]
    pub fn loss_decreases(&self) -> Option<Scores> {
        let decreases = self.decreases.as_ref()?;
        let sums = decreases.sums.iter().copied();
        Some(self.scores("expected decrease of the loss", sums))
    }

    fn scores(&self, by: &str, sums: impl Iterator<Item = f64>) -> Scores {
        let batches = self.batches.max(1) as f64;
        let layers = self.map.layers().iter().zip(sums);
        Scores {
            by: by.to_owned(),
            observations: self.batches,
            layers: layers
                .map(|(layer, sum)| (layer.path.clone(), sum / batches))
                .collect(),
        }
    }
}
