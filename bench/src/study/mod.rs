//! `bench study`: full training, LoRA and LISA with its variants on tasks that are folders of JSONL files,
//! over several seeds.
//!
//! A [`job`] is one run, by everything that determines it, and each finished run is a line of the
//! [`log`], so that an interrupted study continues, also on another machine. The [`plan`] lists the runs
//! that are missing, worker processes [`train`] and [`score`], and the tables and pictures are made from
//! the lines.

mod arm;
mod arms;
mod catch_up;
mod cells;
mod inputs;
mod job;
mod log;
mod pages;
mod pictures;
mod plan;
mod pool;
mod pytorch;
mod report;
mod results;
mod score;
mod second_moment;
mod signal;
mod tables;
pub(crate) mod train;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use clap::Args;

use self::arms::Kind;
use self::inputs::Inputs;
use self::job::{Job, Outcome, Purpose};
use self::log::Log;
use self::plan::Plan;
use self::pool::Pool;
use self::results::Results;
use crate::preset::Dtype;
use crate::{files, memory};

/// Options of the study.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Folder of the log, the tables and the pictures
    #[arg(long, default_value = "runs/study", value_name = "DIR")]
    out: PathBuf,
    /// Write the tables and pictures of the runs in this folder, and run nothing
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    report: Option<PathBuf>,
    /// Write tables into these pages, too, between their marks
    #[arg(
        long = "page",
        value_name = "FILE,..",
        value_delimiter = ',',
        requires = "report"
    )]
    pages: Vec<PathBuf>,
    /// Make the run of this line of the log again, print both results, and add nothing
    #[arg(long, value_name = "LINE", conflicts_with = "report")]
    again: Option<usize>,
    /// Runs at a time, each a process
    #[arg(long, default_value_t = 1, value_name = "N")]
    jobs: usize,
    /// Threads of a run
    #[arg(long, default_value_t = 1, value_name = "N")]
    threads: usize,
    /// Start no run after so many seconds [default: run all]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// The runs to make [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME,..")]
    purposes: Vec<Purpose>,
    /// The methods to run [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME,..")]
    methods: Vec<Kind>,
    /// Seeds of each method; variants have one [default: 3; 2 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// Dtype of the model; master weights, adapters and optimizer state are f32
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
    /// A few methods, two seeds and a few steps, to test that everything works
    #[arg(long)]
    quick: bool,
    /// Folder of the checkpoint to fine-tune [default: the bundled model]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Folders of tasks, as `bench tasks` writes them [default: the bundled data]
    #[arg(long, value_name = "DIR,..", value_delimiter = ',')]
    tasks: Vec<PathBuf>,
}

/// The names of a report, where no folders are given.
const TASKS: [&str; 3] = ["gsm8k", "pubmedqa", "instruct"];
const MODEL: &str = "smollm2";

/// Runs what is missing, and writes tables and pictures.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.jobs > 0, "--jobs is 0; give at least 1");
    ensure!(options.threads > 0, "--threads is 0; give at least 1");
    let reports = options.report.is_some();
    let out = options.report.as_ref().unwrap_or(&options.out);
    let runs = out.join("runs.jsonl");
    let reads = reports || options.again.is_some();
    ensure!(
        !reads || runs.is_file(),
        "there is no `{}`; give the folder of a study",
        runs.display()
    );
    let plan = planned(options)?;
    if let Some(line) = options.again {
        return again(&plan, &Log::read(&runs)?, line, options.threads);
    }
    files::make_folder(out)?;
    let mut log = if reports {
        Log::read(&runs)?
    } else {
        Log::open(&runs)?
    };
    if !reports {
        check(&plan, &log)?;
        let pool = Pool {
            at_a_time: options.jobs,
            threads: options.threads,
            seconds: options.seconds,
        };
        pool::run(&plan, &mut log, pool)?;
    }
    let results = Results {
        plan: &plan,
        log: &log,
    };
    if reports {
        ensure_runs(&results)?;
    }
    let text = report::markdown(&results);
    files::write(&out.join("README.md"), &text)?;
    let tables = pages::tables(&results, &pytorch::read(out)?);
    for page in &options.pages {
        let old = std::fs::read_to_string(page)
            .with_context(|| format!("cannot read `{}`", page.display()))?;
        let new = pages::marked(&old, &tables);
        files::write(page, &new.with_context(|| page.display().to_string())?)?;
    }
    pictures::write(out, &results)?;
    println!("{text}The tables and pictures are in {}", out.display());
    Ok(())
}

