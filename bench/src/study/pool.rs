//! Worker processes: each runs one job.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

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

/// How the missing runs are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool {
    /// Runs at a time, and threads of each.
    pub(crate) at_a_time: usize,
    pub(crate) threads: usize,
    /// After so many seconds no run is started.
    pub(crate) seconds: Option<u64>,
}

/// Makes the missing runs.
pub(crate) fn run(plan: &Plan, log: &mut Log, pool: Pool) -> Result<()> {
    let started = Instant::now();
    let in_time = || {
        pool.seconds
            .is_none_or(|most| started.elapsed().as_secs() < most)
    };
    let state = Mutex::new(State {
        log,
        running: Vec::new(),
        failed: None,
    });
    let ended = Condvar::new();
    std::thread::scope(|scope| {
        for _ in 0..pool.at_a_time {
            scope.spawn(|| work(plan, pool.threads, &state, &ended, &in_time));
        }
    });
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.failed.map_or(Ok(()), Err)
}

/// Runs jobs until none is missing, or one failed.
fn work(
    plan: &Plan,
    threads: usize,
    state: &Mutex<State>,
    ended: &Condvar,
    in_time: &(dyn Fn() -> bool + Sync),
) {
    let lock = || -> MutexGuard<_> { state.lock().unwrap_or_else(PoisonError::into_inner) };
    let mut locked = lock();
    while locked.failed.is_none() && in_time() {
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
        let outcome = one(plan, &job, threads);
        locked = lock();
        locked.running.retain(|other| *other != job);
        let added = outcome.and_then(|outcome| {
            eprintln!(
                "{count} left: {job}: loss {:.4}, {:.0} s of training",
                outcome.scores.loss(),
                outcome.curve.last().map_or(0.0, |point| point.wall)
            );
            locked.log.add(job, outcome)
        });
        if let Err(error) = added {
            locked.failed.get_or_insert(error);
        }
        ended.notify_all();
    }
}

/// Makes a run in a process of its own.
pub(crate) fn one(plan: &Plan, job: &Job, threads: usize) -> Result<Outcome> {
    let mut lines = process::worker("study", &plan.order(job.clone()), threads)?;
    lines.pop().context("the worker printed no result")
}
