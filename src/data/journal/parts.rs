//! Multipart uploads into the journal: parts are kept on disk or refer to what is stored, and become a change when the
//! upload is completed. One that is not completed leaves nothing.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use bytes::Bytes;

use crate::store::{
    Condition, CopySource, ETag, Error, Kind, Location, ObjectHeaders, Part, Result, Written, etag_of_parts, operation,
};

use super::Inner;
use super::record::{Pending, Segment};

/// Uploads that were begun and not completed.
#[derive(Default)]
pub(super) struct Uploads {
    begun: u64,
    open: HashMap<String, Upload>,
}

struct Upload {
    headers: ObjectHeaders,
    parts: BTreeMap<u32, (Segment, ETag)>,
}

impl Inner {
    pub(super) fn begin_upload(&self, headers: &ObjectHeaders) -> String {
        let mut book = self.lock();
        book.uploads.begun += 1;
        let id = format!("journal-{}", book.uploads.begun);
        book.uploads.open.insert(id.clone(), Upload { headers: headers.clone(), parts: BTreeMap::new() });
        id
    }

    pub(super) async fn keep_part(&self, to: &Location, id: &str, number: u32, body: Bytes) -> Result<Part> {
        let (segment, etag) = self.keep(body, to).await?;
        self.add_part(to, id, number, segment, etag)
    }

    /// A part that is a range of another object. What the source is now, is found out if the caller does not say.
    pub(super) async fn refer_part(
        &self,
        to: &Location,
        id: &str,
        number: u32,
        source: &CopySource,
        range: Range<u64>,
    ) -> Result<Part> {
        let etag = match &source.if_match {
            Some(etag) => etag.clone(),
            None => self.head_of(&source.location, None).await?.etag,
        };
        let waiting = self.lock().waiting(&source.location, Some(&etag));
        // A version that is being replaced is still there for whoever holds on to it, until it is.
        if let Err(error) = waiting
            && self.lock().waiting_version(&source.location, &etag).is_none()
        {
            return Err(error);
        }
        let segment = Segment::Stored { source: source.location.clone(), etag, range, whole: false, made_by: None };
        self.add_part(to, id, number, segment, self.new_etag())
    }

    fn add_part(&self, to: &Location, id: &str, number: u32, segment: Segment, etag: ETag) -> Result<Part> {
        let replaced = {
            let mut book = self.lock();
            let upload = book.uploads.open.get_mut(id).ok_or_else(|| no_upload(to));
            upload.map(|upload| upload.parts.insert(number, (segment.clone(), etag.clone())))
        };
        match replaced {
            Ok(old) => {
                self.discard(&old.map(|(segment, _)| segment).into_iter().collect::<Vec<_>>());
                Ok(Part { number, etag })
            }
            Err(error) => {
                self.discard(&[segment]);
                Err(error)
            }
        }
    }

    pub(super) async fn complete(
        &self,
        to: &Location,
        id: &str,
        parts: &[Part],
        condition: &Condition,
    ) -> Result<Written> {
        let (segments, etag, headers) = {
            let book = self.lock();
            let upload = book.uploads.open.get(id).ok_or_else(|| no_upload(to))?;
            let kept = |part: &Part| upload.parts.get(&part.number).filter(|(_, etag)| *etag == part.etag);
            let segments: Option<Vec<Segment>> =
                parts.iter().map(|part| kept(part).map(|(segment, _)| segment.clone())).collect();
            let segments = segments.ok_or_else(|| wrong_parts(to))?;
            let local = segments.iter().all(|segment| matches!(segment, Segment::Local { .. }));
            let etag = if local { etag_of_parts(parts) } else { None };
            (segments, etag, upload.headers.clone())
        };
        let pending = Pending {
            segments,
            headers,
            keeps_headers: false,
            condition: condition.clone(),
            etag: etag.unwrap_or_else(|| self.new_etag()),
            modified: self.config.clock.now(),
        };
        let written = self.accept(to, pending, false).await?;
        self.lock().uploads.open.remove(id);
        Ok(written)
    }

    pub(super) fn abort(&self, id: &str) {
        let upload = self.lock().uploads.open.remove(id);
        let segments: Vec<Segment> =
            upload.into_iter().flat_map(|upload| upload.parts.into_values()).map(|(segment, _)| segment).collect();
        self.discard(&segments);
    }
}

fn wrong_parts(to: &Location) -> Error {
    Error::new(Kind::BadRequest, operation::COMPLETE_MULTIPART_UPLOAD, to.to_string(), "a part is not as it was kept")
}

fn no_upload(to: &Location) -> Error {
    Error::new(Kind::NotFound, operation::COMPLETE_MULTIPART_UPLOAD, to.to_string(), "no such upload")
}
