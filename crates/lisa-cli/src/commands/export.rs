//! `lisa export`: the model of a run, or of one of its checkpoints, as a Hugging Face folder.

use std::path::{Path, PathBuf};

use anyhow::Result;
use burn::tensor::{DType, Device, FloatDType};
use clap::{Args, ValueEnum};
use lisa_lm::checkpoint::SaveOptions;
use lisa_lm::{Checkpoint, Tokenizer};

use super::export_adapter::{self, Exported, card_file, read};
use crate::model_card::{Found, card_of, converted};
use crate::output_folder::{self, OTHER_DISK};
use crate::run_folder::{self, CARD};
use crate::settings::{Dtype, Flags, Method};
use crate::terminal::output::say;
use crate::terminal::progress::Slow;
use crate::train::method::layerwise_model::host;
use crate::train::method::trainer::prepared;
use crate::train::saved::checkpoints::{self, State};
use crate::train::saved::fingerprint::Fingerprint;
use crate::train::saved::moved;
use crate::user_error::{UserError, require};

/// Options of `lisa export`.
#[derive(Args, Debug)]
pub struct Options {
    /// Output folder of a run, or folder of an adapter
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Step of a checkpoint or of the model [default: the newest]
    #[arg(long, value_name = "STEP")]
    step: Option<u64>,
    /// Dtype of the weights [default: that of the run, else of the base]
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Merge the adapter of LoRA into the weights [default: write it alone]
    #[arg(long)]
    merge: bool,
    /// Base model of an adapter or a checkpoint [default: the one it names]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Export although the base model or folder has changed
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    allow_changed: Vec<Changed>,
    /// Replace the model in the output folder
    #[arg(long)]
    overwrite: bool,
}

/// What may have changed since the run began.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Changed {
    /// The base model, its tokenizer or its chat template
    Model,
    /// The place of the run's folder, so that its settings may name another model
    Paths,
}

/// Writes the folder.
pub(crate) fn export(options: &Options, device: &Device) -> Result<()> {
    let out = &options.out;
    require!(
        options.run.is_dir(),
        "give the output folder of `lisa train`, or the folder of an adapter",
        "there is no folder `{}`",
        options.run.display()
    );
    let has = |name: &str| out.join(name).exists();
    let found = match (has("config.json"), has("adapter_config.json")) {
        (true, _) => Some("a model"),
        (false, true) => Some("an adapter"),
        (false, false) => None,
    };
    require!(
        options.overwrite || found.is_none(),
        "give another folder, or add --overwrite",
        "`{}` contains {} already",
        out.display(),
        found.unwrap_or_default()
    );
    // An export that was killed has left a part of a model.
    let is_ours = found.is_some() || out.join(run_folder::SAVING).exists();
    output_folder::require_ours(out, is_ours, "a model")?;
    let _made = output_folder::make(out)?;
    let mut exported = if export_adapter::is_adapter(&options.run) {
        require!(
            options.merge,
            "add --merge, which merges it into its base model",
            "`{}` is an adapter already",
            options.run.display()
        );
        require!(
            options.step.is_none(),
            "leave --step out",
            "--step is for runs, and `{}` is an adapter",
            options.run.display()
        );
        require!(
            options.allow_changed.is_empty(),
            "leave --allow-changed out",
            "--allow-changed is for runs, and `{}` is an adapter",
            options.run.display()
        );
        let is_asked = options.dtype.is_some();
        export_adapter::load(&options.run, options.model.as_deref(), is_asked, device)?
    } else {
        load(options, device)?
    };
    require_other(out, &exported.source, &options.run)?;
    let name = exported.name.clone();
    let old_card = Found::of(out);
    if old_card == Found::Foreign {
        exported.card = None;
    }
    let writes_card = exported.card.is_some();
    if exported.model.lora().is_some() && !options.merge {
        require!(
            options.dtype.is_none(),
            "leave --dtype out, or add --merge",
            "--dtype has no effect on an adapter, which is f32"
        );
        export_adapter::write(&exported, out)?;
    } else {
        write(options, exported)?;
    }
    say(format_args!(
        "{name} of {} is in {}",
        options.run.display(),
        out.display()
    ))?;
    settle_card(&out.join(CARD), &old_card, writes_card)
}

