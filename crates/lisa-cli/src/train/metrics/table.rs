//! `metrics.csv`: the lines of `metrics.jsonl` as a table.

use super::line::Line;

/// The first line of the table.
pub(super) const HEADER: &str = "step,loss,held_out_loss,held_out_first_loss,lr,\
                                 tokens_per_second,active_layers,state_bytes,memory_bytes,\
                                 peak_bytes,outer_active\n";

/// A row with its line break. Unknown values are empty; layers are separated by spaces.
pub(super) fn row(line: &Line) -> String {
    let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    let bytes = |value: Option<u64>| value.map_or(String::new(), |value| value.to_string());
    let layers: Vec<String> = line.active_layers.iter().map(ToString::to_string).collect();
    let cells = [
        line.step.to_string(),
        number(line.loss),
        number(line.held_out_loss),
        number(line.held_out_first_loss),
        number(line.lr),
        number(line.tokens_per_second),
        layers.join(" "),
        bytes(line.state_bytes),
        bytes(line.memory_bytes),
        bytes(line.peak_bytes),
        line.outer_active
            .map_or(String::new(), |active| active.to_string()),
    ];
    cells.join(",") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_as_many_cells_as_the_header() {
        let line = Line {
            step: 3,
            loss: Some(1.25),
            lr: Some(5e-5),
            active_layers: vec![2, 11],
            state_bytes: Some(8),
            outer_active: Some(false),
            ..Line::default()
        };
        assert_eq!(row(&line), "3,1.25,,,0.00005,,2 11,8,,,false\n");
        assert_eq!(row(&line).matches(',').count(), HEADER.matches(',').count());
        assert_eq!(row(&Line::held_out(7, f64::INFINITY)), "7,,inf,,,,,,,,\n");
    }
}
