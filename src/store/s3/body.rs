//! Bytes out and bytes in, with an eye on whether they move.
//!
//! There is no deadline for a whole body, which may be long; there is one for every pause in it. A body that comes in
//! ends early only with an error: never with a silent short end.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use reqwest::Response;
use tokio::time::{Instant, sleep_until, timeout};

use super::answer;
use crate::store::progress::{self, Watch};
use crate::store::{Body, Error, Kind, Result};

/// Bytes that are handed to the connection at once; after each, the upload counts as moving.
const UPLOAD_PIECE_BYTES: usize = 256 * 1024;

/// Bytes of an XML answer at most. A full listing is under 4 MiB; more is no answer to anything that was asked.
const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// When an upload last moved, told also to the time limit that [`crate::store::retry`] keeps.
#[derive(Clone)]
pub(super) struct Progress {
    moved: Arc<Mutex<Instant>>,
    watch: Option<Arc<Watch>>,
}

impl Progress {
    /// Moved just now.
    pub(super) fn new() -> Self {
        Progress { moved: Arc::new(Mutex::new(Instant::now())), watch: progress::current() }
    }

    fn touch(&self) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.watch.iter().for_each(|watch| watch.beat());
    }

    fn last(&self) -> Instant {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `work` as long as something moves; `None` when nothing did for `stall_timeout`.
    pub(super) async fn watch<T>(&self, stall_timeout: Duration, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        loop {
            let deadline = self.last() + stall_timeout;
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = sleep_until(deadline) => if self.last() + stall_timeout <= deadline { return None },
            }
        }
    }
}

/// The body of a request, which reports to `progress` as it leaves.
pub(super) fn upload(bytes: Bytes, progress: &Progress) -> reqwest::Body {
    if bytes.len() <= UPLOAD_PIECE_BYTES {
        return bytes.into();
    }
    let pieces = stream::unfold((bytes, progress.clone()), |(mut rest, progress)| async move {
        progress.touch();
        let piece = rest.split_to(rest.len().min(UPLOAD_PIECE_BYTES));
        (!piece.is_empty()).then_some((Ok::<_, Infallible>(piece), (rest, progress)))
    });
    reqwest::Body::wrap_stream(pieces)
}

/// The body of an answer that must have `bytes` bytes.
pub(super) fn download(response: Response, bytes: u64, stall_timeout: Duration, subject: String) -> Body {
    let blame = move |kind, message: &str| Error::new(kind, "GetObject", subject.clone(), message);
    Box::pin(stream::unfold(Some((response, bytes, blame)), move |state| async move {
        let (mut response, missing, blame) = state?;
        let chunk = match timeout(stall_timeout, response.chunk()).await {
            Err(_) => Err(blame(Kind::TimedOut, "the object's bytes stopped coming")),
            Ok(Err(error)) => Err(blame(Kind::Interrupted, &answer::chain_of(error))),
            Ok(Ok(None)) if missing == 0 => return None,
            Ok(Ok(None)) => Err(blame(Kind::Interrupted, "the object's bytes ended early")),
            Ok(Ok(Some(chunk))) => Ok(chunk),
        };
        match chunk {
            Ok(chunk) => match missing.checked_sub(chunk.len() as u64) {
                Some(missing) => Some((Ok(chunk), Some((response, missing, blame)))),
                None => Some((Err(blame(Kind::Malformed, "more bytes came than were announced")), None)),
            },
            Err(error) => Some((Err(error), None)),
        }
    }))
}

/// Reads an answer whole, as text. A store that works long keeps the connection alive with blanks: they count as
/// life, and XML ignores them.
pub(super) async fn read_text(
    mut response: Response,
    stall_timeout: Duration,
    blame: impl Fn(Kind, &str) -> Error,
) -> Result<String> {
    let mut text = Vec::new();
    loop {
        match timeout(stall_timeout, response.chunk()).await {
            Err(_) => return Err(blame(Kind::TimedOut, "the answer stopped coming")),
            Ok(Err(error)) => return Err(blame(Kind::Interrupted, &answer::chain_of(error))),
            Ok(Ok(None)) => break,
            Ok(Ok(Some(chunk))) => text.extend_from_slice(&chunk),
        }
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(blame(Kind::Malformed, "the answer is longer than any that was asked for"));
        }
    }
    String::from_utf8(text).map_err(|_| blame(Kind::Malformed, "the answer is not UTF-8"))
}
