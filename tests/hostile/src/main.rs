//! `hostile TARGET|all RUNS [SEED]`: runs mutations of a corpus and says what the worst cost.
//!
//! Ends with an error at the first input that panics, takes more than 30 seconds of CPU time or more memory than
//! its target allows; the input is written to `hostile-TARGET.bin`. Also where the last nine tenths of the
//! inputs together leave more than [`LEFT_OVER`] bytes allocated: something is never freed. `hostile corpus` writes anew the
//! files of the corpus that are made by the library.

use std::process::ExitCode;
use std::time::Instant;

use hostile_input::{TARGETS, Target, folders, records};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The most that all inputs together may leave behind: 64 KiB, since caches of dependencies move by some. What is
/// never freed grows with the inputs and comes there.
const LEFT_OVER: usize = 64 << 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &&str| text.parse::<u64>().ok();
    let (names, runs, seed) = match arguments[..] {
        ["corpus"] => return corpus(),
        [name, ref rest @ ..] if !rest.is_empty() => (
            name,
            rest.first().and_then(number),
            rest.get(1).map_or(Some(1), number),
        ),
        _ => ("", None, None),
    };
    let targets: Vec<Target> = match names {
        "all" => TARGETS.to_vec(),
        name => Target::find(name).into_iter().collect(),
    };
    let (Some(runs), Some(seed), false) = (runs, seed, targets.is_empty()) else {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!(
            "usage: hostile TARGET|all RUNS [SEED]\ntargets: {}",
            names.join(", ")
        );
        return ExitCode::FAILURE;
    };
    // A tokenizer that panics inside is caught by the library, a million times over.
    std::panic::set_hook(Box::new(|_| ()));
    println!(
        "| target | runs | seed | minutes | slowest input, ms | most memory, MiB | allowed, MiB | left over, KiB |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for target in targets {
        if !run(&target, runs, seed) {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(target: &Target, runs: u64, seed: u64) -> bool {
    let start = Instant::now();
    let (floor, highest) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    // Inputs so far, and what was allocated when a tenth of them had run: caches are full by then.
    let (count, early) = (std::cell::Cell::new(0), std::cell::Cell::new(None));
    let before = || {
        HEAP.reset_peak_usage();
        floor.set(HEAP.current_usage());
        count.set(count.get() + 1);
        if count.get() > runs / 10 && early.get().is_none() {
            early.set(Some(floor.get()));
        }
    };
    let after = |_: &[u8]| {
        let took = HEAP.peak_usage().saturating_sub(floor.get());
        highest.set(highest.get().max(took));
        if took > target.memory {
            return Err(format!("took {took} bytes of memory"));
        }
        Ok(())
    };
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    match target.run(runs, seed, before, after) {
        Ok(report) => {
            let left = HEAP.current_usage();
            let left = left.saturating_sub(early.get().unwrap_or(left));
            println!(
                "| {} | {} | {seed} | {:.1} | {:.0} | {:.1} | {:.0} | {:.1} |",
                target.name,
                report.runs,
                start.elapsed().as_secs_f64() / 60.0,
                report.slowest.as_secs_f64() * 1e3,
                mib(highest.get()),
                mib(target.memory),
                left as f64 / 1024.0
            );
            if left > LEFT_OVER {
                eprintln!("{} left {left} bytes allocated", target.name);
            }
            left <= LEFT_OVER
        }
        Err(failure) => {
            let path = format!("hostile-{}.bin", target.name);
            let _ = std::fs::write(&path, &failure.input);
            eprintln!(
                "{}, seed {seed}, run {}: {}; the input is in {path}",
                target.name, failure.run, failure.what
            );
            false
        }
    }
}

/// Writes what the library makes: a record, a file of weights, an index.
fn corpus() -> ExitCode {
    let folder = |name: &str| Target::find(name).map(|target| target.folder());
    let (Some(record), Some(single), Some(index)) =
        (folder("record"), folder("safetensors"), folder("index"))
    else {
        return ExitCode::FAILURE;
    };
    let attempt = || -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        for folder in [&record, &single, &index] {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(record.join("run.bin"), records::fresh_record())?;
        folders::small_checkpoint(dir.path(), usize::MAX);
        let from = dir.path().join("model.safetensors");
        std::fs::copy(from, single.join("small.safetensors"))?;
        folders::small_checkpoint(dir.path(), 500);
        let from = dir.path().join("model.safetensors.index.json");
        std::fs::copy(from, index.join("small.json"))?;
        Ok(())
    };
    match attempt() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
