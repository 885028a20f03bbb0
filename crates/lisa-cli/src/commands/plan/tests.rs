use super::*;

fn table_on(on: Option<On>, memory: Option<f64>, accumulation: usize) -> String {
    let flags = Flags {
        memory: MemoryFlags {
            memory,
            ..MemoryFlags::default()
        },
        training: TrainingFlags {
            gradient_accumulation_steps: Some(accumulation),
            ..TrainingFlags::default()
        },
        ..Flags::default()
    };
    table(flags, on, &Device::default()).unwrap()
}

/// The peak and the host memory of a row, in MiB.
fn row(table: &str, flags: &str) -> [f64; 2] {
    let line = table.lines().find(|line| line.ends_with(flags)).unwrap();
    let numbers: Vec<f64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    [numbers[0], numbers[7]]
}

#[test]
fn the_memory_of_a_device_is_that_of_a_gpu_unless_a_cpu_is_asked_for() {
    let (build, gpu) = (table_on(None, None, 1), table_on(Some(On::Gpu), None, 1));
    let named = table_on(None, Some(1.0), 1);
    assert!(build.contains("\nfor a CPU: "), "{build}");
    for table in [&gpu, &named] {
        assert!(
            table.contains("\nfor a GPU: host memory is separate, and the memory pool needs 10 %"),
            "{table}"
        );
    }
    assert_eq!(table_on(Some(On::Cpu), None, 1), build);
    let method = "--method lisa --recompute --update-in-backward --max-grad-norm 0 --quantize int4";
    // A GPU stores two values in a byte.
    assert!(row(&gpu, method)[1] > 0.0);
    assert_eq!(row(&gpu, method), row(&named, &format!("fits: {method}")));
    assert_ne!(row(&gpu, method), row(&build, method));
}

#[test]
fn the_table_has_lora_with_recomputation_and_accumulated_gradients() {
    let (one, four) = (table_on(None, None, 1), table_on(None, None, 4));
    let peak = |table: &str, flags| row(table, flags)[0];
    assert!(peak(&one, "--method lora --recompute") < peak(&one, "--method lora") / 2.0);
    assert!(four.contains(", 4 batches in a step;"), "{four}");
    // 1,509,504 gradients in f32.
    let more = peak(&four, "--method full") - peak(&one, "--method full");
    assert!((more - 5.76).abs() < 1.1, "{four}");
    let method = "--update-in-backward --max-grad-norm 0 --gradient-accumulation-steps 1";
    let layered = "--update-in-backward --max-grad-norm 0";
    assert_eq!(row(&four, method), row(&one, layered));
}

#[test]
fn the_table_has_what_lisa_trains_by_default_and_flags_that_give_other_layers() {
    let folder = tempfile::tempdir().unwrap();
    let config = r#"{"model_type": "llama", "vocab_size": 49152, "hidden_size": 576,
        "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "tie_word_embeddings": true, "max_position_embeddings": 2048}"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let table = |active_layers| {
        let mut flags = Flags::default();
        flags.input.model = Some(folder.path().into());
        flags.method.active_layers = active_layers;
        table(flags, None, &Device::default()).unwrap()
    };
    let (default, three) = (table(None), table(Some(3)));
    let frozen = "--method lisa --active-layers 10 --freeze embed_tokens,embed_positions,lm_head";
    let (lora, lisa) = (row(&default, "--method lora"), row(&default, frozen));
    assert!(lisa[0] > 0.5 * lora[0] && lisa[0] <= lora[0], "{default}");
    row(&default, "--method lisa --active-layers 2");
    row(&three, "--method lisa --active-layers 3 --recompute");
    assert!(!three.contains("--active-layers 10"), "{three}");
}

#[test]
fn the_last_line_does_not_contradict_the_tables() {
    let mut ends = [0, 0];
    for mib in [1, 5, 8, 12, 16, 24, 32, 64, 1024] {
        let memory = Some(f64::from(mib) / 1024.0);
        for on in [On::Gpu, On::Cpu] {
            let table = table_on(Some(on), memory, 1);
            let (_, limits) = table.split_once("rows  flags\n").unwrap();
            let mut rows = limits.lines().filter(|line| line.starts_with(' '));
            let fits = rows.any(|line| !line.ends_with(": does not fit"));
            let says_none = table.contains("\nnone fits into ");
            assert_eq!(says_none, !fits, "{table}");
            assert_eq!(table.contains("(peaks of up to "), on == On::Gpu, "{table}");
            ends[usize::from(fits)] += 1;
        }
    }
    assert!(ends[0] > 0 && ends[1] > 0, "{ends:?}");
}

#[test]
fn the_flags_have_the_rows_of_a_run_where_more_would_fit() {
    let table = table_on(Some(On::Gpu), Some(64.0), 1);
    let (_, limits) = table.split_once("rows  flags\n").unwrap();
    let rows = limits.lines().filter(|line| line.contains(" --method "));
    for line in rows {
        assert!(
            line.ends_with(" --batch-size 8 --max-seq-length 256"),
            "{line}"
        );
        let most: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(most > 8, "{line}");
    }
}
