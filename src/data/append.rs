//! Files that grow: where the store can put bytes behind an object's last ([`crate::store::append`]), the end of a log that
//! is appended to again and again goes up alone.
//!
//! [`way`] decides, and is pure. An object that does not grow is turned into one that does, without ever being absent: its
//! bytes are appended to a temporary key, which is recorded in the state folder first and copied onto the name.
//!
//! No condition rides on an append. What it may be sent to was looked at, or made by this mount just before; the position
//! guards the rest, and the tag that is found afterwards tells whether the bytes stand behind those that were meant. What
//! is refused goes by the ordinary plan, under the ordinary conditions.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use lru::LruCache;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::store::append::{etag_after, pieces};
use crate::store::operation::{APPEND_OBJECT, COPY_OBJECT};
use crate::store::{
    self, BucketName, Condition, CopyHeaders, CopySource, ETag, Key, Kind, Location, ObjectHeaders, Written,
};

use super::attempt::{Attempt, LOOK_TIMEOUT, SENDS_MAX};
use super::extents::Extents;
use super::stage::off_worker;
use super::state::NoteOnDisk;
use super::upload::Snapshot;
use super::{Data, Limits, Version};

/// The append in a row from which on an object is turned into one that grows: who appends once or twice is not known to
/// go on.
const APPENDS_MIN: u32 = 3;

/// The longest object that is turned, in parts: all of it passes through here both ways. The ordinary plan has the server
/// copy it at each append; of 64 MiB ten such copies take as long.
const TURN_PARTS_MAX: u64 = 8;

/// The shortest one, as a share of a part: up to 128 KiB all of it goes up in one PUT about as fast as its end in an append.
const TURN_PART_SHARE: u64 = 64;

/// Pieces of an object that can be turned anew, into few long ones. Each is an object of its own inside of the store, and
/// takes a reader 80 µs (Ceph 16.2).
const PIECES_MAX: u32 = 1_000;

/// Pieces of one that is too long for that: as many as an upload has parts. Then it goes by the ordinary plan for good.
const PIECES_OF_LONG_MAX: u32 = 10_000;

/// Files that are remembered, of some 300 bytes each.
const KNOWN_MAX: NonZeroUsize = NonZeroUsize::new(1_000).expect("not zero");

/// How an append is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// As an append.
    Append,
    /// Once more from the beginning, so that it grows from then on.
    Turn,
    /// As one of these, once it is known whether it grows.
    Look,
    /// As any other change.
    Plan,
}

/// Decides how the bytes of `range` are stored behind an object that has the tag `etag`, if it is known whether it
/// `grows`; with the `appends`th append in a row.
fn way(grows: Option<bool>, appends: u32, etag: &ETag, range: &Range<u64>, limits: &Limits) -> Way {
    let part_bytes = limits.part_bytes;
    // An append is one request, and its bytes are in memory.
    if range.end - range.start > part_bytes {
        return Way::Plan;
    }
    let is_long = range.start > part_bytes * TURN_PARTS_MAX;
    let can_turn = !is_long && range.start >= part_bytes / TURN_PART_SHARE;
    let count = pieces(etag).unwrap_or(u32::MAX);
    match grows {
        Some(true) if count < if is_long { PIECES_OF_LONG_MAX } else { PIECES_MAX } => Way::Append,
        Some(true) if can_turn => Way::Turn,
        Some(false) if can_turn && appends >= APPENDS_MIN => Way::Turn,
        // Only what has several pieces, or parts, has such a tag.
        None if count > 1 => Way::Look,
        None | Some(_) => Way::Plan,
    }
}

/// Bytes that follow all of a stored version, and are to become its successor.
pub(super) struct Growth {
    base: Version,
    range: Range<u64>,
}

impl Growth {
    fn grown(&self, written: Written, grows: Option<bool>) -> Grown {
        let location = self.base.location.clone();
        Grown { version: Version { location, etag: written.etag, size_bytes: self.range.end, version_id: None }, grows }
    }
}

/// What became of an append, if it was made.
pub(super) struct Grown {
    pub(super) version: Version,
    /// Whether the object grows, as far as is known.
    pub(super) grows: Option<bool>,
}

/// A file that this mount has appended to.
struct Known {
    etag: ETag,
    size_bytes: u64,
    /// How often in a row.
    appends: u32,
    grows: bool,
}

/// What is known of files that grow. It is forgotten with the mount.
pub(super) struct Appends {
    known: Mutex<LruCache<Location, Known>>,
    /// Buckets in which the store makes none.
    refused: Mutex<HashSet<BucketName>>,
}

