//! `compare.csv`, `compare.md` and the table.

use anyhow::{Result, ensure};

use crate::child::Event;
use crate::method::Method;
use crate::settings::Settings;

/// What a method needed.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) method: Method,
    /// All events of the first round.
    pub(crate) events: Vec<Event>,
    pub(crate) setup: Option<u64>,
    /// Bytes live at the most, counted; of PyTorch, `resident`.
    pub(crate) peak: u64,
    /// The high-water mark of the resident set, less that of a tiny model.
    pub(crate) resident: Option<u64>,
    pub(crate) live: Option<u64>,
    pub(crate) state: Option<u64>,
    pub(crate) host: Option<u64>,
    /// The loss of the last step.
    pub(crate) loss: f64,
    /// What the plan said.
    pub(crate) planned: Option<u64>,
    cpu: Vec<f64>,
    wall: Vec<f64>,
    parts: [Vec<f64>; 3],
}

/// The largest of what events say.
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
        let steps = || events.iter().filter(|e| e.step.is_some());
        let Some(last) = steps().next_back() else {
            anyhow::bail!("`{method}` took no step");
        };
        let (loss, host) = (last.loss, highest(&events, |e| e.host));
        ensure!(loss.is_finite(), "the loss of `{method}` is {loss}");
        let peak = highest(&events, |e| e.peak).or(resident).unwrap_or(0);
        let mut row = Self {
            method,
            setup: events
                .iter()
                .find(|e| e.step.is_none())
                .and_then(|e| e.peak),
            peak,
            resident,
            live: highest(&events, |e| e.live),
            state: highest(&events, |e| e.state),
            host: host.filter(|bytes| *bytes > 0),
            loss,
            planned: None,
            events: Vec::new(),
            cpu: Vec::new(),
            wall: Vec::new(),
            parts: Default::default(),
        };
        row.add(&events, warmup);
        row.events = events;
        Ok(row)
    }

    /// The times of one more round.
    pub(crate) fn add(&mut self, events: &[Event], warmup: usize) {
        for event in events
            .iter()
            .filter(|e| e.step.is_some_and(|s| s >= warmup))
        {
            self.cpu.push(event.cpu);
            let parts = [event.forward, event.backward, event.update];
            self.wall.push(parts.iter().sum());
            for (all, part) in self.parts.iter_mut().zip(parts) {
                all.push(part);
            }
        }
    }

    pub(crate) fn cpu(&self) -> f64 {
        median(&self.cpu)
    }

    pub(crate) fn wall(&self) -> f64 {
        median(&self.wall)
    }

    fn part(&self, index: usize) -> f64 {
        median(&self.parts[index])
    }

    fn tokens_per_second(&self, settings: &Settings) -> f64 {
        (settings.batch * settings.sequence) as f64 / self.wall()
    }
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n.is_multiple_of(2) => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / 1_048_576.0)
}

/// Writes the files.
pub(crate) fn write(settings: &Settings, rows: &[Row]) -> Result<()> {
    crate::write(&settings.out.join("compare.csv"), &csv(settings, rows))?;
    let text = format!(
        "{}\n{}",
        markdown(settings, rows),
        crate::bars::markdown(rows)
    );
    crate::write(&settings.out.join("compare.md"), &text)
}

fn csv(settings: &Settings, rows: &[Row]) -> String {
    let mut text = String::from(
        "method,peak_bytes,step_cpu_s,step_wall_s,tokens_per_s,loss,forward_s,backward_s,update_s,\
         resident_bytes,setup_bytes,live_bytes,state_bytes,host_bytes,planned_bytes\n",
    );
    let number = |bytes: Option<u64>| bytes.map_or(String::new(), |bytes| bytes.to_string());
    for row in rows {
        text.push_str(&format!(
            "{},{},{:.4},{:.4},{:.1},{:.6},{:.4},{:.4},{:.4},{},{},{},{},{},{}\n",
            row.method,
            row.peak,
            row.cpu(),
            row.wall(),
            row.tokens_per_second(settings),
            row.loss,
            row.part(0),
            row.part(1),
            row.part(2),
            number(row.resident),
            number(row.setup),
            number(row.live),
            number(row.state),
            number(row.host),
            number(row.planned),
        ));
    }
    text
}

pub(crate) fn markdown(settings: &Settings, rows: &[Row]) -> String {
    let mut text = format!(
        "`{}`{}, {}, batch {} x {} tokens, gamma {}, K {}, {} thread(s), {} steps x {}\n\n\
         | method | peak MiB | planned | resident MiB | CPU-s a step | s a step | forward | backward | update \
         | tokens/s | loss |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        settings.preset,
        if settings.shrink > 1 {
            format!(" / {}", settings.shrink)
        } else {
            String::new()
        },
        settings.dtype,
        settings.batch,
        settings.sequence,
        settings.active_layers,
        settings.period,
        settings.threads,
        settings.steps,
        settings.repeat,
    );
    for row in rows {
        text.push_str(&format!(
            "| {} | {} | {} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.4} |\n",
            row.method,
            mib(row.peak),
            row.planned.map_or("-".into(), mib),
            row.resident.map_or("-".into(), mib),
            row.cpu(),
            row.wall(),
            row.part(0),
            row.part(1),
            row.part(2),
            row.tokens_per_second(settings),
            row.loss,
        ));
    }
    text
}
