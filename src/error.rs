//! What went wrong, where, and what to try.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::DType;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What kind of thing went wrong. Match on this; read the rest.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The operating system refused to read or write.
    Io,
    /// The bytes are not the format they should be.
    FileFormat,
    /// A readable file that holds no text encoder this crate knows.
    UnknownLayout,
    /// A tensor that the text encoder needs is not there.
    MissingTensor,
    /// A tensor has a shape that no encoder of its kind has.
    TensorShape,
    /// A tensor has a data type or values that cannot be used as weights.
    TensorValue,
    /// A vocabulary or merges file is broken.
    Vocabulary,
    /// A textual-inversion embedding cannot be used.
    Embedding,
    /// A LoRA cannot be used.
    Lora,
    /// Two things that must belong together do not.
    Mismatch,
    /// A request asks for something that makes no sense for these weights.
    Request,
    /// A prompt that was to be read strictly has a mistake.
    Prompt,
    /// The device or its libraries failed.
    Device,
    /// A model hub could not be reached, or what it sent is wrong.
    Hub,
    /// This build, or this version, cannot do it.
    Unsupported,
    /// A workflow is broken.
    Workflow,
    /// A workflow needs a node that is not known.
    UnsupportedNode,
    /// The caller asked for an end before the work was done.
    Stopped,
}

/// The most characters of a name that an error repeats, and of all that it says: names come from files,
/// which may have any.
const LONGEST_NAME: usize = 200;
const LONGEST_MESSAGE: usize = 4000;

/// A text that is safe to print: no control characters but ends of lines, which a terminal would obey,
/// and so many characters at most.
fn shown(text: String, longest: usize) -> String {
    let is_plain = |one: char| !one.is_control() || one == '\n';
    if text.len() <= longest && text.chars().all(is_plain) {
        return text;
    }
    let mut safe = String::new();
    for (count, one) in text.chars().enumerate() {
        if count == longest {
            safe.push('…');
            break;
        }
        if is_plain(one) {
            safe.push(one);
        } else {
            safe.extend(one.escape_default());
        }
    }
    safe
}

/// A name from a file, in one line and not too long.
pub(crate) fn named(name: &str) -> String {
    shown(name.to_owned(), LONGEST_NAME).replace('\n', "\\n")
}

/// A sentence with names from a file in it, in one line.
pub(crate) fn noted(note: impl Into<String>) -> String {
    shown(note.into(), LONGEST_MESSAGE).replace('\n', "\\n")
}

/// The one error of this crate: a kind to match, a place to look, a hint to try.
///
/// ```
/// use sd_conditioner::{Conditioner, ErrorKind};
/// let error = Conditioner::open("no-such-file.safetensors").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Io);
/// assert!(error.path().is_some());
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    path: Option<PathBuf>,
    tensor: Option<String>,
    node: Option<String>,
    request: Option<usize>,
    span: Option<Range<usize>>,
    hint: Option<String>,
    source: Option<Source>,
}

