//! [`Exact`]: a model in full precision. Of one whose frozen layers are quantized, only one layer at a
//! time is on the device in full precision. Tests: at the end of `trainer/tests.rs`, and
//! `tests/run/steps.rs`.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use lisa::recompute::LayeredModel;
use lisa_lm::CausalLm;
use lisa_lm::model::BatchTensors;
use lisa_lm::model::block::Block;

/// Reads a layer in full precision.
type Layer<'a> = dyn Fn(usize) -> Block + 'a;

/// A model in full precision, without gradients.
pub(crate) struct Exact<'a> {
    model: CausalLm,
    /// `None` if the model itself has all weights in full precision.
    layer: Option<Box<Layer<'a>>>,
}

impl<'a> Exact<'a> {
    /// A model that has no quantized layer.
    pub(crate) fn whole(model: &CausalLm) -> Self {
        Self {
            model: model.valid(),
            layer: None,
        }
    }

    /// A model with quantized layers. `layer` puts a layer in full precision on the model's device.
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

    /// Whether the model on the device has no quantized layer.
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

    /// The mean losses of several batches. If layers are quantized, each of them is read once for all
    /// batches, whose hidden states, masks and positions are kept meanwhile.
    pub(crate) fn losses(&self, batches: Vec<BatchTensors>) -> Vec<f64> {
        let value = |loss: Tensor<1>| f64::from(loss.into_scalar::<f32>());
        if self.is_whole() {
            let losses = batches
                .into_iter()
                .map(|batch| self.model.batch_loss(batch));
            return losses.map(value).collect();
        }
        let mut model = self.model.clone();
        let context = |batch| LayeredModel::context(&model, batch);
        let contexts: Vec<_> = batches.iter().map(context).collect();
        let batches = || batches.iter().zip(&contexts);
        let embedded = |(batch, context)| LayeredModel::embed(&model, batch, context);
        let mut states: Vec<_> = batches().map(embedded).collect();
        for (index, (_, layer)) in self.layers().enumerate() {
            let quantized = std::mem::replace(&mut model.model.layers[index], layer);
            let inputs = states.into_iter().zip(&contexts);
            states = inputs
                .map(|(h, context)| LayeredModel::layer(&model, index, h, context))
                .collect();
            model.model.layers[index] = quantized;
        }
        let outputs = states.into_iter().zip(batches());
        outputs
            .map(|(h, (batch, context))| value(model.head_loss(h, batch, context)))
            .collect()
    }
}

/// The device that holds a whole model in full precision while layers of it are quantized: host memory.
#[cfg(feature = "flex")]
pub(crate) fn host(_: &Device) -> Device {
    Device::flex().autodiff()
}

/// A program without a backend for the CPU uses the device itself.
#[cfg(not(feature = "flex"))]
pub(crate) fn host(device: &Device) -> Device {
    device.clone()
}
