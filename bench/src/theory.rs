//! The convex case of the paper's theorem, run: logistic regression whose weights are parted into
//! blocks, of which a policy draws some in each period, with steps that fall as 1 / sqrt(t).
//!
//! The theorem (arXiv 2403.17919, its section on convergence) bounds the average regret
//! `1/T sum_t f(w_t) - f(w*)` by O(1 / sqrt(T)): on a log-log plot a line of slope -1/2. Here the
//! gradient of each step is that of one example, and `f` is the loss on all of them. Tests: at the
//! foot.

use std::path::Path;

use crate::corpus::Choices;
use anyhow::{Result, anyhow};
use lisa::PolicyConfig;
use lisa::policy::Draw;
use plotters::prelude::*;

use crate::study::stats::{Mean, slope};

const BLOCKS: usize = 8;
const WIDTH: usize = 4;
const SIZE: usize = BLOCKS * WIDTH;
const EXAMPLES: usize = 200;
/// Blocks that train in a period (gamma), and steps of it (K).
const ACTIVE: usize = 2;
const PERIOD: usize = 5;
/// The step at t is this divided by sqrt(t).
const FIRST_STEP: f64 = 2.0;
/// Steps: 2 to the power of these.
const FEWEST: u32 = 8;
const MOST: u32 = 16;
const SEEDS: u64 = 5;

/// Examples, each with its label, 1 or -1.
struct Problem {
    x: Vec<[f64; SIZE]>,
    y: Vec<f64>,
    /// The least mean loss.
    least: f64,
}

