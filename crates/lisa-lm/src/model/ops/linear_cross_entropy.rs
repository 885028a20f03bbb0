//! The head and its loss as one operation: the logits of a large vocabulary never exist as a whole.
//!
//! The rows that count are divided into slices. For each slice, the logits are computed, then the
//! loss and, if they are needed, the gradient of the logits and its products: the gradient of the
//! hidden state and that of the weight. So the backward pass only multiplies both by the gradient
//! of the loss.

use std::ops::Range;

use burn::tensor::{DType, Device, FloatDType, IndexingUpdateOp, Int, Tensor};

use super::counted::{Counted, slice_of};
use super::head_weight::{Found, HeadWeight};

#[cfg(feature = "custom-backward")]
mod known_gradients;
mod planned;

pub(crate) use planned::HeadSizes;

/// Elements of the logits of a slice on a CPU: 64 MiB in f32.
const SLICE_ON_HOST: usize = 1 << 24;
/// Elements of the logits of a slice on a GPU, where adding up the gradients of several slices costs
/// more than a matmul.
const SLICE: usize = 1 << 25;
/// The gradients of up to this many slices are added up in the dtype of the model, the gradients of more in
/// f32, so that rounding changes the sum by less than two steps.
const NARROW: usize = 4;
/// Half of the largest power of two in f16, and the largest factor whose reciprocal is not subnormal.
const ROOM: f32 = 32_768.0;
const MOST: f32 = 16_384.0;

/// The number of rows in a slice on this device.
fn slice_on(device: &Device, rows: usize, vocab: usize) -> usize {
    slice_of(rows, most_on(device.memory_pool_usage().is_some(), vocab))
}

/// The most rows in a slice on a device with or without a memory pool.
fn most_on(has_pool: bool, vocab: usize) -> usize {
    let elements = if has_pool { SLICE } else { SLICE_ON_HOST };
    elements / vocab.max(1)
}

/// The mean cross entropy of the logits `hidden weight`, without computing all logits at once.
///
/// - `hidden`: `[rows, hidden]`.
/// - `weight`: `[hidden, vocab]`, as in Burn's `Linear`. For a head that is tied to an embedding, it
///   is the transposed weight of the embedding.
/// - `targets`: `[rows]`, the index of the right class of each row, or -100 for a row that is
///   ignored.
///
/// The loss has the shape `[1]` and is in f32, as is the softmax. The mean is over the rows that are
/// not ignored. If all are ignored, the loss and its gradients are 0.
///
/// If `hidden` or `weight` is tracked by autodiff, their gradients are computed together with the
/// loss, and kept until the backward pass. In f16, the gradient of the logits is scaled by a power
/// of two in the matmuls: it is divided by the number of rows, and without the factor most of its
/// elements would be rounded to 0.
///
/// # Cost
///
/// Memory: the gradients of `hidden` and `weight`, and the logits of a slice of the rows in f32.
/// The logits of a slice have at most 64 MiB on a CPU and 128 MiB on a GPU, or the size of 64 rows
/// if that is more, and there are several temporary tensors of this size. If the operation is fused
/// (f32 on flex, with the feature `flex`), they have at most 48 MiB, without such tensors. Time:
/// three matmuls over the rows that are not ignored; one matmul without gradients. The targets are
/// copied to the host, and in f16 also the largest element of `hidden`.
///
/// # Panics
///
/// Panics if the sizes do not match, if there are no rows, and on a target that is neither -100 nor
/// an index of the vocabulary.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Distribution, Int, Tensor};
/// use lisa_lm::linear_cross_entropy;
///
/// let device = Device::flex().autodiff();
/// // Four tokens, of width 8, and a vocabulary of 1000.
/// let hidden = Tensor::<2>::random([4, 8], Distribution::Default, &device).require_grad();
/// let weight = Tensor::<2>::random([8, 1000], Distribution::Default, &device).require_grad();
/// let targets = Tensor::<1, Int>::from_data([3, -100, 999, 17], &device);
///
/// let loss = linear_cross_entropy(hidden.clone(), weight.clone(), targets);
/// let gradients = loss.backward();
/// assert_eq!(hidden.grad(&gradients).unwrap().dims(), [4, 8]);
/// assert_eq!(weight.grad(&gradients).unwrap().dims(), [8, 1000]);
/// ```
#[must_use]
pub fn linear_cross_entropy(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
) -> Tensor<1> {
    let ([rows, width], [from, vocab], [labels]) = (hidden.dims(), weight.dims(), targets.dims());
    assert!(
        width == from && rows == labels,
        "linear_cross_entropy: hidden is {:?}, weight {:?}, targets {:?}; expected [rows, hidden], \
         [hidden, vocab], [rows]",
        [rows, width],
        [from, vocab],
        [labels]
    );
    let counted = Counted::of(&targets, None, vocab);
    head_loss(
        Product::new(hidden, HeadWeight::Own(weight)),
        None,
        &counted,
    )
}

