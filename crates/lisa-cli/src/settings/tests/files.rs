//! Settings files as users of other tools write them.

use std::path::Path;

use super::effect::idle;
use super::{Dtype, Flags, defaults, mistake, toml};
use crate::terminal::report::report;
use crate::user_error::UserError;

/// The error of a file as the program prints it.
fn refused(text: &str, name: &str) -> String {
    let error = Flags::from_toml(text, Path::new(name)).unwrap_err();
    anstream::adapter::strip_str(&report(&error)).to_string()
}

#[test]
fn two_switches_of_a_dtype_may_be_there_if_one_is_on() {
    for (text, dtype) in [
        ("bf16 = true\nfp16 = false", Some(Dtype::Bf16)),
        ("bf16 = false\nfp16 = true", Some(Dtype::F16)),
        ("bf16 = false\nfp16 = false", None),
        ("bf16 = false\ndtype = \"f32\"", Some(Dtype::F32)),
    ] {
        assert_eq!(toml(text).unwrap().memory.dtype, dtype, "{text}");
    }
    // Other values that mean "not given".
    let flags = toml("max_steps = -1\nsteps = 5").unwrap();
    assert_eq!(flags.training.steps, Some(5));
    let (line, help, text) = mistake("bf16 = true\nfp16 = true");
    assert_eq!(
        (line, help.as_deref()),
        (Some(2), Some("leave one of them out"))
    );
    assert!(
        text.contains("`bf16` and `fp16` are the same setting"),
        "{text}"
    );
}

#[test]
fn all_unknown_keys_are_reported_at_once() {
    let found = refused(
        "lr = 0.1\nmax_step = 3\nsomething-else = 4\n\nactive-layer = 4\n",
        "run.toml",
    );
    assert_eq!(
        found,
        "error: cannot use the settings `run.toml`\n  --> run.toml:2\n  because: these are not settings: \
         `max_step` (line 2), `something-else` (line 3), `active-layer` (line 5)\n  help: did you mean \
         `max-steps` for `max_step`, `active-layers` for `active-layer`?\n    `lisa train --help` lists the \
         settings\n"
    );
    let found = refused("lrr = 0.1\n[training]\nepochs = 3\n", "run.toml");
    assert!(
        found.contains("`lrr` (line 1), `training` (line 2)"),
        "{found}"
    );
    assert!(found.contains("the settings are not in tables"), "{found}");
    // A list of tables.
    let found = refused("lr = 0.1\n[[stages]]\nepochs = 3\n", "run.toml");
    assert!(found.contains("`stages` is not a setting"), "{found}");
    assert!(found.contains("the settings are not in tables"), "{found}");
    // Before a value that cannot be used.
    let found = refused("lr = \"fast\"\nmax_step = 3", "run.toml");
    assert!(found.contains("`max_step` is not a setting"), "{found}");
}

#[test]
fn a_file_in_another_format_is_named() {
    let yaml = "this looks like YAML: write `key = value`";
    for (text, name) in [
        ("learning_rate: 1e-4\n", "run.yaml"),
        ("- 1\n", "run.yml"),
        (
            "# as in Axolotl\n\ndatasets:\n  - path: a.jsonl\n",
            "run.toml",
        ),
        ("---\nlr: 3\n", "run.toml"),
    ] {
        let found = refused(text, name);
        assert!(found.contains(yaml), "{text}: {found}");
        assert_eq!(found.matches("help: ").count(), 1, "{found}");
    }
    let found = refused("{\"lr\": 0.1}", "run.json");
    assert!(found.contains("this looks like JSON"), "{found}");
    let found = refused("lr = \n", "run.toml");
    assert!(!found.contains("looks like"), "{found}");
}

#[test]
fn the_data_sets_of_axolotl_are_explained() {
    let found = refused("lr = 1e-4\n[[datasets]]\npath = \"a.jsonl\"\n", "run.toml");
    assert!(found.contains("  --> run.toml:2\n"), "{found}");
    assert!(found.contains("`datasets` is a table"), "{found}");
    assert!(found.contains("write `data = \"FILE\"`"), "{found}");
    let found = refused("[base_model]\nname = \"a\"\n", "run.toml");
    assert!(found.contains("write `model = ..`"), "{found}");
}

