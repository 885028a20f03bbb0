//! [`explained`]: a panic of a device that has no memory left becomes an error with flags that need
//! less.
//!
//! Memory of the host cannot be treated like this: where the allocator fails, Rust ends the process,
//! and Linux ends it without an error. So a run on a CPU compares its plan with the memory of the machine
//! before it starts.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use anyhow::Result;
use lisa::LisaError;

use super::fitting::changes;
use super::planned::Planner;
use crate::settings::Settings;
use crate::terminal::text::{counted, size};
use crate::user_error::UserError;

/// Parts of the messages of Burn's backends, in lower case: those of CubeCL, of its storage for ROCm,
/// of wgpu, of CUDA's driver, and of LibTorch. None of them has an underscore, as in the names of
/// functions in a backtrace.
const MESSAGES: [&str; 7] = [
    "out of device memory",
    "out-of-memory",
    "can't allocate",
    "hipmalloc failed with status 2",
    "out of memory",
    "not enough memory left",
    "outofmemory",
];

/// Does the work. If it panics or fails because the device has no memory left, returns the error of
/// `advice`; other panics continue.
pub(crate) fn explained<T>(
    work: impl FnOnce() -> Result<T>,
    advice: impl FnOnce() -> Result<UserError>,
) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Err(error)) => match of_system(&error).and_then(|text| found(&text)) {
            Some(line) => Err(advice()?.with_source(line).into()),
            None => Err(error),
        },
        Ok(result) => result,
        Err(panic) => match message(panic.as_ref()).and_then(found) {
            Some(line) => Err(advice()?.with_source(line).into()),
            None => resume_unwind(panic),
        },
    }
}

/// The line that says that a device has no memory left, if there is one. The other lines of a message
/// are often a backtrace.
fn found(text: &str) -> Option<String> {
    let says_so = |line: &&str| {
        let line = line.to_lowercase();
        MESSAGES.iter().any(|part| line.contains(part))
    };
    Some(text.lines().find(says_so)?.trim().to_owned())
}

/// The text of the error from which an error comes, unless it is of this project: such an error may
/// contain text of the user's data.
fn of_system(error: &anyhow::Error) -> Option<String> {
    let root = error.root_cause();
    let is_ours = root.is::<UserError>() || root.is::<LisaError>() || root.is::<lisa_lm::Error>();
    (!is_ours).then(|| root.to_string())
}

fn message(panic: &(dyn Any + Send)) -> Option<&str> {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
}

/// The same for a command other than training, whose flags are other ones.
pub(crate) fn explained_for<T>(command: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    explained(work, || {
        Ok(
            UserError::new(format!("the device ran out of memory in `{command}`")).with_help(
                "end other programs that use the device, give smaller rows, batches or prompts if the \
                 command has them, or use the CPU with BURN_DEVICE=flex",
            ),
        )
    })
}