/// Removes the card of an earlier export, which is of another model, if there is no new one. Says what became
/// of a card that was in the folder.
fn settle_card(card: &Path, old: &Found, is_written: bool) -> Result<()> {
    let shown = card.display();
    let is_other =
        |old: &String| lisa_lm::files::read_small_text(card).is_ok_and(|written| written != *old);
    match old {
        Found::Foreign => say(format_args!("{shown} is kept: it is not of an export"))?,
        Found::Ours(_) if !is_written => {
            output_folder::remove(card)?;
            say(format_args!(
                "{shown} of an earlier export is removed: this model has no card"
            ))?;
        }
        Found::Ours(old) if is_other(old) => say(format_args!(
            "{shown} of an earlier export is replaced, with any changes to it"
        ))?,
        Found::None | Found::Ours(_) => {}
    }
    Ok(())
}

/// Writes the model, into which its adapters are merged.
fn write(options: &Options, exported: Exported) -> Result<()> {
    let mut model = exported.model;
    let asked = options.dtype.map(FloatDType::from);
    let asked = asked.filter(|asked| DType::from(*asked) != model.dtype());
    if asked.is_some() && model.lora().is_some() {
        // Before adapters are added, so that the sum is rounded to the asked dtype only.
        model = model.cast(FloatDType::F32);
    }
    model = model.merge_lora();
    if let Some(asked) = asked {
        model = model.cast(asked);
    }
    let card = match (exported.card, options.dtype) {
        (Some(card), Some(dtype)) if asked.is_some() => Some(converted(&card, dtype)),
        (card, _) => card,
    };
    let mut files = exported.files;
    files.extend(card_file(card.as_deref()));
    let bytes = (model.num_parameters() * model.dtype().size()) as u64;
    output_folder::require_room(&options.out, bytes, OTHER_DISK)?;
    let save = SaveOptions {
        source: Some(&exported.source),
        files: &files,
        ..SaveOptions::default()
    };
    let slow = Slow::bytes("writing the model");
    let progress = move |done, all| slow.set(done, all);
    Ok(lisa_lm::checkpoint::save_with(
        &model,
        &options.out,
        &save,
        progress,
    )?)
}

/// Returns an error if the output folder is a model that is read, or one of the run.
fn require_other(out: &Path, source: &Checkpoint, run: &Path) -> Result<()> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let of_run = run_folder::MODELS.map(|name| run.join(name));
    let mut models = of_run
        .iter()
        .map(PathBuf::as_path)
        .chain([source.dir(), run]);
    require!(
        models.all(|model| real(model) != real(out)),
        "give another folder with --out",
        "`{}` is the base model or a model of the run",
        out.display()
    );
    Ok(())
}

/// The model of a run, with its adapters if those are asked for. It is in host memory, unless adapters
/// are to be merged: that is computed where the run does it, so that the weights are the same.
fn load(options: &Options, device: &Device) -> Result<Exported> {
    let (run, step) = (&options.run, options.step);
    let home = host(device).inner();
    let saved = checkpoints::list(run)?;
    let newest = saved.last().map(|(step, _)| *step);
    let is_lora = run.join("adapter").is_dir();
    // The finished model is merged.
    let finished = run_folder::step_of(run, "model").filter(|_| options.merge || !is_lora);
    if finished.is_some() && (step == finished || step.is_none() && finished >= newest) {
        require_lora(options, is_lora)?;
        require!(
            options.model.is_none() && options.allow_changed.is_empty(),
            "leave --model and --allow-changed out",
            "the finished model in `{}` needs no base model",
            run.display()
        );
        let source = Checkpoint::open(run.join("model"))?;
        let model = read(&source, None, &home)?;
        return Ok(Exported {
            source,
            model,
            files: Vec::new(),
            settings: None,
            card: finished.and_then(|step| card_of(run, &["model"], step)),
            name: "the finished model".to_owned(),
        });
    }
    let found = saved
        .iter()
        .find(|(saved, _)| Some(*saved) == step.or(newest));
    let Some((step, path)) = found else {
        let steps: Vec<String> = saved.iter().map(|(step, _)| step.to_string()).collect();
        let help = match checkpoints::run_above(run) {
            _ if !steps.is_empty() => {
                format!("there are checkpoints of steps {}", steps.join(", "))
            }
            Some((run, _)) => format!(
                "give the folder of the run, `{}`, and a step with --step",
                run.display()
            ),
            None => "give the output folder of `lisa train`".to_owned(),
        };
        let message = match step {
            Some(step) => format!("`{}` has no checkpoint of step {step}", run.display()),
            None => format!(
                "`{}` has no checkpoint and no finished model",
                run.display()
            ),
        };
        return Err(UserError::new(message).with_help(help).into());
    };
    let State {
        settings,
        text,
        fingerprint,
        ..
    } = checkpoints::state(path)?;
    let settings = with_base(options, settings)?.resolve(None)?;
    require_lora(options, settings.method.method == Method::Lora)?;
    let source = Checkpoint::open(settings.input.folder()?)?;
    let tokenizer = text.restore(Tokenizer::from_dir(source.dir())?)?;
    let changes = Fingerprint::of_model(&source, &tokenizer)?.changes_of_model(&fingerprint);
    require!(
        changes.is_empty() || options.allow_changed.contains(&Changed::Model),
        "give the model that the run began with by --model; to export with what there is now, add \
         --allow-changed model",
        "since the run began, this has changed in `{}`: {}",
        source.dir().display(),
        changes.join(", ")
    );
    let model = if settings.method.method == Method::Lora {
        let device = if options.merge { device } else { &home };
        let mut model = read(&source, Some(settings.memory.dtype.into()), device)?;
        if text.vocab_size > 0 {
            model = model.resize_embeddings(text.vocab_size)?;
        }
        prepared(&settings, model)?
    } else {
        // The checkpoint has all weights: those of the base model are not read, and these are lazy.
        let mut config = source.config().clone();
        if text.vocab_size > 0 {
            config = config.with_vocab_size(text.vocab_size);
        }
        config.init(&home)?
    };
    let written: &[&str] = if settings.method.method == Method::Lora && !options.merge {
        &["adapter", "adapter-best"]
    } else {
        &["model", "model-best"]
    };
    Ok(Exported {
        model: checkpoints::weights(path, model)?,
        card: card_of(run, written, *step),
        source,
        files: tokenizer.changed_files()?,
        settings: Some(settings),
        name: format!("step {step}"),
    })
}

