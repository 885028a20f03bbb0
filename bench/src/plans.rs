//! `bench plans`: the planned peak of each method next to the measured one.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use burn::tensor::Device;
use clap::{Args, ValueEnum};

use crate::compare::worker::{Event, Order};
use crate::compare::{highest, plan};
use crate::memory::mib;
use crate::method::Method;
use crate::preset::Preset;
use crate::settings::Settings;
use crate::{files, process};

/// A plan is right if it is at most this much above the measured peak, and not below it.
const ABOVE: f64 = 1.05;

/// Options of the table.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    settings: Settings,
    /// Presets, separated by commas; --preset and --model are ignored
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "A,B,..",
        default_value = "small,smollm2,gpt2"
    )]
    presets: Vec<Preset>,
    /// Methods, separated by commas [default: all but PyTorch's]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "A,B,..")]
    methods: Vec<Method>,
    /// Numbers of rows in a batch; --batch is ignored
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "ROWS,..",
        default_value = "1,8"
    )]
    batches: Vec<usize>,
    /// Numbers of tokens in a row; --sequence is ignored
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "TOKENS,..",
        default_value = "256,1024"
    )]
    sequences: Vec<usize>,
    /// Leave out what is planned to need more memory, in GiB
    #[arg(long, value_name = "GIB", default_value_t = 8.0)]
    memory: f64,
    /// File of the table
    #[arg(long, default_value = "runs/plans.md", value_name = "FILE")]
    out: PathBuf,
}

/// Runs each method for three steps, the first of which makes the optimizer's state, and writes the
/// table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let methods: Vec<Method> = if options.methods.is_empty() {
        let all = Method::value_variants().iter().copied();
        all.filter(|method| !method.is_torch()).collect()
    } else {
        options.methods.clone()
    };
    let mut text = String::from(
        "| preset | batch x tokens | method | planned MiB | measured MiB | planned / measured |\n\
         |---|--:|---|--:|--:|--:|\n",
    );
    print!("{text}");
    let (mut right, mut below, mut all) = (0, 0, 0);
    for &preset in &options.presets {
        for &sequence in &options.sequences {
            for &batch in &options.batches {
                for &method in &methods {
                    let settings = Settings {
                        preset,
                        model: None,
                        batch,
                        sequence,
                        steps: 3,
                        warmup: 1,
                        period: 4,
                        ..options.settings.clone()
                    };
                    let Some((planned, measured)) = pair(&settings, method, options.memory)? else {
                        continue;
                    };
                    let ratio = planned as f64 / measured as f64;
                    all += 1;
                    right += usize::from((1.0..=ABOVE).contains(&ratio));
                    below += usize::from(ratio < 1.0);
                    let (planned, measured) = (mib(planned), mib(measured));
                    let line = format!(
                        "| {preset} | {batch} x {sequence} | {method} | {planned} | {measured} | \
                         {ratio:.3} |\n"
                    );
                    print!("{line}");
                    text.push_str(&line);
                }
            }
        }
    }
    ensure!(all > 0, "everything needs more than --memory");
    let summary = format!(
        "\n{right} of {all} plans are at most {:.0} % above the measured peak and not below it; {below} \
         are below.\n",
        (ABOVE - 1.0) * 100.0
    );
    print!("{summary}");
    text.push_str(&summary);
    files::write(&options.out, &text)
}

/// The planned and the measured peak; none where the plan exceeds the memory or the model's positions
/// are too few.
fn pair(settings: &Settings, method: Method, gib: f64) -> Result<Option<(u64, u64)>> {
    if settings.sequence > settings.config()?.max_positions() {
        return Ok(None);
    }
    let device = Device::default().autodiff();
    let flex = device.memory_pool_usage().is_none();
    let model = settings.config()?.init(&device)?;
    let Some((_, planned)) = plan::of(settings, method, &model, flex)? else {
        return Ok(None);
    };
    if planned as f64 > gib * f64::from(1 << 30) {
        return Ok(None);
    }
    let order = Order {
        settings: settings.clone(),
        method,
    };
    let events: Vec<Event> = process::worker("method", &order, settings.threads)?;
    Ok(highest(&events, |event| event.peak).map(|measured| (planned, measured)))
}
