use std::cell::RefCell;

use burn::tensor::activation::{silu, softmax};
use burn::tensor::module::linear;
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};
use burn::tensor::{activation, module};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::autodiff::takes;
use super::linear::BLOCK;
use super::rows::{Out, Rows, exp, run};
use super::swiglu::SwiGlu;
use super::{
    attention, gelu, joint_attention, layer_norm, product, product_and_bias, rms_norm, rotate,
    swiglu,
};

fn device() -> Device {
    Device::flex().autodiff()
}

thread_local! {
    /// The same values in every run. The device's generator is shared by all tests.
    static RANDOM: RefCell<ChaCha8Rng> = RefCell::new(ChaCha8Rng::seed_from_u64(1));
}

/// Between -1 and 1.
fn uniform<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let count = shape.iter().product();
    let numbers = RANDOM.with_borrow_mut(|random| {
        let mut number = |_| random.next_u32() as f32 / 2f32.powi(31) - 1.0;
        (0..count).map(&mut number).collect()
    });
    Tensor::from_data(TensorData::new::<f32, _>(numbers, shape), &device())
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    uniform(shape).mul_scalar(2.5).detach().require_grad()
}

/// Checks that the outputs agree, and the gradients of the inputs of a weighted sum of the output.
fn agree<const D: usize, const I: usize, const N: usize>(
    inputs: [&Tensor<I>; N],
    found: impl Fn() -> Tensor<D>,
    expected: impl Fn() -> Tensor<D>,
) {
    let (a, b) = (found(), expected());
    assert_eq!(a.dims(), b.dims());
    close(&a, &b);
    let weight = uniform(a.dims());
    // An autodiff graph serves one backward pass.
    let a = (found() * weight.clone()).sum().backward();
    let b = (expected() * weight).sum().backward();
    for input in inputs {
        let (a, b) = (input.grad(&a), input.grad(&b));
        close(&a.unwrap(), &b.unwrap());
    }
}

fn close<const D: usize>(found: &Tensor<D>, expected: &Tensor<D>) {
    let size = expected.clone().abs().max().into_scalar::<f32>();
    let apart = (found.clone() - expected.clone()).abs().max();
    let apart = apart.into_scalar::<f32>();
    assert!(apart <= 2e-6 * size.max(1.0), "{apart} of {size}");
}

#[test]
fn the_exponential_is_right_to_two_units() {
    let mut worst: f64 = 0.0;
    for i in 0..400_000 {
        let x = -87.3 + i as f32 * (175.6 / 400_000.0);
        let expected = f64::from(x).exp();
        worst = worst.max((f64::from(exp(x)) / expected - 1.0).abs());
    }
    assert!(worst < 2.4e-7, "{worst}");
    assert_eq!(exp(0.0), 1.0);
    assert_eq!(exp(-1e30), 0.0);
    assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    assert!(exp(f32::NAN).is_nan());
}

#[test]
fn only_f32_on_flex_without_gradient_checkpointing_is_fused() {
    assert!(takes(&Device::flex(), DType::F32));
    assert!(takes(&device(), DType::F32));
    assert!(!takes(&device(), DType::BF16));
    assert!(!takes(&device().gradient_checkpointing(), DType::F32));
    let half = random([1, 2, 4]).cast(DType::F16);
    assert!(swiglu(&half, &half).is_none());
}

#[test]
fn swiglu_is_silu_times_up() {
    // Widths that are no multiple of the vectors; more rows than one thread computes.
    for shape in [[1, 1, 1], [2, 3, 37], [3, 100, 111]] {
        let inputs = [random(shape), random(shape)];
        let [gate, up] = &inputs;
        let steps = || silu(gate.clone()) * up.clone();
        agree(inputs.each_ref(), || swiglu(gate, up).unwrap(), steps);
    }
    // One of the inputs is not tracked.
    let (gate, up) = (random([1, 2, 3]), random([1, 2, 3]).detach());
    let steps = || silu(gate.clone()) * up.clone();
    agree([&gate], || swiglu(&gate, &up).unwrap(), steps);
}

