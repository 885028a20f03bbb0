//! The plots: peak memory by method, memory and loss over steps, loss over seconds.

use std::path::Path;

use anyhow::Result;

use super::row::Row;
use super::worker::Event;
use crate::chart::{self, Series};
use crate::stats::Mean;

const SIZE: (u32, u32) = (900, 480);
const MIB: f64 = 1_048_576.0;

/// Writes the four plots.
pub(crate) fn write(out: &Path, rows: &[Row]) -> Result<()> {
    let bar = |row: &Row| {
        let mean = row.peak as f64 / MIB;
        (row.method.to_string(), Mean { mean, half: None })
    };
    let bars: Vec<_> = rows.iter().map(bar).collect();
    chart::write(&out.join("memory.svg"), SIZE, |area| {
        chart::bars(area, "peak memory, MiB", &bars)
    })?;
    let lines = |file: &str, axes, of: &dyn Fn(&Row) -> Vec<(f64, f64)>| {
        let series = |row: &Row| -> Series { (row.method.to_string(), of(row)) };
        let series: Vec<Series> = rows.iter().map(series).collect();
        chart::write(&out.join(file), SIZE, |area| {
            chart::lines(area, axes, &series)
        })
    };
    let by_step = |row: &Row, of: fn(&Event) -> Option<f64>| -> Vec<(f64, f64)> {
        let point = |(i, event)| of(event).map(|value| ((i + 1) as f64, value));
        row.steps.iter().enumerate().filter_map(point).collect()
    };
    lines(
        "memory_over_time.svg",
        ["step", "peak of the step, MiB"],
        &|row| by_step(row, |event| event.peak.map(|peak| peak as f64 / MIB)),
    )?;
    lines("loss_over_steps.svg", ["step", "loss"], &|row| {
        by_step(row, |event| Some(event.loss))
    })?;
    lines("loss_over_seconds.svg", ["seconds", "loss"], &|row| {
        let mut clock = 0.0;
        let mut point = |event: &Event| {
            clock += event.forward + event.backward + event.update;
            (clock, event.loss)
        };
        row.steps.iter().map(&mut point).collect()
    })
}
