//! LISA in your own training loop: a small residual network learns a function.
//!
//! `cargo run --release -p quickstart`. The comment in `main` is the line of plain AdamW that LISA
//! replaces. The rest of the loop does not change.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Distribution, Tensor};
use lisa::{LisaConfig, LisaError};

/// A residual network. LISA samples from the `Vec`; `input` and `output` always train.
#[derive(Module, Debug)]
struct Network {
    input: Linear,
    layers: Vec<Linear>,
    output: Linear,
}

impl Network {
    fn new(device: &Device) -> Self {
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        Self {
            input: linear(2, 64),
            layers: (0..8).map(|_| linear(64, 64)).collect(),
            output: linear(64, 1),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let mut h = self.input.forward(x);
        for layer in &self.layers {
            h = h.clone() + gelu(layer.forward(h));
        }
        self.output.forward(h)
    }
}

fn main() -> Result<(), LisaError> {
    let device = Device::default().autodiff();
    device.seed(1);
    let model = Network::new(&device);

    // let mut optimizer = AdamWConfig::new().init();
    let (mut optimizer, mut model) = LisaConfig::new()
        .with_sampling_period(25)
        .init(AdamWConfig::new(), model)?;
    println!("{optimizer}");

    for step in 1..=500 {
        let x = Tensor::<2>::random([128, 2], Distribution::Uniform(-1.0, 1.0), &device);
        let [a, b] = [0, 1].map(|i| x.clone().narrow(1, i, 1));
        let target = (a * 3.0).sin() * (b * 2.0).cos();
        let loss = (model.forward(x) - target).square().mean();
        if step == 1 || step % 100 == 0 {
            let (loss, active) = (loss.clone().into_scalar::<f32>(), optimizer.active_layers());
            let bytes = optimizer.memory().optimizer_state;
            println!(
                "step {step:>3}: loss {loss:.5}, layers {active:?}, optimizer state {bytes} B"
            );
        }
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(1e-3, model, grads);
    }
    Ok(())
}
