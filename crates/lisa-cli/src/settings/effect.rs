//! Settings without effect: settings of another method, another policy, other data, or another command.

use anyhow::Result;

use super::{Dtype, Flags, Method, Pairs, Policy, Schedule, Settings};
use crate::user_error::UserError;

/// Why a setting has no effect (what it has no effect with), and what the user can do instead.
type Without = (String, String);

/// What the data has, as far as settings depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
// Each is a fact of its own.
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct Contents {
    /// Held-out rows.
    pub(crate) held_out: bool,
    /// Held-out files of their own, in a folder of `--data` or with the bundled data.
    pub(crate) held_out_files: bool,
    /// Held-out answers that generated ones are compared with.
    pub(crate) answers: bool,
    /// Pairs of prompt and completion, before they are rendered as chats.
    pub(crate) pairs: bool,
    /// Chats, before pairs are rendered as chats.
    pub(crate) chats: bool,
}

impl Flags {
    /// Refuses settings that the user gave and that have no effect.
    ///
    /// `settings` are all settings of the run.
    pub(crate) fn check_effect(&self, settings: &Settings) -> Result<()> {
        self.refuse(self.given_by_user(), |name| without(name, settings))
    }

    /// Refuses settings that the user gave and that have no effect on this data.
    pub(crate) fn check_effect_on(&self, contents: Contents, settings: &Settings) -> Result<()> {
        self.refuse(self.given_by_user(), |name| {
            without_in(name, contents, settings)
        })
    }

    /// Refuses these flags: they have no effect with a command, and would with another one. A file of
    /// settings may have them: it may be the file of a run.
    pub(crate) fn refuse_flags(&self, names: &[&str], with: &str, instead: &str) -> Result<()> {
        self.refuse(self.given_as_flags(), |name| {
            let is_one = names.contains(&name);
            is_one.then(|| (with.to_owned(), instead.to_owned()))
        })
    }

    fn refuse(&self, names: Vec<String>, without: impl Fn(&str) -> Option<Without>) -> Result<()> {
        let found = names
            .into_iter()
            .find_map(|name| Some((without(&name)?, name)));
        let Some(((with, instead), name)) = found else {
            return Ok(());
        };
        let it = self.other_name(&name);
        let it = it.map_or_else(|| "it".to_owned(), |key| format!("`{key}`"));
        // The other setting may have another name in the file, too.
        let other = instead
            .strip_prefix("leave --")
            .and_then(|rest| rest.strip_suffix(" out"));
        let instead = match other.and_then(|other| self.other_name(other)) {
            Some(key) => format!("leave `{key}` out"),
            None => instead,
        };
        let error = UserError::new(format!("--{name} has no effect with {with}"))
            .with_help(format!("leave {it} out, or {instead}"));
        Err(self.placed(error, &name).into())
    }
}

/// Why a setting has no effect with these settings; `None` if it has one, or if that depends on the data.
pub(super) fn without(name: &str, settings: &Settings) -> Option<Without> {
    use Policy::{Bernoulli, Budget, Cyclic, Fixed, Weighted};
    let (method, policy) = (settings.method.method, settings.method.policy);
    let of_method = |wanted: Method| {
        let with = format!("--method {method}");
        let instead = format!("use --method {wanted}");
        (method != wanted).then_some((with, instead))
    };
    let of_policies = |wanted: &[Policy]| {
        let names: Vec<String> = wanted.iter().map(|p| format!("--policy {p}")).collect();
        of_method(Method::Lisa).or_else(|| {
            let other = !wanted.contains(&policy);
            other.then(|| {
                (
                    format!("--policy {policy}"),
                    format!("use {}", names.join(" or ")),
                )
            })
        })
    };
    let not_of = |other: Policy, instead: &str| {
        of_method(Method::Lisa).or_else(|| {
            (policy == other).then(|| (format!("--policy {policy}"), instead.to_owned()))
        })
    };
    match name {
        "policy" | "split" | "unbiased" | "outer-every" => of_method(Method::Lisa),
        "active-layers" if policy == Budget => not_of(Budget, "give --share"),
        "active-layers" if policy == Bernoulli && !settings.method.probabilities.is_empty() => {
            of_method(Method::Lisa).or_else(|| {
                said(
                    "--probabilities, which gives the number of layers on average",
                    "leave --probabilities out",
                )
            })
        }
        // The parameters outside the layers have periods with every policy.
        "period" | "moments" | "layer-warmup" if settings.method.outer_every > 1 => {
            of_method(Method::Lisa)
        }
        "active-layers" | "period" | "moments" | "layer-warmup" => {
            not_of(Fixed, "use another policy")
        }
        "order" => of_policies(&[Cyclic]),
        "share" => of_policies(&[Budget]),
        "fixed-layers" => of_policies(&[Fixed]),
        "importance" | "probabilities" => of_policies(&[Weighted, Bernoulli]),
        "lora-rank"
        | "lora-alpha"
        | "lora-dropout"
        | "rslora"
        | "lora-target-modules"
        | "adapter"
        | "no-merge" => of_method(Method::Lora),
        "freeze" if method == Method::Lora => said(
            "--method lora, which trains adapters of the layers only",
            "use --method lisa",
        ),
        "no-master-weights" if method == Method::Lora => said(
            "--method lora, whose adapters have no master weights",
            "use --method lisa",
        ),
        "no-master-weights" if settings.memory.dtype == Dtype::F32 => said(
            "--dtype f32, which has no master weights",
            "use --dtype bf16",
        ),
        _ => of_training(name, settings).or_else(|| of_output(name, settings)),
    }
}

