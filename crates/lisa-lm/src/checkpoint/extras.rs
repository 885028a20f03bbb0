//! The other files of a saved folder: copies of the source's files, and the weights of an earlier
//! save.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::shards::{INDEX, SINGLE};
use crate::error::Error;
use crate::files::{TOKENIZER_BYTES, read};
use crate::files::{failed, write_atomically};

/// The files that a checkpoint has besides its weights and its configuration.
const COPIED: [&str; 17] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
    "NOTICE.txt",
    "USE_POLICY.md",
];

/// Copies the tokenizer, the licence and similar files from one folder to another.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    if is_same(from, to) {
        return Ok(());
    }
    for name in COPIED {
        let bytes =
            read(from, name, TOKENIZER_BYTES).map_err(|e| failed("copy", &from.join(name), e))?;
        if let Some(bytes) = bytes {
            write_atomically(&to.join(name), &bytes)?;
        }
    }
    Ok(())
}

/// Removes the weights of an earlier save from this folder, except these files.
pub(super) fn remove_stale(dir: &Path, files: &BTreeSet<String>) -> Result<(), Error> {
    let entries = fs::read_dir(dir).map_err(|e| failed("read", dir, e))?;
    for entry in entries {
        let entry = entry.map_err(|e| failed("read", dir, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_weights = name == SINGLE || name == INDEX || is_shard(&name);
        if is_weights && !files.contains(&name) {
            fs::remove_file(entry.path()).map_err(|e| failed("remove", &entry.path(), e))?;
        }
    }
    Ok(())
}

/// `model-00001-of-00002.safetensors`.
fn is_shard(name: &str) -> bool {
    let indices = name
        .strip_prefix("model-")
        .and_then(|rest| rest.strip_suffix(".safetensors"));
    indices
        .and_then(|indices| indices.split_once("-of-"))
        .is_some_and(|(number, count)| {
            [number, count]
                .iter()
                .all(|part| part.len() == 5 && part.bytes().all(|b| b.is_ascii_digit()))
        })
}

fn is_same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
