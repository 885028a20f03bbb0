//! [`NormTracker`]: measures the mean norms of a model's weights over a run.

use std::collections::HashMap;

use burn::module::Module;
use burn::tensor::{DType, Tensor};

use super::norms::WeightNorms;
use super::squares::{Place, Squares, Weights};
use crate::{ErrorKind, LayerMap, LisaError};

/// Measures the L2 norm of each layer, and of each parameter outside the layers, over a run.
///
/// The norm of a layer is the norm of all its elements together. Parameters are identified by their
/// paths, so each observation may use another copy of the model. Merge a LoRA model before you
/// observe it: [`observe`](Self::observe) takes the norms of the merged weights, and
/// [`observe_update`](Self::observe_update) takes the norms of the update only.
///
/// Cost of an observation: a sum of squares over all weights. The norms stay on the device; only
/// [`norms`](Self::norms) waits for the device. State kept: one f32 for each norm.
///
/// # Example
///
/// ```
/// # use burn::module::{Module, Param};
/// # use burn::nn::Linear;
/// # use burn::tensor::{Device, Tensor};
/// # #[derive(Module, Debug)]
/// # struct Model { embed: Linear, layers: Vec<Linear> }
/// # let device = Device::flex().autodiff();
/// # let linear = |value: f32| Linear {
/// #     weight: Param::from_tensor(Tensor::full([3, 3], value, &device)),
/// #     bias: None,
/// # };
/// # let model = |value: f32| Model { embed: linear(1.0), layers: vec![linear(value), linear(2.0)] };
/// use lisa::importance::NormTracker;
///
/// let base = model(1.0);
/// let mut weights = NormTracker::new(&base, &[])?;
/// let mut update = weights.clone();
/// // After each step of a run, or after some steps:
/// for value in [1.0, 2.0] {
///     weights.observe(&model(value))?;
///     update.observe_update(&model(value), &base)?;
/// }
/// let norms = weights.norms()?;
/// assert_eq!(norms.layers, [("layers.0".into(), 4.5), ("layers.1".into(), 6.0)]);
/// assert_eq!(norms.outside, [("embed.weight".into(), 3.0)]);
/// assert_eq!(update.norms()?.layers[0].1, 1.5);
/// # Ok::<(), lisa::LisaError>(())
/// ```
#[derive(Clone, Debug)]
pub struct NormTracker {
    layers: Vec<String>,
    outside: Vec<String>,
    /// For the path of each parameter: the index of its norm, and its shape. Norms of layers come
    /// first.
    places: HashMap<String, Place>,
    sum: Option<Tensor<1>>,
    observations: u64,
}

impl NormTracker {
    /// A tracker for models of this structure. `stacks` are the paths of the stacks of layers as in
    /// [`LisaConfig::layers`](crate::LisaConfig::layers). If `stacks` is empty, the stack is found
    /// automatically.
    ///
    /// # Errors
    ///
    /// As [`LayerMap::find`] and [`LayerMap::at`].
    pub fn new<M: Module>(model: &M, stacks: &[String]) -> Result<Self, LisaError> {
        let map = LayerMap::of(model, stacks)?;
        let layers: Vec<String> = map.layers().iter().map(|l| l.path.clone()).collect();
        let mut outside = Vec::new();
        let mut places = HashMap::new();
        for (i, parameter) in map.parameters().iter().enumerate() {
            let norm = map.layer_of(i).unwrap_or_else(|| {
                outside.push(parameter.path.clone());
                layers.len() + outside.len() - 1
            });
            let shape = parameter.shape.clone();
            places.insert(parameter.path.clone(), Place { norm, shape });
        }
        Ok(Self {
            layers,
            outside,
            places,
            sum: None,
            observations: 0,
        })
    }

    /// Adds the norms of a model's weights to the means. Quantized weights are dequantized.
    ///
    /// # Errors
    ///
    /// The model has other parameters. The means do not change.
    pub fn observe<M: Module>(&mut self, model: &M) -> Result<(), LisaError> {
        self.take(model, None)
    }

    /// Adds the norms of the differences between a model's weights and the weights of `base`, the
    /// same model before training. Cost: that of [`observe`](Self::observe), and a copy of the
    /// largest parameter.
    ///
    /// # Errors
    ///
    /// As [`observe`](Self::observe), for both models.
    pub fn observe_update<M: Module>(&mut self, model: &M, base: &M) -> Result<(), LisaError> {
        self.take(model, Some(Weights::of(base)))
    }

    fn take<M: Module>(&mut self, model: &M, base: Option<Weights>) -> Result<(), LisaError> {
        let squares = Squares::new(&self.places, self.layers.len() + self.outside.len(), base);
        let squares = squares.of(model).map_err(|difference| {
            let message = format!("the model differs from the tracked model: {difference}");
            LisaError::new(ErrorKind::Layers, message)
                .with_help("merge a LoRA model first, and make a tracker for each kind of model")
        })?;
        let Some(device) = squares.iter().flatten().next().map(Tensor::device) else {
            return Ok(());
        };
        let norms = squares.into_iter().map(|sum| match sum {
            Some(sum) => sum.to_device(&device).sqrt(),
            None => Tensor::zeros([1], (&device, DType::F32)),
        });
        let norms = Tensor::cat(norms.collect(), 0);
        self.sum = Some(match self.sum.take() {
            Some(sum) => {
                let norms = norms.to_device(&sum.device());
                sum + norms
            }
            None => norms,
        });
        self.observations += 1;
        Ok(())
    }

    /// The mean norms so far. Waits for the device.
    ///
    /// # Errors
    ///
    /// No observation was made.
    pub fn norms(&self) -> Result<WeightNorms, LisaError> {
        let Some(sum) = &self.sum else {
            return Err(LisaError::new(
                ErrorKind::Policy,
                "no norms were observed, so there is no mean",
            )
            .with_help("call NormTracker::observe after the steps of a run"));
        };
        let data = sum.clone().into_data();
        let mut means = data.iter::<f64>().map(|sum| sum / self.observations as f64);
        let mut name = |paths: &[String]| -> Vec<(String, f64)> {
            paths.iter().cloned().zip(means.by_ref()).collect()
        };
        Ok(WeightNorms {
            observations: self.observations,
            layers: name(&self.layers),
            outside: name(&self.outside),
        })
    }
}

#[cfg(test)]
mod tests;
