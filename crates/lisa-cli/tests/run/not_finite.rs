//! Losses, gradients and weights that are not finite.

use std::fs;

use lisa_cli::train::run::Start;

use super::watched::checkpoints;
use super::{flags, go, message, only_out, parsed, weights_of};

/// A learning rate with which each step is infinite in f32, after a finite loss.
const INFINITE: &str = "1e60";

const IN_BACKWARD: &str = "--recompute --update-in-backward --max-grad-norm 0";

#[test]
fn weights_that_are_not_finite_are_never_saved() {
    let dir = tempfile::tempdir().unwrap();
    let methods = ["", IN_BACKWARD, "--method lora"];
    for (index, method) in methods.into_iter().enumerate() {
        let out = dir.path().join(index.to_string());
        let more = format!("--steps 1 --no-eval --lr {INFINITE} {method}");
        let error = message(flags(&out, &more), Start::Overwrite);
        for part in [
            "the weights after step 1 are not finite in ",
            " parameters, first of `",
            "begin again with a lower --lr",
        ] {
            assert!(
                error.contains(part),
                "{method}: `{part}` is not in: {error}"
            );
        }
        assert!(!out.join("checkpoints").exists() && !out.join("model").exists());

        // The good checkpoint and the model stay.
        let good = format!("--steps 2 --no-eval --save-every 1 --keep 1 {method}");
        go(flags(&out, &good), Start::Overwrite, false).unwrap();
        let model = weights_of(&out);
        let more = parsed(&format!("--steps 3 --lr {INFINITE}")).or(only_out(&out));
        let error = message(more, Start::Resume);
        assert!(error.contains("the weights after step 3"), "{error}");
        assert!(
            error.contains("the checkpoint of step 2 with a lower --lr"),
            "{error}"
        );
        assert_eq!(checkpoints(&out), ["step-00000002"], "{method}");
        assert_eq!(weights_of(&out), model, "{method}");
    }
}

#[test]
fn the_steps_before_a_bad_one_are_saved_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    // The first step is finite, the second loss is not.
    let more = "--lr 1e30 --max-grad-norm 0 --no-eval";
    let error = message(flags(&out, more), Start::Fresh);
    for part in [
        "training stopped at batch 2 of epoch 1, whose first row begins `",
        "the gradient of step 2 is not finite in ",
        "model.layers.",
        "give a lower --lr, or skip such batches with --skip-bad-steps; ",
        "the steps up to step 1 are saved: lisa train --resume --out ",
    ] {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
    assert_eq!(checkpoints(&out), ["step-00000001"]);
    assert!(!out.join("model").exists());
    // Skipped batches count, and their flag is not advised.
    let skip = parsed("--skip-bad-steps").or(only_out(&out));
    let error = message(skip, Start::Resume);
    assert!(error.contains("batch 12 of epoch 1"), "{error}");
    assert!(
        error.contains("; 11 steps in a row cannot be taken"),
        "{error}"
    );
    assert!(!error.contains("--skip-bad-steps"), "{error}");
    assert_eq!(checkpoints(&out), ["step-00000001"]);

    // Where layers are updated at once, the weights of the step before may be what is wrong.
    fs::remove_dir_all(&out).unwrap();
    let more = format!("{IN_BACKWARD} --lr {INFINITE} --no-eval");
    let error = message(flags(&out, &more), Start::Fresh);
    assert!(error.contains("training stopped at batch 2"), "{error}");
    assert!(
        error.contains("the weights after step 1 are not finite"),
        "{error}"
    );
    assert_eq!(checkpoints(&out), [""; 0]);
}
