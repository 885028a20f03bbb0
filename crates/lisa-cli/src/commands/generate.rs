//! `lisa generate`: generates text with a model.

use anyhow::Result;
use burn::tensor::{Device, FloatDType};
use clap::{ArgGroup, Args};
use lisa_lm::text::{Chat, Message, check_vocabulary};
use lisa_lm::{Checkpoint, GenerationConfig};

use crate::model_folder::ModelFlags;
use crate::model_tokenizer::model_tokenizer;
use crate::settings::Dtype;
use crate::terminal::output::{say, warn};
use crate::terminal::progress::Slow;
use crate::user_error::require;

/// Options of `lisa generate`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("text").required(true)))]
pub struct Options {
    #[command(flatten)]
    model: ModelFlags,
    /// Text that the model continues
    #[arg(long, value_name = "TEXT", group = "text")]
    prompt: Option<String>,
    /// Message of the user, rendered with the model's chat template
    #[arg(long, value_name = "TEXT", group = "text")]
    chat: Option<String>,
    /// chatml, llama3, plain, or a Jinja file [default: the model's]
    #[arg(long, value_name = "NAME|FILE")]
    chat_template: Option<String>,
    /// Longest answer in tokens
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_new_tokens: usize,
    /// Temperature; 0 takes the most probable token
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f64,
    /// Sample from the fewest tokens with this probability [default: 1]
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Seed of sampling [default: 0]
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Dtype of the weights [default: as stored; bundled model: f32]
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
}

/// Prints the generated text.
pub(crate) fn generate(options: &Options, device: &Device) -> Result<()> {
    for (name, given) in [
        ("top-p", options.top_p.is_some()),
        ("seed", options.seed.is_some()),
    ] {
        require!(
            !given || options.temperature != 0.0,
            "leave it out, or give a --temperature above 0",
            "--{name} has no effect with --temperature 0, which takes the most probable token"
        );
    }
    require!(
        options.chat.is_some() || options.chat_template.is_none(),
        "leave it out, or give the message with --chat",
        "--chat-template has no effect with --prompt, which is plain text"
    );
    require!(
        options.max_new_tokens > 0,
        "give at least 1",
        "--max-new-tokens is 0"
    );
    let folder = options.model.folder()?;
    let checkpoint = Checkpoint::open(&folder)?;
    let template = options.chat_template.as_deref().unwrap_or_default();
    let tokenizer = model_tokenizer(&folder, std::path::Path::new(""), template)?;
    let prompt = match (&options.prompt, &options.chat) {
        (_, Some(chat)) => {
            if !tokenizer.has_chat_template() {
                warn(
                    "the model has no chat template, and `plain` is used; choose another one with \
                     --chat-template",
                );
            }
            let messages = [Message::user(chat.as_str())];
            let text = tokenizer
                .chat_template()
                .render(&Chat::from(messages), true)?
                .text;
            tokenizer.encode_with_offsets(&text, false)?.ids
        }
        (prompt, None) => tokenizer.encode_prompt(prompt.as_deref().unwrap_or_default())?,
    };
    require!(
        !prompt.is_empty(),
        "give a text: the model has no token that begins a sequence",
        "--prompt is empty"
    );
    check_vocabulary(&prompt, &tokenizer, checkpoint.config().vocab_size()).map_err(|error| {
        if template.is_empty() {
            return error;
        }
        error.with_help(format!(
            "the embedding has no row for this token; if it is of the chat template {template}, \
             leave --chat-template out, or give one that the model was trained with"
        ))
    })?;
    // The bundled model is stored in half precision to be small, and a CPU is faster in f32.
    let bundled = options.model.is_bundled().then_some(Dtype::F32);
    let dtype = options.dtype.or(bundled).map(FloatDType::from);
    let slow = Slow::bytes("reading the weights");
    let model = checkpoint.load_with(device, dtype, move |done, all| slow.set(done, all))?;
    let config = GenerationConfig {
        max_new_tokens: options.max_new_tokens,
        temperature: options.temperature,
        top_p: options.top_p.unwrap_or(1.0),
        eos_ids: tokenizer.eos_ids().to_vec(),
        seed: options.seed.unwrap_or(0),
    };
    let tokens = lisa_lm::generate(&model, &prompt, &config)?;
    say(tokenizer.decode(&tokens, true)?)?;
    Ok(())
}
