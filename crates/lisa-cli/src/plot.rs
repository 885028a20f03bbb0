//! `losses.svg`: the losses over the steps, and under them the layers that trained. `memory.svg`:
//! what the optimizer and all together hold. `norms.svg`: the paper's Figure 1.

use std::path::Path;

use anyhow::{Result, anyhow};
use lisa::importance::{Importance, WeightNorms};
use lisa_lm::write_atomically;
use plotters::prelude::*;

use crate::metrics::Line;

const SIZE: (u32, u32) = (900, 640);

/// Draws the losses and the layers.
pub fn losses(lines: &[Line], layers: usize, path: &Path) -> Result<()> {
    let mut svg = String::new();
    draw(lines, layers, &mut svg).map_err(|e| anyhow!("cannot draw the losses: {e}"))?;
    write_atomically(path, svg.as_bytes())?;
    Ok(())
}

/// Draws the optimizer's state and the memory of the process or device; where neither is known,
/// nothing is written.
pub fn memory(lines: &[Line], path: &Path) -> Result<()> {
    let mut svg = String::new();
    if draw_memory(lines, &mut svg).map_err(|e| anyhow!("cannot draw the memory: {e}"))? {
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
    if state.is_empty() && all.is_empty() {
        return Ok(false);
    }
    let steps = lines.iter().map(|line| line.step).max().unwrap_or(1).max(1);
    let area = SVGBackend::with_string(svg, (900, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let halves = area.split_evenly((1, 2));
    for (half, points, name) in [
        (&halves[0], state, "the optimizer's state, MiB"),
        (&halves[1], all, "process or device, MiB"),
    ] {
        let highest = points.iter().map(|point| point.1).fold(0.1, f64::max);
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
        lines
            .iter()
            .filter_map(|line| Some((line.step, pick(line)?)))
            .collect()
    };
    let (train, held_out) = (points(|line| line.loss), points(|line| line.held_out_loss));
    let highest = train
        .iter()
        .chain(&held_out)
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
    let grey = RGBColor(150, 150, 150);
    chart
        .draw_series(LineSeries::new(train, grey))?
        .label("training")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], grey));
    chart
        .draw_series(LineSeries::new(
            held_out.iter().copied(),
            BLUE.stroke_width(2),
        ))?
        .label("held out")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLUE.stroke_width(2)));
    chart.draw_series(
        held_out
            .iter()
            .map(|&point| Circle::new(point, 3, BLUE.filled())),
    )?;
    chart
        .configure_series_labels()
        .border_style(grey)
        .background_style(WHITE)
        .draw()?;

    let mut chart = ChartBuilder::on(&bottom)
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(48)
        .caption("layers that train", ("sans-serif", 18))
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

/// Draws mean norms of embeddings, layers and head under LoRA and under full training, as in Figure
/// 1 of the paper: the axis of the norms is logarithmic.
pub fn norms(importance: &Importance, path: &Path) -> Result<()> {
    let mut svg = String::new();
    draw_norms(importance, &mut svg).map_err(|e| anyhow!("cannot draw the norms: {e}"))?;
    write_atomically(path, svg.as_bytes())?;
    Ok(())
}

/// Embedding, layers, head, in the order in which a token meets them; norms alone are left out.
fn in_order(norms: &WeightNorms) -> Vec<(String, f64)> {
    let outside = |of: &dyn Fn(&str) -> bool| {
        let found = norms.outside.iter().filter(move |(path, _)| of(path));
        found.cloned().collect::<Vec<_>>()
    };
    let embedding =
        |path: &str| path.contains("embed") || path.contains(".wte") || path.contains(".wpe");
    let mut all = outside(&embedding);
    all.extend(norms.layers.iter().cloned());
    all.extend(outside(&|path| path.contains("head")));
    all
}

