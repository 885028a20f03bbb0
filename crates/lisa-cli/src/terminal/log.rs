//! [`log_to_stderr`]: what the libraries log, on standard error.

use std::io::Write;

use env_logger::{Builder, Env};
use log::Level;

use super::text::printable;

/// Prints warnings and errors that are logged; `RUST_LOG` changes what is printed. Control
/// characters are escaped, since messages quote files.
///
/// # Panics
///
/// If it is called twice.
pub fn log_to_stderr() {
    Builder::from_env(Env::default().default_filter_or("warn"))
        .format(|out, record| {
            let level = match record.level() {
                Level::Warn => "warning".to_owned(),
                level => level.as_str().to_lowercase(),
            };
            let style = out.default_level_style(record.level());
            let message = printable(&record.args().to_string());
            writeln!(out, "{style}{level}{style:#}: {message}")
        })
        .init();
}
