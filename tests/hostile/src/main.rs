//! `hostile TARGET|all RUNS [SEED]` runs mutations of a corpus and prints the worst time and memory.
//!
//! It fails at the first input that panics, takes more than 30 seconds of CPU time or more memory than its
//! target allows, and writes that input to `hostile-TARGET.bin`. `hostile corpus` writes the files of the
//! corpus that the library makes.

use std::process::ExitCode;

use hostile_input::{TARGETS, Target, folders, records};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (name, runs, seed) = match arguments[..] {
        ["corpus"] => return corpus(),
        [name, runs] => (name, runs.parse(), Ok(1)),
        [name, runs, seed] => (name, runs.parse(), seed.parse()),
        _ => ("", "".parse(), Ok(1)),
    };
    let targets: Vec<Target> = match name {
        "all" => TARGETS.to_vec(),
        name => Target::find(name).into_iter().collect(),
    };
    let (Ok(runs), Ok(seed), false) = (runs, seed, targets.is_empty()) else {
        let names = TARGETS.map(|target| target.name).join(", ");
        eprintln!("usage: hostile TARGET|all RUNS [SEED]\ntargets: {names}");
        return ExitCode::FAILURE;
    };
    // The library catches panics of its dependencies; the messages would be too many.
    std::panic::set_hook(Box::new(|_| ()));
    println!("| target | runs | seed | slowest input, ms | most memory, MiB | allowed, MiB |");
    println!("|---|--:|--:|--:|--:|--:|");
    for target in targets {
        if !run(&target, runs, seed) {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(target: &Target, runs: u64, seed: u64) -> bool {
    let (name, allowed) = (target.name, target.memory);
    let mut highest = 0;
    let outcome = target.run(runs, seed, |body| {
        HEAP.reset_peak_usage();
        let floor = HEAP.current_usage();
        let passed = body();
        let took = HEAP.peak_usage().saturating_sub(floor);
        highest = highest.max(took);
        match took {
            0.. if took <= allowed => Ok(passed),
            _ => Err(format!("took {took} bytes of memory")),
        }
    });
    match outcome {
        Ok(slowest) => {
            let (slowest, mib) = (slowest.as_millis(), highest >> 20);
            println!(
                "| {name} | {runs} | {seed} | {slowest} | {mib} | {} |",
                allowed >> 20
            );
            true
        }
        Err(failure) => {
            let path = format!("hostile-{name}.bin");
            let _ = std::fs::write(&path, &failure.input);
            let (run, what) = (failure.run, failure.what);
            eprintln!("{name}, seed {seed}, run {run}: {what}; the input is in {path}");
            false
        }
    }
}

/// Writes what the library makes: a record, a file of weights, an index.
fn corpus() -> ExitCode {
    let folder = |name: &str| Target::find(name).map_or_else(Default::default, |t| t.folder());
    let attempt = || -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        std::fs::write(folder("record").join("run.bin"), records::fresh_record())?;
        folders::small_checkpoint(dir.path(), usize::MAX);
        let from = dir.path().join("model.safetensors");
        std::fs::copy(from, folder("safetensors").join("small.safetensors"))?;
        folders::small_checkpoint(dir.path(), 500);
        let from = dir.path().join("model.safetensors.index.json");
        std::fs::copy(from, folder("index").join("small.json"))?;
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
