use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, TensorData};

use super::*;
#[cfg(feature = "flex")]
use crate::model::ops::fused;

const ROWS: usize = 5;
const VOCAB: usize = 6;

fn logits(device: &Device) -> Tensor<2> {
    let value = |i: usize| (((i / VOCAB * 7 + i % VOCAB * 5) % 11) as f32 - 5.0) / 4.0;
    let values: Vec<f32> = (0..ROWS * VOCAB).map(value).collect();
    Tensor::from_data(TensorData::new(values, [ROWS, VOCAB]), device)
}

fn targets(device: &Device) -> Tensor<1, Int> {
    Tensor::from_data([2, -100, 0, 5, 3], device)
}

fn weights(values: [f32; ROWS], device: &Device) -> Tensor<1> {
    Tensor::from_data(values, device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

// What tests/fixtures/make_weights.py prints.
const WEIGHTS: [f32; ROWS] = [1.0, 3.0, 0.25, 2.0, 0.5];
const LOSS: f32 = 2.179_162_5;
const GRADIENT: [[f32; VOCAB]; ROWS] = [
    [
        0.008_603_3,
        0.030_028_468,
        -0.161_857_02,
        0.023_386_193,
        0.081_625_85,
        0.018_213_186,
    ],
    [0.0; VOCAB],
    [
        -0.060_442_515,
        0.021_724_44,
        0.004_847_377,
        0.016_919_011,
        0.003_775_141,
        0.013_176_539,
    ],
    [
        0.182_800_49,
        0.040_788_308,
        0.142_365_16,
        0.031_765_968,
        0.110_874_1,
        -0.508_594,
    ],
    [
        0.017_912_136,
        0.003_996_738,
        0.013_949_986,
        -0.084_643_11,
        0.010_864_261,
        0.037_919_987,
    ],
];

#[track_caller]
fn close(found: &[f32], expected: &[f32]) {
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() <= 1e-6 * expected.abs().max(0.1),
            "{found} {expected}"
        );
    }
}

/// The matrix of `[VOCAB, VOCAB]` that changes nothing.
fn identity(device: &Device) -> Tensor<2> {
    Tensor::eye(VOCAB, device)
}

/// [`in_slices`] for one product, with both gradients.
fn one_in_slices(rows: Tensor<2>, weight: &HeadWeight, counted: &Counted, slice: usize) -> Found {
    let product = Product::new(rows, weight.clone());
    let (loss, mut gradients) = in_slices(&[(product, [true; 2])], counted, slice);
    (loss, gradients.remove(0))
}

/// The loss and the gradients of the hidden state and the weight, by each way to compute them.
fn ways(hidden: &Tensor<2>, weight: &HeadWeight, counted: &Counted) -> Vec<[Vec<f32>; 3]> {
    let both = [true, true];
    let of = |found: Found| {
        let (loss, gradients) = found;
        let [hidden, weight] = gradients.map(|gradient| values(gradient.unwrap()));
        [values(loss), hidden, weight]
    };
    let mut ways = vec![of(head_gradients(hidden.clone(), weight, counted, both))];
    for slice in [1, 2, 3, counted.len().max(1)] {
        let rows = counted.select(hidden.clone());
        let (loss, [of_rows, of_weight]) = one_in_slices(rows, weight, counted, slice);
        let of_hidden = of_rows.map(|rows| counted.scatter(rows));
        ways.push(of((loss, [of_hidden, of_weight])));
        #[cfg(feature = "flex")]
        ways.push(of(
            fused::in_slices(hidden, weight, counted, both, slice).unwrap()
        ));
    }
    let tracked = |x: &Tensor<2>| Tensor::from_inner(x.clone()).require_grad();
    for is_fused in [true, false] {
        let hidden = tracked(hidden);
        let stored = tracked(weight.stored());
        let weight = if weight.is_tied() {
            HeadWeight::Tied(stored.clone())
        } else {
            HeadWeight::Own(stored.clone())
        };
        let loss = if is_fused {
            head_loss(Product::new(hidden.clone(), weight), None, counted)
        } else {
            on_graph([Product::new(hidden.clone(), weight)], counted, 2)
        };
        // A gradient of the loss that is not 1.
        let grads = loss.clone().mul_scalar(3).backward();
        let gradient = |x: &Tensor<2>| values(x.grad(&grads).unwrap().div_scalar(3));
        ways.push([values(loss), gradient(&hidden), gradient(&stored)]);
    }
    ways
}

