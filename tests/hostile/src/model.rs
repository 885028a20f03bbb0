//! The small model that records and configurations of LISA are loaded for.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Tensor};
use lisa::{Lisa, LisaConfig, LisaError};

/// An embedding, three layers and a head, 4 wide.
#[derive(Module, Debug)]
pub struct Small {
    embed: Linear,
    layers: Vec<Linear>,
    head: Linear,
}

impl Small {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        let device = Device::flex().autodiff();
        let linear = |bias| LinearConfig::new(4, 4).with_bias(bias).init(&device);
        Self {
            embed: linear(false),
            layers: (0..3).map(|_| linear(true)).collect(),
            head: linear(false),
        }
    }

    /// One step of an optimizer.
    #[must_use]
    pub fn step(self, lisa: &mut Lisa) -> Self {
        let device = Device::flex().autodiff();
        let mut x = self.embed.forward(Tensor::<2>::ones([1, 4], &device));
        for layer in &self.layers {
            x = x.clone() + layer.forward(x).tanh();
        }
        let loss = self.head.forward(x).square().mean();
        let grads = GradientsParams::from_grads(loss.backward(), &self);
        lisa.step(1e-3, self, grads)
    }
}

impl Default for Small {
    fn default() -> Self {
        Self::new()
    }
}

/// LISA on a small model.
pub fn start(config: &LisaConfig) -> Result<(Lisa, Small), LisaError> {
    config.init(AdamWConfig::new(), Small::new())
}
