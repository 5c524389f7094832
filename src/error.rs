//! What went wrong, as a meaning; and the one place where a meaning becomes an errno.
//!
//! Inside dreamfs no bare number travels. The kernel's number is chosen in [`Meaning::errno`], a match without a
//! wildcard, so that a new meaning forces a decision.

use std::fmt;

use crate::store;

/// The result of a file operation.
pub type Result<T> = std::result::Result<T, Error>;

/// What an error means to the one who called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meaning {
    /// There is no such name.
    NotFound,
    /// The name is taken.
    Exists,
    /// A directory was needed.
    NotDirectory,
    /// A directory is in the way.
    IsDirectory,
    /// The directory is not empty.
    NotEmpty,
    /// The store or the mode does not allow it.
    AccessDenied,
    /// Only the owner or root may do this.
    NotPermitted,
    /// The mount is read-only.
    ReadOnly,
    /// The object was replaced or removed by someone else.
    Stale,
    /// Someone else got there first, or it is in use.
    Busy,
    /// An argument is wrong.
    InvalidArgument,
    /// The name is too long for a path or key.
    NameTooLong,
    /// The name cannot be spelled as a key.
    BadName,
    /// There is no such extended attribute.
    NoAttribute,
    /// The store or dreamfs does not offer this.
    Unsupported,
    /// Space, quota or a store's limit is used up.
    NoSpace,
    /// The file is larger than the store can hold.
    TooLarge,
    /// Source and target lie in different mounts or buckets that cannot be moved between.
    CrossDevice,
    /// The object is archived and must be restored first.
    Archived,
    /// The handle is not open for this.
    BadHandle,
    /// The buffer is too small.
    BufferTooSmall,
    /// The store did not answer in time.
    TimedOut,
    /// The store or the local disk failed.
    Io,
}

impl Meaning {
    /// The kernel's number for it.
    pub fn errno(self) -> i32 {
        match self {
            Meaning::NotFound => libc::ENOENT,
            Meaning::Exists => libc::EEXIST,
            Meaning::NotDirectory => libc::ENOTDIR,
            Meaning::IsDirectory => libc::EISDIR,
            Meaning::NotEmpty => libc::ENOTEMPTY,
            Meaning::AccessDenied => libc::EACCES,
            Meaning::NotPermitted => libc::EPERM,
            Meaning::ReadOnly => libc::EROFS,
            Meaning::Stale => libc::ESTALE,
            Meaning::Busy => libc::EBUSY,
            Meaning::InvalidArgument => libc::EINVAL,
            Meaning::NameTooLong => libc::ENAMETOOLONG,
            Meaning::BadName => libc::EILSEQ,
            Meaning::NoAttribute => libc::ENODATA,
            Meaning::Unsupported => libc::EOPNOTSUPP,
            Meaning::NoSpace => libc::ENOSPC,
            Meaning::TooLarge => libc::EFBIG,
            Meaning::CrossDevice => libc::EXDEV,
            Meaning::Archived => libc::EREMOTE,
            Meaning::BadHandle => libc::EBADF,
            Meaning::BufferTooSmall => libc::ERANGE,
            Meaning::TimedOut => libc::ETIMEDOUT,
            Meaning::Io => libc::EIO,
        }
    }

    /// Whether this is an everyday answer, which the log shows at debug level only.
    pub fn is_expected(self) -> bool {
        use Meaning::*;
        matches!(
            self,
            NotFound | Exists | NotDirectory | IsDirectory | NotEmpty | NoAttribute | Unsupported | BufferTooSmall
        )
    }
}

/// A file operation that failed: its meaning, what it was about, and what lies under it.
#[derive(Debug)]
pub struct Error {
    meaning: Meaning,
    subject: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error about `subject`: a path, a key, or a sentence for the log.
    pub fn new(meaning: Meaning, subject: impl Into<String>) -> Self {
        Error { meaning, subject: subject.into(), source: None }
    }

    /// The same with its cause.
    pub fn with_source(
        meaning: Meaning,
        subject: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Error { meaning, subject: subject.into(), source: Some(source.into()) }
    }

    /// What it means.
    pub fn meaning(&self) -> Meaning {
        self.meaning
    }

    /// The kernel's number for it.
    pub fn errno(&self) -> i32 {
        self.meaning.errno()
    }

    /// The kind of the store's error under it, if there is one.
    pub fn store_kind(&self) -> Option<store::Kind> {
        let source = self.source.as_ref()?;
        source.downcast_ref::<store::Error>().map(|error| error.kind)
    }

    /// The request that failed, if one did.
    pub fn store_operation(&self) -> Option<&'static str> {
        let source = self.source.as_ref()?;
        source.downcast_ref::<store::Error>().map(|error| error.operation)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.meaning, self.subject)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        use store::Kind;
        let meaning = match error.kind {
            Kind::NotFound | Kind::NoSuchBucket => Meaning::NotFound,
            Kind::AlreadyExists => Meaning::Exists,
            Kind::NotEmpty => Meaning::NotEmpty,
            Kind::AccessDenied | Kind::UnknownAccessKey | Kind::BadSignature => Meaning::AccessDenied,
            Kind::ExpiredCredentials | Kind::ClockSkewed => Meaning::AccessDenied,
            Kind::PreconditionFailed => Meaning::Stale,
            Kind::BadRange => Meaning::Stale,
            Kind::Unsupported => Meaning::Unsupported,
            Kind::BadRequest => Meaning::InvalidArgument,
            Kind::TooLarge => Meaning::TooLarge,
            Kind::QuotaExceeded => Meaning::NoSpace,
            Kind::Archived => Meaning::Archived,
            Kind::TimedOut => Meaning::TimedOut,
            Kind::Throttled | Kind::ServerError | Kind::Unresolvable | Kind::Unreachable => Meaning::Io,
            Kind::UntrustedCertificate | Kind::Interrupted | Kind::Malformed | Kind::LocalDisk => Meaning::Io,
        };
        Error { meaning, subject: error.subject.clone(), source: Some(Box::new(error)) }
    }
}
