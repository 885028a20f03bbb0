//! Keys and flags of other trainers that are not settings here, and what to do about them. docs/terms.md lists them, too.

const NONE: &str = "leave it out: there is nothing like it here";
const EVERY: &str = "give `save-every` and `eval-every`, in steps";
const WRITTEN: &str = "leave it out: metrics, plots and TensorBoard files are always written into the folder of the run";

/// Keys, without regard to `-` and `_`, and what to do about them.
const KEYS: &[(&[&str], &str)] = &[
    (
        &["stage", "do_train", "do_eval", "rl"],
        "leave it out, and give `method` as lisa, full or lora",
    ),
    (
        &["lisa_layers_attribute"],
        "leave it out: the layers are found",
    ),
    (
        &[
            "optimizer",
            "optim",
            "adam_beta1",
            "adam_beta2",
            "adam_epsilon",
        ],
        "leave it out: the optimizer is AdamW",
    ),
    (
        &["load_in_4bit", "load_in_8bit", "quantization_bit"],
        "give `quantize` as int4 or int8, for frozen layers of LISA, or leave it out",
    ),
    (
        &["lora_target_linear"],
        "leave it out: adapters of all linear modules are the default",
    ),
    (
        &["lora_modules_to_save", "modules_to_save"],
        "leave it out: LoRA trains adapters only",
    ),
    (
        &["completion_only_loss"],
        "leave it out: the loss is of the answers; `loss-on-all` adds the other tokens",
    ),
    (
        &["resume_from_checkpoint", "auto_resume_from_checkpoints"],
        "leave it out, and give the flag --resume",
    ),
    (
        &["overwrite_output_dir"],
        "leave it out, and give the flag --overwrite",
    ),
    (
        &[
            "save_strategy",
            "eval_strategy",
            "evaluation_strategy",
            "evals_per_epoch",
            "saves_per_epoch",
        ],
        EVERY,
    ),
    (
        &[
            "load_best_model_at_end",
            "metric_for_best_model",
            "greater_is_better",
        ],
        "leave it out: `model-best/` is written if an earlier checkpoint has a lower held-out loss",
    ),
    (
        &[
            "report_to",
            "wandb_project",
            "logging_dir",
            "logging_strategy",
            "plot_loss",
            "run_name",
        ],
        WRITTEN,
    ),
    (
        &["max_samples"],
        "cut the file of the data, or give `steps`",
    ),
    (
        &["dataset_text_field"],
        "rename the key with `columns`, such as \"body=text\"",
    ),
    (&["dataset_dir"], "give paths in `data`"),
    (
        &[
            "overwrite_cache",
            "preprocessing_num_workers",
            "dataset_num_proc",
        ],
        "leave it out: the data is encoded anew in each run, in all threads",
    ),
    (
        &[
            "deepspeed",
            "fsdp",
            "fsdp_config",
            "ddp_timeout",
            "flash_attention",
            "flash_attn",
            "attn_implementation",
            "tf32",
            "group_by_length",
            "trust_remote_code",
            "push_to_hub",
            "neftune_noise_alpha",
            "dataloader_num_workers",
            "remove_unused_columns",
        ],
        NONE,
    ),
];

/// What to do about a key or flag (without `--`) of another trainer; `None` if it is not known.
pub(crate) fn advice(key: &str) -> Option<&'static str> {
    let key = key.replace('-', "_");
    let found = KEYS.iter().find(|(keys, _)| keys.contains(&&*key));
    found.map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::super::names;
    use super::super::{InputFlags, MemoryFlags, MethodFlags, OutputFlags, TrainingFlags};
    use super::*;

    #[test]
    fn no_key_is_a_setting_or_is_there_twice() {
        let settings = [
            InputFlags::KEYS,
            MethodFlags::KEYS,
            MemoryFlags::KEYS,
            TrainingFlags::KEYS,
            OutputFlags::KEYS,
        ];
        let settings = settings.concat();
        let all = || KEYS.iter().flat_map(|(keys, _)| keys.iter());
        for key in all() {
            let name = names::setting(key).replace('-', "_");
            assert!(!settings.contains(&name.as_str()), "{key}");
            assert!(names::translated(key).is_none(), "{key}");
            assert_eq!(all().filter(|other| *other == key).count(), 1, "{key}");
        }
        assert_eq!(advice("ddp-timeout"), Some(NONE));
        assert_eq!(advice("lrr"), None);
    }
}
