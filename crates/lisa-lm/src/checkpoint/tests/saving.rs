//! Saving over a model: at every moment the folder has the old model or the new one.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, Param};

use super::super::shards::STAGING;
use super::*;
use crate::files::disk::fault;

/// Doubles every parameter.
struct Doubled;

impl ModuleMapper for Doubled {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        parameter.map(|tensor| tensor * 2.0)
    }
}

/// The content of a model in a folder.
type Content = (Value, BTreeMap<String, TensorData>);

/// What a folder has, read as another program would: the single file, or the files of the index.
/// `None` if it has no weights to read.
fn content(dir: &Path) -> Option<Content> {
    let config = fs::read_to_string(dir.join("config.json")).ok()?;
    let has = |name: &str| dir.join(name).is_file();
    if !has(shards::SINGLE) && !has(shards::INDEX) {
        return None;
    }
    Some((serde_json::from_str(&config).unwrap(), stored(dir)))
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

const TOOL_USE: &str = "additional_chat_templates/tool_use.jinja";

/// Writes a file, and the folder that it is in.
fn put(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Two models whose configurations and weights differ, and the source of the second.
fn two_models() -> (CausalLm, CausalLm, Checkpoint, TempDir) {
    let source = altered("llama_tied", |tensors| {
        let head = TensorData::new(vec![0.5f32; 64 * 32], [64, 32]);
        tensors.insert("lm_head.weight".into(), head);
    });
    for name in ["tokenizer.json", "special_tokens_map.json", TOOL_USE] {
        put(source.path(), name, "new");
    }
    let checkpoint = Checkpoint::open(source.path()).unwrap();
    let new = checkpoint.load(&Device::default(), None).unwrap();
    let old = load(fixture("llama_tied")).unwrap().map(&mut Doubled);
    (old, new, checkpoint, source)
}

/// A folder with the old model, an old tokenizer and files of the user.
fn old_folder(old: &CausalLm, limit: usize) -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("model");
    save_to(&dir, old, None, limit);
    let rag = "additional_chat_templates/rag.jinja";
    for name in ["tokenizer.json", "chat_template.jinja", TOOL_USE, rag] {
        put(&dir, name, "old");
    }
    for name in ["notes.txt", "results/table.csv"] {
        put(&dir, name, "of the user");
    }
    (root, dir)
}

/// Saves over a model, killed after each number of file operations, and checks what is there.
fn kill_at_every_operation(check: impl Fn(Option<Content>, &Content, &Content)) {
    let (old, new, source, _keep) = two_models();
    let files = [("special_tokens_map.json".to_owned(), b"given".to_vec())];
    let mut kills = 0;
    for (before, after) in [
        (usize::MAX, 40_000),
        (40_000, usize::MAX),
        (40_000, 40_000),
        (usize::MAX, usize::MAX),
    ] {
        for count in 0.. {
            let (root, dir) = old_folder(&old, before);
            let old_content = content(&dir).unwrap();
            let options = SaveOptions {
                source: Some(&source),
                files: &files,
                max_shard_bytes: after,
            };
            let killed = fault::killed_after(count, || drop(save(&new, &dir, &options)));
            let found = content(&dir);
            // The files of the user are where they were, not in a hidden folder.
            for name in ["notes.txt", "results/table.csv"] {
                let own = fs::read_to_string(dir.join(name)).ok();
                assert_eq!(own.as_deref(), Some("of the user"), "{name} after {count}");
            }
            // The next save is not disturbed by what is left, and loses nothing.
            save(&new, &dir, &options).unwrap();
            let new_content = content(&dir).unwrap();
            assert_eq!(names(root.path()), BTreeSet::from(["model".to_owned()]));
            let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
            assert_eq!(read("notes.txt"), "of the user");
            assert_eq!(read("results/table.csv"), "of the user");
            assert_eq!(read("tokenizer.json"), "new");
            assert_eq!(read("special_tokens_map.json"), "given");
            assert_eq!(read("additional_chat_templates/tool_use.jinja"), "new");
            assert!(!dir.join("additional_chat_templates/rag.jinja").exists());
            assert!(!names(&dir).contains("chat_template.jinja"));
            let shards = names(&dir).iter().filter(|n| n.contains(".safe")).count();
            assert_eq!(shards == 1, after == usize::MAX);
            check(found, &old_content, &new_content);
            if !killed {
                break;
            }
            kills += 1;
        }
    }
    assert!(kills > 60, "{kills}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_save_killed_at_any_operation_leaves_the_old_model_or_the_new_one() {
    kill_at_every_operation(|found, old, new| {
        let found = found.expect("the folder always loads");
        assert!(found == *old || found == *new);
    });
}

#[test]
fn without_an_exchange_a_killed_save_never_leaves_a_mixture() {
    fault::without_exchange(|| {
        kill_at_every_operation(|found, old, new| {
            assert!(found.is_none_or(|found| found == *old || found == *new));
        });
    });
}

#[test]
fn a_first_save_that_is_killed_leaves_nothing_that_loads() {
    let (_, new, source, _keep) = two_models();
    let options = SaveOptions {
        source: Some(&source),
        max_shard_bytes: 40_000,
        ..SaveOptions::default()
    };
    for count in 0.. {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("model");
        let killed = fault::killed_after(count, || drop(save(&new, &dir, &options)));
        let found = content(&dir);
        save(&new, &dir, &options).unwrap();
        let whole = content(&dir).unwrap();
        assert!(found.is_none_or(|found| found == whole));
        if !killed {
            break;
        }
    }
}

#[test]
fn a_folder_without_the_weights_of_an_interrupted_save_says_where_they_are() {
    let dir = altered("llama", |_| ());
    let staging = dir.path().join(STAGING);
    fs::create_dir(&staging).unwrap();
    let single = dir.path().join(shards::SINGLE);
    fs::rename(&single, staging.join(shards::SINGLE)).unwrap();
    let found = message(load(dir.path()));
    assert!(found.contains("a save was interrupted"), "{found}");
    assert!(found.contains(STAGING), "{found}");
}

#[test]
fn a_failed_save_leaves_no_files() {
    let (old, new, source, keep) = two_models();
    let (root, dir) = old_folder(&old, 40_000);
    let before = (names(&dir), content(&dir));
    fs::create_dir(keep.path().join("tokenizer.model")).unwrap();
    let options = SaveOptions {
        source: Some(&source),
        ..SaveOptions::default()
    };
    let error = save(&new, &dir, &options).unwrap_err();
    assert!(error.message().contains("tokenizer.model"), "{error}");
    assert_eq!((names(&dir), content(&dir)), before);
    assert_eq!(names(root.path()), BTreeSet::from(["model".to_owned()]));
}

#[test]
fn a_folder_with_files_of_another_kind_is_refused() {
    let model = load(fixture("llama")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "").unwrap();
    let error = save(&model, dir.path(), &SaveOptions::default()).unwrap_err();
    assert!(error.message().contains("\"thesis.tex\""), "{error}");
    assert!(error.help().unwrap().contains("an empty folder"));
    assert_eq!(names(dir.path()), BTreeSet::from(["thesis.tex".to_owned()]));
    // A model's folder, and one that was made ready for a model, are not.
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    save_to(dir.path(), &model, None, usize::MAX);
    let dir = tempfile::tempdir().unwrap();
    for name in ["README.md", ".gitattributes", "tokenizer.json"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    save_to(dir.path(), &model, None, usize::MAX);
    assert_eq!(names(dir.path()).len(), 5);
    load(dir.path()).unwrap();
}

#[test]
fn shards_with_any_number_of_digits_are_replaced() {
    let (old, new, ..) = two_models();
    let (_root, dir) = old_folder(&old, usize::MAX);
    let shards = [
        "model-000001-of-000002.safetensors",
        "model-1-of-2.safetensors",
    ];
    let others = ["model-a-of-b.safetensors", "model--of-.safetensors"];
    for name in shards.iter().chain(&others) {
        put(&dir, name, "old");
    }
    save_to(&dir, &new, None, usize::MAX);
    let left = names(&dir);
    assert!(shards.iter().all(|name| !left.contains(*name)), "{left:?}");
    assert!(others.iter().all(|name| left.contains(*name)), "{left:?}");
    // Without a source the tokenizer stays.
    assert!(left.contains("tokenizer.json"), "{left:?}");
}

#[test]
fn every_licence_and_every_file_of_the_tokenizer_is_copied() {
    let from = altered("llama", |_| ());
    let copied = [
        "LICENSE",
        "LICENSE-APACHE",
        "LICENCE.txt",
        "NOTICE.md",
        "USE_POLICY.md",
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "generation_config.json",
        "merges.txt",
        "special_tokens_map.json",
        "spiece.model",
        "tekken.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer.model.v3",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
    ];
    for name in copied.iter().chain(&["notes.txt", "LICENSES/MIT.txt"]) {
        put(from.path(), name, name);
    }
    let source = Checkpoint::open(from.path()).unwrap();
    let model = source.load(&Device::default(), None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    save_to(dir.path(), &model, Some(&source), usize::MAX);
    let own = ["config.json", shards::SINGLE];
    let all = copied.iter().chain(&own).map(|name| (*name).to_owned());
    let mut expected: BTreeSet<String> = all.collect();
    assert_eq!(names(dir.path()), expected);
    for name in copied {
        assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), name);
    }

    // Files of an earlier model are removed, and a folder of the user is not. A new tokenizer.json has
    // tokens that tekken.json does not have.
    put(dir.path(), "LICENCE-OF-THE-OLD", "old");
    put(dir.path(), "LICENSES/own.txt", "of the user");
    let files = [("tokenizer.json".to_owned(), b"new".to_vec())];
    let options = SaveOptions {
        source: Some(&source),
        files: &files,
        ..SaveOptions::default()
    };
    save(&model, dir.path(), &options).unwrap();
    expected.remove("tekken.json");
    expected.insert("LICENSES".to_owned());
    assert_eq!(names(dir.path()), expected);
    assert!(dir.path().join("LICENSES/own.txt").is_file());
}

#[test]
fn with_another_chat_template_those_of_the_source_are_left_out() {
    let from = altered("llama", |_| ());
    let names = ["chat_template.jinja", "chat_template.json", TOOL_USE];
    for name in names {
        put(from.path(), name, "old");
    }
    let source = Checkpoint::open(from.path()).unwrap();
    let model = source.load(&Device::default(), None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let found = |files: &[(String, Vec<u8>)]| {
        let options = SaveOptions {
            source: Some(&source),
            files,
            ..SaveOptions::default()
        };
        save(&model, dir.path(), &options).unwrap();
        names.map(|name| fs::read_to_string(dir.path().join(name)).ok())
    };
    assert_eq!(found(&[]), names.map(|_| Some("old".to_owned())));
    let new = ("chat_template.jinja".to_owned(), b"new".to_vec());
    assert_eq!(found(&[new]), [Some("new".to_owned()), None, None]);
}

#[cfg(unix)]
#[test]
fn permissions_are_those_of_the_process_or_of_the_file_that_is_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let (old, new, source, _keep) = two_models();
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("plain"), "").unwrap();
    let plain = mode(&root.path().join("plain"));
    let dir = root.path().join("model");
    fs::create_dir(&dir).unwrap();
    // Everybody may write to the folder, but not to the files.
    set(&dir, 0o777);
    save_to(&dir, &old, Some(&source), usize::MAX);
    let files = || {
        let mut files = names(&dir);
        assert!(files.remove("additional_chat_templates"));
        files
    };
    for name in files() {
        assert_eq!(mode(&dir.join(&name)), plain, "{name}");
    }
    assert_eq!(mode(&dir), 0o777);
    // Private weights stay private, also if their files have other names.
    set(&dir, 0o750);
    set(&dir.join(shards::SINGLE), 0o600);
    set(&dir.join("config.json"), 0o640);
    for limit in [40_000, usize::MAX, 40_000] {
        save_to(&dir, &new, Some(&source), limit);
        for name in files() {
            let expected = match name.as_str() {
                "config.json" => 0o640,
                name if name.ends_with(".safetensors") => 0o600,
                _ => plain,
            };
            assert_eq!(mode(&dir.join(&name)), expected, "{name}");
        }
        assert_eq!(mode(&dir), 0o750);
    }
}

#[cfg(unix)]
#[test]
fn a_link_to_the_folder_stays_a_link() {
    let (old, new, ..) = two_models();
    let (root, dir) = old_folder(&old, usize::MAX);
    let link = root.path().join("latest");
    std::os::unix::fs::symlink("model", &link).unwrap();
    save_to(&link, &new, None, 40_000);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(names(&dir).contains(shards::INDEX));
    assert_eq!(content(&link), content(&dir));
    assert_eq!(names(root.path()).len(), 2);
}

#[test]
fn what_an_interrupted_save_left_is_not_followed_out_of_the_folder() {
    let (old, new, ..) = two_models();
    let (root, dir) = old_folder(&old, usize::MAX);
    let other = root.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("kept"), "").unwrap();
    fs::write(other.join(".lisa-replaced"), "").unwrap();
    #[cfg(unix)]
    for name in [dir.join(STAGING), root.path().join(".model.lisa-saving")] {
        std::os::unix::fs::symlink(&other, name).unwrap();
    }
    save_to(&dir, &new, None, usize::MAX);
    assert!(names(&other).contains("kept"));
    assert!(!dir.join(STAGING).exists());
}

