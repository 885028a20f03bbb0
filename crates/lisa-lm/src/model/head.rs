//! [`Head`]: the logits, and a loss with a custom backward pass that needs less memory.

use burn::module::Param;
use burn::nn::Embedding;
use burn::optim::GradientsParams;
use burn::tensor::{Int, Tensor, TensorData};
use lisa::recompute::HeadPass;

use crate::model::block::Projection;
use crate::model::ops;

/// The largest number of elements of the weight's gradient that are computed at a time on flex.
const BLOCK: usize = 1 << 18;

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

    /// Whether the logits are the result of a matmul with the weight, without bias or adapter.
    fn is_product(&self) -> bool {
        match self {
            Self::Own(head) => head.bias.is_none() && head.lora.is_none(),
            Self::Tied(_) => true,
        }
    }

    fn weight(&self) -> &Param<Tensor<2>> {
        match self {
            Self::Own(head) => &head.weight,
            Self::Tied(embedding) => &embedding.weight,
        }
    }
}

/// The mean cross entropy of targets, `[batch, seq]`, weighted if there are weights, for normed
/// hidden states, `[batch, seq, hidden]`, with a custom backward pass: the head is not in the autodiff graph, and
/// only the gradient of the logits is kept.
pub(crate) fn head_pass(
    h: Tensor<3>,
    head: &Head<'_>,
    targets: Tensor<2, Int>,
    weights: Option<Tensor<2>>,
) -> HeadPass {
    let param = head.weight();
    let trains = param.is_require_grad();
    if !head.is_product() || !(h.is_tracked() || trains) {
        return ops::batch_cross_entropy(head.forward(h), targets, weights).into();
    }
    let shape @ [batch, seq, width] = h.dims();
    let rows = h.clone().inner().reshape([batch * seq, width]);
    let is_tied = matches!(head, Head::Tied(_));
    // `[hidden, vocab]`.
    let weight = param.val().inner();
    let weight = if is_tied { weight.transpose() } else { weight };
    let logits = rows.clone().matmul(weight.clone());
    let targets = targets.reshape([batch * seq]).inner();
    let weights = weights.map(|weights| weights.reshape([batch * seq]).inner());
    let (loss, gradient) = ops::loss_and_gradient(logits, targets, weights);
    let loss = Tensor::from_inner(loss);
    let id = param.id;
    HeadPass::custom(loss, move |factor| {
        let gradient = if factor == 1.0 {
            gradient
        } else {
            gradient.mul_scalar(factor)
        };
        let grads = h.is_tracked().then(|| {
            let upstream = gradient.clone().matmul(weight.transpose()).reshape(shape);
            (h * Tensor::from_inner(upstream)).sum().backward()
        });
        let mut own = GradientsParams::new();
        if trains {
            own.register(id, weight_gradient(rows, gradient, is_tied));
        }
        (grads, own)
    })
}

/// `rows^T gradient`, `[hidden, vocab]`; transposed, `[vocab, hidden]`, for a tied head.
///
/// For a short time, Burn's matmul on flex allocates its result twice, so on flex the gradient is
/// computed in blocks along the vocabulary. Other devices, recognized by their memory pools,
/// compute it in one matmul.
fn weight_gradient(rows: Tensor<2>, gradient: Tensor<2>, is_tied: bool) -> Tensor<2> {
    let (device, dtype) = (rows.device(), rows.dtype());
    let product = |gradient: Tensor<2>| {
        if is_tied {
            gradient.transpose().matmul(rows.clone())
        } else {
            rows.clone().transpose().matmul(gradient)
        }
    };
    let ([_, width], [_, vocab]) = (rows.dims(), gradient.dims());
    if device.memory_pool_usage().is_some() || width * vocab <= BLOCK {
        return product(gradient);
    }
    let shape = if is_tied {
        [vocab, width]
    } else {
        [width, vocab]
    };
    let zeros = TensorData::zeros::<f32, _>(shape).convert_dtype(dtype);
    let mut whole = Tensor::<2>::from_data(zeros, (&device, dtype));
    let block = (BLOCK / width).max(1);
    for first in (0..vocab).step_by(block) {
        let range = first..(first + block).min(vocab);
        let values = product(gradient.clone().slice_dim(1, range.clone()));
        let target = if is_tied {
            [range, 0..width]
        } else {
            [0..width, range]
        };
        whole = whole.slice_assign(target, values);
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};

    #[test]
    fn a_gradient_in_blocks_is_that_of_one_product() {
        let device = Device::flex();
        device.seed(3);
        let random = |shape| Tensor::<2>::random(shape, Distribution::Default, &device);
        // Two blocks along the vocabulary, the last of which is short.
        let (width, vocab) = (64, BLOCK / 64 + 5);
        let (rows, gradient) = (random([3, width]), random([3, vocab]));
        let product = rows.clone().transpose().matmul(gradient.clone());
        for (is_tied, expected) in [(false, product.clone()), (true, product.transpose())] {
            let found = weight_gradient(rows.clone(), gradient.clone(), is_tied);
            assert_eq!(found.dims(), expected.dims());
            let apart = (found - expected).abs().max().into_scalar::<f32>();
            assert!(apart < 1e-6, "{is_tied}: {apart}");
        }
    }
}
