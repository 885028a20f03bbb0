//! Loading a model from a [`Checkpoint`], tensor by tensor.

use std::collections::HashSet;
use std::path::Path;

use burn::store::{ApplyError, ApplyResult, ModuleSnapshot};
use burn::tensor::{DType, Device, FloatDType};

use super::folder::Checkpoint;
use super::layout::Layout;
use super::names::Names;
use super::progress::Progress;
use super::shards;
use crate::error::{Error, ErrorKind};
use crate::model::CausalLm;

impl Checkpoint {
    /// Loads the model onto a device. All parameters are trainable if the device has autodiff.
    ///
    /// Without a dtype, each tensor keeps the dtype of the file. The device needs no configuration
    /// for half precision. Needs the memory of the model, plus twice the memory of its largest
    /// tensor while loading. No memory is allocated for sizes in `config.json` or in a header until
    /// the files are known to be as large. Files are mapped into memory, so they must not be
    /// truncated during loading.
    ///
    /// # Errors
    ///
    /// A tensor is missing, duplicate or unknown (buffers of old checkpoints are ignored) or has a
    /// wrong shape; a file is truncated; a dtype is not a float or is not supported by the device.
    /// The message names the tensor or the file.
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
        if let Some(dtype) = dtype
            .map(DType::from)
            .filter(|dtype| !device.supports_dtype(*dtype))
        {
            return Err(Error::new(
                ErrorKind::Model,
                format!("the device {device:?} has no {dtype:?}"),
            )
            .with_help("choose another dtype"));
        }
        let names = Names::of(self.config());
        let mut tensors = Vec::new();
        let mut seen = HashSet::new();
        for mut tensor in shards::read(self.dir())? {
            let Some(name) = names.path(&tensor.name) else {
                continue;
            };
            if !matches!(
                tensor.dtype,
                DType::F64 | DType::F32 | DType::F16 | DType::BF16
            ) {
                return Err(refuse(
                    self.dir(),
                    format!(
                        "tensor {} is {:?}, but only floats of 16, 32 or 64 bits are supported",
                        tensor.name, tensor.dtype
                    ),
                ));
            }
            if !seen.insert(name.clone()) {
                return Err(refuse(
                    self.dir(),
                    format!("tensor {} is stored twice", tensor.name),
                ));
            }
            tensor.name = name;
            tensors.push(tensor);
        }
        let layers = self.config().num_layers();
        if tensors.len() < layers {
            return Err(refuse(
                self.dir(),
                format!(
                    "config.json asks for {layers} layers, but the files have {} tensors of the model",
                    tensors.len()
                ),
            ));
        }
        let mut model = CausalLm::new(self.config(), device);
        let total = tensors.iter().map(|tensor| tensor.byte_len() as u64).sum();
        let layout = Layout::loading(names, dtype).with_progress(Progress::new(total, progress));
        let result = model.apply(tensors, None, Some(Box::new(layout)), true);
        check(self.dir(), names, &result)?;
        Ok(model)
    }
}

/// Returns an error if a tensor did not fit, is missing, or belongs to no parameter.
fn check(dir: &Path, names: Names, result: &ApplyResult) -> Result<(), Error> {
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
    if !missing.is_empty() {
        let listed = some_of(&missing);
        return Err(refuse(
            dir,
            format!("{} tensors are missing: {listed}", missing.len()),
        ));
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

fn refuse(dir: &Path, message: String) -> Error {
    Error::new(
        ErrorKind::Checkpoint,
        format!("{}: {message}", dir.display()),
    )
}

/// The first names of a list.
fn some_of(names: &[String]) -> String {
    let shown = names.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > 5 {
        format!("{shown}, ...")
    } else {
        shown
    }
}
