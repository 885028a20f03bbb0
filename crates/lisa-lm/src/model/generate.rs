//! [`generate`]: generates text with a model, token by token, with a cache.
//!
//! Generation is greedy, or samples with a temperature from the most probable tokens (top-p).
//! The same logits give the same tokens on every platform; those of sampling also depend on the
//! seed.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use lisa::policy::DrawRng;

use crate::error::{Error, ErrorKind};
use crate::model::cache::KvCache;
use crate::model::causal_lm::CausalLm;

/// The settings of generation.
///
/// # Example
///
/// ```
/// use lisa_lm::GenerationConfig;
///
/// let greedy = GenerationConfig::default();
/// let sampled = GenerationConfig { temperature: 0.8, top_p: 0.95, seed: 1, ..greedy.clone() };
/// assert_eq!(greedy.temperature, 0.0);
/// assert_eq!(sampled.max_new_tokens, greedy.max_new_tokens);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationConfig {
    /// The largest number of new tokens.
    pub max_new_tokens: usize,
    /// The divisor of the logits before sampling. 0 takes the most probable token.
    pub temperature: f64,
    /// Samples from the smallest set of tokens whose probabilities reach this sum. With 1, it
    /// samples from all tokens.
    pub top_p: f64,
    /// The tokens that end the text.
    pub eos_ids: Vec<u32>,
    /// The seed of sampling.
    pub seed: u64,
}

impl Default for GenerationConfig {
    /// Greedy generation of at most 64 tokens, without an end-of-text token.
    fn default() -> Self {
        Self {
            max_new_tokens: 64,
            temperature: 0.0,
            top_p: 1.0,
            eos_ids: Vec::new(),
            seed: 0,
        }
    }
}

impl GenerationConfig {
    fn validate(&self) -> Result<(), Error> {
        let (found, help) = if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            let found = format!("the temperature is {}", self.temperature);
            (found, "give 0 or more")
        } else if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            let found = format!("top_p is {}", self.top_p);
            (found, "give a number above 0, at most 1")
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Config, found).with_help(help))
    }
}

/// The tokens that follow the prompt, without the prompt and without the end-of-text token.
///
/// Generation stops at an end-of-text token, after `max_new_tokens`, or at the model's last
/// position. It runs without autodiff. The prompt is read in one pass. Each new token costs a
/// forward pass of one token and a copy of the logits to the host.
///
/// # Errors
///
/// The prompt is empty or has more tokens than the model has positions, an id is outside the
/// vocabulary, the temperature is below 0 or not finite, `top_p` is outside (0, 1], or a logit is
/// NaN.
///
/// # Example
///
/// ```
/// use burn::tensor::Device;
/// use lisa_lm::{GenerationConfig, ModelConfig, generate, model::config::LlamaConfig};
///
/// let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&Device::default())?;
/// let config = GenerationConfig { max_new_tokens: 5, ..Default::default() };
/// assert_eq!(generate(&model, &[1, 2, 3], &config)?.len(), 5);
/// # Ok::<(), lisa_lm::Error>(())
/// ```
pub fn generate(
    model: &CausalLm,
    prompt: &[u32],
    config: &GenerationConfig,
) -> Result<Vec<u32>, Error> {
    generate_while(model, prompt, config, |_| true)
}

/// Like [`generate`]; before each new token, it passes the tokens so far to `go_on`, and ends if
/// `go_on` returns false.
///
/// # Errors
///
/// As [`generate`].
///
/// # Example
///
/// ```
/// use burn::tensor::Device;
/// use lisa_lm::model::{config::LlamaConfig, generate_while};
/// use lisa_lm::{GenerationConfig, ModelConfig};
///
/// let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&Device::default())?;
/// let config = GenerationConfig::default();
/// let tokens = generate_while(&model, &[1, 2, 3], &config, |so_far| so_far.len() < 2)?;
/// assert_eq!(tokens.len(), 2);
/// # Ok::<(), lisa_lm::Error>(())
/// ```
pub fn generate_while(
    model: &CausalLm,
    prompt: &[u32],
    config: &GenerationConfig,
    mut go_on: impl FnMut(&[u32]) -> bool,
) -> Result<Vec<u32>, Error> {
    config.validate()?;
    check_prompt(model, prompt)?;
    let model = model.valid();
    let device = model.device();
    let room = model.config().max_positions() - prompt.len();
    let mut random = DrawRng::new(config.seed, 0);
    let mut cache = KvCache::new(model.num_layers());
    let mut generated = Vec::new();
    let mut next = row(prompt, &device);
    while generated.len() < config.max_new_tokens && go_on(&generated) {
        let logits = model.read(next, &mut cache).into_data();
        let logits: Vec<f32> = logits.iter::<f32>().collect();
        let token = choose(&logits, config, &mut random)?;
        if config.eos_ids.contains(&token) {
            break;
        }
        generated.push(token);
        if generated.len() > room {
            break;
        }
        next = row(&[token], &device);
    }
    Ok(generated)
}