#[test]
fn the_slope_of_silu_does_not_cancel() {
    let points: Vec<f32> = (-160..=160).map(|i| i as f32 / 8.0).collect();
    let slopes = |points: &[f32]| -> Vec<f32> {
        let shape = [1, 1, points.len()];
        let gate = Tensor::<3>::from_data(TensorData::new(points.to_vec(), shape), &device());
        let (gate, up) = (gate.require_grad(), Tensor::<3>::ones(shape, &device()));
        let grads = swiglu(&gate, &up).unwrap().sum().backward();
        gate.grad(&grads).unwrap().into_data().iter().collect()
    };
    // e^-x is not finite in f32 below -88.7.
    let [low, high] = slopes(&[-1000.0, 1000.0])[..] else {
        panic!("two slopes")
    };
    assert!(low.abs() < 1e-30 && high == 1.0, "{low} {high}");
    let found = slopes(&points);
    for (x, found) in points.into_iter().map(f64::from).zip(found) {
        let (open, rest) = (1.0 / (1.0 + (-x).exp()), 1.0 / (1.0 + x.exp()));
        let expected = open * (1.0 + x * rest);
        // Relative to both terms of the sum, which is 0 near -1.28.
        let apart = (f64::from(found) - expected).abs() / (open * (1.0 + x.abs() * rest));
        assert!(apart < 2.5e-7, "{x}: {found} {expected}");
    }
}

/// Checks values and gradients of the sum against PyTorch's, computed in f64.
fn is_torchs<const D: usize>(found: &Tensor<D>, expected: &[f64], within: f64) {
    let found: Vec<f32> = found.clone().into_data().iter().collect();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let apart = (f64::from(*found) - expected).abs();
        assert!(apart <= within, "{found} {expected}");
    }
}

#[test]
fn gelu_is_burns_and_pytorchs() {
    for shape in [[1, 1, 1], [2, 3, 37], [3, 100, 111]] {
        let x = random(shape);
        let exact = || activation::gelu(x.clone());
        agree([&x], || gelu::<false>(&x).unwrap(), exact);
        let tanh = || activation::gelu_approximate(x.clone());
        agree([&x], || gelu::<true>(&x).unwrap(), tanh);
    }
    // torch.nn.functional.gelu and its gradient, `tests/fixtures/make_activations.py`.
    let points = [[[-6.0, -3.0, -1.0, -0.25, 0.0, 0.5, 2.0, 4.5]]];
    let x = Tensor::<3>::from_data(points, &device()).require_grad();
    let check = |found: Tensor<3>, values: [f64; 8], slopes: [f64; 8]| {
        is_torchs(&found, &values, 3e-7);
        is_torchs(&x.grad(&found.sum().backward()).unwrap(), &slopes, 3e-7);
    };
    check(
        gelu::<false>(&x).unwrap(),
        [
            -5.919_525_869e-9,
            -0.004_049_694_095,
            -0.158_655_253_931,
            -0.100_323_418_579,
            0.0,
            0.345_731_230_637,
            1.954_499_736_104,
            4.499_984_710_471,
        ],
        [
            -3.546_870_945e-8,
            -0.011_945_647_204,
            -0.083_315_470_588,
            0.304_626_645_116,
            0.5,
            0.867_495_124_656,
            1.085_231_801_078,
            1.000_068_529_162,
        ],
    );
    check(
        gelu::<true>(&x).unwrap(),
        [
            -8.439_648_980e-11,
            -0.003_637_392_082,
            -0.158_808_009_392,
            -0.100_324_649_298,
            0.0,
            0.345_714_009_825,
            1.954_597_694_088,
            4.499_994_863_263,
        ],
        [
            -7.709_976_013e-10,
            -0.011_584_166_631,
            -0.082_964_083_846,
            0.304_645_904_849,
            0.5,
            0.867_369_903_535,
            1.086_099_256_624,
            1.000_029_322_270,
        ],
    );
    // Far from 0 both are x, or 0, without a NaN.
    let far = Tensor::<3>::from_data([[[-1e4, -30.0, 30.0, 1e4]]], &device());
    for found in [gelu::<false>(&far), gelu::<true>(&far)] {
        is_torchs(&found.unwrap(), &[0.0, 0.0, 30.0, 1e4], 1e-30);
    }
}

