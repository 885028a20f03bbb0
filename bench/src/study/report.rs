//! The page of the finished runs, and the table of the project's page, as Markdown.

use std::collections::BTreeSet;
use std::path::Path;

use super::arm::Arm;
use super::arms::REFERENCE;
use super::cells::{cell, difference, header, row};
use super::job::Purpose;
use super::plan::{Plan, name};
use super::results::{Results, Runs};
use super::tables::{choices, costs, layers, other_rates, scores, seconds, varied};
use crate::memory::mib;

/// The tables of each task.
pub(crate) fn markdown(results: &Results) -> String {
    let mut text = String::from("# Results of the study\n\n");
    text.push_str(&setup(results));
    text.push_str(&format!("\n{}", summary(results)));
    for task in &results.plan.tasks {
        let rows = results.finished(task);
        if rows.is_empty() && results.variants(task).is_empty() {
            continue;
        }
        text.push_str(&format!("\n## {}\n\n", name(task)));
        let (arms, variants) = (rows, results.variants(task));
        text.push_str(&scores(results, task, &arms));
        text.push_str(&costs(results, task, &arms));
        text.push_str(&varied(results, task, &variants));
        text.push_str(&layers(&variants));
        text.push_str(&other_rates(results, task, &arms));
        text.push_str(&choices(results, task));
        if arms.len() > 1 {
            let has_accuracy = arms.iter().any(|(_, runs)| runs.accuracy().is_some());
            text.push_str(&pictures(results, &name(task), has_accuracy));
        }
    }
    text
}

/// The pictures of a task.
fn pictures(results: &Results, task: &str, has_accuracy: bool) -> String {
    let [_, time] = results.unit();
    let of = |(file, about): &(&str, &str)| format!("![{about} of {task}]({task}-{file}.svg)\n");
    let time = format!("Held-out loss over {time}");
    let all = [
        ("steps", "Held-out loss over steps"),
        ("time", &time),
        ("memory", "Held-out loss minus LoRA's over peak memory"),
        ("accuracy", "Accuracy minus LoRA's over peak memory"),
    ];
    let count = if has_accuracy { 4 } else { 3 };
    all[..count].iter().map(of).collect()
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
    let (mut tests, mut choices, mut times) = (0, 0, 0);
    for (job, run) in results.log.all() {
        if !plan.has(job) {
            continue;
        }
        devices.insert(run.device.as_str());
        commits.insert(run.commit.as_str());
        match job.purpose {
            Purpose::Test => tests += 1,
            Purpose::Choice => choices += 1,
            Purpose::Time => times += 1,
        }
    }
    let [unit, time] = results.unit();
    let reserved = if unit == "s" {
        ", the bytes that the pool of the GPU reserved"
    } else {
        ""
    };
    let list = |set: BTreeSet<&str>| set.into_iter().collect::<Vec<_>>().join(", ");
    format!(
        "Model `{}`, {}; {tests} runs, {choices} to choose learning rates, and {times} to measure \
         times. A run has {} steps, with \
         batches of {}, truncated at {} tokens. Losses are of the first {} held-out rows, points of curves \
         of the first {}. Made on {}, commits {}.\n\n\
         Differences are paired by row and seed, with their 95 % interval in brackets: with one seed that \
         of the bootstrap over rows, which does not cover the variation between seeds; with three or more \
         seeds its half width and that of Student's interval over seeds are added as squares. With two seeds \
         both differences are there. A star marks an interval of at least three seeds without 0; it is not \
         corrected for the number of comparisons. Values after ± are half of Student's 95 % interval over at \
         least three seeds. Seeds have different losses, so methods with different seeds can be compared by \
         their differences only. A seed samples the same layers on every task.\n\n\
         Peaks are of the first seed{reserved}. The {time} of a step is that of one run of ten \
         steps of each method, one method after the other; a difference of a few percent says \
         nothing. Losses after a time are read off the curves, and ± is there over seeds only, \
         not over their few rows. Accuracy is the share of rows in which the first token of the \
         right answer is more probable than those of the other answers. Bands of the curves are \
         the range of the seeds, and the lines at the points over memory are the interval over at \
         least three seeds.\n",
        name(&plan.model),
        plan.dtype,
        sizes.steps,
        batches(plan),
        sizes.max_length,
        sizes.scored,
        sizes.points,
        list(devices),
        list(commits)
    )
}