fn check_prompt(model: &CausalLm, prompt: &[u32]) -> Result<(), Error> {
    let (vocab, limit) = (model.config().vocab_size(), model.config().max_positions());
    let found = if prompt.is_empty() {
        "the prompt is empty".to_owned()
    } else if prompt.len() > limit {
        format!(
            "the prompt has {} tokens, the model has {limit} positions",
            prompt.len()
        )
    } else if let Some(id) = prompt.iter().find(|id| **id as usize >= vocab) {
        let message = format!("the prompt has token {id}, the model's vocabulary has {vocab}");
        return Err(Error::new(ErrorKind::Model, message).with_help(
            "use the tokenizer of this model: the files of the folder may be of two models",
        ));
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Model, found))
}

fn row(ids: &[u32], device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
    let count = ids.len();
    Tensor::<1, Int>::from_data(ids.as_slice(), device).reshape([1, count])
}

/// The most probable token (the first of several with the same probability), or a sampled token.
fn choose(logits: &[f32], config: &GenerationConfig, random: &mut DrawRng) -> Result<u32, Error> {
    if logits.iter().any(|logit| logit.is_nan()) {
        return Err(
            Error::new(ErrorKind::Model, "the model's logits are NaN").with_help(
                "check the weights; if the model was trained here, lower the learning rate",
            ),
        );
    }
    if config.temperature == 0.0 {
        let larger = |a, b| if logits[b] > logits[a] { b } else { a };
        let best = (0..logits.len()).reduce(larger);
        return Ok(best.unwrap_or(0) as u32);
    }
    // With top_p 1, too: the sampled token depends on the order.
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    let largest = f64::from(order.first().map_or(0.0, |first| logits[*first]));
    // `exp` of the standard library is that of the platform, whose rounding differs.
    let weigh =
        |token: &usize| libm::exp((f64::from(logits[*token]) - largest) / config.temperature);
    let weights: Vec<f64> = order.iter().map(weigh).collect();
    let total: f64 = weights.iter().sum();
    let mut kept = 0.0;
    let mut count = 0;
    while count < weights.len() && kept < config.top_p * total {
        kept += weights[count];
        count += 1;
    }
    let mut left = random.unit() * kept;
    for (token, weight) in order.iter().zip(&weights).take(count) {
        left -= weight;
        if left < 0.0 {
            return Ok(*token as u32);
        }
    }
    Ok(order[count.saturating_sub(1)] as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::{Gpt2Config, LlamaConfig, LlamaKind, ModelConfig, RopeConfig};
    use crate::model::input::Input;

    fn models() -> [CausalLm; 3] {
        let device = Device::default().autodiff();
        device.seed(7);
        let llama = LlamaConfig {
            num_key_value_heads: 2,
            initializer_range: 0.3,
            rope: RopeConfig::new(100.0),
            ..LlamaConfig::new(48, 32, 3, 4)
        };
        let sliding = LlamaConfig {
            kind: LlamaKind::Mistral,
            sliding_window: Some(3),
            sliding_layers: vec![true; 3],
            ..llama.clone()
        };
        let gpt2 = Gpt2Config {
            initializer_range: 0.3,
            n_positions: 24,
            ..Gpt2Config::new(48, 32, 3, 4)
        };
        [
            ModelConfig::Llama(llama),
            ModelConfig::Llama(sliding),
            ModelConfig::Gpt2(gpt2),
        ]
        .map(|config| config.init(&device).unwrap())
    }

    #[test]
    fn cached_greedy_tokens_are_those_of_whole_passes() {
        for model in models() {
            let mut ids = vec![3, 1, 4, 1, 5];
            let config = GenerationConfig {
                max_new_tokens: 15,
                ..GenerationConfig::default()
            };
            let cached = generate(&model, &ids, &config).unwrap();
            let plain = model.valid();
            for (step, expected) in cached.iter().enumerate() {
                let logits = plain.forward(&Input::new(row(&ids, &plain.device())));
                let last = logits.narrow(1, ids.len() - 1, 1).into_data();
                let last: Vec<f32> = last.iter::<f32>().collect();
                let token = choose(&last, &config, &mut DrawRng::new(0, 0)).unwrap();
                assert_eq!(token, *expected, "step {step}");
                ids.push(token);
            }
            let distinct: std::collections::BTreeSet<_> = cached.iter().collect();
            assert!(distinct.len() > 1, "{cached:?}");
        }
    }

    #[test]
    fn generation_ends_at_an_end_of_text_and_at_the_last_position() {
        let [llama, _, gpt2] = models();
        let all = generate(&llama, &[1], &GenerationConfig::default()).unwrap();
        let end = all.iter().position(|id| *id != all[0]).unwrap();
        let config = GenerationConfig {
            eos_ids: vec![47, all[end]],
            ..GenerationConfig::default()
        };
        assert_eq!(generate(&llama, &[1], &config).unwrap(), all[..end]);
        // Positions 0 to 23 are read, and one token follows the last.
        let prompt = [2; 20];
        assert_eq!(
            generate(&gpt2, &prompt, &GenerationConfig::default())
                .unwrap()
                .len(),
            5
        );
    }

    #[test]
    fn samples_depend_on_the_seed_and_stay_within_top_p() {
        let [llama, ..] = models();
        let sampled = |temperature, top_p, seed| {
            let config = GenerationConfig {
                max_new_tokens: 20,
                temperature,
                top_p,
                seed,
                ..GenerationConfig::default()
            };
            generate(&llama, &[1, 2], &config).unwrap()
        };
        assert_eq!(sampled(1.0, 0.9, 3), sampled(1.0, 0.9, 3));
        assert_ne!(sampled(1.0, 1.0, 3), sampled(1.0, 1.0, 4));
        assert_eq!(sampled(1.0, 1e-9, 3), sampled(0.0, 1.0, 0));
    }

    #[test]
    fn frequencies_of_samples_are_the_probabilities() {
        let logits = [1.0f32, 3.0, 2.0, f32::NEG_INFINITY].map(f32::ln);
        let count = |top_p| {
            let config = GenerationConfig {
                temperature: 1.0,
                top_p,
                ..GenerationConfig::default()
            };
            let mut random = DrawRng::new(1, 0);
            let mut counts = [0; 4];
            for _ in 0..6000 {
                counts[choose(&logits[..3], &config, &mut random).unwrap() as usize] += 1;
            }
            counts
        };
        let all = count(1.0);
        assert!(
            (900..1100).contains(&all[0]) && (2850..3150).contains(&all[1]),
            "{all:?}"
        );
        let two = count(0.8);
        assert!(two[0] == 0 && (3450..3750).contains(&two[1]), "{two:?}");
        assert_eq!(count(0.5)[1], 6000);
    }

    #[test]
    fn invalid_prompts_and_settings_are_errors() {
        let [_, _, gpt2] = models();
        let default = GenerationConfig::default;
        let error = |prompt: &[u32], config| generate(&gpt2, prompt, &config).unwrap_err();
        assert!(error(&[], default()).message().contains("empty"));
        assert!(error(&[48], default()).message().contains("token 48"));
        assert!(
            error(&[0; 25], default())
                .message()
                .contains("24 positions")
        );
        let hot = GenerationConfig {
            temperature: f64::NAN,
            ..default()
        };
        assert!(error(&[0], hot).message().contains("temperature"));
        let none = GenerationConfig {
            top_p: 0.0,
            ..default()
        };
        assert!(error(&[0], none).message().contains("top_p"));
        assert!(choose(&[0.0, f32::NAN], &default(), &mut DrawRng::new(0, 0)).is_err());
    }

    #[test]
    fn the_help_for_a_token_without_a_row_is_about_the_tokenizer() {
        let [_, _, gpt2] = models();
        let error = generate(&gpt2, &[48], &GenerationConfig::default()).unwrap_err();
        let help = error.help().unwrap();
        assert!(
            help.starts_with("use the tokenizer of this model"),
            "{help}"
        );
    }
}
