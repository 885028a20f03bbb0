//! Layer-wise recomputation of activations: [`LayeredModel`], [`Recompute`], [`Pass`].
//!
//! The forward pass keeps the input of each segment of layers and nothing else. Backward goes from
//! the head to the first layer: each segment runs once more, now on Burn's tape, and is left as
//! soon as its gradients are there; `pieces.rs` goes back through a layer in smaller steps. It ends at the
//! lowest segment that trains. Knows nothing of policies; `lisa/layered.rs` steps with it. Tests:
//! `recompute/tests.rs`.

use std::collections::HashSet;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Gradients, Tensor};

use crate::{ErrorKind, LisaError, StepError};
pub use head::HeadPass;
pub use pieces::Cuts;
use pieces::go_back;

/// A model that can be run layer by layer: embedding, a stack of layers, a head with a loss.
///
/// The parts run one after the other must be the model's whole forward pass. Nothing but the hidden
/// state, `[batch, sequence, width]`, may pass from one to the next; what all layers share (masks,
/// rotary tables) belongs into the context.
///
/// # Example
///
/// ```
/// use burn::module::{Module, ModuleVisitor};
/// use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
/// use burn::tensor::{Device, Int, Tensor};
/// use lisa::recompute::{LayeredModel, Recompute};
///
/// #[derive(Module, Debug)]
/// struct Model {
///     embed: Embedding,
///     layers: Vec<Linear>,
///     head: Linear,
/// }
///
/// impl LayeredModel for Model {
///     type Batch = Tensor<2, Int>;
///     type Context = ();
///
///     fn context(&self, _: &Self::Batch) {}
///     fn num_layers(&self) -> usize {
///         self.layers.len()
///     }
///     fn embed(&self, batch: &Self::Batch, (): &()) -> Tensor<3> {
///         self.embed.forward(batch.clone())
///     }
///     fn layer(&self, index: usize, h: Tensor<3>, (): &()) -> Tensor<3> {
///         h.clone() + self.layers[index].forward(h).tanh()
///     }
///     fn visit_layer<V: ModuleVisitor>(&self, index: usize, visitor: &mut V) {
///         self.layers[index].visit(visitor);
///     }
///     fn head_loss(&self, h: Tensor<3>, _: &Self::Batch, (): &()) -> Tensor<1> {
///         self.head.forward(h).square().mean()
///     }
/// }
///
/// let device = Device::flex().autodiff();
/// let linear = || LinearConfig::new(4, 4).init(&device);
/// let model = Model {
///     embed: EmbeddingConfig::new(8, 4).init(&device),
///     layers: (0..3).map(|_| linear()).collect(),
///     head: linear(),
/// };
/// let batch = Tensor::<2, Int>::from_data([[1, 2, 3]], &device);
/// let pass = Recompute::new().forward(&model, &batch);
/// let loss = pass.loss();
/// let gradients = pass.backward(&model);
/// assert_eq!(gradients.len(), 1 + 4 * 2);
/// # let _ = loss;
/// ```
pub trait LayeredModel: Module {
    /// What a step is given: tokens, labels.
    type Batch;
    /// What all layers need to know of a batch.
    type Context;

    /// Computed once a step.
    fn context(&self, batch: &Self::Batch) -> Self::Context;

    /// How many layers the stack has.
    fn num_layers(&self) -> usize;

    /// The hidden state before the first layer.
    fn embed(&self, batch: &Self::Batch, context: &Self::Context) -> Tensor<3>;

    /// The hidden state behind layer `index`, given that before it.
    fn layer(&self, index: usize, h: Tensor<3>, context: &Self::Context) -> Tensor<3>;

    /// How many pieces a layer can be run in, such as 2 for attention and MLP: for
    /// [`Recompute::with_pieces`].
    fn pieces(&self) -> usize {
        1
    }

    /// The hidden state behind piece `piece` of layer `index`, given that before it: all pieces in turn
    /// are [`layer`](Self::layer), and each parameter belongs to one of them.
    ///
    /// Inside, the tape may be [cut](Cuts::cut), so that backward hands gradients out on the way.
    fn piece(
        &self,
        index: usize,
        piece: usize,
        h: Tensor<3>,
        context: &Self::Context,
        cuts: &mut Cuts,
    ) -> Tensor<3> {
        let _ = (piece, cuts);
        self.layer(index, h, context)
    }

