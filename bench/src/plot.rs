//! The pictures: memory by method, memory over time, loss over steps and over seconds.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::report::Row;

const SIZE: (u32, u32) = (900, 480);
const MIB: f64 = 1_048_576.0;

/// Writes all four.
pub(crate) fn write(out: &Path, rows: &[Row]) -> Result<()> {
    let mut svg = String::new();
    bars(rows, &mut svg).map_err(|e| anyhow!("cannot draw the memory: {e}"))?;
    crate::write(&out.join("memory.svg"), &svg)?;
    let memory = |row: &Row| {
        let steps = row.events.iter().filter(|e| e.step.is_some());
        points(steps.filter_map(|e| e.peak.map(|p| p as f64 / MIB)))
    };
    let loss = |row: &Row| {
        let steps = row.events.iter().filter(|e| e.step.is_some());
        points(steps.map(|e| e.loss))
    };
    let seconds = |row: &Row| {
        let mut clock = 0.0;
        let steps = row.events.iter().filter(|e| e.step.is_some());
        steps
            .map(|e| {
                clock += e.forward + e.backward + e.update;
                (clock, e.loss)
            })
            .collect()
    };
    for (file, names, of) in [
        (
            "memory_over_time.svg",
            ["step", "peak of the step, MiB"],
            &memory as &dyn Fn(&Row) -> Vec<(f64, f64)>,
        ),
        ("loss_over_steps.svg", ["step", "loss"], &loss),
        ("loss_over_seconds.svg", ["seconds", "loss"], &seconds),
    ] {
        let mut svg = String::new();
        lines(rows, names, of, &mut svg).map_err(|e| anyhow!("cannot draw `{file}`: {e}"))?;
        crate::write(&out.join(file), &svg)?;
    }
    Ok(())
}

fn points(values: impl Iterator<Item = f64>) -> Vec<(f64, f64)> {
    let numbered = values.enumerate();
    numbered.map(|(i, value)| ((i + 1) as f64, value)).collect()
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn bars(rows: &[Row], svg: &mut String) -> Drawn {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let most = rows
        .iter()
        .map(|row| row.peak as f64 / MIB)
        .fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(230)
        .caption("peak memory, MiB", ("sans-serif", 18))
        .build_cartesian_2d(0.0..most * 1.1, 0.0..rows.len() as f64)?;
    // Names stand in the middle of their bars, so the axis has none of its own.
    chart.configure_mesh().disable_y_mesh().y_labels(0).draw()?;
    for (i, row) in rows.iter().enumerate() {
        let top = (rows.len() - i) as f64;
        let width = row.peak as f64 / MIB;
        let color = Palette99::pick(i).mix(0.8);
        chart.draw_series([Rectangle::new(
            [(0.0, top - 0.85), (width, top - 0.15)],
            color.filled(),
        )])?;
        chart.draw_series([Text::new(
            format!("{width:.0}"),
            (width, top - 0.35),
            ("sans-serif", 14),
        )])?;
        let (_, y) = chart.backend_coord(&(0.0, top - 0.35));
        area.draw(&Text::new(
            row.method.to_string(),
            (12, y),
            ("sans-serif", 14),
        ))?;
    }
    area.present()?;
    Ok(())
}

fn lines(
    rows: &[Row],
    [x, y]: [&str; 2],
    of: &dyn Fn(&Row) -> Vec<(f64, f64)>,
    svg: &mut String,
) -> Drawn {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let series: Vec<_> = rows.iter().map(|row| (row.method, of(row))).collect();
    let all = || series.iter().flat_map(|(_, points)| points);
    let right = all().map(|p| p.0).fold(1e-9, f64::max);
    let (low, high) = all().fold((f64::MAX, 0.0f64), |(low, high), p| {
        (low.min(p.1), high.max(p.1))
    });
    let low = if low < 0.5 * high { 0.0 } else { low * 0.99 };
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..right, low.min(high)..high * 1.02 + 1e-9)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(x)
        .y_desc(y)
        .draw()?;
    for (i, (method, points)) in series.into_iter().enumerate() {
        let color = Palette99::pick(i).to_rgba();
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(method.to_string())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE.mix(0.8))
        .draw()?;
    area.present()?;
    Ok(())
}