/// A table of the arms; tasks without runs are left out. Memory and time are those of
/// the first task.
pub(crate) fn summary(results: &Results) -> String {
    let tasks = tasks(results);
    let Some(first) = tasks.first() else {
        return String::new();
    };
    let mut head = vec![
        "method".to_owned(),
        format!("peak on `{}`, MiB", name(first)),
        format!("{} of a step", results.unit()[0]),
    ];
    for task in &tasks {
        head.push(format!(
            "loss on `{}`, {}",
            name(task),
            seeds(results, task)
        ));
        head.push("minus LoRA".to_owned());
    }
    let mut text = header(&head.iter().map(String::as_str).collect::<Vec<_>>());
    for (arm, runs) in rows(results, &tasks) {
        let peak = runs[0].cost().map_or(String::new(), |cost| mib(cost.peak));
        let method = method(results.plan, &tasks, arm);
        let mut cells = vec![method, peak, seconds(&runs[0])];
        for (task, runs) in tasks.iter().zip(&runs) {
            let minus = (arm != REFERENCE).then(|| runs.minus(&results.runs(task, REFERENCE)));
            cells.push(cell(runs.loss(), 3));
            cells.push(difference(minus.flatten(), 3));
        }
        text.push_str(&row(&cells));
    }
    text
}

/// The tasks that have runs.
fn tasks<'a>(results: &'a Results) -> Vec<&'a Path> {
    let tasks = results.plan.tasks.iter().map(AsRef::as_ref);
    tasks
        .filter(|task| !results.finished(task).is_empty())
        .collect()
}

/// The arms that have runs on one of the tasks, and the runs of each task.
fn rows(results: &Results, tasks: &[&Path]) -> Vec<(Arm, Vec<Runs>)> {
    let plan = results.plan;
    let all = tasks.iter().map(|task| plan.arms_of(task));
    let arms = all.max_by_key(Vec::len).unwrap_or_default().into_iter();
    let of = |arm| {
        let of_task = |task: &&Path| {
            let arm = plan.same(task, arm);
            arm.map_or_else(Runs::default, |arm| results.runs(task, arm))
        };
        (arm, tasks.iter().map(of_task).collect::<Vec<_>>())
    };
    let rows = arms.map(of);
    rows.filter(|(_, runs)| runs.iter().any(|runs| !runs.tests.is_empty()))
        .collect()
}

/// The name of an arm, with the layers of the tasks where they are others.
fn method(plan: &Plan, tasks: &[&Path], arm: Arm) -> String {
    let mut method = arm.to_string();
    for task in tasks {
        match plan.same(task, arm) {
            Some(Arm::Lisa(other)) if Arm::Lisa(other) != arm => {
                method.push_str(&format!(" (`{}`: {})", name(task), other.active_layers));
            }
            _ => {}
        }
    }
    method
}

/// The loss of each seed minus that of LoRA with the same seed.
pub(crate) fn by_seed(results: &Results) -> String {
    let tasks = tasks(results);
    let heads = tasks.iter().map(|task| format!("`{}`", name(task)));
    let heads: Vec<String> = [format!("minus {REFERENCE}")]
        .into_iter()
        .chain(heads)
        .collect();
    let mut text = header(&heads.iter().map(String::as_str).collect::<Vec<_>>());
    for (arm, runs) in rows(results, &tasks) {
        if [Arm::Base, REFERENCE].contains(&arm) {
            continue;
        }
        let of_task = |(task, runs): (&&Path, &Runs)| {
            let minus = runs.minus(&results.runs(task, REFERENCE));
            let seeds = minus.map_or(Vec::new(), |minus| minus.of_seeds);
            let seeds: Vec<String> = seeds.iter().map(|seed| format!("{seed:+.3}")).collect();
            seeds.join(", ")
        };
        let cells = tasks.iter().zip(&runs).map(of_task);
        let method = method(results.plan, &tasks, arm);
        text.push_str(&row(&[method].into_iter().chain(cells).collect::<Vec<_>>()));
    }
    text
}

/// How many seeds the trained arms of a task have.
fn seeds(results: &Results, task: &Path) -> String {
    let arms = results.plan.arms_of(task).into_iter();
    let counts: BTreeSet<usize> = arms
        .filter(|arm| *arm != Arm::Base)
        .map(|arm| results.runs(task, arm).tests.len())
        .filter(|count| *count > 0)
        .collect();
    match (counts.first().copied(), counts.last().copied()) {
        (Some(1), Some(1)) => "1 seed".to_owned(),
        (Some(least), Some(most)) if least == most => format!("{most} seeds"),
        (least, most) => format!("{} to {} seeds", least.unwrap_or(0), most.unwrap_or(0)),
    }
}
