//! [`card`]: the model card, `README.md` in a saved model, in Hugging Face's form.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use lisa_lm::files::write_atomically;

use crate::model_card::{CARD, DTYPE, Found, OURS};
use crate::model_folder::id_in_cache;
use crate::run_folder::step_of_model;
use crate::settings::{Method, names_of_data};
use crate::terminal::output::say;
use crate::terminal::text::counted;
use crate::train::evaluation::result::Evaluation;
use crate::train::prepare::announce::outer;
use crate::train::prepare::job::Job;
use crate::train::saved::checkpoints::State;

/// What a card says.
pub(crate) struct Card<'a> {
    pub(crate) job: &'a Job<'a>,
    pub(crate) state: &'a State,
    /// The step of the model.
    pub(crate) step: u64,
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
        if let Some(license) = license(self.job) {
            let _ = writeln!(text, "license: {license}");
        }
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
            Method::Lisa => format!(
                "LISA: {}, sampled anew every {}{}",
                counted(settings.method.active_layers, "active layer"),
                counted(settings.method.period, "step"),
                outer(&settings.method)
            ),
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
            ("tokens, prompts included", self.state.tokens.to_string()),
        ];
        for (name, value) in rows {
            let _ = writeln!(text, "| {name} | {} |", value.replace('|', "\\|"));
        }
        text += "\n## Scores\n\n";
        text += &self.scores();
        text += "\n## Settings\n\n";
        // Paths of this machine say nothing to others.
        text += "A settings file of `lisa train --config`, without paths";
        let all = settings.to_flags();
        let mut paths: Vec<&str> = all.paths().into_iter().map(|(flag, _)| flag).collect();
        if !settings.method.adapter.as_os_str().is_empty() {
            paths.push("adapter");
        }
        paths.dedup();
        for (index, flag) in paths.iter().enumerate() {
            let before = if index == 0 { ": add " } else { ", " };
            let _ = write!(text, "{before}`--{flag}`");
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

/// The licence that the card of the base model names.
fn license(job: &Job<'_>) -> Option<String> {
    let path = job.checkpoint.dir().join("README.md");
    let text = lisa_lm::files::read_small_text(&path).ok()?;
    let (front, _) = text.strip_prefix("---")?.split_once("\n---")?;
    let license = front
        .lines()
        .find_map(|line| line.strip_prefix("license:"))?;
    let license = license.trim();
    (!license.is_empty()).then(|| license.to_owned())
}
