//! Multipart uploads into the journal: parts are kept on disk or refer to what is stored, and become a change when the
//! upload is completed. One that is not completed leaves nothing.
//!
//! An upload for which the journal has no room becomes one of the store, and waits for it: what was kept of it until
//! then goes with its completion.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::data::stage::on_disk;
use crate::data::state::NoteOnDisk;
use crate::store::versions::ListedPart;
use crate::store::{
    Condition, CopySource, ETag, Error, Kind, Location, ObjectHeaders, Part, Result, Written, operation,
};

use super::record::{Pending, Segment};
use super::{Inner, PARTS_AT_ONCE, local_error};

/// Uploads that were begun and not completed.
#[derive(Default)]
pub(super) struct Uploads {
    begun: u64,
    open: HashMap<String, Upload>,
}

struct Upload {
    headers: ObjectHeaders,
    parts: BTreeMap<u32, (Place, ETag)>,
    direct: Arc<tokio::sync::OnceCell<Direct>>,
}

/// Where a part is.
#[derive(Clone)]
enum Place {
    /// In the journal, or in what is stored.
    Here(Segment),
    /// In the upload of the store.
    Sent(ListedPart),
}

/// The store's upload that takes what the journal has no room for.
struct Direct {
    id: String,
    record: Mutex<Option<NoteOnDisk>>,
}

impl Inner {
    pub(super) fn begin_upload(&self, headers: &ObjectHeaders) -> String {
        let mut book = self.lock();
        book.uploads.begun += 1;
        let id = format!("journal-{}", book.uploads.begun);
        let upload = Upload { headers: headers.clone(), parts: BTreeMap::new(), direct: Arc::default() };
        book.uploads.open.insert(id.clone(), upload);
        id
    }

    /// Keeps a part, or sends it to the store if there is no room for it. What it is called is only known here: nobody
    /// else has to find it.
    pub(super) async fn keep_part(&self, to: &Location, id: &str, number: u32, body: Bytes) -> Result<Part> {
        let place = match self.keep(body.clone(), to, |_| ()).await? {
            Some((segment, ())) => Place::Here(segment),
            None => {
                let direct = self.direct(to, id).await?;
                let direct = direct.get().expect("it was begun just now");
                let size_bytes = body.len() as u64;
                let part = self.store.upload_part(to, &direct.id, number, body).await?;
                Place::Sent(ListedPart { part, size_bytes })
            }
        };
        self.add_part(to, id, number, place, self.new_etag())
    }

    /// The upload of the store that stands behind one of the journal's, begun when it is first needed.
    async fn direct(&self, to: &Location, id: &str) -> Result<Arc<tokio::sync::OnceCell<Direct>>> {
        let (cell, headers) = {
            let book = self.lock();
            let upload = book.uploads.open.get(id).ok_or_else(|| no_upload(to))?;
            (upload.direct.clone(), upload.headers.clone())
        };
        let begin = || async {
            let id = self.store.create_upload(to, &headers).await?;
            match self.config.state.record_upload(to, &id) {
                Ok(record) => Ok(Direct { id, record: Mutex::new(Some(record)) }),
                Err(error) => {
                    self.store.abort_upload(to, &id).await?;
                    Err(local_error(on_disk(error), to))
                }
            }
        };
        cell.get_or_try_init(begin).await?;
        Ok(cell)
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
        self.add_part(to, id, number, Place::Here(segment), self.new_etag())
    }

    fn add_part(&self, to: &Location, id: &str, number: u32, place: Place, etag: ETag) -> Result<Part> {
        let replaced = {
            let mut book = self.lock();
            let upload = book.uploads.open.get_mut(id).ok_or_else(|| no_upload(to));
            upload.map(|upload| upload.parts.insert(number, (place.clone(), etag.clone())))
        };
        match replaced {
            Ok(old) => {
                self.discard(&segments_of(old.map(|(place, _)| place)));
                Ok(Part { number, etag })
            }
            Err(error) => {
                self.discard(&segments_of([place]));
                Err(error)
            }
        }
    }

    /// The parts of an upload as they are called here; `None` if it is none of the journal's.
    pub(super) fn parts_of(&self, id: &str) -> Option<Vec<ListedPart>> {
        let book = self.lock();
        let parts = book.uploads.open.get(id)?.parts.iter().map(|(number, (place, etag))| ListedPart {
            part: Part { number: *number, etag: etag.clone() },
            size_bytes: match place {
                Place::Here(segment) => segment.length(),
                Place::Sent(sent) => sent.size_bytes,
            },
        });
        Some(parts.collect())
    }