fn dot(a: &[f64; SIZE], b: &[f64; SIZE]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A number in (-1, 1).
fn unit(choices: &mut Choices) -> f64 {
    (choices.below(2_000_001) as f64 - 1_000_000.0) / 1_000_001.0
}

impl Problem {
    /// Labels follow a plane, but for one in five that is turned round, so that the least loss is
    /// above 0 and its weights are finite.
    fn new(seed: u64) -> Self {
        let mut choices = Choices::new(seed, 400);
        let mut plane = [0.0; SIZE];
        plane.fill_with(|| unit(&mut choices));
        let (mut x, mut y) = (Vec::new(), Vec::new());
        for _ in 0..EXAMPLES {
            let mut one = [0.0; SIZE];
            one.fill_with(|| unit(&mut choices));
            let turned = if choices.below(5) == 0 { -1.0 } else { 1.0 };
            y.push(dot(&one, &plane).signum() * turned);
            x.push(one);
        }
        let mut problem = Self { x, y, least: 0.0 };
        // Plain gradient descent; the loss is smooth with a constant below SIZE / 12.
        let mut w = [0.0; SIZE];
        for _ in 0..20_000 {
            let mut gradient = [0.0; SIZE];
            for i in 0..EXAMPLES {
                problem.add_gradient(&w, i, &mut gradient);
            }
            for (w, g) in w.iter_mut().zip(gradient) {
                *w -= 2.0 * g / EXAMPLES as f64;
            }
        }
        problem.least = problem.loss(&w);
        problem
    }

    fn loss(&self, w: &[f64; SIZE]) -> f64 {
        let one = |(x, y): (&[f64; SIZE], &f64)| (-y * dot(x, w)).exp().ln_1p();
        self.x.iter().zip(&self.y).map(one).sum::<f64>() / EXAMPLES as f64
    }

    fn add_gradient(&self, w: &[f64; SIZE], example: usize, gradient: &mut [f64; SIZE]) {
        let (x, y) = (&self.x[example], self.y[example]);
        let share = -y / (1.0 + (y * dot(x, w)).exp());
        for (g, x) in gradient.iter_mut().zip(x) {
            *g += share * x;
        }
    }

    /// The average regret after 2^8, 2^9, .. steps.
    fn regrets(&self, policy: &PolicyConfig, seed: u64, most: u32) -> Vec<(f64, f64)> {
        let policy = policy.build();
        let mut choices = Choices::new(seed, 401);
        let (mut w, mut sum) = ([0.0; SIZE], 0.0);
        let mut active = Vec::new();
        let mut points = Vec::new();
        for t in 1..=1usize << most {
            sum += self.loss(&w) - self.least;
            if t.is_power_of_two() && t >= 1 << FEWEST {
                points.push((t as f64, sum / t as f64));
            }
            if (t - 1).is_multiple_of(PERIOD) {
                let period = ((t - 1) / PERIOD) as u64;
                active = policy.draw(&Draw::new(seed, period, BLOCKS, ACTIVE));
            }
            let mut gradient = [0.0; SIZE];
            self.add_gradient(&w, choices.below(EXAMPLES), &mut gradient);
            let step = FIRST_STEP / (t as f64).sqrt();
            for &block in &active {
                for i in block * WIDTH..(block + 1) * WIDTH {
                    w[i] -= step * gradient[i];
                }
            }
        }
        points
    }
}

/// The policies that are run. Block `b` has the weight `b + 1` under the second.
fn policies() -> [(&'static str, PolicyConfig); 2] {
    let weights = (1..=BLOCKS).map(|weight| weight as f64).collect();
    [
        ("uniform", PolicyConfig::Uniform),
        ("weighted", PolicyConfig::Weighted(weights)),
    ]
}

/// The slope of the regret on the log-log plot.
fn fitted(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<(f64, f64)> = points.iter().map(|(t, r)| (t.ln(), r.ln())).collect();
    slope(&logs)
}

/// Prints the table, and writes it and the plot to `out`.
pub(crate) fn run(out: &Path) -> Result<()> {
    std::fs::create_dir_all(out)?;
    let mut text = format!(
        "| steps | {} |\n|--:|--:|--:|\n",
        policies().map(|(name, _)| name).join(" | ")
    );
    let mut curves = Vec::new();
    let mut slopes = Vec::new();
    for (name, policy) in policies() {
        let runs: Vec<_> = (1..=SEEDS)
            .map(|seed| Problem::new(seed).regrets(&policy, seed, MOST))
            .collect();
        let of: Vec<f64> = runs.iter().map(|points| fitted(points)).collect();
        slopes.extend(Mean::of(&of));
        let mut curve = Vec::new();
        for i in 0..runs[0].len() {
            let values: Vec<f64> = runs.iter().map(|points| points[i].1).collect();
            curve.extend(Mean::of(&values).map(|mean| (runs[0][i].0, mean)));
        }
        curves.push((name, curve));
    }
    for i in 0..curves[0].1.len() {
        let cells: Vec<String> = curves.iter().map(|(_, c)| c[i].1.text(1.0, 5)).collect();
        text.push_str(&format!(
            "| {} | {} |\n",
            curves[0].1[i].0,
            cells.join(" | ")
        ));
    }
    let cells: Vec<String> = slopes.iter().map(|slope| slope.text(1.0, 3)).collect();
    text.push_str(&format!("| fitted slope | {} |\n", cells.join(" | ")));
    print!("{text}");
    crate::write(&out.join("theory.md"), &text)?;
    let mut svg = String::new();
    draw(&curves, &mut svg).map_err(|e| anyhow!("cannot draw the regret: {e}"))?;
    crate::write(&out.join("theory.svg"), &svg)
}

type Curve = (&'static str, Vec<(f64, Mean)>);

fn draw(curves: &[Curve], svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, (640, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let all = || curves.iter().flat_map(|(_, points)| points);
    let low = all().map(|p| p.1.mean).fold(f64::MAX, f64::min);
    let high = all().map(|p| p.1.mean).fold(0.0, f64::max);
    let (left, right) = (2f64.powi(FEWEST as i32), 2f64.powi(MOST as i32));
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(
            (left..right).log_scale(),
            (low * 0.7..high * 1.4).log_scale(),
        )?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("steps T")
        .y_desc("average regret")
        .draw()?;
    for (i, (name, points)) in curves.iter().enumerate() {
        let color = Palette99::pick(i).to_rgba();
        let means: Vec<(f64, f64)> = points.iter().map(|(t, mean)| (*t, mean.mean)).collect();
        let label = format!("{name}, slope {:.2}", fitted(&means));
        chart
            .draw_series(LineSeries::new(means, color.stroke_width(2)))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    // What the theorem's rate would be, from the first point of the first curve.
    let start = curves[0].1[0].1.mean;
    let line = [(left, start), (right, start * (left / right).sqrt())];
    chart
        .draw_series(LineSeries::new(line, BLACK.mix(0.5)))?
        .label("slope -0.5")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLACK.mix(0.5)));
    chart
        .configure_series_labels()
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE.mix(0.8))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_regret_falls_as_the_theorem_says() {
        let problem = Problem::new(1);
        for (name, policy) in policies() {
            let points = problem.regrets(&policy, 1, MOST);
            assert!(
                points.windows(2).all(|pair| pair[1].1 < pair[0].1),
                "{points:?}"
            );
            let slope = fitted(&points);
            assert!((-0.75..-0.4).contains(&slope), "{name}: {slope}");
        }
    }

    #[test]
    fn the_least_loss_is_a_minimum() {
        let problem = Problem::new(2);
        assert!(
            problem.least > 0.1 && problem.least < 2f64.ln(),
            "{}",
            problem.least
        );
        // No run may be better than it.
        for (_, policy) in policies() {
            assert!(
                problem
                    .regrets(&policy, 3, 10)
                    .iter()
                    .all(|point| point.1 > 0.0)
            );
        }
    }
}