/// The loss and the gradient of the logits by each way.
fn all_ways(weights_of: impl Fn(&Device) -> Option<Tensor<1>>) -> Vec<(Vec<f32>, Vec<f32>)> {
    let device = Device::flex();
    let counted = Counted::of(&targets(&device), weights_of(&device).as_ref(), VOCAB);
    let logits = logits(&device);
    let expected = |gradient: &[f32], is_tied: bool| {
        // The gradient of the weight is `logits^T gradient`.
        let gradient = TensorData::new(gradient.to_vec(), [ROWS, VOCAB]);
        let gradient = Tensor::<2>::from_data(gradient, &device);
        let product = logits.clone().transpose().matmul(gradient);
        values(if is_tied {
            product.transpose()
        } else {
            product
        })
    };
    let mut all = Vec::new();
    for weight in [
        HeadWeight::Own(identity(&device)),
        HeadWeight::Tied(identity(&device)),
    ] {
        for [loss, of_hidden, of_weight] in ways(&logits, &weight, &counted) {
            close(&of_weight, &expected(&of_hidden, weight.is_tied()));
            all.push((loss, of_hidden));
        }
    }
    all
}

#[test]
fn a_weighted_loss_and_its_gradient_are_those_of_torch() {
    for (loss, gradient) in all_ways(|device| Some(weights(WEIGHTS, device))) {
        close(&loss, &[LOSS]);
        close(&gradient, GRADIENT.as_flattened());
    }
    // Without autodiff there is no gradient.
    let device = Device::flex();
    let counted = Counted::of(&targets(&device), Some(&weights(WEIGHTS, &device)), VOCAB);
    let weight = HeadWeight::Own(identity(&device));
    close(
        &values(head_loss(
            Product::new(logits(&device), weight.clone()),
            None,
            &counted,
        )),
        &[LOSS],
    );
    let (loss, gradients) = head_gradients(logits(&device), &weight, &counted, [false, false]);
    close(&values(loss), &[LOSS]);
    assert!(gradients.iter().all(Option::is_none));
}

#[test]
fn small_weights_are_as_good_as_large_ones() {
    for factor in [1e-3, 1e3] {
        let scaled = WEIGHTS.map(|weight| weight * factor);
        for (loss, gradient) in all_ways(|device| Some(weights(scaled, device))) {
            close(&loss, &[LOSS]);
            close(&gradient, GRADIENT.as_flattened());
        }
    }
}

#[test]
fn weights_of_1_are_no_weights_and_weights_of_0_are_no_loss() {
    let plain = all_ways(|_| None);
    let ones = all_ways(|device| Some(weights([1.0; ROWS], device)));
    for ((loss, gradient), (expected, expected_gradient)) in ones.iter().zip(&plain) {
        close(loss, expected);
        close(gradient, expected_gradient);
    }
    for (loss, gradient) in all_ways(|device| Some(weights([0.0; ROWS], device))) {
        assert_eq!(loss, [0.0]);
        assert_eq!(gradient, [0.0; ROWS * VOCAB]);
    }
}

