//! Layers of two sublayers, the second of which is cut: gradients, their order, and how often each runs.

use std::sync::{Arc, Mutex};

use burn::module::{Module, ModuleVisitor};
use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};

use super::{handed_over, only, values};
use crate::recompute::{Cuts, LayeredModel, Recompute};

const WIDTH: usize = 4;

#[derive(Module, Debug)]
struct Layer {
    attend: Linear,
    up: Linear,
    down: Linear,
}

#[derive(Module, Debug)]
struct Net {
    embed: Linear,
    layers: Vec<Layer>,
    head: Linear,
    /// How often each sublayer ran.
    #[module(skip)]
    runs: Arc<Mutex<Vec<[usize; 2]>>>,
}

const LAYERS: usize = 5;

impl LayeredModel for Net {
    type Batch = Tensor<3>;
    type Context = ();

    fn context(&self, _: &Tensor<3>) {}

    fn num_layers(&self) -> usize {
        LAYERS
    }

    fn embed(&self, batch: &Tensor<3>, (): &()) -> Tensor<3> {
        self.embed.forward(batch.clone())
    }

    fn layer(&self, index: usize, h: Tensor<3>, (): &()) -> Tensor<3> {
        let h = self.sublayer(index, 0, h, &(), &mut Cuts::none());
        self.sublayer(index, 1, h, &(), &mut Cuts::none())
    }

    fn sublayers(&self) -> usize {
        2
    }

    fn sublayer(
        &self,
        index: usize,
        sublayer: usize,
        h: Tensor<3>,
        (): &(),
        cuts: &mut Cuts,
    ) -> Tensor<3> {
        self.runs.lock().unwrap()[index][sublayer] += 1;
        let layer = &self.layers[index];
        if sublayer == 0 {
            return h.clone() + layer.attend.forward(h).tanh();
        }
        let inner = layer.up.forward(h.clone()).tanh();
        // Two cuts in a row, the second with a tensor that is not used after it.
        let [inner, h] = cuts.cut([inner, h]);
        let [inner, h, _unused] = cuts.cut([inner.clone(), h, inner.tanh()]);
        h + layer.down.forward(inner)
    }

    fn visit_layer<V: ModuleVisitor>(&self, index: usize, visitor: &mut V) {
        self.layers[index].visit(visitor);
    }

    fn head_loss(&self, h: Tensor<3>, _: &Tensor<3>, (): &()) -> Tensor<1> {
        self.head.forward(h).square().mean()
    }
}

impl Net {
    fn new() -> Self {
        let device = Device::flex().autodiff();
        device.seed(5);
        let linear = || {
            LinearConfig::new(WIDTH, WIDTH)
                .with_bias(false)
                .init(&device)
        };
        Self {
            embed: linear(),
            layers: (0..LAYERS)
                .map(|_| Layer {
                    attend: linear(),
                    up: linear(),
                    down: linear(),
                })
                .collect(),
            head: linear(),
            runs: Arc::new(Mutex::new(vec![[0; 2]; LAYERS])),
        }
    }

    fn plain(&self, batch: &Tensor<3>) -> Tensor<1> {
        let start = self.embed(batch, &());
        let h = (0..LAYERS).fold(start, |h, i| self.layer(i, h, &()));
        self.head_loss(h, batch, &())
    }

    fn runs(&self) -> Vec<[usize; 2]> {
        std::mem::replace(&mut self.runs.lock().unwrap(), vec![[0; 2]; LAYERS])
    }
}

fn batch() -> Tensor<3> {
    let device = Device::flex().autodiff();
    Tensor::<1>::from_data([0.3, -0.2, 0.7, 0.1, 0.5, -0.9, 0.4, -0.6], &device)
        .reshape([1, 2, WIDTH])
}

#[test]
fn by_sublayer_gradients_are_bit_identical_to_those_of_one_graph_and_handed_over_once() {
    let cases: [&[&str]; 5] = [
        &[""],
        &["embed", "layers.1", "layers.3", "head"],
        &["layers.1", "layers.3"],
        &["layers.2.down"],
        &["layers.2.attend", "layers.4.up"],
    ];
    for (names, every) in cases.into_iter().flat_map(|c| [1, 2, 5, 9].map(|n| (c, n))) {
        let net = only(Net::new(), names);
        let loss = net.plain(&batch());
        let expected = GradientsParams::from_grads(loss.backward(), &net);
        let expected = values(&net, &expected);
        let plan = Recompute::new().with_every(every).with_sublayers();
        let at_once = plan.forward(&net, &batch()).backward(&net);
        assert_eq!(values(&net, &at_once), expected, "{names:?}, {every}");

        let (handed, _) = handed_over(plan.forward(&net, &batch()), net);
        assert_eq!(handed, expected, "{names:?}, {every}, as they come");
    }
}

#[test]
fn gradients_of_one_sublayer_are_held_at_a_time() {
    let net = only(Net::new(), &["embed", "layers.1", "layers.3", "head"]);
    let plan = Recompute::new().with_every(2).with_sublayers();
    let (_, order) = handed_over(plan.forward(&net, &batch()), net);
    let expected = [
        "head.weight",
        "layers.3.down.weight",
        "layers.3.up.weight",
        "layers.3.attend.weight",
        "layers.1.down.weight",
        "layers.1.up.weight",
        "layers.1.attend.weight",
        "embed.weight",
    ];
    assert_eq!(order, expected.map(|path| vec![path.to_owned()]));
}

#[test]
fn only_what_is_needed_is_recomputed() {
    // The forward pass; for the inputs of layers, all but the last of a segment; for those of sublayers,
    // the first of each trainable layer; and the backward pass. Below layer 1 nothing is trainable.
    let net = only(Net::new(), &["layers.1", "layers.3"]);
    let _ = net.runs();
    let plan = Recompute::new().with_every(2).with_sublayers();
    let _ = plan.forward(&net, &batch()).backward(&net);
    assert_eq!(net.runs(), [[2, 2], [3, 2], [3, 3], [3, 2], [2, 2]]);
}
