//! The tables, as markdown and CSV.

use std::fmt::Write;

use super::job::{Log, Method, Outcome};
use super::results::{Results, Runs};
use super::stats::Mean;
use super::tasks::Task;

fn text(mean: Option<Mean>, factor: f64, digits: usize) -> String {
    mean.map_or_else(String::new, |mean| mean.text(factor, digits))
}

fn kib(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / 1024.0)
}

/// All tables of what is done.
pub(crate) fn markdown(results: &Results) -> String {
    let mut out = String::new();
    for &task in &results.plan.tasks {
        scores(results, task, &mut out);
    }
    ablation(results, &mut out);
    continual(results, &mut out);
    layers(results, &mut out);
    out
}

/// The methods on one task.
fn scores(results: &Results, task: Task, out: &mut String) {
    let plan = results.plan;
    if !results.any(task) {
        return;
    }
    let _ = writeln!(out, "### Task `{task}`\n");
    out.push_str(
        "| method | seeds | learning rate | exact match, % | less LISA's (uniform) | held-out loss \
         | numbers that train | state, KiB | CPU-s |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    let uniform = results.tests(task, Method::Uniform);
    for &method in &plan.methods {
        let runs = results.tests(task, method);
        if runs.outcomes.is_empty() {
            continue;
        }
        let rate = match plan.tests(results.log, task, method).first() {
            Some(job) if method != Method::Base => format!("{:.2e}", job.learning_rate()),
            _ => String::new(),
        };
        let against = match runs.against(&uniform) {
            Some((mean, clear)) if method != Method::Uniform && method != Method::Base => {
                format!("{}{}", mean.text(100.0, 1), if clear { " *" } else { "" })
            }
            _ => String::new(),
        };
        let _ = writeln!(
            out,
            "| {method} | {} | {rate} | {} | {against} | {} | {} | {} | {} |",
            runs.outcomes.len(),
            text(runs.mean(Outcome::exact_match), 100.0, 1),
            text(runs.mean(|o| o.loss), 1.0, 4),
            runs.most(|o| o.trained),
            kib(runs.most(|o| o.state_bytes)),
            text(
                runs.mean(|o| o.cpu).map(|m| Mean { half: None, ..m }),
                1.0,
                1
            ),
        );
    }
    out.push('\n');
}

fn ablation(results: &Results, out: &mut String) {
    let plan = results.plan;
    if plan.ablation.is_empty() {
        return;
    }
    let _ = writeln!(out, "### gamma and K, uniform, task `{}`\n", plan.tasks[0]);
    out.push_str(
        "| gamma | K | seeds | exact match, % | held-out loss | numbers that train | state, KiB \
         | CPU-s |\n|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for &(active, period) in &plan.ablation {
        let runs = results.ablation((active, period));
        if runs.outcomes.is_empty() {
            continue;
        }
        let period = if period == 0 {
            "all".to_string()
        } else {
            period.to_string()
        };
        let _ = writeln!(
            out,
            "| {active} | {period} | {} | {} | {} | {} | {} | {} |",
            runs.outcomes.len(),
            text(runs.mean(Outcome::exact_match), 100.0, 1),
            text(runs.mean(|o| o.loss), 1.0, 4),
            runs.most(|o| o.trained),
            kib(runs.most(|o| o.state_bytes)),
            text(
                runs.mean(|o| o.cpu).map(|m| Mean { half: None, ..m }),
                1.0,
                1
            ),
        );
    }
    out.push('\n');
}

fn continual(results: &Results, out: &mut String) {
    let plan = results.plan;
    let rows: Vec<(Method, Runs)> = plan
        .continual
        .iter()
        .map(|&method| (method, results.continual(method)))
        .collect();
    if rows.iter().all(|(_, runs)| runs.outcomes.is_empty()) {
        return;
    }
    let _ = writeln!(
        out,
        "### Pretraining on the domain's text, then task `{}`\n",
        Task::Sums
    );
    out.push_str(
        "| method | seeds | exact match, %, without | with | difference | held-out loss, without \
         | with |\n|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for (method, with) in rows {
        let without = results.tests(Task::Sums, method);
        let difference = match with.against(&without) {
            Some((mean, clear)) => {
                format!("{}{}", mean.text(100.0, 1), if clear { " *" } else { "" })
            }
            None => String::new(),
        };
        let _ = writeln!(
            out,
            "| {method} | {} | {} | {} | {difference} | {} | {} |",
            with.outcomes.len(),
            text(without.mean(Outcome::exact_match), 100.0, 1),
            text(with.mean(Outcome::exact_match), 100.0, 1),
            text(without.mean(|o| o.loss), 1.0, 4),
            text(with.mean(|o| o.loss), 1.0, 4),
        );
    }
    out.push('\n');
}

/// By layer: how often it was drawn, and its norms afterwards.
fn layers(results: &Results, out: &mut String) {
    let plan = results.plan;
    let mut table = |title: String, rows: Vec<(String, Vec<f64>)>, digits: usize| {
        let rows: Vec<_> = rows
            .into_iter()
            .filter(|(_, values)| !values.is_empty())
            .collect();
        if rows.is_empty() {
            return;
        }
        let numbers: Vec<String> = (0..plan.scale.layers).map(|i| i.to_string()).collect();
        let _ = writeln!(out, "### {title}\n");
        let _ = writeln!(out, "| | {} |", numbers.join(" | "));
        let _ = writeln!(out, "|---|{}", "--:|".repeat(plan.scale.layers));
        for (name, values) in rows {
            let cells: Vec<String> = values.iter().map(|v| format!("{v:.digits$}")).collect();
            let _ = writeln!(out, "| {name} | {} |", cells.join(" | "));
        }
        out.push('\n');
    };
    let methods = || plan.methods.iter().copied();
    let drawn = methods().filter(|method| method.draws());
    table(
        "Share of the steps in which a layer trained, in %, all tasks".into(),
        drawn
            .map(|method| {
                let shares = results.drawn(method).into_iter();
                (
                    method.to_string(),
                    shares.map(|share| 100.0 * share).collect(),
                )
            })
            .collect(),
        1,
    );
    let probes = plan.tasks.iter().map(|&task| {
        let probe = results.log.get(&plan.probe(task));
        (
            task.to_string(),
            probe.map_or_else(Vec::new, |probe| probe.probabilities.clone()),
        )
    });
    table(
        "Weights of the layers from the probes: norm under LoRA / norm under full training".into(),
        probes.collect(),
        4,
    );
    for &task in &plan.tasks {
        let rows = methods().filter(|method| *method != Method::Base);
        table(
            format!("Norm of what was added to a layer, task `{task}`"),
            rows.map(|method| {
                let runs = results.tests(task, method);
                (
                    method.to_string(),
                    runs.by_layer(|outcome| &outcome.updates),
                )
            })
            .collect(),
            2,
        );
        table(
            format!("Norm of a layer's weights afterwards, task `{task}`"),
            methods()
                .map(|method| {
                    let runs = results.tests(task, method);
                    (method.to_string(), runs.by_layer(|outcome| &outcome.norms))
                })
                .collect(),
            2,
        );
    }
}

/// Every run, a row each.
pub(crate) fn csv(log: &Log, scale: &str) -> String {
    let mut text = String::from(
        "purpose,task,method,learning_rate,seed,gamma,k,right,asked,loss,training_loss,trained,\
         state_bytes,cpu_s\n",
    );
    let mut rows: Vec<String> = log
        .iter()
        .filter(|(job, _)| job.scale == scale)
        .map(|(job, outcome)| {
            format!(
                "{:?},{},{},{},{},{},{},{},{},{},{},{},{},{:.3}\n",
                job.purpose,
                job.task,
                job.method,
                job.learning_rate(),
                job.seed,
                job.active_layers,
                job.period,
                outcome.hits,
                outcome.asked,
                outcome.loss,
                outcome.training_loss,
                outcome.trained,
                outcome.state_bytes,
                outcome.cpu
            )
        })
        .collect();
    rows.sort();
    text.extend(rows);
    text
}
