//! Layer by layer and in segments: gradients, where the backward pass stops, tied parameters, dropout.

use std::sync::{Arc, Mutex};

use burn::module::{Module, ModuleVisitor, ParamId};
use burn::nn::{Dropout, DropoutConfig, Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};

use super::{Values, handed_over, only, values};
use crate::LayerMap;
use crate::recompute::{LayeredModel, Recompute};

#[derive(Module, Debug)]
struct Layer {
    a: Linear,
    dropout: Dropout,
}

#[derive(Module, Debug)]
struct Net {
    embed: Embedding,
    layers: Vec<Layer>,
    head: Option<Linear>,
    /// Whether `LayeredModel::tied` names the embedding that is the head too.
    names_tied: bool,
    /// How often each layer ran.
    #[module(skip)]
    runs: Arc<Mutex<Vec<usize>>>,
}

const WIDTH: usize = 6;

fn net(dropout: f64, tied: bool) -> Net {
    let device = Device::flex().autodiff();
    device.seed(7);
    let linear = || LinearConfig::new(WIDTH, WIDTH).init(&device);
    let net = Net {
        embed: EmbeddingConfig::new(10, WIDTH).init(&device),
        layers: (0..5)
            .map(|_| Layer {
                a: linear(),
                dropout: DropoutConfig::new(dropout).init(),
            })
            .collect(),
        head: (!tied).then(linear),
        names_tied: true,
        runs: Arc::new(Mutex::new(vec![0; 5])),
    };
    // Initializes the parameters from this seed.
    LayerMap::find(&net).unwrap();
    net
}

impl LayeredModel for Net {
    type Batch = Tensor<2, Int>;
    type Context = ();

    fn context(&self, _: &Self::Batch) {}

    fn num_layers(&self) -> usize {
        self.layers.len()
    }

    fn embed(&self, batch: &Self::Batch, (): &()) -> Tensor<3> {
        self.embed.forward(batch.clone())
    }

    fn layer(&self, index: usize, h: Tensor<3>, (): &()) -> Tensor<3> {
        self.runs.lock().unwrap()[index] += 1;
        let layer = &self.layers[index];
        h.clone() + layer.dropout.forward(layer.a.forward(h).tanh())
    }

    fn visit_layer<V: ModuleVisitor>(&self, index: usize, visitor: &mut V) {
        self.layers[index].visit(visitor);
    }

    fn head_loss(&self, h: Tensor<3>, _: &Self::Batch, (): &()) -> Tensor<1> {
        let out = match &self.head {
            Some(head) => head.forward(h),
            None => h.matmul(self.embed.weight.val().transpose().unsqueeze()),
        };
        out.square().mean()
    }

    fn tied(&self) -> Vec<ParamId> {
        if self.head.is_none() && self.names_tied {
            vec![self.embed.weight.id]
        } else {
            Vec::new()
        }
    }
}

impl Net {
    /// The whole forward pass on one graph.
    fn plain(&self, batch: &Tensor<2, Int>) -> Tensor<1> {
        let start = self.embed(batch, &());
        let h = (0..self.layers.len()).fold(start, |h, i| self.layer(i, h, &()));
        self.head_loss(h, batch, &())
    }
}

fn batch() -> Tensor<2, Int> {
    Tensor::from_data([[1, 2, 3, 4], [5, 6, 7, 1]], &Device::flex().autodiff())
}

/// Whether the gradients are of the same parameters and equal to 1e-6 of the largest.
fn assert_equal(found: &Values, expected: &Values, case: &str) {
    assert!(found.keys().eq(expected.keys()), "{case}");
    for (path, expected) in expected {
        let largest = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
        for (a, b) in found[path].iter().zip(expected) {
            assert!((a - b).abs() <= 1e-6 * largest, "{case}, {path}: {a} {b}");
        }
    }
}

/// What is trainable in a LISA run.
const LISA: [&str; 4] = ["embed", "layers.1", "layers.3", "head"];
const MIDDLE: [&str; 2] = ["layers.1", "layers.3"];

#[test]
fn gradients_are_those_of_plain_autodiff() {
    let cases: [&[&str]; 5] = [&[""], &LISA, &MIDDLE, &["head.weight"], &["embed"]];
    for names in cases {
        for every in [1, 2, 3, 5, 9] {
            let net = only(net(0.0, false), names);
            let loss = net.plain(&batch());
            let value = loss.to_data();
            let expected = GradientsParams::from_grads(loss.backward(), &net);
            let plan = Recompute::new().with_every(every);
            for plan in [plan, plan.with_sublayers()] {
                let case = format!("{names:?}, {plan:?}");
                let pass = plan.forward(&net, &batch());
                assert_eq!(pass.loss().into_data(), value, "{case}");
                let found = pass.backward(&net);
                assert_equal(&values(&net, &found), &values(&net, &expected), &case);
            }
        }
    }
}

