//! [`card`]: the model card, `README.md` in a saved model, in Hugging Face's form.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use lisa_lm::files::write_atomically;

use crate::model_card::{DTYPE, Found, OURS};
use crate::model_folder::id_in_cache;
use crate::run_folder::CARD;
use crate::run_folder::step_of_model;
use crate::settings::{Method, MethodSettings, Policy, names_of_data};
use crate::terminal::output::say;
use crate::terminal::text::{counted, counted_as};
use crate::train::evaluation::result::Evaluation;
use crate::train::prepare::announce::sampled;
use crate::train::prepare::job::Job;
use crate::train::saved::checkpoints::{EarlierSettings, State};

/// What a card says.
pub(crate) struct Card<'a> {
    pub(crate) job: &'a Job<'a>,
    pub(crate) state: &'a State,
    /// The step of the model.
    pub(crate) step: u64,
    /// The tokens of the steps up to it.
    pub(crate) tokens: u64,
    /// Rows of an epoch.
    pub(crate) rows: usize,
    /// Whether this is the best checkpoint, and not the last one.
    pub(crate) is_best: bool,
    /// The evaluation of this model.
    pub(crate) after: Option<&'a Evaluation>,
    /// The step and the held-out loss of a better checkpoint.
    pub(crate) best: Option<(u64, f64)>,
}

/// Writes the card into the folder of the model, or of its adapter. Says what becomes of a card that
/// is there, which the user may have changed or written.
pub(crate) fn card(card: &Card<'_>, folder: &Path, is_adapter: bool) -> Result<()> {
    let (text, path) = (card.text(is_adapter)?, folder.join(CARD));
    let shown = path.display();
    match Found::of(folder) {
        Found::Foreign => {
            say(format_args!(
                "{shown} is kept: its title is not that of a run; it may be of an earlier step"
            ))?;
            return Ok(());
        }
        Found::Ours(old) if old != text => {
            say(format_args!("{shown} is replaced, with any changes to it"))?;
        }
        Found::None | Found::Ours(_) => {}
    }
    Ok(write_atomically(&path, text.as_bytes())?)
}

