//! The size of the activations and of the adapters of a [`CausalLm`], for LISA's memory estimates.
//!
//! It counts the tensors that the operations keep for the backward pass. `bench` prints the
//! estimates next to measured sizes.

use burn::module::{Module, ParamId};
use burn::tensor::{DType, Device};
use lisa::memory::{Activations, Adapters, Footprint, LayerAdapters, Workload};

use crate::model::block::Block;
use crate::model::causal_lm::CausalLm;
use crate::model::lora_config::LoraConfig;
use crate::model::ops::{self, Activation, Form, HeadSizes};
use crate::model::spec::{
    AttentionSpec, BlockSpec, DecoderSpec, FeedForwardSpec, NormKind, NormPlacement,
};

/// Elements for each token.
struct PerToken {
    /// Elements that a frozen layer keeps.
    frozen: usize,
    /// Elements that a trainable layer keeps in addition.
    trainable: usize,
    /// The part of `trainable` that is kept for the weights of norms.
    norms: usize,
    /// Elements that the backward pass of the feed-forward network needs in addition.
    backward: usize,
    /// The largest number of elements during the backward pass of attention, and during that of the
    /// feed-forward network up to its last projection.
    attention: usize,
    feed_forward: usize,
}

fn per_token(spec: &DecoderSpec, form: Form, size: usize, flex: bool) -> PerToken {
    let fused = form == Form::Fused;
    let hidden = spec.hidden_size;
    // Without `..`: a new option of a block must be counted here.
    let BlockSpec {
        attention,
        feed_forward,
        norm,
        placement,
    } = spec.block;
    let AttentionSpec {
        heads: _,
        kv_heads: _,
        head_dim: _,
        fused_qkv,
        qkv_bias: _,
        output_bias: _,
        qk_norm,
        score_divisor: _,
    } = attention;
    let FeedForwardSpec {
        width: inner,
        gated,
        activation,
        bias: _,
    } = feed_forward;
    let (q, kv) = attention.widths();
    // The norms of attention, and as many of the feed-forward network.
    let norms = match placement {
        NormPlacement::Before | NormPlacement::After => 1,
        NormPlacement::Both => 2,
    };
    // For a norm over `width` elements: kept while frozen, in addition while trainable, and during its
    // backward pass. A fused norm keeps its input whether it is trainable or not.
    let in_f32 = |elements: usize| elements * size_of::<f32>() / size;
    let of_norm = |kind, width: usize| match kind {
        _ if fused => (width, 0, 0),
        NormKind::Rms if form == Form::Recomputed => (width, 0, in_f32(3 * width)),
        // In half precision, also a copy in f32.
        NormKind::Rms if size < 4 => (width + in_f32(width), width, width),
        NormKind::Rms => (width, width, width),
        // In half precision, computed in f32, on flex by the fused operation.
        NormKind::Layer if size < 4 && form == Form::Recomputed && flex => {
            (in_f32(width), 0, in_f32(width))
        }
        NormKind::Layer if size < 4 => (in_f32(5 * width), in_f32(width), in_f32(3 * width)),
        NormKind::Layer => (5 * width, width, 3 * width),
    };
    let (norm, norm_weight, norm_backward) = of_norm(norm.kind, hidden);
    let (norm, norm_weight) = (norms * norm, norms * norm_weight);
    // With two of them, what the backward pass makes for the first is there during that of the second.
    let norm_backward = norms * norm_backward;
    // The norms of queries and keys.
    let (of_heads, of_heads_weight, of_heads_backward) = match qk_norm {
        Some(norm) => of_norm(norm.kind, q + kv),
        None => (0, 0, 0),
    };
    // Rotary positions: kept, and during the backward pass.
    let (rope, rope_backward) = match &spec.rope {
        Some(_) if fused => (0, q),
        Some(_) => (q, q),
        None => (0, 0),
    };
    let OfActivation {
        kept: activation,
        backward: activation_backward,
        form: form_of_activation,
        wide: wide_backward,
    } = of_activation(gated, activation, form, [inner, in_f32(inner)]);
    // Queries that are a part of one projection's output are copied, and so are divided ones. If queries and
    // keys are changed, the output is kept next to them for its part with the values.
    let is_copied = !fused || spec.scores_by_layer;
    let is_changed = spec.rope.is_some() || qk_norm.is_some();
    let joint = match (fused_qkv, is_changed) {
        (false, _) => 0,
        (true, true) => q + kv,
        (true, false) if is_copied => q,
        (true, false) => 0,
    };
    // The gradients of keys and values are summed up in f32 over the blocks.
    let sums = if form == Form::Recomputed {
        in_f32(2 * kv)
    } else {
        0
    };
    PerToken {
        frozen: 2 * norm + of_heads + q + 2 * kv + joint + rope + activation,
        trainable: 2 * norm_weight + of_heads_weight + 2 * hidden + q + inner,
        norms: 2 * norm_weight + of_heads_weight,
        backward: match form_of_activation {
            // The gradient of the last projection's input, twice.
            Form::Fused => 2 * inner,
            Form::Recomputed => 2 * hidden + wide_backward,
            Form::WrittenOut => 2 * hidden + 2 * inner,
        },
        attention: norm_backward
            + of_heads_backward
            + 2 * hidden
            + 2 * q
            + rope_backward
            + 2 * kv
            + sums,
        feed_forward: norm_backward + 2 * hidden + activation_backward,
    }
}