/// The product of rows, `[rows, width]`, and a weight: the logits, or a part of them.
#[derive(Clone)]
pub(crate) struct Product {
    rows: Tensor<2>,
    weight: HeadWeight,
}

impl Product {
    pub(crate) fn new(rows: Tensor<2>, weight: HeadWeight) -> Self {
        Self { rows, weight }
    }
}

/// The weighted mean cross entropy over the rows that count. See [`linear_cross_entropy`]. The
/// logits are the product, or the sum of both.
pub(crate) fn head_loss(product: Product, added: Option<Product>, counted: &Counted) -> Tensor<1> {
    if added.is_none() {
        fused!(head_loss(&product.rows, &product.weight, counted));
    }
    let slice = slice_on(
        &product.rows.device(),
        counted.len(),
        product.weight.vocab(),
    );
    on_graph([product].into_iter().chain(added), counted, slice)
}

/// [`head_loss`] in Burn's operations, with slices of `slice` rows.
fn on_graph(
    products: impl IntoIterator<Item = Product>,
    counted: &Counted,
    slice: usize,
) -> Tensor<1> {
    let (mut plain, mut inputs) = (Vec::new(), Vec::new());
    for Product { rows, weight } in products {
        let (rows, stored) = (counted.select(rows), weight.stored().clone());
        let wanted = [rows.is_tracked(), stored.is_tracked()];
        plain.push((Product::new(rows.clone().inner(), weight.inner()), wanted));
        inputs.extend([rows, stored]);
    }
    let found = || {
        let (loss, gradients) = in_slices(&plain, counted, slice);
        (loss, gradients.into_iter().flatten().collect())
    };
    #[cfg(feature = "custom-backward")]
    if let Some(loss) = known_gradients::loss(&inputs, found) {
        return loss;
    }
    let (loss, gradients): (_, Vec<_>) = found();
    inputs
        .into_iter()
        .zip(gradients)
        .fold(loss, |loss, (x, gradient)| {
            let Some(gradient) = gradient else {
                return like(&x, loss);
            };
            // A term of value 0 whose gradient is `gradient`.
            let term = (x.clone() * like(&x, gradient)).sum();
            like(&x, loss) + (term.clone() - term.detach()).cast(FloatDType::F32)
        })
}

/// The tensor with autodiff if `x` has autodiff, on its device.
pub(crate) fn like<const D: usize, const N: usize>(x: &Tensor<D>, tensor: Tensor<N>) -> Tensor<N> {
    match x.gradient_checkpointing_strategy() {
        None => tensor,
        Some(strategy) => tensor
            .autodiff()
            .with_gradient_checkpointing_strategy(strategy),
    }
}

/// The loss and the gradients, for tensors without autodiff.
pub(crate) fn head_gradients(
    hidden: Tensor<2>,
    weight: &HeadWeight,
    counted: &Counted,
    wanted: [bool; 2],
) -> Found {
    fused!(head_gradients(&hidden, weight, counted, wanted));
    let slice = slice_on(&hidden.device(), counted.len(), weight.vocab());
    let product = Product::new(counted.select(hidden), weight.clone());
    let (loss, mut gradients) = in_slices(&[(product, wanted)], counted, slice);
    let [of_rows, of_weight] = gradients.remove(0);
    (loss, [of_rows.map(|rows| counted.scatter(rows)), of_weight])
}