    /// Shows a visitor the parameters that layer `index` uses: `self.layers[index].visit(visitor)`.
    ///
    /// By it is known before the forward pass which layers train.
    fn visit_layer<V: ModuleVisitor>(&self, index: usize, visitor: &mut V);

    /// The loss, given the hidden state behind the last layer.
    fn head_loss(&self, h: Tensor<3>, batch: &Self::Batch, context: &Self::Context) -> Tensor<1>;

    /// The same with its backward pass: by default that of [`head_loss`](Self::head_loss) on Burn's
    /// tape. A head over a large vocabulary may do with less memory [by hand](HeadPass::by_hand).
    fn head_pass(&self, h: Tensor<3>, batch: &Self::Batch, context: &Self::Context) -> HeadPass {
        HeadPass::from(self.head_loss(h, batch, context))
    }

    /// Parameters that both [`embed`](Self::embed) and [`head_loss`](Self::head_loss) use, such as
    /// a tied embedding. With [`Pass::backward_with`] they are handed out once, with the sum of
    /// their gradients, at the end.
    fn tied(&self) -> Vec<ParamId> {
        Vec::new()
    }
}

/// Layer-wise recomputation: how a [`LayeredModel`] is run.
///
/// Memory: one hidden state for each segment of [`every`](Self::with_every) layers, and the
/// activations of one segment at a time. Time: one more forward pass of what lies above the lowest
/// layer that trains; with `every` above 1 the last segment is not run again. Gradients are those
/// of plain autodiff up to the order of sums.
///
/// # Example
///
/// ```
/// use lisa::recompute::Recompute;
///
/// // Keep every fourth hidden state, and replay dropout with this seed.
/// let plan = Recompute::new().with_every(4).with_dropout_seed(7);
/// assert_ne!(plan, Recompute::new());
/// // The least memory: one layer at a time, in the pieces that the model knows.
/// assert_ne!(plan.with_pieces(), plan);
/// ```
///
/// [`LayeredModel`] has a whole one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recompute {
    every: usize,
    pieces: bool,
    dropout_seed: Option<u64>,
}

impl Default for Recompute {
    fn default() -> Self {
        Self::new()
    }
}

impl Recompute {
    /// Keeps the input of every layer.
    #[must_use]
    pub fn new() -> Self {
        Self {
            every: 1,
            pieces: false,
            dropout_seed: None,
        }
    }

    /// Keeps the input of every `n`-th layer, and runs `n` layers at a time: more memory, and the
    /// last `n` layers need not run twice. With as many as the model has it is plain autodiff.
    ///
    /// Zero counts as 1.
    #[must_use]
    pub fn with_every(mut self, n: usize) -> Self {
        self.every = n.max(1);
        self
    }

    /// Goes back through one layer at a time, also where the inputs of only some layers are kept, and
    /// through a layer that trains in the [pieces](LayeredModel::pieces) that its model knows: the least
    /// memory.
    ///
    /// Memory: of `n` layers' hidden states `n / every + every`, so `every` near the root of `n` keeps the
    /// fewest, the activations of one piece, and with [`Pass::backward_with`] the gradients of one piece.
    /// Time: a segment's layers run once more than without, to find their inputs.
    #[must_use]
    pub fn with_pieces(mut self) -> Self {
        self.pieces = true;
        self
    }

    /// Replays dropout: the device's random numbers are seeded before each segment, the same way
    /// both times. Give another seed for each step; needed only where a layer draws random numbers.
    #[must_use]
    pub fn with_dropout_seed(mut self, seed: u64) -> Self {
        self.dropout_seed = Some(seed);
        self
    }

    /// How many hidden states are held at a time on the way back through so many layers.
    pub(crate) fn states_kept(self, layers: usize) -> usize {
        let segments = layers.div_ceil(self.every);
        if self.pieces {
            // Those of a segment's layers, of a layer's pieces, and the gradient.
            segments + self.every.min(layers) + 1
        } else {
            segments + 1
        }
    }

    pub(crate) fn in_pieces(self) -> bool {
        self.pieces
    }

    /// How many layers are on the tape at a time.
    pub(crate) fn layers_at_a_time(self) -> usize {
        if self.pieces { 1 } else { self.every }
    }

