//! The full-precision weights of a model with quantized layers: in memory, and in a file. Tests:
//! `lisa/tests/quantized.rs`.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;

use super::{Lisa, must};
use crate::{FrozenWeights, LisaError, weights};

impl Lisa {
    /// The model with the full-precision weights of all layers, on `device`. If frozen layers are
    /// quantized, save or export this model. If none are, it is a copy of the model on that device.
    /// Its parameters with autodiff take the setting of `device`: on a device without autodiff, the
    /// copy is in validation mode.
    ///
    /// `model` must be that of the last step: the weights of quantized layers come from this `Lisa`, all
    /// others from `model`. So an earlier clone of the model needs a clone of `Lisa` of the same step.
    /// Layers that Burn has dequantized since, as in `Module::fork`, count as quantized.
    ///
    /// `model` can continue to train. Cost: the memory of the whole model on `device`. If the
    /// model's own device has too little memory, give the host, `Device::flex()`.
    ///
    /// # Panics
    ///
    /// `model` has quantized layers whose full-precision weights are not in this `Lisa`, because it
    /// is of another step or another run. A model of another step without such layers is not
    /// noticed.
    #[must_use]
    pub fn exact<M: Module>(&self, model: &M, device: &Device) -> M {
        must(self.check_kept(model));
        self.full.whole(model, device)
    }

    /// Like [`exact`](Self::exact), for the end of a run: the full-precision weights move out of
    /// this `Lisa` into the model. Each quantized weight is freed when its parameter is restored,
    /// unless `model` has clones. These share its running statistics, which move to `device`.
    ///
    /// If `device` is the host, weights that are in host memory are not copied.
    ///
    /// # Panics
    ///
    /// As [`exact`](Self::exact).
    #[must_use]
    pub fn take_exact<M: Module>(&mut self, model: M, device: &Device) -> M {
        must(self.check_kept(&model));
        self.full.take(model, device)
    }

    /// Refuses a model with quantized weights that this run does not have in full precision.
    fn check_kept<M: Module>(&self, model: &M) -> Result<(), LisaError> {
        if self.config.frozen_weights == FrozenWeights::Exact {
            return Ok(());
        }
        self.full.check_kept(model, self.trainable.map())
    }

    /// Saves the weights of the model in full precision: a file that
    /// [`Module::try_load_file`](burn::module::Module::try_load_file) reads, as that of
    /// [`Module::save_file`](burn::module::Module::save_file).
    ///
    /// A path without an extension gets `.bpk`, as in `save_file`; [`save`](Self::save) takes the path
    /// as it is. Weights that the caller has quantized are written as they are. As for
    /// [`exact`](Self::exact), `model` must be that of the last step.
    ///
    /// The write is atomic. Cost: one weight at a time in host memory. The device needs memory only
    /// for a quantized weight that Burn changes when it is saved, as with `LinearLayout::Col`: this
    /// weight is on the device while it is written. A layer that `Module::fork` has dequantized is
    /// read, and its weights are quantized once more on the device, to compare them. `save_file`
    /// copies the whole model to host memory.
    ///
    /// # Errors
    ///
    /// The operating system refuses a file operation (kind [`Io`](crate::ErrorKind::Io)), or the
    /// device refuses a transfer; the message has the path. Or the model has quantized layers whose
    /// full-precision weights are not in this `Lisa` (kind [`Layers`](crate::ErrorKind::Layers)).
    ///
    /// # Example
    ///
    /// ```
    /// # use burn::module::Module;
    /// # use burn::nn::{Linear, LinearConfig};
    /// # use burn::optim::AdamWConfig;
    /// # use burn::tensor::Device;
    /// # #[derive(Module, Debug)]
    /// # struct Model { layers: Vec<Linear> }
    /// # let device = Device::flex().autodiff();
    /// # let linear = |_| LinearConfig::new(64, 64).with_bias(false).init(&device);
    /// # let new = || Model { layers: (0..4).map(linear).collect() };
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("weights.bpk");
    /// use lisa::{FrozenWeights, LisaConfig};
    ///
    /// let config = LisaConfig::new().with_frozen_weights(FrozenWeights::Int8);
    /// let model = new();
    /// let before = model.layers[0].weight.val().into_data();
    /// let (lisa, model) = config.init(AdamWConfig::new(), model)?;
    /// lisa.save_weights(&model, &path)?;
    /// let loaded = new().load_file(&path);
    /// assert_eq!(loaded.layers[0].weight.val().into_data(), before);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn save_weights<M: Module>(
        &self,
        model: &M,
        path: impl AsRef<Path>,
    ) -> Result<(), LisaError> {
        self.check_kept(model)?;
        weights::save(model, &self.full, path.as_ref())
    }
}
