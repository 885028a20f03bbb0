//! [`changes`]: which flags make a run fit into memory.

use anyhow::Result;

use super::planned::Planner;
use crate::settings::{Method, OUTER, Quantize, Settings};
use crate::terminal::text::size;

/// A change of the settings that lowers the memory of a run.
pub(crate) struct Change {
    set: fn(&mut Settings),
    /// The flag that sets it.
    flag: fn(&Settings) -> String,
}

const RECOMPUTE: Change = Change {
    set: |settings| settings.memory.recompute = settings.memory.recompute.max(1),
    flag: |_| "--recompute".into(),
};
const IN_BACKWARD: Change = Change {
    set: |settings| settings.memory.update_in_backward = true,
    flag: |_| "--update-in-backward".into(),
};
// The last three are refused with `--update-in-backward`.
const NO_CLIPPING: Change = Change {
    set: |settings| settings.training.max_grad_norm = 0.0,
    flag: |_| "--max-grad-norm 0".into(),
};
const ONE_BATCH: Change = Change {
    set: |settings| settings.training.gradient_accumulation_steps = 1,
    flag: |_| "--gradient-accumulation-steps 1".into(),
};
const NO_SKIPPING: Change = Change {
    set: |settings| settings.training.skip_bad_steps = false,
    flag: |_| "--skip-bad-steps=false".into(),
};
const INT8: Change = Change {
    set: |settings| settings.memory.quantize = Quantize::Int8,
    flag: |_| "--quantize int8".into(),
};
const INT4: Change = Change {
    set: |settings| settings.memory.quantize = Quantize::Int4,
    flag: |_| "--quantize int4".into(),
};
const FREEZE: Change = Change {
    set: |settings| {
        let frozen = &mut settings.method.freeze;
        let missing: Vec<&str> = OUTER
            .into_iter()
            .filter(|path| !frozen.iter().any(|frozen| frozen == path))
            .collect();
        frozen.extend(missing.into_iter().map(str::to_owned));
    },
    flag: |settings| format!("--freeze {}", settings.method.freeze.join(",")),
};
// Parameters that are frozen train in no period.
const EVERY_PERIOD: Change = Change {
    set: |settings| settings.method.outer_every = 1,
    flag: |_| "--outer-every 1".into(),
};

/// A way to train with less memory.
pub(crate) type Way = &'static [&'static [Change]];

const LAYERED: &[Change] = &[RECOMPUTE, IN_BACKWARD, NO_CLIPPING, ONE_BATCH, NO_SKIPPING];
/// Frozen embeddings and head.
pub(crate) const FROZEN: &[Change] = &[FREEZE, EVERY_PERIOD];
/// Recomputation, an update of each layer in the backward pass, and frozen embeddings and head.
pub(crate) const LAYERED_FROZEN: Way = &[LAYERED, FROZEN];

/// Ways to run a method, from the fastest to the one with the least memory.
pub(crate) fn ways(method: Method) -> &'static [Way] {
    const ALL: [Way; 7] = [
        &[],
        &[&[RECOMPUTE]],
        &[LAYERED],
        LAYERED_FROZEN,
        &[LAYERED, &[INT8]],
        &[LAYERED, &[INT4]],
        &[LAYERED, &[INT4], FROZEN],
    ];
    match method {
        Method::Lisa => &ALL,
        Method::Full | Method::Lora => &ALL[..3],
    }
}

/// Changes the settings, and returns the flags of what is changed.
pub(crate) fn apply(way: Way, settings: &mut Settings) -> Vec<String> {
    let mut flags = Vec::new();
    for change in way.iter().copied().flatten() {
        let before = settings.clone();
        (change.set)(settings);
        if *settings != before {
            flags.push((change.flag)(settings));
        }
    }
    flags
}

/// Before flags that fit.
const FITS: &str = "what would fit: ";

/// What makes a run fit into `bytes`, for messages: the flags, with its memory then. Smaller batches and
/// less memory with the same method come first, then LISA, then shorter rows. If nothing fits, what
/// needs the least.
pub(crate) fn changes(
    planner: Planner<'_>,
    settings: &Settings,
    tokens: usize,
    bytes: u64,
) -> Result<String> {
    let all_rows = settings.training.batch_size;
    let methods: &[Method] = match settings.method.method {
        Method::Lisa => &[Method::Lisa],
        Method::Lora => &[Method::Lora, Method::Lisa],
        Method::Full => &[Method::Full, Method::Lisa],
    };
    let mut smallest: Option<(u64, String, Method)> = None;
    let mut length = tokens;
    loop {
        for &method in methods {
            for way in ways(method) {
                for rows in [all_rows, all_rows.div_ceil(2), 1] {
                    let mut changed = settings.clone();
                    let mut said = Vec::new();
                    if method != settings.method.method {
                        changed.method.method = method;
                        said.push(format!("--method {method}"));
                    }
                    said.extend(apply(way, &mut changed));
                    said.extend(smaller(&mut changed, rows));
                    let accumulated = settings.training.gradient_accumulation_steps > 1;
                    if accumulated && changed.memory.update_in_backward && rows == all_rows {
                        // The default is larger where batches are not accumulated.
                        said.extend(batch(&changed));
                    }
                    if length < tokens {
                        said.push(format!("--max-seq-length {length}"));
                    }
                    let needed = planner.needed(&changed, rows, length)?;
                    let said = said.join(" ");
                    if needed <= bytes && !said.is_empty() {
                        let note = note(settings, method);
                        return Ok(format!("{FITS}{said}: planned {}{note}", size(needed)));
                    }
                    if smallest.as_ref().is_none_or(|(least, ..)| needed < *least) {
                        smallest = Some((needed, said, method));
                    }
                }
            }
        }
        if length <= 64 {
            break;
        }
        length = (length / 2).max(64);
    }
    let Some((needed, said, method)) = smallest else {
        return Ok("nothing fits".into());
    };
    let note = note(settings, method);
    Ok(format!("the least is {}, with {said}{note}", size(needed)))
}