    fn layers_of(self, segment: usize, layers: usize) -> std::ops::Range<usize> {
        let first = segment * self.every;
        first..(first + self.every).min(layers)
    }

    /// Runs the model forward.
    ///
    /// Segments whose parameters are frozen leave nothing on the tape; below the lowest that trains
    /// (where the embedding does not) not even their inputs are kept. State kept: in the [`Pass`].
    #[must_use]
    pub fn forward<M: LayeredModel>(self, model: &M, batch: &M::Batch) -> Pass<M> {
        let context = model.context(batch);
        let embedded = model.embed(batch, &context);
        let layers = model.num_layers();
        let segments = layers.div_ceil(self.every);
        // The last segment stays on the tape where that saves running it twice.
        let last = if self.every > 1 && !self.pieces {
            segments.saturating_sub(1)
        } else {
            segments
        };
        let mut trains_below = vec![embedded.is_tracked()];
        for segment in 0..segments {
            let below = trains_below[segment];
            let trains = |index| trains(model, index);
            trains_below.push(below || self.layers_of(segment, layers).any(trains));
        }
        let mut pass = Pass {
            plan: self,
            layers,
            trains_below,
            starts: Vec::new(),
            top: embedded.clone().detach(),
            head: None,
            embedded: embedded.is_tracked().then_some(embedded),
            context,
        };
        // Freezing a lazy parameter would freeze its clones as well.
        model.visit(&mut Initialise);
        // Nothing may go on the tape here: Burn frees one that is never run back only bit by bit.
        let still = model.clone().no_grad();
        for segment in 0..last {
            let start = pass.top.clone();
            pass.top = pass.run(&still, segment, start.clone());
            // Kept only if backward will come by here.
            let needed = pass.trains_below[segment + 1];
            pass.starts.push(needed.then_some(start));
        }
        drop(still);
        let below = pass.trains_below[last];
        if below {
            pass.top = pass.top.require_grad();
        }
        let mut h = pass.top.clone();
        if last < segments {
            h = pass.run(model, last, h);
        }
        pass.head = Some(model.head_pass(h, batch, &pass.context));
        pass
    }
}

/// A forward pass that waits for its backward pass.
///
/// It holds the kept hidden states and the tape of the head.
///
/// # Example
///
/// ```
/// # use burn::module::{Module, ModuleVisitor};
/// # use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
/// # use burn::optim::{ModuleOptimizer, SgdConfig};
/// # use burn::tensor::{Device, Int, Tensor};
/// # use lisa::recompute::{LayeredModel, Recompute};
/// # #[derive(Module, Debug)]
/// # struct Model { embed: Embedding, layers: Vec<Linear>, head: Linear }
/// # impl LayeredModel for Model {
/// #     type Batch = Tensor<2, Int>;
/// #     type Context = ();
/// #     fn context(&self, _: &Self::Batch) {}
/// #     fn num_layers(&self) -> usize {
/// #         self.layers.len()
/// #     }
/// #     fn embed(&self, batch: &Self::Batch, (): &()) -> Tensor<3> {
/// #         self.embed.forward(batch.clone())
/// #     }
/// #     fn layer(&self, index: usize, h: Tensor<3>, (): &()) -> Tensor<3> {
/// #         h.clone() + self.layers[index].forward(h).tanh()
/// #     }
/// #     fn visit_layer<V: ModuleVisitor>(&self, index: usize, visitor: &mut V) {
/// #         self.layers[index].visit(visitor);
/// #     }
/// #     fn head_loss(&self, h: Tensor<3>, _: &Self::Batch, (): &()) -> Tensor<1> {
/// #         self.head.forward(h).square().mean()
/// #     }
/// # }
/// # let device = Device::flex().autodiff();
/// # let linear = || LinearConfig::new(4, 4).init(&device);
/// # let model = Model {
/// #     embed: EmbeddingConfig::new(8, 4).init(&device),
/// #     layers: (0..3).map(|_| linear()).collect(),
/// #     head: linear(),
/// # };
/// # let batch = Tensor::<2, Int>::from_data([[1, 2, 3]], &device);
/// # let mut optimizer = ModuleOptimizer::from(SgdConfig::new().build());
/// let whole = Recompute::new().forward(&model, &batch).loss();
/// // Half of it, as one of two batches that are accumulated has it.
/// let pass = Recompute::new().forward(&model, &batch).scale(0.5);
/// assert_eq!(pass.loss().into_data(), (whole * 0.5).into_data());
/// // Steps part by part: the head, the layers from the last to the first, the embedding.
/// let mut parts = Vec::new();
/// let _model = pass.backward_with(model, |model, grads| {
///     parts.push(grads.len());
///     optimizer.step(0.1, model, grads)
/// })?;
/// assert_eq!(parts, [2, 2, 2, 2, 1]);
/// # Ok::<(), lisa::LisaError>(())
/// ```
pub struct Pass<M: LayeredModel> {
    plan: Recompute,
    layers: usize,
    /// By segment: whether anything before it trains.
    trains_below: Vec<bool>,
    /// By segment: its input, where backward needs it.
    starts: Vec<Option<Tensor<3>>>,
    /// The input of what is still on the tape.
    top: Tensor<3>,
    head: Option<HeadPass>,
    embedded: Option<Tensor<3>>,
    context: M::Context,
}

