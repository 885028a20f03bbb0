//! The tables of the finished runs, as Markdown.

use std::path::Path;

use super::arm::Arm;
use super::job::Outcome;
use super::plan::{Plan, name};
use super::results::{Results, Runs};
use crate::memory::mib;
use crate::stats::{Interval, Mean};

/// The arm with which the others are compared.
pub(crate) const REFERENCE: Arm = Arm::Lora { rank: 16 };

fn cell(mean: Option<Mean>, digits: usize) -> String {
    mean.map_or(String::new(), |mean| mean.text(digits))
}

/// A difference with its interval; a star where the interval excludes 0.
fn difference(interval: Option<Interval>, digits: usize) -> String {
    interval.map_or(String::new(), |found| {
        let star = if found.is_clear() { " *" } else { "" };
        let Interval { mean, low, high } = found;
        format!("{mean:+.digits$} [{low:+.digits$}, {high:+.digits$}]{star}")
    })
}

/// The tables of each task.
pub(crate) fn markdown(results: &Results) -> String {
    let mut text = String::from("# Results of the study\n\n");
    text.push_str(&setup(results));
    text.push_str(&format!("\n{}", summary(results)));
    for task in &results.plan.tasks {
        let rows = results.finished(task);
        if rows.is_empty() {
            continue;
        }
        text.push_str(&format!("\n## {}\n\n", name(task)));
        text.push_str(&scores(results, task, &rows));
        text.push_str(&costs(&rows));
        text.push_str(&layers(&rows));
    }
    text
}

/// The rows of a batch of each task.
fn batches(plan: &Plan) -> String {
    let rows = plan.tasks.iter().map(|task| {
        let rows = plan.sizes_of(task).batch;
        format!("{rows} rows of `{}`", name(task))
    });
    rows.collect::<Vec<_>>().join(", ")
}

fn setup(results: &Results) -> String {
    let plan = results.plan;
    let sizes = plan.sizes;
    let mut devices: Vec<&str> = results
        .log
        .all()
        .iter()
        .map(|(_, run)| run.device.as_str())
        .collect();
    devices.sort_unstable();
    devices.dedup();
    let mut commits: Vec<&str> = results
        .log
        .all()
        .iter()
        .map(|(_, run)| run.commit.as_str())
        .collect();
    commits.sort_unstable();
    commits.dedup();
    format!(
        "Model `{}`, f32; {} runs. A run has {} steps, with batches of {}, truncated at {} tokens. \
         Losses are of the first {} held-out rows, points of curves of the first {}. Made on {}, \
         commits {}.\n",
        name(&plan.model),
        results.log.all().len(),
        sizes.steps,
        batches(plan),
        sizes.max_length,
        sizes.scored,
        sizes.points,
        devices.join(", "),
        commits.join(", ")
    )
}

fn scores(results: &Results, task: &Path, rows: &[(Arm, Runs)]) -> String {
    let reference = results.runs(task, REFERENCE);
    let choices = rows.iter().any(|(_, runs)| runs.accuracy().is_some());
    let accuracy = if choices {
        " accuracy, % | minus LoRA |"
    } else {
        ""
    };
    let mut text = format!(
        "| method | seeds | learning rate | held-out loss | minus LoRA |{accuracy} other tasks |\n\
         |---|--:|--:|--:|--:|{}--:|\n",
        if choices { "--:|--:|" } else { "" }
    );
    let base = results.runs(task, Arm::Base);
    for (arm, runs) in rows {
        let minus = |found| {
            if *arm == REFERENCE {
                String::new()
            } else {
                found
            }
        };
        text.push_str(&format!(
            "| {arm} | {} | {} | {} | {} |",
            runs.tests.len(),
            runs.learning_rate
                .map_or(String::new(), |rate| format!("{rate:.1e}")),
            cell(runs.loss(), 4),
            minus(difference(runs.minus(&reference), 4)),
        ));
        if choices {
            text.push_str(&format!(
                " {} | {} |",
                cell(runs.accuracy(), 1),
                minus(difference(runs.accuracy_minus(&reference), 1))
            ));
        }
        text.push_str(&format!(" {} |\n", forgotten(runs, &base)));
    }
    text.push('\n');
    text
}

/// The mean loss on the other tasks minus that before training.
fn forgotten(runs: &Runs, base: &Runs) -> String {
    let mean = |outcome: &Outcome| {
        let losses = outcome.others.iter().map(|(_, loss)| loss);
        losses.sum::<f64>() / outcome.others.len() as f64
    };
    let (Some(after), Some(before)) = (runs.mean(mean), base.tests.first().map(mean)) else {
        return String::new();
    };
    if after.mean.is_nan() || before.is_nan() {
        return String::new();
    }
    format!("{:+.3}", after.mean - before)
}