#[test]
fn a_head_equals_the_loss_of_all_its_logits() {
    let device = Device::flex();
    let (rows, width, vocab) = (37, 11, 53);
    let wave = |step: usize, shape: [usize; 2]| -> Tensor<2> {
        let value = |i: usize| ((i * step % 101) as f32 - 50.0) / 25.0;
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(value).collect();
        Tensor::from_data(TensorData::new(values, shape), &device)
    };
    let (hidden, weight) = (wave(37, [rows, width]), wave(53, [width, vocab]));
    let targets: Vec<i64> = (0..rows as i64)
        .map(|row| {
            if row % 4 == 1 {
                -100
            } else {
                row * 7 % vocab as i64
            }
        })
        .collect();
    let targets = Tensor::<1, Int>::from_data(&targets[..], &device);
    let counted = Counted::of(&targets, None, vocab);

    let tracked = |x: &Tensor<2>| Tensor::from_inner(x.clone()).require_grad();
    let (h, w) = (tracked(&hidden), tracked(&weight));
    let logits = h.clone().matmul(w.clone());
    let kept = Tensor::from_inner(
        targets
            .clone()
            .mask_fill(targets.clone().equal_scalar(-100), 0),
    );
    let counts = Tensor::from_inner(targets.clone().not_equal_scalar(-100).float());
    let picked = log_softmax(logits, 1).gather(1, kept.reshape([rows, 1]));
    let loss = (picked.reshape([rows]) * counts.clone()).sum().neg() / counts.sum();
    let grads = loss.clone().backward();
    let expected = [
        values(loss),
        values(h.grad(&grads).unwrap()),
        values(w.grad(&grads).unwrap()),
    ];
    let transposed = values(w.grad(&grads).unwrap().transpose());
    for weight in [
        HeadWeight::Own(weight.clone()),
        HeadWeight::Tied(weight.clone().transpose().mul_scalar(1)),
    ] {
        for found in ways(&hidden, &weight, &counted) {
            close(&found[0], &expected[0]);
            close(&found[1], &expected[1]);
            let expected = if weight.is_tied() {
                &transposed
            } else {
                &expected[2]
            };
            close(&found[2], expected);
        }
    }
    // The public function, for a head of its own and for a tied head.
    let tied = tracked(&weight.clone().transpose().mul_scalar(1));
    for (weight, given) in [(w.clone(), w), (tied.clone().transpose(), tied)] {
        let h = tracked(&hidden);
        let targets = Tensor::from_inner(targets.clone());
        let loss = super::linear_cross_entropy(h.clone(), weight, targets);
        close(&values(loss.clone()), &expected[0]);
        let grads = loss.backward();
        close(&values(h.grad(&grads).unwrap()), &expected[1]);
        let is_tied = given.dims()[0] == vocab;
        let expected = if is_tied { &transposed } else { &expected[2] };
        close(&values(given.grad(&grads).unwrap()), expected);
    }
}

#[test]
fn logits_may_be_the_sum_of_two_products() {
    let device = Device::flex();
    let tracked = |step: usize, shape: [usize; 2]| {
        let value = |i: usize| ((i * step % 101) as f32 - 50.0) / 25.0;
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(value).collect();
        let x = Tensor::<2>::from_data(TensorData::new(values, shape), &device);
        Tensor::from_inner(x).require_grad()
    };
    let (hidden, weight) = (tracked(37, [ROWS, 7]), tracked(53, [7, VOCAB]));
    let (low, up) = (tracked(29, [ROWS, 2]), tracked(31, [2, VOCAB]));
    let counted = Counted::of(&targets(&device), None, VOCAB);
    let inputs = [&hidden, &weight, &low, &up];
    let all = |loss: Tensor<1>| {
        let grads = loss.clone().backward();
        let gradients = inputs.map(|x| values(x.grad(&grads).unwrap()));
        (values(loss), gradients.concat())
    };
    let product = |rows: &Tensor<2>, weight: &Tensor<2>| {
        Product::new(rows.clone(), HeadWeight::Own(weight.clone()))
    };
    let joint = product(
        &Tensor::cat(vec![hidden.clone(), low.clone()], 1),
        &Tensor::cat(vec![weight.clone(), up.clone()], 0),
    );
    let (expected, gradients) = all(head_loss(joint, None, &counted));
    for slice in [2, ROWS] {
        let both = [product(&hidden, &weight), product(&low, &up)];
        let (loss, found) = all(on_graph(both, &counted, slice));
        close(&loss, &expected);
        close(&found, &gradients);
    }
}