/// Refuses a report without runs.
fn ensure_runs(results: &Results) -> Result<()> {
    let plan = results.plan;
    let all = results.log.all();
    let named: BTreeSet<String> = all
        .iter()
        .map(|(job, _)| format!("`{}` on `{}` in {}", job.model, job.task, job.dtype))
        .collect();
    let tasks: Vec<String> = plan.tasks.iter().map(|task| plan::name(task)).collect();
    ensure!(
        all.iter().any(|(job, _)| plan.has(job)),
        "the log has no run of `{}` on {} in {}; it has {}: give --model, --tasks and --dtype of these",
        plan::name(&plan.model),
        tasks.join(", "),
        plan.dtype,
        match named.len() {
            0 => "none".to_owned(),
            _ => named.into_iter().collect::<Vec<_>>().join(", "),
        }
    );
    Ok(())
}

/// The run of a line, of which the plan has the folders.
fn run_of<'a>(plan: &Plan, log: &'a Log, line: usize) -> Result<&'a (Job, Outcome)> {
    let found = line.checked_sub(1).and_then(|line| log.all().get(line));
    let found = found.with_context(|| {
        format!(
            "there is no line {line}; the log has {} lines",
            log.all().len()
        )
    })?;
    let [model, task] = [&found.0.model, &found.0.task];
    let has_task = plan.tasks.iter().any(|folder| plan::name(folder) == *task);
    ensure!(
        plan::name(&plan.model) == *model && has_task,
        "the run of line {line} needs the model `{model}` and the task `{task}`; give folders of these \
         names with --model and --tasks"
    );
    Ok(found)
}

/// Makes a run again and compares it with the first one.
fn again(plan: &Plan, log: &Log, line: usize, threads: usize) -> Result<()> {
    let (job, first) = run_of(plan, log, line)?;
    check(plan, log)?;
    println!("{job}");
    let second = pool::one(plan, job, threads)?;
    for (name, run) in [("first", first), ("again", &second)] {
        let train = run.curve.last().map_or(f64::NAN, |point| point.train);
        println!(
            "{name}: commit {}, loss {:.6} of {} rows, training loss {train:.6}, {:?} generated answers \
             right, peak {} MiB",
            run.commit,
            run.scores.loss(),
            run.scores.losses.len(),
            run.generated,
            memory::mib(run.peak)
        );
    }
    println!(
        "largest difference of the loss of a row, of a point of the curve or of another task: {:.1e}",
        first.distance(&second)
    );
    Ok(())
}

/// Refuses a log that has runs of the plan's names with other contents, or times of another clock.
fn check(plan: &Plan, log: &Log) -> Result<()> {
    let device = train::device_name(&Device::default().autodiff());
    for (index, (job, run)) in log.all().iter().enumerate() {
        ensure!(
            !plan.has(job) || job::is_cpu(&run.device) == job::is_cpu(&device),
            "line {} of the log was made on {}, and this is {device}; times of a CPU and of a GPU cannot be \
             compared: give another --out",
            index + 1,
            run.device
        );
    }
    for task in &plan.tasks {
        let mine = Inputs::of(&plan.model, task)?;
        for (index, (job, run)) in log.all().iter().enumerate() {
            if !plan.has(job) || job.task != plan::name(task) {
                continue;
            }
            let Some(theirs) = &run.inputs else { continue };
            let of = [
                (&plan.model, "weights", &mine.weights, &theirs.weights),
                (task, "rows", &mine.rows, &theirs.rows),
            ];
            for (folder, what, mine, theirs) in of {
                ensure!(
                    mine == theirs,
                    "the {what} of `{}` are not those of line {} of the log (digests {mine} and \
                     {theirs}); give another --out, or the folder of the log's runs",
                    folder.display(),
                    index + 1
                );
            }
        }
    }
    Ok(())
}