impl Default for Appends {
    fn default() -> Self {
        Appends { known: Mutex::new(LruCache::new(KNOWN_MAX)), refused: Mutex::default() }
    }
}

impl Appends {
    fn lock(&self) -> MutexGuard<'_, LruCache<Location, Known>> {
        self.known.lock().expect("no panic under this lock")
    }

    fn refused(&self) -> MutexGuard<'_, HashSet<BucketName>> {
        self.refused.lock().expect("no panic under this lock")
    }

    /// Whether what is to grow grows, if that is known, and how often in a row it has.
    fn known(&self, growth: &Growth) -> (Option<bool>, u32) {
        let mut all = self.lock();
        let known = all.get(&growth.base.location);
        let known = known.filter(|known| known.etag == growth.base.etag && known.size_bytes == growth.range.start);
        known.map_or((None, 0), |known| (Some(known.grows), known.appends))
    }

    /// A version was stored, by an append or otherwise; `None` where it may have been, or may not be what was meant.
    pub(super) fn note(&self, to: &Location, growth: Option<&Growth>, stored: Option<(&Version, bool)>) {
        match (growth, stored) {
            (Some(growth), Some((version, grows))) => {
                let appends = self.known(growth).1 + 1;
                let (etag, size_bytes) = (version.etag.clone(), version.size_bytes);
                self.lock().put(to.clone(), Known { etag, size_bytes, appends, grows });
            }
            _ => drop(self.lock().pop(to)),
        }
    }

    fn refuse(&self, bucket: &BucketName) {
        if self.refused().insert(bucket.clone()) {
            log::info!("{bucket}: the store makes no appends there");
        }
    }
}

/// Whether an error says that the store will not do it.
fn is_refusal(kind: Kind) -> bool {
    !kind.is_transient() && !kind.may_have_happened()
}

/// A key that is nobody's, in the same directory, hidden from `ls`. `None` where such a name would be too long.
fn temporary_beside(to: &Location) -> Option<Location> {
    let key = to.key.as_str();
    let (directory, name) = key.split_at(key.rfind('/').map_or(0, |slash| slash + 1));
    let key = Key::new(&format!("{directory}.{name}.append-{:016x}", fastrand::u64(..))).ok()?;
    Some(Location { bucket: to.bucket.clone(), key })
}

impl Data {
    /// What an append is, if the snapshot is one that the store may make.
    pub(super) fn growth(
        &self,
        extents: &Extents,
        to: &Location,
        headers: &ObjectHeaders,
        condition: &Condition,
    ) -> Option<Growth> {
        let (stored, range) = extents.as_grown()?;
        let base = &stored.version;
        let replaces_base = base.location == *to && *condition == Condition::IfMatch(base.etag.clone());
        // Ceph encrypts no appends.
        let is_plain = headers.encryption.is_none() && headers.storage_class.is_none();
        let may =
            replaces_base && is_plain && !self.inner.journaled && !self.inner.appends.refused().contains(&to.bucket);
        may.then(|| Growth { base: base.clone(), range })
    }

    /// Stores an append, if that is better than the ordinary plan and the store makes it.
    pub(super) async fn grow(
        &self,
        growth: &Growth,
        snapshot: &Snapshot,
        headers: &ObjectHeaders,
        condition: &Condition,
    ) -> Result<Option<Grown>> {
        let (mut grows, appends) = self.inner.appends.known(growth);
        let decide = |grows| way(grows, appends + 1, &growth.base.etag, &growth.range, &self.inner.limits);
        if decide(grows) == Way::Look {
            grows = Some(self.look(growth).await?.unwrap_or(false));
        }
        match decide(grows) {
            Way::Append => self.append(growth, snapshot, headers).await,
            Way::Turn => self.turn(growth, snapshot, headers, condition).await,
            Way::Look | Way::Plan => Ok(None),
        }
    }

    /// Whether what is to grow grows. `None` where it is not there as it was, and where the store makes no appends.
    async fn look(&self, growth: &Growth) -> Result<Option<bool>> {
        let base = &growth.base;
        let head = match self.inner.store.head(&base.location, None).await {
            Err(error) if error.kind == Kind::NotFound => return Ok(None),
            head => head?,
        };
        if head.grows.is_none() {
            self.inner.appends.refuse(&base.location.bucket);
        }
        let same = head.etag == base.etag && head.size_bytes == growth.range.start;
        Ok(head.grows.filter(|_| same && head.headers.encryption.is_none() && head.version_id.is_none()))
    }

    async fn append(&self, growth: &Growth, snapshot: &Snapshot, headers: &ObjectHeaders) -> Result<Option<Grown>> {
        let base = &growth.base;
        let sent = self.send_append(&base.location, Some(&base.etag), &growth.range, snapshot, headers).await?;
        let Some(written) = sent else { return Ok(None) };
        let grows = self.check_appended(growth, &written.etag, headers).await?;
        Ok(Some(growth.grown(written, grows)))
    }

