//! [`refuse`]: files that are known by their first bytes and are not read.

use std::path::Path;

use crate::error::{Error, ErrorKind};

/// The first bytes of such files, what the files are, and what to do. The first entry that fits
/// counts: UTF-32 begins as UTF-16 does.
const KNOWN: [(&[u8], &str, &str); 15] = [
    (
        b"\x28\xb5\x2f\xfd",
        "compressed with zstd",
        "decompress it with `zstd -d FILE`",
    ),
    (
        b"\xfd7zXZ",
        "compressed with xz",
        "decompress it with `xz -d FILE`",
    ),
    (
        b"BZh",
        "compressed with bzip2",
        "decompress it with `bzip2 -d FILE`",
    ),
    (
        b"PK\x03\x04",
        "a zip archive",
        "unpack it with `unzip FILE`, or save it as CSV if it is a table of Excel",
    ),
    (
        b"PAR1",
        "a Parquet file that is compressed again",
        "decompress it with `gzip -d FILE`",
    ),
    (
        b"ARROW1",
        "an Arrow file",
        "convert it in Python: `import pandas; \
         pandas.read_feather('FILE').to_parquet('train.parquet')`",
    ),
    (
        b"\xff\xff\xff\xff",
        "an Arrow stream",
        "convert it in Python: `import datasets; \
         datasets.Dataset.from_file('FILE').to_parquet('train.parquet')`",
    ),
    (b"\xff\xfe\0\0", "text in UTF-32", UTF_32),
    (b"\0\0\xfe\xff", "text in UTF-32", UTF_32),
    (b"\xff\xfe", "text in UTF-16", UTF_16),
    (b"\xfe\xff", "text in UTF-16", UTF_16),
    (
        b"version https://git-lfs",
        "a pointer of Git LFS",
        "fetch the file that it stands for, with `git lfs pull`",
    ),
    (b"<!DOCTYPE", "a web page", PAGE),
    (b"<!doctype", "a web page", PAGE),
    (b"<html", "a web page", PAGE),
];

const UTF_16: &str = "convert it with `iconv -f UTF-16 -t UTF-8 FILE`";
const UTF_32: &str = "convert it with `iconv -f UTF-32 -t UTF-8 FILE`";
const PAGE: &str =
    "fetch the file again, by the address of the file and not of the page that shows it";

/// Returns an error if a file with these first bytes is not read.
pub(super) fn refuse(file: &Path, first: &[u8]) -> Result<(), Error> {
    // A web page may begin with empty lines.
    let first = first.trim_ascii_start();
    let known = KNOWN.iter().find(|(magic, ..)| first.starts_with(magic));
    let Some((_, what, help)) = known else {
        return Ok(());
    };
    let message = format!("it is {what}, which is not read");
    Err(Error::new(ErrorKind::Data, message)
        .with_place(file, None)
        .with_help(help.replace("FILE", &file.display().to_string())))
}
