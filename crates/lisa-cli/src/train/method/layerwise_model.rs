//! [`LayerwiseModel`]: a model in full precision, read layer by layer if the device does not have all of
//! its layers in full precision. Tests: `tests/run/steps.rs`.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use lisa::recompute::LayeredModel;
use lisa_lm::CausalLm;
use lisa_lm::model::BatchTensors;
use lisa_lm::model::block::Block;

/// Reads a layer in full precision.
type Layer<'a> = dyn Fn(usize) -> Block + 'a;

/// A model in full precision, without gradients.
pub(crate) struct LayerwiseModel<'a> {
    model: CausalLm,
    /// `None` if the device has all weights in full precision.
    layer: Option<Box<Layer<'a>>>,
}

impl<'a> LayerwiseModel<'a> {
    /// A model of which the device has all weights in full precision.
    pub(crate) fn whole(model: &CausalLm) -> Self {
        Self {
            model: model.valid(),
            layer: None,
        }
    }

    /// Another model. `layer` puts a layer in full precision on the model's device.
    pub(crate) fn by_layer(model: &CausalLm, layer: impl Fn(usize) -> Block + 'a) -> Self {
        Self {
            model: model.valid(),
            layer: Some(Box::new(layer)),
        }
    }

    /// The model as it is on the device.
    pub(crate) fn on_device(&self) -> &CausalLm {
        &self.model
    }

    /// Whether the device has all weights in full precision.
    pub(crate) fn is_whole(&self) -> bool {
        self.layer.is_none()
    }

    /// The layers in full precision with their paths, one at a time; none if the model is whole.
    pub(crate) fn layers(&self) -> impl Iterator<Item = (String, Block)> {
        let count = self.layer.as_ref().map_or(0, |_| self.model.num_layers());
        let layer = |index| Some(self.layer.as_ref()?(index).valid());
        (0..count)
            .filter_map(move |index| Some((format!("{}.{index}", CausalLm::LAYERS), layer(index)?)))
    }

    /// The mean losses of several batches. If the model is not whole, each layer is read once for all
    /// batches, whose hidden states are kept meanwhile. Masks and positions are made again for each
    /// layer: those of all batches may need more memory than the hidden states.
    pub(crate) fn losses(&self, batches: Vec<BatchTensors>) -> Vec<f64> {
        let value = |loss: Tensor<1>| f64::from(loss.into_scalar::<f32>());
        if self.is_whole() {
            let losses = batches
                .into_iter()
                .map(|batch| self.model.batch_loss(batch));
            return losses.map(value).collect();
        }
        let context = |batch: &BatchTensors| LayeredModel::context(&self.model, batch);
        let embedded = |batch| LayeredModel::embed(&self.model, batch, &context(batch));
        let mut states: Vec<_> = batches.iter().map(embedded).collect();
        let mut model = self.model.clone();
        for (index, (_, layer)) in self.layers().enumerate() {
            let on_device = std::mem::replace(&mut model.model.layers[index], layer);
            let of_batches = states.into_iter().zip(&batches);
            states = of_batches
                .map(|(h, batch)| LayeredModel::layer(&model, index, h, &context(batch)))
                .collect();
            model.model.layers[index] = on_device;
        }
        let of_batches = states.into_iter().zip(&batches);
        of_batches
            .map(|(h, batch)| value(model.head_loss(h, batch, &context(batch))))
            .collect()
    }
}

/// The device that holds a whole model in full precision if the model's own does not: host memory.
#[cfg(feature = "flex")]
pub(crate) fn host(_: &Device) -> Device {
    Device::flex().autodiff()
}

/// A program without a backend for the CPU uses the device itself.
#[cfg(not(feature = "flex"))]
pub(crate) fn host(device: &Device) -> Device {
    device.clone()
}
