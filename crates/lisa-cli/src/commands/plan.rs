//! `lisa plan`: the memory that each method needs, from `config.json` only.

use std::path::PathBuf;

use anyhow::{Context, Result};
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use lisa_lm::{CausalLm, ModelConfig};

use crate::bundled;
use crate::hub_files::Need;
use crate::model_folder::folder_with;
use crate::settings::{
    Dtype, Facts, Flags, InputFlags, MemoryFlags, Method, MethodFlags, ModelFacts, Quantize,
    Settings, TrainingFlags, gib,
};
use crate::terminal::output::say;
use crate::terminal::text::{counted, size};
use crate::train::memory::fitting::{FROZEN, LAYERED_FROZEN, apply, ways};
use crate::train::memory::hardware::Hardware;
use crate::train::memory::like_lora::like_lora;
use crate::train::memory::limits::Limits;
use crate::train::memory::planned::{MARGIN, Planned, Planner};

/// Options of `lisa plan`.
#[derive(Args, Debug)]
pub struct Options {
    /// Memory of the device in GiB; the table then says what fits
    #[arg(long, value_name = "GIB", value_parser = gib)]
    memory: Option<f64>,
    /// Device to plan for [default: gpu with --memory]
    #[arg(long, value_enum, value_name = "DEVICE")]
    device: Option<On>,
    /// Model folder or hub id, for config.json [default: bundled]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Branch, tag or commit on the hub [default: main]
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Dtype of the weights [default: as stored; bundled: f32]
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Rows of a batch [default: 4]
    #[arg(long, value_name = "ROWS")]
    batch_size: Option<usize>,
    /// Batches of an optimizer step [default: 1]
    #[arg(long, value_name = "N")]
    gradient_accumulation_steps: Option<usize>,
    /// Tokens of a row [default: 512, at most the model's limit]
    #[arg(long, value_name = "TOKENS")]
    max_seq_length: Option<usize>,
    /// Layers LISA trains at a time [default: by model]
    #[arg(long, value_name = "N")]
    active_layers: Option<usize>,
    /// Rank of the adapters of LoRA [default: 8]
    #[arg(long, value_name = "R")]
    lora_rank: Option<usize>,
    /// Without f32 master weights for bf16 and f16
    #[arg(long)]
    no_master_weights: bool,
    /// TOML file of settings, such as the one in a model card
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
}

/// A device that a table is made for.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    /// A GPU with memory of its own
    Gpu,
    /// A CPU
    Cpu,
}

impl On {
    /// The hardware to plan for, where the program itself uses this device.
    fn hardware(self, device: &Device) -> Hardware {
        match (self, Hardware::from(device)) {
            (Self::Gpu, _) => Hardware::Gpu,
            (Self::Cpu, Hardware::Gpu) => Hardware::Flex,
            (Self::Cpu, cpu) => cpu,
        }
    }
}

impl Options {
    /// The settings that were given.
    fn flags(&self) -> Result<Flags> {
        let file = match &self.config {
            Some(path) => Flags::from_file(path)?,
            None => Flags::default(),
        };
        let flags = Flags {
            input: InputFlags {
                model: self.model.clone(),
                revision: self.revision.clone(),
                max_seq_length: self.max_seq_length,
                ..InputFlags::default()
            },
            method: MethodFlags {
                active_layers: self.active_layers,
                lora_rank: self.lora_rank,
                ..MethodFlags::default()
            },
            memory: MemoryFlags {
                memory: self.memory,
                dtype: self.dtype,
                no_master_weights: self.no_master_weights.then_some(true),
                ..MemoryFlags::default()
            },
            training: TrainingFlags {
                batch_size: self.batch_size,
                gradient_accumulation_steps: self.gradient_accumulation_steps,
                ..TrainingFlags::default()
            },
            ..Flags::default()
        };
        Ok(flags.or(file))
    }
}

/// Prints the table.
pub fn plan(options: &Options, device: &Device) -> Result<()> {
    let table = table(options.flags()?, options.device, device)?;
    Ok(say(table.trim_end())?)
}

