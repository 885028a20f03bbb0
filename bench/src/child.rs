//! One method in a process of its own: prints an event as JSON for each step.

use std::path::Path;

use anyhow::{Result, ensure};
use burn::tensor::{Device, Int, Tensor, TensorData};
use cpu_time::ProcessTime;
use lisa_lm::{BatchTensors, IGNORED, SaveOptions};
use serde::{Deserialize, Serialize};

use crate::method::{Method, Trainer};
use crate::settings::Settings;
use crate::{memory, preset};

/// What a method tells of one step; PyTorch's script prints the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Event {
    /// Counted from 0; none for the event before the first step.
    pub(crate) step: Option<usize>,
    #[serde(default)]
    pub(crate) loss: f64,
    /// Seconds of the parts.
    #[serde(default)]
    pub(crate) forward: f64,
    #[serde(default)]
    pub(crate) backward: f64,
    #[serde(default)]
    pub(crate) update: f64,
    /// CPU seconds of all threads.
    #[serde(default)]
    pub(crate) cpu: f64,
    /// The most bytes live during the step, where they are counted.
    pub(crate) peak: Option<u64>,
    /// Bytes live behind it.
    pub(crate) live: Option<u64>,
    /// Bytes of moments and master weights on the device, and on the host.
    pub(crate) state: Option<u64>,
    pub(crate) host: Option<u64>,
    /// The high-water mark of the resident set since the setup.
    pub(crate) rss: Option<u64>,
    /// Numbers that train.
    pub(crate) trained: Option<u64>,
}

/// Trains and prints.
pub(crate) fn run(settings: &Settings, method: Method) -> Result<()> {
    let device = Device::default();
    let training = device.clone().autodiff();
    ensure!(
        device.supports_dtype(preset::dtype(settings)),
        "{device:?} does not compute in {}; give another type by --dtype",
        settings.dtype
    );
    let model = preset::model(settings, &origin(method, &training))?;
    let (mut trainer, mut model) = Trainer::new(settings, method, model, &training)?;
    let tokens = preset::tokens(settings);
    let setup = memory::peak(&device);
    memory::reset(&device);
    print(&Event {
        step: None,
        loss: 0.0,
        forward: 0.0,
        backward: 0.0,
        update: 0.0,
        cpu: 0.0,
        peak: Some(setup),
        live: Some(memory::live(&device)),
        state: None,
        host: None,
        rss: None,
        trained: None,
    })?;
    for step in 0..settings.steps {
        let batch = batch(settings, &tokens, step, &training);
        let host = |trainer: &Trainer| {
            let bytes = |lisa: &lisa::Lisa| lisa.memory().on_host();
            trainer.lisa().map(bytes)
        };
        let host_before = host(&trainer);
        let cpu = ProcessTime::now();
        let (stepped, loss, times) = trainer.step(settings.lr, model, &batch, &training)?;
        let cpu = cpu.elapsed().as_secs_f64();
        model = stepped;
        let lisa = trainer.lisa();
        // What waits on the host is told apart from what the device would hold.
        let on_heap = match device.memory_pool_usage() {
            Some(_) => 0,
            None => host_before.min(host(&trainer)).unwrap_or(0),
        };
        print(&Event {
            step: Some(step),
            loss,
            forward: times.forward,
            backward: times.backward,
            update: times.update,
            cpu,
            peak: Some(memory::peak(&device).saturating_sub(on_heap)),
            live: Some(memory::live(&device).saturating_sub(on_heap)),
            state: lisa.map(|lisa| lisa.memory().on_device()),
            host: host(&trainer),
            rss: memory::resident_peak(),
            trained: None,
        })?;
        crate::HEAP.reset_peak_usage();
    }
    Ok(())
}

/// Where the model is made: in the host's memory where the device could not hold it exactly.
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

/// Writes the weights that all methods start from as a Hugging Face folder.
pub(crate) fn save_weights(settings: &Settings, dir: &Path) -> Result<()> {
    let model = preset::model(settings, &Device::default())?;
    Ok(lisa_lm::save(&model, dir, &SaveOptions::default())?)
}

/// The rows of a step; the last token of a row has no target.
pub(crate) fn batch(
    settings: &Settings,
    tokens: &[u32],
    step: usize,
    device: &Device,
) -> BatchTensors {
    let shape = [settings.batch, settings.sequence];
    let size = settings.batch * settings.sequence;
    let first = step * size;
    let rows = &tokens[first..first + size];
    let ints =
        |values: Vec<i64>| Tensor::<2, Int>::from_data(TensorData::new(values, shape), device);
    let targets = rows
        .chunks(settings.sequence)
        .flat_map(|row| row[1..].iter().map(|t| i64::from(*t)).chain([IGNORED]));
    BatchTensors {
        targets: ints(targets.collect()),
        tokens: ints(rows.iter().map(|t| i64::from(*t)).collect()),
        padding: None,
        segments: None,
        positions: None,
    }
}

fn print(event: &Event) -> Result<()> {
    println!("{}", serde_json::to_string(event)?);
    Ok(())
}