/// The plan of these options. A report reads no folders but its own, and needs their names only.
fn planned(options: &Options) -> Result<Plan> {
    let reports = options.report.is_some();
    let (model, tasks) = if reports {
        (MODEL.into(), TASKS.map(PathBuf::from).to_vec())
    } else {
        (files::bundled("base"), vec![files::bundled("data")])
    };
    let model = options.model.clone().unwrap_or(model);
    let tasks = match options.tasks.as_slice() {
        [] => tasks,
        given => given.to_vec(),
    };
    for folder in tasks.iter().chain([&model]) {
        let is_there = reports || folder.is_dir();
        ensure!(is_there, "there is no folder `{}`", folder.display());
    }
    let mut plan = if options.quick {
        Plan::quick(model, tasks)
    } else {
        Plan::full(model, tasks)
    };
    plan.dtype = options.dtype;
    plan.seeds = options.seeds.unwrap_or(plan.seeds);
    plan.kinds.clone_from(&options.methods);
    for kind in &options.methods {
        let mut arms = plan.tasks.iter().flat_map(|task| plan.arms_of(task));
        ensure!(
            *kind == Kind::Variants || arms.any(|arm| Kind::of(arm) == Some(*kind)),
            "the study of these tasks has no `{kind}`; leave it out of --methods"
        );
    }
    if !options.purposes.is_empty() {
        plan.purposes.clone_from(&options.purposes);
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_folders_are_named_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            out: dir.path().join("out"),
            report: None,
            pages: Vec::new(),
            again: None,
            jobs: 1,
            threads: 1,
            seconds: None,
            purposes: Vec::new(),
            methods: Vec::new(),
            seeds: None,
            dtype: Dtype::F32,
            quick: true,
            model: Some("nowhere".into()),
            tasks: Vec::new(),
        };
        let error = run(&options).unwrap_err().to_string();
        assert_eq!(error, "there is no folder `nowhere`");
        let report = Options {
            report: Some(options.out.clone()),
            ..options.clone()
        };
        let error = run(&report).unwrap_err().to_string();
        assert!(error.contains("runs.jsonl`; give the folder"), "{error}");
        assert!(!options.out.exists());
    }

    #[test]
    fn a_run_is_made_again_with_its_own_model_and_task() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(&dir.path().join("runs.jsonl")).unwrap();
        let sample = Job::sample(arm::Arm::Full, 1);
        let other = Job {
            task: "gsm8k".into(),
            ..sample.clone()
        };
        for job in [sample.clone(), other] {
            log.add(job, Outcome::sample(0.5)).unwrap();
        }
        // The model of both is `base`, and the task of the first one `data`.
        let plan = |model: &str| Plan::full(model.into(), vec!["folder/data".into()]);
        let error = |model, line| run_of(&plan(model), &log, line).unwrap_err().to_string();
        assert_eq!(run_of(&plan("base"), &log, 1).unwrap().0, sample);
        assert!(error("other", 1).contains("needs the model `base` and the task `data`"));
        assert!(error("base", 2).contains("needs the model `base` and the task `gsm8k`"));
        for line in [0, 3] {
            let message = format!("there is no line {line}; the log has 2 lines");
            assert_eq!(error("base", line), message);
        }
    }

    #[test]
    fn the_pages_have_the_tables_of_the_committed_runs() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folder = root.join("docs/results/study");
        let plan = Plan::full(MODEL.into(), TASKS.map(PathBuf::from).to_vec());
        let results = Results {
            plan: &plan,
            log: &Log::read(&folder.join("runs.jsonl")).unwrap(),
        };
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
        let tables = pages::tables(&results, &pytorch::read(&folder).unwrap());
        let pages = ["README.md", "docs/study.md"].map(|page| read(root.join(page)));
        let is_current = pages
            .iter()
            .all(|page| pages::marked(page, &tables).as_ref().ok() == Some(page))
            && read(folder.join("README.md")) == report::markdown(&results);
        let command = "bench study --report docs/results/study --page README.md,docs/study.md";
        assert!(is_current, "`{command}` makes other tables");
    }

    #[test]
    fn a_report_of_runs_that_the_log_does_not_have_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(&dir.path().join("runs.jsonl")).unwrap();
        log.add(Job::sample(arm::Arm::Full, 1), Outcome::sample(0.5))
            .unwrap();
        let error = |model: &str, task: &str| {
            let plan = Plan::full(model.into(), vec![task.into()]);
            let plan = &plan;
            ensure_runs(&Results { plan, log: &log }).map_err(|error| error.to_string())
        };
        assert_eq!(error("base", "data"), Ok(()));
        let of = |model: &str, task: &str| {
            format!(
                "the log has no run of `{model}` on {task} in f32; it has `base` on `data` in f32: give \
                 --model, --tasks and --dtype of these"
            )
        };
        assert_eq!(error("base", "other"), Err(of("base", "other")));
        assert_eq!(error("smollm2", "data"), Err(of("smollm2", "data")));
    }

    #[test]
    fn other_weights_or_rows_of_the_same_names_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let [model, task] = ["base", "data"].map(|name| dir.path().join(name));
        let write = |folder: &std::path::Path, name: &str, text: &str| {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join(name), text).unwrap();
        };
        write(&model, "model.safetensors", "abc");
        write(&model, "config.json", "{}");
        write(&task, "train.jsonl", "a");
        write(&task, "heldout.jsonl", "bc");
        let inputs = Inputs::of(&model, &task).unwrap();
        // By sha256sum.
        assert_eq!(inputs.weights, "f150ef7f12b900ab");

        let mut log = Log::open(&dir.path().join("runs.jsonl")).unwrap();
        let plan = Plan::full(model.clone(), vec![task.clone()]);
        let line = Outcome {
            inputs: Some(inputs),
            ..Outcome::sample(0.5)
        };
        log.add(Job::sample(arm::Arm::Full, 1), line.clone())
            .unwrap();
        // An older line does not say.
        log.add(Job::sample(arm::Arm::Full, 2), Outcome::sample(0.5))
            .unwrap();
        check(&plan, &log).unwrap();
        write(&model, "config.json", "{\"a\": 1}");
        check(&plan, &log).unwrap();
        // A row that moves from one file to the other.
        write(&task, "train.jsonl", "ca");
        write(&task, "heldout.jsonl", "b");
        let error = check(&plan, &log).unwrap_err().to_string();
        assert!(error.starts_with("the rows of `"), "{error}");
        assert!(
            error.contains("data` are not those of line 1 of the log"),
            "{error}"
        );
        write(&model, "model.safetensors", "abd");
        let error = check(&plan, &log).unwrap_err().to_string();
        assert!(error.starts_with("the weights of `"), "{error}");

        // Runs of another dtype are another study. Those of a GPU have another clock.
        let gpu = |dtype| {
            let job = Job {
                dtype,
                ..Job::sample(arm::Arm::Full, 3)
            };
            let run = Outcome {
                device: "Cuda(0), NVIDIA H100".into(),
                ..line.clone()
            };
            (job, run)
        };
        let mut log = Log::open(&dir.path().join("gpu.jsonl")).unwrap();
        let (job, run) = gpu(Dtype::Bf16);
        log.add(job, run).unwrap();
        check(&plan, &log).unwrap();
        let (job, run) = gpu(Dtype::F32);
        log.add(job, run).unwrap();
        let error = check(&plan, &log).unwrap_err().to_string();
        assert!(
            error.starts_with("line 2 of the log was made on Cuda(0)"),
            "{error}"
        );
    }
}
