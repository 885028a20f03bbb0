//! Hostile input: a function for each kind of file that may come from anywhere, and a driver.
//!
//! A [`Target`] takes any bytes and hands them to the library as that kind of file. It must not
//! panic, hang or take more memory than [`Target::memory`] allows. The same functions run under
//! cargo-fuzz (`fuzz/`), as plain tests on a corpus and mutations that know the format
//! (`tests/system/hostile.rs`), and by the million in the binary `hostile`.

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
    /// Its name: that of its folder in `corpus` and of its fuzz target.
    pub name: &'static str,
    /// Hands bytes to the library.
    pub body: fn(&[u8]),
    /// Another input made of one from the corpus; `corpus` is all of it.
    pub mutate: Mutate,
    /// The most bytes that one input may take at once.
    pub memory: usize,
}

/// The most CPU time that one input may take.
pub const TIME: Duration = Duration::from_secs(30);

const MIB: usize = 1 << 20;

/// All of them.
pub const TARGETS: [Target; 9] = [
    Target {
        name: "record",
        body: records::record,
        mutate: records::mutate,
        memory: 64 * MIB,
    },
    Target {
        name: "lisa_config",
        body: records::lisa_config,
        mutate: json::mutate,
        memory: 64 * MIB,
    },
    Target {
        name: "jsonl",
        body: folders::jsonl,
        mutate: json::mutate_lines,
        memory: 64 * MIB,
    },
    Target {
        name: "model_config",
        body: folders::model_config,
        mutate: json::mutate,
        memory: 64 * MIB,
    },
    Target {
        name: "safetensors",
        body: folders::safetensors,
        mutate: json::mutate_safetensors,
        memory: 64 * MIB,
    },
    Target {
        name: "index",
        body: folders::index,
        mutate: json::mutate,
        memory: 64 * MIB,
    },
    Target {
        name: "tokenizer",
        body: folders::tokenizer,
        mutate: json::mutate,
        memory: 64 * MIB,
    },
    Target {
        name: "tokenizer_config",
        body: folders::tokenizer_config,
        mutate: json::mutate,
        memory: 64 * MIB,
    },
    Target {
        name: "template",
        body: templates::template,
        mutate: templates::mutate,
        memory: 256 * MIB,
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

    /// The corpus, in the order of its names.
    ///
    /// # Panics
    ///
    /// Where the corpus cannot be read or is empty.
    #[must_use]
    pub fn corpus(&self) -> Vec<Vec<u8>> {
        let folder = self.folder();
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", folder.display());
        files.iter().map(|file| fs::read(file).unwrap()).collect()
    }

    /// Runs the corpus and then mutations of it, `runs` inputs in all. The same seed gives the same
    /// inputs. `before` and `after` are called around each input.
    ///
    /// # Errors
    ///
    /// The first input that panicked or took longer than [`TIME`], with what happened.
    pub fn run(
        &self,
        runs: u64,
        seed: u64,
        mut before: impl FnMut(),
        mut after: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<Report, Failure> {
        let corpus = self.corpus();
        let mut report = Report::default();
        for run in 0..runs {
            let mut rng = Rng::new(seed, run);
            let input = match corpus.get(run as usize) {
                Some(input) => input.clone(),
                None => {
                    let from = &corpus[rng.below(corpus.len())];
                    (self.mutate)(&mut rng, from, &corpus)
                }
            };
            let fail = |input: Vec<u8>, what: String| Failure { run, input, what };
            before();
            let start = ThreadTime::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| (self.body)(&input)));
            let took = start.elapsed();
            if outcome.is_err() {
                return Err(fail(input, "panicked".into()));
            }
            if took > TIME {
                return Err(fail(input, format!("took {took:?}")));
            }
            if let Err(what) = after(&input) {
                return Err(fail(input, what));
            }
            report.runs += 1;
            report.slowest = report.slowest.max(took);
        }
        Ok(report)
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Inputs that were run.
    pub runs: u64,
    /// The longest that one took.
    pub slowest: Duration,
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