/// The loss of the logits that are the sum of these products, and the gradients of each that are
/// wanted, for the rows that count. In Burn's operations, with slices of `slice` rows.
fn in_slices(
    products: &[(Product, [bool; 2])],
    counted: &Counted,
    slice: usize,
) -> (Tensor<1>, Vec<[Option<Tensor<2>>; 2]>) {
    let (first, _) = &products[0];
    let device = first.rows.device();
    let wanted = products.iter().any(|(_, wanted)| wanted.contains(&true));
    let (targets, shares) = counted.to_tensors(&device);
    let scale = if wanted {
        scale_of(products, counted)
    } else {
        1.0
    };
    let wide = counted.len() > NARROW * slice;
    let mut sums: Vec<Sums> = products
        .iter()
        .map(|(product, wanted)| Sums::new(product, *wanted, wide))
        .collect();
    let mut losses = Vec::new();
    for first in (0..counted.len()).step_by(slice) {
        let range = first..(first + slice).min(counted.len());
        let parts: Vec<_> = sums.iter().map(|sums| sums.slice(range.clone())).collect();
        let logits = sums.iter().zip(&parts).map(|(sums, x)| {
            let logits = x.clone().matmul(sums.columns.clone());
            logits.cast(FloatDType::F32)
        });
        let logits = logits.reduce(|sum, logits| sum + logits);
        let logits = logits.expect("there is a product");
        let targets = targets.clone().slice_dim(0, range.clone());
        let share = shares.clone().slice_dim(0, range);
        let target = logits.clone().gather(1, targets.clone());
        let largest = logits.clone().max_dim(1);
        let exps = (logits - largest.clone()).exp();
        let sum = exps.clone().sum_dim(1);
        losses.push(((sum.clone().log() + largest - target) * share.clone()).sum());
        if wanted {
            let share = scaled(share, scale);
            let gradient = exps * (share.clone() / sum);
            let gradient = gradient.scatter(1, targets, -share, IndexingUpdateOp::Add);
            for (sums, x) in sums.iter_mut().zip(parts) {
                sums.add(x, &gradient, scale.recip());
            }
        }
    }
    let gradients = sums.into_iter().map(|sums| sums.gradients(scale.recip()));
    (Tensor::cat(losses, 0).sum(), gradients.collect())
}

fn scaled(tensor: Tensor<2>, factor: f32) -> Tensor<2> {
    match factor {
        1.0 => tensor,
        factor => tensor.mul_scalar(factor),
    }
}

/// The gradients of a product, slice by slice.
struct Sums<'a> {
    product: &'a Product,
    wanted: [bool; 2],
    /// Whether the gradient of the weight is summed in f32.
    wide: bool,
    /// The weight, `[width, vocab]`.
    columns: Tensor<2>,
    of_rows: Vec<Tensor<2>>,
    of_weight: Option<Tensor<2>>,
}

impl<'a> Sums<'a> {
    fn new(product: &'a Product, wanted: [bool; 2], wide: bool) -> Self {
        let weight = &product.weight;
        let stored = weight.stored().clone();
        let columns = if weight.is_tied() {
            stored.transpose()
        } else {
            stored
        };
        Self {
            product,
            wanted,
            wide,
            columns,
            of_rows: Vec::new(),
            of_weight: None,
        }
    }

    fn slice(&self, rows: Range<usize>) -> Tensor<2> {
        self.product.rows.clone().slice_dim(0, rows)
    }

    /// Adds the gradients of a slice of the rows, for the gradient of its logits.
    fn add(&mut self, x: Tensor<2>, gradient: &Tensor<2>, unscale: f32) {
        let [of_rows, of_weight] = self.wanted;
        let gradient = &gradient.clone().cast(self.columns.dtype());
        if of_rows {
            let product = gradient.clone().matmul(self.columns.clone().transpose());
            self.of_rows.push(scaled(product, unscale));
        }
        if of_weight {
            let gradient = gradient.clone();
            let product = if self.product.weight.is_tied() {
                gradient.transpose().matmul(x)
            } else {
                x.transpose().matmul(gradient)
            };
            let product = if self.wide {
                product.cast(FloatDType::F32)
            } else {
                product
            };
            self.of_weight = Some(match self.of_weight.take() {
                None => product,
                Some(sum) => sum + product,
            });
        }
    }

    /// The gradients of the rows and of the weight.
    fn gradients(self, unscale: f32) -> [Option<Tensor<2>>; 2] {
        let dtype = self.columns.dtype();
        let of_rows = self.wanted[0].then(|| Tensor::cat(self.of_rows, 0));
        let of_weight = self.of_weight.map(|sum| scaled(sum, unscale).cast(dtype));
        [of_rows, of_weight]
    }
}

/// The power of two by which the gradient of the logits is multiplied while it is in f16, so that its
/// shares of the mean do not make it 0. The products with the rows, at most their largest element times
/// the factor, stay finite. In other dtypes, 1.
fn scale_of(products: &[(Product, [bool; 2])], counted: &Counted) -> f32 {
    let share = counted.shares.iter().copied().fold(0.0, f32::max);
    let rows = products.iter().map(|(product, _)| &product.rows);
    let mut of_rows = rows.filter(|rows| rows.dtype() == DType::F16).peekable();
    if of_rows.peek().is_none() || share == 0.0 {
        return 1.0;
    }
    let largest = of_rows.map(|rows| {
        let largest = rows.clone().abs().max().cast(FloatDType::F32);
        largest.into_scalar::<f32>()
    });
    let room = ROOM / largest.fold(0.0, f32::max);
    let most = share.recip().min(room).clamp(1.0, MOST);
    // An exact power of two.
    f32::from_bits(most.to_bits() & 0xff80_0000)
}

#[cfg(test)]
mod tests;
