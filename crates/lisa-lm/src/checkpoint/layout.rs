//! [`Layout`]: how a tensor changes between a checkpoint and a model.

use burn::store::burn_pack::Tensor as PackTensor;
use burn::store::{FloatCastAdapter, ModuleAdapter, ModuleContext};
use burn::tensor::{DType, FloatDType};

use super::names::Names;
use super::progress::Progress;
use super::transpose::transpose;

/// Reports progress, casts and transposes tensors, and, when saving, renames them for the
/// checkpoint.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    names: Names,
    saves: bool,
    cast: Option<FloatCastAdapter>,
    progress: Option<Progress>,
}

impl Layout {
    /// For tensors that are loaded from a checkpoint and cast to this dtype.
    pub(super) fn loading(names: Names, dtype: Option<FloatDType>) -> Self {
        Self {
            names,
            saves: false,
            cast: dtype.map(|dtype| FloatCastAdapter::to(DType::from(dtype))),
            progress: None,
        }
    }

    /// For tensors that are saved to a checkpoint.
    pub(super) fn saving(names: Names) -> Self {
        Self {
            names,
            saves: true,
            cast: None,
            progress: None,
        }
    }

    pub(super) fn with_progress(self, progress: Progress) -> Self {
        Self {
            progress: Some(progress),
            ..self
        }
    }
}

impl ModuleAdapter for Layout {
    fn adapt(&self, mut tensor: PackTensor, context: ModuleContext<'_>) -> PackTensor {
        let is_transposed = self.names.is_transposed(&tensor.name);
        if let Some(progress) = &self.progress {
            tensor = progress.counted(tensor);
        }
        if let Some(cast) = &self.cast {
            tensor = cast.adapt(tensor, context);
        }
        if is_transposed {
            tensor = transpose(tensor);
        }
        if self.saves {
            tensor.name = self.names.stored(&tensor.name);
        }
        tensor
    }

    fn clone_box(&self) -> Box<dyn ModuleAdapter> {
        Box::new(self.clone())
    }
}
