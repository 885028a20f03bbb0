//! [`Names`]: the names and layouts of one model's tensors in a checkpoint.

use crate::model::FileNames;
use crate::model::config::ModelConfig;

const HEAD: &str = "lm_head.weight";

/// The ends of the names of a norm's parameters, in a checkpoint and in the model.
const NORMS: [(&str, &str); 2] = [("norm.weight", "norm.gamma"), ("norm.bias", "norm.beta")];

/// How the tensors of one model are named and laid out in its files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    family: &'static FileNames,
    is_tied: bool,
}

impl Names {
    pub(crate) fn of(config: &ModelConfig) -> Self {
        Self {
            family: config.file_names(),
            is_tied: config.is_tied(),
        }
    }

    /// The path of the parameter that a stored tensor belongs to. `None` if the model does not use
    /// the tensor: a buffer that is computed, or the copy of a tied weight.
    pub(super) fn path(self, stored: &str) -> Option<String> {
        let is_buffer = |end: &&str| stored.ends_with(end);
        if self.family.buffers.iter().any(is_buffer) || (self.is_tied && stored == HEAD) {
            return None;
        }
        let mut path = stored.to_owned();
        if let Some((prefix, starts)) = self.family.optional_prefix
            && starts.iter().any(|start| stored.starts_with(start))
        {
            path.insert_str(0, prefix);
        }
        for (theirs, ours) in self.family.renamed {
            path = path.replacen(theirs, ours, 1);
        }
        for (theirs, ours) in NORMS {
            if let Some(start) = path.strip_suffix(theirs) {
                path = format!("{start}{ours}");
            }
        }
        Some(path)
    }

    /// The name in a checkpoint of the parameter at this path.
    pub(crate) fn stored(self, path: &str) -> String {
        let mut stored = path.to_owned();
        for (theirs, ours) in NORMS {
            if let Some(start) = stored.strip_suffix(ours) {
                stored = format!("{start}{theirs}");
            }
        }
        for (theirs, ours) in self.family.renamed {
            stored = stored.replacen(ours, theirs, 1);
        }
        stored
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
