//! What the project asks of itself, as ratios within one run.

use crate::method::Method;
use crate::report::Row;

/// What is compared.
#[derive(Clone, Copy)]
enum Of {
    /// Bytes live at the most, both counted.
    Peak,
    /// The resident set, both less a tiny model's.
    Resident,
    Cpu,
}

/// Ours, the other, what, and the most that the ratio may be.
const BARS: [(Method, Method, Of, f64); 8] = [
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

/// The table of those whose methods both ran.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let row = |method| rows.iter().find(|row| row.method == method);
    let mut text = String::from("| ratio | found | at most | |\n|---|--:|--:|---|\n");
    for (ours, other, of, most) in BARS {
        let (Some(a), Some(b)) = (row(ours), row(other)) else {
            continue;
        };
        let bytes = |row: &Row| match of {
            Of::Peak => Some(row.peak as f64),
            Of::Resident => row.resident.map(|bytes| bytes as f64),
            Of::Cpu => Some(row.cpu()),
        };
        let (Some(a), Some(b)) = (bytes(a), bytes(b)) else {
            continue;
        };
        let what = match of {
            Of::Peak => "peak",
            Of::Resident => "resident",
            Of::Cpu => "CPU time",
        };
        let verdict = if a / b <= most { "met" } else { "missed" };
        let found = a / b;
        text.push_str(&format!(
            "| {what}, {ours} / {other} | {found:.3} | {most:.2} | {verdict} |\n"
        ));
    }
    text
}
