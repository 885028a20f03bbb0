//! The runs of `peer_study.py`, beside those of the study.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::arm::Arm;
use super::arms::REFERENCE;
use super::cells::{header, row};
use super::plan::name;
use super::results::{Results, Runs};

/// A run in PyTorch, as far as it is compared.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PyTorch {
    settings: Settings,
    /// The mean loss of a token of the held-out rows.
    held_out: f64,
}

#[derive(Clone, Debug, Deserialize)]
struct Settings {
    task: String,
    method: String,
    lr: f64,
    seed: u64,
    held_out: usize,
    steps: usize,
    active_layers: usize,
    rank: usize,
}

/// The runs of `pytorch.jsonl` in the folder of a study; none without this file.
pub(crate) fn read(folder: &Path) -> Result<Vec<PyTorch>> {
    let path = folder.join("pytorch.jsonl");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    let lines = text.lines().enumerate();
    let runs = lines.map(|(index, line)| {
        let run = serde_json::from_str(line);
        run.with_context(|| format!("{}, line {}", path.display(), index + 1))
    });
    runs.collect()
}

/// The held-out losses of the runs on the first task that have the learning rates of the study.
pub(crate) fn table(results: &Results, peers: &[PyTorch]) -> String {
    let mut text = header(&["method", "learning rate", "in PyTorch", "in the study"]);
    let Some(task) = results.plan.tasks.first() else {
        return text;
    };
    let methods = [("lora", REFERENCE), ("lisa", Arm::Lisa(Arm::lisa(2)))];
    for (method, arm) in methods {
        let runs = results.runs(task, arm);
        let mut losses = BTreeMap::new();
        for PyTorch { settings, held_out } in peers {
            let rate = runs.learning_rate.unwrap_or(f64::NAN);
            // The command line has the rate with some digits.
            let has_rate = (settings.lr / rate - 1.0).abs() < 1e-3;
            let sizes = results.plan.sizes;
            let is_same = settings.method == method
                && settings.task == name(task)
                && (settings.steps, settings.held_out) == (sizes.steps, sizes.scored)
                && (settings.active_layers, settings.rank) == (2, 16);
            if is_same && has_rate {
                losses.insert(settings.seed, *held_out);
            }
        }
        text.push_str(&row(&[
            arm.to_string(),
            runs.learning_rate
                .map_or(String::new(), |rate| format!("{rate:.1e}")),
            list(losses),
            list(by_seed(&runs)),
        ]));
    }
    text
}

fn by_seed(runs: &Runs) -> BTreeMap<u64, f64> {
    let losses = runs.tests.iter().map(|test| test.scores.loss());
    runs.seeds.iter().copied().zip(losses).collect()
}

fn list(losses: BTreeMap<u64, f64>) -> String {
    let losses = losses.into_values().map(|loss| format!("{loss:.3}"));
    losses.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::arm::STEP;
    use super::super::job::{Outcome, Purpose};
    use super::super::log::Log;
    use super::super::plan::Plan;
    use super::*;

    #[test]
    fn runs_with_the_rate_and_the_rows_of_the_study_are_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan::full("models/base".into(), vec!["data/a".into()]);
        let mut log = Log::open(&dir.path().join("runs.jsonl")).unwrap();
        while let Some(job) = plan.next(&log).into_iter().next() {
            // The third rate is the best; the seeds have losses of their own.
            let loss = match (job.purpose, job.rate == job.arm.first_rate() + 2 * STEP) {
                (Purpose::Choice, false) => 2.0,
                _ => 1.0 + job.seed as f64 / 8.0,
            };
            log.add(job, Outcome::sample(loss)).unwrap();
        }
        let line = |method: &str, lr: f64, seed: u64, rows: usize, loss: f64| {
            format!(
                r#"{{"settings": {{"task": "a", "method": "{method}", "lr": {lr}, "seed": {seed}, "held_out": {rows}, "steps": 120, "active_layers": 2, "rank": 16}}, "held_out": {loss}}}"#
            )
        };
        let lines = [
            line("lora", 1e-3, 1, 128, 0.5),
            line("lisa", 0.000316, 2, 128, 0.75),
            line("lisa", 0.00031622777, 1, 128, 0.25),
            line("lisa", 3e-4, 3, 128, 9.0),
            line("lisa", 0.000316, 3, 32, 9.0),
        ];
        std::fs::write(dir.path().join("pytorch.jsonl"), lines.join("\n")).unwrap();
        let (plan, log) = (&plan, &log);
        let table = table(&Results { plan, log }, &read(dir.path()).unwrap());
        let expected = "| method | learning rate | in PyTorch | in the study |\n|---|--:|--:|--:|\n\
                        | LoRA, rank 16 | 1.0e-3 | 0.500 | 1.125, 1.250, 1.375 |\n\
                        | LISA 2 | 3.2e-4 | 0.250, 0.750 | 1.125, 1.250, 1.375 |\n";
        assert_eq!(table, expected);
        assert!(read(Path::new("nowhere")).unwrap().is_empty());
    }
}