/// One line per method with what its memory holds at the peak of a step. With the memory of the device,
/// it says which methods fit.
fn table(mut flags: Flags, on: Option<On>, device: &Device) -> Result<String> {
    let path = flags.input.model.clone().unwrap_or_default();
    let config = if path.as_os_str().is_empty() {
        ModelConfig::from_json(bundled::CONFIG)?
    } else {
        let revision = flags.input.revision.clone().unwrap_or_default();
        let path = folder_with(&path, &revision, Need::Config)?.join("config.json");
        let text = lisa_lm::files::read_small_text(&path)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        ModelConfig::from_json(&text).map_err(|e| {
            let line = e.place().and_then(|(_, line)| line);
            e.with_place(&path, line)
        })?
    };
    // Parameters are initialized lazily: nothing is allocated.
    let model = config.init(&device.clone().autodiff())?;
    let positions = config.max_positions();
    let facts = ModelFacts {
        dtype: Dtype::of(&config),
        parameters: model.num_parameters(),
        layers: model.num_layers(),
        positions,
    };
    flags.input.max_seq_length = flags.input.max_seq_length.or(Some(positions.min(512)));
    let gives_layers = flags.method.active_layers.is_some() || flags.decides_trainable();
    let masters = MemoryFlags {
        no_master_weights: flags.memory.no_master_weights,
        ..MemoryFlags::default()
    };
    let (settings, _) = flags.resolve_with(Facts {
        model: Some(&facts),
        ..Facts::default()
    })?;
    // The other flags have an effect on a row of the table, whatever the method is.
    let masters = Flags {
        memory: masters,
        ..Flags::default()
    };
    masters.check_effect(&with_method(&settings, Method::Lisa))?;
    let (rows, tokens) = (settings.training.batch_size, settings.input.max_seq_length);
    // Who names the memory of a device asks for a GPU.
    let has_memory = settings.memory.memory > 0.0;
    let hardware = match on.or(has_memory.then_some(On::Gpu)) {
        Some(on) => on.hardware(device),
        None => device.into(),
    };
    let planner = Planner::new(&model, hardware);
    let bytes = planner.room(&settings).filter(|_| has_memory);
    let mut text = heading(&settings, &model, hardware);
    let defaults = if gives_layers || !facts.is_of_studied_size() {
        None
    } else {
        Some(like_lora(planner, &settings, (rows, tokens), bytes)?)
    };
    let methods = methods(&settings, &model, &facts, defaults);
    for (flags, settings) in &methods {
        let plan = planner.plan(settings, rows, tokens)?;
        let fitting = bytes.map(|bytes| plan.needed() <= bytes);
        text.push_str(&line(flags, &plan, fitting));
    }
    text.push_str(
        "\nThe columns add up to the peak, without host memory. Quantized layers need recomputation: a \
         backward pass without it keeps their dequantized weights.\n",
    );
    if settings.method.outer_every > 1 {
        text.push_str(&format!(
            "The peak is that of a period in which the parameters outside the layers train, 1 of {}.\n",
            settings.method.outer_every
        ));
    }
    if let Some(bytes) = bytes {
        text.push_str(&limits(planner, &methods, (tokens, positions), bytes)?);
    }
    Ok(text)
}

/// What the table is of.
fn heading(settings: &Settings, model: &CausalLm, hardware: Hardware) -> String {
    let accumulated = match settings.training.gradient_accumulation_steps {
        1 => String::new(),
        batches => format!(", {batches} batches in a step"),
    };
    let device = match hardware {
        Hardware::Gpu => format!(
            "for a GPU: host memory is separate, and the memory pool needs {MARGIN} % in addition to the peak \
             (--device cpu: for a CPU)"
        ),
        _ => "for a CPU: it needs the host memory as well (--device gpu: for a GPU)".to_owned(),
    };
    format!(
        "{:.1} M parameters in {}, {}, {} of {}{accumulated}; memory at the peak of a step\n{device}\n\n\
         {HEADER}\n",
        model.num_parameters() as f64 / 1e6,
        counted(model.num_layers(), "layer"),
        settings.memory.dtype,
        counted(settings.training.batch_size, "row"),
        counted(settings.input.max_seq_length, "token"),
    )
}

/// What fits into memory: for each method the longest row and the largest batch, and the flags to
/// paste. If no method fits, what needs the least.
fn limits(
    planner: Planner<'_>,
    methods: &[(String, Settings)],
    (tokens, positions): (usize, usize),
    bytes: u64,
) -> Result<String> {
    let rows = methods[0].1.training.batch_size;
    let mut text = format!(
        "\nwhat fits into {}{}: the most tokens of a single row (the model has {positions} positions), and \
         the most rows of {} in a batch. The flags have {} in a step where that fits, in smaller batches if \
         necessary; the default learning rates are for 4 rows\n\n   tokens      rows  flags\n",
        size(bytes),
        planner.peaks_in(bytes),
        counted(tokens, "token"),
        counted(rows, "row"),
    );
    let mut fits = false;
    for (flags, settings) in methods {
        let found = Limits::of(planner, settings, (tokens, positions), bytes)?;
        let flags = match found.flags(planner, settings, tokens, bytes)? {
            Some(batch) => format!("{flags} {batch}"),
            None => format!("{flags}: does not fit"),
        };
        fits |= found.tokens > 0;
        text.push_str(&format!("{:>9} {:>9}  {flags}\n", found.tokens, found.rows));
    }
    if !fits {
        text.push_str(&least(planner, methods, tokens.min(SHORT), bytes)?);
    }
    Ok(text)
}

