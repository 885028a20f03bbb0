//! `norms.svg`: the weight norms of `lisa importance`.

use std::path::Path;

use anyhow::{Result, anyhow};
use lisa::importance::{Importance, WeightNorms};
use lisa_lm::CausalLm;
use lisa_lm::files::write_atomically;
use plotters::prelude::*;

/// What the norms are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// What has a norm: the weights, or their update.
    pub(super) measured: &'static str,
    /// The run that LoRA is compared with.
    pub(super) other: &'static str,
}

/// Plots the mean norms of embeddings, layers and head in both runs, as in Figure 1 of the paper.
/// The axis of the norms is logarithmic.
pub(super) fn norms(importance: &Importance, names: Names, path: &Path) -> Result<()> {
    let mut svg = String::new();
    draw_norms(importance, names, &mut svg).map_err(|e| anyhow!("cannot plot the norms: {e}"))?;
    write_atomically(path, svg.as_bytes())?;
    Ok(())
}

/// Embeddings, layers and head, in the order of the forward pass. Normalization layers are left
/// out.
fn in_order(norms: &WeightNorms) -> Vec<(String, f64)> {
    let outside = |of: &dyn Fn(&str) -> bool| {
        let found = norms.outside.iter().filter(move |(path, _)| of(path));
        found.cloned().collect::<Vec<_>>()
    };
    let is_head = |path: &str| path.contains(CausalLm::HEAD);
    let is_outer = |path: &str| CausalLm::OUTER.iter().any(|name| path.contains(name));
    let mut all = outside(&|path| is_outer(path) && !is_head(path));
    all.extend(norms.layers.iter().cloned());
    all.extend(outside(&is_head));
    all
}

fn draw_norms(
    importance: &Importance,
    names: Names,
    svg: &mut String,
) -> Result<(), Box<dyn std::error::Error>> {
    let (lora, other) = (in_order(&importance.lora), in_order(&importance.full));
    let places: Vec<String> = other
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
    let values = || lora.iter().chain(&other).map(|(_, norm)| norm.max(1e-12));
    let (least, most) = values().fold((f64::INFINITY, 0.0f64), |(a, b), v| (a.min(v), b.max(v)));
    let area = SVGBackend::with_string(svg, (900, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let end = other.len().max(2) - 1;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(64)
        .caption(
            format!("mean norm of the {}", names.measured),
            ("sans-serif", 18),
        )
        .build_cartesian_2d(0.0..end as f64, (least / 1.5..most * 1.5).log_scale())?;
    let name = |place: &f64| {
        let whole = (place - place.round()).abs() < 1e-6;
        let found = places.get(place.round() as usize).filter(|_| whole);
        found.cloned().unwrap_or_default()
    };
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_labels(other.len())
        .x_label_formatter(&name)
        .y_desc("L2 norm, logarithmic")
        .draw()?;
    for (norms, label, colour) in [(&lora, "LoRA", RED), (&other, names.other, BLUE)] {
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
    fn norms_are_plotted_from_the_embedding_to_the_head() {
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
        let names = Names {
            measured: "update",
            other: "LISA",
        };
        let mut svg = String::new();
        draw_norms(&importance, names, &mut svg).unwrap();
        assert_eq!(svg.matches("<circle").count(), 10, "{svg}");
        for text in ["lm_head", "LoRA", "LISA", "mean norm of the update"] {
            assert!(svg.contains(&format!("\n{text}\n</text>")), "{text}: {svg}");
        }
    }
}
