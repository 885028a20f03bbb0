//! The pictures: scores by method, the ablation, draws by layer, norms by layer.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::job::Method;
use super::results::Results;
use super::stats::Mean;
use super::tasks::Task;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Writes all that there is something for.
pub(crate) fn write(out: &Path, results: &Results) -> Result<()> {
    let picture = |file: &str, size: (u32, u32), draw: &dyn Fn(&Area) -> Drawn| -> Result<()> {
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE)
            .map_err(Into::into)
            .and_then(|()| draw(&area))
            .and_then(|()| Ok(area.present()?))
            .map_err(|e| anyhow!("cannot draw `{file}`: {e}"))?;
        drop(area);
        crate::write(&out.join(file), &svg)
    };
    let tasks = results.plan.tasks.iter().copied();
    let tasks: Vec<Task> = tasks.filter(|&task| results.any(task)).collect();
    let wide = |each: u32| each * tasks.len().max(1) as u32;
    picture("study_scores.svg", (wide(330), 340), &|area| {
        scores(area, results, &tasks)
    })?;
    let points = points(results);
    if !points.is_empty() {
        picture("study_ablation.svg", (480, 340), &|area| {
            intervals(area, "gamma, K: exact match, %", &points)
        })?;
    }
    let drawn: Vec<_> = results
        .plan
        .methods
        .iter()
        .filter(|method| method.draws())
        .map(|&method| {
            let shares = results.drawn(method).into_iter();
            (
                method,
                shares.map(|share| 100.0 * share).collect::<Vec<_>>(),
            )
        })
        .collect();
    picture("study_draws.svg", (720, 380), &|area| {
        lines(area, "steps in which a layer trained, %", &drawn)
    })?;
    picture("study_norms.svg", (wide(440), 380), &|area| {
        let parts = area.split_evenly((1, tasks.len().max(1)));
        for (part, &task) in parts.iter().zip(&tasks) {
            let rows: Vec<_> = results
                .plan
                .methods
                .iter()
                .filter(|method| **method != Method::Base)
                .map(|&method| {
                    let runs = results.tests(task, method);
                    (method, runs.by_layer(|outcome| &outcome.updates))
                })
                .collect();
            lines(part, &format!("{task}: norm of what was added"), &rows)?;
        }
        Ok(())
    })
}

fn scores(area: &Area, results: &Results, tasks: &[Task]) -> Drawn {
    let parts = area.split_evenly((1, tasks.len().max(1)));
    for (part, &task) in parts.iter().zip(tasks) {
        let rows: Vec<(String, Mean)> = results
            .plan
            .methods
            .iter()
            .filter_map(|&method| {
                let runs = results.tests(task, method);
                Some((method.to_string(), runs.mean(|o| 100.0 * o.exact_match())?))
            })
            .collect();
        intervals(part, &format!("{task}: exact match, %"), &rows)?;
    }
    Ok(())
}

fn points(results: &Results) -> Vec<(String, Mean)> {
    let points = results.plan.ablation.iter();
    points
        .filter_map(|&(active, period)| {
            let runs = results.ablation((active, period));
            let period = if period == 0 {
                "all".to_string()
            } else {
                period.to_string()
            };
            Some((
                format!("{active}, {period}"),
                runs.mean(|o| 100.0 * o.exact_match())?,
            ))
        })
        .collect()
}

/// A row for each: its name, its mean as a dot, its interval as a line.
fn intervals(area: &Area, title: &str, rows: &[(String, Mean)]) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(28)
        .y_label_area_size(76)
        .caption(title, ("sans-serif", 16))
        .build_cartesian_2d(0.0..100.0, 0.0..rows.len() as f64)?;
    // Names stand beside their dots, so the axis has none of its own.
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(WHITE)
        .x_labels(6)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_labels(0)
        .draw()?;
    for (i, (name, mean)) in rows.iter().enumerate() {
        let y = (rows.len() - i) as f64 - 0.5;
        let color = Palette99::pick(i).to_rgba();
        let (left, right) = mean.ends();
        // An interval may be wider than what is possible.
        let (left, right) = (left.max(0.0), right.min(100.0));
        let line = PathElement::new([(left, y), (right, y)], color.stroke_width(2));
        chart.draw_series([line])?;
        chart.draw_series([Circle::new((mean.mean, y), 4, color.filled())])?;
        // Pixels of the whole picture, of which this area may be a part.
        let (_, top) = area.get_base_pixel();
        let (_, y) = chart.backend_coord(&(0.0, y));
        area.draw(&Text::new(
            name.clone(),
            (10, y - top - 6),
            ("sans-serif", 13),
        ))?;
    }
    Ok(())
}

/// A line over the layers for each method.
fn lines(area: &Area, title: &str, rows: &[(Method, Vec<f64>)]) -> Drawn {
    let all = || rows.iter().flat_map(|(_, values)| values.iter().copied());
    let high = all().fold(1e-9, f64::max);
    let layers = rows
        .iter()
        .map(|(_, values)| values.len())
        .max()
        .unwrap_or(0);
    let last = layers.saturating_sub(1).max(1) as f64;
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(32)
        .y_label_area_size(48)
        .caption(title, ("sans-serif", 16))
        // Room for the names at the right.
        .build_cartesian_2d(0.0..last * 1.4, 0.0..high * 1.1)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_labels(layers.clamp(2, 16))
        .x_label_formatter(&|x| {
            if *x > last {
                String::new()
            } else {
                format!("{x:.0}")
            }
        })
        .x_desc("layer")
        .draw()?;
    for (i, (method, values)) in rows.iter().enumerate() {
        let color = Palette99::pick(i).to_rgba();
        let points = values.iter().enumerate().map(|(x, y)| (x as f64, *y));
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(method.to_string())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE.mix(0.8))
        .draw()?;
    Ok(())
}
