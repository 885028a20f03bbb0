//! One method in a process of its own: prints an [`Event`] as JSON for each step.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use burn::tensor::{Device, FloatDType};
use cpu_time::ProcessTime;
use lisa_lm::checkpoint::SaveOptions;
use serde::{Deserialize, Serialize};

use crate::method::Method;
use crate::settings::Settings;
use crate::trainer::{Times, Trainer};
use crate::{memory, number, workload};

/// Tokens in the rows of short steps.
const SHORT: usize = 16;

/// A method to run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) settings: Settings,
    pub(crate) method: Method,
}

/// A folder for the weights that every method starts from.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Weights {
    pub(crate) settings: Settings,
    pub(crate) folder: PathBuf,
}

/// The measurements of one step; PyTorch's script prints the same.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Event {
    /// Counted from 0; none for the event before the first step.
    pub(crate) step: Option<usize>,
    #[serde(default, deserialize_with = "number::or_nan")]
    pub(crate) loss: f64,
    /// Seconds of the phases.
    #[serde(default)]
    pub(crate) forward: f64,
    #[serde(default)]
    pub(crate) backward: f64,
    #[serde(default)]
    pub(crate) update: f64,
    /// CPU seconds of all threads.
    #[serde(default)]
    pub(crate) cpu: f64,
    /// The most bytes in use during the step (on a GPU: that its pool reserved), and at the ends of its
    /// forward pass, backward pass and update. Where they are counted, and without what `host` counts.
    pub(crate) peak: Option<u64>,
    pub(crate) live: Option<u64>,
    /// Bytes of optimizer state and master weights on the device.
    pub(crate) state: Option<u64>,
    /// Bytes that are kept in host memory: offloaded optimizer state, and full-precision weights of
    /// quantized layers.
    pub(crate) host: Option<u64>,
    /// The high-water mark of the resident set since the setup.
    pub(crate) rss: Option<u64>,
}

/// Trains, and gives what was measured before the first step and in each step.
pub(crate) fn train(order: &Order, mut each: impl FnMut(&Event) -> Result<()>) -> Result<()> {
    let (settings, method) = (&order.settings, order.method);
    let device = Device::default();
    let training = device.clone().autodiff();
    ensure!(
        device.supports_dtype(FloatDType::from(settings.dtype)),
        "{device:?} does not support {}; give another dtype by --dtype",
        settings.dtype
    );
    let model = workload::model(settings, &origin(method, &training))?;
    let (mut trainer, mut model) = Trainer::new(settings, method, model, &training)?;
    let tokens = workload::tokens(settings)?;
    let setup = memory::peak(&device);
    memory::reset(&device);
    each(&Event {
        peak: Some(setup),
        live: Some(memory::live(&device)),
        ..Event::default()
    })?;
    for step in 0..settings.steps {
        let short = Settings {
            batch: 1,
            sequence: settings.sequence.min(SHORT),
            padding: 0,
            ..settings.clone()
        };
        let is_short = settings.last_only && step + 1 < settings.steps;
        let of_step = if is_short { &short } else { settings };
        let batch = workload::batch(of_step, &tokens, step, &training);
        let host = |trainer: &Trainer| trainer.lisa().map(|lisa| lisa.memory().on_host());
        let host_before = host(&trainer);
        let cpu = ProcessTime::now();
        let (stepped, loss, times) = if settings.is_whole() {
            let begun = Instant::now();
            let (stepped, loss) = trainer.whole_step(settings, model, &batch, step as u64)?;
            let times = Times {
                forward: 0.0,
                backward: 0.0,
                update: begun.elapsed().as_secs_f64(),
                live: memory::live(&device),
            };
            (stepped, loss, times)
        } else {
            trainer.step(settings.lr, model, &batch, &training)?
        };
        let cpu = cpu.elapsed().as_secs_f64();
        model = stepped;
        // The allocator counts host memory too; a device with its own pool does not.
        let on_heap = match device.memory_pool_usage() {
            Some(_) => 0,
            None => host_before.min(host(&trainer)).unwrap_or(0),
        };
        each(&Event {
            step: Some(step),
            loss,
            forward: times.forward,
            backward: times.backward,
            update: times.update,
            cpu,
            peak: Some(memory::peak(&device).saturating_sub(on_heap)),
            live: Some(times.live.saturating_sub(on_heap)),
            state: trainer.lisa().map(|lisa| lisa.memory().on_device()),
            host: host(&trainer),
            rss: memory::resident_peak(),
        })?;
        memory::reset_heap();
    }
    Ok(())
}

/// Where the model is initialized: in host memory where the device might not hold its exact weights.
#[cfg(feature = "flex")]
fn origin(method: Method, device: &Device) -> Device {
    if method.quantizes() {
        Device::flex().autodiff()
    } else {
        device.clone()
    }
}

#[cfg(not(feature = "flex"))]
fn origin(_: Method, device: &Device) -> Device {
    device.clone()
}

/// Writes the weights as a Hugging Face folder.
pub(crate) fn save_weights(order: &Weights) -> Result<()> {
    let model = workload::model(&order.settings, &Device::default())?;
    Ok(lisa_lm::checkpoint::save(
        &model,
        &order.folder,
        &SaveOptions::default(),
    )?)
}