    /// Appends a range of the content to an object with the tag `former`. `None` if the store refuses that.
    async fn send_append(
        &self,
        to: &Location,
        former: Option<&ETag>,
        range: &Range<u64>,
        snapshot: &Snapshot,
        headers: &ObjectHeaders,
    ) -> Result<Option<Written>> {
        let _claim = self.memory_for(snapshot, range).await;
        let bytes = self.assemble(snapshot, range.clone()).await?;
        let Some(etag) = etag_after(former, &bytes) else { return Ok(None) };
        let written = Written { etag, version_id: None };
        let append = || async {
            self.inner.store.append(to, range.start, bytes.clone(), headers).await?;
            Ok(written.clone())
        };
        match self.surely(&Attempt::by_tag(to, &written.etag), SENDS_MAX, append).await {
            Err(error) if error.store_kind().is_some_and(is_refusal) => {
                log::debug!("{to}: not appended: {error}");
                Ok(None)
            }
            appended => appended.map(Some),
        }
    }

    /// What was sent when a write of a snapshot ended without a clear answer. `None` if it could not be recognized. An append
    /// to a temporary key has changed nothing under the name, where no tag is then as it would be.
    pub(super) async fn attempt_behind(
        &self,
        error: &Error,
        snapshot: &Snapshot,
        to: &Location,
        headers: &ObjectHeaders,
    ) -> Option<Attempt> {
        if error.store_operation() != Some(APPEND_OBJECT) {
            return Some(Attempt::new(snapshot, to, headers));
        }
        let (stored, range) = snapshot.extents.as_grown()?;
        let _claim = self.memory_for(snapshot, &range).await;
        let bytes = self.assemble(snapshot, range).await.ok()?;
        etag_after(Some(&stored.version.etag), &bytes).map(|etag| Attempt::by_tag(to, &etag))
    }

    /// After an append: whether it was made to the version that was meant. Another object of the same length may have been
    /// there, or be there by now.
    async fn check_appended(&self, growth: &Growth, etag: &ETag, headers: &ObjectHeaders) -> Result<Option<bool>> {
        let to = &growth.base.location;
        let head = match timeout(LOOK_TIMEOUT, self.inner.store.head(to, None)).await {
            Ok(Ok(head)) if head.etag == *etag => return Ok(Some(true)),
            Ok(Ok(head)) => Some(head),
            Ok(Err(error)) if error.kind == Kind::NotFound => None,
            // The append was answered: its bytes are stored. What is there is looked at before the next one.
            Ok(Err(_)) | Err(_) => return Ok(None),
        };
        if head.is_some_and(|head| head.size_bytes == growth.range.end && head.headers.metadata == headers.metadata) {
            // Or this store makes other tags than those that are known; that must not be found out at each append.
            self.inner.appends.refuse(&to.bucket);
        }
        let why = "another client stored something else there meanwhile";
        Err(store::Error::new(Kind::PreconditionFailed, APPEND_OBJECT, to.to_string(), why).into())
    }

    /// Makes an object that grows of the whole content, and puts it in the place of the one that does not.
    async fn turn(
        &self,
        growth: &Growth,
        snapshot: &Snapshot,
        headers: &ObjectHeaders,
        condition: &Condition,
    ) -> Result<Option<Grown>> {
        let to = &growth.base.location;
        if self.look(growth).await?.is_none() {
            return Ok(None);
        }
        let Some(temporary) = temporary_beside(to) else { return Ok(None) };
        let (state, location) = (self.inner.state.clone(), temporary.clone());
        let record = off_worker(move || state.record_temporary(&location)).await?;
        let turned = match self.fill(&temporary, growth.range.end, snapshot, headers).await {
            Ok(Some(etag)) => self.put_in_place(&temporary, etag, to, snapshot, headers, condition).await.map(Some),
            Ok(None) => {
                self.inner.appends.refuse(&to.bucket);
                Ok(None)
            }
            Err(error) => Err(error),
        };
        self.spawn(self.clone().delete_temporary(temporary, record));
        Ok(turned?.map(|written| growth.grown(written, Some(true))))
    }

