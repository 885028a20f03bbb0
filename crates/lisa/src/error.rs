//! [`LisaError`]: the one error type of the project.
//!
//! A message says what was asked, what was found, and what to do. The kind is for programs, the
//! message for people. Tests: at the foot of each file that returns one.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use crate::explain::Place;

/// What part of the work an error belongs to.
///
/// # Example
///
/// ```
/// # use burn::nn::LinearConfig;
/// # use burn::optim::SgdConfig;
/// # use burn::tensor::Device;
/// # let device = Device::flex().autodiff();
/// # let layers: Vec<_> = (0..3).map(|_| LinearConfig::new(2, 2).init(&device)).collect();
/// # #[derive(burn::module::Module, Debug)]
/// # struct Model { layers: Vec<burn::nn::Linear> }
/// # let model = Model { layers };
/// use lisa::{ErrorKind, LisaConfig, LisaError, PolicyConfig};
///
/// // What a program exits with.
/// let code = |error: LisaError| match error.kind() {
///     ErrorKind::Config | ErrorKind::Policy => 2,
///     _ => 1,
/// };
/// let refused = |config: LisaConfig| config.init(SgdConfig::new().build(), model.clone()).err();
/// let fixed = LisaConfig::new().with_policy(PolicyConfig::Fixed(vec![7]));
/// assert_eq!(refused(fixed).map(code), Some(2));
/// let elsewhere = LisaConfig::new().with_layers(vec!["decoder.layers".into()]);
/// assert_eq!(refused(elsewhere).map(code), Some(1));
/// assert_eq!(ErrorKind::Policy.to_string(), "sampling policy");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is out of range or contradicts another one.
    Config,
    /// The stack of layers was not found, is ambiguous, or cannot be used.
    Layers,
    /// A sampling policy cannot draw from these layers.
    Policy,
    /// A record cannot be read, or belongs to another run.
    Record,
    /// A model checkpoint cannot be read or written.
    Checkpoint,
    /// A model's configuration asks for something that is not supported.
    Model,
    /// A tokenizer or chat template cannot be read or used.
    Tokenizer,
    /// Training data cannot be read or used.
    Data,
    /// A gradient or loss is not a number or infinite.
    Gradient,
    /// The operating system refused a file operation.
    Io,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "configuration",
            Self::Layers => "layers",
            Self::Policy => "sampling policy",
            Self::Record => "record",
            Self::Checkpoint => "checkpoint",
            Self::Model => "model",
            Self::Tokenizer => "tokenizer",
            Self::Data => "data",
            Self::Gradient => "gradient",
            Self::Io => "file",
        })
    }
}

/// An error that a user can cause: opaque, with a [kind](ErrorKind) and a message.
///
/// # Example
///
/// ```
/// use lisa::{ErrorKind, LisaError};
///
/// let error = LisaError::new(ErrorKind::Config, "the sampling period is 0; give at least 1");
/// assert_eq!(error.kind(), ErrorKind::Config);
/// assert_eq!(error.to_string(), "configuration: the sampling period is 0; give at least 1");
///
/// // Of a file, with what the operating system said.
/// let cause = std::fs::read("no-such-file").unwrap_err();
/// let error = LisaError::new(ErrorKind::Io, "cannot read the data").with_source(cause);
/// assert!(std::error::Error::source(&error).is_some());
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct LisaError {
    kind: ErrorKind,
    message: String,
    place: Option<Place>,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl LisaError {
    /// An error of this kind. `message` says what was asked, what was found, and, behind a `; `,
    /// what to do ([`Explained`](crate::Explained) puts that on a line of its own).
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            place: None,
            source: None,
        }
    }

    /// Says which line of which file is at fault.
    #[must_use]
    pub fn with_place(mut self, file: impl Into<PathBuf>, line: Option<usize>) -> Self {
        let file = file.into();
        self.place = Some(Place { file, line });
        self
    }

    /// Keeps the error that caused this one; `std::error::Error::source` returns it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What part of the work the error belongs to.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message without the kind in front of it.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Which line of which file is at fault, where that is known.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }
}
