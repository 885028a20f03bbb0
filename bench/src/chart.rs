//! Charts as SVG files: lines over an axis, and a row for each name.

use std::ops::Range;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::files;
use crate::stats::Mean;

/// A part of a picture.
pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// What drawing returns.
pub(crate) type Drawn<T = ()> = Result<T, Box<dyn std::error::Error>>;
/// A part of a picture with two axes.
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
/// A curve with its name.
pub(crate) type Series = (String, Vec<(f64, f64)>);

/// Draws a picture and writes it.
pub(crate) fn write(path: &Path, size: (u32, u32), draw: impl Fn(&Area) -> Drawn) -> Result<()> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let drawn = || -> Drawn {
            area.fill(&WHITE)?;
            draw(&area)?;
            Ok(area.present()?)
        };
        drawn().map_err(|e| anyhow!("cannot draw `{}`: {e}", path.display()))?;
    }
    files::write(path, &svg)
}

/// Curves with a legend. The value axis starts at 0 where the lowest value is below half the highest.
pub(crate) fn lines(area: &Area, [x, y]: [&str; 2], series: &[Series]) -> Drawn {
    let all = || series.iter().flat_map(|(_, points)| points.iter().copied());
    let left = all().map(|p| p.0).fold(f64::MAX, f64::min);
    let right = all().map(|p| p.0).fold(left + 1e-9, f64::max);
    let low = all().map(|p| p.1).fold(f64::MAX, f64::min);
    let high = all().map(|p| p.1).fold(low.min(0.0) + 1e-9, f64::max);
    let low = if low > 0.0 && low < 0.5 * high {
        0.0
    } else {
        low
    };
    let margin = 0.02 * (high - low).max(1e-9);
    let mut chart = axes(area, [x, y], left..right, low - margin..high + margin)?;
    for (i, (name, points)) in series.iter().enumerate() {
        curve(&mut chart, i, name, points.iter().copied())?;
    }
    legend(&mut chart)
}

/// Two axes with their names.
fn axes<'a, 'b>(
    area: &'a Area<'b>,
    [x, y]: [&str; 2],
    across: Range<f64>,
    up: Range<f64>,
) -> Drawn<Chart<'a, 'b>> {
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(across, up)?;
    let mesh = &mut chart.configure_mesh();
    mesh.light_line_style(WHITE).x_desc(x).y_desc(y).draw()?;
    Ok(chart)
}

/// A curve, with its name for the legend.
fn curve(
    chart: &mut Chart,
    index: usize,
    name: &str,
    points: impl Iterator<Item = (f64, f64)>,
) -> Drawn {
    let style = Palette99::pick(index).to_rgba().stroke_width(2);
    chart
        .draw_series(LineSeries::new(points, style))?
        .label(name)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    Ok(())
}

/// The names of the curves.
fn legend<'a, 'b: 'a>(chart: &mut Chart<'a, 'b>) -> Drawn {
    chart
        .configure_series_labels()
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE.mix(0.8))
        .draw()?;
    Ok(())
}

/// A point of a curve with the range of its values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Band {
    pub(crate) x: f64,
    pub(crate) middle: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The ranges of an axis that hold these values, with a margin.
fn range(values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    let low = values.clone().fold(f64::MAX, f64::min);
    let high = values.fold(low + 1e-9, f64::max);
    let margin = 0.04 * (high - low);
    low - margin..high + margin
}

/// Curves with a legend, each in a band.
pub(crate) fn bands(area: &Area, [x, y]: [&str; 2], series: &[(String, Vec<Band>)]) -> Drawn {
    let all = || series.iter().flat_map(|(_, points)| points.iter());
    let right = all().map(|p| p.x).fold(1e-9, f64::max);
    let values = all().flat_map(|p| [p.low, p.high]);
    let mut chart = axes(area, [x, y], 0.0..right, range(values))?;
    for (i, (name, points)) in series.iter().enumerate() {
        let upper = points.iter().map(|p| (p.x, p.high));
        let lower = points.iter().rev().map(|p| (p.x, p.low));
        let band: Vec<(f64, f64)> = upper.chain(lower).collect();
        let style = Palette99::pick(i).mix(0.12).filled();
        chart.draw_series([Polygon::new(band, style)])?;
        curve(&mut chart, i, name, points.iter().map(|p| (p.x, p.middle)))?;
    }
    legend(&mut chart)
}

/// Points with a legend, and lines over the ranges of their values.
pub(crate) fn points(area: &Area, [x, y]: [&str; 2], points: &[(String, Band)]) -> Drawn {
    let across = range(points.iter().map(|(_, point)| point.x));
    // The legend is to the right of the points.
    let right = across.end + 0.7 * (across.end - across.start);
    let up = range(points.iter().flat_map(|(_, point)| [point.low, point.high]));
    let mut chart = axes(area, [x, y], across.start..right, up)?;
    for (i, (name, point)) in points.iter().enumerate() {
        let color = Palette99::pick(i).to_rgba();
        let at = (point.x, point.middle);
        let whole = [(point.x, point.low), (point.x, point.high)];
        chart.draw_series([PathElement::new(whole, color.stroke_width(2))])?;
        chart
            .draw_series([Circle::new(at, 5, color.filled())])?
            .label(name)
            .legend(move |(x, y)| Circle::new((x + 9, y), 5, color.filled()));
    }
    legend(&mut chart)
}

/// A bar for each name, with its value and, where there is one, its interval.
pub(crate) fn bars(area: &Area, title: &str, rows: &[(String, Mean)]) -> Drawn {
    let end = |mean: &Mean| mean.mean + mean.half.unwrap_or(0.0);
    let most = rows.iter().map(|(_, mean)| end(mean)).fold(1.0, f64::max);
    let widest = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(16 + 7 * widest as u32)
        .caption(title, ("sans-serif", 16))
        .build_cartesian_2d(0.0..most * 1.15, 0.0..rows.len() as f64)?;
    // The names are drawn at the middle of their bars instead of at an axis.
    chart.configure_mesh().disable_y_mesh().y_labels(0).draw()?;
    let (_, top) = area.get_base_pixel();
    for (i, (name, mean)) in rows.iter().enumerate() {
        let middle = (rows.len() - i) as f64 - 0.5;
        let corners = [(0.0, middle - 0.35), (mean.mean, middle + 0.35)];
        let bar = Rectangle::new(corners, Palette99::pick(i).mix(0.8).filled());
        chart.draw_series([bar])?;
        if let Some(half) = mean.half {
            let ends = [
                ((mean.mean - half).max(0.0), middle),
                (mean.mean + half, middle),
            ];
            chart.draw_series([PathElement::new(ends, BLACK.stroke_width(2))])?;
        }
        let value = format!("{:.0}", mean.mean);
        let at = (end(mean) + most * 0.01, middle + 0.15);
        chart.draw_series([Text::new(value, at, ("sans-serif", 14))])?;
        let (_, y) = chart.backend_coord(&(0.0, middle));
        area.draw(&Text::new(
            name.clone(),
            (12, y - top - 6),
            ("sans-serif", 14),
        ))?;
    }
    Ok(())
}
