//! [`Recompute::forward`] and [`Pass`]: a forward pass that keeps the inputs of segments, and its
//! backward pass.

use std::sync::Once;

use burn::module::{Flag, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::backward::Input;
use super::embed::EmbedPass;
use super::gradients::add;
use super::head::HeadPass;
use super::model::LayeredModel;
use super::plan::Recompute;
use super::stack::Stack;
use super::tied::Tied;
use crate::StepError;

impl Recompute {
    /// Runs the model forward.
    ///
    /// A model with dropout needs [`with_dropout_seed`](Self::with_dropout_seed); without it, a
    /// warning is logged if the model may have dropout. Running statistics, as of batch
    /// normalization, are updated in the forward pass and again when a layer is recomputed.
    ///
    /// Layers that are recomputed run without an autodiff graph. The input of a segment is not kept
    /// if neither the segment, nor the embedding, nor a lower layer is trainable. The returned
    /// [`Pass`] contains the state.
    #[must_use]
    pub fn forward<M: LayeredModel>(self, model: &M, batch: &M::Batch) -> Pass<M> {
        let stack = Stack::new(self, model, batch);
        let embedded = model.embed_pass(batch, stack.context());
        let trainable_before = stack.trainable_before(model, embedded.is_trainable());
        let recomputed = stack.recomputed_segments();
        // To freeze a lazy parameter would freeze its clones as well.
        let mut read = Initialize::default();
        model.visit(&mut read);
        if read.trains_otherwise && !self.repeats_dropout() {
            static ONCE: Once = Once::new();
            ONCE.call_once(|| log::warn!("{WITHOUT_SEED}"));
        }
        // Burn frees a graph that never runs backward only after a while, so none may be made here.
        let frozen = model.clone().no_grad();
        let mut h = embedded.output();
        let mut inputs = Vec::with_capacity(recomputed);
        for segment in 0..recomputed {
            let input = h.clone();
            h = stack.run_segment(&frozen, segment, h);
            inputs.push(trainable_before[segment + 1].then_some(input));
        }
        drop(frozen);
        let top = if trainable_before[recomputed] {
            h.require_grad()
        } else {
            h
        };
        let mut h = top.clone();
        if recomputed < stack.segments() {
            h = stack.run_segment(model, recomputed, h);
        }
        let head = model.head_pass(h, batch, stack.context());
        Pass {
            stack,
            trainable_before,
            inputs,
            top,
            head,
            embedded: embedded.is_trainable().then_some(embedded),
        }
    }
}

/// A model, and what is left of its backward pass.
type Rest<M> = (M, Option<(EmbedPass, Tensor<3>)>);

/// A forward pass whose backward pass has not run yet.
///
/// State kept: the inputs of the segments, the autodiff graphs of the embedding and the head, and
/// the graph of the last segment if that is not recomputed.
///
/// # Example
///
/// ```no_run
/// use burn::module::Module;
/// use burn::optim::ModuleOptimizer;
/// use lisa::StepError;
/// use lisa::recompute::{LayeredModel, Recompute};
///
/// /// Gradient checkpointing without LISA: updates each layer during the backward pass.
/// fn step<M: LayeredModel>(
///     model: M,
///     batch: &M::Batch,
///     optimizer: &mut ModuleOptimizer,
/// ) -> Result<M, StepError<M>> {
///     let pass = Recompute::new().forward(&model, batch);
///     println!("loss {}", pass.loss());
///     pass.backward_with(model, |model, grads| optimizer.step(1e-4, model, grads))
/// }
/// ```
pub struct Pass<M: LayeredModel> {
    stack: Stack<M>,
    /// By segment, and for the head: whether something before it is trainable.
    trainable_before: Vec<bool>,
    /// By segment that is recomputed: its input, if the backward pass needs it.
    inputs: Vec<Option<Tensor<3>>>,
    /// The input of the part that is still on a graph: the last segment or the head.
    top: Tensor<3>,
    head: HeadPass,
    /// The backward pass of the embedding, if that is trainable.
    embedded: Option<EmbedPass>,
}

impl<M: LayeredModel> std::fmt::Debug for Pass<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pass")
            .field("plan", &self.stack.plan())
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

impl<M: LayeredModel> Pass<M> {
    /// The loss, of shape `[1]`, on no graph.
    #[must_use]
    pub fn loss(&self) -> Tensor<1> {
        self.head.loss()
    }

    /// Multiplies the loss and all gradients by a factor. Use it for gradient accumulation over
    /// several batches.
    #[must_use]
    pub fn scale(mut self, factor: f64) -> Self {
        self.head.scale(factor);
        self
    }

    /// Computes the gradients of all trainable parameters. They can be accumulated, clipped and
    /// stepped as usual. Without trainable parameters, there are no gradients.
    ///
    /// `model` must be the model of the forward pass. Memory: all gradients are in memory at the
    /// end; with [`backward_with`](Self::backward_with), those of one segment at a time.
    #[must_use]
    pub fn backward(self, model: &M) -> GradientsParams {
        let mut sum = GradientsParams::new();
        let (model, rest) = self.run(model.clone(), |model, mut grads| {
            add(&model, &mut sum, &mut grads);
            model
        });
        if let Some((embedded, gradient)) = rest {
            embedded.backward(&model, gradient, &mut sum);
        }
        sum
    }

    /// Calls `update` with the gradients of the head, of each segment from the last to the first,
    /// and of the embedding, each as soon as they are computed. With
    /// [`Recompute::with_sublayers`], it is called for each sublayer, or each part of one between
    /// two [cuts](super::Cuts), instead of each segment.
    ///
    /// `update` gets the model and these gradients, and returns the model, updated or not. It is
    /// not called for frozen segments. Gradient accumulation and a norm over all gradients need
    /// [`backward`](Self::backward).
    ///
    /// # Errors
    ///
    /// A parameter gets gradients twice and [`LayeredModel::tied`] does not name it, so it would be
    /// updated twice. This is a mistake in the implementation of the trait. The model that the
    /// error gives back may be partly updated.
    pub fn backward_with(
        self,
        model: M,
        mut update: impl FnMut(M, GradientsParams) -> M,
    ) -> Result<M, StepError<M>> {
        let mut tied = Tied::new(model.tied());
        let mut take = |model, tied: &mut Tied, grads| match tied.hold_back(&model, grads) {
            Some(grads) => update(model, grads),
            None => model,
        };
        let (mut model, rest) = self.run(model, |model, grads| take(model, &mut tied, grads));
        if let Some((embedded, gradient)) = rest {
            let mut grads = tied.take();
            embedded.backward(&model, gradient, &mut grads);
            model = take(model, &mut tied, grads);
        }
        match tied.finish() {
            Ok(Some(grads)) => Ok(update(model, grads)),
            Ok(None) => Ok(model),
            Err(error) => Err(StepError::new(model, error, true)),
        }
    }

    /// Runs backward from the head to the lowest trainable segment. Returns the backward pass of the
    /// embedding with the gradient of its output, if the embedding is trainable.
    fn run(self, mut model: M, mut take: impl FnMut(M, GradientsParams) -> M) -> Rest<M> {
        let Some((mut upstream, found)) = self.head.backward(&self.top, &model) else {
            return (model, None);
        };
        drop(self.top);
        if !found.is_empty() {
            model = take(model, found);
        }
        let mut inputs = self.inputs;
        while let Some(input) = inputs.pop() {
            let segment = inputs.len();
            // Without one of them nothing is trainable here or below.
            let (Some(h), Some(gradient)) = (input, upstream) else {
                return (model, None);
            };
            let needs_gradient = self.trainable_before[segment];
            let input = Input { h, needs_gradient };
            (model, upstream) = self
                .stack
                .segment_backward(model, segment, input, gradient, &mut take);
        }
        (model, self.embedded.zip(upstream))
    }
}

/// What is logged once if a model may have dropout and the plan has no seed.
const WITHOUT_SEED: &str = "the model has modules that behave differently in training, such as dropout, \
    and `Recompute::with_dropout_seed` is not set: if they use random numbers, layers are recomputed with \
    other ones, and the gradients are wrong";

/// Initializes lazy parameters, and finds out whether a module behaves differently in training.
#[derive(Default)]
struct Initialize {
    trains_otherwise: bool,
}

impl ModuleVisitor for Initialize {
    fn visit_flag(&mut self, flag: &Param<Flag>) {
        self.trains_otherwise |= flag.val().is_enabled();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        drop(param.val());
    }
}
