//! [`Names`]: the names and layouts of one model's tensors in a checkpoint.

use crate::model::FileNames;
use crate::model::config::ModelConfig;

/// The path of the embedding's weight in a model.
pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The name of the head's weight, in a checkpoint and in a model.
pub(super) const HEAD: &str = "lm_head.weight";

/// The ends of the names of a norm's parameters, in a checkpoint and in the model.
const NORMS: [(&str, &str); 2] = [("norm.weight", "norm.gamma"), ("norm.bias", "norm.beta")];

/// How the tensors of one model are named and laid out in its files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    family: &'static FileNames,
}

/// What a stored tensor is for the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The parameter at this path, if the model has it.
    Parameter(String),
    /// A buffer that is computed.
    Buffer,
    /// A tensor of another part, such as a classifier or a vision encoder.
    Other,
}

impl Names {
    pub(crate) fn of(config: &ModelConfig) -> Self {
        Self {
            family: config.file_names(),
        }
    }

    /// What the stored tensor of this name is for the model.
    pub(super) fn role(self, stored: &str) -> Role {
        let family = self.family;
        if family.buffers.iter().any(|end| stored.ends_with(end)) {
            return Role::Buffer;
        }
        let is_bare = family.bare.iter().any(|start| stored.starts_with(start));
        let mut path = if is_bare {
            format!("{}{stored}", family.prefix)
        } else {
            stored.to_owned()
        };
        if !path.starts_with(family.prefix) && !path.starts_with("lm_head.") {
            return Role::Other;
        }
        for (theirs, ours) in family.renamed {
            path = path.replacen(theirs, ours, 1);
        }
        for (theirs, ours) in NORMS {
            if let Some(start) = path.strip_suffix(theirs) {
                path = format!("{start}{ours}");
            }
        }
        Role::Parameter(path)
    }

    /// The name in a checkpoint of the parameter at this path.
    pub(crate) fn stored(self, path: &str) -> String {
        let mut stored = path.to_owned();
        for (theirs, ours) in NORMS {
            if let Some(start) = stored.strip_suffix(ours) {
                stored = format!("{start}{theirs}");
            }
        }
        self.family.stored(&stored)
    }

    /// The shape in a checkpoint of the parameter at this path. `shape` is its shape in the model.
    pub(super) fn stored_shape(self, path: &str, shape: &[usize]) -> Vec<usize> {
        let mut shape = shape.to_vec();
        if self.is_transposed(path) {
            shape.reverse();
        }
        shape
    }

    /// Whether the parameter at this path is stored transposed. GPT-2 stores its projections as
    /// `[in, out]`; every head is stored as `[vocab, hidden]`.
    pub(super) fn is_transposed(self, path: &str) -> bool {
        path == HEAD || (self.family.transposed && path.ends_with("_proj.weight"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use burn::store::ModuleSnapshot;
    use burn::tensor::Device;

    use super::*;
    use crate::model::CausalLm;
    use crate::test_support::{MODELS, fixture};

    /// The models of all fixtures with the paths of their parameters.
    fn models() -> Vec<(CausalLm, Vec<String>)> {
        let configs = MODELS.map(|name| fs::read_to_string(fixture(name).join("config.json")));
        let model = |text: std::io::Result<String>| {
            let config = ModelConfig::from_json(&text.unwrap()).unwrap();
            let model = config.init(&Device::default()).unwrap();
            let tensors = model.collect(None, None, true).into_iter();
            let paths = tensors.map(|tensor| tensor.name).collect();
            (model, paths)
        };
        configs.map(model).into()
    }

    #[test]
    fn a_stored_name_has_the_role_of_its_parameter() {
        for (model, paths) in models() {
            let names = Names::of(model.config());
            assert!(paths.len() > 10, "{paths:?}");
            for path in paths {
                assert_eq!(names.role(&names.stored(&path)), Role::Parameter(path));
            }
        }
    }

    /// As Gemma 2 names its four norms.
    #[test]
    fn a_replacement_may_give_what_an_earlier_one_replaces() {
        static CHAIN: FileNames = FileNames {
            renamed: &[
                (".post_attention_layernorm.", ".attention_output_norm."),
                (".pre_feedforward_layernorm.", ".post_attention_layernorm."),
                (".post_feedforward_layernorm.", ".feed_forward_output_norm."),
            ],
            prefix: "model.",
            bare: &[],
            buffers: &[],
            transposed: true,
        };
        let names = Names { family: &CHAIN };
        for (module, stored) in [
            ("input_layernorm", "input_layernorm"),
            ("attention_output_norm", "post_attention_layernorm"),
            ("post_attention_layernorm", "pre_feedforward_layernorm"),
            ("feed_forward_output_norm", "post_feedforward_layernorm"),
        ] {
            let path = format!("model.layers.0.{module}.gamma");
            assert_eq!(
                names.stored(&path),
                format!("model.layers.0.{stored}.weight")
            );
            assert_eq!(names.role(&names.stored(&path)), Role::Parameter(path));
        }
    }

    #[test]
    fn the_weights_of_linear_modules_are_transposed_and_no_others() {
        for (model, paths) in models() {
            let names = Names::of(model.config());
            let transposed = paths.into_iter().filter(|path| names.is_transposed(path));
            let transposed = transposed.map(|path| names.stored(&path));
            let linear = model.linear().map(|(path, _)| format!("{path}.weight"));
            // GPT-2 stores its projections as they are.
            let is_stored_so = |name: &String| names.family.transposed || name == HEAD;
            assert_eq!(
                transposed.collect::<BTreeSet<_>>(),
                linear.filter(is_stored_so).collect()
            );
        }
    }
}
