//! [`Row`]: the measurements of one method.

use anyhow::{Context, Result, ensure};

use super::worker::Event;
use crate::method::Method;
use crate::stats::{median, quartiles};

/// The measurements of a method. Bytes are those of the first round.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) method: Method,
    /// The steps of the first round.
    pub(crate) steps: Vec<Event>,
    /// The peak before the first step.
    pub(crate) setup: Option<u64>,
    /// The most bytes in use, counted; for PyTorch on the CPU, `resident`.
    pub(crate) peak: u64,
    /// The high-water mark of the resident set, minus that of a process with a tiny model.
    pub(crate) resident: Option<u64>,
    pub(crate) live: Option<u64>,
    pub(crate) state: Option<u64>,
    pub(crate) host: Option<u64>,
    /// The loss of the last step.
    pub(crate) loss: f64,
    /// The peak of the memory plan.
    pub(crate) planned: Option<u64>,
    /// By round and by step: CPU seconds, and seconds of forward pass, backward pass and update.
    times: Vec<Vec<[f64; 4]>>,
}

/// The largest of a value over the steps.
pub(crate) fn highest(events: &[Event], of: impl Fn(&Event) -> Option<u64>) -> Option<u64> {
    let steps = events.iter().filter(|event| event.step.is_some());
    steps.filter_map(of).max()
}

impl Row {
    pub(crate) fn new(
        method: Method,
        floor: u64,
        events: Vec<Event>,
        warmup: usize,
    ) -> Result<Self> {
        let resident = highest(&events, |e| e.rss).map(|rss| rss.saturating_sub(floor));
        let steps: Vec<Event> = events
            .iter()
            .filter(|e| e.step.is_some())
            .cloned()
            .collect();
        let last = steps
            .last()
            .with_context(|| format!("`{method}` took no step"))?;
        let loss = last.loss;
        ensure!(loss.is_finite(), "the loss of `{method}` is {loss}");
        let mut row = Self {
            method,
            setup: events
                .iter()
                .find(|e| e.step.is_none())
                .and_then(|e| e.peak),
            peak: highest(&events, |e| e.peak).or(resident).unwrap_or(0),
            resident,
            live: highest(&events, |e| e.live),
            state: highest(&events, |e| e.state),
            host: highest(&events, |e| e.host).filter(|bytes| *bytes > 0),
            loss,
            planned: None,
            steps,
            times: Vec::new(),
        };
        row.add(&events, warmup);
        Ok(row)
    }

    /// Adds the times of a round.
    pub(crate) fn add(&mut self, events: &[Event], warmup: usize) {
        let measured = events
            .iter()
            .filter(|e| e.step.is_some_and(|s| s >= warmup));
        let times = measured.map(|e| [e.cpu, e.forward, e.backward, e.update]);
        self.times.push(times.collect());
    }

    fn median(&self, of: impl Fn(&[f64; 4]) -> f64) -> f64 {
        median(&self.times.iter().flatten().map(of).collect::<Vec<_>>())
    }

    /// CPU seconds of a step.
    pub(crate) fn cpu(&self) -> f64 {
        self.median(|times| times[0])
    }

    /// The first and the third quartile of the CPU seconds of a step.
    pub(crate) fn cpu_quartiles(&self) -> [f64; 2] {
        let times = self.times.iter().flatten().map(|times| times[0]);
        quartiles(&times.collect::<Vec<_>>())
    }

    /// The median CPU seconds of a step in each round.
    pub(crate) fn cpu_of_rounds(&self) -> impl Iterator<Item = f64> {
        self.of_rounds(|times| times[0])
    }

    /// The median seconds of a step in each round.
    pub(crate) fn wall_of_rounds(&self) -> impl Iterator<Item = f64> {
        self.of_rounds(|times| times[1..].iter().sum())
    }

    fn of_rounds(&self, of: impl Fn(&[f64; 4]) -> f64) -> impl Iterator<Item = f64> {
        let rounds = self.times.iter();
        rounds.map(move |times| median(&times.iter().map(&of).collect::<Vec<_>>()))
    }

    /// Seconds of a step.
    pub(crate) fn wall(&self) -> f64 {
        self.median(|times| times[1..].iter().sum())
    }

    /// Seconds of the forward pass, the backward pass and the update.
    pub(crate) fn phases(&self) -> [f64; 3] {
        [1, 2, 3].map(|index| self.median(|times| times[index]))
    }
}
