//! [`Bad`]: a step that cannot be taken, and the error of a run that ends there.

use std::path::Path;

use super::training::Training;
use super::watch::Watch;
use crate::terminal::text::shell_word;
use crate::train::prepare::job::Job;
use crate::user_error::UserError;

/// A step whose loss or gradients are not finite.
pub(super) struct Bad {
    /// Its first batch.
    pub(super) batch: String,
    pub(super) lr: f64,
    pub(super) error: anyhow::Error,
}

/// The error of a run that ends in the middle of an update. The newest checkpoint is of the step
/// `saved`.
pub(super) fn partly_updated(out: &Path, saved: Option<u64>, bad: Bad) -> anyhow::Error {
    let Bad { batch, lr, error } = bad;
    let help = match saved {
        Some(saved) => format!(
            "continue from the checkpoint of step {saved} with a lower --lr: lisa train --resume --out \
             {} --lr RATE",
            shell_word(out)
        ),
        None => "begin again with a lower --lr".to_owned(),
    };
    UserError::new(format!(
        "training stopped at {batch}, at --lr {lr:.1e}; the weights are partly updated, so they are not \
         saved"
    ))
    .with_help(format!("{help}, or without --update-in-backward"))
    .with_source(error)
    .into()
}

/// The error of a run that ends at a bad step. The steps before it are saved, if their weights are
/// finite.
pub(super) fn ended(
    job: &Job<'_>,
    mut training: Training,
    watch: &Watch,
    bad_steps: u64,
    bad: Bad,
) -> anyhow::Error {
    let Bad { batch, lr, error } = bad;
    let (step, out) = (training.state.step, &job.settings.output.out);
    let mut message = format!("training stopped at {batch}, at --lr {lr:.1e}");
    let mut help = "give a lower --lr".to_owned();
    if job.settings.training.skip_bad_steps {
        message += &format!("; {bad_steps} steps in a row cannot be taken");
    } else if !job.settings.memory.update_in_backward {
        help += ", or skip such batches with --skip-bad-steps";
    }
    if step == 0 {
        return UserError::new(message)
            .with_help(help)
            .with_source(error)
            .into();
    }
    match training.save(job, watch) {
        Ok(()) => {
            help += &format!(
                "; the steps up to step {step} are saved: lisa train --resume --out {} continues \
                 from there",
                shell_word(out)
            );
            UserError::new(message).with_help(help).with_source(error)
        }
        // Often the reason of the first error.
        Err(unsaved) => UserError::new(format!("{message}: {error:#}")).with_source(unsaved),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partly_updated_weights_are_not_saved_and_the_checkpoint_is_named() {
        let said = |saved| {
            let bad = Bad {
                batch: "batch 3 of epoch 1".to_owned(),
                lr: 1e-3,
                error: anyhow::anyhow!("the gradient of step 3 is not finite"),
            };
            let error = partly_updated("out".as_ref(), saved, bad);
            let error = error.downcast::<UserError>().unwrap();
            (error.to_string(), error.help().unwrap().to_owned())
        };
        let (message, help) = said(Some(2));
        assert_eq!(
            message,
            "training stopped at batch 3 of epoch 1, at --lr 1.0e-3; the weights are partly updated, \
             so they are not saved"
        );
        assert_eq!(
            help,
            "continue from the checkpoint of step 2 with a lower --lr: lisa train --resume --out out \
             --lr RATE, or without --update-in-backward"
        );
        assert!(said(None).1.starts_with("begin again with a lower --lr"));
    }
}
