//! `bench growth`: how time and memory of a LISA step grow with the length of the rows and with the
//! vocabulary, next to formulas.

use std::path::PathBuf;

use anyhow::{Context, Result};
use burn::tensor::Device;
use clap::Args;
use lisa_lm::CausalLm;

use crate::chart::{self, Series};
use crate::compare::worker::{Event, Order};
use crate::compare::{highest, plan};
use crate::memory::mib;
use crate::method::Method;
use crate::settings::Settings;
use crate::stats::median;
use crate::{files, process};

const SIZE: (u32, u32) = (900, 480);

/// Options of the measurement.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    settings: Settings,
    /// Tokens in a row; --sequence is ignored
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "TOKENS,..",
        default_value = "128,256,512,1024,2048,4096"
    )]
    sequences: Vec<usize>,
    /// Sizes of the vocabulary, with --sequence tokens in a row
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "N,..",
        default_value = "8192,16384,32768,65536,131072,262144"
    )]
    vocabularies: Vec<usize>,
    /// The method
    #[arg(long, value_enum, default_value = "lisa")]
    method: Method,
    /// Folder of the table and plots
    #[arg(long, default_value = "runs/growth", value_name = "DIR")]
    out: PathBuf,
}

/// A measurement.
struct Point {
    size: usize,
    cpu: f64,
    /// The matmuls of a step, in billions of multiplications.
    products: f64,
    measured: u64,
    planned: u64,
}

/// Measures both series and writes a table and a plot of each.
pub(crate) fn run(options: &Options) -> Result<()> {
    files::make_folder(&options.out)?;
    let mut text = String::new();
    let sequences = options.sequences.iter().map(|&sequence| Settings {
        sequence,
        ..options.settings.clone()
    });
    let vocabularies = options.vocabularies.iter().map(|&vocabulary| Settings {
        vocabulary: Some(vocabulary),
        ..options.settings.clone()
    });
    for (name, sizes, all) in [
        ("tokens", &options.sequences, sequences.collect::<Vec<_>>()),
        ("vocabulary", &options.vocabularies, vocabularies.collect()),
    ] {
        let mut points = Vec::new();
        for (&size, settings) in sizes.iter().zip(&all) {
            eprintln!("{name} {size}");
            points.push(measure(settings, options.method, size)?);
        }
        text.push_str(&table(name, &points));
        plot(&options.out.join(format!("{name}.svg")), name, &points)?;
    }
    println!("{text}");
    files::write(&options.out.join("growth.md"), &text)
}

fn measure(settings: &Settings, method: Method, size: usize) -> Result<Point> {
    settings.check()?;
    let device = Device::default().autodiff();
    let flex = device.memory_pool_usage().is_none();
    let model = settings.config()?.init(&device)?;
    let (_, planned) = plan::of(settings, method, &model, flex)?
        .with_context(|| format!("`{method}` has no plan"))?;
    let order = Order {
        settings: settings.clone(),
        method,
    };
    let events: Vec<Event> = process::worker("method", &order, settings.threads)?;
    let measured = events
        .iter()
        .filter(|event| event.step.is_some_and(|step| step >= settings.warmup));
    Ok(Point {
        size,
        cpu: median(&measured.map(|event| event.cpu).collect::<Vec<_>>()),
        products: products(&model, settings),
        measured: highest(&events, |event| event.peak).unwrap_or(0),
        planned,
    })
}

/// Billions of multiplications in the matmuls of a LISA step: every layer forward and its input's
/// gradient, the weights' gradients of the active layers, the head forward and with both gradients,
/// and attention forward, backward, and its scores once more.
fn products(model: &CausalLm, settings: &Settings) -> f64 {
    let config = model.config();
    let tokens = (settings.batch * settings.sequence) as f64;
    // The projection after attention, in every family: from all heads to the hidden state.
    let output = model.model.layers[0].self_attn.o_proj.weight.lazy_shape();
    let (heads_width, hidden) = (output[0], output[1]);
    let layers = config.num_layers() as f64;
    let head = (hidden * config.vocab_size()) as f64;
    let outside = if config.is_tied() { head } else { 2.0 * head };
    let layer = (model.num_parameters() as f64 - outside) / layers;
    let active = settings.active_layers as f64;
    let linear = tokens * ((2.0 * layers + active) * layer + 3.0 * head);
    let square = tokens * settings.sequence as f64 / 2.0 * heads_width as f64 * layers;
    (linear + 7.0 * square) / 1e9
}

/// The measurements, each relative to the one before.
fn table(name: &str, points: &[Point]) -> String {
    let mut text = format!(
        "| {name} | CPU-s a step | growth | G multiplications | growth | CPU-ns each | peak MiB | \
         planned MiB |\n|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    );
    let mut before: Option<&Point> = None;
    for point in points {
        let growth = |of: fn(&Point) -> f64| {
            before.map_or("-".to_owned(), |before| {
                format!("{:.2}", of(point) / of(before))
            })
        };
        text.push_str(&format!(
            "| {} | {:.2} | {} | {:.1} | {} | {:.4} | {} | {} |\n",
            point.size,
            point.cpu,
            growth(|point| point.cpu),
            point.products,
            growth(|point| point.products),
            point.cpu / point.products,
            mib(point.measured),
            mib(point.planned),
        ));
        before = Some(point);
    }
    text.push('\n');
    text
}

/// Seconds and GiB, measured and by formula. The formula of seconds is that of the matmuls, through the
/// first measurement.
fn plot(path: &std::path::Path, name: &str, points: &[Point]) -> Result<()> {
    const GIB: f64 = (1_u64 << 30) as f64;
    let each = points
        .first()
        .map_or(0.0, |point| point.cpu / point.products);
    let of = |title: &str, y: &dyn Fn(&Point) -> f64| -> Series {
        let points = points.iter().map(|point| (point.size as f64, y(point)));
        (title.to_owned(), points.collect())
    };
    let series = [
        of("CPU-s a step", &|point| point.cpu),
        of("CPU-s by the number of multiplications", &|point| {
            point.products * each
        }),
        of("peak, GiB", &|point| point.measured as f64 / GIB),
        of("planned peak, GiB", &|point| point.planned as f64 / GIB),
    ];
    chart::write(path, SIZE, |area| chart::lines(area, [name, ""], &series))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset::Preset;

    #[test]
    fn multiplications_are_those_of_the_shape() {
        // `tiny`: hidden 16, two heads of 8, two layers of 4 * 256 + 3 * 512 + 32 parameters (the feed-
        // forward network is padded to 16), vocabulary 64, untied.
        let settings = Settings {
            preset: Preset::Tiny,
            batch: 3,
            sequence: 8,
            active_layers: 1,
            ..Settings::default()
        };
        let model = settings.config().unwrap().init(&Device::default());
        let model = model.unwrap();
        let outside = 2 * 64 * 16;
        let layers = (model.num_parameters() - outside) as f64;
        let linear = 24.0 * (2.5 * layers + 3.0 * 1024.0);
        let attention = 24.0 * 4.0 * 16.0 * 2.0 * 7.0;
        let found = products(&model, &settings) * 1e9;
        assert!((found - linear - attention).abs() < 1e-3, "{found}");
    }
}
