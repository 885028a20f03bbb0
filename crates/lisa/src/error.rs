//! [`LisaError`], the error of the library, and [`StepError`], which gives the model back.

use std::error::Error;
use std::fmt;

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is out of range or contradicts another one.
    Config,
    /// The stack of layers was not found, is ambiguous, or is not the one of this run.
    Layers,
    /// A sampling policy cannot sample these layers, or returned invalid layers.
    Policy,
    /// A record is damaged, cannot be made, or belongs to another run.
    Record,
    /// A gradient is NaN or infinite.
    Gradient,
    /// The operating system refused a file operation: no such file, no permission, no space.
    Io,
}

impl ErrorKind {
    /// The kind of an error of a burnpack file.
    pub(crate) fn of_pack(error: &burn_pack::Error) -> Self {
        match error {
            burn_pack::Error::IoError(_) => Self::Io,
            _ => Self::Record,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "configuration",
            Self::Layers => "layers",
            Self::Policy => "sampling policy",
            Self::Record => "record",
            Self::Gradient => "gradient",
            Self::Io => "file",
        })
    }
}

/// An error that a user can cause.
///
/// The type is opaque: read it through [`kind`](Self::kind), [`message`](Self::message) and
/// [`help`](Self::help). `Display` prints the three on one line.
///
/// # Example
///
/// ```
/// use lisa::{ErrorKind, LisaError};
///
/// let error = LisaError::new(ErrorKind::Config, "sampling_period is 0 steps")
///     .with_help("set it to at least 1");
/// assert_eq!(error.kind(), ErrorKind::Config);
/// assert_eq!(error.message(), "sampling_period is 0 steps");
/// assert_eq!(error.help(), Some("set it to at least 1"));
/// assert_eq!(
///     error.to_string(),
///     "configuration: sampling_period is 0 steps; set it to at least 1"
/// );
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{kind}: {message}{}", help.as_ref().map(|help| format!("; {help}")).unwrap_or_default())]
pub struct LisaError {
    kind: ErrorKind,
    message: String,
    help: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl LisaError {
    /// An error of this kind. `message` says what was asked and what was found.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            help: None,
            source: None,
        }
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Keeps the error that caused this one; `std::error::Error::source` returns it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the error is about.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was asked and what was found, without the kind and the help.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What the user can do about it, if the error has such help.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Puts `context` and a colon before the message.
    pub(crate) fn within(mut self, context: &str) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

/// The error of a step, with the model.
///
/// A step takes the model by value, so its error gives the model back. `?` turns it into a
/// [`LisaError`] if the model is not needed.
///
/// # Example
///
/// ```
/// # use burn::module::Module;
/// # use burn::nn::{Linear, LinearConfig};
/// # use burn::optim::{AdamWConfig, GradientsParams};
/// # use burn::tensor::Device;
/// # #[derive(Module, Debug)]
/// # struct Model { layers: Vec<Linear> }
/// # let device = Device::flex().autodiff();
/// # let new = |layers| Model {
/// #     layers: (0..layers).map(|_| LinearConfig::new(2, 2).init(&device)).collect(),
/// # };
/// use lisa::{ErrorKind, LisaConfig};
///
/// let (mut lisa, _model) = LisaConfig::new().init(AdamWConfig::new(), new(4))?;
/// // A model with another number of layers.
/// let error = lisa.try_step(1e-3, new(5), GradientsParams::new()).unwrap_err();
/// assert_eq!(error.error().kind(), ErrorKind::Layers);
/// assert!(!error.is_updated());
/// assert_eq!(error.into_model().layers.len(), 5);
/// # Ok::<(), lisa::LisaError>(())
/// ```
pub struct StepError<M>(Box<Failed<M>>);

// In a box, so that the `Result` of a step is no larger than the model.
struct Failed<M> {
    model: M,
    error: LisaError,
    updated: bool,
}

impl<M> StepError<M> {
    pub(crate) fn new(model: M, error: LisaError, updated: bool) -> Self {
        Self(Box::new(Failed {
            model,
            error,
            updated,
        }))
    }

    /// What went wrong.
    #[must_use]
    pub fn error(&self) -> &LisaError {
        &self.0.error
    }

    /// Whether the step changed parameters before it failed. The message says which.
    #[must_use]
    pub fn is_updated(&self) -> bool {
        self.0.updated
    }

    /// The model. It is updated if [`is_updated`](Self::is_updated) is true. Otherwise its weights are
    /// those that were given; a layered step may have frozen parameters that required gradients but do
    /// not train in this period.
    #[must_use]
    pub fn into_model(self) -> M {
        self.0.model
    }

    /// The model and the error.
    #[must_use]
    pub fn into_parts(self) -> (M, LisaError) {
        (self.0.model, self.0.error)
    }
}

impl<M> From<StepError<M>> for LisaError {
    fn from(error: StepError<M>) -> Self {
        error.0.error
    }
}

impl<M> fmt::Debug for StepError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepError")
            .field("error", &self.0.error)
            .field("updated", &self.0.updated)
            .finish_non_exhaustive()
    }
}

impl<M> fmt::Display for StepError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.error.fmt(f)
    }
}

impl<M> Error for StepError<M> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.error.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_its_fields_and_its_source() {
        let cause = std::io::Error::other("disk full");
        let error = LisaError::new(ErrorKind::Record, "cannot save `x`").with_source(cause);
        assert_eq!(error.kind(), ErrorKind::Record);
        assert_eq!((error.message(), error.help()), ("cannot save `x`", None));
        assert_eq!(error.to_string(), "record: cannot save `x`");
        assert_eq!(error.source().unwrap().to_string(), "disk full");
        let helped = error.with_help("free some space");
        assert_eq!(helped.help(), Some("free some space"));
        assert_eq!(
            helped.to_string(),
            "record: cannot save `x`; free some space"
        );
    }

    #[test]
    fn a_step_error_gives_the_model_back() {
        let error = || StepError::new(7, LisaError::new(ErrorKind::Layers, "another model"), true);
        assert!(error().is_updated());
        assert_eq!(error().into_model(), 7);
        assert_eq!(error().to_string(), "layers: another model");
        assert_eq!(LisaError::from(error()).kind(), ErrorKind::Layers);
    }
}
