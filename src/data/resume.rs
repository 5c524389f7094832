//! Multipart uploads that were begun and not finished, by a mount that died or by one whose store went away: where the
//! same content is stored again, it goes on where they stopped.
//!
//! An upload is gone on with only by the plan that it was begun by: its headers cannot be changed any more, and parts of
//! another plan would stay in it. Which parts it has the store tells; one is believed if it has the length and the MD5
//! of the bytes here, which cost less to read than to send. Parts that the server copies it copies again: nobody can
//! tell what those that are there were copied from, and they cost no bytes of this machine.
//!
//! It refuses stores that make up tags, and to guess: an upload that the store does not know any more was completed if
//! what lies under the name is ours; if not, the content goes up anew.

use std::collections::BTreeMap;

use bytes::Bytes;
use md5::{Digest, Md5};

use crate::error::{Error, Result};
use crate::format::encryption::makes_up_tags;
use crate::store::versions::ListedPart;
use crate::store::{self, Kind, Location, ObjectHeaders, operation};

use super::attempt::Attempt;
use super::plan::Piece;
use super::stage::off_worker;
use super::state::Leftover;
use super::{Data, Version};

/// The parts of an upload by their numbers.
pub(super) type Parts = BTreeMap<u32, ListedPart>;

/// What earlier attempts have left of an upload.
pub(super) enum Before {
    /// Nothing.
    Nothing,
    /// An upload, with these parts.
    Unfinished(Leftover, Parts),
    /// The object itself.
    Completed(Version),
}

/// What tells a plan from every other; `None` if an upload by it cannot be gone on with.
pub(super) fn mark(pieces: &[Piece], headers: &ObjectHeaders) -> Option<String> {
    if makes_up_tags(headers.encryption.as_deref()) {
        return None;
    }
    let source = |piece: &Piece| {
        let (stored, offset) = piece.copied_from.clone()?;
        Some((stored.version.location.clone(), stored.version.etag.clone(), offset))
    };
    let pieces: Vec<_> = pieces.iter().map(|piece| (piece.range.clone(), source(piece))).collect();
    let plan = serde_json::to_vec(&(headers, pieces)).ok()?;
    Some(hex::encode(Md5::digest(plan)))
}

/// Whether a part that the store has is made of these bytes.
pub(super) async fn is_made_of(part: &ListedPart, bytes: &Bytes) -> Result<bool> {
    if part.size_bytes != bytes.len() as u64 {
        return Ok(false);
    }
    let bytes = bytes.clone();
    let md5 = off_worker(move || Ok(hex::encode(Md5::digest(bytes)))).await?;
    Ok(part.part.etag.as_str() == md5)
}

/// Whether an upload may be gone on with after this error.
pub(super) fn passes(error: &Error) -> bool {
    error.store_kind().is_some_and(Kind::is_transient)
}

impl Data {
    /// Keeps uploads for whoever stores the same content again.
    pub(super) fn keep_unfinished(&self, uploads: impl IntoIterator<Item = Leftover>) {
        self.inner.unfinished.lock().expect("no panic under this lock").extend(uploads);
    }

    fn take_unfinished(&self, wanted: impl Fn(&Location) -> bool) -> Vec<Leftover> {
        let mut unfinished = self.inner.unfinished.lock().expect("no panic under this lock");
        unfinished.extract_if(.., |upload| wanted(&upload.location)).collect()
    }

    /// Aborts what is kept of these names: nobody will go on with it.
    pub(super) async fn abort_unfinished(&self, unwanted: impl Fn(&Location) -> bool) {
        self.abort_leftovers(self.take_unfinished(unwanted)).await;
    }

    /// What earlier attempts by this plan have left. Uploads of the same name by other plans are aborted.
    pub(super) async fn before(&self, attempt: &Attempt, plan: Option<&str>) -> Result<Before> {
        let (mut found, mut is_gone) = (None, false);
        let mut uploads = self.take_unfinished(|location| *location == attempt.to).into_iter();
        while let Some(upload) = uploads.next() {
            if found.is_some() || plan.is_none() || upload.plan.as_deref() != plan {
                self.abort_leftovers(vec![upload]).await;
                continue;
            }
            match self.parts_of(&upload).await {
                Ok(parts) => found = Some((upload, parts)),
                Err(error) if error.kind.is_transient() => {
                    self.keep_unfinished([upload].into_iter().chain(uploads));
                    return Err(error.into());
                }
                Err(error) => {
                    log::info!("{}: its upload cannot be gone on with: {error}", attempt.to);
                    is_gone |= error.kind == Kind::NotFound;
                    self.abort_leftovers(vec![upload]).await;
                }
            }
        }
        match found {
            Some((upload, parts)) => {
                log::info!("{}: going on with an upload that has {} parts", attempt.to, parts.len());
                Ok(Before::Unfinished(upload, parts))
            }
            None if is_gone => Ok(self.outcome(attempt).await?.map_or(Before::Nothing, Before::Completed)),
            None => Ok(Before::Nothing),
        }
    }

    async fn parts_of(&self, upload: &Leftover) -> store::Result<Parts> {
        let (mut parts, mut after) = (Parts::new(), None);
        loop {
            let page = self.inner.store.list_parts(&upload.location, &upload.upload_id, after).await?;
            parts.extend(page.parts.into_iter().map(|one| (one.part.number, one)));
            if page.next.is_none() {
                return Ok(parts);
            }
            if page.next <= after {
                // It would tell the same page for ever.
                let (subject, why) = (upload.location.to_string(), "the next page begins where this one does");
                return Err(store::Error::new(Kind::Malformed, operation::LIST_PARTS, subject, why));
            }
            after = page.next;
        }
    }
}
