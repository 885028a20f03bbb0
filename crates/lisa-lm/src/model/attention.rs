//! Attention with fewer key heads than query heads, without copies of the keys.
//!
//! The query heads that share a key head are laid one below the other, `[batch, key heads, groups *
//! seq, head_dim]`, so that keys and values are used as they are. Where `fused.rs` does not take it, the
//! steps are written out, with the softmax in f32; one token after the other, which needs neither a mask nor
//! a tape, goes through Burn's own attention, which may be a fused kernel. (With a mask it may not: on
//! LibTorch Burn 0.22.1 takes a mask the wrong way round.) Tests: at the foot.

use burn::module::Module;
use burn::nn::{Linear, RmsNorm};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, DType, Tensor};

use crate::model::cache::LayerCache;
use crate::model::fused;
use crate::model::input::Context;
use crate::model::layers::{linear, normed, rms_norm};
use crate::model::llama::Shape;
use crate::model::lora::{LlamaLora, project};

/// What a masked score becomes: small enough that its exponential is 0 beside any other score, and
/// finite, so that a row with nothing to attend to is no NaN.
pub(crate) const MASKED: f32 = -1e30;

/// Weighs values by how queries match keys.
///
/// `q` is `[batch, heads, seq, dim]`; `k` and `v` are `[batch, key heads, keys, dim]`; the mask is
/// that of [`Context`]. Gives `[batch, heads, seq, dim]`.
pub(crate) fn attend(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: Option<&Tensor<4, Bool>>,
) -> Tensor<4> {
    if let Some(weighted) = fused::attention(&q, &k, &v, mask) {
        return weighted;
    }
    let [batch, heads, seq, dim] = q.dims();
    let kv_heads = k.dims()[1];
    let groups = heads / kv_heads;
    if mask.is_some() || q.device().is_autodiff() {
        let shape = [batch, kv_heads, groups, seq, dim];
        return attend_in_blocks(q.reshape(shape), &k, &v, mask).reshape([batch, heads, seq, dim]);
    }
    let q = q.reshape([batch, kv_heads, groups * seq, dim]);
    let weighted = attention(q, k, v, None, None, AttentionModuleOptions::default());
    weighted.reshape([batch, heads, seq, dim])
}

/// The most parts that the queries are cut into, and the fewest queries in a part: the backward pass
/// of a slice costs as much as the whole, so that short rows are better off in one.
const MOST_BLOCKS: usize = 4;
const BLOCK: usize = 128;

/// Queries in a block.
pub(crate) fn block_of(seq: usize) -> usize {
    seq.div_ceil((seq / BLOCK).clamp(1, MOST_BLOCKS)).max(1)
}

/// How many scores of a head are computed, and kept for backward, for a row of `seq` tokens in blocks of
/// so many queries.
pub(crate) fn scores_kept(seq: usize, block: usize) -> usize {
    let firsts = (0..seq).step_by(block);
    firsts
        .map(|first| {
            let end = (first + block).min(seq);
            (end - first) * end
        })
        .sum()
}

/// [`attend`] for `q` of `[batch, key heads, groups, seq, dim]`, with little kept for backward: the
/// exponentials alone are of the size of the scores, and of these only what lies at or before the
/// last query of a block is computed.
fn attend_in_blocks(
    q: Tensor<5>,
    k: &Tensor<4>,
    v: &Tensor<4>,
    mask: Option<&Tensor<4, Bool>>,
) -> Tensor<5> {
    let [batch, kv_heads, groups, seq, dim] = q.dims();
    let keys = k.dims()[2];
    let dtype = q.dtype();
    let q = q.mul_scalar((dim as f64).powf(-0.5));
    let block = block_of(seq);
    // A slice of everything would leave its own steps on the tape.
    let cut = |x: &Tensor<4>, seen: usize| {
        if seen == keys {
            x.clone()
        } else {
            x.clone().slice_dim(2, 0..seen)
        }
    };
    let mut parts = Vec::new();
    for first in (0..seq).step_by(block) {
        let end = (first + block).min(seq);
        // Queries are the last of the keys.
        let seen = keys - seq + end;
        let rows = groups * (end - first);
        let shape = [batch, kv_heads, rows, dim];
        let q = if block >= seq {
            q.clone().reshape(shape)
        } else {
            q.clone().slice_dim(3, first..end).reshape(shape)
        };
        let (k, v) = (cut(k, seen), cut(v, seen));
        let scores = q.matmul(k.transpose()).cast(DType::F32);
        let scores = match mask {
            Some(mask) => {
                let [rows_of, one, _, _] = mask.dims();
                let mask: Tensor<5, Bool> = mask.clone().reshape([rows_of, one, groups, seq, keys]);
                let mask = mask.slice_dim(3, first..end).slice_dim(4, 0..seen);
                let mask: Tensor<4, Bool> = mask.reshape([rows_of, one, rows, seen]);
                scores.mask_fill(mask.expand([batch, kv_heads, rows, seen]), MASKED)
            }
            None => scores,
        };
        // The exponentials are on no tape, which would compute them again in backward and keep them
        // twice: what is on it is worth nothing and has their gradient.
        let values = scores.clone().detach();
        let exps = (values.clone() - values.clone().max_dim(3)).exp();
        // Divided behind the product: the weights need not be kept a second time.
        let mut sums = exps.clone().sum_dim(3);
        let mut weighted = exps.clone().cast(dtype).matmul(v.clone());
        if scores.is_tracked() {
            let nothing = (scores - values) * exps;
            sums = sums + nothing.clone().sum_dim(3);
            weighted = weighted + nothing.cast(dtype).matmul(v.detach());
        }
        let weighted = weighted.cast(DType::F32) / sums;
        let weighted = weighted.cast(dtype);
        parts.push(weighted.reshape([batch, kv_heads, groups, end - first, dim]));
    }
    if parts.len() == 1 {
        return parts.remove(0);
    }
    Tensor::cat(parts, 3)
}

