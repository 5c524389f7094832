//! One change of the store that has not been carried out yet, as memory and disk hold it. Pure.

use std::ops::Range;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::store::{
    Condition, CopyHeaders, ETag, Kind, ListedObject, Location, ObjectHead, ObjectHeaders, Result, operation,
};

/// A change of one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its turn: changes of one name happen in this order.
    pub(super) order: u64,
    /// Whether it waits for all content that was closed before it, of whatever name.
    pub(super) after_closes: bool,
    /// The name.
    pub(super) to: Location,
    /// What becomes of it.
    pub(super) change: Change,
}

/// What a change does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    /// An object is stored.
    Store(Box<Pending>),
    /// The object is deleted.
    Delete,
}

/// An object that the store is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    /// Its bytes, in order.
    pub(super) segments: Vec<Segment>,
    /// Its headers, with the ACL that rides along.
    pub(super) headers: ObjectHeaders,
    /// Whether it is a copy that keeps the headers of its source, whatever they are.
    pub(super) keeps_headers: bool,
    /// What it demands of the object that it replaces.
    pub(super) condition: Condition,
    /// What it is known by until it is stored; mostly what the store will call it too.
    pub(super) etag: ETag,
    /// When it was closed.
    pub(super) modified: SystemTime,
}

/// Some bytes of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Segment {
    /// In a file of the journal.
    Local {
        /// The file's name.
        file: String,
        /// Which bytes of it.
        range: Range<u64>,
    },
    /// In a version that is stored, or is to be.
    Stored {
        /// The object.
        source: Location,
        /// Which version of it.
        etag: ETag,
        /// Which bytes of it.
        range: Range<u64>,
        /// Whether these are all of them.
        whole: bool,
        /// The change that makes this version, if it has not yet: tags alone do not tell versions of one content apart.
        made_by: Option<u64>,
    },
}

impl Segment {
    fn range(&self) -> &Range<u64> {
        match self {
            Segment::Local { range, .. } | Segment::Stored { range, .. } => range,
        }
    }

    /// Length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.range().end - self.range().start
    }

    fn cut(&self, within: &Range<u64>) -> Segment {
        let start = self.range().start;
        let cut = start + within.start..start + within.end;
        match self.clone() {
            Segment::Local { file, .. } => Segment::Local { file, range: cut },
            Segment::Stored { source, etag, range, whole, made_by } => {
                Segment::Stored { source, etag, whole: whole && range == cut, range: cut, made_by }
            }
        }
    }
}

/// The segments of a range.
pub(super) fn slice(segments: &[Segment], range: &Range<u64>) -> Vec<Segment> {
    let mut out = Vec::new();
    let mut at = 0;
    for segment in segments {
        let end = at + segment.length();
        let (from, to) = (range.start.max(at), range.end.min(end));
        if from < to {
            out.push(segment.cut(&(from - at..to - at)));
        }
        at = end;
    }
    out
}

impl Pending {
    /// Length in bytes.
    pub(super) fn size_bytes(&self) -> u64 {
        self.segments.iter().map(Segment::length).sum()
    }

    /// The stored version that this is a copy of, whole, if that is all it is.
    pub(super) fn copied_from(&self) -> Option<(&Location, &ETag)> {
        match self.segments.as_slice() {
            [Segment::Stored { source, etag, whole: true, .. }] => Some((source, etag)),
            _ => None,
        }
    }

    /// Names of the journal's files that it needs.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Local { file, .. } => Some(file.as_str()),
            Segment::Stored { .. } => None,
        })
    }

    /// What a HEAD answers.
    pub(super) fn head(&self) -> ObjectHead {
        ObjectHead {
            size_bytes: self.size_bytes(),
            etag: self.etag.clone(),
            modified: self.modified,
            version_id: None,
            grows: None,
            headers: self.headers.clone().seen(),
        }
    }

    /// What a listing shows.
    pub(super) fn listed(&self, key: &str) -> ListedObject {
        ListedObject {
            key: key.to_owned(),
            size_bytes: self.size_bytes(),
            etag: self.etag.clone(),
            modified: self.modified,
            storage_class: self.headers.storage_class.clone(),
        }
    }

    /// Headers of a copy of this.
    pub(super) fn copied_headers(&self, wanted: &CopyHeaders) -> (ObjectHeaders, bool) {
        match wanted {
            CopyHeaders::Replace(headers) => (headers.clone(), false),
            CopyHeaders::Keep { acl, storage_class } => {
                let (acl, storage_class) = (acl.clone(), storage_class.clone());
                (ObjectHeaders { acl, storage_class, ..self.headers.clone() }, self.keeps_headers)
            }
        }
    }
}

impl Record {
    /// The object that it stores.
    pub(super) fn pending(&self) -> Option<&Pending> {
        match &self.change {
            Change::Store(pending) => Some(pending),
            Change::Delete => None,
        }
    }

    /// Whether it brings content that only this machine has.
    pub(super) fn is_close(&self) -> bool {
        self.pending().is_some_and(|pending| pending.copied_from().is_none()) && !self.is_marker()
    }

    /// Whether it stores a directory's marker.
    pub(super) fn is_marker(&self) -> bool {
        self.pending().is_some() && self.to.key.as_str().ends_with('/')
    }

    /// The same, after the change `made` was carried out and the store calls its version `now`; `None` if that is nothing
    /// to this one. A condition is on what the change before makes of the name.
    pub(super) fn renamed(&self, made: u64, is_next: bool, now: &ETag) -> Option<Record> {
        let mut record = self.clone();
        let Change::Store(pending) = &mut record.change else { return None };
        if is_next && matches!(pending.condition, Condition::IfMatch(_)) {
            pending.condition = Condition::IfMatch(now.clone());
        }
        for segment in &mut pending.segments {
            if let Segment::Stored { etag, made_by, .. } = segment
                && *made_by == Some(made)
            {
                *etag = now.clone();
            }
        }
        (record != *self).then_some(record)
    }

    /// Every name that must stay as it is until this is done: its own, and those that its bytes come from.
    pub(super) fn names(&self) -> Vec<&Location> {
        let mut names = vec![&self.to];
        for segment in self.pending().iter().flat_map(|pending| &pending.segments) {
            if let Segment::Stored { source, .. } = segment
                && !names.contains(&source)
            {
                names.push(source);
            }
        }
        names
    }
}

/// Whether a condition on a write to `to` holds, if `there` is what the name stands for.
pub(super) fn check(condition: &Condition, there: Option<&ETag>, to: &Location) -> Result<()> {
    let holds = match condition {
        Condition::None => true,
        Condition::IfAbsent => there.is_none(),
        Condition::IfMatch(etag) => there == Some(etag),
    };
    match holds {
        true => Ok(()),
        false => Err(precondition_failed(to)),
    }
}

/// Another version is there.
pub(super) fn precondition_failed(to: &Location) -> crate::store::Error {
    crate::store::Error::new(Kind::PreconditionFailed, operation::PUT_OBJECT, to.to_string(), "in the journal")
}

/// Nothing is there.
pub(super) fn not_found(to: &Location) -> crate::store::Error {
    crate::store::Error::new(Kind::NotFound, operation::HEAD_OBJECT, to.to_string(), "deleted, says the journal")
}
