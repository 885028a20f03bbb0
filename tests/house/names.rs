//! The public names at the roots of the two libraries. Other names belong in a module.

use crate::imports::Crate;
use crate::read;

fn root_names(package: &str) -> Vec<String> {
    let source = read(format!("crates/{package}/src/lib.rs"));
    Crate::public_names(&source).into_iter().collect()
}

#[test]
fn the_root_of_lisa_has_these_names() {
    let items = [
        "Description",
        "ErrorKind",
        "FreezeMask",
        "FrozenWeights",
        "LayerDescription",
        "LayerMap",
        "Lisa",
        "LisaConfig",
        "LisaError",
        "ModuleStep",
        "OnFreeze",
        "PolicyConfig",
        "StepError",
    ];
    let modules = [
        "importance",
        "layers",
        "learner",
        "memory",
        "optimizer",
        "policy",
        "recompute",
    ];
    assert_eq!(root_names("lisa"), [&items[..], &modules].concat());
}

#[test]
fn the_root_of_lisa_lm_has_these_names() {
    let items = [
        "CausalLm",
        "ChatTemplate",
        "Checkpoint",
        "Error",
        "ErrorKind",
        "GenerationConfig",
        "ModelConfig",
        "Tokenizer",
    ];
    let others = [
        "checkpoint",
        "files",
        "generate",
        "linear_cross_entropy",
        "model",
        "text",
    ];
    assert_eq!(root_names("lisa-lm"), [&items[..], &others].concat());
}
