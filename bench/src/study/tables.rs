//! The tables of a task.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::arm::Arm;
use super::arms::REFERENCE;
use super::cells::{cell, change, difference, header, row};
use super::job::{Outcome, learning_rate};
use super::results::{Results, Runs};
use crate::memory::mib;
use crate::stats::Mean;

/// Losses and scores of the arms.
pub(super) fn scores(results: &Results, task: &Path, rows: &[(Arm, Runs)]) -> String {
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
            rate(runs),
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
            cells.push(change_on(runs, other, *before));
        }
        text.push_str(&row(&cells));
    }
    text + "\n"
}

/// The learning rate.
fn rate(runs: &Runs) -> String {
    let rate = runs.learning_rate;
    rate.map_or(String::new(), |rate| format!("{rate:.1e}"))
}

/// The right ones of the answers that the first seed generated.
fn generated(runs: &Runs) -> Option<(usize, usize)> {
    let found = runs.tests.iter().find_map(|test| test.generated);
    found.filter(|(_, asked)| *asked > 0)
}

/// The loss on another task minus that before training; nothing for the untrained model.
fn change_on(runs: &Runs, task: &str, before: f64) -> String {
    if runs.learning_rate.is_none() {
        return String::new();
    }
    let after = |outcome: &Outcome| {
        let mut others = outcome.others.iter();
        others.find_map(|(other, loss)| (other == task).then_some(*loss - before))
    };
    // A study of fewer tasks measured fewer of them.
    let changes: Vec<f64> = runs.tests.iter().filter_map(after).collect();
    let seeds = match changes.len() {
        count if count == runs.tests.len() || count == 0 => String::new(),
        1 => " (1 seed)".to_owned(),
        count => format!(" ({count} seeds)"),
    };
    change(Mean::of(&changes), 3) + &seeds
}

/// Memory, time, and the loss at equal time.
pub(super) fn costs(results: &Results, task: &Path, rows: &[(Arm, Runs)]) -> String {
    let reference = results.runs(task, REFERENCE);
    let measured = rows.iter().filter(|(_, runs)| runs.cost().is_some());
    let measured: Vec<_> = measured.collect();
    let steps = |runs: &Runs| runs.curve().last().map_or(0, |(step, _)| *step) as f64;
    let times = measured
        .iter()
        .filter_map(|(_, runs)| Some(steps(runs) * runs.time_per_step?));
    let Some(budget) = times.min_by(f64::total_cmp) else {
        return String::new();
    };
    let [unit, _] = results.unit();
    let after = format!("loss after {budget:.0} {unit}");
    let of_step = format!("{unit} of a step");
    let mut text = header(&[
        "method",
        "trainable, M",
        "peak, MiB",
        &of_step,
        &after,
        "minus LoRA",
    ]);
    for (arm, runs) in measured {
        let Some(cost) = runs.cost() else { continue };
        let minus = (*arm != REFERENCE).then(|| runs.minus_after(&reference, budget));
        text.push_str(&row(&[
            arm.to_string(),
            format!("{:.1}", cost.trainable as f64 / 1e6),
            mib(cost.peak),
            seconds(runs),
            cell(runs.loss_after(budget), 3),
            change(minus.flatten(), 3),
        ]));
    }
    text + "\n"
}

/// The seconds of a step.
pub(super) fn seconds(runs: &Runs) -> String {
    let seconds = runs.time_per_step;
    seconds.map_or(String::new(), |seconds| format!("{seconds:.1}"))
}

/// The arms that vary another one, beside it.
pub(super) fn varied(results: &Results, task: &Path, rows: &[(Arm, Runs)]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let reference = results.runs(task, REFERENCE);
    let mut text = header(&[
        "variant",
        "learning rate",
        "seeds",
        "held-out loss",
        "minus the method that it varies",
        "minus LoRA",
        "peak, MiB",
    ]);
    for (arm, runs) in rows {
        let is_here = |varies: &Arm| rows.iter().any(|(other, _)| other == varies);
        let varies = results.plan.varied_by(*arm);
        let varies = Some(varies).filter(is_here);
        let varies = varies.unwrap_or_else(|| results.plan.chosen_for(*arm));
        let parent = results.runs(task, varies);
        let peak = runs.cost().map_or(String::new(), |cost| {
            let host = match cost.offloaded {
                0 => String::new(),
                host => format!(" and {} of the host", mib(host)),
            };
            mib(cost.peak) + &host
        });
        let of_parent = if varies == *arm {
            String::new()
        } else {
            format!("{} ({varies})", difference(runs.minus(&parent), 4))
        };
        let minus = (*arm != REFERENCE).then(|| runs.minus(&reference));
        text.push_str(&row(&[
            arm.to_string(),
            rate(runs),
            runs.tests.len().to_string(),
            cell(runs.loss(), 4),
            of_parent,
            difference(minus.flatten(), 4),
            peak,
        ]));
    }
    text + "\n"
}