#[test]
fn rows_that_do_not_count_are_not_read() {
    let device = Device::flex();
    let weight = HeadWeight::Own(identity(&device));
    let mut with_nan: Vec<f32> = values(logits(&device));
    with_nan[VOCAB..2 * VOCAB].fill(f32::NAN);
    let hidden = Tensor::from_data(TensorData::new(with_nan, [ROWS, VOCAB]), &device);
    let counted = Counted::of(&targets(&device), None, VOCAB);
    let (given, expected) = (
        ways(&hidden, &weight, &counted),
        ways(&logits(&device), &weight, &counted),
    );
    assert_eq!(given, expected);
}

#[test]
fn half_precision_is_within_two_rounding_steps() {
    let device = Device::flex();
    let (rows, width, vocab) = (150, 32, 300);
    let wave = |step: usize, shape: [usize; 2], size: f32| -> Tensor<2> {
        let value = |i: usize| ((i * step % 1009) as f32 / 504.0 - 1.0) * size;
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(value).collect();
        Tensor::from_data(TensorData::new(values, shape), &device)
    };
    let hidden = wave(37, [rows, width], 1.0);
    let stored = wave(53, [vocab, width], 0.5);
    let targets: Vec<i64> = (0..rows as i64).map(|row| row * 7 % 300).collect();
    let counted = Counted::of(&Tensor::from_data(&targets[..], &device), None, vocab);
    for (dtype, step) in [(DType::BF16, 2f32.powi(-8)), (DType::F16, 2f32.powi(-11))] {
        let (hidden, stored) = (hidden.clone().cast(dtype), stored.clone().cast(dtype));
        let head = |stored: Tensor<2>, is_tied: bool| {
            if is_tied {
                HeadWeight::Tied(stored)
            } else {
                HeadWeight::Own(stored.transpose())
            }
        };
        for (slice, is_tied) in [8, 40, rows]
            .into_iter()
            .flat_map(|n| [(n, true), (n, false)])
        {
            // The same values in f32.
            let wide = head(stored.clone().cast(DType::F32), is_tied);
            let wide = one_in_slices(hidden.clone().cast(DType::F32), &wide, &counted, rows);
            let weight = head(stored.clone(), is_tied);
            let found = one_in_slices(hidden.clone(), &weight, &counted, slice);
            let apart = |found: Vec<f32>, expected: Vec<f32>| {
                let size = expected.iter().fold(0.0, |size: f32, x| size.max(x.abs()));
                for (found, expected) in found.iter().zip(&expected) {
                    let apart = (found - expected).abs();
                    assert!(apart <= 2.0 * step * size, "{dtype:?}: {apart} of {size}");
                }
            };
            apart(values(found.0), values(wide.0.clone()));
            for (found, wide) in found.1.into_iter().zip(&wide.1) {
                let found = found.unwrap();
                assert_eq!(found.dtype(), dtype);
                apart(values(found), values(wide.clone().unwrap()));
            }
        }
    }
}

/// The gradients of a head in f16 are those in f32, within four rounding steps of the largest
/// element.
#[track_caller]
fn f16_as_f32(hidden: &Tensor<2>, stored: &Tensor<2>, targets: &[i64]) {
    let device = Device::flex();
    let targets: Tensor<1, Int> = Tensor::from_data(targets, &device);
    let ways = |dtype: DType, is_tied: bool| -> Vec<[Vec<f32>; 2]> {
        let (hidden, stored) = (hidden.clone().cast(dtype), stored.clone().cast(dtype));
        let head = |weight: Tensor<2>| {
            if is_tied {
                HeadWeight::Tied(weight)
            } else {
                HeadWeight::Own(weight)
            }
        };
        let weight = head(stored.clone());
        let counted = Counted::of(&targets, None, weight.vocab());
        // Also in more slices than are summed in f16.
        let eighth = counted.len() / 8;
        let [x, w] = [&hidden, &stored].map(|x| Tensor::from_inner(x.clone()).require_grad());
        let product = Product::new(x.clone(), head(w.clone()));
        let grads = head_loss(product, None, &counted).backward();
        let all = [
            head_gradients(hidden.clone(), &weight, &counted, [true; 2]).1,
            one_in_slices(hidden, &weight, &counted, eighth).1,
            [x.grad(&grads), w.grad(&grads)],
        ];
        let way = |found: [Option<Tensor<2>>; 2]| found.map(|found| values(found.unwrap()));
        all.map(way).to_vec()
    };
    for is_tied in [true, false] {
        let pairs = ways(DType::F16, is_tied)
            .into_iter()
            .zip(ways(DType::F32, is_tied));
        for (found, expected) in pairs.flat_map(|(found, expected)| found.into_iter().zip(expected))
        {
            let size = expected.iter().fold(0.0, |size: f32, x| size.max(x.abs()));
            let most = 4.0 * (size * 2f32.powi(-11) + 2f32.powi(-24));
            for (found, expected) in found.iter().zip(&expected) {
                let apart = (found - expected).abs();
                assert!(apart <= most, "{found} instead of {expected}, of {size}");
            }
        }
    }
}

