//! Settings without effect: those of another method, or of another policy.

use anyhow::Result;

use super::{Dtype, Flags, Method, Policy, Settings};
use crate::user_error::UserError;

impl Flags {
    /// Refuses settings that the user gave and that have no effect.
    ///
    /// `settings` are all settings of the run.
    pub fn check_effect(&self, settings: &Settings) -> Result<()> {
        for name in self.given_by_user() {
            if let Some((with, instead)) = without(&name, settings) {
                let help = format!("leave it out, or {instead}");
                let message = format!("--{name} has no effect with {with}");
                return Err(self
                    .placed(UserError::new(message).with_help(help), &name)
                    .into());
            }
        }
        Ok(())
    }
}

/// With what a setting has no effect, and what would give it one; `None` if it has an effect.
pub(super) fn without(name: &str, settings: &Settings) -> Option<(String, String)> {
    use Policy::{Bernoulli, Budget, Cyclic, Fixed, Weighted};
    let (method, policy) = (settings.method.method, settings.method.policy);
    let of_method = |wanted: Method| {
        (method != wanted).then(|| {
            (
                format!("--method {method}"),
                format!("use --method {wanted}"),
            )
        })
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
        "policy" | "split" | "unbiased" => of_method(Method::Lisa),
        "active-layers" if policy == Budget => not_of(Budget, "give --share"),
        "active-layers" if policy == Bernoulli && !settings.method.probabilities.is_empty() => {
            let with = "--probabilities, which gives the number of layers on average";
            of_method(Method::Lisa).or(Some((
                with.to_owned(),
                "leave --probabilities out".to_owned(),
            )))
        }
        "active-layers" | "period" | "moments" => not_of(Fixed, "use another policy"),
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
        "freeze" if method == Method::Lora => Some((
            "--method lora, which trains adapters of the layers only".to_owned(),
            "use --method lisa".to_owned(),
        )),
        "no-master-weights" if method == Method::Lora => Some((
            "--method lora, whose adapters have no master weights".to_owned(),
            "use --method lisa".to_owned(),
        )),
        "no-master-weights" if settings.memory.dtype == Dtype::F32 => Some((
            "--dtype f32, which has no master weights".to_owned(),
            "use --dtype bf16".to_owned(),
        )),
        "epochs" if settings.training.steps > 0 => Some((
            format!("--steps {}", settings.training.steps),
            "leave --steps out".to_owned(),
        )),
        "decay-all" if method == Method::Lora => Some((
            "--method lora, whose adapters are matrices, which are always decayed".to_owned(),
            "use --method lisa".to_owned(),
        )),
        "decay-all" if settings.training.weight_decay == 0.0 => Some((
            "--weight-decay 0".to_owned(),
            "give a weight decay".to_owned(),
        )),
        "eval-rows" | "eval-every" | "eval-first" | "final-eval-all" | "eval-examples"
        | "metric" | "max-new-tokens"
            if settings.output.no_eval =>
        {
            Some(("--no-eval".to_owned(), "leave --no-eval out".to_owned()))
        }
        "metric" if settings.output.eval_examples == 0 => Some((
            "--eval-examples 0".to_owned(),
            "give the number of generated answers".to_owned(),
        )),
        "eval-fraction" if !settings.input.eval.as_os_str().is_empty() => Some((
            "--eval, which gives the held-out rows".to_owned(),
            "leave --eval out".to_owned(),
        )),
        _ => None,
    }
}
