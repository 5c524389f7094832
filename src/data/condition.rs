//! Writes that replace only what their writer has seen. A store that refuses conditions is asked before each write
//! instead, which narrows the race and does not close it.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::error::Result;
use crate::store::operation::{COMPLETE_MULTIPART_UPLOAD, PUT_OBJECT};
use crate::store::{self, Condition, ETag, Kind, Location, Part, Written};

use super::Data;
use super::attempt::{Attempt, SENDS_MAX};

/// What a commit may replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaces {
    /// Whatever is there.
    Anything,
    /// The version that the content builds on; nothing, if it builds on none.
    ItsBase,
}

impl Replaces {
    /// The condition on a write to `to` of content that builds on `base`.
    pub(super) fn condition(self, base: Option<(&Location, &ETag)>, to: &Location) -> Condition {
        match (self, base) {
            (Replaces::ItsBase, None) => Condition::IfAbsent,
            (Replaces::ItsBase, Some((location, etag))) if location == to => Condition::IfMatch(etag.clone()),
            // Nothing that was seen lies there: whoever moved it decided what it replaces.
            (Replaces::ItsBase, Some(_)) | (Replaces::Anything, _) => Condition::None,
        }
    }
}

impl Data {
    /// One PUT. It is sent again until it is known what became of it: whoever sets a condition cannot have it repeated
    /// blindly, since the second would find the first.
    pub(super) async fn put(&self, attempt: &Attempt, bytes: &Bytes, condition: &Condition) -> Result<Written> {
        let (to, headers) = (&attempt.to, &attempt.headers);
        let sends_max = if *condition == Condition::None { 1 } else { SENDS_MAX };
        let put = || async {
            self.under(condition, to, PUT_OBJECT, |condition| async move {
                self.inner.store.put(to, bytes.clone(), headers, &condition).await
            })
            .await
        };
        self.surely(attempt, sends_max, put).await
    }

    /// Completes an upload. What is there is always looked at before, since some stores take a condition here without
    /// heeding it.
    pub(super) async fn complete(
        &self,
        attempt: &Attempt,
        upload_id: &str,
        parts: &[Part],
        condition: &Condition,
    ) -> Result<Written> {
        let to = &attempt.to;
        let complete = || async {
            if !self.inner.journaled {
                self.check(condition, to, COMPLETE_MULTIPART_UPLOAD).await?;
            }
            self.under(condition, to, COMPLETE_MULTIPART_UPLOAD, |condition| async move {
                self.inner.store.complete_upload(to, upload_id, parts, &condition).await
            })
            .await
        };
        self.surely(attempt, SENDS_MAX, complete).await
    }

    /// Sends a write under a condition, or looks before and sends it without, where the store refuses conditions.
    async fn under<F: Future<Output = store::Result<Written>>>(
        &self,
        condition: &Condition,
        to: &Location,
        operation: &'static str,
        send: impl Fn(Condition) -> F,
    ) -> Result<Written> {
        let refused = &self.inner.conditions_refused;
        if *condition != Condition::None && !refused.load(Ordering::Relaxed) {
            match send(condition.clone()).await {
                Err(error) if error.kind == Kind::Unsupported => {
                    log::info!("the store refuses conditions on writes: what is there is looked at before each");
                    refused.store(true, Ordering::Relaxed);
                }
                answer => return Ok(answer?),
            }
        }
        self.check(condition, to, operation).await?;
        Ok(send(Condition::None).await?)
    }

    /// Looks whether a condition holds now.
    pub(super) async fn check(
        &self,
        condition: &Condition,
        to: &Location,
        operation: &'static str,
    ) -> store::Result<()> {
        if *condition == Condition::None {
            return Ok(());
        }
        let there = match self.inner.store.head(to, None).await {
            Ok(head) => Some(head.etag),
            Err(error) if error.kind == Kind::NotFound => None,
            Err(error) => return Err(error),
        };
        let holds = match condition {
            Condition::None => true,
            Condition::IfAbsent => there.is_none(),
            Condition::IfMatch(etag) => there.as_ref() == Some(etag),
        };
        match holds {
            true => Ok(()),
            false => Err(store::Error::new(Kind::PreconditionFailed, operation, to.to_string(), "looked at before")),
        }
    }
}