/// Runs with other rates than the chosen ones.
pub(super) fn other_rates(results: &Results, task: &Path, rows: &[(Arm, Runs)]) -> String {
    let mut lines = String::new();
    for (arm, chosen) in rows {
        for runs in results.other_rates(task, *arm) {
            lines.push_str(&row(&[
                arm.to_string(),
                rate(&runs),
                runs.tests.len().to_string(),
                cell(runs.loss(), 4),
                format!("{} ({})", difference(runs.minus(chosen), 4), rate(chosen)),
            ]));
        }
    }
    if lines.is_empty() {
        return lines;
    }
    let head = header(&[
        "method with another rate",
        "learning rate",
        "seeds",
        "held-out loss",
        "minus the one with the chosen rate",
    ]);
    head + &lines + "\n"
}

/// The losses by which the learning rates were chosen.
pub(super) fn choices(results: &Results, task: &Path) -> String {
    let plan = results.plan;
    let mut found = Vec::new();
    let arms = plan.arms_of(task).into_iter();
    for arm in arms.filter(|arm| *arm != Arm::Base) {
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
pub(super) fn layers(rows: &[(Arm, Runs)]) -> String {
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

#[cfg(test)]
mod tests {
    use super::super::arm::{STEP, Sampled, State};
    use super::super::job::{Job, Point, Purpose};
    use super::super::log::Log;
    use super::super::plan::Plan;
    use super::*;
    use crate::preset::Dtype;

    /// A study of two tasks in which every run is done; the loss of an arm is `loss`.
    fn finished(plan: &Plan, loss: impl Fn(Arm, u64) -> f64) -> (tempfile::TempDir, Log) {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(&dir.path().join("runs.jsonl")).unwrap();
        while let Some(job) = plan.next(&log).into_iter().next() {
            let is_test = job.purpose == Purpose::Test;
            let value = if is_test {
                loss(job.arm, job.seed)
            } else {
                // The middle of three rates is the best.
                3.0 + f64::from((job.rate - job.arm.first_rate() - STEP).abs()) / f64::from(STEP)
            };
            let trained = job.purpose != Purpose::Choice && job.arm != Arm::Base;
            let point = |step| Point {
                step,
                cpu: 2.0 * step as f64,
                loss: value,
                ..Point::default()
            };
            let outcome = Outcome {
                others: match (job.arm, job.seed) {
                    (Arm::Lora { .. }, 2) => Vec::new(),
                    _ => vec![("b".into(), value + 1.0)],
                },
                curve: if trained {
                    vec![point(60), point(120)]
                } else {
                    Vec::new()
                },
                peak: if trained { 64 << 20 } else { 0 },
                offloaded: match job.arm {
                    Arm::Lisa(Sampled {
                        state: State::Offload,
                        ..
                    }) => 8 << 20,
                    _ => 0,
                },
                generated: (job.sizes.answers > 0 && job.seed == 1).then_some((3, 32)),
                ..Outcome::sample(value)
            };
            log.add(job, outcome).unwrap();
        }
        (dir, log)
    }

    /// A line of a table as cells.
    fn line(text: &str, first: &str) -> Vec<String> {
        let start = format!("| {first} |");
        let line = text.lines().find(|line| line.starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("no line `{start}` in\n{text}"));
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    }

    #[test]
    fn methods_are_compared_with_lora_and_variants_with_what_they_vary() {
        let ten = Sampled {
            outer_every: 0,
            ..Arm::lisa(10)
        };
        let kept = Arm::Lisa(Sampled {
            state: State::Offload,
            ..ten
        });
        let full = Plan::full("base".into(), vec!["a".into(), "b".into()]);
        let plan = Plan {
            variants: vec![kept],
            ..full
        };
        let (_dir, mut log) = finished(&plan, |arm, seed| {
            let noise = 0.001 * seed as f64;
            match arm {
                Arm::Base => 4.0,
                Arm::Lora { .. } => 2.0 + noise,
                Arm::Full => 1.5 + noise,
                _ if arm == kept => 2.5 + noise,
                Arm::Lisa(_) => 2.25 + noise,
            }
        });
        let results = Results {
            plan: &plan,
            log: &log,
        };
        let task = Path::new("a");
        let (arms, variants) = (results.finished(task), results.variants(task));
        let text = scores(&results, task, &arms);
        let cells = line(&text, "full");
        assert_eq!(cells[2..4], ["3", "3.2e-5"]);
        assert_eq!(cells[5], "-0.5000 [-0.5000, -0.5000] *");
        assert_eq!(cells[6..9], ["50.0 ± 0.0", "+0.0 [+0.0, +0.0]", "3 of 32"]);
        // 1.5 after training and one more on the other task, 5 before.
        assert_eq!(cells[9], "-2.498 ± 0.002");
        // The untrained model has one seed and no learning rate, and changes nothing.
        let cells = line(&text, "no training");
        assert_eq!(
            (cells[2].as_str(), cells[3].as_str(), cells[9].as_str()),
            ("1", "", "")
        );
        assert!(cells[5].starts_with("+1.9980 "), "{cells:?}");
        // It has no difference from itself, and the seed without the other task is left out of the change.
        let cells = line(&text, "LoRA, rank 16");
        assert_eq!(
            (cells[5].as_str(), cells[9].as_str()),
            ("", "-1.998 (2 seeds)")
        );

        let text = costs(&results, task, &arms);
        assert!(text.contains("loss after 240 CPU-s"), "{text}");
        assert_eq!(
            line(&text, "LISA 2")[3..7],
            ["64", "2.0", "2.252 ± 0.002", "+0.250 ± 0.000"]
        );
        assert_eq!(line(&text, "LoRA, rank 16")[6], "");

        // A run of another dtype, on a GPU, is not of this study.
        let gpu = Outcome {
            device: "Cuda(0)".into(),
            ..Outcome::sample(1.0)
        };
        let job = Job {
            model: "base".into(),
            task: "a".into(),
            dtype: Dtype::Bf16,
            ..Job::sample(Arm::Full, 1)
        };
        log.add(job, gpu).unwrap();
        let results = Results {
            plan: &plan,
            log: &log,
        };
        assert_eq!(results.unit(), ["CPU-s", "CPU time"]);
        let half = Plan {
            dtype: Dtype::Bf16,
            ..plan.clone()
        };
        let half = Results {
            plan: &half,
            log: &log,
        };
        assert_eq!(half.unit()[0], "s");
        assert!(!text.contains("no training"));

        let text = varied(&results, task, &variants);
        let cells = line(&text, "LISA 10, embeddings frozen, state kept");
        let difference = "+0.2500 [+0.2500, +0.2500] (LISA 10, embeddings frozen)";
        assert_eq!(cells[2..6], ["1.0e-4", "1", "2.5010", difference]);
        assert_eq!(cells[6], "+0.5000 [+0.5000, +0.5000]");
        assert_eq!(cells[7], "64 and 8 of the host");
        // What a variant varies is in the same table, and LoRA.
        assert_eq!(line(&text, "LISA 10, embeddings frozen")[5], "");
        assert_eq!(line(&text, "LoRA, rank 16")[6], "");

        let text = choices(&results, task);
        assert_eq!(
            line(&text, "LISA 2")[2..],
            ["", "4.000", "3.000", "4.000", "", ""]
        );
    }

    #[test]
    fn runs_with_another_rate_are_beside_those_with_the_chosen_one() {
        let plan = Plan {
            variants: Vec::new(),
            ..Plan::full("base".into(), vec!["a".into()])
        };
        let (_dir, mut log) = finished(&plan, |_, _| 2.0);
        let task = Path::new("a");
        let chosen = plan.tests(&log, task, Arm::Full);
        for (job, loss) in chosen.iter().zip([1.75, 1.25]) {
            let rate = job.rate + 1;
            // A faster run, of another day.
            let point = Point {
                step: 10,
                cpu: 5.0,
                ..Point::default()
            };
            let outcome = Outcome {
                curve: vec![point],
                peak: 1,
                ..Outcome::sample(loss)
            };
            log.add(
                Job {
                    rate,
                    ..job.clone()
                },
                outcome,
            )
            .unwrap();
        }
        let results = Results {
            plan: &plan,
            log: &log,
        };
        let runs = results.runs(task, Arm::Full);
        assert_eq!((runs.tests.len(), runs.loss().unwrap().mean), (3, 2.0));
        assert_eq!(runs.time_per_step, Some(2.0));
        let text = other_rates(&results, task, &results.finished(task));
        assert_eq!(text.lines().count(), 4);
        let found = line(&text, "full");
        assert_eq!(found[3..5], ["2", "1.5000"]);
        assert_eq!(found[5], "-0.2500, -0.7500 (3.2e-5)");
        assert!(other_rates(&results, task, &[]).is_empty());
    }

    #[test]
    fn the_summary_has_each_arm_in_its_own_row() {
        let plan = Plan {
            variants: Vec::new(),
            ..Plan::full("base".into(), vec!["mine".into(), "gsm8k".into()])
        };
        let (_dir, log) = finished(&plan, |arm, _| match arm {
            Arm::Full => 1.5,
            Arm::Lisa(sampled) => sampled.active_layers as f64,
            _ => 2.0,
        });
        let results = Results {
            plan: &plan,
            log: &log,
        };
        let text = super::super::report::summary(&results);
        let losses = |method| {
            let cells = line(&text, method);
            [4, 6].map(|cell| cells[cell].clone())
        };
        // `mine` has no layers that are sampled once.
        assert_eq!(
            losses("LISA 14, embeddings frozen, sampled once"),
            ["", "14.000 ± 0.000"]
        );
        let ten = "10.000 ± 0.000";
        assert_eq!(losses("LISA 10, embeddings frozen"), [ten; 2]);
        assert_eq!(losses("full"), ["1.500 ± 0.000"; 2]);
        assert_eq!(losses("LISA 2"), ["2.000 ± 0.000"; 2]);
    }
}