impl<M: LayeredModel> std::fmt::Debug for Pass<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pass")
            .field("plan", &self.plan)
            .field("layers", &self.layers)
            .finish_non_exhaustive()
    }
}

impl<M: LayeredModel> Pass<M> {
    /// The loss, without its tape.
    #[must_use]
    pub fn loss(&self) -> Tensor<1> {
        match &self.head {
            Some(head) => head.loss(),
            None => Tensor::zeros([1], &self.top.device()),
        }
    }

    /// Multiplies the loss, as accumulation over several batches needs.
    #[must_use]
    pub fn scale(mut self, factor: f64) -> Self {
        if let Some(head) = &mut self.head {
            head.scale(factor);
        }
        self
    }

    /// Gradients of all parameters that train, to be accumulated, clipped and stepped as usual.
    ///
    /// `model` must be the one of the forward pass. Where nothing trains there are none. Memory:
    /// all gradients live at the end; [`backward_with`](Self::backward_with) hands them out layer
    /// by layer.
    #[must_use]
    pub fn backward(self, model: &M) -> GradientsParams {
        let mut all = GradientsParams::new();
        let model = self.run_back(model.clone(), |model, mut grads| {
            add(&model, &mut all, &mut grads);
            model
        });
        drop(model);
        all
    }

    /// Hands the gradients of the head, of each segment and of the embedding to `update` as soon as
    /// they are there, so that those of one part live at a time.
    ///
    /// `update` gets the model and some gradients and gives the model back, stepped or not. It is
    /// not called for parts that are frozen. Accumulation over batches and a norm over all
    /// gradients need [`backward`](Self::backward).
    ///
    /// # Errors
    ///
    /// A parameter that two parts use and [`LayeredModel::tied`] does not name: it would be stepped
    /// twice. It is a mistake in the implementation of the trait. Some parameters of the model that
    /// the error gives back may have been updated.
    pub fn backward_with(
        self,
        model: M,
        mut update: impl FnMut(M, GradientsParams) -> M,
    ) -> Result<M, StepError<M>> {
        let tied = model.tied();
        let mut held = GradientsParams::new();
        let mut seen = HashSet::new();
        let mut twice = None;
        let model = self.run_back(model, |model, grads| {
            let mut sort = Sort {
                grads,
                tied: &tied,
                held: &mut held,
                seen: &mut seen,
                twice: &mut twice,
                names: Vec::new(),
            };
            model.visit(&mut sort);
            let grads = sort.grads;
            if grads.is_empty() || twice.is_some() {
                model
            } else {
                update(model, grads)
            }
        });
        if let Some(path) = twice {
            let error = LisaError::new(
                ErrorKind::Layers,
                format!(
                    "`{path}` got gradients from two parts of the model, so some parameters of it \
                     may have been updated and others not"
                ),
            )
            .with_help("name it in LayeredModel::tied, or step after Pass::backward");
            return Err(StepError::new(model, error, true));
        }
        Ok(if held.is_empty() {
            model
        } else {
            update(model, held)
        })
    }

    /// The layers of a segment.
    fn run(&self, model: &M, segment: usize, h: Tensor<3>) -> Tensor<3> {
        let layers = self.plan.layers_of(segment, self.layers);
        if self.plan.pieces {
            let pieces = 0..model.pieces();
            return layers.fold(h, |h, index| {
                self.run_pieces(model, index, pieces.clone(), h, &mut Cuts::none())
            });
        }
        self.seed(segment, &h);
        layers.fold(h, |h, index| model.layer(index, h, &self.context))
    }