/// [`without`] of the settings of training.
fn of_training(name: &str, settings: &Settings) -> Option<Without> {
    let (training, method) = (&settings.training, settings.method.method);
    match name {
        "epochs" if training.steps > 0 => {
            said(&format!("--steps {}", training.steps), "leave --steps out")
        }
        "warmup-ratio" if training.warmup_steps > 0 => said(
            &format!("--warmup-steps {}", training.warmup_steps),
            "leave --warmup-steps out",
        ),
        "min-lr" | "min-lr-ratio" if training.schedule == Schedule::Constant => said(
            "--schedule constant, which does not fall",
            "use --schedule linear or cosine",
        ),
        "min-lr-ratio" if training.min_lr >= 0.0 => said(
            "--min-lr, which gives the rate itself",
            "leave --min-lr out",
        ),
        "decay-all" if method == Method::Lora => said(
            "--method lora, whose adapters are matrices, which are always decayed",
            "use --method lisa",
        ),
        "decay-all" if training.weight_decay == 0.0 => {
            said("--weight-decay 0", "give a weight decay")
        }
        _ => None,
    }
}

/// [`without`] of the settings of evaluation.
fn of_output(name: &str, settings: &Settings) -> Option<Without> {
    let output = &settings.output;
    match name {
        "eval-rows" | "eval-every" | "eval-first" | "final-eval-all" | "eval-examples"
        | "metric" | "max-new-tokens"
            if output.no_eval =>
        {
            said("--no-eval", "leave --no-eval out")
        }
        "metric" | "max-new-tokens" if output.eval_examples == 0 => {
            said("--eval-examples 0", "give the number of generated answers")
        }
        "final-eval-all" if output.eval_rows == 0 => said(
            "--eval-rows 0, which evaluates all rows",
            "give a number of --eval-rows",
        ),
        "eval-fraction" if !settings.input.eval.as_os_str().is_empty() => {
            said("--eval, which gives the held-out rows", "leave --eval out")
        }
        _ => None,
    }
}

/// `--NAME has no effect with` this; and what to do instead. The matches return an option.
#[allow(clippy::unnecessary_wraps)]
fn said(with: &str, instead: &str) -> Option<Without> {
    Some((with.to_owned(), instead.to_owned()))
}

/// With what of the data a setting has no effect; `None` if it has one.
pub(super) fn without_in(name: &str, contents: Contents, settings: &Settings) -> Option<Without> {
    let output = &settings.output;
    let is_rendered = contents.chats || contents.pairs && settings.input.pairs == Pairs::Chat;
    match name {
        "eval-fraction" if contents.held_out_files => said(
            "data that has held-out files of its own",
            "give the training files alone with --data",
        ),
        // These ask for nothing.
        "eval-every" if output.eval_every == 0 => None,
        "eval-examples" if output.eval_examples == 0 => None,
        "eval-rows" | "eval-every" | "eval-first" | "final-eval-all" | "eval-examples"
        | "metric" | "max-new-tokens"
            if !contents.held_out =>
        {
            said(
                "data without held-out rows",
                "hold rows out with --eval or --eval-fraction",
            )
        }
        "metric" | "max-new-tokens" | "eval-examples" if !contents.answers => said(
            "held-out data without answers",
            "give data with answers, such as prompt and completion",
        ),
        "pairs" if !contents.pairs => said(
            "data without pairs of prompt and completion",
            "give such data",
        ),
        "chat-template" | "turns" if !is_rendered && contents.pairs => said(
            "data without chats",
            "render the pairs of prompt and completion as chats with --pairs chat",
        ),
        "chat-template" | "turns" if !is_rendered => said("data without chats", "give chats"),
        "empty-answers" if settings.input.loss_on_all && is_rendered => said(
            "--loss-on-all, which trains on all tokens of a chat",
            "leave --loss-on-all out",
        ),
        "empty-answers" | "loss-on-all" if !contents.pairs && !contents.chats => said(
            "plain text, all of which is trained on",
            "give data with answers, such as prompt and completion",
        ),
        _ => None,
    }
}
