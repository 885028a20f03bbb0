//! `lisa plan`: the memory that each method needs, from `config.json` only.

use std::path::PathBuf;

use anyhow::{Context, Result};
use burn::tensor::Device;
use clap::Args;
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
use crate::train::fitting::{WAYS, changes};
use crate::train::limits::Limits;
use crate::train::planned::{Planned, room};

/// Options of `lisa plan`.
#[derive(Args, Debug)]
pub struct Options {
    /// Memory of the device in GiB; the table then says which methods fit
    #[arg(long, value_name = "GIB", value_parser = gib)]
    memory: Option<f64>,
    /// Folder of a model, or a hub id, for config.json [default: bundled]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Dtype of the weights [default: as stored; bundled model: f32]
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Rows of a batch [default: 4]
    #[arg(long, value_name = "ROWS")]
    batch_size: Option<usize>,
    /// Tokens of a row [default: 512, at most the model's limit]
    #[arg(long, value_name = "TOKENS")]
    max_seq_length: Option<usize>,
    /// Layers that LISA trains at a time [default: 2; 4 from 48 layers on]
    #[arg(long, value_name = "N")]
    active_layers: Option<usize>,
    /// Rank of the adapters of LoRA [default: 8]
    #[arg(long, value_name = "R")]
    lora_rank: Option<usize>,
    /// Without f32 master weights for bf16 and f16
    #[arg(long)]
    no_master_weights: bool,
    /// TOML file of settings, such as that of a run
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
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
                ..TrainingFlags::default()
            },
            ..Flags::default()
        };
        Ok(flags.or(file))
    }
}

/// Prints the table.
pub fn plan(options: &Options, device: &Device) -> Result<()> {
    Ok(say(table(options.flags()?, device)?.trim_end())?)
}

/// One line per method with what its memory holds at the peak of a step. With the memory of the device,
/// it says which methods fit.
fn table(mut flags: Flags, device: &Device) -> Result<String> {
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
    let bytes = (settings.memory.memory > 0.0)
        .then(|| room(&settings, device))
        .flatten();
    let mut text = format!(
        "{:.1} M parameters in {}, {}, {} of {}; memory at the peak of a step\n\n{}\n",
        model.num_parameters() as f64 / 1e6,
        counted(model.num_layers(), "layer"),
        settings.memory.dtype,
        counted(rows, "row"),
        counted(tokens, "token"),
        HEADER
    );
    let mut fits = false;
    for (flags, settings) in methods(&settings, &model) {
        let plan = Planned::of(&settings, &model, device, rows, tokens)?;
        let fitting = bytes.map(|bytes| plan.needed() <= bytes);
        fits |= fitting == Some(true);
        text.push_str(&line(&flags, &plan, fitting));
    }
    text.push_str(
        "\nThe columns add up to the peak, without host memory, which a CPU needs as well. Quantized \
         layers need recomputation: a backward pass without it keeps their dequantized weights.\n",
    );
    if settings.method.outer_every > 1 {
        text.push_str(&format!(
            "The peak is that of a period in which the parameters outside the layers train, 1 of {}.\n",
            settings.method.outer_every
        ));
    }
    if let Some(bytes) = bytes {
        text.push_str(&limits(&settings, &model, device, positions, bytes)?);
    }
    if let Some(bytes) = bytes.filter(|_| !fits) {
        text.push_str(&format!(
            "none fits into {}; what would: {}\n",
            size(bytes),
            changes(&settings, &model, device, tokens, bytes)?
        ));
    }
    Ok(text)
}

/// What fits into memory: for each method the longest row and the largest batch, and the flags to
/// paste.
fn limits(
    settings: &Settings,
    model: &CausalLm,
    device: &Device,
    positions: usize,
    bytes: u64,
) -> Result<String> {
    let tokens = settings.input.max_seq_length;
    let mut text = format!(
        "\nwhat fits into {}: the most tokens of a single row (the model has {positions} positions), and \
         the most rows of {} in a batch\n\n   tokens      rows  flags\n",
        size(bytes),
        counted(tokens, "token"),
    );
    for (flags, settings) in methods(settings, model) {
        let found = Limits::of(&settings, model, device, (tokens, positions), bytes)?;
        let flags = match found.flags(tokens) {
            Some(largest) => format!("{flags} {largest}"),
            None => format!("{flags}: does not fit"),
        };
        text.push_str(&format!("{:>9} {:>9}  {flags}\n", found.tokens, found.rows));
    }
    Ok(text)
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

/// The methods, and the ways to run LISA, with their flags.
fn methods(settings: &Settings, model: &CausalLm) -> Vec<(String, Settings)> {
    let of = |method| with_method(settings, method);
    let mut methods = vec![
        ("--method full".to_owned(), of(Method::Full)),
        ("--method lora".to_owned(), of(Method::Lora)),
    ];
    for (flags, way) in WAYS {
        let mut settings = of(Method::Lisa);
        way(&mut settings);
        methods.push((
            format!("--method lisa {flags}").trim_end().to_owned(),
            settings,
        ));
    }
    let every = model.num_layers().isqrt().max(1);
    let mut sublayers = of(Method::Lisa);
    WAYS[3].1(&mut sublayers);
    (sublayers.memory.recompute, sublayers.memory.sublayers) = (every, true);
    let flags = WAYS[3]
        .0
        .replace("--recompute", &format!("--recompute {every} --sublayers"));
    methods.push((format!("--method lisa {flags}"), sublayers));
    let mut quantized = of(Method::Lisa);
    quantized.memory.quantize = Quantize::Int8;
    methods.push(("--method lisa --quantize int8".to_owned(), quantized));
    methods
}