#[test]
fn a_small_share_of_each_row_is_not_0_in_f16() {
    // Every probability is 2^-13, and its share 2^-12: the product is below the smallest f16.
    let (rows, width, vocab) = (4096, 4, 8192);
    let device = Device::flex();
    let value = |i: usize| 1.0 + (i % 7) as f32 / 8.0;
    let hidden: Vec<f32> = (0..rows * width).map(value).collect();
    let hidden = Tensor::<2>::from_data(TensorData::new(hidden, [rows, width]), &device);
    let targets: Vec<i64> = (0..rows as i64).map(|row| row % 16).collect();
    let stored = Tensor::<2>::zeros([vocab, width], (&device, DType::F16));
    let counted = Counted::of(&Tensor::from_data(&targets[..], &device), None, vocab);
    let weight = HeadWeight::Tied(stored);
    let half = hidden.clone().cast(DType::F16);
    let [_, of_weight] = head_gradients(half, &weight, &counted, [true; 2]).1;
    let expected = hidden.mean().into_scalar::<f32>() / vocab as f32;
    // The row of a token that is no target.
    for found in &values(of_weight.unwrap())[100 * width..101 * width] {
        assert!((found / expected - 1.0).abs() < 0.01, "{found} {expected}");
    }
}

#[test]
fn the_gradients_of_a_head_in_f16_are_those_in_f32() {
    let device = Device::flex();
    let wave = |step: usize, shape: [usize; 2], size: f32| -> Tensor<2> {
        let value = |i: usize| ((i * step % 1009) as f32 / 504.0 - 1.0) * size;
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(value).collect();
        Tensor::<2>::from_data(TensorData::new(values, shape), &device)
            .cast(DType::F16)
            .cast(DType::F32)
    };
    let (rows, size) = (2048, 16);
    // A quarter of the tokens are targets, so that the gradients do not cancel.
    let targets: Vec<i64> = (0..rows as i64).map(|row| row * 7 % 4).collect();
    let stored = wave(53, [size, size], 2e-3);
    let hidden = wave(37, [rows, size], 0.5).add_scalar(1.0);
    f16_as_f32(&hidden.cast(DType::F16), &stored, &targets);
    // A sum over the rows, scaled by their number, would be infinite.
    let large = Tensor::full([rows, size], 100.0, &device);
    f16_as_f32(&large, &stored, &vec![3; rows]);
}

#[test]
#[should_panic(expected = "target 6 of position 1 is outside the vocabulary of 6")]
fn a_target_outside_the_vocabulary_is_refused() {
    let targets = Tensor::from_data([2, 6], &Device::flex());
    let _ = Counted::of(&targets, None, VOCAB);
}

#[test]
#[should_panic(expected = "expected [rows, hidden], [hidden, vocab], [rows]")]
fn a_weight_of_another_width_is_refused() {
    let device = Device::flex();
    let _ = super::linear_cross_entropy(
        Tensor::zeros([2, 3], &device),
        Tensor::zeros([4, 5], &device),
        Tensor::from_data([0, 1], &device),
    );
}
