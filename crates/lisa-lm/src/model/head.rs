//! [`Head`]: the logits, and the loss without computing all logits at once.

use burn::module::Param;
use burn::nn::Embedding;
use burn::optim::GradientsParams;
use burn::tensor::{DType, Int, Tensor};
use lisa::recompute::HeadPass;

use crate::model::block::{Projection, has_adapter, in_dtype};
use crate::model::ops::{self, Counted, HeadWeight, Product};

/// The projection from hidden states to logits.
pub(crate) enum Head<'a> {
    /// A separate weight, `[hidden, vocab]`.
    Own(&'a Projection),
    /// The weight of the embedding, `[vocab, hidden]`, transposed.
    Tied(&'a Embedding),
}

impl Head<'_> {
    /// `[batch, seq, hidden]` to `[batch, seq, vocab]`.
    pub(crate) fn forward(&self, h: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Own(head) => head.forward(h),
            Self::Tied(embedding) => ops::linear(h, embedding.weight.val().transpose(), None),
        }
    }

    /// The mean cross entropy of targets, `[batch, seq]`, weighted if there are weights, for normed
    /// hidden states, `[batch, seq, hidden]`.
    pub(crate) fn loss(
        &self,
        h: Tensor<3>,
        targets: Tensor<2, Int>,
        weights: Option<Tensor<2>>,
    ) -> Tensor<1> {
        let counted = self.counted(targets, weights);
        let added = self.added(&h);
        let weight = self.weight(h.dtype());
        let product = Product::new(h.flatten(0, 1), weight);
        ops::head_loss(product, added, &counted)
    }

    /// Like [`loss`](Self::loss), with a custom backward pass: the head is not in the autodiff
    /// graph.
    pub(crate) fn pass(
        &self,
        h: Tensor<3>,
        targets: Tensor<2, Int>,
        weights: Option<Tensor<2>>,
    ) -> HeadPass {
        let param = self.param();
        let wanted = [h.is_tracked(), param.is_require_grad()];
        if !wanted.contains(&true) || !self.is_product() || has_adapter(param) {
            return self.loss(h, targets, weights).into();
        }
        let (id, weight) = (param.id, self.weight(h.dtype()));
        let counted = self.counted(targets, weights);
        let shape = h.dims();
        let rows = h.clone().inner().flatten(0, 1);
        let (loss, [upstream, own]) = ops::head_gradients(rows, &weight.inner(), &counted, wanted);
        HeadPass::custom(ops::like(&h, loss), move |factor| {
            let scaled = |gradient: Tensor<2>| match factor {
                1.0 => gradient,
                factor => gradient.mul_scalar(factor),
            };
            let grads = upstream.map(|gradient| {
                let gradient = ops::like(&h, scaled(gradient).reshape(shape));
                (h * gradient).sum().backward()
            });
            let mut found = GradientsParams::new();
            if let Some(gradient) = own {
                found.register(id, scaled(gradient));
            }
            (grads, found)
        })
    }

    fn counted(&self, targets: Tensor<2, Int>, weights: Option<Tensor<2>>) -> Counted {
        let vocab = match self {
            Self::Own(head) => head.weight.lazy_shape()[1],
            Self::Tied(embedding) => embedding.weight.lazy_shape()[0],
        };
        let weights = weights.map(|weights| weights.flatten(0, 1));
        Counted::of(&targets.flatten(0, 1), weights.as_ref(), vocab)
    }

    /// The weight as it is stored.
    pub(crate) fn param(&self) -> &Param<Tensor<2>> {
        match self {
            Self::Own(head) => &head.weight,
            Self::Tied(embedding) => &embedding.weight,
        }
    }

    /// The weight. A head of its own is converted to the dtype of the hidden states, or dequantized.
    fn weight(&self, dtype: DType) -> HeadWeight {
        match self {
            Self::Own(head) => HeadWeight::Own(head.dense_weight(dtype)),
            Self::Tied(embedding) => HeadWeight::Tied(embedding.weight.val()),
        }
    }

    /// Whether the logits are the product of the hidden states and a weight in floating point, without
    /// bias or adapter.
    fn is_product(&self) -> bool {
        match self {
            Self::Own(head) => {
                let is_float = head.weight.val().dtype().is_float();
                is_float && head.bias.is_none() && head.lora.is_none()
            }
            Self::Tied(_) => true,
        }
    }

    /// What bias and adapter add to the logits of hidden states, `[batch, seq, hidden]`.
    fn added(&self, h: &Tensor<3>) -> Option<Product> {
        let Self::Own(head) = self else {
            return None;
        };
        let rows = h.dims()[0] * h.dims()[1];
        // The gradients of an adapter, divided by the number of targets, would be 0 in f16.
        let dtype = match h.dtype() {
            DType::F16 => DType::F32,
            dtype => dtype,
        };
        // A bias is the weight of an input that is always 1.
        let bias = head.bias.as_ref().map(|bias| {
            let ones = Tensor::ones([rows, 1], (&h.device(), dtype));
            (ones, in_dtype(bias.val(), dtype).unsqueeze_dim(0))
        });
        let adapter = head.lora.as_ref().map(|lora| {
            let (low, up) = lora.factors(in_dtype(h.clone(), dtype));
            (low.flatten(0, 1), up)
        });
        let (low, up): (Vec<Tensor<2>>, Vec<Tensor<2>>) = bias.into_iter().chain(adapter).unzip();
        (!low.is_empty()).then(|| {
            let weight = HeadWeight::Own(Tensor::cat(up, 0));
            Product::new(Tensor::cat(low, 1), weight)
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::module::ParamId;
    use burn::tensor::activation::log_softmax;
    use burn::tensor::{Device, Distribution, TensorData};

    use super::*;
    use crate::model::LoraConfig;
    use crate::model::random::sequence;

    const SHAPE: [usize; 3] = [2, 4, 6];
    const VOCAB: usize = 9;

    /// The same loss from all logits.
    fn of_logits(logits: Tensor<3>, targets: &Tensor<2, Int>) -> Tensor<1> {
        let targets = targets.clone().unsqueeze_dim(2);
        log_softmax(logits, 2).gather(2, targets).mean().neg()
    }

    #[test]
    fn a_head_with_bias_and_adapter_has_the_loss_of_its_logits() {
        let device = Device::default().autodiff();
        device.seed(3);
        let targets = TensorData::from([[0i64, 8, 3, 3], [5, 1, 2, 7]]);
        let targets = Tensor::<2, Int>::from_data(targets, &device);
        for (with_bias, with_adapter) in [(true, false), (false, true), (true, true)] {
            let mut head = Projection::new([SHAPE[2], VOCAB], with_bias, 0.5, &device);
            let random = |param: &Param<Tensor<2>>| param.random_like(Distribution::Default);
            if let Some(bias) = &mut head.bias {
                let random = bias.random_like(Distribution::Default).require_grad();
                *bias = Param::initialized(ParamId::new(), random);
            }
            if with_adapter {
                head.add_lora(&LoraConfig::new(2), &mut sequence(1, 0));
                let lora = head.lora.as_mut().unwrap();
                lora.b = Param::initialized(ParamId::new(), random(&lora.b).require_grad());
            }
            let h = Tensor::<3>::random(SHAPE, Distribution::Default, &device).require_grad();
            let own = Head::Own(&head);
            let expected = of_logits(own.forward(h.clone()), &targets);
            let of = |loss: Tensor<1>| {
                let grads = loss.clone().backward();
                let mut all = vec![loss.into_data(), h.grad(&grads).unwrap().into_data()];
                let of_adapter = head.lora.iter().flat_map(|lora| [&lora.a, &lora.b]);
                all.extend(of_adapter.map(|x| x.val().grad(&grads).unwrap().into_data()));
                let of_bias = head.bias.iter();
                all.extend(of_bias.map(|x| x.val().grad(&grads).unwrap().into_data()));
                all
            };
            let found = of(own.loss(h.clone(), targets.clone(), None));
            for (found, expected) in found.iter().zip(of(expected)) {
                for (found, expected) in found.iter::<f32>().zip(expected.iter::<f32>()) {
                    assert!((found - expected).abs() < 1e-6, "{found} {expected}");
                }
            }
        }
    }
}
