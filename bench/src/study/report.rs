//! The tables and the plot of the finished runs.

use std::path::Path;

use anyhow::Result;

use super::job::{Method, Outcome};
use super::plan::name;
use super::results::{Results, Runs};
use crate::chart;
use crate::stats::Mean;

fn percent(outcome: &Outcome) -> f64 {
    100.0 * outcome.exact_match()
}

/// The methods of a task that have finished runs.
fn finished(results: &Results, task: &Path) -> Vec<(Method, Runs)> {
    let methods = results.plan.methods.iter();
    let runs = methods.map(|&method| (method, results.tests(task, method)));
    runs.filter(|(_, runs)| !runs.outcomes.is_empty()).collect()
}

/// The tables of each task: scores, and how often each layer was active.
pub(crate) fn markdown(results: &Results) -> String {
    let mut text = String::new();
    for task in &results.plan.tasks {
        let rows = finished(results, task);
        text.push_str(&format!(
            "### `{}` on `{}`\n\n\
             | method | seeds | learning rate | exact match, % | minus uniform | held-out loss \
             | trainable parameters | optimizer state, KiB | CPU-s |\n|---|{}\n",
            name(task),
            name(&results.plan.model),
            "--:|".repeat(8)
        ));
        let uniform = results.tests(task, Method::Uniform);
        for (method, runs) in &rows {
            text.push_str(&score(*method, runs, &uniform));
        }
        text.push_str(&layers(&rows));
        text.push('\n');
    }
    text
}

fn score(method: Method, runs: &Runs, uniform: &Runs) -> String {
    let cell = |mean: Option<Mean>, digits| mean.map_or(String::new(), |mean| mean.text(digits));
    let against = match runs.against(uniform) {
        // An interval that excludes 0 has a star.
        Some(mean) if ![Method::Base, Method::Uniform].contains(&method) => {
            format!(
                "{}{}",
                mean.text(1),
                if mean.is_clear() { " *" } else { "" }
            )
        }
        _ => String::new(),
    };
    let cpu = runs
        .mean(|outcome| outcome.cpu)
        .map_or(0.0, |mean| mean.mean);
    format!(
        "| {method} | {} | {} | {} | {against} | {} | {} | {:.0} | {cpu:.1} |\n",
        runs.outcomes.len(),
        runs.learning_rate
            .map_or(String::new(), |rate| format!("{rate:.2e}")),
        cell(runs.mean(percent), 1),
        cell(runs.mean(|outcome| outcome.loss), 4),
        runs.most(|outcome| outcome.trainable),
        runs.most(|outcome| outcome.state_bytes) as f64 / 1024.0,
    )
}

fn layers(rows: &[(Method, Runs)]) -> String {
    let active = rows.iter().filter(|(method, _)| method.samples());
    let active: Vec<_> = active
        .map(|(method, runs)| (method, runs.active()))
        .collect();
    let Some((_, first)) = active.first() else {
        return String::new();
    };
    let numbers: Vec<String> = (0..first.len()).map(|layer| layer.to_string()).collect();
    let mut text = format!(
        "\n| active, % of the steps; layer | {} |\n|---|{}\n",
        numbers.join(" | "),
        "--:|".repeat(first.len())
    );
    for (method, shares) in active {
        let cells: Vec<String> = shares.iter().map(|share| format!("{share:.1}")).collect();
        text.push_str(&format!("| {method} | {} |\n", cells.join(" | ")));
    }
    text
}

/// Draws the scores of each task.
pub(crate) fn draw(path: &Path, results: &Results) -> Result<()> {
    let tasks = &results.plan.tasks;
    let size = (420 * tasks.len().max(1) as u32, 340);
    chart::write(path, size, |area| {
        for (part, task) in area.split_evenly((1, tasks.len().max(1))).iter().zip(tasks) {
            let rows = finished(results, task).into_iter();
            let row =
                |(method, runs): (Method, Runs)| Some((method.to_string(), runs.mean(percent)?));
            let rows: Vec<_> = rows.filter_map(row).collect();
            chart::bars(part, &format!("{}: exact match, %", name(task)), &rows)?;
        }
        Ok(())
    })
}