/// What must be left out with another method, which refuses it.
fn note(settings: &Settings, method: Method) -> &'static str {
    if settings.method.method == Method::Lora && method != Method::Lora {
        ", without flags of LoRA"
    } else {
        ""
    }
}

/// Makes the batches smaller, and as many more for a step. Returns the flags.
pub(super) fn smaller(settings: &mut Settings, rows: usize) -> Vec<String> {
    let training = &mut settings.training;
    if rows >= training.batch_size {
        return Vec::new();
    }
    let all = training.batch_size * training.gradient_accumulation_steps;
    training.batch_size = rows;
    if !settings.memory.update_in_backward {
        training.gradient_accumulation_steps = all.div_ceil(rows);
    }
    batch(settings)
}

/// The flags of the batches of these settings.
pub(super) fn batch(settings: &Settings) -> Vec<String> {
    let training = &settings.training;
    let mut flags = vec![format!("--batch-size {}", training.batch_size)];
    if training.gradient_accumulation_steps > 1 {
        let batches = training.gradient_accumulation_steps;
        flags.push(format!("--gradient-accumulation-steps {batches}"));
    }
    flags
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::super::hardware::Hardware;
    use super::*;
    use crate::settings::Flags;

    fn settings(method: Method) -> Settings {
        let mut settings = Flags::default().resolve(None).unwrap();
        settings.method.method = method;
        settings
    }

    /// The flags for a run with one row and less memory than another run needs.
    fn advice(settings: &Settings, below: &Settings) -> String {
        let config = lisa_lm::ModelConfig::from_json(crate::bundled::CONFIG).unwrap();
        let model = config.init(&Device::default().autodiff()).unwrap();
        let planner = Planner::new(&model, Hardware::Gpu);
        let mut settings = settings.clone();
        settings.training.batch_size = 1;
        let bytes = planner.needed(below, 1, 256).unwrap() - 1;
        let said = changes(planner, &settings, 256, bytes).unwrap();
        said.strip_prefix(FITS).unwrap().to_owned()
    }

    #[test]
    fn the_advice_keeps_the_method_if_that_is_enough() {
        let with = |method, way: Way| {
            let mut settings = settings(method);
            apply(way, &mut settings);
            settings
        };
        let lora = settings(Method::Lora);
        let said = advice(&lora, &lora);
        assert!(said.starts_with("--recompute: planned"), "{said}");
        let said = advice(&lora, &with(Method::Lora, &[LAYERED]));
        assert!(said.starts_with("--method lisa "), "{said}");
        assert!(said.ends_with(", without flags of LoRA"), "{said}");
        let full = settings(Method::Full);
        let cases: [(Way, &str); 3] = [
            (&[], "--recompute: "),
            (
                &[&[RECOMPUTE]],
                "--recompute --update-in-backward --max-grad-norm 0: ",
            ),
            (&[LAYERED], "--method lisa"),
        ];
        for (way, expected) in cases {
            let said = advice(&full, &with(Method::Full, way));
            assert!(said.starts_with(expected), "{said}");
        }
    }

    #[test]
    fn the_advice_goes_on_from_what_is_set_already() {
        let mut lisa = settings(Method::Lisa);
        lisa.memory.recompute = 2;
        lisa.training.gradient_accumulation_steps = 4;
        lisa.training.skip_bad_steps = true;
        let said = advice(&lisa, &lisa);
        let expected = "--update-in-backward --max-grad-norm 0 --gradient-accumulation-steps 1 \
                        --skip-bad-steps=false --batch-size 1: ";
        assert!(said.starts_with(expected), "{said}");
        lisa.method.freeze = vec!["layers.0".into()];
        lisa.method.outer_every = 3;
        let flags = apply(LAYERED_FROZEN, &mut lisa.clone());
        assert_eq!(
            flags[4..],
            [
                "--freeze layers.0,embed_tokens,embed_positions,lm_head",
                "--outer-every 1"
            ]
        );
        assert!(apply(&[], &mut lisa).is_empty());
        // All names of what the plan has frozen: GPT-2 has embeddings of positions.
        lisa.method.freeze.clear();
        let flags = apply(&[FROZEN], &mut lisa);
        assert_eq!(flags[0], "--freeze embed_tokens,embed_positions,lm_head");
        assert_eq!(lisa.method.freeze, OUTER);
    }

    #[test]
    fn a_smaller_batch_is_planned_with_the_batches_that_it_is_accumulated_over() {
        let mut full = settings(Method::Full);
        full.training.batch_size = 4;
        assert!(smaller(&mut full, 4).is_empty());
        assert_eq!(
            smaller(&mut full, 1),
            ["--batch-size 1", "--gradient-accumulation-steps 4"]
        );
        let training = &full.training;
        assert_eq!(
            (training.batch_size, training.gradient_accumulation_steps),
            (1, 4)
        );
    }
}
