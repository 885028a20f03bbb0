//! `bench theory`: the convex case of the paper's theorem. Logistic regression whose parameters form
//! blocks; a policy draws the blocks of each period, and the step length falls as 1 / sqrt(t).
//!
//! The theorem (arXiv 2403.17919, its section on convergence) bounds the average regret
//! `1/T sum_t f(w_t) - f(w*)` by O(1 / sqrt(T)), a line of slope -1/2 on a log-log plot. Here each step
//! uses the gradient of one example, and `f` is the mean loss of all examples.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use lisa::PolicyConfig;
use lisa::policy::Draw;

use crate::chart::{self, Series};
use crate::corpus::Choices;
use crate::files;
use crate::stats::{Mean, slope};

const BLOCKS: usize = 8;
const WIDTH: usize = 4;
const SIZE: usize = BLOCKS * WIDTH;
const EXAMPLES: usize = 200;
/// Active blocks of a period (gamma), and its steps (K).
const ACTIVE: usize = 2;
const PERIOD: usize = 5;
/// The step at t is this divided by sqrt(t).
const FIRST_STEP: f64 = 2.0;
/// The regret is taken after 2 to the power of these steps.
const FEWEST: u32 = 8;
const MOST: u32 = 16;
const SEEDS: u64 = 5;

/// Options of the run.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Folder of the table and the plot
    #[arg(long, default_value = "runs/theory", value_name = "DIR")]
    out: PathBuf,
}

type Weights = [f64; SIZE];

/// Examples with their labels, 1 or -1.
struct Problem {
    x: Vec<Weights>,
    y: Vec<f64>,
    /// The minimum of the mean loss.
    least: f64,
}

fn dot(a: &Weights, b: &Weights) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Uniform values in (-1, 1).
fn random(choices: &mut Choices) -> Weights {
    let mut values = [0.0; SIZE];
    values.fill_with(|| (choices.below(2_000_001) as f64 - 1_000_000.0) / 1_000_001.0);
    values
}

impl Problem {
    /// A plane separates the labels, but one label in five is flipped, so that the minimum is above 0
    /// and its parameters are finite.
    fn new(seed: u64) -> Self {
        let mut choices = Choices::new(seed, 400);
        let plane = random(&mut choices);
        let (mut x, mut y) = (Vec::new(), Vec::new());
        for _ in 0..EXAMPLES {
            let example = random(&mut choices);
            let flip = if choices.below(5) == 0 { -1.0 } else { 1.0 };
            y.push(dot(&example, &plane).signum() * flip);
            x.push(example);
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

    fn loss(&self, w: &Weights) -> f64 {
        let one = |(x, y): (&Weights, &f64)| (-y * dot(x, w)).exp().ln_1p();
        self.x.iter().zip(&self.y).map(one).sum::<f64>() / EXAMPLES as f64
    }

    fn add_gradient(&self, w: &Weights, example: usize, gradient: &mut Weights) {
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

/// The policies. Block `b` has the weight `b + 1` under the second.
fn policies() -> [(&'static str, PolicyConfig); 2] {
    let weights = (1..=BLOCKS).map(|weight| weight as f64).collect();
    [
        ("uniform", PolicyConfig::Uniform),
        ("weighted", PolicyConfig::Weighted(weights)),
    ]
}

/// The points on the log-log plot.
fn logs(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    points.iter().map(|(t, r)| (t.log10(), r.log10())).collect()
}

/// Prints the table, and writes it and the plot.
pub(crate) fn run(options: &Options) -> Result<()> {
    files::make_folder(&options.out)?;
    let mut lines = vec![vec!["steps".to_owned()]];
    lines.extend((FEWEST..=MOST).map(|power| vec![(1u64 << power).to_string()]));
    lines.push(vec!["fitted slope".to_owned()]);
    let mut curves: Vec<Series> = Vec::new();
    for (name, policy) in policies() {
        let run = |seed| Problem::new(seed).regrets(&policy, seed, MOST);
        let runs: Vec<_> = (1..=SEEDS).map(run).collect();
        let slopes: Vec<f64> = runs.iter().map(|points| slope(&logs(points))).collect();
        let mut curve = Vec::new();
        let mut cells = vec![name.to_owned()];
        for i in 0..runs[0].len() {
            let values: Vec<f64> = runs.iter().map(|points| points[i].1).collect();
            let mean = Mean::of(&values);
            curve.extend(mean.map(|mean| (runs[0][i].0, mean.mean)));
            cells.extend(mean.map(|mean| mean.text(5)));
        }
        cells.extend(Mean::of(&slopes).map(|slope| slope.text(3)));
        for (line, cell) in lines.iter_mut().zip(cells) {
            line.push(cell);
        }
        let curve = logs(&curve);
        curves.push((format!("{name}, slope {:.2}", slope(&curve)), curve));
    }
    let rows: Vec<String> = lines
        .iter()
        .map(|line| format!("| {} |\n", line.join(" | ")))
        .collect();
    let text = format!("{}|--:|--:|--:|\n{}", rows[0], rows[1..].concat());
    print!("{text}");
    files::write(&options.out.join("theory.md"), &text)?;
    // The theorem's rate, from the first point of the first curve.
    let (left, start) = curves[0].1[0];
    let right = f64::from(MOST) * 2f64.log10();
    let rate = vec![(left, start), (right, start - 0.5 * (right - left))];
    curves.push(("slope -0.5".to_owned(), rate));
    let axes = ["log10 of the steps T", "log10 of the average regret"];
    let path = options.out.join("theory.svg");
    chart::write(&path, (640, 420), |area| chart::lines(area, axes, &curves))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_regret_falls_as_the_theorem_says() {
        let problem = Problem::new(1);
        for (name, policy) in policies() {
            let points = problem.regrets(&policy, 1, MOST);
            let falls = points.windows(2).all(|pair| pair[1].1 < pair[0].1);
            assert!(falls, "{points:?}");
            let slope = slope(&logs(&points));
            assert!((-0.75..-0.4).contains(&slope), "{name}: {slope}");
        }
    }

    #[test]
    fn the_least_loss_is_a_minimum() {
        let problem = Problem::new(2);
        let least = problem.least;
        assert!(least > 0.1 && least < 2f64.ln(), "{least}");
        // No run is better than it.
        for (_, policy) in policies() {
            let regrets = problem.regrets(&policy, 3, 10);
            assert!(regrets.iter().all(|point| point.1 > 0.0));
        }
    }
}
