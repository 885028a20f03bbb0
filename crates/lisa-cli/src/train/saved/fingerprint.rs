//! [`Fingerprint`]: what a run was started with, so that a resumed run does not go on with another
//! model or other data.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};
use crc32c::{crc32c, crc32c_append};
use lisa_lm::{Checkpoint, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::train::data::visited::Rows;
use crate::user_error::UserError;

/// Bytes that are read from a file at once.
const BLOCK: u64 = 1 << 20;
/// Blocks of the weights that are read: 4 GiB. Of larger models, blocks at equal distances are read.
const BLOCKS: u64 = 4096;

/// Checksums (CRC-32C) of the model and of the data of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Fingerprint {
    config: u32,
    weights: u32,
    tokenizer: u32,
    chat_template: u32,
    training: Rows,
    held_out: Rows,
}

/// What a resumed run may have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// The configuration, weights, tokenizer or chat template of the base model.
    pub model: bool,
    /// The training data or the held-out data.
    pub data: bool,
    /// The folder of the run, so that it names files of another place.
    pub paths: bool,
}

impl Fingerprint {
    /// The fingerprint of a run with these rows. It reads at most 4 GiB of the weights.
    pub(crate) fn of(
        checkpoint: &Checkpoint,
        tokenizer: &Tokenizer,
        training: Rows,
        held_out: Rows,
    ) -> Result<Self> {
        Ok(Self {
            training,
            held_out,
            ..Self::of_model(checkpoint, tokenizer)?
        })
    }

    /// The fingerprint of a model, without data.
    pub(crate) fn of_model(checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Result<Self> {
        let path = checkpoint.dir().join("config.json");
        let config = lisa_lm::files::read_small_text(&path)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        // A tokenizer that cannot be written as text could not be read from one.
        let vocabulary = tokenizer.get_ref().to_string(false).unwrap_or_default();
        let special = format!("{:?}{:?}", tokenizer.special_tokens(), tokenizer.eos_ids());
        Ok(Self {
            config: crc32c(config.as_bytes()),
            weights: weights(checkpoint)?,
            tokenizer: crc32c_append(crc32c(vocabulary.as_bytes()), special.as_bytes()),
            chat_template: crc32c(tokenizer.chat_template().source().as_bytes()),
            training: Rows::default(),
            held_out: Rows::default(),
        })
    }

    /// As [`check`](Self::check), for what decides how the data is encoded: the configuration, the
    /// weights and the chat template.
    pub(crate) fn check_model(&self, run: &Self, allowed: Allowed) -> Result<()> {
        let model = Self {
            config: self.config,
            weights: self.weights,
            chat_template: self.chat_template,
            ..run.clone()
        };
        model.check(run, allowed).map(|_| ())
    }

    /// Whether both have the same training rows, in the same order.
    pub(crate) fn has_training_data_of(&self, run: &Self) -> bool {
        self.training == run.training
    }

    /// Whether both have the same held-out rows, in the same order.
    pub(crate) fn has_held_out_data_of(&self, run: &Self) -> bool {
        self.held_out == run.held_out
    }

    /// What differs of the model, as text.
    pub(crate) fn changes_of_model(&self, run: &Self) -> Vec<String> {
        [
            ("configuration", self.config, run.config),
            ("weights", self.weights, run.weights),
            ("tokenizer", self.tokenizer, run.tokenizer),
            ("chat template", self.chat_template, run.chat_template),
        ]
        .into_iter()
        .filter(|(_, now, then)| now != then)
        .map(|(what, _, _)| format!("the {what} of the model"))
        .collect()
    }

    /// Returns an error if the run was started with something else, unless that is allowed. The
    /// differences that are allowed, as text.
    pub(crate) fn check(&self, run: &Self, allowed: Allowed) -> Result<Vec<String>> {
        let model = self.changes_of_model(run);
        let data: Vec<String> = [
            ("training", self.training, run.training),
            ("held-out", self.held_out, run.held_out),
        ]
        .into_iter()
        .filter(|(_, now, then)| now != then)
        .map(|(what, now, then)| format!("the {what} data ({})", now.compared(then)))
        .collect();
        let mut refused = Vec::new();
        let mut flags = Vec::new();
        for (differences, is_allowed, flag) in [
            (&model, allowed.model, "model"),
            (&data, allowed.data, "data"),
        ] {
            if !differences.is_empty() && !is_allowed {
                refused.extend(differences.clone());
                flags.push(flag);
            }
        }
        if refused.is_empty() {
            return Ok([model, data].concat());
        }
        let message = format!(
            "cannot resume: since the run began, this has changed: {}",
            refused.join(", ")
        );
        let help = format!(
            "give the files that the run began with, or start a new run with another --out; to \
             go on with what there is now, add --allow-changed {}",
            flags.join(",")
        );
        Err(UserError::new(message).with_help(help).into())
    }
}

/// A checksum of the names, the sizes and the bytes of the weights.
fn weights(checkpoint: &Checkpoint) -> Result<u32> {
    let files = checkpoint.weight_files()?;
    let sizes: io::Result<Vec<u64>> = files
        .iter()
        .map(|file| Ok(file.metadata()?.len()))
        .collect();
    let sizes = sizes.with_context(|| format!("cannot read `{}`", checkpoint.dir().display()))?;
    let step = BLOCK * sizes.iter().sum::<u64>().div_ceil(BLOCK * BLOCKS).max(1);
    let mut checksum = 0;
    for (file, size) in files.iter().zip(sizes) {
        checksum = add(checksum, file, size, step)
            .with_context(|| format!("cannot read `{}`", file.display()))?;
    }
    Ok(checksum)
}

/// Adds a file: its name, its size, and a block at each multiple of `step`.
fn add(mut checksum: u32, path: &Path, size: u64, step: u64) -> io::Result<u32> {
    let name = path.file_name().unwrap_or_default();
    checksum = crc32c_append(checksum, name.as_encoded_bytes());
    checksum = crc32c_append(checksum, &size.to_le_bytes());
    let mut file = File::open(path)?;
    let mut block = Vec::new();
    for at in (0..size).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
        file.seek(SeekFrom::Start(at))?;
        block.clear();
        file.by_ref().take(BLOCK).read_to_end(&mut block)?;
        checksum = crc32c_append(checksum, &block);
    }
    Ok(checksum)
}

