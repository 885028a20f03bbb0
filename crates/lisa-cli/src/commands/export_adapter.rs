//! What `lisa export` reads and writes of adapters in PEFT's format.

use std::path::Path;

use anyhow::Result;
use burn::tensor::{Device, FloatDType};
use clap::ValueEnum;
use lisa_lm::checkpoint::Adapter;
use lisa_lm::{CausalLm, Checkpoint};

use crate::bundled;
use crate::model_folder::{self, model_folder};
use crate::model_tokenizer::model_tokenizer;
use crate::output_folder::{self, OTHER_DISK};
use crate::run_folder::{self, CARD};
use crate::settings::{Dtype, Settings};
use crate::terminal::progress::Slow;
use crate::train::saved::adapter;
use crate::user_error::{UserError, require};

/// What is exported.
pub(super) struct Exported {
    /// The folder with the tokenizer.
    pub(super) source: Checkpoint,
    /// The model, perhaps with adapters.
    pub(super) model: CausalLm,
    /// The files of the tokenizer that differ from those of the folder.
    pub(super) files: Vec<(String, Vec<u8>)>,
    /// The settings of the run, if the model is of a checkpoint.
    pub(super) settings: Option<Settings>,
    /// The text of the model card that the run wrote for this model.
    pub(super) card: Option<String>,
    /// Its name for the user.
    pub(super) name: String,
}

/// Whether this is the folder of an adapter.
pub(super) fn is_adapter(folder: &Path) -> bool {
    folder.join("adapter_config.json").is_file()
}

/// The adapter of a folder on its base model: `base`, or the one that it names. The model is in the dtype of
/// the run that wrote the adapter, or as the base is stored if that is not known or if another one `is_asked`.
pub(super) fn load(
    folder: &Path,
    base: Option<&Path>,
    is_asked: bool,
    device: &Device,
) -> Result<Exported> {
    let adapter = Adapter::open(folder)?;
    let named = adapter.base().map(Path::new).map(|base| {
        if bundled::is_elsewhere(base) {
            return (Path::new(""), "");
        }
        let is_local = model_folder::is_path(base);
        let revision = adapter.revision().filter(|_| !is_local);
        (base, revision.unwrap_or_default())
    });
    let Some((base, revision)) = base.map(|base| (base, "")).or(named) else {
        let message = format!("the adapter in `{}` names no base model", folder.display());
        return Err(UserError::new(message)
            .with_help("give the folder of its base model with --model")
            .into());
    };
    let base_folder = model_folder(base, revision).map_err(|error| {
        UserError::new(format!(
            "the base model `{}` of the adapter in `{}` cannot be opened",
            base.display(),
            folder.display()
        ))
        .with_help("give the folder of the base model with --model")
        .with_source(error)
    })?;
    let source = Checkpoint::open(base_folder)?;
    adapter::check_base(&adapter, source.dir(), "")?;
    let tokenizer = model_tokenizer(source.dir(), folder, "")?;
    // Rows that a run has added are not trained. The tokens of the base model need no others.
    let rows = source.config().vocab_size();
    let rows = rows.max(run_folder::rows_of_run(folder));
    let added = tokenizer.added_tokens().iter();
    let mut ids = added.filter_map(|token| tokenizer.token_to_id(token));
    require!(
        ids.all(|id| (id as usize) < rows || tokenizer.only_pads(id)),
        format!(
            "give a base model with at least {} rows by --model, or merge the run that made the adapter: `lisa export RUN \
             --merge`",
            tokenizer.id_count()
        ),
        "the tokenizer of the adapter in `{}` has {} tokens, and the embedding of `{}` has {} rows",
        folder.display(),
        tokenizer.id_count(),
        source.dir().display(),
        source.config().vocab_size()
    );
    let of_run = run_folder::dtype_of_run(folder).filter(|_| !is_asked);
    let of_run = of_run.and_then(|word| Dtype::from_str(&word, false).ok());
    let model = read(&source, of_run.map(FloatDType::from), device)?;
    Ok(Exported {
        model: adapter.apply(model.resize_embeddings(rows)?)?,
        source,
        files: tokenizer.changed_files()?,
        settings: None,
        card: None,
        name: "the merged adapter".to_owned(),
    })
}

/// Writes the adapters of a checkpoint.
pub(super) fn write(exported: &Exported, out: &Path) -> Result<()> {
    let settings = exported.settings.as_ref();
    let revision = settings.map_or("", |settings| &settings.input.revision);
    let (source, mut files) = (&exported.source, exported.files.clone());
    if let Some(settings) = settings {
        let rows = exported.model.config().vocab_size();
        let about = run_folder::about(None, settings.memory.dtype, rows);
        files.push((run_folder::STEP.to_owned(), about));
    }
    files.extend(card_file(exported.card.as_deref()));
    // At most: the parameters are lazy, and nothing is allocated.
    let base = source.config().init(&exported.model.device())?;
    let adapters = exported
        .model
        .num_parameters()
        .saturating_sub(base.num_parameters());
    output_folder::require_room(out, 4 * adapters as u64, OTHER_DISK)?;
    adapter::write(&exported.model, revision, source, &files, out)
}

/// The file of a model card.
pub(super) fn card_file(card: Option<&str>) -> Option<(String, Vec<u8>)> {
    card.map(|text| (CARD.to_owned(), text.as_bytes().to_vec()))
}

/// Loads the weights.
pub(super) fn read(
    source: &Checkpoint,
    dtype: Option<FloatDType>,
    device: &Device,
) -> Result<CausalLm> {
    let slow = Slow::bytes("reading the weights");
    Ok(source.load_with(device, dtype, move |done, all| slow.set(done, all))?)
}