#[test]
fn the_kind_of_an_adapter_is_no_folder() {
    for kind in ["lora", "qlora"] {
        let flags = toml(&format!("lr = 1e-4\nadapter = \"{kind}\"")).unwrap();
        let error = flags.with_adapter().unwrap_err();
        let found = anstream::adapter::strip_str(&report(&error)).to_string();
        assert!(
            found.contains(&format!(
                "--adapter is `{kind}`, and there is no folder `{kind}`"
            )),
            "{found}"
        );
        assert!(found.contains("  --> run.toml:2\n"), "{found}");
        assert!(found.contains("`method = \"lora\"`"), "{found}");
    }
    let error = toml("adapter = \"nowhere\"").unwrap().with_adapter();
    let found = report(&error.unwrap_err());
    assert!(found.contains("there is no folder `nowhere`"), "{found}");
}

#[test]
fn both_names_of_the_dtype_take_the_same_values() {
    for (word, dtype) in [
        ("bfloat16", Dtype::Bf16),
        ("float16", Dtype::F16),
        ("float32", Dtype::F32),
        ("fp32", Dtype::F32),
        ("fp16", Dtype::F16),
        ("bf16", Dtype::Bf16),
        ("f16", Dtype::F16),
        ("f32", Dtype::F32),
    ] {
        for name in ["dtype", "torch_dtype"] {
            let flags = toml(&format!("{name} = \"{word}\"")).unwrap();
            assert_eq!(flags.memory.dtype, Some(dtype), "{name} {word}");
        }
        let flags = super::given(&["--dtype".to_owned(), word.to_owned()]);
        assert_eq!(flags.memory.dtype, Some(dtype), "--dtype {word}");
    }
    let (_, _, text) = mistake("torch_dtype = \"auto\"");
    assert!(
        text.contains("`auto` is not one of f32, bf16, f16"),
        "{text}"
    );
}

#[test]
fn the_help_has_the_names_of_the_file() {
    let (message, help) = idle("max_steps = 9\nnum_train_epochs = 2").unwrap();
    assert_eq!(message, "--epochs has no effect with --steps 9");
    assert_eq!(
        help,
        "leave `num_train_epochs` out, or leave `max_steps` out"
    );
}

#[test]
fn a_file_may_set_every_setting() {
    let text = toml::to_string(&defaults().to_flags()).unwrap();
    assert_eq!(toml(&text).unwrap(), defaults().to_flags());
    assert!(text.lines().count() > 40);
}

#[test]
fn a_file_may_use_the_names_of_other_trainers() {
    for (other, own) in [
        ("skip-bad-lines = true", "on-bad-line = \"skip\""),
        ("num_train_epochs = 3", "epochs = 3.0"),
        ("gradient_checkpointing = true", "recompute = 1"),
        ("train_on_inputs = true", "loss-on-all = true"),
        ("assistant_only_loss = true", "loss-on-all = false"),
        ("torch_dtype = \"bfloat16\"", "dtype = \"bf16\""),
        ("lora_r = 4", "lora-rank = 4"),
        ("r = 4", "lora-rank = 4"),
        ("use_rslora = true", "rslora = true"),
        (
            "lora_target_modules = \"all-linear\"",
            "lora-target-modules = [\"all-linear\"]",
        ),
        (
            "target_modules = [\"q_proj\", \"v_proj\"]",
            "lora-target-modules = [\"q_proj\", \"v_proj\"]",
        ),
        ("lisa_interval_steps = 4", "period = 4"),
        ("max_steps = 4", "steps = 4"),
        ("min_lr = 1e-6", "min-lr = 1e-6"),
        ("min_lr_rate = 0.2", "min-lr-ratio = 0.2"),
    ] {
        assert_eq!(toml(other).unwrap(), toml(own).unwrap(), "{other}");
        assert_ne!(toml(other).unwrap(), Flags::default(), "{other}");
    }
    // What other trainers write for "not given".
    for other in ["max_steps = -1", "bf16 = false"] {
        assert_eq!(toml(other).unwrap(), Flags::default(), "{other}");
    }
    let (line, help, text) = mistake("lr = 0.1\n# as in transformers\nlearning_rate = 0.1\n");
    assert_eq!(
        (line, help.as_deref()),
        (Some(3), Some("leave one of them out"))
    );
    assert!(
        text.contains("`lr` and `learning_rate` are the same setting"),
        "{text}"
    );
    let (_, _, text) = mistake("gradient_checkpointing = \"unsloth\"");
    assert!(
        text.contains("`gradient_checkpointing` is true or false"),
        "{text}"
    );
    let (_, help, _) = mistake("max_step = 3");
    assert_eq!(help.unwrap(), "did you mean `max-steps`?");
}

const UNQUOTED: &str = "the value is missing, or is a text without quotes";
const QUOTE: &str = "put a text in double quotes; a switch is true or false";
const POINT: &str = "the value begins with `.`";
const DIGIT: &str = "put a text in double quotes; a number has a digit before the point: 0.5";
const BACKSLASH: &str = "a text in double quotes has a `\\` that begins no escape";
const SINGLE: &str = "put a path with `\\` in single quotes, such as 'C:\\models'";

