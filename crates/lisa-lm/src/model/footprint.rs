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
use crate::model::ops::{self, Form, HeadSizes};

mod per_token;

use per_token::per_token;

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
