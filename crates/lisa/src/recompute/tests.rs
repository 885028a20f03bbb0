//! Gradients against those of plain autodiff, where the backward pass stops, what is handed over,
//! dropout.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::nn::{Dropout, DropoutConfig, Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};

use super::*;
use crate::FreezeMask;

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
    };
    ids(&net);
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

/// All parameters in the order of the module tree; initialises them.
fn ids(net: &Net) -> Vec<ParamId> {
    struct Ids(Vec<ParamId>);
    impl ModuleVisitor for Ids {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let _ = param.val();
            self.0.push(param.id);
        }
    }
    let mut found = Ids(Vec::new());
    net.visit(&mut found);
    found.0
}

/// Values by parameter, in the order of the module tree; none where there is no gradient.
fn values(net: &Net, grads: &GradientsParams) -> Vec<Option<Vec<f32>>> {
    struct Values<'a>(&'a GradientsParams, Vec<Option<Vec<f32>>>);
    impl ModuleVisitor for Values<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let grad = self.0.get::<D>(param.id);
            self.1
                .push(grad.map(|grad| grad.into_data().iter::<f32>().collect()));
        }
    }
    let mut values = Values(grads, Vec::new());
    net.visit(&mut values);
    values.1
}

/// Whether the gradients are there for the same parameters and equal to 1e-6 of the largest.
fn assert_equal(found: &[Option<Vec<f32>>], expected: &[Option<Vec<f32>>], case: &str) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.is_some(), expected.is_some(), "{case}, parameter {i}");
        let (Some(found), Some(expected)) = (found, expected) else {
            continue;
        };
        let largest = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
        for (a, b) in found.iter().zip(expected) {
            assert!(
                (a - b).abs() <= 1e-6 * largest,
                "{case}, parameter {i}: {a} {b}"
            );
        }
    }
}

/// Freezes all but the parameters at these indices of the module tree.
fn only(net: Net, places: &[usize]) -> Net {
    let all = ids(&net);
    FreezeMask::new(all.clone()).change(net, places.iter().map(|&i| all[i]))
}

/// Embedding, layers 1 and 3, head: as in a LISA run.
const LISA: [usize; 7] = [0, 3, 4, 7, 8, 11, 12];
/// Layers 1 and 3 alone.
const MIDDLE: [usize; 4] = [3, 4, 7, 8];

#[test]
fn gradients_are_those_of_plain_autodiff() {
    let all: Vec<usize> = (0..13).collect();
    let cases: [(&str, &[usize]); 5] = [
        ("all", &all),
        ("lisa", &LISA),
        ("middle", &MIDDLE),
        ("head", &[11]),
        ("embedding", &[0]),
    ];
    for (case, places) in cases {
        for every in [1, 2, 3, 5, 9] {
            let net = only(net(0.0, false), places);
            let loss = net.plain(&batch());
            let value = loss.to_data();
            let expected = GradientsParams::from_grads(loss.backward(), &net);
            let plan = Recompute::new().with_every(every);
            for plan in [plan, plan.with_sublayers()] {
                let case = format!("{case}, {plan:?}");
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

    let mut handed: Vec<Option<Vec<f32>>> = vec![None; expected.len()];
    let pass = Recompute::new().forward(&net, &batch());
    let net = pass
        .backward_with(net, |net, grads| {
            for (all, one) in handed.iter_mut().zip(values(&net, &grads)) {
                assert!(all.is_none() || one.is_none(), "handed over twice");
                *all = all.take().or(one);
            }
            net
        })
        .unwrap();
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
    let mut order: Vec<Vec<usize>> = Vec::new();
    let pass = Recompute::new().forward(&net, &batch());
    let _net = pass
        .backward_with(net, |net, grads| {
            let there = values(&net, &grads);
            order.push((0..there.len()).filter(|&i| there[i].is_some()).collect());
            net
        })
        .unwrap();
    let expected: [Vec<usize>; 4] = [vec![11, 12], vec![7, 8], vec![3, 4], vec![0]];
    assert_eq!(order, expected);
}

/// Counts how often each layer runs.
#[derive(Module, Debug)]
struct Counting {
    net: Net,
    #[module(skip)]
    runs: std::sync::Arc<std::sync::Mutex<Vec<usize>>>,
}

impl LayeredModel for Counting {
    type Batch = Tensor<2, Int>;
    type Context = ();

    fn context(&self, _: &Self::Batch) {}

    fn num_layers(&self) -> usize {
        self.net.num_layers()
    }

    fn embed(&self, batch: &Self::Batch, (): &()) -> Tensor<3> {
        self.net.embed(batch, &())
    }

    fn layer(&self, index: usize, h: Tensor<3>, (): &()) -> Tensor<3> {
        self.runs.lock().unwrap()[index] += 1;
        self.net.layer(index, h, &())
    }

    fn visit_layer<V: ModuleVisitor>(&self, index: usize, visitor: &mut V) {
        self.net.visit_layer(index, visitor);
    }

    fn head_loss(&self, h: Tensor<3>, batch: &Self::Batch, (): &()) -> Tensor<1> {
        self.net.head_loss(h, batch, &())
    }
}

#[test]
fn the_backward_pass_stops_at_the_lowest_trainable_layer() {
    let cases: [(&str, &[usize], usize, [usize; 5]); 5] = [
        ("embedding trainable", &LISA, 1, [2, 2, 2, 2, 2]),
        ("layers 1 and 3 trainable", &MIDDLE, 1, [1, 2, 2, 2, 2]),
        ("only the head trainable", &[11], 1, [1; 5]),
        ("two at a time, the last stays", &MIDDLE, 2, [2, 2, 2, 2, 1]),
        ("all at once", &LISA, 5, [1; 5]),
    ];
    for (case, places, every, expected) in cases {
        let counting = Counting {
            net: only(net(0.0, false), places),
            runs: std::sync::Arc::new(std::sync::Mutex::new(vec![0; 5])),
        };
        let pass = Recompute::new()
            .with_every(every)
            .forward(&counting, &batch());
        let _ = pass.backward(&counting);
        assert_eq!(*counting.runs.lock().unwrap(), expected, "{case}");
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
    let mut pairs = values(&net, &found)
        .into_iter()
        .zip(values(&net, &expected));
    let close = |(a, b): (Option<Vec<f32>>, Option<Vec<f32>>)| match (a, b) {
        (Some(a), Some(b)) => a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-6),
        (a, b) => a == b,
    };
    same_loss && pairs.all(close)
}

#[test]
fn a_loss_that_is_scaled_scales_its_gradients() {
    let net = net(0.0, false);
    let once = Recompute::new().forward(&net, &batch()).backward(&net);
    let half = Recompute::new().forward(&net, &batch()).scale(0.5);
    let half = values(&net, &half.backward(&net));
    let doubled: Vec<Option<Vec<f32>>> = half
        .into_iter()
        .map(|v| v.map(|v| v.into_iter().map(|x| 2.0 * x).collect()))
        .collect();
    assert_equal(&doubled, &values(&net, &once), "half");
}

#[test]
fn without_trainable_parameters_there_are_no_gradients_and_no_panic() {
    let net = only(net(0.0, false), &[]);
    let pass = Recompute::new().forward(&net, &batch());
    assert!(pass.backward(&net).is_empty());
}