    /// Begins the random numbers of a stretch of layers anew.
    fn seed(&self, stretch: usize, h: &Tensor<3>) {
        if let Some(seed) = self.plan.dropout_seed {
            let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            h.device().seed(seed.wrapping_add(stretch as u64));
        }
    }

    fn run_back(mut self, mut model: M, mut take: impl FnMut(M, GradientsParams) -> M) -> M {
        let head = self.head.take();
        let Some((mut upstream, found)) = head.and_then(|head| head.backward(&self.top, &model))
        else {
            return model;
        };
        if !found.is_empty() {
            model = take(model, found);
        }
        while let Some(start) = self.starts.pop() {
            let segment = self.starts.len();
            // Without one of them nothing here or below trains.
            let (Some(start), Some(gradient)) = (start, upstream.take()) else {
                return model;
            };
            (model, upstream) = if self.plan.pieces {
                self.back_in_pieces(model, segment, (start, gradient), &mut take)
            } else {
                let run = |model: &M, start, _: &mut Cuts| self.run(model, segment, start);
                let below = self.trains_below[segment];
                go_back(model, (start, below), gradient, run, &mut take)
            };
        }
        if let (Some(embedded), Some(gradient)) = (self.embedded.take(), upstream) {
            let grads = (embedded * gradient).sum().backward();
            model = hand_over(model, grads, &mut take);
        }
        model
    }
}

struct Initialise;

impl ModuleVisitor for Initialise {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        drop(param.val());
    }
}

/// Whether a layer has a parameter that trains.
fn trains<M: LayeredModel>(model: &M, index: usize) -> bool {
    struct Trains(bool);
    impl ModuleVisitor for Trains {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val();
            self.0 |= tensor.dtype().is_float() && tensor.is_require_grad();
        }
    }
    let mut trains = Trains(false);
    model.visit_layer(index, &mut trains);
    trains.0
}

/// Takes a part's gradients off the tape and hands them over, if there are any.
fn hand_over<M: Module>(
    model: M,
    mut grads: Gradients,
    take: &mut impl FnMut(M, GradientsParams) -> M,
) -> M {
    let found = GradientsParams::from_module(&mut grads, &model);
    drop(grads);
    if found.is_empty() {
        model
    } else {
        take(model, found)
    }
}

/// Adds gradients of a backward pass to those that are there.
fn add_all<M: Module>(model: &M, all: &mut GradientsParams, grads: &mut Gradients) {
    let mut found = GradientsParams::from_module(grads, model);
    if all.is_empty() {
        *all = found;
    } else {
        add(model, all, &mut found);
    }
}

/// Adds gradients to those that are there.
fn add<M: Module>(model: &M, all: &mut GradientsParams, grads: &mut GradientsParams) {
    struct Add<'a>(&'a mut GradientsParams, &'a mut GradientsParams);
    impl ModuleVisitor for Add<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.1.remove::<D>(param.id) {
                add_one(self.0, param.id, grad);
            }
        }
    }
    model.visit(&mut Add(all, grads));
}

fn add_one<const D: usize>(all: &mut GradientsParams, id: ParamId, grad: Tensor<D>) {
    let sum = match all.remove::<D>(id) {
        Some(before) => before + grad,
        None => grad,
    };
    all.register(id, sum);
}

/// Takes tied parameters' gradients out, and looks for those that came before.
struct Sort<'a> {
    grads: GradientsParams,
    tied: &'a [ParamId],
    held: &'a mut GradientsParams,
    seen: &'a mut HashSet<ParamId>,
    twice: &'a mut Option<String>,
    names: Vec<String>,
}

impl ModuleVisitor for Sort<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.names.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.names.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.grads.get::<D>(param.id).is_none() {
            return;
        }
        if self.tied.contains(&param.id) {
            if let Some(grad) = self.grads.remove::<D>(param.id) {
                add_one(self.held, param.id, grad);
            }
        } else if !self.seen.insert(param.id) {
            *self.twice = Some(self.names.join("."));
        }
    }
}

mod head;
mod pieces;
#[cfg(test)]
mod pieces_tests;
#[cfg(test)]
mod tests;
