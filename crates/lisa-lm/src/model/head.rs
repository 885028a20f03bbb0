//! [`Head`]: the logits, and the loss without computing all logits at once.

use burn::module::Param;
use burn::nn::Embedding;
use burn::optim::GradientsParams;
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, FloatDType, Int, Tensor};
use lisa::recompute::HeadPass;

use crate::model::block::Projection;
use crate::model::ops::{self, Counted, HeadWeight};

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
        match self.product() {
            Some((_, weight)) => ops::head_loss(h.flatten(0, 1), &weight, &counted),
            // Divided by the number of targets, a gradient of logits in f16 would be 0.
            None if h.dtype() == DType::F16 => {
                loss_of_logits(self.forward(h.cast(FloatDType::F32)), &counted)
            }
            None => loss_of_logits(self.forward(h), &counted),
        }
    }

    /// Like [`loss`](Self::loss), with a custom backward pass: the head is not in the autodiff
    /// graph.
    pub(crate) fn pass(
        &self,
        h: Tensor<3>,
        targets: Tensor<2, Int>,
        weights: Option<Tensor<2>>,
    ) -> HeadPass {
        let wanted = self.product().map(|(param, weight)| {
            let wanted = [h.is_tracked(), param.is_require_grad()];
            (param.id, weight, wanted)
        });
        let Some((id, weight, wanted)) = wanted.filter(|(.., wanted)| wanted.contains(&true))
        else {
            return self.loss(h, targets, weights).into();
        };
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

    /// The weight, if the logits are the result of a matmul with it, without bias or adapter.
    fn product(&self) -> Option<(&Param<Tensor<2>>, HeadWeight)> {
        match self {
            Self::Own(head) => {
                let is_product = head.bias.is_none() && head.lora.is_none();
                let weight = is_product.then(|| head.weight.val())?;
                let is_float = weight.dtype().is_float();
                is_float.then_some((&head.weight, HeadWeight::Own(weight)))
            }
            Self::Tied(embedding) => {
                let weight = HeadWeight::Tied(embedding.weight.val());
                Some((&embedding.weight, weight))
            }
        }
    }
}

/// The loss of a head with a bias or an adapter, `[batch, seq, vocab]`, in Burn's operations.
fn loss_of_logits(logits: Tensor<3>, counted: &Counted) -> Tensor<1> {
    let logits: Tensor<2> = logits.flatten(0, 1);
    let logits = counted.select(logits).cast(FloatDType::F32);
    let (targets, shares) = counted.to_tensors(&logits.device());
    (log_softmax(logits, 1).gather(1, targets) * shares)
        .sum()
        .neg()
}
