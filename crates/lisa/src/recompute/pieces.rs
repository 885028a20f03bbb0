//! Backward through a layer piece by piece: [`Cuts`], and what [`Recompute::with_pieces`] does.
//!
//! What the pieces of a layer are is the model's knowledge ([`LayeredModel::piece`]). Tests:
//! `recompute/pieces_tests.rs`, and `lisa-lm`'s models, which have two.
//!
//! [`Recompute::with_pieces`]: super::Recompute::with_pieces

use std::ops::Range;

use burn::optim::GradientsParams;
use burn::tensor::{Gradients, Tensor};

use super::{LayeredModel, Pass, hand_over, trains};

/// Where the tape is cut within a piece of a layer.
///
/// Burn hands out the gradients of a tape when the whole of it has been run back. A cut makes two tapes
/// of one, and the gradients of the later are handed out, and may be used up, before the earlier is run
/// back. Values and gradients stay the same. Without
/// [`Recompute::with_pieces`](super::Recompute::with_pieces) there are no cuts.
///
/// # Example
///
/// A model that cuts before its last matrix:
///
/// ```
/// use burn::module::Module;
/// use burn::nn::Linear;
/// use burn::tensor::Tensor;
/// use burn::tensor::activation::relu;
/// use lisa::recompute::Cuts;
///
/// #[derive(Module, Debug)]
/// struct Mlp {
///     up: Linear,
///     down: Linear,
/// }
///
/// impl Mlp {
///     fn forward(&self, h: Tensor<3>, cuts: &mut Cuts) -> Tensor<3> {
///         let inner = relu(self.up.forward(h.clone()));
///         let [inner, h] = cuts.cut([inner, h]);
///         h + self.down.forward(inner)
///     }
/// }
///
/// # use burn::nn::LinearConfig;
/// # use burn::tensor::Device;
/// # let device = Device::flex().autodiff();
/// # let mlp = Mlp { up: LinearConfig::new(2, 4).init(&device), down: LinearConfig::new(4, 2).init(&device) };
/// let h = Tensor::<3>::ones([1, 3, 2], &device);
/// assert_eq!(mlp.forward(h, &mut Cuts::none()).dims(), [1, 3, 2]);
/// ```
#[derive(Debug, Default)]
pub struct Cuts {
    made: Option<Vec<Vec<Crossing>>>,
}

/// A tensor that goes over a cut.
#[derive(Debug)]
struct Crossing {
    /// The end of the earlier tape.
    end: Tensor<1>,
    /// The same numbers, at the beginning of the later one.
    start: Tensor<1>,
}

impl Cuts {
    /// The tape stays whole.
    #[must_use]
    pub fn none() -> Self {
        Self { made: None }
    }

    fn some() -> Self {
        Self {
            made: Some(Vec::new()),
        }
    }

    /// The same tensors, at the beginning of a new tape where the tape is cut and they are on one.
    ///
    /// They must be all that is used behind the cut and depends on what is before it, the piece's input
    /// included: a tape can be run back only once, and Burn panics where it is to be a second time.
    #[must_use]
    pub fn cut<const D: usize, const N: usize>(&mut self, x: [Tensor<D>; N]) -> [Tensor<D>; N] {
        let Some(made) = &mut self.made else {
            return x;
        };
        let mut cut = Vec::new();
        let x = x.map(|x| {
            if !x.is_tracked() {
                return x;
            }
            let shape = x.dims();
            let end = x.reshape([-1]);
            let start = end.clone().detach().require_grad();
            let begun = start.clone().reshape(shape);
            cut.push(Crossing { end, start });
            begun
        });
        made.push(cut);
        x
    }

    /// What the tape before the last cut is to be run back from, given the gradients of the one behind it.
    fn last(&mut self, grads: &mut Gradients) -> Option<Tensor<1>> {
        let made = self.made.as_mut()?;
        while let Some(cut) = made.pop() {
            let ends = cut.into_iter().filter_map(|Crossing { end, start }| {
                let gradient = start.grad_remove(grads)?;
                Some((end * gradient).sum())
            });
            let whole = ends.reduce(|sum, end| sum + end);
            if whole.is_some() {
                return whole;
            }
        }
        None
    }
}