impl Card<'_> {
    fn text(&self, is_adapter: bool) -> Result<String> {
        let settings = &self.job.settings;
        let (input, training) = (&settings.input, &settings.training);
        let base = base(&input.model);
        let mut text = "---\n".to_owned();
        if let Some(id) = &base.id {
            let _ = writeln!(text, "base_model: {id}");
        }
        let of_base = self.job.checkpoint.dir().join(CARD);
        let of_base = lisa_lm::files::read_small_text(&of_base);
        text += &license(&of_base.unwrap_or_default()).concat();
        let library = if is_adapter { "peft" } else { "transformers" };
        let _ = writeln!(text, "library_name: {library}");
        text += "pipeline_tag: text-generation\ntags:\n";
        let _ = writeln!(text, "- {}\n- burn", settings.method.method);
        text += "---\n\n";
        let _ = writeln!(text, "# {}{OURS}\n", base.name);
        let which = if self.is_best {
            "the checkpoint with the lowest held-out loss"
        } else {
            "the last step"
        };
        let what = if is_adapter { "adapter" } else { "model" };
        let _ = writeln!(
            text,
            "This {what} is of step {} of {}: {which}.\n",
            self.step, self.job.steps
        );
        if let (Some((step, loss)), false) = (self.best, self.is_best) {
            let _ = writeln!(
                text,
                "The checkpoint of step {step} has a lower held-out loss, {loss:.4}; its {what} is in \
                 `{what}-best`.\n"
            );
        }
        text += "| | |\n|---|---|\n";
        let method = match settings.method.method {
            Method::Lisa => lisa(&settings.method),
            Method::Full => "all parameters".to_owned(),
            Method::Lora => {
                let merged = if is_adapter {
                    "an adapter of the base model"
                } else {
                    "merged"
                };
                format!("LoRA of rank {}, {merged}", settings.method.lora_rank)
            }
        };
        // A step has no more rows than an epoch.
        let per_step = training.batch_size * training.gradient_accumulation_steps;
        let per_step = per_step.min(self.rows);
        let rows = [
            ("base model", base.name.clone()),
            ("data", data(self)),
            ("method", method),
            (DTYPE, settings.memory.dtype.to_string()),
            (
                "steps",
                format!("{} of {}", self.step, counted(per_step, "row")),
            ),
            ("learning rate", format!("{:e}", training.lr)),
            ("tokens, prompts included", self.tokens.to_string()),
        ];
        let earlier = earlier_settings(&self.state.earlier_settings);
        let earlier = earlier.map(|earlier| ("earlier settings", earlier));
        for (name, value) in rows.into_iter().chain(earlier) {
            let _ = writeln!(text, "| {name} | {} |", value.replace('|', "\\|"));
        }
        text += "\n## Scores\n\n";
        text += &self.scores();
        text += "\n## Settings\n\n";
        // Paths of this machine say nothing to others.
        if let Some(earlier) = self.state.earlier_settings.last() {
            let _ = write!(text, "The settings since step {}, as a", earlier.until);
        } else {
            text += "A";
        }
        text += " settings file of `lisa train --config`, without paths";
        for (index, flag) in settings.flags_of_paths().into_iter().enumerate() {
            let before = if index == 0 { ": add " } else { ", " };
            let _ = write!(text, "{before}`--{flag}`");
            if flag == "chat-template" {
                text += " (`chat_template.jinja` of this folder)";
            }
        }
        text += ".\n\n```toml\n";
        text += &toml::to_string(&settings.effective(self.job.contents))?;
        text += "```\n";
        Ok(text)
    }

    fn scores(&self) -> String {
        let mut text = "| | held-out loss | rows | answers |\n|---|---|---|---|\n".to_owned();
        let mut row = |name: &str, evaluation: &Evaluation| {
            let answers = evaluation.answers.map_or(String::new(), |a| a.to_string());
            let _ = writeln!(
                text,
                "| {name} | {:.4} | {} | {answers} |",
                evaluation.loss, evaluation.rows
            );
        };
        if let Some(before) = &self.state.before {
            row("before training", before);
        }
        if let Some(after) = self.after {
            row("this model", after);
            let first = self.job.evaluate.first_rows();
            if first < after.rows {
                let loss = after.first_rows_loss;
                let _ = writeln!(
                    text,
                    "| this model, rows of before | {loss:.4} | {first} | |"
                );
            }
        }
        if let (Some((_, loss)), true) = (self.best, self.is_best) {
            let rows = self.job.evaluate.rows().0;
            let _ = writeln!(text, "| this model | {loss:.4} | {rows} | |");
        }
        if self.job.evaluate.is_empty() {
            return "The model was not evaluated.\n".to_owned();
        }
        text
    }
}

/// Which layers LISA trained, and when they were sampled.
fn lisa(method: &MethodSettings) -> String {
    let (one, all) = if method.split.is_empty() {
        ("layer", "layers")
    } else {
        ("part of a layer", "parts of layers")
    };
    let active = match method.policy {
        Policy::Fixed => {
            let fixed: Vec<String> = method.fixed_layers.iter().map(usize::to_string).collect();
            format!("{all} {}", fixed.join(", "))
        }
        Policy::Budget => format!(
            "{all} with {} % of the parameters of all",
            (1000.0 * method.share).round() / 10.0
        ),
        Policy::Bernoulli => format!("each {one} independently, with its own probability"),
        Policy::Uniform | Policy::Weighted | Policy::Cyclic | Policy::Gradient => {
            let active = method.active_layers;
            counted_as(active, &format!("active {one}"), &format!("active {all}"))
        }
    };
    format!("LISA: {active}, {}", sampled(method))
}

/// The base model: its name, and its id on the hub if it is known.
struct Base {
    name: String,
    id: Option<String>,
}

fn base(model: &Path) -> Base {
    if model.as_os_str().is_empty() {
        let name = "the bundled model".to_owned();
        return Base { name, id: None };
    }
    let text = model.to_string_lossy();
    let id = id_in_cache(model).or_else(|| (!model.is_absolute()).then(|| text.to_string()));
    let name = id.clone().unwrap_or_else(|| {
        // All runs call their models alike.
        let run = model.parent().filter(|_| step_of_model(model).is_some());
        match run {
            Some(run) => format!("{}/{}", last_name(run), last_name(model)),
            None => last_name(model),
        }
    });
    Base { name, id }
}