impl Error {
    /// An error of `kind`; the message says what was expected and what was found.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            kind,
            message: shown(message.into(), LONGEST_MESSAGE),
            path: None,
            tensor: None,
            node: None,
            request: None,
            span: None,
            hint: None,
            source: None,
        }))
    }

    /// A failed read or write at `path`.
    pub fn io(path: impl Into<PathBuf>, error: std::io::Error) -> Error {
        Error::new(ErrorKind::Io, error.to_string())
            .at_path(path)
            .because(error)
    }

    /// Names the file or folder. The innermost name given first is kept.
    #[must_use]
    pub fn at_path(mut self, path: impl Into<PathBuf>) -> Error {
        self.0.path.get_or_insert_with(|| path.into());
        self
    }

    /// Names another place than `from` where the file lies there.
    #[must_use]
    pub(crate) fn told_of(mut self, from: &Path, to: &Path) -> Error {
        let below = self
            .0
            .path
            .as_ref()
            .and_then(|path| path.strip_prefix(from).ok());
        if let Some(below) = below.map(Path::to_path_buf) {
            let is_all = below == Path::new("");
            self.0.path = Some(if is_all {
                to.to_owned()
            } else {
                to.join(below)
            });
        }
        self
    }

    /// Names the tensor, as the file spells it; of long names the beginning.
    #[must_use]
    pub fn at_tensor(mut self, name: impl Into<String>) -> Error {
        self.0.tensor.get_or_insert_with(|| named(&name.into()));
        self
    }

    /// Names the workflow node.
    #[must_use]
    pub fn at_node(mut self, node: impl Into<String>) -> Error {
        self.0.node.get_or_insert_with(|| named(&node.into()));
        self
    }

    /// Says which of several requests is meant, counted from 0.
    #[must_use]
    pub fn at_request(mut self, place: usize) -> Error {
        self.0.request.get_or_insert(place);
        self
    }

    /// Gives the bytes of the prompt that are meant.
    #[must_use]
    pub fn at_span(mut self, span: Range<usize>) -> Error {
        self.0.span.get_or_insert(span);
        self
    }

    /// Says what to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        let hint = || shown(hint.into(), LONGEST_MESSAGE);
        self.0.hint.get_or_insert_with(hint);
        self
    }

    /// Keeps the cause, reachable by [`std::error::Error::source`]. Which type it has is no promise.
    #[must_use]
    pub fn because(mut self, source: impl Into<Source>) -> Error {
        self.0.source.get_or_insert_with(|| source.into());
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What went wrong, without place and hint.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The file or folder that is meant.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The tensor that is meant.
    pub fn tensor(&self) -> Option<&str> {
        self.0.tensor.as_deref()
    }

    /// The workflow node that is meant.
    pub fn node(&self) -> Option<&str> {
        self.0.node.as_deref()
    }

    /// Which of several requests is meant, counted from 0.
    pub fn request(&self) -> Option<usize> {
        self.0.request
    }

    /// The bytes of the prompt that are meant.
    pub fn span(&self) -> Option<Range<usize>> {
        self.0.span.clone()
    }

    /// What to try.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        if let Some(place) = inner.request {
            write!(f, "requests[{place}]: ")?;
        }
        if let Some(path) = &inner.path {
            write!(f, "{}: ", noted(path.display().to_string()))?;
        }
        if let Some(node) = &inner.node {
            write!(f, "node {node}: ")?;
        }
        if let Some(tensor) = &inner.tensor {
            write!(f, "tensor `{tensor}`: ")?;
        }
        if let Some(span) = &inner.span {
            write!(f, "prompt bytes {}..{}: ", span.start, span.end)?;
        }
        f.write_str(&inner.message)?;
        if let Some(hint) = &inner.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0
            .source
            .as_ref()
            .map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}

/// A name that is none of those `known`.
pub(crate) fn unknown_name(what: &str, name: &str, known: &[&str]) -> Error {
    let message = format!("no {what} is called {name:?}");
    Error::new(ErrorKind::Request, message).hint(format!("take one of {}", known.join(", ")))
}

/// Refuses a type that `what` cannot have.
pub(crate) fn expect_type(what: &str, dtype: DType, known: &[DType]) -> Result<()> {
    if known.contains(&dtype) {
        return Ok(());
    }
    let names: Vec<&str> = known.iter().map(DType::as_str).collect();
    let message = format!("{what} cannot be kept in {}", dtype.as_str());
    let hint = format!("take one of {}", names.join(", "));
    Err(Error::new(ErrorKind::Unsupported, message).hint(hint))
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Error {
        Error::new(ErrorKind::Device, told_by(&error)).because(error)
    }
}

/// What candle says, without the backtraces that it adds where `RUST_BACKTRACE` is set.
fn told_by(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => told_by(inner),
        candle_core::Error::Context { inner, context } => format!("{context}\n{}", told_by(inner)),
        candle_core::Error::WithPath { inner, path } => {
            format!("path: {} {}", path.display(), told_by(inner))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::backtrace::Backtrace;

    use super::*;

    #[test]
    fn candles_backtraces_are_left_out() {
        let inner = candle_core::Error::Msg("no such row".to_owned());
        let traced = candle_core::Error::WithBacktrace {
            inner: Box::new(inner),
            backtrace: Box::new(Backtrace::force_capture()),
        };
        assert!(traced.to_string().lines().count() > 1);
        let error = Error::from(traced.context("while reading"));
        assert_eq!(error.message(), "while reading\nno such row");
    }
}
