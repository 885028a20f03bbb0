//! [`changes`]: which flags make a run fit into memory.

use anyhow::Result;
use burn::tensor::Device;
use lisa_lm::CausalLm;

use super::hardware::Hardware;
use super::planned::{Planned, room};
use crate::machine::total_bytes;
use crate::settings::{Method, OUTER, Quantize, Settings};
use crate::terminal::output::warn;
use crate::terminal::text::{counted, size};
use crate::user_error::UserError;

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
    flag: |settings| {
        let frozen = &settings.method.freeze;
        if frozen.len() == OUTER.len() {
            return "--freeze embed_tokens,lm_head".into();
        }
        format!("--freeze {}", frozen.join(","))
    },
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
    settings: &Settings,
    model: &CausalLm,
    hardware: impl Into<Hardware>,
    tokens: usize,
    bytes: u64,
) -> Result<String> {
    let (hardware, batch) = (hardware.into(), settings.training.batch_size);
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
                for rows in [batch, batch.div_ceil(2), 1] {
                    let mut changed = settings.clone();
                    let mut said = Vec::new();
                    if method != settings.method.method {
                        changed.method.method = method;
                        said.push(format!("--method {method}"));
                    }
                    said.extend(apply(way, &mut changed));
                    said.extend(smaller(&mut changed, rows));
                    if length < tokens {
                        said.push(format!("--max-seq-length {length}"));
                    }
                    let needed = Planned::of(&changed, model, hardware, rows, length)?.needed();
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
fn smaller(settings: &mut Settings, rows: usize) -> Vec<String> {
    let training = &mut settings.training;
    if rows >= training.batch_size {
        return Vec::new();
    }
    let mut flags = vec![format!("--batch-size {rows}")];
    let all = training.batch_size * training.gradient_accumulation_steps;
    training.batch_size = rows;
    if !settings.memory.update_in_backward {
        let steps = all.div_ceil(rows);
        training.gradient_accumulation_steps = steps;
        flags.push(format!("--gradient-accumulation-steps {steps}"));
    }
    flags
}

/// Prints what a user should know of the memory that a run needs: that it does not fit, or that quantized
/// layers need more of it. A run that `starts` is refused if it needs more memory of the machine than there
/// is: the system would end it without an error. With `--memory`, the user has said how much a CPU has.
pub(crate) fn check_memory(
    settings: &Settings,
    model: &CausalLm,
    device: &Device,
    tokens: usize,
    starts: bool,
) -> Result<()> {
    let total = total_bytes().filter(|_| starts);
    let room = room(settings, device);
    check_in([total, room], settings, model, device.into(), tokens)
}

fn check_in(
    [total, room]: [Option<u64>; 2],
    settings: &Settings,
    model: &CausalLm,
    hardware: Hardware,
    tokens: usize,
) -> Result<()> {
    let rows = settings.training.batch_size;
    let planned = |settings: &Settings| Planned::of(settings, model, hardware, rows, tokens);
    let plan = planned(settings)?;
    let needed = plan.needed();
    let of_batch = || {
        let (rows, tokens) = (counted(rows, "row"), counted(tokens, "token"));
        format!("the run needs {} for {rows} of {tokens}", size(needed))
    };
    let too_little = |bytes: u64| total.filter(|total| bytes > *total);
    if !hardware.is_host()
        && let Some(total) = too_little(plan.host)
    {
        return Err(UserError::new(format!(
            "the run needs {} of host memory, but this machine has {} of memory and swap for it",
            size(plan.host),
            size(total)
        ))
        .with_help("a run without --quantize and with --moments drop keeps nothing in host memory")
        .into());
    }
    if hardware.is_host()
        && settings.memory.memory == 0.0
        && let Some(total) = too_little(needed)
    {
        let changes = changes(settings, model, hardware, tokens, total)?;
        return Err(UserError::new(format!(
            "{}, but this machine has {} of memory and swap for it",
            of_batch(),
            size(total)
        ))
        .with_help(format!(
            "{changes}. The plan may be too high: to run anyway, give --memory GIB"
        ))
        .into());
    }
    if let Some(room) = room.filter(|room| needed > *room) {
        let changes = changes(settings, model, hardware, tokens, room)?;
        warn(format!(
            "{}, more than the {} that are available; {changes}",
            of_batch(),
            size(room),
        ));
    }
    if settings.memory.quantize != Quantize::None && settings.memory.recompute == 0 {
        let mut exact = settings.clone();
        exact.memory.quantize = Quantize::None;
        warn(format!(
            "--quantize without --recompute needs {} instead of {}, because the backward \
             pass keeps the dequantized weights; add --recompute",
            size(needed),
            size(planned(&exact)?.needed())
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Flags;

    fn model() -> CausalLm {
        let config = lisa_lm::ModelConfig::from_json(crate::bundled::CONFIG).unwrap();
        config.init(&Device::default().autodiff()).unwrap()
    }

    fn settings(method: Method) -> Settings {
        let mut settings = Flags::default().resolve(None).unwrap();
        settings.method.method = method;
        settings
    }

    /// The flags for a run with one row and less memory than another run needs.
    fn advice(settings: &Settings, below: &Settings) -> String {
        let (model, mut settings) = (model(), settings.clone());
        settings.training.batch_size = 1;
        let needed = Planned::of(below, &model, Hardware::Gpu, 1, 256).unwrap();
        let bytes = needed.needed() - 1;
        let said = changes(&settings, &model, Hardware::Gpu, 256, bytes).unwrap();
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
                        --skip-bad-steps=false: ";
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

    #[test]
    fn a_run_that_needs_more_than_the_machine_has_is_refused() {
        let model = model();
        let mut settings = settings(Method::Full);
        let rows = settings.training.batch_size;
        let of = |settings: &Settings, hardware| {
            Planned::of(settings, &model, hardware, rows, 256).unwrap()
        };
        let check = |settings: &Settings, hardware, total: Option<u64>| {
            let checked = check_in([total, None], settings, &model, hardware, 256);
            checked.map_err(|error| crate::terminal::report::report(&error))
        };
        let cpu = Hardware::Flex;
        let needed = of(&settings, cpu).needed();
        check(&settings, cpu, Some(needed)).unwrap();
        // A dry run only warns.
        check(&settings, cpu, None).unwrap();
        let shown = check(&settings, cpu, Some(needed - 1)).unwrap_err();
        for part in [&size(needed)[..], "256 tokens", "--batch-size 4"] {
            assert!(shown.contains(part), "{shown}");
        }
        settings.memory.memory = 0.001;
        check(&settings, cpu, Some(needed - 1)).unwrap();

        // On a GPU, only what is kept in host memory counts.
        let gpu = Hardware::Gpu;
        check(&settings, gpu, Some(1)).unwrap();
        settings.method.method = Method::Lisa;
        settings.memory.recompute = 1;
        settings.memory.quantize = Quantize::Int8;
        let host = of(&settings, gpu).host;
        check(&settings, gpu, Some(host)).unwrap();
        let shown = check(&settings, gpu, Some(host - 1)).unwrap_err();
        assert!(
            shown.contains("host memory") && shown.contains(&size(host)),
            "{shown}"
        );
    }
}
