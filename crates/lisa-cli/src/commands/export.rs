//! `lisa export`: the model of a run, or of one of its checkpoints, as a Hugging Face folder.

use std::path::PathBuf;

use anyhow::Result;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Tensor};
use clap::Args;
use lisa_lm::checkpoint::SaveOptions;
use lisa_lm::{Checkpoint, Tokenizer};

use super::export_adapter::{self, Exported, read};
use crate::output_folder;
use crate::settings::{Dtype, Method};
use crate::terminal::output::say;
use crate::terminal::progress::Slow;
use crate::train::checkpoints::{self, State};
use crate::train::finished_step;
use crate::train::method::prepared;
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
    /// Step of a checkpoint [default: the newest of checkpoints and finished model]
    #[arg(long, value_name = "STEP")]
    step: Option<u64>,
    /// Dtype of the weights [default: that of the run]
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Merge the adapter of LoRA into the weights; without it, the adapter is written
    #[arg(long)]
    merge: bool,
    /// Base model of an adapter [default: the one that it names]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Replace the model in the output folder
    #[arg(long)]
    overwrite: bool,
}

/// Writes the folder.
pub fn export(options: &Options, device: &Device) -> Result<()> {
    let out = &options.out;
    let is_model = ["config.json", "adapter_config.json"]
        .iter()
        .any(|name| out.join(name).exists());
    require!(
        options.overwrite || !is_model,
        "give another folder, or add --overwrite",
        "`{}` contains a model already",
        out.display()
    );
    output_folder::require_ours(out, is_model, "a model")?;
    output_folder::make(out)?;
    let exported = if export_adapter::is_adapter(&options.run) {
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
        export_adapter::load(&options.run, options.model.as_deref(), device)?
    } else {
        require!(
            options.model.is_none(),
            "leave --model out: a run names its base model",
            "--model is for adapters, and `{}` is none",
            options.run.display()
        );
        load(options, device)?
    };
    if exported.model.lora().is_some() && !options.merge {
        require!(
            options.dtype.is_none(),
            "leave --dtype out, or add --merge",
            "--dtype has no effect on an adapter, which is f32"
        );
        export_adapter::write(&exported, out)?;
    } else {
        write(options, &exported)?;
    }
    say(format_args!(
        "{} of {} is in {}",
        exported.name,
        options.run.display(),
        out.display()
    ))?;
    Ok(())
}

/// Writes the model, into which its adapters are merged.
fn write(options: &Options, exported: &Exported) -> Result<()> {
    let model = exported.model.clone().merge_lora();
    let model = match options.dtype {
        Some(dtype) => model.map(&mut Cast(dtype.into())),
        None => model,
    };
    let save = SaveOptions {
        source: Some(&exported.source),
        files: &exported.files,
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

/// The model of a run, with its adapters if those are asked for.
fn load(options: &Options, device: &Device) -> Result<Exported> {
    let (run, step) = (&options.run, options.step);
    let saved = checkpoints::list(run)?;
    let newest = saved.last().map(|(step, _)| *step);
    let is_lora = run.join("adapter").is_dir();
    // The finished model is merged.
    let finished = finished_step(run)
        .filter(|_| options.merge || !is_lora)
        .filter(|_| run.join("model").is_dir());
    if finished.is_some() && (step == finished || step.is_none() && finished >= newest) {
        require_lora(options, is_lora)?;
        let source = Checkpoint::open(run.join("model"))?;
        let model = read(&source, None, device)?;
        return Ok(Exported {
            source,
            model,
            files: Vec::new(),
            settings: None,
            name: "the finished model".to_owned(),
        });
    }
    let found = saved
        .iter()
        .find(|(saved, _)| Some(*saved) == step.or(newest));
    let Some((step, path)) = found else {
        let steps: Vec<String> = saved.iter().map(|(step, _)| step.to_string()).collect();
        let help = if steps.is_empty() {
            "give the output folder of `lisa train`".to_owned()
        } else {
            format!("there are checkpoints of steps {}", steps.join(", "))
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
    let State { settings, text, .. } = checkpoints::state(path)?;
    let settings = settings.resolve(None)?;
    require_lora(options, settings.method.method == Method::Lora)?;
    let source = Checkpoint::open(settings.input.folder()?)?;
    let mut model = read(&source, Some(settings.memory.dtype.into()), device)?;
    if text.vocab_size > 0 {
        model = model.resize_embeddings(text.vocab_size)?;
    }
    let tokenizer = text.restore(Tokenizer::from_dir(source.dir())?)?;
    Ok(Exported {
        model: checkpoints::weights(path, prepared(&settings, model)?)?,
        source,
        files: tokenizer.changed_files()?,
        settings: Some(settings),
        name: format!("step {step}"),
    })
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

/// Casts every parameter.
struct Cast(FloatDType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        parameter.map(|tensor| tensor.cast(self.0))
    }
}
