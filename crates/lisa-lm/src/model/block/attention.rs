//! [`Attention`]: the attention of a layer, with projections, positions, masks and cache.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::norm::{Norm, normed};
use super::projection::Projection;
use crate::model::cache::LayerCache;
use crate::model::context::Context;
use crate::model::ops;
use crate::model::spec::{AttentionSpec, InitSpec, LayerSpec};

/// The attention of a layer. Queries, keys and values come from three projections or from one
/// projection.
///
/// Several query heads may share a head of keys and values.
#[derive(Module, Debug)]
pub struct Attention {
    /// Queries: `[hidden, heads * head_dim]`.
    pub q_proj: Option<Projection>,
    /// Keys: `[hidden, key heads * head_dim]`.
    pub k_proj: Option<Projection>,
    /// Values: `[hidden, key heads * head_dim]`.
    pub v_proj: Option<Projection>,
    /// Queries, keys and values, concatenated (GPT-2's `c_attn`).
    pub qkv_proj: Option<Projection>,
    /// The output: `[heads * head_dim, hidden]`.
    pub o_proj: Projection,
    /// The norm of each head of the queries (Qwen3).
    pub q_norm: Option<Norm>,
    /// The norm of each head of the keys (Qwen3).
    pub k_norm: Option<Norm>,
    #[module(skip)]
    spec: AttentionSpec,
    #[module(skip)]
    layer: LayerSpec,
}

impl Attention {
    pub(crate) fn new(
        spec: AttentionSpec,
        layer: LayerSpec,
        hidden: usize,
        init: InitSpec,
        device: &Device,
    ) -> Self {
        let (q, kv) = spec.widths();
        let input = |width, wanted: bool| {
            let new = || Projection::new([hidden, width], spec.qkv_bias, init.deviation, device);
            wanted.then(new)
        };
        let norm = || {
            spec.qk_norm
                .map(|norm| Norm::new(norm, spec.head_dim, device))
        };
        Self {
            q_proj: input(q, !spec.fused_qkv),
            k_proj: input(kv, !spec.fused_qkv),
            v_proj: input(kv, !spec.fused_qkv),
            qkv_proj: input(q + 2 * kv, spec.fused_qkv),
            o_proj: Projection::new([q, hidden], spec.output_bias, init.residual, device),
            q_norm: norm(),
            k_norm: norm(),
            spec,
            layer,
        }
    }

    /// `[batch, seq, hidden]` to the same shape. Appends keys and values to the cache.
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        context: &Context,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let mask = if self.layer.slides {
            &context.sliding
        } else {
            &context.full
        };
        let mask = mask.as_ref();
        let x = match &self.qkv_proj {
            Some(projection) => projection.forward(x),
            None => x,
        };
        if self.takes_joint(context) && cache.is_none() {
            let heads = [self.spec.heads, self.spec.kv_heads];
            let attended = ops::attend_joint(&x, heads, mask, self.spec.score_scale);
            return self.o_proj.forward(concatenated(attended));
        }
        let [q, k, v] = self.heads(x, context);
        let (k, v) = match cache {
            Some(cache) => cache.append(k, v),
            None => (k, v),
        };
        let attended = ops::attend(q, k, v, mask, self.spec.score_scale);
        self.o_proj.forward(concatenated(attended))
    }

    /// Whether queries, keys and values are used as one projection gives them.
    fn takes_joint(&self, context: &Context) -> bool {
        let has_norm = self.q_norm.is_some() || self.k_norm.is_some();
        let is_plain = context.rope.is_none() && !has_norm && self.layer.score_divisor == 1;
        self.qkv_proj.is_some() && is_plain
    }

    /// Queries, keys and values, each `[batch, heads, seq, head_dim]`, with norms and positions, and
    /// queries divided as the scores are to be. `x` is the input of the projections, or the output of
    /// the one projection.
    fn heads(&self, x: Tensor<3>, context: &Context) -> [Tensor<4>; 3] {
        let (heads, kv_heads, dim) = (self.spec.heads, self.spec.kv_heads, self.spec.head_dim);
        let project = |own: &Option<Projection>, first: usize, count: usize| {
            let x = match own {
                Some(projection) => projection.forward(x.clone()),
                None => x.clone().narrow(2, first * dim, count * dim),
            };
            let [batch, seq, _] = x.dims();
            x.reshape([batch, seq, count, dim]).swap_dims(1, 2)
        };
        let positioned = |norm: &Option<Norm>, x: Tensor<4>| {
            let x = normed(norm.as_ref(), x);
            match &context.rope {
                Some(rope) => rope.rotate(x),
                None => x,
            }
        };
        let q = positioned(&self.q_norm, project(&self.q_proj, 0, heads));
        let q = match self.layer.score_divisor {
            1 => q,
            divisor => q.div_scalar(divisor as f64),
        };
        let k = positioned(&self.k_norm, project(&self.k_proj, heads, kv_heads));
        let v = project(&self.v_proj, heads + kv_heads, kv_heads);
        [q, k, v]
    }

    pub(crate) fn projections(&self) -> impl Iterator<Item = (&'static str, &Projection)> {
        [
            ("self_attn.q_proj", self.q_proj.as_ref()),
            ("self_attn.k_proj", self.k_proj.as_ref()),
            ("self_attn.v_proj", self.v_proj.as_ref()),
            ("self_attn.qkv_proj", self.qkv_proj.as_ref()),
            ("self_attn.o_proj", Some(&self.o_proj)),
        ]
        .into_iter()
        .filter_map(|(name, projection)| Some((name, projection?)))
    }

    pub(crate) fn projections_mut(
        &mut self,
    ) -> impl Iterator<Item = (&'static str, &mut Projection)> {
        [
            ("self_attn.q_proj", self.q_proj.as_mut()),
            ("self_attn.k_proj", self.k_proj.as_mut()),
            ("self_attn.v_proj", self.v_proj.as_mut()),
            ("self_attn.qkv_proj", self.qkv_proj.as_mut()),
            ("self_attn.o_proj", Some(&mut self.o_proj)),
        ]
        .into_iter()
        .filter_map(|(name, projection)| Some((name, projection?)))
    }
}

/// `[batch, heads, seq, head_dim]` to `[batch, seq, heads * head_dim]`.
fn concatenated(x: Tensor<4>) -> Tensor<3> {
    let [batch, heads, seq, dim] = x.dims();
    x.swap_dims(1, 2).reshape([batch, seq, heads * dim])
}