/// The settings of a checkpoint with the base model of `--model`. Returns an error if the folder of the
/// run was moved, and would read a model of the place where it was made.
fn with_base(options: &Options, mut settings: Flags) -> Result<Flags> {
    let (mut given, mut of_run) = (Flags::default(), Flags::default());
    given.input.model.clone_from(&options.model);
    of_run.input.model.clone_from(&settings.input.model);
    of_run.output.out.clone_from(&settings.output.out);
    let allowed = options.allow_changed.contains(&Changed::Paths);
    moved::check(&options.run, &of_run, &given, allowed)?;
    if options.model.is_some() {
        settings.input.model = given.input.model;
        settings.input.revision = None;
    }
    Ok(settings)
}

/// Returns an error if adapters are to be merged, and the run has none.
fn require_lora(options: &Options, is_lora: bool) -> Result<()> {
    require!(
        is_lora || !options.merge,
        "leave --merge out",
        "--merge has no effect: the run in `{}` has no adapter",
        options.run.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::bundled;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn exported(line: &[&Path]) -> Result<()> {
        let line = [&[Path::new("export")], line].concat();
        export(&Line::try_parse_from(line)?.options, &Device::flex())
    }

    /// The folder of a finished run.
    fn run() -> tempfile::TempDir {
        let run = tempfile::tempdir().unwrap();
        let model = run.path().join("model");
        std::fs::create_dir(&model).unwrap();
        for entry in std::fs::read_dir(bundled::model().unwrap()).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, model.join(path.file_name().unwrap())).unwrap();
        }
        std::fs::write(model.join(run_folder::STEP), r#"{"step": 3}"#).unwrap();
        run
    }

    #[test]
    fn the_room_on_the_disk_is_checked_before_the_model_is_written() {
        let run = run();
        let out = run.path().join("copy");
        let line = [run.path(), Path::new("--out"), &out];
        // The bundled model has 3 MB.
        output_folder::FREE.set(Some(2_900_000));
        let error = exported(&line).unwrap_err().to_string();
        assert!(error.contains("about 3 MiB are needed"), "{error}");
        assert!(!out.join("config.json").exists());
        // What a killed export has left does not matter.
        std::fs::create_dir_all(out.join(run_folder::SAVING)).unwrap();
        output_folder::FREE.set(Some(3_100_000));
        exported(&line).unwrap();
        output_folder::FREE.set(None);
        assert!(out.join("config.json").is_file());
    }

    #[test]
    fn a_model_does_not_replace_the_one_that_is_read() {
        let run = run();
        let model = run.path().join("model");
        let line = [
            run.path(),
            Path::new("--overwrite"),
            Path::new("--out"),
            &model,
        ];
        let error = exported(&line).unwrap_err().to_string();
        assert!(error.contains("or a model of the run"), "{error}");
    }
}