/// Runs something on the tape and back, from cut to cut. `below`: whether its input needs a gradient,
/// which is given with the model.
pub(super) fn go_back<M: LayeredModel>(
    mut model: M,
    (mut start, below): (Tensor<3>, bool),
    gradient: Tensor<3>,
    run: impl FnOnce(&M, Tensor<3>, &mut Cuts) -> Tensor<3>,
    take: &mut impl FnMut(M, GradientsParams) -> M,
) -> (M, Option<Tensor<3>>) {
    if below {
        start = start.require_grad();
    }
    let mut cuts = Cuts::some();
    let out = run(&model, start.clone(), &mut cuts);
    if !out.is_tracked() {
        return (model, None);
    }
    let mut grads = (out * gradient).sum().backward();
    loop {
        // Of the first tape: nothing goes round a cut.
        let upstream = below.then(|| start.grad_remove(&mut grads)).flatten();
        let last = cuts.last(&mut grads);
        model = hand_over(model, grads, take);
        let Some(last) = last else {
            return (model, upstream);
        };
        grads = last.backward();
    }
}

impl<M: LayeredModel> Pass<M> {
    pub(super) fn run_pieces(
        &self,
        model: &M,
        index: usize,
        pieces: Range<usize>,
        h: Tensor<3>,
        cuts: &mut Cuts,
    ) -> Tensor<3> {
        let all = model.pieces();
        pieces.fold(h, |h, piece| {
            self.seed(index * all + piece, &h);
            model.piece(index, piece, h, &self.context, cuts)
        })
    }

    /// Backward through a segment, given its input and the gradient of what it gives.
    pub(super) fn back_in_pieces(
        &self,
        mut model: M,
        segment: usize,
        (start, mut gradient): (Tensor<3>, Tensor<3>),
        take: &mut impl FnMut(M, GradientsParams) -> M,
    ) -> (M, Option<Tensor<3>>) {
        let layers = self.plan.layers_of(segment, self.layers);
        let training: Vec<bool> = layers.clone().map(|index| trains(&model, index)).collect();
        let all = 0..model.pieces();
        let inputs = self.inputs(
            &model,
            start,
            layers.clone().map(|index| (index, all.clone())),
        );
        for (at, (index, start)) in layers.zip(inputs).enumerate().rev() {
            let below = self.trains_below[segment] || training[..at].contains(&true);
            // A frozen layer has no gradients to hand out on the way.
            let stretches: Vec<Range<usize>> = if training[at] {
                all.clone().map(|piece| piece..piece + 1).collect()
            } else {
                vec![all.clone()]
            };
            let pieces = stretches.iter().map(|stretch| (index, stretch.clone()));
            let inputs = self.inputs(&model, start, pieces);
            for (stretch, start) in stretches.into_iter().zip(inputs).rev() {
                let below = below || stretch.start > 0;
                let run = |model: &M, start: Tensor<3>, cuts: &mut Cuts| {
                    let none = &mut Cuts::none();
                    let cuts = if training[at] { cuts } else { none };
                    self.run_pieces(model, index, stretch.clone(), start, cuts)
                };
                let upstream;
                (model, upstream) = go_back(model, (start, below), gradient, run, take);
                // Without one nothing below trains.
                let Some(upstream) = upstream else {
                    return (model, None);
                };
                gradient = upstream;
            }
        }
        (model, Some(gradient))
    }

    /// The inputs of stretches that follow one another; the last is not run.
    fn inputs(
        &self,
        model: &M,
        start: Tensor<3>,
        stretches: impl ExactSizeIterator<Item = (usize, Range<usize>)>,
    ) -> Vec<Tensor<3>> {
        let mut inputs = vec![start];
        let runs = stretches.len() - 1;
        if runs > 0 {
            let still = model.clone().no_grad();
            for (index, pieces) in stretches.take(runs) {
                let h = inputs[inputs.len() - 1].clone();
                inputs.push(self.run_pieces(&still, index, pieces, h, &mut Cuts::none()));
            }
        }
        inputs
    }
}
