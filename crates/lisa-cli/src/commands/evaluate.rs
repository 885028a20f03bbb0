//! `lisa evaluate`: the loss of a model on data, and generated answers. Tests: `tests/run/evaluate.rs`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use burn::tensor::{Device, FloatDType};
use clap::Args;
use lisa_lm::{CausalLm, Checkpoint, Tokenizer};

use crate::model_tokenizer::model_tokenizer;
use crate::settings::{
    Dtype, Facts, Flags, InputFlags, MemoryFlags, MethodFlags, Metric, ModelFacts, Origin,
    OutputFlags, Settings, TrainingFlags,
};
use crate::terminal::output::{say, warn};
use crate::terminal::progress::Slow;
use crate::terminal::text::counted;
use crate::train::data::examples::For;
use crate::train::data::read::read;
use crate::train::data::rows::Data;
use crate::train::evaluation::evaluate::{Evaluate, Extent, With};
use crate::train::evaluation::result::Evaluation;
use crate::train::evaluation::watched::watched;
use crate::train::method::layerwise_model::LayerwiseModel;
use crate::train::prepare::job::supports;
use crate::train::saved::adapter::begun_with;
use crate::user_error::require;

/// Settings of the data that have no effect here: the rows of `--data` are evaluated, each for itself.
const WITHOUT_EFFECT: [&str; 3] = ["eval", "eval-fraction", "pack"];

/// Options of `lisa evaluate`.
#[derive(Args, Debug)]
#[command(
    mut_args(|arg| {
        let is_without_effect = arg.get_long().is_some_and(|name| WITHOUT_EFFECT.contains(&name));
        if is_without_effect { arg.hide(true) } else { arg }
    }),
    mut_arg("data", |arg| {
        arg.help("Files or folders; of a folder, its held-out files if it has any")
    }),
    mut_arg("max_seq_length", |arg| {
        arg.help("Longest row in tokens; longer rows are cut [default: the longest]")
    })
)]
pub struct Options {
    /// Examples to generate answers for, from the first [default: 0]
    #[arg(long, value_name = "N")]
    eval_examples: Option<usize>,
    /// Which generated answers are right [default: exact]
    #[arg(long, value_enum)]
    metric: Option<Metric>,
    /// Longest answer in tokens; 0: from the data's answers [default: 0]
    #[arg(long, value_name = "TOKENS")]
    max_new_tokens: Option<usize>,
    /// Rows of a batch [default: 4]
    #[arg(long, value_name = "ROWS")]
    batch_size: Option<usize>,
    /// Dtype of the weights [default: as stored; bundled model: f32]
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Folder of an adapter in PEFT's format to evaluate
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// TOML file of settings; flags override it
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// The model and the data, as for `lisa train`.
    #[command(flatten)]
    input: InputFlags,
}

impl Options {
    /// The settings that were given as flags.
    fn given(&self) -> Flags {
        Flags {
            input: self.input.clone(),
            method: MethodFlags {
                adapter: self.adapter.clone(),
                ..MethodFlags::default()
            },
            training: TrainingFlags {
                batch_size: self.batch_size,
                ..TrainingFlags::default()
            },
            memory: MemoryFlags {
                dtype: self.dtype,
                ..MemoryFlags::default()
            },
            output: OutputFlags {
                eval_examples: self.eval_examples,
                metric: self.metric,
                max_new_tokens: self.max_new_tokens,
                ..OutputFlags::default()
            },
            ..Flags::default()
        }
    }

    /// The settings of the command line and of the file, apart from settings of the file that would leave out
    /// rows or evaluations of them.
    fn flags(&self, given: &Flags) -> Result<Flags> {
        let mut file = Flags::default();
        if let Some(path) = &self.config {
            file = Flags::from_file(path)?;
            if given.input.data.is_none() {
                warn_of_held_out(path, &file);
            }
        }
        // The file may be of a run with another method.
        if given.method.adapter.is_some() {
            file.method = MethodFlags::default();
            file.memory.quantize = None;
        }
        let mut all_rows = Flags::default();
        all_rows.input.eval = Some(PathBuf::new());
        all_rows.input.eval_fraction = Some(0.0);
        all_rows.input.pack = Some(false);
        all_rows.output.no_eval = Some(false);
        all_rows.output.eval_rows = Some(0);
        all_rows.output.eval_first = Some(true);
        all_rows.output.final_eval_all = Some(false);
        let mut no_answers = Flags::default();
        no_answers.output.eval_examples = Some(0);
        let flags = all_rows.all_from(&Origin::Default).or(given.clone());
        let flags = flags.or(file).or(no_answers.all_from(&Origin::Default));
        let data = flags.input.data.as_ref();
        require!(
            data.is_some_and(|paths| !paths.is_empty()),
            "name the files with --data; all their rows are evaluated",
            "no data is given to evaluate the model on"
        );
        flags.with_adapter()
    }
}

