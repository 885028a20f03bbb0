//! The project's goals for memory and time, as ratios of two methods of one run.

use super::row::Row;
use crate::method::Method;
use crate::preset::Preset;
use crate::settings::Settings;
use crate::stats::median;

/// A quantity of a row.
#[derive(Clone, Copy)]
enum Of {
    Peak,
    Resident,
    Cpu,
    /// Seconds of a step, instead of `Cpu` where the device is not the CPU.
    Wall,
}

impl Of {
    fn name(self) -> &'static str {
        match self {
            Self::Peak => "peak",
            Self::Resident => "resident",
            Self::Cpu => "CPU time",
            Self::Wall => "time",
        }
    }

    /// One value, or the value of each round; none where it was not measured.
    fn values(self, row: &Row) -> Vec<f64> {
        match self {
            Self::Peak => vec![row.peak as f64],
            Self::Resident => row.resident.iter().map(|bytes| *bytes as f64).collect(),
            Self::Cpu => row.cpu_of_rounds().collect(),
            Self::Wall => row.wall_of_rounds().collect(),
        }
    }
}

/// A method, the method that it is divided by, the quantity, and the highest ratio that meets the goal.
type Goal = (Method, Method, Of, f64);

/// Goals within the project, for `small`: in models with a larger vocabulary, embeddings and head, which
/// LISA always trains, are a larger part.
const OF_SMALL: [Goal; 5] = [
    (Method::Lisa, Method::Full, Of::Peak, 0.55),
    (Method::Lisa, Method::Full, Of::Cpu, 0.60),
    (Method::LisaRecompute, Method::Full, Of::Peak, 0.38),
    (
        Method::LisaRecomputeFrozenEmbeddings,
        Method::Lora,
        Of::Peak,
        0.80,
    ),
    (Method::LisaFrozenEmbeddings, Method::Lora, Of::Cpu, 0.85),
];

/// Goals for every shape.
const OF_ALL: [Goal; 6] = [
    (Method::Lisa, Method::TorchLisa, Of::Resident, 0.95),
    (Method::LisaRecompute, Method::TorchLisa, Of::Resident, 0.70),
    (Method::Lisa, Method::TorchLisa, Of::Peak, 0.70),
    (Method::Lisa, Method::TorchLisa, Of::Cpu, 1.00),
    (Method::Full, Method::TorchFull, Of::Cpu, 1.00),
    (Method::Lora, Method::TorchLora, Of::Cpu, 0.95),
];

/// A goal for SmolLM2's shape, and for `small`.
const OF_SMOLLM2: Goal = (Method::Lisa, Method::Lora, Of::Cpu, 1.20);

/// The goals for this shape.
fn goals(settings: &Settings) -> Vec<Goal> {
    let preset = settings.preset_in_full();
    let mut goals = Vec::new();
    if preset == Some(Preset::Small) {
        goals.extend(OF_SMALL);
    }
    goals.extend(OF_ALL);
    if matches!(preset, Some(Preset::Small | Preset::Smollm2)) {
        goals.push(OF_SMOLLM2);
    }
    goals
}

/// The table of the goals whose methods both ran. The steps of one round follow each other closely,
/// so the ratio of times is the median of the rounds' ratios. On a device other than the CPU, times are
/// those of steps.
pub(crate) fn markdown(settings: &Settings, on_cpu: bool, rows: &[Row]) -> String {
    let row = |method| rows.iter().find(|row| row.method == method);
    let mut text = String::from("| ratio | found | rounds | at most | |\n|---|--:|--:|--:|---|\n");
    for (ours, other, of, most) in goals(settings) {
        let of = match of {
            Of::Cpu if !on_cpu => Of::Wall,
            of => of,
        };
        let values = |method| row(method).map_or_else(Vec::new, |row| of.values(row));
        let pairs = values(ours).into_iter().zip(values(other));
        let ratios: Vec<f64> = pairs.map(|(a, b)| a / b).collect();
        let range = match ratios.len() {
            0 => continue,
            1 => "-".to_owned(),
            _ => {
                let low = ratios.iter().copied().fold(f64::INFINITY, f64::min);
                let high = ratios.iter().copied().fold(0.0, f64::max);
                format!("{low:.3} to {high:.3}")
            }
        };
        let (what, found) = (of.name(), median(&ratios));
        let verdict = if found <= most { "met" } else { "missed" };
        text.push_str(&format!(
            "| {what}, {ours} / {other} | {found:.3} | {range} | {most:.2} | {verdict} |\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::worker::Event;

    #[test]
    fn ratios_of_times_are_those_of_rounds() {
        // The machine is ten times slower in the second round and a hundred times in the third.
        let event = |cpu: f64| Event {
            step: Some(0),
            cpu,
            forward: 2.0 * cpu,
            peak: Some((cpu * 1e3) as u64),
            ..Event::default()
        };
        let row = |method, rounds: [f64; 3]| {
            let mut row = Row::new(method, 0, vec![event(rounds[0])], 0).unwrap();
            for cpu in &rounds[1..] {
                row.add(&[event(*cpu)], 0);
            }
            row
        };
        let rows = [
            row(Method::Lisa, [1.0, 11.0, 120.0]),
            row(Method::Lora, [1.0, 10.0, 100.0]),
        ];
        let of = |preset, on_cpu| {
            let settings = Settings {
                preset,
                ..Settings::default()
            };
            markdown(&settings, on_cpu, &rows)
        };
        let text = of(Preset::Smollm2, true);
        let line = text.lines().last().unwrap();
        let expected = "| CPU time, lisa / lora | 1.100 | 1.000 to 1.200 | 1.20 | met |";
        assert_eq!(line, expected);
        assert_eq!(text.lines().count(), 3, "{text}");
        let on_gpu = of(Preset::Smollm2, false);
        assert_eq!(on_gpu, text.replace("CPU time", "time"));
        // The shape of GPT-2 has no goal for these two.
        assert_eq!(of(Preset::Gpt2, true).lines().count(), 2);
    }

    #[test]
    fn goals_relative_to_full_training_are_those_of_small() {
        let relative = |settings: Settings| {
            let goals = goals(&settings);
            goals.iter().any(|(_, other, _, _)| *other == Method::Full)
        };
        let of = |preset, shrink| Settings {
            preset,
            shrink,
            ..Settings::default()
        };
        assert!(relative(of(Preset::Small, 1)));
        assert!(!relative(of(Preset::Small, 2)));
        assert!(!relative(of(Preset::Smollm2, 1)));
        // The shape of a folder, whatever the preset is.
        let mut folder = of(Preset::Small, 1);
        folder.model = Some("model".into());
        assert!(!relative(folder));
    }
}
