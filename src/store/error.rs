//! What can go wrong with a request: kinds that callers decide by, and the chain for the log.
//!
//! HTTP status and S3 code become a [`Kind`] in exactly one place (the adapter); nothing outside `store/` sees a
//! status number.

use std::fmt;
use std::time::Duration;

/// What an error means to the one who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No such object, version or upload.
    NotFound,
    /// No such bucket.
    NoSuchBucket,
    /// The bucket exists already.
    AlreadyExists,
    /// The bucket is not empty.
    NotEmpty,
    /// The credentials are good, and do not allow this.
    AccessDenied,
    /// The access key is unknown to the store.
    UnknownAccessKey,
    /// The secret is wrong: the signature does not match.
    BadSignature,
    /// Temporary credentials have run out.
    ExpiredCredentials,
    /// This machine's clock is too far from the store's.
    ClockSkewed,
    /// A condition on the request did not hold.
    PreconditionFailed,
    /// The range lies outside of the object.
    BadRange,
    /// The store does not know this operation or refuses this feature for all.
    Unsupported,
    /// The store finds an argument of the request wrong.
    BadRequest,
    /// The object, header or part is larger than the store allows.
    TooLarge,
    /// The account's quota is used up.
    QuotaExceeded,
    /// The object is archived and must be restored first.
    Archived,
    /// The store asks to slow down.
    Throttled,
    /// The store failed inside.
    ServerError,
    /// The store's name does not resolve.
    Unresolvable,
    /// Nothing listens there, or no route leads there.
    Unreachable,
    /// The store's certificate is not trusted.
    UntrustedCertificate,
    /// The connection broke in the middle of a request or answer.
    Interrupted,
    /// The deadline passed without an answer or a byte.
    TimedOut,
    /// The answer is not what the protocol says.
    Malformed,
    /// The journal's disk on this machine failed.
    LocalDisk,
}

impl Kind {
    /// Whether the same request may succeed if it is sent again, unchanged, a little later.
    pub fn is_transient(self) -> bool {
        use Kind::*;
        matches!(self, Throttled | ServerError | Unreachable | Unresolvable | Interrupted | TimedOut)
    }

    /// Whether the store may have carried the request out although we got this error.
    pub fn may_have_happened(self) -> bool {
        matches!(self, Kind::ServerError | Kind::Interrupted | Kind::TimedOut | Kind::Malformed)
    }
}

/// A request that failed.
#[derive(Debug)]
pub struct Error {
    /// What it means.
    pub kind: Kind,
    /// Which request: the S3 name of the operation.
    pub operation: &'static str,
    /// On what: a bucket or `bucket/key`.
    pub subject: String,
    /// The store's own words, or the transport's; free of secrets.
    pub message: String,
    /// When the store asks to be tried again.
    pub retry_after: Option<Duration>,
    /// What lies under it.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without a cause under it.
    pub fn new(kind: Kind, operation: &'static str, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Error { kind, operation, subject: subject.into(), message: message.into(), retry_after: None, source: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {:?}", self.operation, self.subject, self.kind)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, " ({})", self.message) }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}
