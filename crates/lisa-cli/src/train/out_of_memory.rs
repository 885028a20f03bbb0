//! [`explained`]: a panic of a device that has no memory left becomes an error with flags that need
//! less.
//!
//! Memory of the host cannot be treated like this: where the allocator fails, Rust ends the process,
//! and Linux ends it without an error. So a run on a CPU compares its plan with the available memory
//! before it starts.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use anyhow::Result;
use burn::tensor::Device;
use lisa_lm::CausalLm;

use super::fitting::changes;
use super::planned::{Planned, room};
use crate::settings::Settings;
use crate::terminal::text::{counted, size};
use crate::user_error::UserError;

/// Parts of the messages with which Burn's backends panic: CubeCL's errors, those of drivers, and those
/// of LibTorch.
const MESSAGES: [&str; 4] = [
    "OutOfMemory",
    "out of memory",
    "BufferTooBig",
    "can't allocate memory",
];

/// Does the work. If it panics for lack of memory, returns the error of `advice`; other panics
/// continue.
pub(crate) fn explained<T>(
    work: impl FnOnce() -> Result<T>,
    advice: impl FnOnce() -> Result<UserError>,
) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(panic) => match message(panic.as_ref()) {
            Some(text) if MESSAGES.iter().any(|part| text.contains(part)) => {
                Err(advice()?.with_source(text.to_owned()).into())
            }
            _ => resume_unwind(panic),
        },
    }
}

fn message(panic: &(dyn Any + Send)) -> Option<&str> {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
}

/// The error of a run whose device has no memory left: its plan, and flags that need less. The
/// parameters of the model may be lazy.
pub(crate) fn advice(
    settings: &Settings,
    model: &CausalLm,
    device: &Device,
    tokens: usize,
) -> Result<UserError> {
    let rows = settings.training.batch_size;
    let needed = Planned::of(settings, model, device, rows, tokens)?.needed();
    // Less than what did not fit, and a fifth for what a plan does not count.
    let bytes = room(settings, device).unwrap_or(needed).min(needed) / 5 * 4;
    Ok(UserError::new(format!(
        "the device ran out of memory; {} is planned for {} of {}",
        size(needed),
        counted(rows, "row"),
        counted(tokens, "token"),
    ))
    .with_help(format!(
        "use flags that need less: {}",
        changes(settings, model, device, tokens, bytes)?
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Flags;
    use crate::terminal::report::report;

    #[test]
    fn a_panic_for_lack_of_memory_is_an_error_and_others_stay_panics() {
        let advice = || Ok(UserError::new("no memory").with_help("--recompute"));
        for text in [
            "called `Result::unwrap()` on an `Err` value: OutOfMemory { size: 12 }",
            "CUDA_ERROR_OUT_OF_MEMORY: out of memory",
        ] {
            let failed = explained::<()>(|| panic!("{text}"), advice).unwrap_err();
            let shown = report(&failed);
            for part in ["no memory", "--recompute", text] {
                assert!(shown.contains(part), "{shown}");
            }
        }
        assert_eq!(explained(|| Ok(3), advice).unwrap(), 3);
        let other = explained::<()>(|| anyhow::bail!("another error"), advice);
        assert_eq!(other.unwrap_err().to_string(), "another error");
        let index = catch_unwind(|| explained::<()>(|| panic!("index out of range"), advice));
        let panic = index.unwrap_err();
        assert_eq!(message(panic.as_ref()), Some("index out of range"));
    }

    #[test]
    fn the_advice_needs_less_than_the_plan() {
        let device = Device::default().autodiff();
        let config = lisa_lm::ModelConfig::from_json(crate::bundled::CONFIG).unwrap();
        let model = config.init(&device).unwrap();
        let settings = Flags::default().resolve(None).unwrap();
        let error = advice(&settings, &model, &device, 256).unwrap();
        let rows = settings.training.batch_size;
        let needed = Planned::of(&settings, &model, &device, rows, 256).unwrap();
        assert!(
            error.to_string().contains(&size(needed.needed())),
            "{error}"
        );
        let help = error.help().unwrap();
        assert!(help.contains("--batch-size"), "{help}");
    }
}