#[test]
fn a_mistake_in_a_file_is_reported_with_its_line() {
    let (line, help, text) = mistake("lr = 0.1\n\nactive-layer = 4\n");
    assert_eq!(line, Some(3));
    assert_eq!(help.unwrap(), "did you mean `active-layers`?");
    assert!(text.contains("`active-layer` is not a setting"), "{text}");
    let (_, help, _) = mistake("stpes = 4");
    assert_eq!(help.unwrap(), "did you mean `steps`?");
    let (_, help, _) = mistake("something-else = 4");
    assert!(help.unwrap().contains("lisa train --help"));

    let (line, _, text) = mistake("lr = 0.1\n\nperiod = \"ten\"\n");
    assert_eq!(line, Some(3));
    assert!(text.contains("invalid type: string \"ten\""), "{text}");
    let (_, _, text) = mistake("steps = -1");
    assert!(
        text.contains("integer `-1`, expected a whole number, 0 or more"),
        "{text}"
    );
    for (text, message, wanted) in [
        (
            "method = \"lissa\"",
            "`lissa` is not one of lisa, full, lora",
            "did you mean `lisa`?",
        ),
        (
            "dtype = \"float8\"",
            "`float8` is not one of f32, bf16, f16",
            "give one of f32, bf16, f16",
        ),
        ("lr = ", UNQUOTED, QUOTE),
        // A text may begin as a number or a switch does.
        ("quantize = none", UNQUOTED, QUOTE),
        ("quantize = int4", UNQUOTED, QUOTE),
        ("model = nothing", UNQUOTED, QUOTE),
        ("dtype = f32", UNQUOTED, QUOTE),
        ("pack = True", UNQUOTED, QUOTE),
        ("out = ../runs", POINT, DIGIT),
        ("lr = .5", POINT, DIGIT),
        ("model = \"C:\\models\"", BACKSLASH, SINGLE),
        ("model = \"C:\\Users\\me\"", BACKSLASH, SINGLE),
        (
            "seed = 1\nseed = 2",
            "duplicate key",
            "leave one of them out",
        ),
        (
            "pack = \"yes\"",
            "string \"yes\", expected true or false",
            "`lisa train --help` lists the settings and their values",
        ),
    ] {
        let error = toml(text).unwrap_err();
        let source = std::error::Error::source(error.downcast_ref::<UserError>().unwrap());
        let source = source.unwrap().downcast_ref::<UserError>().unwrap();
        assert!(source.to_string().contains(message), "{text}: {source}");
        assert_eq!(source.help(), Some(wanted), "{text}");
    }
    // The first mistake of the file, not that of the first key in the alphabet.
    let (line, _, text) = mistake("zeal = 1\n\nahead = 2\n");
    assert_eq!(line, Some(1));
    assert!(text.contains("`zeal`"), "{text}");
    let (line, _, _) = mistake("probabilities = [\n  0.5,\n  \"half\",\n]\n");
    assert_eq!(line, Some(3));
    let (line, help, _) = mistake("lr = 0.1\n[training]\nepochs = 3\n");
    assert_eq!(line, Some(2));
    assert!(help.unwrap().contains("not in tables"));
    let (line, _, _) = mistake("lr = 0.1\nperiod =\n");
    assert_eq!(line, Some(2));
}

#[test]
fn a_file_may_have_values_as_flags_have_them() {
    for (text, own) in [
        (
            "lora_target = \"q_proj,v_proj\"",
            "lora-target-modules = [\"q_proj\", \"v_proj\"]",
        ),
        (
            "dataset = \"a.json, b.json\"",
            "data = [\"a.json\", \"b.json\"]",
        ),
        (
            "freeze = \"embed_tokens,lm_head\"",
            "freeze = [\"embed_tokens\", \"lm_head\"]",
        ),
        ("freeze = \"\"", "freeze = []"),
        ("split = \"attn\"", "split = [\"attn\"]"),
        ("memory = \"8GiB\"", "memory = 8.0"),
        ("memory = 8", "memory = 8.0"),
        (
            "columns = [\"instruction=prompt\", \"a=b\"]",
            "columns = \"instruction=prompt,a=b\"",
        ),
        ("recompute = true", "recompute = 1"),
        ("recompute = false", "recompute = 0"),
    ] {
        assert_eq!(toml(text).unwrap(), toml(own).unwrap(), "{text}");
        assert_ne!(toml(text).unwrap(), Flags::default(), "{text}");
    }
    for (text, part) in [
        ("memory = \"much\"", "`memory` is \"much\": give the memory"),
        ("memory = true", "expected a number of GiB, or a text"),
        (
            "recompute = -1",
            "expected true, false, or a whole number, 0 or more",
        ),
        (
            "columns = [\"a\"]",
            "`a` in the columns `a` is not KEY=NAME",
        ),
        (
            "model = [\"a\"]",
            "invalid type: a list, expected path string",
        ),
        ("probabilities = 0.5", "expected a list"),
    ] {
        let (line, _, found) = mistake(text);
        assert_eq!(line, Some(1), "{found}");
        assert!(found.contains(part), "{found}");
    }
}

