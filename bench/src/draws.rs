//! `bench draws`: once every layer was active, the peak memory of later periods is no higher.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use burn::tensor::Device;
use clap::Args;

use crate::memory::{self, mib};
use crate::method::Method;
use crate::settings::Settings;
use crate::trainer::Trainer;
use crate::workload;

/// Options of the measurement.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    settings: Settings,
    /// Number of draws; --steps is ignored
    #[arg(long, default_value_t = 60)]
    draws: usize,
}

/// Prints the peak of each period and compares the periods before and after every layer was active.
pub(crate) fn run(options: &Options) -> Result<()> {
    let device = Device::default();
    let training = device.clone().autodiff();
    let settings = Settings {
        steps: options.draws * options.settings.period,
        ..options.settings.clone()
    };
    let model = workload::model(&settings, &training)?;
    let (mut trainer, mut model) = Trainer::new(&settings, Method::Lisa, model, &training)?;
    let layers = model.num_layers();
    let tokens = workload::tokens(&settings)?;
    let (mut seen, mut first_cycle) = (BTreeSet::new(), None);
    let mut peaks = Vec::new();
    for draw in 0..options.draws {
        seen.extend(trainer.active_layers().iter().copied());
        memory::reset_heap();
        for step in draw * settings.period..(draw + 1) * settings.period {
            let batch = workload::batch(&settings, &tokens, step, &training);
            (model, _, _) = trainer.step(settings.lr, model, &batch, &training)?;
        }
        peaks.push(memory::peak(&device));
        println!(
            "draw {:>3}: {:>2} of {layers} layers were active so far, peak {} MiB, live {} MiB",
            draw + 1,
            seen.len(),
            mib(peaks[draw]),
            mib(memory::live(&device))
        );
        if first_cycle.is_none() && seen.len() == layers {
            first_cycle = Some(draw);
        }
    }
    let Some(cycle) = first_cycle else {
        println!(
            "{} draws left a layer out; give more with --draws",
            options.draws
        );
        return Ok(());
    };
    let highest = |peaks: &[u64]| peaks.iter().copied().max().unwrap_or(0) as f64;
    let (before, after) = (highest(&peaks[..=cycle]), highest(&peaks[cycle..]));
    println!(
        "every layer was active after {} draws; the highest peak from then on is {:.4} of the highest \
         until then",
        cycle + 1,
        after / before
    );
    ensure!(after <= 1.01 * before, "memory grew with the draws");
    Ok(())
}
