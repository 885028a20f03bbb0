//! Parquet, by the row interface of the crate `parquet`.
//!
//! A null inside of a column counts as absent: all rows of a column have the keys of any of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use minijinja::value::Value;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::TreeBuilder;
use parquet::record::{Field, Row as Record};

use super::{Row, Rows};
use crate::error::{Error, ErrorKind};
use crate::files::shown;
use crate::place::Place;

/// The rows of a file, one group of rows after the other.
pub(super) fn rows(path: Arc<Path>, file: File) -> Result<Rows, Error> {
    let at = Arc::clone(&path);
    let reader = guarded(&path, || SerializedFileReader::new(file))?;
    refuse_codecs(&path, &reader)?;
    refuse_equal_names(&path, &reader)?;
    let schema = reader.metadata().file_metadata().schema_descr_ptr();
    let groups = (0..reader.num_row_groups()).flat_map(move |group| {
        let open = || {
            let group = reader.get_row_group(group)?;
            TreeBuilder::new().as_iter(Arc::clone(&schema), &*group)
        };
        let (records, error) = match guarded(&at, open) {
            Ok(records) => (Some(records), None),
            Err(error) => (None, Some(Err(error))),
        };
        let at = Arc::clone(&at);
        let mut records = records.into_iter().flatten();
        let records =
            std::iter::from_fn(move || guarded(&at, || records.next().transpose()).transpose());
        records.chain(error)
    });
    Ok(Box::new(groups.enumerate().map(move |(index, record)| {
        Ok(Row {
            place: Place::at_row(Arc::clone(&path), index + 1),
            value: row_of(record?),
        })
    })))
}

/// Runs code of the crate `parquet`, which panics on some damaged files.
fn guarded<T>(path: &Path, code: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, Error> {
    let reason = match catch_unwind(AssertUnwindSafe(code)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the file is damaged".to_owned(),
    };
    let message = format!("the Parquet file cannot be read: {reason}");
    Err(Error::new(ErrorKind::Data, message)
        .with_place(path, None)
        .with_help("fetch the file again"))
}

fn refuse_codecs(path: &Path, reader: &SerializedFileReader<File>) -> Result<(), Error> {
    let groups = reader.metadata().row_groups().iter();
    let mut codecs =
        groups.flat_map(|group| group.columns().iter().map(ColumnChunkMetaData::compression));
    let is_other = |codec: &Compression| matches!(codec, Compression::ZSTD(_) | Compression::LZO);
    let Some(codec) = codecs.find(is_other) else {
        return Ok(());
    };
    let name = match codec {
        Compression::ZSTD(_) => "zstd",
        _ => "lzo",
    };
    let file = path.display();
    Err(Error::new(
        ErrorKind::Data,
        format!("its columns are compressed with {name}, which is not read"),
    )
    .with_place(path, None)
    .with_help(format!(
        "compress them with snappy, in Python: `import pandas; \
         pandas.read_parquet('{file}').to_parquet('snappy.parquet')`"
    )))
}

fn refuse_equal_names(path: &Path, reader: &SerializedFileReader<File>) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    let mut columns = reader
        .metadata()
        .file_metadata()
        .schema()
        .get_fields()
        .iter();
    let Some(twice) = columns.find(|column| !seen.insert(column.name().to_owned())) else {
        return Ok(());
    };
    let message = format!("the file has the column {:?} twice", shown(&twice.name()));
    Err(Error::new(ErrorKind::Data, message)
        .with_place(path, None)
        .with_help("give each column a name of its own"))
}

/// A row with all of its columns.
fn row_of(record: Record) -> Result<Value, String> {
    let columns = record.into_columns().into_iter();
    let columns = columns.map(|(name, field)| {
        let value = value_of(field).map_err(|reason| format!("`{name}` {reason}"))?;
        Ok::<_, String>((name, value))
    });
    Ok(columns
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .collect())
}

fn object_of(record: Record) -> Result<Value, String> {
    let mut fields = Vec::new();
    for (name, field) in record.into_columns() {
        if field != Field::Null {
            let value = value_of(field).map_err(|reason| format!("`{name}` {reason}"))?;
            fields.push((name, value));
        }
    }
    Ok(fields.into_iter().collect())
}

fn value_of(field: Field) -> Result<Value, String> {
    Ok(match field {
        Field::Null => Value::from(()),
        Field::Bool(value) => Value::from(value),
        Field::Byte(value) => Value::from(value),
        Field::Short(value) => Value::from(value),
        Field::Int(value) | Field::Date(value) | Field::TimeMillis(value) => Value::from(value),
        Field::Long(value)
        | Field::TimeMicros(value)
        | Field::TimestampMillis(value)
        | Field::TimestampMicros(value) => Value::from(value),
        Field::UByte(value) => Value::from(value),
        Field::UShort(value) => Value::from(value),
        Field::UInt(value) => Value::from(value),
        Field::ULong(value) => Value::from(value),
        Field::Float16(value) => Value::from(value.to_f32()),
        Field::Float(value) => Value::from(value),
        Field::Double(value) => Value::from(value),
        Field::Str(text) => Value::from(text),
        // Some writers leave out that a column is text.
        Field::Bytes(bytes) => match bytes.as_utf8() {
            Ok(text) => Value::from(text),
            Err(_) => Value::from_bytes(bytes.data().to_vec()),
        },
        // The crate writes a point after the digits also if no digit follows.
        decimal @ Field::Decimal(_) => Value::from(decimal.to_string().trim_end_matches('.')),
        Field::Group(record) => object_of(record)?,
        Field::ListInternal(list) => {
            let elements = list.elements().iter().cloned().map(value_of);
            elements.collect::<Result<Vec<_>, _>>()?.into()
        }
        Field::MapInternal(map) => {
            let mut fields = Vec::new();
            for (key, value) in map.entries().iter().cloned() {
                fields.push((value_of(key)?.to_string(), value_of(value)?));
            }
            fields.into_iter().collect()
        }
    })
}
