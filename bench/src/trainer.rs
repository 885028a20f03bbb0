//! [`Trainer`]: the optimizer of a method, and one step with the times of its phases.

use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use burn::module::{Lora, Module, ParamGroup};
use burn::optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use lisa::Lisa;
use lisa::recompute::Recompute;
use lisa_lm::CausalLm;
use lisa_lm::model::BatchTensors;

use crate::memory;
use crate::method::{Method, adamw};
use crate::settings::Settings;

/// Seconds of the phases of a step, and the most bytes in use at their ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) forward: f64,
    pub(crate) backward: f64,
    pub(crate) update: f64,
    pub(crate) live: u64,
}

/// An optimizer, and how it is used.
pub(crate) enum Trainer {
    Plain(ModuleOptimizer),
    Lisa(Box<Lisa>),
    Layered(Box<Lisa>, Recompute),
}

impl Trainer {
    /// Prepares the model for a method and makes its optimizer.
    pub(crate) fn new(
        settings: &Settings,
        method: Method,
        model: CausalLm,
        device: &Device,
    ) -> Result<(Self, CausalLm)> {
        let rank = settings.lora_rank;
        let plain = || Self::Plain(adamw().init());
        Ok(match method {
            Method::LoraBurn => {
                let names = format!(r"{}\.\d+\..*proj.*weight$", CausalLm::LAYERS);
                let matrices = ParamGroup::from_regex(&names).map_err(|e| anyhow!("{e:?}"))?;
                let lora = Lora::new(rank, 2.0 * rank as f64).set_param_group(matrices);
                (plain(), model.apply_lora(lora))
            }
            Method::Lora if !settings.is_whole() => (plain(), model.with_lora(&settings.lora())?),
            _ if method.is_torch() => bail!("`{method}` runs in PyTorch"),
            _ => {
                let model = match method {
                    Method::Lora | Method::LoraRecompute => model.with_lora(&settings.lora())?,
                    _ => model,
                };
                let config = method.lisa_config(settings, model.num_layers());
                let (lisa, model) = if method.quantizes() {
                    config.init_on(adamw(), model, device)?
                } else {
                    config.init(adamw(), model)?
                };
                let lisa = Box::new(lisa);
                if method.recomputes() {
                    let recompute = method.recompute(model.num_layers());
                    (Self::Layered(lisa, recompute), model)
                } else {
                    (Self::Lisa(lisa), model)
                }
            }
        })
    }

    /// One step as `lisa train` takes it, with accumulated and clipped gradients and with dropout, all
    /// as the settings say. Returns the model and the loss of the last batch.
    pub(crate) fn whole_step(
        &mut self,
        settings: &Settings,
        model: CausalLm,
        batch: &BatchTensors,
        seed: u64,
    ) -> Result<(CausalLm, f64)> {
        let dropped = model.clone().with_dropout(Some(seed));
        let mut accumulator = GradientsAccumulator::new();
        let mut last = 0.0;
        for _ in 0..settings.accumulation {
            let (grads, loss) = if let Self::Layered(_, recompute) = self {
                let pass = recompute.forward(&dropped, batch);
                let loss = pass.loss();
                (pass.backward(&dropped), loss)
            } else {
                let loss = dropped.batch_loss(batch.clone());
                let grads = GradientsParams::from_grads(loss.clone().backward(), &dropped);
                (grads, loss)
            };
            last = f64::from(loss.into_scalar::<f32>());
            accumulator.accumulate(&dropped, grads);
        }
        let grads = accumulator.grads();
        drop(dropped);
        let model = match self {
            Self::Plain(optimizer) => optimizer.step(settings.lr, model, grads),
            Self::Lisa(lisa) | Self::Layered(lisa, _) => {
                lisa.check_finite(&model, &grads)?;
                lisa.try_step(settings.lr, model, grads)?
            }
        };
        Ok((model.with_dropout(None), last))
    }

    /// One step: returns the model, the loss and the times. A layered step updates during the backward
    /// pass and reports 0 for the update.
    pub(crate) fn step(
        &mut self,
        lr: f64,
        model: CausalLm,
        batch: &BatchTensors,
        device: &Device,
    ) -> Result<(CausalLm, f64, Times)> {
        let mut clock = Clock::start(device);
        if let Self::Layered(lisa, recompute) = self {
            let pass = recompute.forward(&model, batch);
            let loss = pass.loss();
            let forward = clock.lap()?;
            let model = lisa.try_step_layered(lr, model, pass)?;
            let times = Times {
                forward,
                backward: clock.lap()?,
                update: 0.0,
                live: clock.live,
            };
            return Ok((model, f64::from(loss.into_scalar::<f32>()), times));
        }
        let loss = model.next_token_loss(&batch.input, batch.targets.clone());
        let forward = clock.lap()?;
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        let loss = loss.detach();
        let backward = clock.lap()?;
        let model = match self {
            Self::Plain(optimizer) => optimizer.step(lr, model, grads),
            Self::Lisa(lisa) | Self::Layered(lisa, _) => lisa.try_step(lr, model, grads)?,
        };
        let times = Times {
            forward,
            backward,
            update: clock.lap()?,
            live: clock.live,
        };
        Ok((model, f64::from(loss.into_scalar::<f32>()), times))
    }

    pub(crate) fn lisa(&self) -> Option<&Lisa> {
        match self {
            Self::Plain(_) => None,
            Self::Lisa(lisa) | Self::Layered(lisa, _) => Some(lisa),
        }
    }

    /// The active layers; none without LISA.
    pub(crate) fn active_layers(&self) -> &[usize] {
        self.lisa().map_or(&[], Lisa::active_layers)
    }
}

/// Time between two points at which the device has finished.
struct Clock<'a> {
    device: &'a Device,
    last: Instant,
    /// The most bytes in use at these points.
    live: u64,
}

impl<'a> Clock<'a> {
    fn start(device: &'a Device) -> Self {
        let last = Instant::now();
        Self {
            device,
            last,
            live: 0,
        }
    }

    fn lap(&mut self) -> Result<f64> {
        let synced = self.device.sync();
        synced.map_err(|e| anyhow!("the device failed: {e:?}"))?;
        let seconds = self.last.elapsed().as_secs_f64();
        self.live = self.live.max(memory::live(self.device));
        self.last = Instant::now();
        Ok(seconds)
    }
}
