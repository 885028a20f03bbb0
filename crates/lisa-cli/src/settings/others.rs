//! Keys and flags of other trainers that are not settings here, and what to do about them. docs/terms.md has
//! the common ones.

const NONE: &str = "leave it out: there is nothing like it here";
const METHOD: &str = "leave it out, and give `method` as lisa, full or lora";
const ADAPTERS: &str = "leave it out: LoRA trains adapters only";
const FILES: &str = "leave it out: the files of the model and its tokenizer say it";
const ANSWERS: &str =
    "leave it out: the loss is of the answers; `loss-on-all` adds the other tokens";
const CUT: &str = "cut the file of the data, or give `steps`";
const EVERY: &str = "give `save-every` and `eval-every`, in steps";
const WRITTEN: &str = "leave it out: metrics, plots and TensorBoard files are always written into the folder of the run";

/// Keys, without regard to `-` and `_`, and what to do about them.
const KEYS: &[(&[&str], &str)] = &[
    (
        &[
            "stage",
            "do_train",
            "do_eval",
            "rl",
            "train",
            "train_type",
            "tuner_type",
            "use_lisa",
            "use_lora",
            "use_qlora",
            "use_peft",
            "peft_type",
            "task_type",
            "full_finetuning",
        ],
        METHOD,
    ),
    // A batch of MLX-LM, not an update of the weights.
    (
        &["iters"],
        "give `steps`, which counts updates of the weights: `iters`, which counts batches, divided by \
         `gradient-accumulation-steps`",
    ),
    (
        &["max_iters"],
        "give `steps`, which counts updates of the weights",
    ),
    (
        &["train_batch_size", "global_batch_size"],
        "give `batch-size`, the rows of one batch, and `gradient-accumulation-steps`, the batches of one \
         update",
    ),
    (
        &["micro_train_batch_size"],
        "give `batch-size`, the rows of one batch",
    ),
    (
        &[
            "use_gradient_checkpointing",
            "disable_gradient_checkpointing",
            "grad_checkpoint",
            "enable_activation_checkpointing",
            "activation_checkpointing",
            "gradient_checkpointing_kwargs",
        ],
        "leave it out, and give `recompute` as true or false",
    ),
    (&["random_state", "data_seed"], "give `seed`"),
    (
        &[
            "precision",
            "compute_dtype",
            "mixed_precision",
            "pure_bf16",
            "bfloat16",
            "float16",
        ],
        "give `dtype` as f32, bf16 or f16",
    ),
    (
        &["val_batches", "eval_iters", "max_eval_samples"],
        "give `eval-rows`, a number of rows",
    ),
    (
        &["validation_split_percentage"],
        "give `eval-fraction`, which is a hundredth of it",
    ),
    (&["initial_validation"], "give `eval-first` as true"),
    (
        &["adapter_path"],
        "give `out`, the folder of the run, or `adapter`, the folder of an adapter to continue from",
    ),
    (
        &["resume_adapter_file"],
        "give `adapter`, the folder of an adapter to continue from",
    ),
    (
        &["num_layers", "lora_layers", "layers_to_transform"],
        "leave it out: LoRA has adapters in all layers, and `active-layers` is of LISA",
    ),
    (
        &["lora_parameters"],
        "give `lora-rank`, `lora-alpha` and `lora-dropout`",
    ),
    (&["conversation_template"], "give `chat-template`"),
    (
        &["system", "default_system", "default_system_message"],
        "give it to the rows, as `system`",
    ),
    (&["mask_history"], "give `turns` as \"last\""),
    (
        &["roles_to_train", "train_on_eos", "train_on_eot"],
        "leave it out: the loss is of the assistant's messages, with the end of their turns",
    ),
    (
        &["loss_scale"],
        "leave it out: a message may have a `weight` of its own",
    ),
    (
        &["decay_lr", "lr_schedule"],
        "give `schedule` as cosine, linear or constant",
    ),
    (&["lr_scheduler_kwargs"], "give `min-lr-ratio`, or `min-lr`"),
    (&["learning_rate_multiplier"], "give `lr`, the rate itself"),
    (&["wd"], "give `weight-decay`"),
    (
        &[
            "special_tokens",
            "model_type",
            "tokenizer_type",
            "tokenizer_name",
            "config_name",
            "use_fast_tokenizer",
            "arch_type",
        ],
        FILES,
    ),
    (
        &[
            "dataset_config",
            "dataset_config_name",
            "dataset_train_split",
        ],
        "give the file or the folder in `data`",
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
            "optim_args",
            "optimizer_config",
            "betas",
            "beta1",
            "beta2",
            "eps",
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
        &[
            "lora_modules_to_save",
            "modules_to_save",
            "additional_target",
            "lora_bias",
            "bias",
        ],
        ADAPTERS,
    ),
    (
        &["completion_only_loss", "train_on_responses_only"],
        ANSWERS,
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
    (&["max_samples", "max_train_samples"], CUT),
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
            "neftune_alpha",
            "noisy_embedding_alpha",
            "label_smoothing_factor",
            "early_stopping_patience",
            "early_stopping_steps",
            "per_device_eval_batch_size",
            "eval_batch_size",
            "eval_accumulation_steps",
            "eval_packing",
            "eval_sample_packing",
            "pad_to_sequence_len",
            "pad_to_multiple_of",
            "padding_side",
            "padding_free",
            "use_dora",
            "peft_use_dora",
            "use_galore",
            "use_apollo",
            "use_unsloth",
            "use_flash_attention",
            "use_liger_kernel",
            "enable_liger_kernel",
            "torch_compile",
            "compile",
            "local_rank",
            "ddp_find_unused_parameters",
            "log_level",
            "logging_first_step",
            "disable_tqdm",
            "disable_group_texts",
            "disable_shuffling",
            "save_only_model",
            "save_safetensors",
            "hub_model_id",
            "streaming",
            "dataloader_num_workers",
            "dataloader_pin_memory",
            "dataloader_drop_last",
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
