//! `bench soak`: thousands of draws on a checkpoint. Memory and step times stay constant, and each layer
//! and each set of layers is drawn equally often.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, ensure};
use burn::tensor::Device;
use clap::Args;
use cpu_time::ProcessTime;
use lisa_lm::Checkpoint;

use crate::memory::{self, mib};
use crate::method::Method;
use crate::settings::Settings;
use crate::stats::{chi_square_tail, median};
use crate::trainer::Trainer;
use crate::{files, workload};

/// Draws in a row of the table.
const ROW: usize = 1000;
/// The frequencies are rejected where equal probabilities would give them less often than this.
const LEAST: f64 = 1e-3;

/// Options of the run. The weights are those of `--model`; without it, of the bundled model.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    settings: Settings,
    /// Number of draws, one after each step; --steps and --period are ignored
    #[arg(long, default_value_t = 10_000)]
    draws: usize,
}

/// Peak and live bytes, and the median seconds and CPU seconds of a step.
struct Row {
    peak: u64,
    live: u64,
    step: f64,
    cpu: f64,
}

/// Trains with a draw after each step and prints a row for each thousand draws.
pub(crate) fn run(options: &Options) -> Result<()> {
    let draws = options.draws;
    ensure!(
        draws >= 2 * ROW,
        "--draws is {draws}; give at least {}",
        2 * ROW
    );
    let device = Device::default();
    let training = device.clone().autodiff();
    let given = options.settings.model.clone();
    let folder = given.unwrap_or_else(|| files::bundled("base"));
    let settings = Settings {
        period: 1,
        steps: draws,
        model: Some(folder.clone()),
        ..options.settings.clone()
    };
    let checkpoint = Checkpoint::open(folder)?;
    let tokens = workload::tokens(&settings)?;
    let model = checkpoint.load(&training, Some(settings.dtype.into()))?;
    let (mut trainer, mut model) = Trainer::new(&settings, Method::Lisa, model, &training)?;
    let layers = model.num_layers();
    let mut sets: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
    println!("| draws | peak, MiB | live, MiB | median step, ms | its CPU time, ms |");
    println!("|--:|--:|--:|--:|--:|");
    let mut rows: Vec<Row> = Vec::new();
    let (mut times, mut cpu_times) = (Vec::with_capacity(ROW), Vec::with_capacity(ROW));
    memory::reset_heap();
    for step in 0..draws {
        *sets.entry(trainer.active_layers().to_vec()).or_default() += 1;
        let batch = workload::batch(&settings, &tokens, step, &training);
        let (start, cpu) = (Instant::now(), ProcessTime::now());
        (model, _, _) = trainer.step(settings.lr, model, &batch, &training)?;
        times.push(start.elapsed().as_secs_f64());
        cpu_times.push(cpu.elapsed().as_secs_f64());
        if times.len() == ROW {
            let row = Row {
                peak: memory::peak(&device),
                live: memory::live(&device),
                step: median(&times),
                cpu: median(&cpu_times),
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
            times.clear();
            cpu_times.clear();
            memory::reset_heap();
        }
    }
    println!();
    let likely = print_frequencies(&sets, layers, settings.active_layers);
    let (first, last) = (&rows[0], &rows[rows.len() - 1]);
    let highest = rows.iter().map(|row| row.peak).max().unwrap_or(0) as f64;
    println!(
        "relative to the first row: highest peak {:.4}, live bytes at the end {:.4}, step {:.3}, CPU \
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
    ensure!(likely, "the draws are not uniform");
    Ok(())
}

/// Prints how often each layer and each set of layers was drawn; whether uniform draws give such counts.
fn print_frequencies(sets: &BTreeMap<Vec<usize>, usize>, layers: usize, gamma: usize) -> bool {
    let draws: usize = sets.values().sum();
    let (n, p) = (layers as f64, gamma as f64 / layers as f64);
    let combinations = (0..gamma).fold(1.0, |c, k| c * (n - k as f64) / (k as f64 + 1.0));
    let singles = (0..layers).map(|layer| {
        let with = sets.iter().filter(|(set, _)| set.contains(&layer));
        with.map(|(_, count)| count).sum()
    });
    let mut both = sets.values().copied().collect::<Vec<usize>>();
    both.resize(combinations as usize, 0);
    // The layers of a draw exclude each other, so the sum is smaller than that of independent counts.
    let correction = (n - 1.0) / (n * (1.0 - p));
    let mut likely = true;
    for (what, counts, correction) in [
        ("each layer".to_owned(), singles.collect(), correction),
        (format!("each of {combinations} sets"), both, 1.0),
    ] {
        let counts: Vec<usize> = counts;
        let expected = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
        let squares = counts
            .iter()
            .map(|n| (*n as f64 - expected).powi(2) / expected);
        let (square, degrees) = (squares.sum::<f64>() * correction, counts.len() as f64 - 1.0);
        let chance = chi_square_tail(square, degrees);
        println!(
            "{what} drawn {} to {} times in {draws} draws, {expected:.0} expected: chi-square \
             {square:.2}, {degrees} degrees of freedom, p {chance:.3}",
            counts.iter().min().unwrap_or(&0),
            counts.iter().max().unwrap_or(&0),
        );
        likely &= chance > LEAST;
    }
    likely
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uneven_draws_are_found() {
        let counts = |last| BTreeMap::from([(vec![0], 100), (vec![1], 110), (vec![2], last)]);
        assert!(print_frequencies(&counts(95), 3, 1));
        assert!(!print_frequencies(&counts(40), 3, 1));
        // A set that was never drawn.
        let counts = BTreeMap::from([(vec![0, 1], 100), (vec![0, 2], 100)]);
        assert!(!print_frequencies(&counts, 3, 2));
    }
}