/// `[batch, seq, heads * dim]` to `[batch, heads, seq, dim]`.
pub(crate) fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, seq, width] = x.dims();
    x.reshape([batch, seq, heads, width / heads])
        .swap_dims(1, 2)
}

/// `[batch, heads, seq, dim]` to `[batch, seq, heads * dim]`.
pub(crate) fn merge_heads(x: Tensor<4>) -> Tensor<3> {
    let [batch, heads, seq, dim] = x.dims();
    x.swap_dims(1, 2).reshape([batch, seq, heads * dim])
}

/// The attention of a Llama layer.
///
/// # Example
///
/// ```
/// # use burn::tensor::Device;
/// use lisa_lm::{CausalLm, LlamaConfig, LlamaKind, ModelConfig};
///
/// # let device = Device::default();
/// // Four heads of width 16, and a head of keys and values for every two of them.
/// let config = LlamaConfig {
///     kind: LlamaKind::Qwen3, head_dim: 16, num_key_value_heads: 2,
///     ..LlamaConfig::new(64, 32, 1, 4)
/// };
/// let model = ModelConfig::Llama(config).init(&device)?;
/// let CausalLm::Llama(llama) = &model else { panic!("not a Llama") };
/// let attention = &llama.model.layers[0].self_attn;
/// let (q, k) = (attention.q_proj.weight.dims(), attention.k_proj.weight.dims());
/// assert_eq!((q, k), ([32, 4 * 16], [32, 2 * 16]));
/// assert_eq!(attention.q_norm.as_ref().map(|norm| norm.gamma.dims()), Some([16]));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct LlamaAttention {
    /// Queries: `hidden` to `heads * head_dim`.
    pub q_proj: Linear,
    /// Keys: `hidden` to `key heads * head_dim`.
    pub k_proj: Linear,
    /// Values, as the keys.
    pub v_proj: Linear,
    /// Back: `heads * head_dim` to `hidden`.
    pub o_proj: Linear,
    /// Qwen3: a norm on each head of the queries.
    pub q_norm: Option<RmsNorm>,
    /// Qwen3: the same for the keys.
    pub k_norm: Option<RmsNorm>,
    slides: bool,
}

impl LlamaAttention {
    pub(crate) fn new(shape: &Shape, slides: bool) -> Self {
        let config = shape.config;
        let (q, kv) = (
            config.num_attention_heads * config.head_dim,
            config.num_key_value_heads * config.head_dim,
        );
        let hidden = config.hidden_size;
        let new = |from, to, bias| linear(from, to, bias, config.initializer_range, shape.device);
        let norm = || {
            let norm = |()| rms_norm(config.head_dim, config.rms_norm_eps, shape.device);
            config.qk_norm().then_some(()).map(norm)
        };
        Self {
            q_proj: new(hidden, q, config.qkv_bias()),
            k_proj: new(hidden, kv, config.qkv_bias()),
            v_proj: new(hidden, kv, config.qkv_bias()),
            o_proj: new(q, hidden, config.o_bias()),
            q_norm: norm(),
            k_norm: norm(),
            slides,
        }
    }

