//! The tables of the finished runs, as Markdown.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::arm::Arm;
use super::job::{Outcome, Purpose, learning_rate};
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
        let is_lever = |(arm, _): &(Arm, Runs)| results.plan.is_lever(*arm);
        let (levers, arms): (Vec<_>, Vec<_>) = rows.into_iter().partition(is_lever);
        text.push_str(&scores(results, task, &arms));
        text.push_str(&costs(&arms));
        text.push_str(&varied(results, task, &levers));
        text.push_str(&layers(&levers));
        text.push_str(&choices(results, task));
        if arms.len() > 1 {
            text.push_str(&pictures(&name(task)));
        }
    }
    text
}

/// The pictures of a task.
fn pictures(task: &str) -> String {
    let of = |(file, about): (&str, &str)| format!("![{about} of {task}]({task}-{file}.svg)\n");
    let all = [
        ("steps", "Held-out loss over steps"),
        ("time", "Held-out loss over CPU time"),
        ("memory", "Held-out loss over peak memory"),
    ];
    all.map(of).concat()
}

/// The rows of a batch of each task.
fn batches(plan: &Plan) -> String {
    let rows = plan.tasks.iter().map(|task| {
        let rows = plan.sizes_of(task).batch;
        format!("{rows} rows of `{}`", name(task))
    });
    rows.collect::<Vec<_>>().join(", ")
}

/// What the tables have in common.
fn setup(results: &Results) -> String {
    let plan = results.plan;
    let sizes = plan.sizes;
    let (mut devices, mut commits) = (BTreeSet::new(), BTreeSet::new());
    let (mut tests, mut choices) = (0, 0);
    for (job, run) in results.log.all() {
        devices.insert(run.device.as_str());
        commits.insert(run.commit.as_str());
        match job.purpose {
            Purpose::Test => tests += 1,
            Purpose::Choice => choices += 1,
        }
    }
    let list = |set: BTreeSet<&str>| set.into_iter().collect::<Vec<_>>().join(", ");
    format!(
        "Model `{}`, f32; {tests} runs, and {choices} to choose learning rates. A run has {} steps, with \
         batches of {}, truncated at {} tokens. Losses are of the first {} held-out rows, points of curves \
         of the first {}. Made on {}, commits {}.\n\n\
         Differences are paired by row and seed, with their 95 % interval in brackets: with one seed that \
         of the bootstrap over rows, which does not cover the variation between seeds; with more seeds the \
         wider of the bootstrap over seeds and rows and Student's interval over seeds. A star marks an \
         interval without 0; it is not corrected for the number of comparisons. Values after ± are \
         Student's 95 % interval over seeds.\n",
        name(&plan.model),
        sizes.steps,
        batches(plan),
        sizes.max_length,
        sizes.scored,
        sizes.points,
        list(devices),
        list(commits)
    )
}

fn scores(results: &Results, task: &Path, rows: &[(Arm, Runs)]) -> String {
    let reference = results.runs(task, REFERENCE);
    let has = |of: fn(&Runs) -> bool| rows.iter().any(|(_, runs)| of(runs));
    let choices = has(|runs| runs.accuracy().is_some());
    let answers = has(|runs| generated(runs).is_some());
    let base = results.runs(task, Arm::Base);
    let others = base.tests.first().map_or(&[][..], |test| &test.others);
    let mut head = vec![
        "method",
        "seeds",
        "learning rate",
        "held-out loss",
        "minus LoRA",
    ];
    if choices {
        head.extend(["accuracy, %", "minus LoRA"]);
    }
    if answers {
        head.push("generated answers right");
    }
    let names: Vec<String> = others
        .iter()
        .map(|(other, _)| format!("change on `{other}`"))
        .collect();
    head.extend(names.iter().map(String::as_str));
    let mut text = header(&head);
    for (arm, runs) in rows {
        let minus = |found| {
            if *arm == REFERENCE {
                String::new()
            } else {
                found
            }
        };
        let mut cells = vec![
            arm.to_string(),
            runs.tests.len().to_string(),
            runs.learning_rate
                .map_or(String::new(), |rate| format!("{rate:.1e}")),
            cell(runs.loss(), 4),
            minus(difference(runs.minus(&reference), 4)),
        ];
        if choices {
            cells.push(cell(runs.accuracy(), 1));
            cells.push(minus(difference(runs.accuracy_minus(&reference), 1)));
        }
        if answers {
            let found = generated(runs);
            cells.push(found.map_or(String::new(), |(right, asked)| {
                format!("{right} of {asked}")
            }));
        }
        for (other, before) in others {
            cells.push(change(runs, other, *before));
        }
        text.push_str(&row(&cells));
    }
    text + "\n"
}

