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
