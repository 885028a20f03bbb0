//! [`LisaMetrics`]: the metrics of a run.

use burn::tensor::Device;

use super::board::Board;
use super::metric::{LisaMetric, Source};
use crate::LayerMap;

/// The metrics of one run, made by [`LisaModule::metrics`](super::LisaModule::metrics).
#[derive(Clone, Debug)]
pub struct LisaMetrics {
    board: Board,
    device: Option<Device>,
    /// The paths of the layers.
    layers: Vec<String>,
}

impl LisaMetrics {
    pub(super) fn new(board: Board, device: Option<Device>, layers: &LayerMap) -> Self {
        let layers = layers.layers().iter().map(|layer| layer.path.clone());
        Self {
            board,
            device,
            layers: layers.collect(),
        }
    }

    /// The number of active layers. The text lists them.
    #[must_use]
    pub fn active_layers(&self) -> LisaMetric {
        self.metric("Active layers", "layers", Source::ActiveLayers)
    }

    /// The number of trainable elements.
    #[must_use]
    pub fn trainable_parameters(&self) -> LisaMetric {
        self.metric("Trainable parameters", "parameters", Source::Trainable)
    }

    /// Bytes of optimizer state on the device, without master weights.
    #[must_use]
    pub fn optimizer_state(&self) -> LisaMetric {
        self.metric("Optimizer state", "bytes", Source::OptimizerState)
    }

    /// Bytes of live tensors on the device. Not available if the backend does not report it, as
    /// on flex.
    #[must_use]
    pub fn device_memory(&self) -> LisaMetric {
        let source = Source::DeviceMemory(self.device.clone());
        self.metric("Device memory", "bytes", source)
    }

    /// The L2 norm of a layer's gradient in the last step, before clipping. Not available while the
    /// layer is frozen. Returns `None` if there is no layer with this index.
    ///
    /// Cost, from the first call of this method on: each step sums the squares of the gradients of
    /// all active layers. Each metric waits for the device when it is read.
    ///
    /// With the sharded optimizer, the gradients of several devices are not summed yet at this
    /// point. The value is then the square root of the sum of their squared norms.
    #[must_use]
    pub fn gradient_norm(&self, layer: usize) -> Option<LisaMetric> {
        let path = self.layers.get(layer)?;
        self.board.want_norms();
        Some(self.metric(
            &format!("Gradient norm {path}"),
            "",
            Source::GradientNorm(layer),
        ))
    }

    fn metric(&self, name: &str, unit: &'static str, source: Source) -> LisaMetric {
        LisaMetric::new(name.to_string(), unit, source, self.board.clone())
    }
}