/// Prints a warning if a file holds rows out: other rows are evaluated.
fn warn_of_held_out(path: &Path, file: &Flags) {
    let is_given = |path: &PathBuf| !path.as_os_str().is_empty();
    let (eval, fraction) = (file.input.eval.as_ref(), file.input.eval_fraction);
    let held_out = if eval.is_some_and(is_given) {
        "its `eval`"
    } else if fraction.is_some_and(|fraction| fraction > 0.0) {
        "the share of it that its `eval-fraction` holds out"
    } else {
        return;
    };
    warn(format_args!(
        "the `data` of {} is evaluated, not {held_out}; name other files with --data",
        path.display()
    ));
}

/// Prints a summary of the data, the loss of the model on it, and answers. Returns what is found.
pub fn evaluate(options: &Options, device: &Device) -> Result<Evaluation> {
    let given = options.given();
    given.refuse_flags(
        &WITHOUT_EFFECT,
        "`lisa evaluate`, which evaluates the rows of --data, each for itself",
        "name the rows to evaluate with --data",
    )?;
    let flags = options.flags(&given)?;
    let checkpoint = Checkpoint::open(flags.clone().resolve(None)?.input.folder()?)?;
    let (settings, data, tokenizer) = rows(&given, flags, &checkpoint, device)?;
    data.summarize_evaluated()?;
    if let Some(warning) = settings.input.half_bundled() {
        warn(warning);
    }
    let evaluate = Evaluate::new(&settings, &data, &tokenizer)?;
    let exact = LayerwiseModel::whole(&load(&settings, &checkpoint, data.vocab_size, device)?);
    let with = With {
        tokenizer: &tokenizer,
        device,
        stop: &|_| false,
    };
    let result = watched(&evaluate, &exact, Extent::Full, &with)?;
    let trained = counted(data.held_out_trained(), "trained token");
    say(format_args!("{trained}: {result:#}"))?;
    Ok(result)
}

/// Reads the data: all settings, the rows, and the tokenizer as the data needs it.
fn rows(
    given: &Flags,
    mut flags: Flags,
    checkpoint: &Checkpoint,
    device: &Device,
) -> Result<(Settings, Data, Tokenizer)> {
    let model = ModelFacts::uncounted(checkpoint)?;
    let facts = Facts {
        model: Some(&model),
        ..Facts::default()
    };
    let (settings, _) = flags.clone().resolve_with(facts)?;
    // Of the flags only: a file may have settings for a run on other data.
    given.check_effect(&settings)?;
    supports(device, settings.memory.dtype)?;
    let adapter = &settings.method.adapter;
    let tokenizer = model_tokenizer(checkpoint.dir(), adapter, &settings.input.chat_template)?;
    let most = model.positions.max(2);
    let longest = flags.input.max_seq_length.unwrap_or(most);
    let folder = std::env::temp_dir();
    let whole = read(&settings, tokenizer, longest, &folder, For::Evaluation)?;
    given.check_effect_on(whole.contents(), &settings)?;
    let longest = whole.held_out_lengths().iter().max();
    let longest = longest.copied().unwrap_or(most);
    let length = flags.input.max_seq_length;
    flags.input.max_seq_length = length.or(Some(longest.clamp(2, most)));
    let (settings, _) = flags.resolve_with(facts)?;
    let (data, tokenizer) = whole.cut(&settings, checkpoint)?;
    Ok((settings, data, tokenizer))
}

/// The model, with the adapter of the settings, if they have one.
fn load(
    settings: &Settings,
    checkpoint: &Checkpoint,
    vocab_size: usize,
    device: &Device,
) -> Result<CausalLm> {
    let slow = Slow::bytes("reading the weights");
    let dtype = Some(FloatDType::from(settings.memory.dtype));
    let progress = move |done, all| slow.set(done, all);
    let model = checkpoint.load_with(device, dtype, progress)?;
    let model = model.resize_embeddings(vocab_size)?;
    let base: (&Path, &str) = (checkpoint.dir(), &settings.input.revision);
    begun_with(&settings.method, model, base, false)
}
