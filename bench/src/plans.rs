//! `bench plans`: the planned peak of each method next to the measured one.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use clap::{Args, ValueEnum};

use crate::compare::worker::{Event, Order};
use crate::compare::{highest, plan};
use crate::memory::mib;
use crate::method::Method;
use crate::preset::Preset;
use crate::settings::Settings;
use crate::{files, process, workload};

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
        default_value = "smollm2,gpt2,tinyllama"
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
    /// Folder of the table, plans.md, and of the measurements, plans.jsonl, which are not repeated
    #[arg(long, default_value = "runs/plans", value_name = "DIR")]
    out: PathBuf,
}

/// Runs each method for a few steps, of which the last one is measured, and writes the table. The others
/// have one short row: they make the optimizer's state.
pub(crate) fn run(options: &Options) -> Result<()> {
    let methods: Vec<Method> = if options.methods.is_empty() {
        let all = Method::value_variants().iter().copied();
        all.filter(|method| !method.is_torch()).collect()
    } else {
        options.methods.clone()
    };
    files::make_folder(&options.out)?;
    let mut measured = Measured::open(options.out.join("plans.jsonl"))?;
    let mut text = String::from(
        "| preset | batch x tokens | method | planned MiB | measured MiB | planned / measured |\n\
         |---|--:|---|--:|--:|--:|\n",
    );
    print!("{text}");
    let (mut right, mut below, mut all) = (0, 0, 0);
    for &preset in &options.presets {
        for &batch in &options.batches {
            for &sequence in &options.sequences {
                for &method in &methods {
                    let settings = Settings {
                        preset,
                        model: None,
                        batch,
                        sequence,
                        ..options.settings.clone()
                    };
                    let settings = steps(method, settings)?;
                    let Some(planned) = planned(&settings, method, options.memory)? else {
                        continue;
                    };
                    let peak = measured.of(Order { settings, method })?;
                    let ratio = planned as f64 / peak as f64;
                    all += 1;
                    right += usize::from((1.0..=ABOVE).contains(&ratio));
                    below += usize::from(ratio < 1.0);
                    let (planned, peak) = (mib(planned), mib(peak));
                    let line = format!(
                        "| {preset} | {batch} x {sequence} | {method} | {planned} | {peak} | \
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
    files::write(&options.out.join("plans.md"), &text)?;
    // A pool reserves more than its tensors use, and `lisa plan` adds a share for it.
    let has_pool = Device::default().memory_pool_usage().is_some();
    ensure!(
        below == 0 || has_pool,
        "{below} of {all} plans are below the measured peak"
    );
    Ok(())
}

/// Two steps of one period; of three periods if the state of frozen layers stays somewhere. The last
/// period has the first layer and the last one among its active layers, which needs the most memory: its
/// seed is the first one from --seed that draws them.
fn steps(method: Method, settings: Settings) -> Result<Settings> {
    let periods = match method {
        Method::LisaKeep | Method::LisaOffload => 3,
        _ => 1,
    };
    let last = settings.config()?.num_layers() - 1;
    let mut settings = Settings {
        steps: 2 * periods,
        warmup: 1,
        period: 2,
        last_only: true,
        ..settings
    };
    let has_both = |settings: &Settings| {
        let draws = workload::draws(settings, last + 1);
        let of_last = draws
            .last()
            .is_some_and(|drawn| drawn.contains(&0) && drawn.contains(&last));
        of_last || settings.active_layers < 2
    };
    while !has_both(&settings) {
        settings.seed += 1;
    }
    Ok(settings)
}

/// The planned peak; none where it exceeds the memory or the model's positions are too few.
fn planned(settings: &Settings, method: Method, gib: f64) -> Result<Option<u64>> {
    let config = settings.config()?;
    if settings.sequence > config.max_positions() {
        return Ok(None);
    }
    let device = Device::default().autodiff();
    let flex = device.memory_pool_usage().is_none();
    let plan = plan::of(settings, method, &config.init(&device)?, flex)?;
    let fits = |planned: &u64| *planned as f64 <= gib * f64::from(1 << 30);
    Ok(plan.map(|(_, planned)| planned).filter(fits))
}

/// The measured peaks of this and of earlier calls, by the order as JSON, in a file with a line each.
struct Measured {
    path: PathBuf,
    peaks: HashMap<String, u64>,
}

impl Measured {
    fn open(path: PathBuf) -> Result<Self> {
        let text = if path.exists() {
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?
        } else {
            String::new()
        };
        // The last line may be cut.
        let peaks = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        Ok(Self {
            peaks: peaks.collect(),
            path,
        })
    }

    fn of(&mut self, order: Order) -> Result<u64> {
        let key = serde_json::to_string(&order)?;
        if let Some(&peak) = self.peaks.get(&key) {
            return Ok(peak);
        }
        let events: Vec<Event> = process::worker("method", &order, order.settings.threads)?;
        let peak = highest(&events, |event| event.peak)
            .with_context(|| format!("`{}` measured no memory", order.method))?;
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)?;
        writeln!(file, "{}", serde_json::to_string(&(&key, peak))?)?;
        self.peaks.insert(key, peak);
        Ok(peak)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_of_an_earlier_call_is_not_measured_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plans.jsonl");
        let order = |method| Order {
            settings: steps(method, Settings::default()).unwrap(),
            method,
        };
        let line = |method, peak: u64| {
            let key = serde_json::to_string(&order(method)).unwrap();
            serde_json::to_string(&(key, peak)).unwrap()
        };
        let text = format!(
            "{}\n{}",
            line(Method::Full, 7),
            &line(Method::Lora, 8)[..20]
        );
        fs::write(&path, text).unwrap();
        let mut measured = Measured::open(path).unwrap();
        assert_eq!(measured.of(order(Method::Full)).unwrap(), 7);
        // The line was cut.
        assert_eq!(measured.peaks.len(), 1);
    }

    /// The planned peak and the measured one.
    #[cfg(feature = "flex")]
    fn both(settings: &Settings, method: Method) -> [u64; 2] {
        let settings = steps(method, settings.clone()).unwrap();
        let planned = planned(&settings, method, 8.0).unwrap().unwrap();
        let mut events = Vec::new();
        let order = Order { settings, method };
        crate::compare::worker::train(&order, |event| {
            events.push(event.clone());
            Ok(())
        })
        .unwrap();
        [planned, highest(&events, |event| event.peak).unwrap()]
    }

    /// What a plan may be higher by on a CPU with a small L2 cache.
    #[cfg(feature = "flex")]
    const CACHES: u64 = 4 << 20;

    /// Narrow layers, so that what does not depend on their width counts most.
    #[cfg(feature = "flex")]
    #[test]
    fn no_plan_is_below_the_measured_peak() {
        use crate::memory::tests::alone;
        use crate::preset::Dtype;

        if !alone("plans::tests::no_plan_is_below_the_measured_peak") {
            return;
        }
        let methods = Method::value_variants().iter().copied();
        for method in methods.filter(|method| !method.is_torch()) {
            for dtype in [Dtype::F32, Dtype::Bf16] {
                let settings = Settings {
                    preset: Preset::Smollm2,
                    shrink: 8,
                    vocabulary: Some(512),
                    sequence: 64,
                    dtype,
                    ..Settings::default()
                };
                let [planned, measured] = both(&settings, method);
                assert!(
                    planned >= measured,
                    "{method} in {dtype}: {planned} of {measured}"
                );
            }
        }
    }

    /// Shapes in which attention needs most: norms of queries and keys (Qwen3), and many narrow heads.
    #[cfg(feature = "flex")]
    #[test]
    fn plans_hold_for_shapes_with_large_attention() {
        use crate::memory::tests::alone;

        if !alone("plans::tests::plans_hold_for_shapes_with_large_attention") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let shapes = [
            (
                r#"{"model_type": "qwen3", "vocab_size": 512, "hidden_size": 256, "intermediate_size": 512,
                    "num_hidden_layers": 12, "num_attention_heads": 8, "num_key_value_heads": 4,
                    "head_dim": 64, "max_position_embeddings": 1024}"#,
                300,
                1,
            ),
            (
                r#"{"model_type": "llama", "vocab_size": 512, "hidden_size": 128, "intermediate_size": 256,
                    "num_hidden_layers": 4, "num_attention_heads": 32, "max_position_embeddings": 1024}"#,
                512,
                1,
            ),
            (
                r#"{"model_type": "llama", "vocab_size": 512, "hidden_size": 256, "intermediate_size": 256,
                    "num_hidden_layers": 2, "num_attention_heads": 64, "max_position_embeddings": 1024}"#,
                256,
                2,
            ),
        ];
        for (shape, sequence, batch) in shapes {
            fs::write(dir.path().join("config.json"), shape).unwrap();
            for method in [
                Method::Full,
                Method::Lora,
                Method::LoraRecompute,
                Method::Lisa,
                Method::LisaRecompute,
                Method::LisaFrozenEmbeddings,
                Method::LisaRecomputeFrozenEmbeddings,
            ] {
                let settings = Settings {
                    model: Some(dir.path().into()),
                    sequence,
                    batch,
                    ..Settings::default()
                };
                let [planned, measured] = both(&settings, method);
                let most = measured + measured / 4 + CACHES;
                assert!(
                    (measured..most).contains(&planned),
                    "{batch} x {sequence}, {method}: {planned} of {measured}"
                );
            }
        }
    }

    /// Many tokens and a small head, so that the layers need most of the memory.
    #[cfg(feature = "flex")]
    #[test]
    fn plans_of_layers_are_close_to_the_measured_peak() {
        use crate::memory::tests::alone;

        if !alone("plans::tests::plans_of_layers_are_close_to_the_measured_peak") {
            return;
        }
        for preset in [Preset::Smollm2, Preset::Gpt2] {
            for method in [
                Method::LoraRecompute,
                Method::LisaFrozenEmbeddings,
                Method::LisaRecompute,
                Method::LisaRecomputeFrozenEmbeddings,
            ] {
                let settings = Settings {
                    preset,
                    shrink: 4,
                    vocabulary: Some(512),
                    sequence: 256,
                    batch: 8,
                    ..Settings::default()
                };
                let [planned, measured] = both(&settings, method);
                // The packed operands of matmuls are planned with 4 MiB.
                let most = measured + measured / 25 + (4 << 20) + CACHES;
                assert!(
                    (measured..most).contains(&planned),
                    "{preset}, {method}: {planned} of {measured}"
                );
            }
        }
    }

    #[test]
    fn kept_state_is_measured_over_three_draws() {
        let draws = |method| {
            let settings = steps(method, Settings::default()).unwrap();
            workload::draws(&settings, 16).len()
        };
        assert_eq!(draws(Method::Lisa), 1);
        assert_eq!(draws(Method::LisaKeep), 3);
    }

    #[test]
    fn the_last_period_has_the_first_layer_and_the_last_one() {
        for method in [Method::Lisa, Method::LisaOffload] {
            let settings = steps(method, Settings::default()).unwrap();
            let draws = workload::draws(&settings, 16);
            assert_eq!(draws.last().unwrap(), &[0, 15]);
        }
    }
}