/// The first lines of a table.
fn header(names: &[&str]) -> String {
    let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
    format!("{}|---|{}\n", row(&names), "--:|".repeat(names.len() - 1))
}

fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// The right ones of the answers that the first seed generated.
fn generated(runs: &Runs) -> Option<(usize, usize)> {
    let found = runs.tests.iter().find_map(|test| test.generated);
    found.filter(|(_, asked)| *asked > 0)
}

/// The loss on another task minus that before training; nothing for the untrained model.
fn change(runs: &Runs, task: &str, before: f64) -> String {
    if runs.learning_rate.is_none() {
        return String::new();
    }
    let after = |outcome: &Outcome| {
        let mut others = outcome.others.iter();
        others.find_map(|(other, loss)| (other == task).then_some(*loss - before))
    };
    let changes: Option<Vec<f64>> = runs.tests.iter().map(after).collect();
    let mean = changes.and_then(|changes| Mean::of(&changes));
    mean.map_or(String::new(), |mean| {
        format!("{}{}", if mean.mean < 0.0 { "" } else { "+" }, mean.text(3))
    })
}

/// Memory, time, and the loss at equal CPU time.
fn costs(rows: &[(Arm, Runs)]) -> String {
    let measured = rows.iter().filter(|(_, runs)| runs.cost().is_some());
    let measured: Vec<_> = measured.collect();
    let steps = |runs: &Runs| runs.curve().last().map_or(0, |(step, _)| *step) as f64;
    let times = measured
        .iter()
        .filter_map(|(_, runs)| Some(steps(runs) * runs.cpu_per_step()?));
    let Some(budget) = times.min_by(f64::total_cmp) else {
        return String::new();
    };
    let after = format!("loss after {budget:.0} CPU-s");
    let mut text = header(&[
        "method",
        "trainable, M",
        "peak, MiB",
        "CPU-s of a step",
        &after,
    ]);
    for (arm, runs) in measured {
        let Some(cost) = runs.cost() else { continue };
        text.push_str(&row(&[
            arm.to_string(),
            format!("{:.1}", cost.trainable as f64 / 1e6),
            mib(cost.peak),
            seconds(runs),
            cell(runs.loss_after(budget), 3),
        ]));
    }
    text + "\n"
}

/// The mean CPU seconds of a step.
fn seconds(runs: &Runs) -> String {
    let mean = runs.cpu_per_step();
    mean.map_or(String::new(), |mean| format!("{mean:.1}"))
}

/// The arms that vary another one, beside it.
fn varied(results: &Results, task: &Path, rows: &[(Arm, Runs)]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let reference = results.runs(task, REFERENCE);
    let mut text = header(&[
        "variant",
        "seeds",
        "held-out loss",
        "minus the method that it varies",
        "minus LoRA",
        "peak, MiB",
        "CPU-s of a step",
    ]);
    for (arm, runs) in rows {
        let varies = results.plan.chosen_for(*arm);
        let varied = results.runs(task, varies);
        let peak = runs.cost().map_or(String::new(), |cost| {
            let host = match cost.offloaded {
                0 => String::new(),
                host => format!(" and {} of the host", mib(host)),
            };
            mib(cost.peak) + &host
        });
        text.push_str(&row(&[
            arm.to_string(),
            runs.tests.len().to_string(),
            cell(runs.loss(), 4),
            format!("{} ({varies})", difference(runs.minus(&varied), 4)),
            difference(runs.minus(&reference), 4),
            peak,
            seconds(runs),
        ]));
    }
    text + "\n"
}

