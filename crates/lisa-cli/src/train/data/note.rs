//! [`Note`]: what is printed of how the data is read.

use std::io::Result;

use crate::terminal::output::{say, warn};

/// A text for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    Info(String),
    Warning(String),
}

impl Note {
    /// Prints the text.
    pub(crate) fn print(&self) -> Result<()> {
        match self {
            Self::Info(text) => say(text)?,
            Self::Warning(text) => warn(text),
        }
        Ok(())
    }
}
