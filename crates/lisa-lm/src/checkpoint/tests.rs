use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::store::bridge::to_data;
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

mod adapters;
#[cfg(unix)]
mod denied;
mod real;
mod resized;
mod saving;

use crate::error::{Error, ErrorKind};
use crate::model::config::{Gpt2Config, LlamaConfig, ModelConfig};
use crate::model::{CausalLm, Input};
use crate::test_support::{MODELS, fixture};

fn load(dir: impl AsRef<Path>) -> Result<CausalLm, Error> {
    Checkpoint::open(dir)?.load(&Device::default(), None)
}

/// The tensors of a folder as they are stored.
fn stored(dir: &Path) -> BTreeMap<String, TensorData> {
    let tensors = shards::find(dir, None).unwrap().read(dir).unwrap();
    tensors
        .tensors
        .into_iter()
        .map(|tensor| (tensor.name.clone(), to_data(&tensor).unwrap()))
        .collect()
}

/// Writes a safetensors file byte by byte: a header's length, the header, the data.
fn write_safetensors(path: &Path, tensors: &BTreeMap<String, TensorData>) {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, tensor) in tensors {
        let start = data.len();
        data.extend_from_slice(tensor.as_bytes());
        let dtype = match tensor.dtype() {
            DType::I64 => "I64",
            // Burn has neither.
            DType::I8 => "F8_E4M3",
            DType::U64 => "C64",
            DType::U8 => "U8",
            DType::Bool(_) => "BOOL",
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::BF16 => "BF16",
            other => unreachable!("{other:?} is in no test"),
        };
        let shape: Vec<usize> = tensor.shape().iter().copied().collect();
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(data);
    fs::write(path, bytes).unwrap();
}

/// A folder with a fixture's configuration and its tensors, changed.
fn altered(name: &str, change: impl FnOnce(&mut BTreeMap<String, TensorData>)) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(
        fixture(name).join("config.json"),
        dir.path().join("config.json"),
    )
    .unwrap();
    let mut tensors = stored(&fixture(name));
    change(&mut tensors);
    write_safetensors(&dir.path().join(shards::SINGLE), &tensors);
    dir
}

fn message(result: Result<CausalLm, Error>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Checkpoint, "{error}");
    error.to_string()
}

fn save_to(dir: &Path, model: &CausalLm, source: Option<&Checkpoint>, max_shard_bytes: usize) {
    save(
        model,
        dir,
        &SaveOptions {
            source,
            max_shard_bytes,
            ..SaveOptions::default()
        },
    )
    .unwrap();
}

#[test]
fn what_is_saved_loads_bit_equal_in_one_file_and_in_shards() {
    for name in MODELS {
        let source = Checkpoint::open(fixture(name)).unwrap();
        let original = stored(source.dir());
        for device in [Device::default(), Device::default().autodiff()] {
            let model = source.load(&device, None).unwrap();
            for limit in [usize::MAX, 20_000, 1] {
                let dir = tempfile::tempdir().unwrap();
                save_to(dir.path(), &model, Some(&source), limit);
                assert_eq!(stored(dir.path()), original, "{name} in files of {limit}");
                assert_eq!(dir.path().join(shards::INDEX).is_file(), limit < usize::MAX);
                let again = load(dir.path()).unwrap();
                let twice = tempfile::tempdir().unwrap();
                save_to(twice.path(), &again, None, usize::MAX);
                assert_eq!(stored(twice.path()), original);
            }
        }
    }
}

