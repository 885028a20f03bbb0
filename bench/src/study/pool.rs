//! Worker processes: each runs one job on one thread.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

use super::job::{Job, Outcome};
use super::log::Log;
use super::plan::Plan;
use crate::process;

struct State<'a> {
    log: &'a mut Log,
    running: Vec<Job>,
    failed: Option<anyhow::Error>,
}

/// Runs every missing job, so many at a time.
pub(crate) fn run(plan: &Plan, log: &mut Log, at_a_time: usize) -> Result<()> {
    let state = Mutex::new(State {
        log,
        running: Vec::new(),
        failed: None,
    });
    let ended = Condvar::new();
    std::thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| work(plan, &state, &ended));
        }
    });
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.failed.map_or(Ok(()), Err)
}

/// Runs jobs until none is missing, or one failed.
fn work(plan: &Plan, state: &Mutex<State>, ended: &Condvar) {
    let lock = || -> MutexGuard<_> { state.lock().unwrap_or_else(PoisonError::into_inner) };
    let mut locked = lock();
    while locked.failed.is_none() {
        let missing = plan.next(locked.log);
        let count = missing.len();
        let free = |job: &Job| !locked.running.contains(job);
        let Some(job) = missing.into_iter().find(free) else {
            if locked.running.is_empty() {
                return;
            }
            // When a running job ends, more jobs may be known.
            locked = ended.wait(locked).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        locked.running.push(job.clone());
        drop(locked);
        let outcome = one(plan, &job);
        locked = lock();
        locked.running.retain(|other| *other != job);
        let added = outcome.and_then(|outcome| {
            eprintln!(
                "{count} left: {:?} {} {} at {} seed {}: {} of {} right, loss {:.4}, {:.1} CPU-s",
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

fn one(plan: &Plan, job: &Job) -> Result<Outcome> {
    let mut lines = process::worker("study", &plan.order(job.clone()), 1)?;
    lines.pop().context("the worker printed no result")
}
