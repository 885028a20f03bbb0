//! Worker processes: each takes one run, of one thread, and prints what came of it as JSON.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::job::{Job, Log, Method, Outcome};
use super::next::Plan;
use super::scale::Scale;

/// What a worker is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) job: Job,
    pub(crate) scale: Scale,
    pub(crate) probabilities: Vec<f64>,
}

struct State<'a> {
    log: &'a mut Log,
    running: Vec<Job>,
    failed: Option<anyhow::Error>,
}

/// Runs all that is missing, `jobs` runs at a time.
pub(crate) fn run(plan: &Plan, log: &mut Log, out: &Path, jobs: usize) -> Result<()> {
    let state = Mutex::new(State {
        log,
        running: Vec::new(),
        failed: None,
    });
    let ended = Condvar::new();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| work(plan, &state, &ended, out));
        }
    });
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.failed.map_or(Ok(()), Err)
}

/// Takes runs until there are none.
fn work(plan: &Plan, state: &Mutex<State>, ended: &Condvar, out: &Path) {
    let mut locked = state.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if locked.failed.is_some() {
            return;
        }
        let missing = plan.next(locked.log);
        let count = missing.len();
        let Some(job) = missing
            .into_iter()
            .find(|job| !locked.running.contains(job))
        else {
            if locked.running.is_empty() {
                return;
            }
            // What runs now may make more runs possible.
            locked = ended.wait(locked).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        locked.running.push(job.clone());
        let probe = locked.log.get(&plan.probe(job.task));
        let probabilities = match (job.method, probe) {
            (Method::Weighted, Some(probe)) => probe.probabilities.clone(),
            _ => Vec::new(),
        };
        drop(locked);
        let order = Order {
            job: job.clone(),
            scale: plan.scale.clone(),
            probabilities,
        };
        let result = one(&order, out);
        locked = state.lock().unwrap_or_else(PoisonError::into_inner);
        locked.running.retain(|other| *other != job);
        let added = result.and_then(|outcome| {
            eprintln!(
                "{count} to go: {:?} {} {} at {} seed {}: {} of {} right, loss {:.4}, {:.1} s",
                job.purpose,
                job.task,
                job.method,
                job.learning_rate(),
                job.seed,
                outcome.hits,
                outcome.asked,
                outcome.loss,
                outcome.cpu
            );
            locked.log.add(job, outcome)
        });
        if let Err(error) = added {
            locked.failed.get_or_insert(error);
        }
        ended.notify_all();
    }
}

/// One run in a process of its own.
fn one(order: &Order, out: &Path) -> Result<Outcome> {
    let text = serde_json::to_string(order)?;
    let output = Command::new(std::env::current_exe()?)
        .arg("study")
        .arg("--out")
        .arg(out)
        .args(["--order", &text])
        .env("RAYON_NUM_THREADS", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start a worker")?;
    if !output.status.success() {
        bail!("the worker of {text} ended with {}", output.status);
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().rfind(|line| line.starts_with('{'));
    let line = line.ok_or_else(|| anyhow!("the worker of {text} said nothing"))?;
    serde_json::from_str(line).with_context(|| format!("the worker of {text} said `{line}`"))
}
