//! `compare.md` and `compare.csv`.

use super::row::Row;
use crate::memory::mib;
use crate::settings::Settings;

const NOTE: &str = "\nPeak counts the bytes in use on flex, and the bytes that the pool of another device reserved, both \
     without those under host. In use is the most at the ends of forward pass, backward pass and update. Host counts what stays in host memory besides: offloaded optimizer state, and the \
     full-precision weights of quantized layers.\n";

fn tokens_per_second(settings: &Settings, row: &Row) -> f64 {
    (settings.batch * settings.sequence) as f64 / row.wall()
}

/// The table with a line of its settings above it.
pub(crate) fn markdown(settings: &Settings, rounds: usize, rows: &[Row]) -> String {
    let mut text = format!(
        "{}, {}, batch {} x {} tokens, gamma {}, K {}, {} thread(s), {} steps x {rounds}\n\n\
         | method | peak MiB | in use MiB | host MiB | planned | resident MiB | CPU-s a step | quartiles | s a step | forward \
         | backward | update | tokens/s | loss |\n|---|{}\n",
        settings.name(),
        settings.dtype,
        settings.batch,
        settings.sequence,
        settings.active_layers,
        settings.period,
        settings.threads,
        settings.steps,
        "--:|".repeat(13),
    );
    for row in rows {
        let bytes = |bytes: Option<u64>| bytes.map_or("-".into(), mib);
        let [forward, backward, update] = row.phases();
        let [low, high] = row.cpu_quartiles();
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {:.2} | {low:.2} to {high:.2} | {:.2} | {forward:.2} | {backward:.2} | {update:.2} \
             | {:.0} | {:.4} |\n",
            row.method,
            mib(row.peak),
            bytes(row.live),
            bytes(row.host),
            bytes(row.planned),
            bytes(row.resident),
            row.cpu(),
            row.wall(),
            tokens_per_second(settings, row),
            row.loss,
        ));
    }
    text.push_str(NOTE);
    text
}

/// Every figure, a row for each method.
pub(crate) fn csv(settings: &Settings, rows: &[Row]) -> String {
    let mut text = String::from(
        "method,peak_bytes,step_cpu_s,step_wall_s,tokens_per_s,loss,forward_s,backward_s,update_s,\
         step_cpu_q1_s,step_cpu_q3_s,resident_bytes,setup_bytes,live_bytes,state_bytes,host_bytes,planned_bytes\n",
    );
    for row in rows {
        let [forward, backward, update] = row.phases();
        let [low, high] = row.cpu_quartiles();
        text.push_str(&format!(
            "{},{},{:.4},{:.4},{:.1},{:.6},{forward:.4},{backward:.4},{update:.4},{low:.4},{high:.4}",
            row.method,
            row.peak,
            row.cpu(),
            row.wall(),
            tokens_per_second(settings, row),
            row.loss,
        ));
        for bytes in [
            row.resident,
            row.setup,
            row.live,
            row.state,
            row.host,
            row.planned,
        ] {
            let bytes = bytes.map_or(String::new(), |bytes| bytes.to_string());
            text.push_str(&format!(",{bytes}"));
        }
        text.push('\n');
    }
    text
}