#[cfg(test)]
mod tests {
    use lisa_lm::text::Encoded;

    use super::*;
    use crate::train::data::visited::Visited;

    fn rows(of: &[&[u32]]) -> Rows {
        let rows = of.iter().map(|ids| Encoded::all_trained(ids.to_vec()));
        Visited::of(&rows.collect::<Vec<_>>().into()).unwrap().rows
    }

    fn fingerprint() -> Fingerprint {
        Fingerprint {
            config: 1,
            weights: 2,
            tokenizer: 3,
            chat_template: 4,
            training: rows(&[&[1, 2], &[3]]),
            held_out: Rows::default(),
        }
    }

    #[test]
    fn the_error_names_what_differs_and_the_flag() {
        let (run, none) = (fingerprint(), Allowed::default());
        assert_eq!(run.check(&run, none).unwrap(), Vec::<String>::new());
        let now = Fingerprint {
            weights: 9,
            training: rows(&[&[1, 2]]),
            held_out: rows(&[&[1]]),
            ..fingerprint()
        };
        let refused = |allowed| {
            let error = now.check(&run, allowed).unwrap_err();
            let error = error.downcast::<UserError>().unwrap();
            (error.to_string(), error.help().unwrap().to_owned())
        };
        let (message, help) = refused(none);
        assert_eq!(
            message,
            "cannot resume: since the run began, this has changed: the weights of the model, the \
             training data (1 row of 2 tokens now, 2 rows of 3 tokens then), the held-out data (1 \
             row of 1 token now, 0 rows of 0 tokens then)"
        );
        assert!(help.ends_with("--allow-changed model,data"), "{help}");
        let data = Allowed {
            data: true,
            model: false,
            paths: false,
        };
        let (message, help) = refused(data);
        assert!(
            message.ends_with("changed: the weights of the model"),
            "{message}"
        );
        assert!(help.ends_with("--allow-changed model"), "{help}");
        let both = Allowed {
            data: true,
            model: true,
            paths: false,
        };
        assert_eq!(now.check(&run, both).unwrap().len(), 3);
        let moved = Fingerprint {
            training: rows(&[&[3], &[1, 2]]),
            ..fingerprint()
        };
        let message = moved.check(&run, none).unwrap_err().to_string();
        assert!(
            message.contains("2 rows of 3 tokens, with other tokens or in another order"),
            "{message}"
        );
    }

    #[test]
    fn blocks_of_a_file_are_read_at_equal_distances() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut bytes = vec![0; 3 * BLOCK as usize + 5];
        let checksum = |bytes: &[u8], step| {
            std::fs::write(&path, bytes).unwrap();
            add(0, &path, bytes.len() as u64, step).unwrap()
        };
        let (whole, some) = (checksum(&bytes, BLOCK), checksum(&bytes, 2 * BLOCK));
        // In the second block, which the second sum leaves out, and at the end.
        bytes[BLOCK as usize + 1] = 1;
        assert_ne!(checksum(&bytes, BLOCK), whole);
        assert_eq!(checksum(&bytes, 2 * BLOCK), some);
        bytes[2 * BLOCK as usize + 1] = 1;
        assert_ne!(checksum(&bytes, 2 * BLOCK), some);
        bytes[3 * BLOCK as usize + 4] = 1;
        assert_ne!(checksum(&bytes, BLOCK), whole);
    }
}