/// Elements for each token of the feed-forward network's activation and its gate.
struct OfActivation {
    kept: usize,
    backward: usize,
    form: Form,
    /// The tensors in f32 of a recomputed activation.
    wide: usize,
}

/// `width`: elements of the activation's input, and the same in f32.
fn of_activation(
    gated: bool,
    activation: Activation,
    form: Form,
    [width, wide]: [usize; 2],
) -> OfActivation {
    // Its input, share, slope, gradient, and a temporary one of GELU; whether it is fused with a gate.
    let (tensors, fused_with_gate) = match activation {
        Activation::Silu => (4, true),
        Activation::Gelu | Activation::GeluTanh => (5, false),
    };
    let wide = tensors * wide;
    // An activation that is not fused is recomputed.
    let form = match form {
        Form::Fused if gated != fused_with_gate => Form::Recomputed,
        form => form,
    };
    let (kept, backward) = match (gated, form) {
        (false, Form::Fused) => (width, 2 * width),
        (false, Form::Recomputed) => (width, width + wide),
        (false, Form::WrittenOut) => (6 * width, 7 * width),
        (true, Form::Fused) => (2 * width, 3 * width),
        (true, Form::Recomputed) => (2 * width, 2 * width + wide),
        (true, Form::WrittenOut) => (4 * width, 5 * width),
    };
    OfActivation {
        kept,
        backward,
        form,
        wide,
    }
}

impl Footprint for CausalLm {
    fn activations(&self, workload: &Workload) -> Activations {
        let spec = self.model.spec();
        let (batch, sequence) = (workload.batch, workload.sequence);
        let dtype = DType::from(workload.dtype);
        let form = self.form(workload);
        let written_out = form == Form::WrittenOut;
        let size = dtype.size();
        let bytes = |elements: usize| (batch * sequence * elements * size) as u64;
        let tokens = per_token(spec, form, size, workload.flex);
        let [scores, block] =
            ops::attention_bytes(form, batch, spec.block.attention.heads, sequence, dtype);

        // The gradients of weights between two cuts of the autodiff graph: all of attention, and all of the
        // feed-forward network but the last projection.
        let (q, kv) = spec.block.attention.widths();
        let (hidden, feed) = (spec.hidden_size, &spec.block.feed_forward);
        let attention = 2 * hidden * (q + kv) * size;
        let inward = 1 + usize::from(feed.gated);
        let feed_forward = inward * hidden * feed.width * size;
        let attention = bytes(tokens.attention) + scores + block + attention as u64;
        let mut feed_forward = bytes(tokens.feed_forward) + feed_forward as u64;
        if form == Form::Fused {
            // At the last projection: the output of the norm, what the activation keeps and its output, and
            // the gradient of that, twice.
            let kept = hidden + (inward + 1) * feed.width;
            let last = bytes(kept + 2 * feed.width) + (feed.width * hidden * size) as u64;
            feed_forward = feed_forward.max(last);
        }

        // A mask of each kind, and cosines and sines, for each row because rows may be padded or packed.
        let kinds =
            usize::from(spec.has_full_mask(sequence)) + usize::from(spec.has_window(sequence));
        let masks = kinds * batch * sequence * sequence * self.bool_bytes(workload);
        let tables = match &spec.rope {
            Some(_) => 2 * batch * sequence * spec.block.attention.head_dim * size,
            None => 0,
        };
        let of_fused = |width| if form == Form::Fused { bytes(width) } else { 0 };
        let head_weight = (spec.vocab_size * hidden * size) as u64;
        let head = self.head_sizes(workload).bytes();

        Activations {
            sublayer: attention.max(feed_forward),
            frozen_layer: bytes(tokens.frozen) + scores,
            active_layer: bytes(tokens.frozen + tokens.trainable) + scores,
            // The first norm keeps it.
            input: if spec.block.placement.before() {
                of_fused(hidden)
            } else {
                0
            },
            freed: of_fused(feed.width),
            norms: bytes(tokens.norms),
            layer_backward: bytes(tokens.backward).max(bytes(tokens.attention) + block)
                + ops::matmul_bytes(hidden * feed.width, workload.flex, dtype) as u64,
            workspace: ops::workspace_bytes(workload.flex, dtype) + (masks + tables) as u64,
            hidden: bytes(hidden),
            logits: 0,
            head: head.frozen,
            head_weight: head.weight,
            // Written out: a term of the loss whose gradient is that of the weight: ones, and their product.
            head_backward: if written_out { 2 * head_weight } else { 0 },
            tied_head: spec.tied_head && (written_out || !self.adds_in_place(workload)),
            tied: spec.tied_head,
        }
    }

