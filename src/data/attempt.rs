//! Writes whose answer was lost: the store may have carried them out. Whoever sent one looks what is stored now, so
//! that our own success is never taken for another client's change.
//!
//! A version is recognized by the metadata that we sent with it, whose times are ours to the nanosecond, and by its
//! length, or by its ETag where that was known before; stores that encrypt make tags up. After an append, which gives its
//! headers to whatever it is made to, only the ETag tells. What carries no times is recognized by nothing else either.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::error::Result;
use crate::format::header::Posix;
use crate::store::{ETag, Kind, Location, ObjectHead, ObjectHeaders, Written};

use super::upload::Snapshot;
use super::{Data, Version};

/// How often a write is sent whose answers say that it may have been carried out, and which was not; where the retries
/// below do not repeat it.
pub(super) const SENDS_MAX: u32 = 8;

/// How long is waited before the second of them; each further one waits twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(100);

/// How long the caller of a write that failed waits for a look. If the store takes longer, the next commit looks.
pub(super) const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// A write that may have been carried out.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) to: Location,
    pub(super) headers: ObjectHeaders,
    size_bytes: u64,
    /// The tag that it must have if it was made, where that is known.
    pub(super) etag: Option<ETag>,
    /// The content that it replaces. `None` if it keeps the content, or there was none.
    replaces: Option<ETag>,
}

impl Attempt {
    pub(super) fn new(snapshot: &Snapshot, to: &Location, headers: &ObjectHeaders) -> Self {
        let keeps_content = snapshot.extents.as_whole().is_some();
        Attempt {
            to: to.clone(),
            headers: headers.clone(),
            size_bytes: snapshot.extents.size_bytes(),
            etag: None,
            replaces: snapshot.base.clone().filter(|_| !keeps_content),
        }
    }

    /// An append: the store gives its headers to whatever it finds there, so that only the tag tells.
    pub(super) fn by_tag(to: &Location, etag: &ETag) -> Self {
        let headers = ObjectHeaders::default();
        Attempt { to: to.clone(), headers, size_bytes: 0, etag: Some(etag.clone()), replaces: None }
    }

    fn made(&self, head: &ObjectHead) -> bool {
        self.etag.as_ref() == Some(&head.etag)
            || Posix::read(&self.headers.metadata).mtime.is_some()
                && head.headers.metadata == self.headers.metadata
                && head.size_bytes == self.size_bytes
                && self.replaces.as_ref() != Some(&head.etag)
    }
}

impl Data {
    /// The version that an attempt made; `None` if it made none.
    pub(super) async fn outcome(&self, attempt: &Attempt) -> Result<Option<Version>> {
        match self.inner.store.head(&attempt.to, None).await {
            Ok(head) if attempt.made(&head) => Ok(Some(Version {
                location: attempt.to.clone(),
                etag: head.etag,
                size_bytes: head.size_bytes,
                version_id: None,
            })),
            Ok(_) => Ok(None),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a write until it is known to be carried out, or refused, or `sends_max` is reached. One that is cut by the
    /// time limit is not sent again: its time is over.
    pub(super) async fn surely<F: Future<Output = Result<Written>>>(
        &self,
        attempt: &Attempt,
        sends_max: u32,
        send: impl Fn() -> F,
    ) -> Result<Written> {
        let mut sent = 0;
        loop {
            let error = match send().await {
                Ok(written) => return Ok(written),
                Err(error) => error,
            };
            sent += 1;
            // A condition that fails at the second time may have been met by the first.
            let doubtful = |kind: &Kind| kind.may_have_happened() || *kind == Kind::PreconditionFailed && sent > 1;
            let Some(kind) = error.store_kind().filter(doubtful) else { return Err(error) };
            match timeout(LOOK_TIMEOUT, self.outcome(attempt)).await {
                Ok(Ok(Some(version))) => return Ok(Written { etag: version.etag, version_id: None }),
                Ok(Ok(None)) if kind.is_transient() && kind != Kind::TimedOut && sent < sends_max => {
                    sleep(PAUSE * 2u32.pow(sent - 1)).await;
                }
                // Of two errors, the one of the write tells more.
                Ok(Ok(None) | Err(_)) | Err(_) => return Err(error),
            }
        }
    }
}