/// The error of a run whose device has no memory left: its plan, and flags that need less.
pub(crate) fn advice(
    planner: Planner<'_>,
    settings: &Settings,
    tokens: usize,
) -> Result<UserError> {
    let rows = settings.training.batch_size;
    let needed = planner.needed(settings, rows, tokens)?;
    // Less than what did not fit, and a fifth for what a plan does not count.
    let bytes = planner.room(settings).unwrap_or(needed).min(needed) / 5 * 4;
    Ok(UserError::new(format!(
        "the device ran out of memory; {} is planned for {} of {}",
        size(needed),
        counted(rows, "row"),
        counted(tokens, "token"),
    ))
    .with_help(format!(
        "use flags that need less; {}",
        changes(planner, settings, tokens, bytes)?
    )))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::settings::Flags;
    use crate::terminal::report::report;

    fn explained_here<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
        explained(work, || {
            Ok(UserError::new("no memory").with_help("--recompute"))
        })
    }

    /// What a read of a tensor panics with in Burn 0.22.1, where CubeCL has this error.
    fn read_failed(error: &str) -> String {
        format!(
            "Error while reading data: use `try_into_data` instead to catch the error at runtime: An \
             error happened during execution\nCaused by:\n  The bytes were never written (failure #3, \
             still claiming 1 buffer(s))\n  add\nCaused by:\n  {error}\nAsked at:\nNo backtrace available"
        )
    }

    /// The messages are those of `Display` and `Debug` in cubecl-runtime 0.11.3 (`server/base.rs`),
    /// cubecl-hip 0.11.3, wgpu 30.0.1, wgpu-core 30.0.1, cudarc 0.19.10, and PyTorch 2.9.0.
    #[test]
    fn a_device_without_memory_is_an_error_with_advice_on_every_backend() {
        let io = |error: &str| {
            read_failed(&format!(
                "An IO error happened\nCaused by:\n  {error}\nNo backtrace available"
            ))
        };
        for (panic, line) in [
            (
                io("out of device memory allocating 536870912 bytes"),
                "out of device memory allocating 536870912 bytes",
            ),
            (
                io("can't allocate buffer of size: 8589934592"),
                "can't allocate buffer of size: 8589934592",
            ),
            (
                io("Can't allocate 4096 bytes: every page size the memory tracks still holds live \
                    allocations"),
                "Can't allocate 4096 bytes",
            ),
            (
                read_failed(
                    "A launch error happened\nCaused by:\n  An out-of-memory error happened during \
                     launch\nCaused by:\n  out of memory launching kernel 7",
                ),
                "An out-of-memory error happened during launch",
            ),
            (
                io("Unknown error happened during execution: hipMalloc failed with status 2"),
                "hipMalloc failed with status 2",
            ),
            ("wgpu error: Out of Memory".to_owned(), "Out of Memory"),
            (
                "CallError(task panicked on device runner thread: wgpu error: Out of Memory)".to_owned(),
                "Out of Memory",
            ),
            ("Not enough memory left.".to_owned(), "Not enough memory left."),
            (
                "called `Result::unwrap()` on an `Err` value: \
                 DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")"
                    .to_owned(),
                "CUDA_ERROR_OUT_OF_MEMORY",
            ),
            (
                "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory. Tried to \
                 allocate 2.00 GiB.\\nException raised from malloc\")"
                    .to_owned(),
                "CUDA out of memory",
            ),
            (
                "Internal torch error: [enforce fail at alloc_cpu.cpp:121] err == 0. \
                 DefaultCPUAllocator: can't allocate memory: you tried to allocate 12 bytes."
                    .to_owned(),
                "can't allocate memory",
            ),
        ] {
            let failed = explained_here::<()>(|| panic!("{panic}")).unwrap_err();
            let shown = report(&failed);
            for part in ["no memory", "--recompute", line] {
                assert!(shown.contains(part), "{shown}");
            }
            assert!(!shown.contains("No backtrace"), "{shown}");
        }
        let written = || -> Result<()> {
            let panic =
                "panic while producing tensor data: out of device memory allocating 9 bytes";
            Err(anyhow::anyhow!("{panic}").context("cannot write the model"))
        };
        let failed = explained_here(written).unwrap_err();
        assert_eq!(failed.to_string(), "no memory");
        let command = explained_for::<()>("lisa export", || panic!("wgpu error: Out of Memory"));
        assert_eq!(
            command.unwrap_err().to_string(),
            "the device ran out of memory in `lisa export`"
        );
    }

    #[test]
    fn other_errors_and_panics_are_not_explained() {
        assert_eq!(explained_here(|| Ok(3)).unwrap(), 3);
        // Text of the user's data is in errors of this project only.
        for error in [
            anyhow::anyhow!("another error"),
            UserError::new("the row begins `I ran out of memory`").into(),
            lisa_lm::Error::new(lisa_lm::ErrorKind::Data, "line 3: `out of memory`").into(),
        ] {
            let text = error.to_string();
            let other = explained_here::<()>(|| Err(error));
            assert_eq!(other.unwrap_err().to_string(), text);
        }
        for text in [
            "index out of range".to_owned(),
            read_failed(
                "Too much shared memory requested.\nRequested 65536 bytes, maximum 49152 bytes \
                 available.\nBacktrace\n   3: lisa_cli::train::memory::out_of_memory::explained",
            ),
        ] {
            let panicked = || explained_here::<()>(|| panic!("{text}"));
            let panic = catch_unwind(panicked).unwrap_err();
            assert_eq!(message(panic.as_ref()), Some(&text[..]));
        }
    }

    #[test]
    fn the_advice_needs_less_than_the_plan() {
        let device = Device::default().autodiff();
        let config = lisa_lm::ModelConfig::from_json(crate::bundled::CONFIG).unwrap();
        let model = config.init(&device).unwrap();
        let settings = Flags::default().resolve(None).unwrap();
        let planner = Planner::new(&model, &device);
        let error = advice(planner, &settings, 256).unwrap();
        let needed = planner.plan_run(&settings, 256).unwrap().needed();
        assert!(error.to_string().contains(&size(needed)), "{error}");
        let help = error.help().unwrap();
        assert!(help.contains("--batch-size"), "{help}");
    }
}