    pub(crate) fn forward(
        &self,
        h: Tensor<3>,
        context: &Context,
        head_dim: usize,
        (lora, cache): (Option<&LlamaLora>, Option<&mut LayerCache>),
    ) -> Tensor<3> {
        let heads = |x: Tensor<3>| {
            let width = x.dims()[2];
            split_heads(x, width / head_dim)
        };
        let place = |heads: Tensor<4>, norm: &Option<RmsNorm>| {
            let heads = match norm {
                Some(norm) => normed(norm, heads),
                None => heads,
            };
            match &context.rope {
                Some(rope) => rope.rotate(heads),
                None => heads,
            }
        };
        let q = place(
            heads(project(&self.q_proj, lora.map(|l| &l.q), h.clone())),
            &self.q_norm,
        );
        let k = place(
            heads(project(&self.k_proj, lora.map(|l| &l.k), h.clone())),
            &self.k_norm,
        );
        let v = heads(project(&self.v_proj, lora.map(|l| &l.v), h));
        let (k, v) = match cache {
            Some(cache) => cache.append(k, v),
            None => (k, v),
        };
        let mask = if self.slides {
            &context.sliding
        } else {
            &context.full
        };
        let weighted = merge_heads(attend(q, k, v, mask.as_ref()));
        project(&self.o_proj, lora.map(|l| &l.o), weighted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::input::{Input, MaskShape};
    use burn::tensor::{Device, Distribution, Int};

    #[test]
    fn written_out_and_fused_attention_agree() {
        let plain = Device::default();
        plain.seed(1);
        // One block; several; several of which the last is short.
        for seq in [5, 384, 391] {
            agree(seq, &plain);
        }
    }

    fn agree(seq: usize, plain: &Device) {
        let random = |heads| Tensor::<4>::random([2, heads, seq, 8], Distribution::Default, plain);
        let (q, k, v) = (random(4), random(2), random(2));
        let starts = |at: usize| (0..seq).map(move |i| i64::from(i >= at) + i64::from(i > 70));
        let segments: Vec<i64> = starts(3).chain(starts(2)).collect();
        let segments = Tensor::<1, Int>::from_data(segments.as_slice(), plain).reshape([2, seq]);
        let mut input = Input::new(segments.clone());
        input.segments = Some(segments);
        let shape = MaskShape { past: 0, groups: 2 };
        let run = |device: &Device| {
            let on = |x: &Tensor<4>| Tensor::<4>::from_data(x.to_data(), device);
            let mask = shape.mask(&input, Some(90), plain);
            attend(on(&q), on(&k), on(&v), mask.as_ref()).into_data()
        };
        // With checkpoints of Burn's the steps are written out whatever the features are.
        let written_out = plain.clone().autodiff().gradient_checkpointing();
        let (fused, steps) = (run(plain), run(&written_out));
        for (a, b) in fused.iter::<f32>().zip(steps.iter::<f32>()) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }

    #[test]
    fn masks_are_causal_windowed_and_within_segments() {
        let device = Device::default();
        let tokens = Tensor::<2, Int>::zeros([1, 3], &device);
        let rows = |past, window, input: &Input| {
            let mask = MaskShape { past, groups: 1 }
                .mask(input, window, &device)
                .unwrap();
            let bits: Vec<bool> = mask.into_data().iter::<bool>().collect();
            bits.chunks(3 + past)
                .map(|row| row.iter().map(|b| u8::from(!b)).collect())
                .collect()
        };
        let expect = |found: Vec<Vec<u8>>, expected: [&[u8]; 3]| assert_eq!(found, expected);
        let mut input = Input::new(tokens.clone());
        expect(rows(0, None, &input), [&[1, 0, 0], &[1, 1, 0], &[1, 1, 1]]);
        expect(
            rows(0, Some(2), &input),
            [&[1, 0, 0], &[1, 1, 0], &[0, 1, 1]],
        );
        expect(
            rows(2, None, &input),
            [&[1, 1, 1, 0, 0], &[1, 1, 1, 1, 0], &[1; 5]],
        );
        expect(
            rows(1, Some(2), &input),
            [&[1, 1, 0, 0], &[0, 1, 1, 0], &[0, 0, 1, 1]],
        );
        input.segments = Some(Tensor::from_data([[0, 1, 1]], &device));
        expect(rows(0, None, &input), [&[1, 0, 0], &[0, 1, 0], &[0, 1, 1]]);
        input.segments = None;
        input.padding = Some(Tensor::from_data([[false, false, true]], &device));
        expect(rows(0, None, &input), [&[1, 0, 0], &[1, 1, 0], &[1, 1, 0]]);
        let one = Input::new(Tensor::<2, Int>::zeros([1, 1], &device));
        assert!(
            MaskShape { past: 7, groups: 2 }
                .mask(&one, Some(9), &device)
                .is_none()
        );
    }
}
