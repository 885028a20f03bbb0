//! [`changes`]: which flags make a run fit into memory.

use anyhow::Result;
use burn::tensor::Device;
use lisa_lm::CausalLm;

use super::planned::Planned;
use crate::settings::{Method, Quantize, Settings};
use crate::terminal::text::{counted, size};

/// A way to train with less memory: its flags, and what they set.
pub(crate) type Way = (&'static str, fn(&mut Settings));

/// Ways to run LISA, from the fastest to the one with the least memory.
pub(crate) const WAYS: [Way; 7] = [
    ("", |_| ()),
    ("--recompute", |settings| settings.memory.recompute = 1),
    (
        "--recompute --update-in-backward --max-grad-norm 0",
        in_backward,
    ),
    (
        "--recompute --update-in-backward --max-grad-norm 0 --freeze embed_tokens,lm_head",
        |settings| {
            in_backward(settings);
            freeze(settings);
        },
    ),
    (
        "--recompute --update-in-backward --max-grad-norm 0 --quantize int8",
        |settings| {
            in_backward(settings);
            settings.memory.quantize = Quantize::Int8;
        },
    ),
    (
        "--recompute --update-in-backward --max-grad-norm 0 --quantize int4",
        |settings| {
            in_backward(settings);
            settings.memory.quantize = Quantize::Int4;
        },
    ),
    (
        "--recompute --update-in-backward --max-grad-norm 0 --quantize int4 --freeze \
         embed_tokens,lm_head",
        |settings| {
            in_backward(settings);
            settings.memory.quantize = Quantize::Int4;
            freeze(settings);
        },
    ),
];

fn in_backward(settings: &mut Settings) {
    settings.memory.recompute = settings.memory.recompute.max(1);
    settings.memory.update_in_backward = true;
    settings.training.max_grad_norm = 0.0;
    settings.training.gradient_accumulation_steps = 1;
}

/// Freezes the parameters that are outside the layers of most models.
pub(crate) fn freeze(settings: &mut Settings) {
    let paths = ["embed_tokens", "embed_positions", "lm_head"];
    settings.method.freeze = paths.map(str::to_owned).to_vec();
}

/// The flags that make a run fit into `bytes`, with its memory then: smaller batches first, then LISA
/// with less memory, then shorter rows. If nothing fits, the smallest.
pub(crate) fn changes(
    settings: &Settings,
    model: &CausalLm,
    device: &Device,
    tokens: usize,
    bytes: u64,
) -> Result<String> {
    let batch = settings.training.batch_size;
    let mut smallest: Option<(u64, String)> = None;
    let mut length = tokens;
    loop {
        for (other, ways) in [(false, &WAYS[..1]), (true, &WAYS[..])] {
            if other && settings.method.method == Method::Lisa && settings.memory.recompute > 0 {
                continue;
            }
            for (flags, way) in ways {
                for rows in [batch, batch.div_ceil(2), 1] {
                    let mut changed = settings.clone();
                    let mut said = Vec::new();
                    if other && changed.method.method != Method::Lisa {
                        changed.method.method = Method::Lisa;
                        said.push("--method lisa".to_owned());
                    }
                    way(&mut changed);
                    said.extend((!flags.is_empty()).then(|| (*flags).to_owned()));
                    if changed.memory.update_in_backward && changed.training.skip_bad_steps {
                        changed.training.skip_bad_steps = false;
                        said.push("--skip-bad-steps=false".to_owned());
                    }
                    if rows < batch {
                        said.push(format!("--batch-size {rows}"));
                        if !changed.memory.update_in_backward {
                            let all = batch * settings.training.gradient_accumulation_steps;
                            let steps = all.div_ceil(rows);
                            said.push(format!("--gradient-accumulation-steps {steps}"));
                        }
                    }
                    if length < tokens {
                        said.push(format!("--max-seq-length {length}"));
                    }
                    let needed = Planned::of(&changed, model, device, rows, length)?.needed();
                    let said = said.join(" ");
                    if needed <= bytes && !said.is_empty() {
                        return Ok(format!("{said}: planned {}", size(needed)));
                    }
                    if smallest.as_ref().is_none_or(|(least, _)| needed < *least) {
                        smallest = Some((needed, said));
                    }
                }
            }
        }
        if length <= 64 {
            break;
        }
        length = (length / 2).max(64);
    }
    let (needed, said) = smallest.unwrap_or_default();
    Ok(format!(
        "nothing fits; {said} needs the least memory, {}",
        size(needed)
    ))
}

/// What a user should know of the memory that a run needs: that it does not fit, or that quantized
/// layers need more of it.
pub(crate) fn warnings(
    settings: &Settings,
    model: &CausalLm,
    device: &Device,
    tokens: usize,
    room: Option<u64>,
) -> Result<Vec<String>> {
    let rows = settings.training.batch_size;
    let planned = |settings: &Settings| Planned::of(settings, model, device, rows, tokens);
    let needed = planned(settings)?.needed();
    let mut warnings = Vec::new();
    if let Some(room) = room.filter(|room| needed > *room) {
        warnings.push(format!(
            "the planned memory of {} for {} of {} is more than the {} that are available; \
             what would fit: {}",
            size(needed),
            counted(rows, "row"),
            counted(tokens, "token"),
            size(room),
            changes(settings, model, device, tokens, room)?
        ));
    }
    if settings.memory.quantize != Quantize::None && settings.memory.recompute == 0 {
        let mut exact = settings.clone();
        exact.memory.quantize = Quantize::None;
        warnings.push(format!(
            "--quantize without --recompute needs {} instead of {}, because the backward \
             pass keeps the dequantized weights; add --recompute",
            size(needed),
            size(planned(&exact)?.needed())
        ));
    }
    Ok(warnings)
}
