//! The pictures of the finished runs: loss over steps and over time, and over peak memory the differences
//! from LoRA's loss and accuracy, which are paired by seed: methods have other seeds.

use std::path::Path;

use anyhow::Result;

use super::arm::Arm;
use super::arms::REFERENCE;
use super::results::{Results, Runs};
use crate::chart::{self, Band};
use crate::stats::Interval;

/// Writes `NAME-steps.svg`, `NAME-time.svg`, `NAME-memory.svg` and, for a task with choices,
/// `NAME-accuracy.svg` of each task to a folder.
pub(crate) fn write(folder: &Path, results: &Results) -> Result<()> {
    for task in &results.plan.tasks {
        let name = super::plan::name(task);
        let (rows, variants) = (results.finished(task), results.variants(task));
        let steps = bands(&rows, |_| Some(1.0));
        if steps.is_empty() {
            continue;
        }
        let y = "held-out loss";
        chart::write(
            &folder.join(format!("{name}-steps.svg")),
            (760, 440),
            |area| chart::bands(area, ["steps", y], &steps),
        )?;
        let time = bands(&rows, |runs| runs.time_per_step);
        if time.is_empty() {
            continue;
        }
        chart::write(
            &folder.join(format!("{name}-time.svg")),
            (760, 440),
            |area| chart::bands(area, [results.unit()[0], y], &time),
        )?;
        // Of the variants, those that change the memory.
        let is_row = |arm: &Arm| rows.iter().any(|(other, _)| other == arm);
        let sized = |(arm, _): &&(Arm, Runs)| arm.is_plain() && !is_row(arm);
        let sized = variants.iter().filter(sized);
        let reference = results.runs(task, REFERENCE);
        let points = |minus: fn(&Runs, &Runs) -> Option<Interval>| -> Vec<(String, Band)> {
            let all = rows.iter().chain(sized.clone());
            let points = all.filter_map(|(arm, runs)| {
                let (peak, found) = (runs.cost()?.peak, minus(runs, &reference)?);
                let has_interval = found.of_seeds.len() > 2;
                let [low, high] = [found.low, found.high];
                let band = Band {
                    x: peak as f64 / 1_048_576.0,
                    middle: found.mean,
                    low: if has_interval { low } else { found.mean },
                    high: if has_interval { high } else { found.mean },
                };
                Some((arm.to_string(), band))
            });
            points.collect()
        };
        for (of, file, y) in [
            (
                Runs::minus as fn(&Runs, &Runs) -> _,
                "memory",
                "held-out loss minus LoRA's",
            ),
            (Runs::accuracy_minus, "accuracy", "accuracy minus LoRA's, %"),
        ] {
            let points = points(of);
            if points.is_empty() {
                continue;
            }
            chart::write(
                &folder.join(format!("{name}-{file}.svg")),
                (760, 440),
                |area| chart::points(area, ["peak memory, MiB", y], &points),
            )?;
        }
    }
    Ok(())
}

/// The curves of the arms: mean, and the range over the seeds.
fn bands(rows: &[(Arm, Runs)], scale: impl Fn(&Runs) -> Option<f64>) -> Vec<(String, Vec<Band>)> {
    let band = |(step, losses): (usize, Vec<f64>), scale: f64| {
        let low = losses.iter().copied().fold(f64::MAX, f64::min);
        let high = losses.iter().copied().fold(f64::MIN, f64::max);
        Band {
            x: step as f64 * scale,
            middle: losses.iter().sum::<f64>() / losses.len().max(1) as f64,
            low,
            high,
        }
    };
    rows.iter()
        .filter_map(|(arm, runs)| {
            let scale = scale(runs)?;
            let points = runs.curve().into_iter();
            let points: Vec<Band> = points.map(|point| band(point, scale)).collect();
            (points.len() > 1).then(|| (arm.to_string(), points))
        })
        .collect()
}
