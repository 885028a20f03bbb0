//! LoRA as a side path: `x W + s (x A) B`, which never forms `W + s A B`.
//!
//! Burn's own LoRA puts the sum together in each forward pass, which costs a matrix for each
//! projection on the tape. Tests: at the foot.

use crate::error::{Error, ErrorKind};
use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::nn::Linear;
use burn::tensor::{Device, Distribution, Tensor};

use crate::model::causal_lm::CausalLm;
use crate::model::layers::product;

/// Two thin matrices beside a projection of `[in, out]`.
///
/// # Example
///
/// ```
/// use burn::tensor::Device;
/// use lisa_lm::{CausalLm, LlamaConfig, ModelConfig};
///
/// let device = Device::default().autodiff();
/// let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
/// let model = model.with_lora(4, 8.0)?;
/// let CausalLm::Llama(llama) = &model else { panic!("not a Llama") };
/// let layer = &llama.model.layers[0];
/// let lora = layer.lora.as_ref().expect("side paths were put beside every layer");
/// assert_eq!(layer.mlp.up_proj.weight.dims(), [16, 64]);
/// assert_eq!((lora.up.a.dims(), lora.up.b.dims()), ([16, 4], [4, 64]));
/// assert!(lora.up.a.is_require_grad() && !layer.mlp.up_proj.weight.is_require_grad());
/// assert_eq!(lora.up.b.val().abs().max().into_scalar::<f32>(), 0.0);
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct SidePath {
    /// `[in, rank]`: uniform within `1 / sqrt(in)`.
    pub a: Param<Tensor<2>>,
    /// `[rank, out]`: 0, so that a new side path changes nothing.
    pub b: Param<Tensor<2>>,
    scale: f64,
}

impl SidePath {
    fn new(beside: &Linear, rank: usize, scale: f64, device: &Device) -> Self {
        let [input, output] = beside.weight.lazy_shape().dims();
        let bound = (input as f64).powf(-0.5);
        // Adapters have the dtype of what they stand beside.
        let dtype = beside.weight.val().dtype();
        let a = Tensor::random(
            [input, rank],
            Distribution::Uniform(-bound, bound),
            (device, dtype),
        );
        let b = Tensor::zeros([rank, output], (device, dtype));
        let param = |tensor: Tensor<2>| Param::initialized(ParamId::new(), tensor.require_grad());
        Self {
            a: param(a),
            b: param(b),
            scale,
        }
    }

    fn product(&self) -> Tensor<2> {
        self.a.val().matmul(self.b.val()) * self.scale
    }
}

/// The projection, and the side path where there is one.
pub(crate) fn project(linear: &Linear, side: Option<&SidePath>, x: Tensor<3>) -> Tensor<3> {
    let (weight, bias) = (linear.weight.val(), linear.bias.as_ref().map(Param::val));
    if !weight.dtype().is_float() {
        // Dense for the length of this product; Burn's own on quantized weights is slower. What
        // comes back has the device's default type, which need not be the model's.
        let dense = weight.dequantize().cast(x.dtype());
        return product(x, dense, bias);
    }
    let Some(side) = side else {
        return product(x, weight, bias);
    };
    let thin = product(x.clone(), side.a.val(), None) * side.scale;
    product(x, weight, bias) + product(thin, side.b.val(), None)
}