/// The losses by which the learning rates were chosen.
fn choices(results: &Results, task: &Path) -> String {
    let plan = results.plan;
    let mut found = Vec::new();
    for &arm in plan.arms.iter().filter(|arm| **arm != Arm::Base) {
        let jobs = plan.choices(results.log, task, arm).into_iter();
        let losses = jobs.filter_map(|job| Some((job.rate, results.log.get(&job)?.scores.loss())));
        let losses: BTreeMap<i32, f64> = losses.collect();
        if !losses.is_empty() {
            found.push((arm, losses));
        }
    }
    let rates: BTreeSet<i32> = found
        .iter()
        .flat_map(|(_, losses)| losses.keys().copied())
        .collect();
    if rates.is_empty() {
        return String::new();
    }
    let names: Vec<String> = rates
        .iter()
        .map(|rate| format!("{:.1e}", learning_rate(*rate)))
        .collect();
    let first = format!(
        "loss of the validation rows after {} steps",
        plan.sizes.choice_steps
    );
    let head: Vec<&str> = [first.as_str()]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    let mut text = header(&head);
    for (arm, losses) in found {
        let cell = |rate| {
            losses
                .get(rate)
                .map_or(String::new(), |loss| format!("{loss:.3}"))
        };
        let cells = [arm.to_string()].into_iter().chain(rates.iter().map(cell));
        text.push_str(&row(&cells.collect::<Vec<_>>()));
    }
    text + "\n"
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

/// A table of the arms that all tasks have; tasks without runs are left out. Memory and time are those of
/// the first task.
pub(crate) fn summary(results: &Results) -> String {
    let tasks = results.plan.tasks.iter();
    let tasks: Vec<&Path> = tasks
        .map(AsRef::as_ref)
        .filter(|task| !results.finished(task).is_empty())
        .collect();
    let Some(first) = tasks.first() else {
        return String::new();
    };
    let mut head = vec![
        "method".to_owned(),
        format!("peak on `{}`, MiB", name(first)),
        "CPU-s of a step".to_owned(),
    ];
    for task in &tasks {
        head.push(format!("`{}`, {}", name(task), seeds(results, task)));
        head.push("minus LoRA".to_owned());
    }
    let mut text = header(&head.iter().map(String::as_str).collect::<Vec<_>>());
    for &arm in &results.plan.arms {
        let runs: Vec<Runs> = tasks.iter().map(|task| results.runs(task, arm)).collect();
        if runs.iter().all(|runs| runs.tests.is_empty()) {
            continue;
        }
        let peak = runs[0].cost().map_or(String::new(), |cost| mib(cost.peak));
        let mut cells = vec![arm.to_string(), peak, seconds(&runs[0])];
        for (task, runs) in tasks.iter().zip(&runs) {
            let accuracy = runs.accuracy();
            let accuracy = accuracy.map_or(String::new(), |mean| format!(", {} %", mean.text(1)));
            let minus = (arm != REFERENCE).then(|| runs.minus(&results.runs(task, REFERENCE)));
            cells.push(cell(runs.loss(), 3) + &accuracy);
            cells.push(difference(minus.flatten(), 3));
        }
        text.push_str(&row(&cells));
    }
    text
}

/// How many seeds the trained arms of a task have.
fn seeds(results: &Results, task: &Path) -> String {
    let trained = results.plan.arms.iter().filter(|arm| **arm != Arm::Base);
    let counts: BTreeSet<usize> = trained
        .map(|arm| results.runs(task, *arm).tests.len())
        .collect();
    match (counts.first().copied(), counts.last().copied()) {
        (Some(1), Some(1)) => "1 seed".to_owned(),
        (Some(least), Some(most)) if least == most => format!("{most} seeds"),
        (least, most) => format!("{} to {} seeds", least.unwrap_or(0), most.unwrap_or(0)),
    }
}