#[test]
fn progress_counts_every_byte_once_in_both_directions() {
    use std::sync::{Arc, Mutex};
    let reported: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
    let report = |reported: &Arc<Mutex<Vec<(u64, u64)>>>| {
        let reported = reported.clone();
        move |done, total| reported.lock().unwrap().push((done, total))
    };
    let source = Checkpoint::open(fixture("llama")).unwrap();
    let model = source
        .load_with(&Device::default(), None, report(&reported))
        .unwrap();
    let bytes = 4 * model.num_parameters() as u64;
    let read = std::mem::take(&mut *reported.lock().unwrap());
    assert_eq!(read.len(), 39);
    assert_eq!(read.last(), Some(&(bytes, bytes)));
    let dir = tempfile::tempdir().unwrap();
    let options = SaveOptions {
        max_shard_bytes: 20_000,
        ..SaveOptions::default()
    };
    save_with(&model, dir.path(), &options, report(&reported)).unwrap();
    let written = reported.lock().unwrap().clone();
    assert!(written.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert_eq!((written.len(), written.last()), (39, Some(&(bytes, bytes))));
}

#[test]
fn half_precision_is_loaded_saved_and_said() {
    let source = Checkpoint::open(fixture("llama")).unwrap();
    let dtypes = [(FloatDType::BF16, "bfloat16"), (FloatDType::F16, "float16")];
    for (dtype, name) in dtypes {
        let model = source.load(&Device::default(), Some(dtype)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        save_to(dir.path(), &model, Some(&source), usize::MAX);
        let config = fs::read_to_string(dir.path().join("config.json")).unwrap();
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["dtype"], name);
        let saved = stored(dir.path());
        assert!(
            saved
                .values()
                .all(|tensor| tensor.dtype() == DType::from(dtype))
        );
        let again = load(dir.path()).unwrap();
        assert_eq!(again.dtype(), DType::from(dtype));
        let twice = tempfile::tempdir().unwrap();
        save_to(twice.path(), &again, None, 20_000);
        assert_eq!(stored(twice.path()), saved);
    }
}

#[test]
fn the_index_says_where_tensors_are_and_how_large_all_are() {
    let model = load(fixture("llama")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    save_to(dir.path(), &model, None, 100_000);
    let index = fs::read_to_string(dir.path().join(shards::INDEX)).unwrap();
    let index: Value = serde_json::from_str(&index).unwrap();
    assert_eq!(index["metadata"]["total_size"], 4 * model.num_parameters());
    assert_eq!(index["weight_map"].as_object().unwrap().len(), 39);
    let files: Vec<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|file| file.ends_with(".safetensors"))
        .collect();
    for file in &files {
        assert!(
            file.ends_with(&format!("-of-{:05}.safetensors", files.len())),
            "{file}"
        );
        assert!(fs::metadata(dir.path().join(file)).unwrap().len() < 103_000);
        let bytes = fs::read(dir.path().join(file)).unwrap();
        let header = String::from_utf8_lossy(&bytes[8..200]).into_owned();
        assert!(
            header.contains(r#""__metadata__":{"format":"pt"}"#),
            "{header}"
        );
    }
}

#[test]
fn the_tokenizer_and_the_text_of_the_configuration_are_carried_over() {
    let from = altered("llama", |_| ());
    let config = fs::read_to_string(from.path().join("config.json")).unwrap();
    let config = config.replace(
        "\"use_cache\"",
        "\"something_of_its_own\": [1, 2],\n  \"use_cache\"",
    );
    for (file, text) in [
        ("config.json", config.as_str()),
        ("tokenizer.json", "{}"),
        ("chat_template.jinja", "{{ x }}"),
        ("notes.txt", "not carried"),
    ] {
        fs::write(from.path().join(file), text).unwrap();
    }
    let source = Checkpoint::open(from.path()).unwrap();
    let model = source.load(&Device::default(), None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    save_to(dir.path(), &model, Some(&source), usize::MAX);
    let read = |file: &str| fs::read_to_string(dir.path().join(file)).unwrap();
    assert_eq!(read("config.json"), config);
    assert_eq!(
        (read("tokenizer.json"), read("chat_template.jinja")),
        ("{}".into(), "{{ x }}".into())
    );
    assert!(!dir.path().join("notes.txt").exists());
}

#[test]
fn code_and_heads_that_a_saved_folder_does_not_have_are_not_named() {
    let from = altered("gpt2", |_| ());
    let path = from.path().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config["architectures"] = json!(["GPT2DoubleHeadsModel"]);
    config["auto_map"] = json!({"AutoModel": "modeling.Model"});
    fs::write(&path, config.to_string()).unwrap();
    let tokenizer = json!({"auto_map": {"AutoTokenizer": ["a.B", null]}, "eos_token": "x"});
    let name = "tokenizer_config.json";
    fs::write(from.path().join(name), tokenizer.to_string()).unwrap();

    let source = Checkpoint::open(from.path()).unwrap();
    let model = source.load(&Device::default(), None).unwrap();
    config["architectures"] = json!(["GPT2LMHeadModel"]);
    config.as_object_mut().unwrap().remove("auto_map");
    // The file is copied, or given.
    let given = [(name.to_owned(), tokenizer.to_string().into_bytes())];
    for files in [&given[..0], &given] {
        let dir = tempfile::tempdir().unwrap();
        let options = SaveOptions {
            source: Some(&source),
            files,
            ..SaveOptions::default()
        };
        save(&model, dir.path(), &options).unwrap();
        let read = |name: &str| -> Value {
            let text = fs::read_to_string(dir.path().join(name)).unwrap();
            serde_json::from_str(&text).unwrap()
        };
        assert_eq!(read("config.json"), config);
        assert_eq!(read(name), json!({"eos_token": "x"}));
    }
}

#[test]
fn without_a_dtype_in_the_configuration_the_stored_one_is_that_of_the_tensors() {
    let dir = altered("llama", |tensors| {
        for tensor in tensors.values_mut() {
            *tensor = tensor.clone().convert_dtype(DType::BF16);
        }
    });
    let dtype = || {
        Checkpoint::open(dir.path())
            .unwrap()
            .stored_dtype()
            .unwrap()
    };
    assert_eq!(dtype(), Some(FloatDType::F32));
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for key in ["dtype", "torch_dtype"] {
        config.as_object_mut().unwrap().remove(key);
    }
    fs::write(path, config.to_string()).unwrap();
    assert_eq!(dtype(), Some(FloatDType::BF16));
}

#[test]
fn saving_again_leaves_nothing_of_the_earlier_save() {
    let model = load(fixture("gpt2")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let files = || {
        let names = fs::read_dir(dir.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    save_to(dir.path(), &model, None, 100_000);
    assert!(files().len() > 4);
    save_to(dir.path(), &model, None, usize::MAX);
    assert_eq!(
        files(),
        ["config.json", "model.safetensors"]
            .map(String::from)
            .into()
    );
    save_to(dir.path(), &model, None, 300_000);
    assert!(!files().contains("model.safetensors"));
    load(dir.path()).unwrap();
    // Into the folder that the model came from.
    let source = Checkpoint::open(dir.path()).unwrap();
    save_to(dir.path(), &model, Some(&source), usize::MAX);
    assert_eq!(stored(dir.path()), stored(&fixture("gpt2")));
}

#[test]
fn buffers_tied_heads_and_bare_gpt2_names_are_accepted() {
    let extra = || TensorData::new(vec![1.0f32; 4], [2, 2]);
    let tied = altered("llama_tied", |tensors| {
        let head = tensors["model.embed_tokens.weight"].clone();
        tensors.insert("lm_head.weight".into(), head);
        tensors.insert(
            "model.layers.0.self_attn.rotary_emb.inv_freq".into(),
            extra(),
        );
    });
    load(tied.path()).unwrap();
    let bare = altered("gpt2", |tensors| {
        let renamed = tensors.iter().map(|(name, tensor)| {
            (
                name.strip_prefix("transformer.").unwrap().to_owned(),
                tensor.clone(),
            )
        });
        *tensors = renamed.collect();
        tensors.insert("h.0.attn.bias".into(), extra());
        tensors.insert("h.0.attn.masked_bias".into(), extra());
    });
    let dir = tempfile::tempdir().unwrap();
    save_to(dir.path(), &load(bare.path()).unwrap(), None, usize::MAX);
    assert_eq!(stored(dir.path()), stored(&fixture("gpt2")));
}

#[test]
fn masks_are_left_out_and_a_head_with_other_signs_of_zero_is_tied() {
    let masks = altered("llama", |tensors| {
        let u8 = TensorData::new(vec![1u8; 4], [1, 1, 2, 2]);
        tensors.insert("model.layers.0.self_attn.bias".into(), u8);
        let bool = TensorData::new(vec![true], [1]);
        tensors.insert("model.layers.0.self_attn.masked_bias".into(), bool);
        let i64 = TensorData::new(vec![0i64, 1], [1, 2]);
        tensors.insert("model.embed_tokens.position_ids".into(), i64);
    });
    let dir = tempfile::tempdir().unwrap();
    save_to(dir.path(), &load(masks.path()).unwrap(), None, usize::MAX);
    assert_eq!(stored(dir.path()), stored(&fixture("llama")));
    let with_head = |first: f32, second: f32| {
        let dir = altered("llama_tied", |tensors| {
            let embedding = &tensors["model.embed_tokens.weight"];
            let shape = embedding.shape().clone();
            let mut values = embedding.try_to_vec::<f32>().unwrap();
            values[0] = first;
            let tied = TensorData::new(values.clone(), shape.clone());
            tensors.insert("model.embed_tokens.weight".into(), tied);
            values[0] = second;
            tensors.insert("lm_head.weight".into(), TensorData::new(values, shape));
        });
        Checkpoint::open(dir.path()).unwrap().config().is_tied()
    };
    assert!(with_head(0.0, -0.0));
    assert!(with_head(f32::NAN, f32::NAN));
    assert!(!with_head(0.0, 1e-40));
}

// Other parts of a model may have dtypes that Burn does not have.
#[test]
fn float8_and_complex_tensors_are_left_out_or_refused_by_name() {
    let other = |tensors: &mut BTreeMap<String, TensorData>| {
        let float8 = TensorData::new(vec![1i8; 6], [2, 3]);
        tensors.insert("vision_tower.patch.weight".into(), float8.clone());
        tensors.insert("model.layers.0.self_attn.bias".into(), float8);
        let complex = TensorData::new(vec![0u64; 2], [2]);
        tensors.insert("vision_tower.frequencies".into(), complex);
    };
    for name in ["llama", "llama_tied"] {
        let mixed = altered(name, other);
        let dir = tempfile::tempdir().unwrap();
        save_to(dir.path(), &load(mixed.path()).unwrap(), None, usize::MAX);
        assert_eq!(stored(dir.path()), stored(&fixture(name)), "{name}");
    }
    let up = "model.layers.1.mlp.up_proj.weight";
    let ours = altered("llama", |tensors| {
        other(tensors);
        let float8 = TensorData::new(vec![1i8; 4], [2, 2]);
        tensors.insert(up.into(), float8);
    });
    let found = message(load(ours.path()));
    assert!(found.contains(&format!("{up} is F8_E4M3")), "{found}");
    assert!(found.contains("use the unquantized one"), "{found}");
    // A file that ends early is an error, as of the others.
    let file = altered("llama", other);
    let path = file.path().join(shards::SINGLE);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    assert!(message(load(file.path())).contains("cannot be read as safetensors"));
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let data = |shape: [usize; 2]| TensorData::new(vec![0.0f32; shape[0] * shape[1]], shape);
    let up = "model.layers.1.mlp.up_proj.weight";
    let missing = altered("llama", |tensors| drop(tensors.remove(up)));
    assert!(message(load(missing.path())).contains(&format!("1 tensors are missing: {up}")));
    let norm = altered("llama", |tensors| drop(tensors.remove("model.norm.weight")));
    assert!(message(load(norm.path())).contains("missing: model.norm.weight"));
    let head = altered("llama", |tensors| drop(tensors.remove("lm_head.weight")));
    assert!(message(load(head.path())).contains("missing: lm_head.weight"));
    let extra = altered("llama", |tensors| {
        tensors.insert("model.layers.4.mlp.up_proj.weight".into(), data([128, 64]));
    });
    assert!(message(load(extra.path())).contains("model.layers.4.mlp.up_proj.weight"));
    // The shapes are those of the file.
    let shape = altered("llama", |tensors| {
        drop(tensors.insert(up.into(), data([127, 64])));
    });
    let found = message(load(shape.path()));
    assert!(found.contains(&format!(
        "{up} has shape [127, 64], but config.json asks for [128, 64]"
    )));
    let attn = "transformer.h.0.attn.c_attn.weight";
    let shape = altered("gpt2", |tensors| {
        drop(tensors.insert(attn.into(), data([64, 190])));
    });
    let found = message(load(shape.path()));
    assert!(found.contains(&format!(
        "{attn} has shape [64, 190], but config.json asks for [64, 192]"
    )));
    let ints = altered("llama", |tensors| {
        tensors.insert(up.into(), TensorData::new(vec![0i64; 128 * 64], [128, 64]));
    });
    assert!(message(load(ints.path())).contains(&format!("{up} is I64")));
}

#[test]
fn files_that_are_broken_are_named() {
    let model = load(fixture("llama")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let shard = "model-00002-of-00010.safetensors";
    let edit = |change: &dyn Fn(&mut Value)| {
        save_to(dir.path(), &model, None, 80_000);
        let path = dir.path().join(shards::INDEX);
        let mut index: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        change(&mut index["weight_map"]);
        fs::write(path, index.to_string()).unwrap();
        load(dir.path())
    };
    edit(&|_| ()).unwrap();
    let name = "model.norm.weight";
    for outside in [
        "../model.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "..",
        "",
    ] {
        let found = message(edit(&|map| map[name] = outside.into()));
        assert!(
            found.contains(name) && found.contains("not a file of the folder"),
            "{found}"
        );
    }
    let found = message(edit(&|map| map[name] = "gone.safetensors".into()));
    assert!(
        found.contains(name) && found.contains("gone.safetensors"),
        "{found}"
    );
    let found = message(edit(&|map| *map = json!({})));
    assert!(found.contains("names no tensors"), "{found}");
    let found = message(edit(&|map| *map = json!(3)));
    assert!(found.contains("is not an index"), "{found}");

    save_to(dir.path(), &model, None, 80_000);
    let shard = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("model-00002-of-"))
        .unwrap_or_else(|| dir.path().join(shard));
    let bytes = fs::read(&shard).unwrap();
    for kept in [bytes.len() - 1, bytes.len() / 2, 100, 8, 0] {
        fs::write(&shard, &bytes[..kept]).unwrap();
        let found = message(load(dir.path()));
        assert!(
            found.contains("model-00002-of-") && found.contains("truncated"),
            "{found}"
        );
    }
    fs::remove_file(&shard).unwrap();
    assert!(message(load(dir.path())).contains("which does not exist"));
}

#[test]
fn folders_that_are_no_checkpoint_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = || message(load(dir.path()));
    assert!(refused().contains("config.json cannot be read"));
    fs::copy(
        fixture("llama").join("config.json"),
        dir.path().join("config.json"),
    )
    .unwrap();
    assert!(refused().contains("has no model.safetensors and no"));
    fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    assert!(refused().contains("pytorch_model.bin: PyTorch's pickle format"));
    fs::write(dir.path().join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
    let error = load(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model);
    assert!(
        error
            .to_string()
            .contains("config.json: the model's configuration: model_type \"bert\"")
    );
}

#[test]
fn saving_where_that_cannot_be_is_an_error() {
    let model = load(fixture("llama")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = save(&model, &file, &SaveOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.message().contains("file"), "{error}");
}

#[cfg(unix)]
#[test]
fn links_out_of_the_folder_are_neither_read_nor_carried_over() {
    use std::os::unix::fs::symlink;
    let root = tempfile::tempdir().unwrap();
    let secret = root.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let good = altered("llama", |_| ());
    let weights = good.path().join(shards::SINGLE);
    // Weights, a shard, a configuration, and a file that saving carries over.
    let dir = altered("llama", |_| ());
    fs::remove_file(dir.path().join(shards::SINGLE)).unwrap();
    symlink(&weights, dir.path().join(shards::SINGLE)).unwrap();
    let found = message(load(dir.path()));
    assert!(found.contains("not in the folder"), "{found}");

    let dir = tempfile::tempdir().unwrap();
    let model = load(good.path()).unwrap();
    save_to(dir.path(), &model, None, 400_000);
    let shard = dir.path().join("model-00001-of-00002.safetensors");
    fs::rename(&shard, root.path().join("shard")).unwrap();
    symlink(root.path().join("shard"), &shard).unwrap();
    let found = message(load(dir.path()));
    assert!(found.contains("model-00001-of-00002"), "{found}");
    assert!(found.contains("not in the folder"), "{found}");

    symlink(&secret, good.path().join("LICENSE")).unwrap();
    let source = Checkpoint::open(good.path()).unwrap();
    let options = SaveOptions {
        source: Some(&source),
        ..SaveOptions::default()
    };
    let to = tempfile::tempdir().unwrap();
    let error = save(&model, to.path(), &options).unwrap_err();
    assert!(error.message().contains("LICENSE"), "{error}");
    assert!(!to.path().join("LICENSE").exists());

    let dir = altered("llama", |_| ());
    fs::remove_file(dir.path().join("config.json")).unwrap();
    symlink(&secret, dir.path().join("config.json")).unwrap();
    assert!(message(load(dir.path())).contains("not in the folder"));
}

#[cfg(unix)]
#[test]
fn saving_replaces_a_link_and_does_not_follow_it() {
    use std::os::unix::fs::symlink;
    let root = tempfile::tempdir().unwrap();
    let model = load(fixture("llama")).unwrap();
    let dir = root.path().join("out");
    fs::create_dir(&dir).unwrap();
    for name in [shards::SINGLE, "config.json"] {
        fs::write(root.path().join(name), "not to be touched").unwrap();
        symlink(root.path().join(name), dir.join(name)).unwrap();
    }
    save_to(&dir, &model, None, usize::MAX);
    for name in [shards::SINGLE, "config.json"] {
        let outside = fs::read_to_string(root.path().join(name)).unwrap();
        assert_eq!(outside, "not to be touched");
        assert!(!fs::symlink_metadata(dir.join(name)).unwrap().is_symlink());
    }
    assert_eq!(stored(&dir), stored(&fixture("llama")));
}

#[cfg(unix)]
#[test]
fn a_pipe_in_the_folder_does_not_block() {
    for name in ["config.json", shards::SINGLE, shards::INDEX] {
        let dir = altered("llama", |_| ());
        for file in [name, shards::SINGLE] {
            let _ = fs::remove_file(dir.path().join(file));
        }
        let made = std::process::Command::new("mkfifo")
            .arg(dir.path().join(name))
            .status();
        assert!(made.unwrap().success());
        let found = message(load(dir.path()));
        assert!(found.contains("pipe, socket or device"), "{name}: {found}");
    }
}

#[test]
fn sizes_that_the_files_do_not_hold_cost_nothing() {
    for (key, value, expected) in [
        (
            "num_hidden_layers",
            4096,
            "config.json has 4096 layers, but",
        ),
        ("vocab_size", 1 << 24, "config.json asks for"),
        ("intermediate_size", 1 << 20, "config.json asks for"),
    ] {
        let dir = altered("llama", |_| ());
        let path = dir.path().join("config.json");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        config[key] = value.into();
        fs::write(path, config.to_string()).unwrap();
        let found = message(load(dir.path()));
        assert!(found.contains(expected), "{key} {value}: {found}");
    }
}

#[test]
fn tensors_that_are_there_twice_or_of_another_rank_are_named() {
    let twice = altered("gpt2", |tensors| {
        let tensor = tensors["transformer.ln_f.weight"].clone();
        tensors.insert("ln_f.weight".into(), tensor);
    });
    assert!(message(load(twice.path())).contains("is stored twice"));
    let up = "model.layers.1.mlp.up_proj.weight";
    let norm = "model.norm.weight";
    let shapes: [&[usize]; 5] = [&[], &[1], &[1, 1, 1], &[0, 0], &[1; 12]];
    for shape in shapes {
        for name in [up, norm, "lm_head.weight", "model.embed_tokens.weight"] {
            let dir = altered("llama", |tensors| {
                let values = vec![0.0f32; shape.iter().product()];
                tensors.insert(name.into(), TensorData::new(values, shape.to_vec()));
            });
            let found = message(load(dir.path()));
            assert!(found.contains(name), "{found}");
        }
    }
}

/// Writes folders, with the logits computed here, for `tests/check_transformers.py`: new models and
/// fixtures saved again, and the logits of the folder `LISA_CHECK_MODEL` where that is set. Run
/// with `LISA_CHECK_DIR` set to an empty folder.
#[test]
#[ignore = "writes folders for a script in Python"]
fn write_folders_for_transformers() {
    let root = PathBuf::from(std::env::var("LISA_CHECK_DIR").unwrap());
    let device = Device::default();
    device.seed(5);
    let llama = LlamaConfig {
        num_key_value_heads: 2,
        initializer_range: 0.2,
        ..LlamaConfig::new(64, 32, 2, 4)
    };
    let gpt2 = Gpt2Config {
        initializer_range: 0.2,
        ..Gpt2Config::new(64, 32, 2, 4)
    };
    let tied_off = Gpt2Config {
        tie_word_embeddings: false,
        ..gpt2.clone()
    };
    let mut models: Vec<(String, CausalLm)> = vec![
        (
            "new_llama".into(),
            ModelConfig::Llama(llama).init(&device).unwrap(),
        ),
        (
            "new_gpt2".into(),
            ModelConfig::Gpt2(gpt2).init(&device).unwrap(),
        ),
        (
            "new_gpt2_untied".into(),
            ModelConfig::Gpt2(tied_off).init(&device).unwrap(),
        ),
    ];
    for name in MODELS {
        models.push((format!("again_{name}"), load(fixture(name)).unwrap()));
    }
    for (name, model) in models {
        let dir = root.join(name);
        save_to(&dir, &model, None, 50_000);
        write_logits(&dir, &model);
    }
    if let Ok(model) = std::env::var("LISA_CHECK_MODEL") {
        let dir = root.join("given");
        fs::create_dir_all(&dir).unwrap();
        write_logits(&dir, &load(model).unwrap());
    }
}

fn write_logits(dir: &Path, model: &CausalLm) {
    let ids: Vec<i64> = (0..48).map(|place| (place * place * 7 + 3) % 64).collect();
    let tokens = TensorData::new(ids, [2, 24]);
    let tokens = Tensor::<2, Int>::from_data(tokens, &Device::default());
    let logits = model.forward(&Input::new(tokens.clone())).into_data();
    let tensors = BTreeMap::from([
        ("input_ids".to_owned(), tokens.into_data().convert::<i64>()),
        ("logits".to_owned(), logits),
    ]);
    write_safetensors(&dir.join("logits"), &tensors);
}