/// The side paths of a Llama layer.
///
/// # Example
///
/// ```
/// use burn::module::Module;
/// use burn::tensor::Device;
/// use lisa_lm::{CausalLm, LlamaConfig, ModelConfig};
///
/// let device = Device::default().autodiff();
/// let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
/// let model = model.with_lora(4, 8.0)?;
/// let CausalLm::Llama(llama) = &model else { panic!("not a Llama") };
/// let lora = llama.model.layers[0].lora.as_ref().expect("LoRA was asked for");
/// assert_eq!((lora.q.a.dims(), lora.q.b.dims()), ([16, 4], [4, 16]));
/// assert_eq!((lora.down.a.dims(), lora.down.b.dims()), ([64, 4], [4, 16]));
/// assert_eq!(lora.num_params(), 1472);
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct LlamaLora {
    /// Beside `q_proj`.
    pub q: SidePath,
    /// Beside `k_proj`.
    pub k: SidePath,
    /// Beside `v_proj`.
    pub v: SidePath,
    /// Beside `o_proj`.
    pub o: SidePath,
    /// Beside `gate_proj`.
    pub gate: SidePath,
    /// Beside `up_proj`.
    pub up: SidePath,
    /// Beside `down_proj`.
    pub down: SidePath,
}

/// The side paths of a GPT-2 layer.
///
/// # Example
///
/// ```
/// use burn::module::Module;
/// use burn::tensor::Device;
/// use lisa_lm::{CausalLm, Gpt2Config, ModelConfig};
///
/// let device = Device::default().autodiff();
/// let model = ModelConfig::Gpt2(Gpt2Config::new(64, 16, 2, 2)).init(&device)?;
/// let model = model.with_lora(4, 8.0)?;
/// let CausalLm::Gpt2(gpt2) = &model else { panic!("not GPT-2") };
/// let lora = gpt2.transformer.h[0].lora.as_ref().expect("LoRA was asked for");
/// assert_eq!((lora.c_attn.a.dims(), lora.c_attn.b.dims()), ([16, 4], [4, 48]));
/// assert_eq!((lora.mlp_proj.a.dims(), lora.mlp_proj.b.dims()), ([64, 4], [4, 16]));
/// assert_eq!(lora.num_params(), 1024);
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct Gpt2Lora {
    /// Beside `attn.c_attn`.
    pub c_attn: SidePath,
    /// Beside `attn.c_proj`.
    pub attn_proj: SidePath,
    /// Beside `mlp.c_fc`.
    pub c_fc: SidePath,
    /// Beside `mlp.c_proj`.
    pub mlp_proj: SidePath,
}

impl CausalLm {
    /// Freezes the model and puts a side path of `rank`, scaled by `alpha / rank`, beside every
    /// matrix of every layer. Random numbers are the device's: seed it.
    ///
    /// The model gives what it gave before. [`save`](crate::save) it only after
    /// [`merge_lora`](Self::merge_lora): Hugging Face's folders know no side paths.
    ///
    /// # Errors
    ///
    /// A rank of 0.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::tensor::Device;
    /// use lisa_lm::{LlamaConfig, ModelConfig};
    ///
    /// let device = Device::default().autodiff();
    /// let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
    /// let before = model.num_parameters();
    /// let model = model.with_lora(4, 8.0)?;
    /// assert!(model.num_parameters() > before);
    /// assert_eq!(model.merge_lora().num_parameters(), before);
    /// # Ok::<(), lisa_lm::Error>(())
    /// ```
    pub fn with_lora(self, rank: usize, alpha: f64) -> Result<Self, Error> {
        if rank == 0 {
            return Err(
                Error::new(ErrorKind::Config, "the rank of the LoRA side paths is 0")
                    .with_help("give at least 1"),
            );
        }
        let device = self.device();
        let path = |beside: &Linear| SidePath::new(beside, rank, alpha / rank as f64, &device);
        let mut model = self.no_grad();
        match &mut model {
            Self::Llama(model) => {
                for layer in &mut model.model.layers {
                    let (attn, mlp) = (&layer.self_attn, &layer.mlp);
                    layer.lora = Some(LlamaLora {
                        q: path(&attn.q_proj),
                        k: path(&attn.k_proj),
                        v: path(&attn.v_proj),
                        o: path(&attn.o_proj),
                        gate: path(&mlp.gate_proj),
                        up: path(&mlp.up_proj),
                        down: path(&mlp.down_proj),
                    });
                }
            }
            Self::Gpt2(model) => {
                for layer in &mut model.transformer.h {
                    layer.lora = Some(Gpt2Lora {
                        c_attn: path(&layer.attn.c_attn),
                        attn_proj: path(&layer.attn.c_proj),
                        c_fc: path(&layer.mlp.c_fc),
                        mlp_proj: path(&layer.mlp.c_proj),
                    });
                }
            }
        }
        Ok(model)
    }

