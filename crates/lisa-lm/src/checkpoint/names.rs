//! What tensors are called in a checkpoint, and how they lie.
//!
//! Burn's PyTorch adapters turn the weights of linear layers and rename those of norms. GPT-2 stores
//! its projections as Burn does, `[in, out]`, so there only the head is turned. Tests: beside this
//! file.

use burn::store::burn_pack::Tensor as PackTensor;
use burn::store::{
    BurnToPyTorchAdapter, FloatCastAdapter, ModuleAdapter, ModuleContext, PyTorchToBurnAdapter,
};
use burn::tensor::{DType, FloatDType};

use super::watch::Watch;
use crate::model::config::ModelConfig;

const HEAD: &str = "lm_head.weight";

/// The names of one model's tensors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    /// Projections are stored `[in, out]`.
    is_gpt2: bool,
    is_tied: bool,
}

impl Names {
    pub(super) fn of(config: &ModelConfig) -> Self {
        Self {
            is_gpt2: matches!(config, ModelConfig::Gpt2(_)),
            is_tied: config.is_tied(),
        }
    }

    /// The name that the model knows a stored tensor by; none where it has no use for it: buffers
    /// that can be computed, and the second copy of a tied weight.
    pub(super) fn canonical(self, stored: &str) -> Option<String> {
        let is_buffer = if self.is_gpt2 {
            stored.ends_with(".attn.bias") || stored.ends_with(".attn.masked_bias")
        } else {
            stored.ends_with(".rotary_emb.inv_freq") || stored == "rotary_emb.inv_freq"
        };
        if is_buffer || (self.is_tied && stored == HEAD) {
            return None;
        }
        // The first GPT-2 checkpoints are of the model without its head.
        let is_bare = self.is_gpt2
            && ["wte.", "wpe.", "h.", "ln_f."]
                .iter()
                .any(|start| stored.starts_with(start));
        Some(if is_bare {
            format!("transformer.{stored}")
        } else {
            stored.to_owned()
        })
    }

    /// The name in a checkpoint of the parameter at this path.
    pub(super) fn stored_name(path: &str) -> String {
        match path.rsplit_once('.') {
            Some((start, "gamma")) => format!("{start}.weight"),
            Some((start, "beta")) => format!("{start}.bias"),
            _ => path.to_owned(),
        }
    }

    /// The shape in a checkpoint of a parameter that has this shape here.
    pub(super) fn stored_shape(self, path: &str, shape: &[usize]) -> Vec<usize> {
        let mut shape = shape.to_vec();
        if self.is_turned(path) {
            shape.reverse();
        }
        shape
    }

    /// Whether a weight lies the other way round in a checkpoint.
    fn is_turned(self, path: &str) -> bool {
        path == HEAD || (!self.is_gpt2 && path.ends_with("_proj.weight"))
    }

    pub(super) fn loading(self, dtype: Option<FloatDType>) -> Layout<PyTorchToBurnAdapter> {
        let cast = dtype.map(|dtype| FloatCastAdapter::to(DType::from(dtype)));
        Layout {
            names: self,
            cast,
            inner: PyTorchToBurnAdapter,
            watch: None,
        }
    }

    pub(super) fn saving(self) -> Layout<BurnToPyTorchAdapter> {
        Layout {
            names: self,
            cast: None,
            inner: BurnToPyTorchAdapter,
            watch: None,
        }
    }
}

/// One of Burn's PyTorch adapters, kept away from weights that lie the right way, behind a cast.
#[derive(Clone, Debug)]
pub(super) struct Layout<A> {
    names: Names,
    cast: Option<FloatCastAdapter>,
    inner: A,
    watch: Option<Watch>,
}

impl<A> Layout<A> {
    /// The same, telling how far it has come.
    pub(super) fn watched(self, watch: Watch) -> Self {
        Self {
            watch: Some(watch),
            ..self
        }
    }
}

impl<A: ModuleAdapter + Clone + 'static> ModuleAdapter for Layout<A> {
    fn adapt(&self, tensor: PackTensor, context: ModuleContext<'_>) -> PackTensor {
        let is_linear_weight = context.module_type() == Some("Struct:Linear")
            && tensor.name.rsplit('.').next() == Some("weight");
        let tensor = match &self.watch {
            Some(watch) => watch.tensor(tensor),
            None => tensor,
        };
        let tensor = match &self.cast {
            Some(cast) => cast.adapt(tensor, context),
            None => tensor,
        };
        if is_linear_weight && !self.names.is_turned(&tensor.name) {
            return tensor;
        }
        self.inner.adapt(tensor, context)
    }

    fn get_alternative_param_name(&self, name: &str, module_type: &str) -> Option<String> {
        self.inner.get_alternative_param_name(name, module_type)
    }

    fn clone_box(&self) -> Box<dyn ModuleAdapter> {
        Box::new(self.clone())
    }
}
