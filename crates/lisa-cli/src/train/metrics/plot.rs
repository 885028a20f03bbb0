//! `losses.svg`: the losses over the steps, and the active layers below them. `memory.svg`: the
//! optimizer state, and the memory in use with its peak.

use std::path::Path;

use anyhow::{Result, anyhow};
use lisa_lm::files::write_atomically;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::line::Line;

const SIZE: (u32, u32) = (900, 640);
const GREY: RGBColor = RGBColor(150, 150, 150);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws the names of the curves in the line of the caption, right of it, so that no curve is
/// behind them.
fn legend(area: &Area<'_>, names: &[(&str, ShapeStyle)]) -> Result<(), Box<dyn std::error::Error>> {
    let mut x = area.dim_in_pixel().0 as i32 - 12;
    for (name, style) in names.iter().rev() {
        x -= 8 * name.len() as i32 + 34;
        area.draw(&PathElement::new([(x, 24), (x + 18, 24)], *style))?;
        area.draw(&Text::new(*name, (x + 24, 17), ("sans-serif", 14)))?;
    }
    Ok(())
}

/// Plots the losses and the active layers.
pub(crate) fn losses(lines: &[Line], layers: usize, path: &Path) -> Result<()> {
    let mut svg = String::new();
    draw(lines, layers, &mut svg).map_err(|e| anyhow!("cannot plot the losses: {e}"))?;
    write_atomically(path, svg.as_bytes())?;
    Ok(())
}

/// Plots the optimizer state, and the memory of the device or process. If neither is known, nothing
/// is written.
pub(crate) fn memory(lines: &[Line], path: &Path) -> Result<()> {
    let mut svg = String::new();
    if draw_memory(lines, &mut svg).map_err(|e| anyhow!("cannot plot the memory: {e}"))? {
        write_atomically(path, svg.as_bytes())?;
    }
    Ok(())
}

