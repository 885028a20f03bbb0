//! Cross entropy, forward and backward.

// See `rows.rs`.
#![allow(clippy::inline_always)]

use burn::backend::Flex;
use burn::tensor::{Int, Shape, Tensor};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};
use burn_flex::FlexTensor;

use super::autodiff::{Operand, owned, tensor_of, values, with_autodiff};
use super::rows::{Out, Rows, exps, largest, run};

/// The cross entropy of rows of logits. Writes the gradient of the mean in place of the logits.
struct CrossEntropy<'a> {
    /// The index of the target; `None` if the row is ignored.
    targets: &'a [Option<usize>],
    /// The weight of each row; `None`: all weights are 1.
    weights: Option<&'a [f32]>,
    /// 1 divided by the sum of the weights.
    share: f32,
}

impl Rows for CrossEntropy<'_> {
    #[inline(always)]
    fn row(&self, index: usize, logits: &mut [f32], loss: &mut [f32]) {
        let Some(target) = self.targets[index] else {
            logits.fill(0.0);
            loss.fill(0.0);
            return;
        };
        let share = match self.weights {
            None => self.share,
            Some(weights) => self.share * weights[index],
        };
        let largest = largest(logits);
        let target_logit = logits[target] - largest;
        let sum = exps(logits, largest);
        loss.fill((sum.ln() - target_logit) * share);
        let factor = share / sum;
        for logit in logits.iter_mut() {
            *logit *= factor;
        }
        logits[target] -= share;
    }
}

/// The mean cross entropy of logits, `[rows, vocab]`, over the rows whose target is not negative; the
/// weighted mean if there are weights, `[rows]`.
/// Keeps the gradient of the logits, in the memory of the logits. If the logits are not fused,
/// returns them as the error.
#[allow(clippy::result_large_err)] // The error is the input.
pub(crate) fn cross_entropy(
    logits: Tensor<2>,
    targets: &Tensor<1, Int>,
    weights: Option<&Tensor<1>>,
) -> Result<Tensor<1>, Tensor<2>> {
    match Operand::of(&logits) {
        None => Err(logits),
        Some(place) => {
            // Dropped here, so that the memory of the logits is not shared.
            drop(logits);
            Ok(match place {
                Operand::Plain(logits) => {
                    Tensor::from_primitive::<Flex>(entropy(logits, targets, weights).0)
                }
                Operand::Autodiff(logits) => {
                    with_autodiff(CrossEntropyOp, [logits], |[x]| entropy(x, targets, weights))
                }
            })
        }
    }
}

/// Like [`cross_entropy`], for logits without autodiff. Also returns their gradient.
#[allow(clippy::result_large_err)] // The error is the input.
pub(crate) fn loss_and_gradient(
    logits: Tensor<2>,
    targets: &Tensor<1, Int>,
    weights: Option<&Tensor<1>>,
) -> Result<(Tensor<1>, Tensor<2>), Tensor<2>> {
    match Operand::of(&logits) {
        Some(Operand::Plain(values)) => {
            drop(logits);
            let (loss, gradient) = entropy(values, targets, weights);
            Ok((
                Tensor::from_primitive::<Flex>(loss),
                Tensor::from_primitive::<Flex>(gradient),
            ))
        }
        _ => Err(logits),
    }
}

/// The loss and the gradient of the logits.
fn entropy(
    logits: FlexTensor,
    targets: &Tensor<1, Int>,
    weights: Option<&Tensor<1>>,
) -> (FlexTensor, FlexTensor) {
    let targets = targets.to_data();
    let targets: Vec<Option<usize>> = targets
        .iter::<i64>()
        .map(|target| usize::try_from(target).ok())
        .collect();
    let weights: Option<Vec<f32>> = weights.map(|weights| weights.to_data().iter().collect());
    let mut gradient = owned(logits);
    let [rows, vocab] = gradient.layout().shape().dims();
    let share = match &weights {
        None => 1.0 / targets.iter().flatten().count().max(1) as f32,
        Some(weights) => {
            let kept = weights
                .iter()
                .zip(&targets)
                .filter(|(_, target)| target.is_some());
            match kept.map(|(weight, _)| f64::from(*weight)).sum::<f64>() {
                0.0 => 0.0,
                sum => (1.0 / sum) as f32,
            }
        }
    };
    let mut losses = vec![0.0; rows];
    let kernel = CrossEntropy {
        targets: &targets,
        weights: weights.as_deref(),
        share,
    };
    run(
        &kernel,
        Out::new(gradient.storage_mut(), vocab),
        Out::new(&mut losses, 1),
    );
    let loss = losses.iter().sum();
    (tensor_of(vec![loss], Shape::new([1])), gradient)
}

#[derive(Debug)]
struct CrossEntropyOp;

impl Backward<Flex, 1> for CrossEntropyOp {
    type State = FlexTensor;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let factor = values(&grads.consume::<Flex>(&ops.node).to_contiguous())[0];
        let [parent] = ops.parents;
        if let Some(parent) = parent {
            let mut grad = owned(ops.state);
            if factor != 1.0 {
                let values: &mut [f32] = grad.storage_mut();
                for value in values {
                    *value *= factor;
                }
            }
            grads.register::<Flex>(parent.id, grad);
        }
    }
}
