//! The project's goals for memory and time, as ratios of two methods of one run.

use super::row::Row;
use crate::method::Method;

/// A quantity of a row.
#[derive(Clone, Copy)]
enum Of {
    Peak,
    Resident,
    Cpu,
}

impl Of {
    fn name(self) -> &'static str {
        match self {
            Self::Peak => "peak",
            Self::Resident => "resident",
            Self::Cpu => "CPU time",
        }
    }

    fn value(self, row: &Row) -> Option<f64> {
        match self {
            Self::Peak => Some(row.peak as f64),
            Self::Resident => row.resident.map(|bytes| bytes as f64),
            Self::Cpu => Some(row.cpu()),
        }
    }
}

/// A method, the method that it is divided by, the quantity, and the highest ratio that meets the goal.
const GOALS: [(Method, Method, Of, f64); 8] = [
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
    (Method::Lisa, Method::TorchLisa, Of::Resident, 0.95),
    (Method::LisaRecompute, Method::TorchLisa, Of::Resident, 0.70),
    (Method::Lisa, Method::TorchLisa, Of::Cpu, 1.00),
];

/// The table of the goals whose methods both ran.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let row = |method| rows.iter().find(|row| row.method == method);
    let mut text = String::from("| ratio | found | at most | |\n|---|--:|--:|---|\n");
    for (ours, other, of, most) in GOALS {
        let value = |method| row(method).and_then(|row| of.value(row));
        if let (Some(a), Some(b)) = (value(ours), value(other)) {
            let (what, found) = (of.name(), a / b);
            let verdict = if found <= most { "met" } else { "missed" };
            text.push_str(&format!(
                "| {what}, {ours} / {other} | {found:.3} | {most:.2} | {verdict} |\n"
            ));
        }
    }
    text
}
