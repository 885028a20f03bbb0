//! `scores.svg`: the scores of layers of `lisa importance`, as bars.

use std::path::Path;

use anyhow::{Result, anyhow};
use lisa::importance::Scores;
use lisa_lm::files::write_atomically;
use plotters::prelude::*;

/// Plots the score of each layer.
pub(super) fn scores(scores: &Scores, path: &Path) -> Result<()> {
    let mut svg = String::new();
    draw(scores, &mut svg).map_err(|e| anyhow!("cannot plot the scores: {e}"))?;
    write_atomically(path, svg.as_bytes())?;
    Ok(())
}

fn draw(scores: &Scores, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let values: Vec<f64> = scores.layers.iter().map(|(_, score)| *score).collect();
    let most = values.iter().fold(f64::MIN_POSITIVE, |a, &b| a.max(b));
    let area = SVGBackend::with_string(svg, (900, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(72)
        .caption(
            format!("scores of the layers by {}", scores.by),
            ("sans-serif", 18),
        )
        .build_cartesian_2d(-0.6..values.len() as f64 - 0.4, 0.0..most * 1.1)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_labels(values.len().min(40))
        .x_label_formatter(&|place| {
            let whole = (place - place.round()).abs() < 1e-6;
            let layer = Some(format!("{place:.0}")).filter(|_| whole);
            layer.unwrap_or_default()
        })
        .x_desc("layer")
        .y_label_formatter(&|score| format!("{score:.1e}"))
        .draw()?;
    let bars = values.iter().enumerate().map(|(layer, &score)| {
        let middle = layer as f64;
        Rectangle::new(
            [(middle - 0.4, 0.0), (middle + 0.4, score)],
            BLUE.mix(0.7).filled(),
        )
    });
    chart.draw_series(bars)?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_has_a_bar() {
        let scores = Scores {
            by: "gradient".to_owned(),
            observations: 1,
            layers: (0..5)
                .map(|i| (format!("layers.{i}"), f64::from(i)))
                .collect(),
        };
        let mut svg = String::new();
        draw(&scores, &mut svg).unwrap();
        assert!(svg.contains("by gradient"), "{svg}");
        // The background, and a bar for each layer.
        assert_eq!(svg.matches("<rect").count(), 1 + 5, "{svg}");
    }
}