    pub(super) async fn complete(
        self: &Arc<Self>,
        to: &Location,
        id: &str,
        parts: &[Part],
        condition: &Condition,
    ) -> Result<Written> {
        let (places, headers, direct) = {
            let book = self.lock();
            let upload = book.uploads.open.get(id).ok_or_else(|| no_upload(to))?;
            let kept = |part: &Part| upload.parts.get(&part.number).filter(|(_, etag)| *etag == part.etag);
            let places: Option<Vec<(u32, Place)>> =
                parts.iter().map(|part| kept(part).map(|(place, _)| (part.number, place.clone()))).collect();
            (places.ok_or_else(|| wrong_parts(to))?, upload.headers.clone(), upload.direct.clone())
        };
        if let Some(direct) = direct.get() {
            let written = self.complete_in_store(to, direct, places, condition).await?;
            self.end(id);
            return Ok(written);
        }
        let pending = Pending {
            segments: segments_of(places.into_iter().map(|(_, place)| place)),
            headers,
            keeps_headers: false,
            condition: condition.clone(),
            // As stores call what was made of parts.
            etag: ETag::new(&format!("{}-{}", self.new_etag(), parts.len())),
            modified: self.config.clock.now(),
        };
        let written = self.accept(to, pending, false).await?;
        self.lock().uploads.open.remove(id);
        Ok(written)
    }

    /// Sends what was kept, and has the store complete its upload, once it has what waits under the name.
    async fn complete_in_store(
        self: &Arc<Self>,
        to: &Location,
        direct: &Direct,
        places: Vec<(u32, Place)>,
        condition: &Condition,
    ) -> Result<Written> {
        self.settle_name(to).await?;
        let parts = stream::iter(places).map(|(number, place)| self.send_place(to, &direct.id, number, place));
        let parts: Vec<Part> = parts.buffered(PARTS_AT_ONCE).try_collect().await?;
        let condition = self.real_condition(to, condition);
        let written = self.store.complete_upload(to, &direct.id, &parts, &condition).await?;
        self.lock().aliases.remove(to);
        Ok(written)
    }

    async fn send_place(self: &Arc<Self>, to: &Location, id: &str, number: u32, place: Place) -> Result<Part> {
        match place {
            Place::Sent(sent) => Ok(sent.part),
            Place::Here(Segment::Local { file, range }) => {
                let spool = self.spool.clone();
                let read = tokio::task::spawn_blocking(move || spool.read_content(&file, range)).await;
                let bytes = read.map_err(std::io::Error::other).flatten();
                let bytes = bytes.map_err(|error| local_error(on_disk(error), to))?;
                self.store.upload_part(to, id, number, bytes).await
            }
            Place::Here(Segment::Stored { source, etag, range, .. }) => {
                self.settle_name(&source).await?;
                let if_match = Some(self.lock().real(&source, &etag));
                self.store.upload_part_copy(to, id, number, &CopySource { location: source, if_match }, range).await
            }
        }
    }

    pub(super) async fn abort(&self, to: &Location, id: &str) -> Result<()> {
        let known = self.lock().uploads.open.get(id).map(|upload| upload.direct.clone());
        // One that a former mount has begun is the store's.
        let Some(direct) = known else { return self.store.abort_upload(to, id).await };
        if let Some(direct) = direct.get() {
            self.store.abort_upload(to, &direct.id).await?;
        }
        self.end(id);
        Ok(())
    }

    /// An upload is over: nothing of it is kept.
    fn end(&self, id: &str) {
        let Some(upload) = self.lock().uploads.open.remove(id) else { return };
        self.discard(&segments_of(upload.parts.into_values().map(|(place, _)| place)));
        if let Some(direct) = upload.direct.get()
            && let Some(record) = direct.record.lock().expect("no panic under this lock").take()
            && let Err(error) = record.remove()
        {
            log::warn!("the record of an upload stays: {error}");
        }
    }
}

/// Parts that are here.
fn segments_of(places: impl IntoIterator<Item = Place>) -> Vec<Segment> {
    let here = |place| match place {
        Place::Here(segment) => Some(segment),
        Place::Sent(_) => None,
    };
    places.into_iter().filter_map(here).collect()
}

fn wrong_parts(to: &Location) -> Error {
    Error::new(Kind::BadRequest, operation::COMPLETE_MULTIPART_UPLOAD, to.to_string(), "a part is not as it was kept")
}

fn no_upload(to: &Location) -> Error {
    Error::new(Kind::NotFound, operation::COMPLETE_MULTIPART_UPLOAD, to.to_string(), "no such upload")
}