#[test]
fn the_layer_norm_is_that_of_its_steps_and_pytorchs() {
    // The last has three blocks.
    for (rows, width) in [(9, 1), (9, 37), (29, 768)] {
        // The mean is large compared with the deviation.
        let x = random([2, rows, width]).add_scalar(3.0);
        let x = x.detach().require_grad();
        let (gamma, beta) = (random([width]), random([width]));
        let found = || layer_norm(&x, &gamma, Some(&beta), 1e-5).unwrap();
        let expected = || {
            let apart = x.clone() - x.clone().mean_dim(2);
            let scale = (apart.clone().square().mean_dim(2) + 1e-5).sqrt().recip();
            apart * scale * gamma.clone().unsqueeze() + beta.clone().unsqueeze()
        };
        agree([&x], found, expected);
        agree([&gamma, &beta], found, expected);
        let burns = |x: &Tensor<3>, gamma: &Tensor<1>, beta: &Tensor<1>| {
            module::layer_norm(x.clone(), gamma.clone(), Some(beta.clone()), 1e-5)
        };
        agree([&x], found, || burns(&x, &gamma, &beta));
        let [fixed, still] = [&gamma, &beta].map(|x| x.clone().detach());
        let found = || layer_norm(&x, &fixed, Some(&still), 1e-5).unwrap();
        agree([&x], found, || burns(&x, &fixed, &still));
        let found = || layer_norm(&x, &fixed, Some(&beta), 1e-5).unwrap();
        agree([&beta], found, || burns(&x, &fixed, &beta));
    }
    let ones = Tensor::<1>::ones([4], &device());
    assert!(layer_norm(&uniform([1, 1, 4]), &ones, None, 1e-5).is_none());

    // torch.nn.functional.layer_norm, `tests/fixtures/make_activations.py`; the second row is far from 0.
    let rows = [[1.0, -2.0, 0.5, 4.0], [100.5, 101.0, 99.0, 100.0]];
    let x = Tensor::<2>::from_data(rows, &device()).require_grad();
    let gamma = Tensor::<1>::from_data([1.0, 0.5, -2.0, 1.5], &device()).require_grad();
    let beta = Tensor::<1>::from_data([0.1, 0.2, 0.3, -0.4], &device()).require_grad();
    let weights = [[1.0, 2.0, -1.0, 0.5], [0.5, -1.0, 3.0, 1.0]];
    let weights = Tensor::<2>::from_data(weights, &device());
    let found = layer_norm(&x, &gamma, Some(&beta), 1e-5).unwrap();
    let values = [
        0.158_620_973_7,
        -0.474_141_197_7,
        0.651_725_842_3,
        1.798_286_514_2,
        0.607_087_916_6,
        0.791_602_569_4,
        3.342_527_499_8,
        -0.653_543_958_3,
    ];
    is_torchs(&found, &values, 1e-5);
    let grads = (found * weights).sum().backward();
    let of_x = [
        -0.084_204_705_8,
        -0.173_646_819_5,
        0.369_856_064_9,
        -0.112_004_539_6,
        0.734_096_884_1,
        -2.569_183_010_8,
        -2.202_290_652_4,
        4.037_376_779_0,
    ];
    is_torchs(&x.grad(&grads).unwrap(), &of_x, 1e-5);
    let of_gamma = [
        0.312_164_932_0,
        -3.879_769_929_6,
        -4.387_928_328_5,
        0.563_732_865_9,
    ];
    is_torchs(&gamma.grad(&grads).unwrap(), &of_gamma, 1e-5);
    is_torchs(&beta.grad(&grads).unwrap(), &[1.5, 1.0, 2.0, 1.5], 1e-6);
}

#[test]
fn a_bias_is_added_to_the_product_and_has_the_sum_of_the_gradients() {
    for (rows, from, to) in [(3, 5, 7), (300, 6, 131)] {
        let (x, weight) = (random([2, rows, from]), random([from, to]));
        let bias = random([to]);
        let found = || product_and_bias(&x, &weight, &bias).unwrap();
        let expected = || linear(x.clone(), weight.clone(), Some(bias.clone()));
        agree([&x], found, expected);
        agree([&weight], found, expected);
        agree([&bias], found, expected);
    }
    // A frozen layer: only x gets a gradient.
    let (x, weight, bias) = (random([1, 2, 3]), uniform([3, 4]), uniform([4]));
    let found = product_and_bias(&x, &weight, &bias).unwrap();
    let grads = found.sum().backward();
    assert!(x.grad(&grads).is_some() && bias.grad(&grads).is_none());
}