/// The process that is killed by the test below.
#[cfg(unix)]
#[test]
#[ignore = "runs until it is killed"]
fn saves_without_end() {
    let dir = PathBuf::from(std::env::var("LISA_SAVE_DIR").unwrap());
    let (old, new, ..) = two_models();
    for limit in [20_000, usize::MAX, 40_000].into_iter().cycle() {
        save_to(&dir, &new, None, limit);
        save_to(&dir, &old, None, limit);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_that_is_killed_while_it_saves_leaves_one_of_its_models() {
    use std::os::unix::fs::MetadataExt;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use lisa::policy::DrawRng;

    let (old, new, ..) = two_models();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("model");
    save_to(&dir, &new, None, usize::MAX);
    let new = content(&dir).unwrap();
    save_to(&dir, &old, None, usize::MAX);
    let old = content(&dir).unwrap();
    let mut rng = DrawRng::new(20, 0);
    let mut seen = [0, 0];
    for round in 0..30 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["checkpoint::tests::saving::saves_without_end"])
            .args(["--exact", "--ignored"])
            .env("LISA_SAVE_DIR", &dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The process saves: the file was replaced once or twice.
        let file = || {
            fs::metadata(dir.join("config.json"))
                .ok()
                .map(|it| it.ino())
        };
        for _ in 0..=rng.below(2) {
            let before = file();
            while file() == before {
                assert!(child.try_wait().unwrap().is_none(), "round {round}");
                std::thread::yield_now();
            }
        }
        let (started, more) = (
            Instant::now(),
            Duration::from_millis(20).mul_f64(rng.unit()),
        );
        while started.elapsed() < more {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let found = content(&dir).expect("the folder always loads");
        assert!(found == old || found == new, "round {round}");
        seen[usize::from(found == new)] += 1;
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    save_to(&dir, &load(&dir).unwrap(), None, usize::MAX);
    assert_eq!(names(root.path()), BTreeSet::from(["model".to_owned()]));
}