    /// Adds each side path to the matrix it stands beside and takes it away. Weights stay frozen.
    #[must_use]
    pub fn merge_lora(mut self) -> Self {
        fn merge(linear: &mut Linear, side: &SidePath) {
            struct Add(Option<Tensor<2>>);
            impl ModuleMapper for Add {
                fn map_float<const D: usize>(
                    &mut self,
                    param: Param<Tensor<D>>,
                ) -> Param<Tensor<D>> {
                    match self.0.take() {
                        Some(sum) if D == 2 => {
                            let dims: [usize; D] = param.dims();
                            param.map(|weight| weight + sum.reshape(dims))
                        }
                        _ => param,
                    }
                }
            }
            let mut add = Add(Some(side.product().detach()));
            // The weight comes before the bias.
            *linear = linear.clone().map(&mut add);
        }
        match &mut self {
            Self::Llama(model) => {
                for layer in &mut model.model.layers {
                    let Some(lora) = layer.lora.take() else {
                        continue;
                    };
                    merge(&mut layer.self_attn.q_proj, &lora.q);
                    merge(&mut layer.self_attn.k_proj, &lora.k);
                    merge(&mut layer.self_attn.v_proj, &lora.v);
                    merge(&mut layer.self_attn.o_proj, &lora.o);
                    merge(&mut layer.mlp.gate_proj, &lora.gate);
                    merge(&mut layer.mlp.up_proj, &lora.up);
                    merge(&mut layer.mlp.down_proj, &lora.down);
                }
            }
            Self::Gpt2(model) => {
                for layer in &mut model.transformer.h {
                    let Some(lora) = layer.lora.take() else {
                        continue;
                    };
                    merge(&mut layer.attn.c_attn, &lora.c_attn);
                    merge(&mut layer.attn.c_proj, &lora.attn_proj);
                    merge(&mut layer.mlp.c_fc, &lora.c_fc);
                    merge(&mut layer.mlp.c_proj, &lora.mlp_proj);
                }
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Gpt2Config, Input, LlamaConfig, ModelConfig};
    use burn::optim::{GradientsParams, SgdConfig};
    use burn::tensor::Int;

    #[test]
    fn a_side_path_starts_at_nothing_trains_alone_and_merges() {
        let device = Device::default().autodiff();
        let configs = [
            (ModelConfig::Llama(LlamaConfig::new(32, 8, 2, 2)), 7),
            (ModelConfig::Gpt2(Gpt2Config::new(32, 8, 2, 2)), 4),
        ];
        for (config, paths) in configs {
            device.seed(3);
            let plain = config.init(&device).unwrap();
            let tokens = Tensor::<2, Int>::from_data([[1, 2, 3, 4]], &device);
            let input = Input::new(tokens.clone());
            let before = plain.forward(&input).into_data();
            let model = plain.with_lora(2, 4.0).unwrap();
            assert_eq!(model.forward(&input).into_data(), before);

            let grads = model.loss(&input, tokens.clone()).backward();
            let grads = GradientsParams::from_grads(grads, &model);
            assert_eq!(grads.len(), 2 * 2 * paths);
            let model = SgdConfig::new().init().step(10.0, model, grads);
            let trained = model.forward(&input).into_data();
            let merged = model.merge_lora();
            let same = merged.forward(&input).into_data();
            for (a, b) in trained.iter::<f32>().zip(same.iter::<f32>()) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
            assert!(
                before
                    .iter::<f32>()
                    .zip(same.iter::<f32>())
                    .any(|(a, b)| (a - b).abs() > 1e-4)
            );
        }
    }
}