#[test]
fn a_product_with_a_weight_is_burns() {
    // One block of the weight's gradient; several, of which the last is short.
    for (from, to) in [(5, 7), (2 * BLOCK / 4096 + 3, 4096)] {
        let (x, weight) = (random([2, 3, from]), random([from, to]));
        let found = || product(&x, &weight).unwrap();
        let expected = || linear(x.clone(), weight.clone(), None);
        agree([&x], found, expected);
        agree([&weight], found, expected);
        // A transposed weight that is a slice.
        let transposed = || weight.clone().transpose().slice_dim(1, 1..from);
        let part = || product(&found(), &transposed()).unwrap();
        agree([&x], part, || linear(found(), transposed(), None));
        agree([&weight], part, || linear(found(), transposed(), None));
        // Untracked inputs get no gradient.
        for (x, weight) in [
            (x.clone(), weight.clone().detach()),
            (x.clone().detach(), weight),
        ] {
            let found = || product(&x, &weight).unwrap();
            let expected = || linear(x.clone(), weight.clone(), None);
            let (gradients, others) = (found().sum().backward(), expected().sum().backward());
            assert_eq!(x.grad(&gradients).is_some(), x.grad(&others).is_some());
            assert_eq!(
                weight.grad(&gradients).is_some(),
                weight.grad(&others).is_some()
            );
        }
    }
}

#[test]
fn the_norm_is_that_of_its_steps() {
    for (rows, width) in [(9, 1), (9, 37), (29, 768)] {
        let x = random([2, rows, width]);
        let gamma = random([width]);
        let found = |x: &Tensor<3>, gamma: &Tensor<1>| rms_norm(x, gamma, 1e-5).unwrap();
        let expected = |x: &Tensor<3>, gamma: &Tensor<1>| {
            let scale = (x.clone().square().mean_dim(2) + 1e-5).sqrt().recip();
            x.clone() * scale * gamma.clone().unsqueeze()
        };
        agree([&x], || found(&x, &gamma), || expected(&x, &gamma));
        agree([&gamma], || found(&x, &gamma), || expected(&x, &gamma));
        let fixed = gamma.clone().detach();
        agree([&x], || found(&x, &fixed), || expected(&x, &fixed));
        let x = x.detach();
        agree([&gamma], || found(&x, &gamma), || expected(&x, &gamma));
    }
}

#[test]
fn heads_rotate_as_in_burns_operations_with_any_strides() {
    let (batch, seq, heads, dim) = (2, 5, 3, 8);
    for rows in [1, batch] {
        let table = || uniform([rows, 1, seq, dim]);
        let (cos, part) = (table(), table());
        let half = part.slice_dim(3, 0..dim / 2);
        let sin = Tensor::cat(vec![half.clone().neg(), half], 3);
        let x = random([batch, seq, heads, dim]);
        let inputs = [x.clone()];
        for contiguous in [false, true] {
            let heads_of = || {
                let heads = x.clone().swap_dims(1, 2);
                if contiguous {
                    heads.mul_scalar(1.0)
                } else {
                    heads
                }
            };
            let found = || rotate(&heads_of(), &cos, &sin).unwrap();
            let expected = || {
                let heads = heads_of();
                let half = |at: usize| heads.clone().slice_dim(3, at..at + dim / 2);
                let swapped = Tensor::cat(vec![half(dim / 2), half(0)], 3);
                heads * cos.clone() + swapped * sin.clone()
            };
            agree(inputs.each_ref(), found, expected);
        }
    }
}

