use burn::tensor::{Device, TensorData};

use super::*;

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

/// The loss and the gradient of the logits, by each way to compute them.
fn all_ways(weights_of: impl Fn(&Device) -> Option<Tensor<1>>) -> Vec<(Vec<f32>, Vec<f32>)> {
    let device = Device::flex();
    let with_autodiff = device.clone().autodiff();
    let (loss, gradient) =
        loss_and_gradient(logits(&device), targets(&device), weights_of(&device));
    let mut ways = vec![(values(loss), values(gradient))];
    let (loss, gradients) = in_chunks(logits(&device), targets(&device), weights_of(&device), true);
    ways.push((values(loss), values(joined(gradients))));
    let tracked = logits(&with_autodiff).require_grad();
    let loss = cross_entropy(
        tracked.clone(),
        targets(&with_autodiff),
        weights_of(&with_autodiff),
    );
    let gradient = tracked.grad(&loss.clone().backward()).unwrap();
    ways.push((values(loss), values(gradient)));
    ways
}

#[test]
fn a_weighted_loss_and_its_gradient_are_those_of_torch() {
    for (loss, gradient) in all_ways(|device| Some(weights(WEIGHTS, device))) {
        close(&loss, &[LOSS]);
        close(&gradient, GRADIENT.as_flattened());
    }
    // Without autodiff there is no gradient to keep.
    let device = Device::flex();
    let loss = cross_entropy(
        logits(&device),
        targets(&device),
        Some(weights(WEIGHTS, &device)),
    );
    close(&values(loss), &[LOSS]);
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
        assert!(gradient.iter().all(|value| *value == 0.0), "{gradient:?}");
    }
}
