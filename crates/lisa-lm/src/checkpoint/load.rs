//! Loading a model from a [`Checkpoint`], tensor by tensor.

use std::path::Path;

use burn::store::{ApplyError, ApplyResult, ModuleSnapshot};
use burn::tensor::{DType, Device, FloatDType};

use super::folder::Checkpoint;
use super::formats::quantized;
use super::layout::Layout;
use super::names::Names;
use super::progress::Progress;
use super::select::{Selected, one_dtype, refuse, select, some_of};
use super::shards::INDEX;
use crate::error::{Error, ErrorKind};
use crate::files::shown;
use crate::model::CausalLm;

impl Checkpoint {
    /// Loads the model onto a device. All parameters are trainable if the device has autodiff.
    ///
    /// Without `dtype`, the model has the dtype of the files. If their tensors have different
    /// dtypes, all are loaded in the dtype of `config.json`; if it names none, in the dtype of most
    /// elements. The device needs no configuration for half precision. Loading needs the memory of
    /// the model, plus twice the memory of its largest tensor. Memory for a size that `config.json`
    /// or a header states is allocated only if the files are large enough. Files are mapped into
    /// memory, so they must not be truncated during loading.
    ///
    /// Buffers of old checkpoints, tensors of other parts such as a classifier, and masks of
    /// integers are left out, whatever their dtype is. The log names them, except the buffers.
    ///
    /// # Errors
    ///
    /// A tensor is missing or duplicate, is not of this model, or has a wrong shape; a file is
    /// truncated; a parameter's dtype is not a float or is not supported by the device. The message
    /// names the tensor or the file.
    pub fn load(&self, device: &Device, dtype: Option<FloatDType>) -> Result<CausalLm, Error> {
        self.load_with(device, dtype, |_, _| {})
    }

    /// Like [`load`](Self::load); after each tensor, calls `progress` with the bytes read and the
    /// total.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_with(
        &self,
        device: &Device,
        dtype: Option<FloatDType>,
        progress: impl Fn(u64, u64) + Send + Sync + 'static,
    ) -> Result<CausalLm, Error> {
        let names = Names::of(self.config());
        let files = self.files()?;
        let stored = files.read(self.dir())?;
        let names_of = stored.tensors.iter().map(|tensor| &tensor.name[..]);
        let names_of = names_of.chain(stored.others.iter().map(|(name, _)| &name[..]));
        let quantized = quantized(names_of).map(str::to_owned);
        let Selected {
            tensors,
            not_floats,
        } = select(self.dir(), self.config(), stored)?;
        let mixed = one_dtype(self.config(), &tensors);
        if let (None, Some(mixed)) = (dtype, mixed) {
            log::warn!(
                "{}: the tensors have different dtypes; all are loaded as {mixed:?}",
                self.dir().display()
            );
        }
        let dtype = dtype.or(mixed);
        let used = dtype.map(DType::from);
        if let Some(used) = used.or(tensors.first().map(|tensor| tensor.dtype))
            && !device.supports_dtype(used)
        {
            return Err(Error::new(
                ErrorKind::Model,
                format!("the device {device:?} has no {used:?}"),
            )
            .with_help("choose another dtype"));
        }
        let layers = self.config().num_layers();
        let count = tensors.len() + not_floats.len();
        if count < layers {
            return Err(refuse(
                self.dir(),
                format!(
                    "config.json has {layers} layers, but the files have {count} tensors of the model"
                ),
            ));
        }
        let mut model = CausalLm::new(self.config(), device);
        let total = tensors.iter().map(|tensor| tensor.byte_len() as u64).sum();
        let layout = Layout::loading(names, dtype).with_progress(Progress::new(total, progress));
        let result = model.apply(tensors, None, Some(Box::new(layout)), true);
        let missing = result.missing.iter().map(|(path, _)| &path[..]);
        Selected::check_dtypes(self.dir(), not_floats, missing)?;
        // Why the files may lack a tensor.
        let help = |missing: &str| match (&quantized, files.file_of(missing)) {
            (Some(name), _) => Some(format!(
                "{} is a tensor of a quantized checkpoint: use the unquantized one",
                shown(&name.escape_debug())
            )),
            (None, Some(file)) => Some(format!(
                "{INDEX} lists {missing} in {}: fetch that file again",
                shown(&file)
            )),
            (None, None) => None,
        };
        check(self.dir(), names, &result, help)?;
        Ok(model)
    }
}

/// Returns an error if a tensor did not fit, is missing, or belongs to no parameter.
fn check(
    dir: &Path,
    names: Names,
    result: &ApplyResult,
    help: impl Fn(&str) -> Option<String>,
) -> Result<(), Error> {
    if let Some(error) = result.errors.first() {
        return Err(refuse(
            dir,
            match error {
                ApplyError::ShapeMismatch {
                    path,
                    expected,
                    found,
                } => {
                    let stored = |shape: &[usize]| names.stored_shape(path, shape);
                    format!(
                        "tensor {} has shape {:?}, but config.json asks for {:?}",
                        names.stored(path),
                        stored(found),
                        stored(expected)
                    )
                }
                other => other.to_string(),
            },
        ));
    }
    let missing: Vec<String> = result
        .missing
        .iter()
        .map(|(path, _)| names.stored(path))
        .collect();
    if let Some(first) = missing.first() {
        let message = format!(
            "{} tensors are missing: {}",
            missing.len(),
            some_of(&missing)
        );
        let error = refuse(dir, message);
        return Err(match help(first) {
            Some(help) => error.with_help(help),
            None => error,
        });
    }
    if !result.unused.is_empty() {
        let unused: Vec<String> = result
            .unused
            .iter()
            .map(|path| names.stored(path))
            .collect();
        let (count, listed) = (unused.len(), some_of(&unused));
        let message = format!("{count} tensors are not of this model: {listed}");
        return Err(refuse(dir, message).with_help(
            "check that config.json has the model_type and the number of layers of the weights",
        ));
    }
    Ok(())
}