    fn head_id(&self) -> Option<ParamId> {
        Some(self.logits().param().id)
    }
}

impl CausalLm {
    /// How the operations of a planned run are computed.
    fn form(&self, workload: &Workload) -> Form {
        Form::of(workload, self.devices().first())
    }

    /// Whether a planned run adds the gradient of a tied embedding to that of the head in place. If the model
    /// is on the host and the run is not on flex, the run is on a GPU.
    fn adds_in_place(&self, workload: &Workload) -> bool {
        let is_elsewhere = |device: &Device| ops::is_flex(device) && !workload.flex;
        let devices = self.devices();
        let device = devices.first();
        device.is_none_or(|device| is_elsewhere(device) || ops::adds_in_place(device))
    }

    /// Bytes of an element of a mask. If the model is on the host and the run is not on flex, the program
    /// that runs has the feature of its backend: a shader of wgpu may have no smaller elements than u32.
    fn bool_bytes(&self, workload: &Workload) -> usize {
        match self.devices().first() {
            Some(device) if !ops::is_flex(device) || workload.flex => {
                DType::from(device.settings().bool_dtype).size()
            }
            _ if cfg!(feature = "wgpu") => size_of::<u32>(),
            _ => 1,
        }
    }

    fn head_sizes(&self, workload: &Workload) -> HeadSizes {
        let spec = self.model.spec();
        HeadSizes {
            rows: workload.batch * workload.sequence,
            width: spec.hidden_size,
            vocab: spec.vocab_size,
            is_tied: spec.tied_head,
            added: 0,
            dtype: workload.dtype.into(),
            form: self.form(workload),
            flex: workload.flex,
        }
    }

    /// The adapters that [`with_lora`](Self::with_lora) would add, for
    /// [`MemoryPlan::lora`](lisa::memory::MemoryPlan::lora) with this workload. Initializes nothing.
    #[must_use]
    pub fn planned_lora(&self, config: &LoraConfig, workload: &Workload) -> Adapters {
        let spec = self.model.spec();
        let tokens = workload.batch * workload.sequence;
        let bytes = (tokens * DType::from(workload.dtype).size()) as u64;
        let (q, _) = spec.block.attention.widths();
        // The projections by their input: one of those that share it keeps it for the others. With dropout,
        // each has its own, and its mask.
        let drops = config.dropout > 0.0;
        let inputs = [
            (
                &["q_proj", "k_proj", "v_proj", "qkv_proj"][..],
                spec.hidden_size,
            ),
            (&["o_proj"], q),
            (&["gate_proj", "up_proj"], spec.hidden_size),
            (&["down_proj"], spec.block.feed_forward.width),
        ];
        let of_layer = |(index, block): (usize, &Block)| {
            let (mut weights, mut kept) = (Vec::new(), [0; 4]);
            for (name, projection) in block.projections() {
                if config.selects(&self.linear_path(index, name), true) {
                    let shape = projection.weight.lazy_shape();
                    weights.push([shape[0], shape[1]]);
                    for (kept, (ends, width)) in kept.iter_mut().zip(inputs) {
                        if ends.iter().any(|end| name.ends_with(end)) {
                            let own = width as u64 * bytes;
                            *kept = if drops { *kept + 2 * own } else { own };
                        }
                    }
                }
            }
            let inputs = kept.iter().sum();
            LayerAdapters { weights, inputs }
        };
        let layers = self.model.layers.iter().enumerate();
        let of_layers = layers.map(of_layer).collect();
        let head = [spec.hidden_size, spec.vocab_size];
        let has_head = config.selects(Self::HEAD, false);
        // A tied head gets a weight of its own.
        let adapted = HeadSizes {
            added: config.rank,
            is_tied: false,
            ..self.head_sizes(workload)
        };
        Adapters {
            rank: config.rank,
            merged: false,
            of_layers: Some(of_layers),
            head: has_head.then_some(head),
            head_loss: if has_head { adapted.bytes().frozen } else { 0 },
        }
    }
}

#[cfg(test)]
mod tests;