/// The tokens of the row for which the least memory is said.
const SHORT: usize = 64;

/// The method that needs the least memory for a row of so many tokens.
fn least(
    planner: Planner<'_>,
    methods: &[(String, Settings)],
    tokens: usize,
    bytes: u64,
) -> Result<String> {
    let plans = methods
        .iter()
        .map(|(flags, settings)| Ok((planner.plan(settings, 1, tokens)?, flags)));
    let plans = plans.collect::<Result<Vec<_>>>()?;
    let least = plans.iter().min_by_key(|(plan, _)| plan.needed());
    let Some((plan, flags)) = least else {
        return Ok(String::new());
    };
    let host = match plan.host {
        0 => String::new(),
        host => format!(" and {} of host memory", size(host)),
    };
    Ok(format!(
        "none fits into {}; the least is a peak of {}{host}, with {flags} --batch-size 1 --max-seq-length \
         {tokens}\n",
        size(bytes),
        size(plan.peak.total()),
    ))
}

const HEADER: &str = "     peak =  weights +    state + masters + gradients + activations + temporary |     \
                      host  flags";

fn line(flags: &str, plan: &Planned, fits: Option<bool>) -> String {
    let [weights, state, masters, gradients, activations, temporary] =
        plan.parts().map(|(_, bytes)| size(bytes));
    let fits = match fits {
        Some(true) => "fits: ",
        Some(false) => "does not fit: ",
        None => "",
    };
    format!(
        "{:>9}  {weights:>9}  {state:>9} {masters:>9} {gradients:>11} {activations:>13} {temporary:>11} \
         {:>10}  {fits}{flags}\n",
        size(plan.peak.total()),
        size(plan.host),
    )
}

fn with_method(settings: &Settings, method: Method) -> Settings {
    let mut settings = settings.clone();
    settings.method.method = method;
    settings
}

/// The methods, and the ways to run them, with their flags. `defaults` are the layers that LISA trains by
/// default with embeddings and head frozen.
fn methods(
    settings: &Settings,
    model: &CausalLm,
    facts: &ModelFacts,
    defaults: Option<usize>,
) -> Vec<(String, Settings)> {
    let mut methods: Vec<(String, Settings)> = Vec::new();
    let mut add = |method, flags: &[String], settings: Settings| {
        if methods.iter().all(|(_, other)| *other != settings) {
            let mut all = vec![format!("--method {method}")];
            // Where other layers and parameters would train by default.
            if method == Method::Lisa && facts.is_of_studied_size() {
                all.push(format!("--active-layers {}", settings.method.active_layers));
            }
            all.extend_from_slice(flags);
            methods.push((all.join(" "), settings));
        }
    };
    for (method, count) in [(Method::Full, 1), (Method::Lora, 2), (Method::Lisa, 7)] {
        if let (Method::Lisa, Some(active_layers)) = (method, defaults) {
            let mut settings = with_method(settings, method);
            settings.method.active_layers = active_layers;
            let flags = apply(&[FROZEN], &mut settings);
            add(method, &flags, settings);
        }
        for way in &ways(method)[..count] {
            let mut settings = with_method(settings, method);
            let flags = apply(way, &mut settings);
            add(method, &flags, settings);
        }
    }
    let every = model.num_layers().isqrt().max(1);
    let mut sublayers = with_method(settings, Method::Lisa);
    (sublayers.memory.recompute, sublayers.memory.sublayers) = (every, true);
    let mut flags = vec![format!("--recompute {every} --sublayers")];
    flags.extend(apply(LAYERED_FROZEN, &mut sublayers));
    add(Method::Lisa, &flags, sublayers);
    let mut quantized = with_method(settings, Method::Lisa);
    quantized.memory.quantize = Quantize::Int8;
    add(Method::Lisa, &["--quantize int8".to_owned()], quantized);
    methods
}

#[cfg(test)]
mod tests;
