//! `lisa export`: the model of a run, or of one of its checkpoints, as a Hugging Face folder.

use std::path::{Path, PathBuf};

use anyhow::Result;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Tensor};
use clap::Args;
use lisa_lm::checkpoint::SaveOptions;
use lisa_lm::{CausalLm, Checkpoint, Tokenizer};

use crate::output_folder;
use crate::settings::Dtype;
use crate::terminal::output::say;
use crate::terminal::progress::Slow;
use crate::train::checkpoints::{self, State};
use crate::train::finished_step;
use crate::train::method::prepared;
use crate::user_error::{UserError, require};

/// Options of `lisa export`.
#[derive(Args, Debug)]
pub struct Options {
    /// Output folder of a run
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
    /// Replace the model in the output folder
    #[arg(long)]
    overwrite: bool,
}

/// Writes the folder. Adapters of LoRA are merged into the weights.
pub fn export(options: &Options, device: &Device) -> Result<()> {
    let out = &options.out;
    require!(
        options.overwrite || !out.join("config.json").exists(),
        "give another folder, or add --overwrite",
        "`{}` contains a model already",
        out.display()
    );
    output_folder::require_ours(out, out.join("config.json").exists(), "a model")?;
    output_folder::make(out)?;
    let (source, model, files, name) = load(&options.run, options.step, device)?;
    let model = match options.dtype {
        Some(dtype) => model.map(&mut Cast(dtype.into())),
        None => model,
    };
    let save = SaveOptions {
        source: Some(&source),
        files: &files,
        ..SaveOptions::default()
    };
    let slow = Slow::bytes("writing the model");
    lisa_lm::checkpoint::save_with(&model, out, &save, move |done, all| slow.set(done, all))?;
    say(format_args!(
        "{name} of {} is in {}",
        options.run.display(),
        out.display()
    ))?;
    Ok(())
}

/// The files of a tokenizer that differ from those of its folder.
type Files = Vec<(String, Vec<u8>)>;

/// The model, the folder with its tokenizer, the files that differ, and its name for the user.
fn load(
    run: &Path,
    step: Option<u64>,
    device: &Device,
) -> Result<(Checkpoint, CausalLm, Files, String)> {
    let saved = checkpoints::list(run)?;
    let newest = saved.last().map(|(step, _)| *step);
    let finished = finished_step(run);
    if finished.is_some() && (step == finished || step.is_none() && finished >= newest) {
        let source = Checkpoint::open(run.join("model"))?;
        let model = read(&source, None, device)?;
        return Ok((source, model, Files::new(), "the finished model".to_owned()));
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
    let source = Checkpoint::open(settings.input.folder()?)?;
    let mut model = read(&source, Some(settings.memory.dtype.into()), device)?;
    if text.vocab_size > 0 {
        model = model.resize_embeddings(text.vocab_size)?;
    }
    let tokenizer = text.restore(Tokenizer::from_dir(source.dir())?)?;
    model = checkpoints::weights(path, prepared(&settings, model)?)?.merge_lora();
    Ok((
        source,
        model,
        tokenizer.changed_files()?,
        format!("step {step}"),
    ))
}

fn read(source: &Checkpoint, dtype: Option<FloatDType>, device: &Device) -> Result<CausalLm> {
    let slow = Slow::bytes("reading the weights");
    Ok(source.load_with(device, dtype, move |done, all| slow.set(done, all))?)
}

/// Casts every parameter.
struct Cast(FloatDType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        parameter.map(|tensor| tensor.cast(self.0))
    }
}