#[test]
fn a_file_whose_name_has_a_comma_is_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a,b.json");
    std::fs::write(&path, "").unwrap();
    let flags = toml(&format!("data = '{}'", path.display())).unwrap();
    assert_eq!(flags.input.data, Some(vec![path]));
}

#[test]
fn a_key_of_another_trainer_has_its_own_help() {
    let (_, help, _) = mistake("plot_loss = true");
    assert!(help.unwrap().starts_with("leave it out: metrics, plots"));
    let found = refused("stage = \"sft\"\nddp_timeout = 9\nlrr = 3\n", "run.toml");
    for part in [
        "did you mean `lr` for `lrr`?",
        "`stage`: leave it out, and give `method`",
        "`ddp_timeout`: leave it out",
    ] {
        assert!(found.contains(part), "{found}");
    }
    let found = refused("stage = \"sft\"\nddp_timeout = 9\n", "run.toml");
    assert!(!found.contains("lists the settings"), "{found}");
    // The nearest names of these have other meanings.
    for key in [
        "eval_accumulation_steps",
        "local_rank",
        "use_lora",
        "use_qlora",
        "peft_use_dora",
        "use_galore",
        "num_layers",
        "eval_iters",
        "data_seed",
        "log_level",
        "decay_lr",
        "precision",
        "train_type",
        "arch_type",
        "lora_bias",
        "train_batch_size",
        "iters",
    ] {
        let (_, help, _) = mistake(&format!("{key} = 1"));
        let help = help.unwrap();
        assert!(!help.contains("did you mean"), "{key}: {help}");
        assert!(!help.contains("lists the settings"), "{key}: {help}");
    }
    // A short name is near to many.
    let (_, help, _) = mistake("k = 1");
    assert!(help.unwrap().contains("lists the settings"));
}

#[test]
fn a_word_of_another_trainer_with_another_meaning_is_refused_with_advice() {
    for (text, message, advice) in [
        (
            "assistant_only_loss = false",
            "`assistant_only_loss` is false",
            "leave it out: the loss is of the answers and completions",
        ),
        (
            "bf16 = \"auto\"",
            "`bf16` is auto",
            "leave it out: the default is the dtype",
        ),
        (
            "fp16 = \"auto\"",
            "`fp16` is auto",
            "leave it out: the default is the dtype",
        ),
    ] {
        let found = refused(&format!("lr = 0.1\n{text}\n"), "run.toml");
        assert!(found.contains("  --> run.toml:2\n"), "{found}");
        assert!(found.contains(&format!("because: {message}\n")), "{found}");
        assert!(found.contains(&format!("help: {advice}")), "{found}");
    }
}

#[test]
fn a_table_in_a_line_has_no_line_of_its_own_to_remove() {
    for text in [
        "scheduler_options = {min_lr_rate = 0.1}\n",
        "  stages = [{lr = 0.1}]\n",
    ] {
        let found = refused(text, "run.toml");
        assert!(found.contains("write what is in it as settings"), "{found}");
        assert!(!found.contains("remove the line"), "{found}");
    }
    let found = refused("a-b = {c = 1}\nd-e = 1\n[training]\nlr = 1\n", "run.toml");
    assert!(found.contains("write what is in it as settings"), "{found}");
    assert!(found.contains("remove the line"), "{found}");
    let found = refused("lr_scheduler_kwargs = {min_lr_rate = 0.1}\n", "run.toml");
    assert!(
        found.contains("give `min-lr-ratio`, or `min-lr`"),
        "{found}"
    );
}

#[test]
fn an_empty_output_folder_is_refused_with_its_line() {
    let error = toml("lr = 0.1\noutput_dir = \"\"").unwrap().out();
    let error = error.unwrap_err();
    let error = error.downcast_ref::<UserError>().unwrap();
    assert_eq!(error.to_string(), "--out is empty");
    assert_eq!(error.help(), Some("give a folder, or leave it out"));
    assert_eq!(error.place(), Some((Path::new("run.toml"), Some(2))));
}
