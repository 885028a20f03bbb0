//! [`read`]: the float tensors of a safetensors file that also has dtypes which Burn does not have,
//! such as float8 or complex numbers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use burn::store::bridge::deferred;
use burn::store::burn_pack::{Error as PackError, Tensor as PackTensor};
use burn::tensor::{DType, Shape, TensorData};
use serde::Deserialize;
use serde_json::Value;

/// A tensor of a file.
#[derive(Debug)]
pub(super) enum Found {
    /// Its data is read on demand.
    Tensor(PackTensor),
    /// It has this dtype, which is not read.
    Other(String),
}

/// What the header says about a tensor.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// The tensors of a file with their names.
///
/// The file must be valid: safetensors' own reader has checked its header.
pub(super) fn read(path: &Path) -> io::Result<Vec<(String, Found)>> {
    let mut file = File::open(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header)?;
    let header: BTreeMap<String, Value> = serde_json::from_slice(&header)?;
    let mut found = Vec::new();
    for (name, entry) in header {
        if name == "__metadata__" {
            continue;
        }
        let entry: Entry = serde_json::from_value(entry)?;
        let dtype = match entry.dtype.as_str() {
            "F64" => DType::F64,
            "F32" => DType::F32,
            "F16" => DType::F16,
            "BF16" => DType::BF16,
            _ => {
                found.push((name, Found::Other(entry.dtype)));
                continue;
            }
        };
        let [start, end] = entry.data_offsets;
        let shape = Shape::from(entry.shape);
        let (path, of_data) = (path.to_owned(), shape.clone());
        let data = move || {
            let bytes = bytes(&path, 8 + length + start, end.saturating_sub(start));
            let bytes = bytes.map_err(|e| PackError::IoError(e.to_string()))?;
            Ok(TensorData::from_bytes_vec(bytes, of_data.clone(), dtype))
        };
        let tensor = deferred(name.clone(), dtype, shape, None, data);
        found.push((name, Found::Tensor(tensor)));
    }
    Ok(found)
}

/// So many bytes of a file.
fn bytes(path: &Path, start: u64, count: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(count).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == count {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