    /// Deletes a temporary key, made by this mount or by one that is gone. What cannot be deleted now is left to the next
    /// mount.
    pub async fn delete_temporary(self, temporary: Location, record: NoteOnDisk) {
        let deleted = match self.inner.store.delete(&temporary, None).await {
            Ok(()) => off_worker(move || record.remove()).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = deleted {
            log::warn!("{temporary}: left to be deleted by the next mount: {error}");
        }
    }

    /// Appends the whole content to a key that is nobody's; answers its tag, or `None` if the store refuses that.
    async fn fill(
        &self,
        temporary: &Location,
        size_bytes: u64,
        snapshot: &Snapshot,
        headers: &ObjectHeaders,
    ) -> Result<Option<ETag>> {
        let (mut position, mut etag) = (0, None);
        while position < size_bytes {
            let range = position..size_bytes.min(position + self.inner.limits.part_bytes);
            let sent = self.send_append(temporary, etag.as_ref(), &range, snapshot, headers).await?;
            let Some(written) = sent else { return Ok(None) };
            (position, etag) = (range.end, Some(written.etag));
        }
        Ok(etag)
    }

    async fn put_in_place(
        &self,
        temporary: &Location,
        etag: ETag,
        to: &Location,
        snapshot: &Snapshot,
        headers: &ObjectHeaders,
        condition: &Condition,
    ) -> Result<Written> {
        // No store takes a condition on what a copy replaces.
        self.check(condition, to, COPY_OBJECT).await?;
        let from = CopySource { location: temporary.clone(), if_match: Some(etag.clone()) };
        let keep = CopyHeaders::Keep { acl: headers.acl.clone(), storage_class: None };
        let mut attempt = Attempt::new(snapshot, to, headers);
        attempt.etag = Some(etag);
        let copy = || async { Ok(self.inner.store.copy(&from, to, &keep).await?) };
        // The retries below repeat a copy from elsewhere.
        self.surely(&attempt, 1, copy).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: u64 = 8 << 20;
    const LINE: u64 = 100;

    #[test]
    fn the_way_of_an_append() {
        let limits = Limits::default();
        assert_eq!(limits.part_bytes, PART);
        let chain = "48c0c18a3985eeae1b327de681b45b2e";
        let table = [
            // (grows, appends, pieces by the tag, old bytes, new bytes, way)
            (Some(false), 1, 1, 4 * PART, LINE, Way::Plan),
            (Some(false), 2, 1, 4 * PART, LINE, Way::Plan),
            (Some(false), 3, 1, 4 * PART, LINE, Way::Turn),
            (Some(false), 30, 5, 8 * PART, LINE, Way::Turn),
            (Some(false), 3, 1, 8 * PART + 1, LINE, Way::Plan),
            (Some(false), 3, 1, 128 << 10, LINE, Way::Turn),
            (Some(false), 3, 1, (128 << 10) - 1, LINE, Way::Plan),
            (Some(false), 3, 1, 4 * PART, PART, Way::Turn),
            (Some(false), 3, 1, 4 * PART, PART + 1, Way::Plan),
            (Some(true), 1, 1, 10, LINE, Way::Append),
            (Some(true), 1, 999, 4 * PART, LINE, Way::Append),
            (Some(true), 1, 1_000, 4 * PART, LINE, Way::Turn),
            (Some(true), 1, 1_000, 10, LINE, Way::Plan),
            (Some(true), 1, 1_000, 8 * PART + 1, LINE, Way::Append),
            (Some(true), 1, 10_000, 8 * PART + 1, LINE, Way::Plan),
            (Some(true), 1, 4, 4 * PART, PART, Way::Append),
            (Some(true), 1, 4, 4 * PART, PART + 1, Way::Plan),
            (None, 1, 1, 4 * PART, LINE, Way::Plan),
            (None, 1, 2, 4 * PART, LINE, Way::Look),
            (None, 1, 2, 4 * PART, PART + 1, Way::Plan),
        ];
        for (grows, appends, count, old_bytes, new_bytes, wanted) in table {
            let etag = ETag::new(&if count == 1 { chain.to_owned() } else { format!("{chain}-{count}") });
            let range = old_bytes..old_bytes + new_bytes;
            let found = way(grows, appends, &etag, &range, &limits);
            assert_eq!(found, wanted, "{grows:?} {appends} {count} {old_bytes} {new_bytes}");
        }
    }

    #[test]
    fn a_temporary_key_lies_beside_the_name() {
        let beside = |key: &str| {
            let location = Location { bucket: BucketName::new("bucket").unwrap(), key: Key::new(key).unwrap() };
            temporary_beside(&location).map(|location| location.key.to_string())
        };
        assert!(beside("a/b.log").is_some_and(|key| key.starts_with("a/.b.log.append-")));
        assert!(beside("log").is_some_and(|key| key.starts_with(".log.append-")));
        assert_ne!(beside("log"), beside("log"));
        assert_eq!(beside(&"n".repeat(250)), None, "no file can have a name that long");
    }
}
