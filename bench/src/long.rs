//! Memory over many draws: what a cycle of draws needs, the next sixty need too, and no more.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use burn::tensor::Device;

use crate::method::{Method, Trainer};
use crate::report::mib;
use crate::settings::Settings;
use crate::{HEAP, child, memory, preset};

/// Prints the peak of each period, and whether it stays.
pub(crate) fn run(settings: &Settings, draws: usize) -> Result<()> {
    let device = Device::default();
    let training = device.clone().autodiff();
    let settings = Settings {
        steps: draws * settings.period,
        ..settings.clone()
    };
    let model = preset::model(&settings, &training)?;
    let (mut trainer, mut model) = Trainer::new(&settings, Method::Lisa, model, &training)?;
    let layers = model.num_layers();
    let tokens = preset::tokens(&settings);
    let (mut seen, mut cycle) = (BTreeSet::new(), None);
    let mut peaks = Vec::new();
    for draw in 0..draws {
        if let Some(lisa) = trainer.lisa() {
            seen.extend(lisa.active_layers().iter().copied());
        }
        HEAP.reset_peak_usage();
        for step in draw * settings.period..(draw + 1) * settings.period {
            let batch = child::batch(&settings, &tokens, step, &training);
            (model, _, _) = trainer.step(settings.lr, model, &batch, &training)?;
        }
        peaks.push(memory::peak(&device));
        println!(
            "draw {:>3}: {:>2} of {layers} layers drawn so far, peak {} MiB, live {} MiB",
            draw + 1,
            seen.len(),
            mib(peaks[draw]),
            mib(memory::live(&device))
        );
        if cycle.is_none() && seen.len() == layers {
            cycle = Some(draw);
        }
    }
    let Some(cycle) = cycle else {
        println!("not every layer was drawn in {draws} draws; give more");
        return Ok(());
    };
    let highest = |peaks: &[u64]| peaks.iter().copied().max().unwrap_or(0) as f64;
    let (before, after) = (highest(&peaks[..=cycle]), highest(&peaks[cycle..]));
    println!(
        "every layer was drawn after {} draws; the highest peak after that is {:.4} of the highest before",
        cycle + 1,
        after / before
    );
    ensure!(after <= 1.01 * before, "memory grew with the draws");
    Ok(())
}