fn last_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The training data of the steps up to the model's, in order.
fn data(card: &Card<'_>) -> String {
    let mut begin = 0;
    let mut parts = Vec::new();
    for earlier in &card.state.earlier_data {
        if begin < card.step {
            let until = earlier.until.min(card.step);
            parts.push(format!("{} until step {until}", earlier.names));
        }
        begin = earlier.until;
    }
    if begin < card.step || parts.is_empty() {
        let names = names_of_data(&card.job.settings.input.data);
        let rows = counted(card.job.data.train.len(), "row");
        parts.push(format!("{names}, {rows}"));
    }
    parts.join("; then ")
}

/// The settings that resumed runs have changed, with their values before; `None` if there are none.
fn earlier_settings(earlier: &[EarlierSettings]) -> Option<String> {
    let parts = earlier.iter().map(|earlier| {
        let values = earlier.values.iter();
        let values: Vec<String> = values.map(|(name, was)| format!("{name} {was}")).collect();
        format!("until step {}: {}", earlier.until, values.join(", "))
    });
    let parts: Vec<String> = parts.collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The lines about the licence in the model card of a base model. For the licence `other`, the hub
/// wants its name and its link.
fn license(card: &str) -> Vec<String> {
    let front = card.strip_prefix("---");
    let front = front.and_then(|rest| rest.split_once("\n---"));
    let front = front.map_or("", |(front, _)| front);
    let line = |key: &&str| {
        let mut lines = front.lines();
        let value = lines.find_map(|line| line.strip_prefix(*key)?.strip_prefix(':'))?;
        let value = value.trim();
        (!value.is_empty()).then(|| format!("{key}: {value}\n"))
    };
    let keys = ["license", "license_name", "license_link"];
    keys.iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Flags;

    #[test]
    fn the_method_of_each_policy_is_what_it_activates() {
        let of = |change: &dyn Fn(&mut MethodSettings)| {
            let mut method = Flags::default().resolve(None).unwrap().method;
            (method.active_layers, method.period) = (2, 20);
            change(&mut method);
            lisa(&method)
        };
        let anew = "sampled anew every 20 steps";
        assert_eq!(of(&|_| ()), format!("LISA: 2 active layers, {anew}"));
        let split = |method: &mut MethodSettings| method.split = vec!["attn".to_owned()];
        assert_eq!(
            of(&split),
            format!("LISA: 2 active parts of layers, {anew}")
        );
        let fixed = |method: &mut MethodSettings| {
            (method.policy, method.fixed_layers) = (Policy::Fixed, vec![0, 1, 3]);
        };
        assert_eq!(of(&fixed), "LISA: layers 0, 1, 3, always the same");
        let outer = |method: &mut MethodSettings| {
            fixed(method);
            method.outer_every = 3;
        };
        assert_eq!(
            of(&outer),
            "LISA: layers 0, 1, 3, always the same; parameters outside the layers in 1 of 3 periods of 20 \
             steps"
        );
        let budget = |method: &mut MethodSettings| {
            (method.policy, method.share) = (Policy::Budget, 0.29);
        };
        assert_eq!(
            of(&budget),
            format!("LISA: layers with 29 % of the parameters of all, {anew}")
        );
        let bernoulli = |method: &mut MethodSettings| method.policy = Policy::Bernoulli;
        assert_eq!(
            of(&bernoulli),
            format!("LISA: each layer independently, with its own probability, {anew}")
        );
    }

    #[test]
    fn the_name_and_the_link_of_a_licence_are_kept() {
        let card =
            "---\nlicense: other\nlicense_name: mine\nlicense_link: LICENSE\ntags:\n- a\n---\n";
        assert_eq!(
            license(card).concat(),
            "license: other\nlicense_name: mine\nlicense_link: LICENSE\n"
        );
        assert_eq!(license("---\nlicense: mit\n---\n"), ["license: mit\n"]);
        for none in ["", "license: mit\n", "---\nlicense:\n- mit\n---\n"] {
            assert!(license(none).is_empty(), "{none}");
        }
    }
}
