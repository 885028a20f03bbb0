//! Weights that are not read: the other formats that a folder may have, and what to do about them.

use std::path::Path;

use crate::error::{Error, ErrorKind};
use crate::files::shown;

/// What a file says about the format of a folder.
struct Format {
    /// The beginnings and the ends of the file's name.
    names: &'static [(&'static str, &'static str)],
    /// The format, for the message.
    is: &'static str,
    help: Help,
}

enum Help {
    Say(&'static str),
    /// transformers reads the folder, and saves it as safetensors.
    Convert,
}

/// The formats; the first that a file of the folder has counts.
const FORMATS: [Format; 8] = [
    Format {
        names: &[("adapter_", ".safetensors")],
        is: "an adapter without its base model",
        help: Help::Say("merge it into its base model first: `merge_and_unload()` of PEFT"),
    },
    Format {
        names: &[
            ("pytorch_model", ".bin"),
            ("pytorch_model", ".bin.index.json"),
        ],
        is: "PyTorch's pickle format, which can run code",
        help: Help::Convert,
    },
    Format {
        names: &[("", ".gguf")],
        is: "GGUF",
        help: Help::Say("get the safetensors that the GGUF file was made from"),
    },
    Format {
        names: &[("consolidated", "")],
        is: "the format of the model's authors, with other names of tensors",
        help: Help::Say("get the files `model*.safetensors` of the same model"),
    },
    Format {
        names: &[("model-", ".safetensors")],
        is: "shards without their index, model.safetensors.index.json",
        help: Help::Say("get the index, which says which tensor is in which file"),
    },
    Format {
        names: &[("", ".safetensors")],
        is: "safetensors under another name",
        help: Help::Say("rename the file to model.safetensors"),
    },
    Format {
        names: &[("tf_model", ".h5")],
        is: "TensorFlow's format",
        help: Help::Say(OTHER),
    },
    Format {
        names: &[("flax_model", ".msgpack")],
        is: "Flax's format",
        help: Help::Say(OTHER),
    },
];

const OTHER: &str = "get the safetensors of the same model";

/// The ends of the names of tensors that only quantized checkpoints have.
const QUANTIZED: [&str; 8] = [
    ".qweight",
    ".qzeros",
    ".weight_packed",
    ".weight_scale",
    ".weight_scale_inv",
    ".absmax",
    ".SCB",
    ".weight_shape",
];

/// The error of a folder without weights that can be read. It says which others the folder has.
pub(super) fn no_weights(dir: &Path, missing: &str) -> Error {
    let message = format!("{} has {missing}", dir.display());
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort();
    let found = FORMATS.iter().find_map(|format| {
        let fits = |name: &&String| {
            let mut ends = format.names.iter();
            ends.any(|(start, end)| name.starts_with(start) && name.ends_with(end))
        };
        Some((names.iter().find(fits)?, format))
    });
    let Some((name, format)) = found else {
        return Error::new(ErrorKind::Checkpoint, message).with_help(
            "give a folder in the Hugging Face format, with config.json and safetensors",
        );
    };
    let help = match format.help {
        Help::Say(help) => help.to_owned(),
        Help::Convert => format!(
            "convert it: python -c \"from transformers import AutoModelForCausalLM as M; \
             M.from_pretrained('{0}').save_pretrained('{0}')\"",
            dir.display()
        ),
    };
    let name = shown(&name.escape_debug());
    let message = format!("{message}; it has {name}: {}", format.is);
    Error::new(ErrorKind::Checkpoint, message).with_help(help)
}

/// The first of these names that only a quantized checkpoint has.
pub(super) fn quantized<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names.find(|name| QUANTIZED.iter().any(|end| name.ends_with(end)))
}