#[test]
fn attention_is_that_of_its_steps() {
    // Fewer key heads than heads; one block, several, a short last one; keys from before.
    for (kv_heads, seq, past) in [(4, 7, 0), (2, 256, 0), (2, 300, 0), (1, 130, 3)] {
        let (batch, heads, dim, keys) = (2, 4, 8, past + seq);
        let rows = |heads, rows| random([batch, rows, heads, dim]);
        let inputs = [rows(heads, seq), rows(kv_heads, keys), rows(kv_heads, keys)];
        let parts = || inputs.each_ref().map(|x| x.clone().swap_dims(1, 2));
        let groups = heads / kv_heads;
        let causal = Tensor::<2, Bool>::tril_mask([seq, keys], past as i64, &device());
        let causal: Tensor<4, Bool> = causal.reshape([1, 1, seq, keys]);
        // Of the second row of the batch, one key is hidden from all but itself.
        let hidden = Tensor::<1, Int>::arange(0..keys as i64, &device()).equal_scalar(1);
        let hidden = hidden.reshape([1, 1, 1, keys]).expand([1, 1, seq, keys]);
        let diagonal = Tensor::<2, Bool>::diag_mask([seq, keys], past as i64, &device());
        let hidden = hidden.bool_and(diagonal.reshape([1, 1, seq, keys]));
        let hidden = hidden.bool_or(causal.clone());
        let causal = Tensor::cat(vec![causal, hidden], 0);
        let found = || {
            let [q, k, v] = parts();
            attention(&q, &k, &v, Some(&causal), 0.3).unwrap()
        };
        let shared = |x: Tensor<4>| {
            let x: Tensor<5> = x.reshape([batch, kv_heads, 1, keys, dim]);
            let x = x.repeat_dim(2, groups);
            x.reshape([batch, heads, keys, dim])
        };
        let expected = || {
            let [q, k, v] = parts();
            let scores = q.matmul(shared(k).transpose()) * 0.3;
            let causal = causal.clone().repeat_dim(1, heads);
            let scores = scores.mask_fill(causal, f32::NEG_INFINITY);
            softmax(scores, 3).matmul(shared(v))
        };
        agree(inputs.each_ref(), found, expected);
    }
}

#[test]
fn attention_of_joint_heads_is_that_of_its_parts() {
    // Kept weights; weights that are computed again; keys of several heads.
    for (heads, kv_heads, seq) in [(4, 4, 9), (4, 2, 300)] {
        let (batch, dim) = (2, 8);
        let x = random([batch, seq, (heads + 2 * kv_heads) * dim]);
        let mask = Tensor::<2, Bool>::tril_mask([seq, seq], 0, &device());
        let mask: Tensor<4, Bool> = mask.reshape([1, 1, seq, seq]);
        let part = |first: usize, count: usize| {
            let part = x.clone().narrow(2, first * dim, count * dim);
            part.reshape([batch, seq, count, dim]).swap_dims(1, 2)
        };
        let found = || joint_attention(&x, [heads, kv_heads], Some(&mask), 0.3).unwrap();
        let expected = || {
            let (q, k) = (part(0, heads), part(heads, kv_heads));
            let v = part(heads + kv_heads, kv_heads);
            attention(&q, &k, &v, Some(&mask), 0.3).unwrap()
        };
        agree([&x], found, expected);
    }
}

#[test]
fn a_row_with_every_key_masked_is_no_nan() {
    let x = random([1, 1, 2, 4]);
    let mask = Tensor::<4, Bool>::full([1, 1, 2, 2], true, &device());
    let found = attention(&x, &x, &x, Some(&mask), 0.5).unwrap();
    let sum = found.sum().into_scalar::<f32>();
    assert!(sum.is_finite(), "{sum}");
}

#[test]
fn results_depend_neither_on_vectors_nor_on_threads() {
    // More rows than one thread computes.
    let (rows, width) = (300, 131);
    let numbers = |by: usize| -> Vec<f32> {
        let wave = |i: usize| ((i * by % 1009) as f32 - 504.0) / 60.0;
        (0..rows * width).map(wave).collect()
    };
    let (gate, up) = (numbers(37), numbers(53));
    let kernel = SwiGlu {
        gate: &gate,
        up: &up,
    };
    let mut found = vec![0.0; rows * width];
    run(&kernel, Out::new(&mut found, width), Out::none());
    let mut row_by_row = vec![0.0; rows * width];
    for (i, row) in row_by_row.chunks_mut(width).enumerate() {
        kernel.row(i, row, &mut []);
    }
    assert_eq!(found, row_by_row);
}