#[test]
fn a_tied_embedding_gets_the_sum_and_is_handed_over_once() {
    let net = net(0.0, true);
    let expected = GradientsParams::from_grads(net.plain(&batch()).backward(), &net);
    let expected = values(&net, &expected);
    let found = Recompute::new().forward(&net, &batch()).backward(&net);
    assert_equal(&values(&net, &found), &expected, "at once");

    let pass = Recompute::new().forward(&net, &batch());
    let (handed, _) = handed_over(pass, net.clone());
    assert_equal(&handed, &expected, "as they come");

    let mut unnamed = net;
    unnamed.names_tied = false;
    let pass = Recompute::new().forward(&unnamed, &batch());
    let error = pass.backward_with(unnamed, |net, _| net).unwrap_err();
    assert!(error.to_string().contains("embed.weight"), "{error}");
    assert!(
        error
            .error()
            .help()
            .is_some_and(|help| help.contains("tied"))
    );
}

#[test]
fn gradients_of_one_segment_are_held_at_a_time_from_the_head_down() {
    let net = only(net(0.0, false), &LISA);
    let pass = Recompute::new().forward(&net, &batch());
    let (_, order) = handed_over(pass, net);
    let linear = |name: &str| vec![format!("{name}.bias"), format!("{name}.weight")];
    let expected = [
        linear("head"),
        linear("layers.3.a"),
        linear("layers.1.a"),
        vec!["embed.weight".to_string()],
    ];
    assert_eq!(order, expected);
}

#[test]
fn the_backward_pass_stops_at_the_lowest_trainable_layer() {
    let cases: [(&str, &[&str], usize, [usize; 5]); 5] = [
        ("embedding trainable", &LISA, 1, [2, 2, 2, 2, 2]),
        ("layers 1 and 3 trainable", &MIDDLE, 1, [1, 2, 2, 2, 2]),
        ("only the head trainable", &["head"], 1, [1; 5]),
        ("two at a time, the last stays", &MIDDLE, 2, [2, 2, 2, 2, 1]),
        ("all at once", &LISA, 5, [1; 5]),
    ];
    for (case, names, every, expected) in cases {
        let net = only(net(0.0, false), names);
        let plan = Recompute::new().with_every(every);
        let _ = plan.forward(&net, &batch()).backward(&net);
        assert_eq!(*net.runs.lock().unwrap(), expected, "{case}");
    }
}

#[test]
fn dropout_is_replayed() {
    // The device's random numbers are one stream for the whole process: another test may draw from
    // it in between, but not every time.
    let plan = Recompute::new().with_dropout_seed(11);
    for plan in [plan, plan.with_every(2).with_sublayers()] {
        let replayed = (0..50).any(|_| dropout_matches(plan));
        assert!(
            replayed,
            "recomputed gradients are never those of one graph"
        );
    }
}

fn dropout_matches(plan: Recompute) -> bool {
    let net = net(0.5, false);
    let device = Device::flex().autodiff();
    // The same random numbers by hand, on one graph.
    let seed = |segment: u64| {
        device.seed(
            11u64
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .wrapping_add(segment),
        );
    };
    let mut h = net.embed(&batch(), &());
    for i in 0..5 {
        seed(i);
        h = net.layer(i as usize, h, &());
    }
    let loss = net.head_loss(h, &batch(), &());
    let expected = GradientsParams::from_grads(loss.backward(), &net);
    let pass = plan.forward(&net, &batch());
    let same_loss = pass.loss().into_data() == loss.into_data();
    let found = pass.backward(&net);
    let (found, expected) = (values(&net, &found), values(&net, &expected));
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-6);
    let mut pairs = expected.iter().map(|(path, b)| (found.get(path), b));
    let same = pairs.all(|(a, b)| a.is_some_and(|a| close(a, b)));
    same_loss && same && found.len() == expected.len()
}

#[test]
fn a_loss_that_is_scaled_scales_its_gradients() {
    let net = net(0.0, false);
    let once = Recompute::new().forward(&net, &batch()).backward(&net);
    let half = Recompute::new().forward(&net, &batch()).scale(0.5);
    let mut doubled = values(&net, &half.backward(&net));
    doubled.values_mut().flatten().for_each(|x| *x *= 2.0);
    assert_equal(&doubled, &values(&net, &once), "half");
}

#[test]
fn without_trainable_parameters_there_are_no_gradients_and_no_panic() {
    let net = only(net(0.0, false), &[]);
    let pass = Recompute::new().forward(&net, &batch());
    assert!(pass.backward(&net).is_empty());
}
