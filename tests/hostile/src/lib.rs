//! Hostile input: for each kind of file that may come from anywhere a function that reads it, a corpus, and
//! mutations that know the format.
//!
//! No input may panic, run for long or take more memory than its target allows. cargo-fuzz (`fuzz/`), the
//! system tests and the binary `hostile` run the same functions.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cpu_time::ThreadTime;

pub mod folders;
pub mod json;
pub mod model;
pub mod records;
pub mod rng;
pub mod templates;

use rng::Rng;

/// Makes an input of one from the corpus, which is the last argument.
pub type Mutate = fn(&mut Rng, &[u8], &[Vec<u8>]) -> Vec<u8>;

/// One kind of file.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its folder in `corpus`.
    pub name: &'static str,
    /// Reads the bytes as that kind of file.
    pub body: fn(&[u8]),
    /// Makes another input of one from the corpus.
    pub mutate: Mutate,
    /// The most bytes that an input may allocate at once.
    pub memory: usize,
}

impl Target {
    const fn new(name: &'static str, body: fn(&[u8]), mutate: Mutate) -> Self {
        Self {
            name,
            body,
            mutate,
            memory: 64 << 20,
        }
    }
}

/// The most CPU time of an input.
pub const TIME: Duration = Duration::from_secs(30);

/// All targets.
pub const TARGETS: [Target; 11] = [
    Target::new("record", records::record, records::mutate),
    Target::new("lisa_config", records::lisa_config, json::mutate),
    Target::new("jsonl", folders::jsonl, json::mutate_lines),
    Target::new("model_config", folders::model_config, json::mutate),
    Target::new(
        "safetensors",
        folders::safetensors,
        json::mutate_safetensors,
    ),
    Target::new("index", folders::index, json::mutate),
    Target::new("adapter", folders::adapter, json::mutate_safetensors),
    Target::new("adapter_config", folders::adapter_config, json::mutate),
    Target::new("tokenizer", folders::tokenizer, json::mutate),
    Target::new("tokenizer_config", folders::tokenizer_config, json::mutate),
    Target {
        memory: 256 << 20,
        ..Target::new("template", templates::template, templates::mutate)
    },
];

impl Target {
    /// The target of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        TARGETS.into_iter().find(|target| target.name == name)
    }

    /// The folder of its corpus.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        root.join("corpus").join(self.name)
    }

    /// The corpus, in the order of the names.
    ///
    /// # Panics
    ///
    /// If it cannot be read or is empty.
    #[must_use]
    pub fn corpus(&self) -> Vec<Vec<u8>> {
        let folder = self.folder();
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", folder.display());
        files.iter().map(|file| fs::read(file).unwrap()).collect()
    }

    /// Runs the corpus and then mutations of it, `runs` inputs in all, and returns the longest CPU time of
    /// one. The same seed gives the same inputs. `around` is given each run, to measure it.
    ///
    /// # Errors
    ///
    /// The first input that panicked, took longer than [`TIME`], or that `around` refused.
    pub fn run(
        &self,
        runs: u64,
        seed: u64,
        mut around: impl FnMut(&dyn Fn() -> bool) -> Result<bool, String>,
    ) -> Result<Duration, Failure> {
        let corpus = self.corpus();
        let mut slowest = Duration::ZERO;
        for run in 0..runs {
            let mut rng = Rng::new(seed, run);
            let input = corpus.get(run as usize).cloned().unwrap_or_else(|| {
                let from = rng.pick(&corpus).clone();
                (self.mutate)(&mut rng, &from, &corpus)
            });
            let start = ThreadTime::now();
            let body = || catch_unwind(AssertUnwindSafe(|| (self.body)(&input))).is_ok();
            let outcome = around(&body);
            let took = start.elapsed();
            slowest = slowest.max(took);
            let what = match outcome {
                Ok(true) if took <= TIME => continue,
                Ok(true) => format!("took {took:?}"),
                Ok(false) => "panicked".to_owned(),
                Err(what) => what,
            };
            return Err(Failure { run, input, what });
        }
        Ok(slowest)
    }
}

/// An input that did what it must not.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its number.
    pub run: u64,
    /// The input.
    pub input: Vec<u8>,
    /// What happened.
    pub what: String,
}