/// Memory, time, and the loss at equal CPU time.
fn costs(rows: &[(Arm, Runs)]) -> String {
    let measured: Vec<_> = rows
        .iter()
        .filter_map(|(arm, runs)| {
            let cost = runs.cost()?;
            Some((arm, runs, cost))
        })
        .collect();
    let time = |cost: &Outcome| cost.curve.last().map_or(f64::MAX, |point| point.cpu);
    let Some(budget) = measured
        .iter()
        .map(|(_, _, cost)| time(cost))
        .min_by(f64::total_cmp)
    else {
        return String::new();
    };
    let mut text = format!(
        "| method | trainable, M | peak, MiB | CPU-s of a step | loss after {budget:.0} CPU-s \
         | generated answers right |\n|---|{}\n",
        "--:|".repeat(5)
    );
    for (arm, runs, cost) in measured {
        text.push_str(&format!(
            "| {arm} | {:.1} | {} | {:.2} | {} | {} |\n",
            cost.trainable as f64 / 1e6,
            mib(cost.peak),
            cost.cpu_per_step(),
            runs.loss_after(budget)
                .map_or(String::new(), |loss| format!("{loss:.4}")),
            cost.generated
                .map_or(String::new(), |(right, asked)| format!(
                    "{right} of {asked}"
                )),
        ));
    }
    text.push('\n');
    text
}

/// How often each layer was active under the policies that measure.
fn layers(rows: &[(Arm, Runs)]) -> String {
    let mut text = String::new();
    for (arm, runs) in rows {
        let Arm::Lisa(sampled) = arm else { continue };
        if sampled.policy == super::arm::Policy::Uniform {
            continue;
        }
        let layers = runs.tests.first().map_or(0, |first| first.active.len());
        let mean = |layer: usize| {
            let shares = runs.tests.iter().filter_map(|test| test.active.get(layer));
            100.0 * shares.sum::<f64>() / runs.tests.len() as f64
        };
        let shares: Vec<String> = (0..layers)
            .map(|layer| format!("{:.0}", mean(layer)))
            .collect();
        text.push_str(&format!(
            "- {arm}: layers active in % of the steps: {}\n",
            shares.join(" ")
        ));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

/// The lines between which a page has the summary.
pub(crate) const MARKS: [&str; 2] = ["<!-- study -->", "<!-- end of study -->"];

/// The page with this text between the marks; none for a page without them.
pub(crate) fn marked(page: &str, text: &str) -> Option<String> {
    let [begin, end] = MARKS;
    let (before, rest) = page.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}\n{text}{end}{after}"))
}

/// A table of the arms that all tasks have; tasks without runs are left out.
pub(crate) fn summary(results: &Results) -> String {
    let tasks = results.plan.tasks.iter();
    let tasks: Vec<&Path> = tasks
        .map(AsRef::as_ref)
        .filter(|task| !results.finished(task).is_empty())
        .collect();
    let names: Vec<String> = tasks
        .iter()
        .map(|task| format!(" `{}` | minus LoRA |", name(task)))
        .collect();
    let mut text = format!(
        "| method | peak, MiB | CPU-s of a step |{}\n|---|--:|--:|{}\n",
        names.concat(),
        "--:|--:|".repeat(tasks.len())
    );
    for &arm in &results.plan.arms {
        let runs: Vec<Runs> = tasks.iter().map(|task| results.runs(task, arm)).collect();
        if runs.iter().all(|runs| runs.tests.is_empty()) {
            continue;
        }
        let cost = runs.iter().find_map(Runs::cost);
        text.push_str(&format!(
            "| {arm} | {} | {} |",
            cost.map_or(String::new(), |cost| mib(cost.peak)),
            cost.map_or(String::new(), |cost| format!("{:.2}", cost.cpu_per_step()))
        ));
        for (task, runs) in tasks.iter().zip(&runs) {
            let accuracy = runs.accuracy();
            let accuracy = accuracy.map_or(String::new(), |mean| format!(", {} %", mean.text(1)));
            let minus = (arm != REFERENCE).then(|| runs.minus(&results.runs(task, REFERENCE)));
            text.push_str(&format!(
                " {}{accuracy} | {} |",
                cell(runs.loss(), 3),
                difference(minus.flatten(), 3)
            ));
        }
        text.push('\n');
    }
    text
}
