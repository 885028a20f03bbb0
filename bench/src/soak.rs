//! A long run: many draws on a checkpoint. Memory stays, steps take as long as the first ones, and each
//! layer, and each set of layers, is drawn as often as the others.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, FloatDType};
use cpu_time::ProcessTime;
use lisa_lm::Checkpoint;

use crate::method::{Method, Trainer};
use crate::report::mib;
use crate::settings::{Dtype, Settings};
use crate::{HEAP, child, memory, preset};

/// Draws in a row of the table.
const ROW: usize = 1000;
/// The least probability of what was drawn, were all drawn alike, that is taken as chance.
const LEAST: f64 = 1e-3;

/// One row.
struct Row {
    peak: u64,
    live: u64,
    /// Seconds of the median step, by the clock and of all threads' CPU time.
    step: f64,
    cpu: f64,
}

/// Trains with a draw after each step and prints a row for each thousand.
pub(crate) fn run(settings: &Settings, draws: usize, folder: &Path) -> Result<()> {
    ensure!(
        draws >= 2 * ROW,
        "--draws is {draws}; give at least {}",
        2 * ROW
    );
    let device = Device::default();
    let training = device.clone().autodiff();
    // One step a draw.
    let settings = Settings {
        period: 1,
        steps: draws,
        ..settings.clone()
    };
    let dtype = match settings.dtype {
        Dtype::F32 => FloatDType::F32,
        Dtype::Bf16 => FloatDType::BF16,
        Dtype::F16 => FloatDType::F16,
    };
    let checkpoint = Checkpoint::open(folder)?;
    let smallest = preset::tokens(&settings).into_iter().max().unwrap_or(0) as usize;
    let vocabulary = checkpoint.config().vocab_size();
    ensure!(
        smallest < vocabulary,
        "the tokens reach {smallest} and the vocabulary {vocabulary}"
    );
    let model = checkpoint.load(&training, Some(dtype))?;
    let (mut trainer, mut model) = Trainer::new(&settings, Method::Lisa, model, &training)?;
    let layers = model.num_layers();
    let tokens = preset::tokens(&settings);
    let mut counts = vec![0_usize; layers];
    let mut sets: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
    println!("| draws | peak, MiB | live, MiB | median step, ms | its CPU time, ms |");
    println!("|--:|--:|--:|--:|--:|");
    let mut rows: Vec<Row> = Vec::new();
    let mut times = Vec::with_capacity(ROW);
    let mut cpu_times = Vec::with_capacity(ROW);
    HEAP.reset_peak_usage();
    for step in 0..draws {
        let active = trainer.lisa().context("the method is LISA")?;
        let active = active.active_layers().to_vec();
        for &layer in &active {
            counts[layer] += 1;
        }
        *sets.entry(active).or_default() += 1;
        let batch = child::batch(&settings, &tokens, step, &training);
        let (start, cpu) = (Instant::now(), ProcessTime::now());
        (model, _, _) = trainer.step(settings.lr, model, &batch, &training)?;
        times.push(start.elapsed().as_secs_f64());
        cpu_times.push(cpu.elapsed().as_secs_f64());
        if times.len() == ROW {
            let row = Row {
                peak: memory::peak(&device),
                live: memory::live(&device),
                step: median(&mut times),
                cpu: median(&mut cpu_times),
            };
            println!(
                "| {} | {} | {} | {:.2} | {:.2} |",
                step + 1,
                mib(row.peak),
                mib(row.live),
                row.step * 1e3,
                row.cpu * 1e3
            );
            rows.push(row);
            HEAP.reset_peak_usage();
        }
    }
    let frequencies = frequencies(&settings, &counts, &sets, draws);
    println!("\n{}", frequencies.text);
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
        return Ok(());
    };
    let highest = rows.iter().map(|row| row.peak).max().unwrap_or(0) as f64;
    println!(
        "highest peak {:.4} of the first row's, live at the end {:.4}, a step {:.3}, its CPU \
         time {:.3}",
        highest / first.peak as f64,
        last.live as f64 / first.live as f64,
        last.step / first.step,
        last.cpu / first.cpu
    );
    ensure!(
        highest <= 1.01 * first.peak as f64,
        "memory grew with the draws"
    );
    ensure!(frequencies.likely, "the draws are not even");
    Ok(())
}

/// The median; none is left.
fn median(times: &mut Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    times.clear();
    median
}

struct Frequencies {
    text: String,
    likely: bool,
}

/// How even the draws were: of single layers, and of sets of them.
fn frequencies(
    settings: &Settings,
    counts: &[usize],
    sets: &BTreeMap<Vec<usize>, usize>,
    draws: usize,
) -> Frequencies {
    let (layers, gamma) = (counts.len(), settings.active_layers);
    let p = gamma as f64 / layers as f64;
    let expected = draws as f64 * p;
    let squares = |counts: &mut dyn Iterator<Item = usize>, expected: f64| -> f64 {
        counts
            .map(|n| (n as f64 - expected).powi(2) / expected)
            .sum()
    };
    let n = layers as f64;
    // Layers of one draw exclude each other: the sum is smaller than of independent counts.
    let single = squares(&mut counts.iter().copied(), expected) * (n - 1.0) / (n * (1.0 - p));
    let combinations = (0..gamma).fold(1.0, |c, k| c * (n - k as f64) / (k as f64 + 1.0));
    let each = draws as f64 / combinations;
    let missing = combinations - sets.len() as f64;
    let joint = squares(&mut sets.values().copied(), each) + missing * each;
    let chances = [chance(single, n - 1.0), chance(joint, combinations - 1.0)];
    let text = format!(
        "each layer drawn {} to {} times, {expected:.0} expected: chi-square {single:.2} of {} degrees, \
         p {:.3}\neach of {combinations} sets {} to {} times, {each:.0} expected: chi-square \
         {joint:.2} of {} degrees, p {:.3}",
        counts.iter().min().unwrap_or(&0),
        counts.iter().max().unwrap_or(&0),
        n - 1.0,
        chances[0],
        sets.values().min().unwrap_or(&0),
        sets.values().max().unwrap_or(&0),
        combinations - 1.0,
        chances[1],
    );
    Frequencies {
        text,
        likely: chances.iter().all(|p| *p > LEAST),
    }
}

/// The probability of a chi-square as large, by Wilson and Hilferty's cube root.
fn chance(square: f64, degrees: f64) -> f64 {
    if degrees < 1.0 {
        return 1.0;
    }
    let spread = 2.0 / (9.0 * degrees);
    let normal = ((square / degrees).cbrt() - 1.0 + spread) / spread.sqrt();
    // The upper tail of the normal distribution, by Abramowitz and Stegun 26.2.17.
    let t = 1.0 / (1.0 + 0.231_641_9 * normal.abs());
    let powers = [
        0.319_381_530,
        -0.356_563_782,
        1.781_477_937,
        -1.821_255_978,
        1.330_274_429,
    ];
    let sum = powers.iter().rev().fold(0.0, |sum, c| (sum + c) * t);
    let tail = sum * (-0.5 * normal * normal).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if normal > 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_are_those_of_tables() {
        // scipy.stats.chi2.sf: 0.05, 0.01, 0.5 at these.
        for (square, degrees, p) in [(14.067, 7.0, 0.05), (48.278, 28.0, 0.01), (6.346, 7.0, 0.5)] {
            let found = chance(square, degrees);
            assert!((found - p).abs() < 0.003, "{found} {p}");
        }
    }
}
