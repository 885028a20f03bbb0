//! `lisa show`: the architecture of a model, from its files except the weights.

use anyhow::Result;
use burn::tensor::Device;
use clap::Args;
use lisa::LayerMap;
use lisa::layers::Parameter;
use lisa_lm::{Checkpoint, Tokenizer};

use crate::model_folder::ModelFlags;
use crate::settings::{Dtype, ModelFacts, OUTER, default_active_layers};
use crate::terminal::output::say;
use crate::terminal::text::counted;
use crate::train::memory::like_lora::most_like_lora;
use crate::user_error::require;

/// Options of `lisa show`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    model: ModelFlags,
    /// Layers that LISA trains at a time [default: by model]
    #[arg(long, value_name = "N")]
    active_layers: Option<usize>,
}

/// Prints the model and which of its parameters LISA trains.
pub(crate) fn show(options: &Options, device: &Device) -> Result<()> {
    let folder = options.model.folder()?;
    let checkpoint = Checkpoint::open(&folder)?;
    let config = checkpoint.config();
    // Parameters are initialized lazily: nothing is allocated.
    let model = config.init(&device.clone().autodiff())?;
    let map = LayerMap::find(&model)?;
    let layers = map.layers();
    let facts = ModelFacts::of(&checkpoint, &model)?;
    let trained = trained(&map, &facts, options.active_layers)?;
    let tokenizer = Tokenizer::from_dir(&folder)?;
    let dtype = facts.dtype.unwrap_or(Dtype::F32);
    let lines = [
        ("folder", folder.display().to_string()),
        ("architecture", config.model_type().to_owned()),
        ("parameters", format!("{} in {dtype}", facts.parameters)),
        (
            "layers",
            format!(
                "{} of {} parameters, {} to {}",
                layers.len(),
                layers[0].size,
                layers[0].path,
                layers[layers.len() - 1].path
            ),
        ),
        ("positions", config.max_positions().to_string()),
        (
            "head",
            if config.is_tied() {
                "tied: it uses the weights of the embedding"
            } else {
                "a matrix of its own"
            }
            .to_owned(),
        ),
        (
            "tokenizer",
            format!(
                "{} tokens; the embedding has {} rows",
                tokenizer.vocab_size(),
                config.vocab_size()
            ),
        ),
        ("chat template", template(&tokenizer)),
        ("LISA trains", trained),
    ];
    for (name, value) in lines {
        say(format_args!("{name:<14} {value}"))?;
    }
    Ok(())
}

/// What LISA trains of a model: `active` layers, or what it trains by default.
fn trained(map: &LayerMap, facts: &ModelFacts, active: Option<usize>) -> Result<String> {
    let layers = map.layers();
    // By default: as many layers as the memory of LoRA holds, with embeddings and head frozen.
    let by_memory = active.is_none() && facts.is_of_studied_size();
    let default = if by_memory {
        most_like_lora(layers.len())
    } else {
        default_active_layers(layers.len())
    };
    let active = active.unwrap_or(default);
    require!(
        (1..=layers.len()).contains(&active),
        format!("give 1 to {}", layers.len()),
        "--active-layers is {active}, and the model has {}",
        counted(layers.len(), "layer")
    );
    let mut sizes: Vec<usize> = layers.iter().map(|layer| layer.size).collect();
    sizes.sort_unstable();
    let largest: usize = sizes.iter().rev().take(active).sum();
    let is_frozen = |path: &str| by_memory && OUTER.iter().any(|name| path.contains(name));
    let outside = map
        .outside()
        .filter(|parameter| !is_frozen(&parameter.path));
    let outside: usize = outside.map(Parameter::len).sum();
    let trainable = outside + largest;
    let (up_to, frozen) = if by_memory {
        ("up to ", ", with embeddings and head frozen")
    } else {
        ("", "")
    };
    let share = |part: usize| 100.0 * part as f64 / facts.parameters as f64;
    Ok(format!(
        "{up_to}{trainable} parameters ({:.1} %): {active} of {} layers, and {outside} outside the layers \
         ({:.1} %){frozen}",
        share(trainable),
        layers.len(),
        share(outside)
    ))
}

/// Where the chat template comes from.
fn template(tokenizer: &Tokenizer) -> String {
    let name = tokenizer.chat_template().name();
    if tokenizer.has_chat_template() {
        format!("{name} of the model")
    } else {
        format!("the model has none; `{name}` is used unless --chat-template chooses another one")
    }
}