fn draw_memory(lines: &[Line], svg: &mut String) -> Result<bool, Box<dyn std::error::Error>> {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let points = |pick: fn(&Line) -> Option<u64>| -> Vec<(u64, f64)> {
        let known = lines.iter().filter_map(|l| Some((l.step, pick(l)?)));
        known.map(|(step, bytes)| (step, mib(bytes))).collect()
    };
    let (state, all) = (points(|l| l.state_bytes), points(|l| l.memory_bytes));
    let peak = points(|l| l.peak_bytes);
    if state.is_empty() && all.is_empty() {
        return Ok(false);
    }
    let steps = lines.iter().map(|line| line.step).max().unwrap_or(1).max(1);
    let area = SVGBackend::with_string(svg, (900, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let halves = area.split_evenly((1, 2));
    for (half, points, peak, name) in [
        (&halves[0], state, Vec::new(), "optimizer state, MiB"),
        (&halves[1], all, peak, "device or process, MiB"),
    ] {
        let highest = points.iter().chain(&peak).map(|point| point.1);
        let highest = highest.fold(0.1, f64::max);
        let mut chart = ChartBuilder::on(half)
            .margin(12)
            .x_label_area_size(28)
            .y_label_area_size(56)
            .caption(name, ("sans-serif", 18))
            .build_cartesian_2d(0..steps, 0.0..highest * 1.2)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("step")
            .draw()?;
        if !peak.is_empty() {
            let (now, most) = (BLUE.stroke_width(2), GREY.stroke_width(1));
            legend(half, &[("now", now), ("peak", most)])?;
            chart.draw_series(LineSeries::new(peak, most))?;
        }
        chart.draw_series(LineSeries::new(points, BLUE.stroke_width(2)))?;
    }
    area.present()?;
    drop(halves);
    drop(area);
    Ok(true)
}

fn draw(lines: &[Line], layers: usize, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let (top, bottom) = area.split_vertically(420);
    let steps = lines.iter().map(|line| line.step).max().unwrap_or(1).max(1);
    let points = |pick: fn(&Line) -> Option<f64>| -> Vec<(u64, f64)> {
        let losses = lines
            .iter()
            .filter_map(|line| Some((line.step, pick(line)?)));
        // An axis cannot end at infinity.
        losses.filter(|(_, loss)| loss.is_finite()).collect()
    };
    let (train, held_out) = (points(|line| line.loss), points(|line| line.held_out_loss));
    let first_rows = points(|line| line.held_out_first_loss);
    let highest = train
        .iter()
        .chain(&held_out)
        .chain(&first_rows)
        .map(|(_, loss)| *loss)
        .fold(0.1, f64::max);

    let mut chart = ChartBuilder::on(&top)
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(48)
        .caption("loss", ("sans-serif", 18))
        .build_cartesian_2d(0..steps, 0.0..highest * 1.05)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("step")
        .draw()?;
    chart.draw_series(LineSeries::new(train, GREY))?;
    let mut names = vec![("training", GREY.stroke_width(1))];
    if !first_rows.is_empty() {
        let style = BLUE.mix(0.4).stroke_width(1);
        names.push(("held out, rows of before", style));
        chart.draw_series(LineSeries::new(first_rows.iter().copied(), style))?;
        let points = first_rows.iter();
        chart.draw_series(points.map(|&point| Circle::new(point, 2, BLUE.mix(0.4).filled())))?;
    }
    if !held_out.is_empty() {
        names.push(("held out", BLUE.stroke_width(2)));
        let curve = held_out.iter().copied();
        chart.draw_series(LineSeries::new(curve, BLUE.stroke_width(2)))?;
        let points = held_out.iter();
        chart.draw_series(points.map(|&point| Circle::new(point, 3, BLUE.filled())))?;
    }
    legend(&top, &names)?;

    let mut chart = ChartBuilder::on(&bottom)
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(48)
        .caption("active layers", ("sans-serif", 18))
        .build_cartesian_2d(0..steps, 0..layers.max(1))?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_desc("step")
        .y_desc("layer")
        .draw()?;
    let cells = lines
        .iter()
        .filter(|line| line.loss.is_some())
        .flat_map(|line| {
            let step = line.step;
            line.active_layers.iter().map(move |&layer| {
                Rectangle::new(
                    [(step - 1, layer), (step, layer + 1)],
                    BLUE.mix(0.6).filled(),
                )
            })
        });
    chart.draw_series(cells)?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plot_shows_both_losses_and_every_active_layer() {
        let lines: Vec<Line> = (1..=4)
            .map(|step| Line {
                step,
                loss: Some(2.0 / step as f64),
                held_out_loss: (step % 2 == 0).then_some(1.0),
                active_layers: vec![step as usize % 3],
                ..Line::default()
            })
            .collect();
        let mut svg = String::new();
        draw(&lines, 3, &mut svg).unwrap();
        assert!(
            svg.contains("<polyline") && svg.contains("held out"),
            "{svg}"
        );
        assert!(svg.matches("<rect").count() >= 4);
        // The names are above the curves: the caption has the first 40 pixels.
        for name in ["training", "held out"] {
            let before = &svg[..svg.find(name).unwrap()];
            let text = before.rfind("<text").unwrap();
            let y = before[text..].split("y=\"").nth(1).unwrap();
            let y: f64 = y.split('"').next().unwrap().parse().unwrap();
            assert!(y < 40.0, "{name} is at {y}");
        }
    }

    #[test]
    fn infinite_losses_are_left_out() {
        let line = |step, held_out_loss| Line {
            loss: Some(2.0),
            ..Line::held_out(step, held_out_loss)
        };
        let drawn = |lines: &[Line]| {
            let mut svg = String::new();
            draw(lines, 1, &mut svg).unwrap();
            svg
        };
        let finite = [line(1, 1.0), line(3, 0.5)];
        let [first, last] = finite.clone();
        for loss in [f64::INFINITY, f64::NAN] {
            let svg = drawn(&[first.clone(), line(2, loss), last.clone()]);
            assert!(!svg.contains("inf") && !svg.contains("NaN"), "{svg}");
            assert_eq!(
                svg.matches("<circle").count(),
                drawn(&finite).matches("<circle").count()
            );
        }
    }

    #[test]
    fn memory_is_plotted_if_it_is_known() {
        let line = |state_bytes, memory_bytes| Line {
            step: 1,
            loss: Some(1.0),
            state_bytes,
            memory_bytes,
            ..Line::default()
        };
        let drawn = |lines: &[Line]| {
            let mut svg = String::new();
            draw_memory(lines, &mut svg).unwrap().then_some(svg)
        };
        assert_eq!(drawn(&[line(None, None)]), None);
        let svg = drawn(&[line(Some(5 << 20), None), line(Some(7 << 20), None)]).unwrap();
        assert!(svg.contains("<polyline") && svg.contains("7.0"), "{svg}");
        assert!(!svg.contains("peak"), "{svg}");
        let peak = Line {
            peak_bytes: Some(900 << 20),
            ..line(Some(5 << 20), Some(6 << 20))
        };
        let svg = drawn(&[peak]).unwrap();
        // The axis has room for the peak.
        assert!(svg.contains("peak") && svg.contains("900.0"), "{svg}");
    }
}