fn draw_norms(importance: &Importance, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let (lora, full) = (in_order(&importance.lora), in_order(&importance.full));
    let names: Vec<String> = full
        .iter()
        .map(|(path, _)| {
            let parts: Vec<&str> = path.split('.').collect();
            let last = parts
                .iter()
                .rev()
                .find(|part| !matches!(**part, "weight" | "gamma"));
            last.map_or_else(|| path.clone(), ToString::to_string)
        })
        .collect();
    let values = || lora.iter().chain(&full).map(|(_, norm)| norm.max(1e-12));
    let (least, most) = values().fold((f64::INFINITY, 0.0f64), |(a, b), v| (a.min(v), b.max(v)));
    let area = SVGBackend::with_string(svg, (SIZE.0, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let places = full.len().max(2) - 1;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(64)
        .caption("mean norm of the weights", ("sans-serif", 18))
        .build_cartesian_2d(0.0..places as f64, (least / 1.5..most * 1.5).log_scale())?;
    let name = |place: &f64| {
        let whole = (place - place.round()).abs() < 1e-6;
        let found = names.get(place.round() as usize).filter(|_| whole);
        found.cloned().unwrap_or_default()
    };
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_labels(full.len())
        .x_label_formatter(&name)
        .y_desc("L2 norm, logarithmic")
        .draw()?;
    for (norms, label, colour) in [(&lora, "LoRA", RED), (&full, "full", BLUE)] {
        let points = norms.iter().enumerate();
        let points: Vec<(f64, f64)> = points
            .map(|(i, (_, norm))| (i as f64, norm.max(1e-12)))
            .collect();
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        let dots = points
            .into_iter()
            .map(|point| Circle::new(point, 3, colour.filled()));
        chart.draw_series(dots)?;
    }
    chart
        .configure_series_labels()
        .border_style(BLACK)
        .background_style(WHITE)
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_shows_both_losses_and_every_drawn_layer() {
        let lines: Vec<Line> = (1..=4)
            .map(|step| Line {
                step,
                loss: Some(2.0 / step as f64),
                held_out_loss: (step % 2 == 0).then_some(1.0),
                lr: None,
                tokens_per_second: None,
                active_layers: vec![step as usize % 3],
                state_bytes: None,
                memory_bytes: None,
            })
            .collect();
        let mut svg = String::new();
        draw(&lines, 3, &mut svg).unwrap();
        assert!(
            svg.contains("<polyline") && svg.contains("held out"),
            "{svg}"
        );
        assert!(svg.matches("<rect").count() >= 4);
    }

    #[test]
    fn norms_are_drawn_from_the_embedding_to_the_head() {
        let norms = |scale: f64| WeightNorms {
            observations: 1,
            layers: (0..3).map(|i| (format!("layers.{i}"), scale)).collect(),
            outside: vec![
                ("embed_tokens.weight".into(), 300.0),
                ("norm.gamma".into(), 5.0),
                ("lm_head.weight".into(), 200.0),
            ],
        };
        let importance = Importance {
            lora: norms(1.0),
            full: norms(2.0),
        };
        let order: Vec<String> = in_order(&importance.full)
            .into_iter()
            .map(|(p, _)| p)
            .collect();
        let expected = [
            "embed_tokens.weight",
            "layers.0",
            "layers.1",
            "layers.2",
            "lm_head.weight",
        ];
        assert_eq!(order, expected);
        let mut svg = String::new();
        draw_norms(&importance, &mut svg).unwrap();
        assert_eq!(svg.matches("<circle").count(), 10, "{svg}");
        assert!(svg.contains("lm_head") && svg.contains("LoRA"), "{svg}");
    }

    #[test]
    fn memory_is_drawn_where_it_is_known() {
        let line = |state_bytes, memory_bytes| Line {
            step: 1,
            loss: Some(1.0),
            held_out_loss: None,
            lr: None,
            tokens_per_second: None,
            active_layers: Vec::new(),
            state_bytes,
            memory_bytes,
        };
        let drawn = |lines: &[Line]| {
            let mut svg = String::new();
            draw_memory(lines, &mut svg).unwrap().then_some(svg)
        };
        assert_eq!(drawn(&[line(None, None)]), None);
        let svg = drawn(&[line(Some(5 << 20), None), line(Some(7 << 20), None)]).unwrap();
        assert!(svg.contains("<polyline") && svg.contains("7.0"), "{svg}");
    }
}
