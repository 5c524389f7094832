//! Conditions of requests: `If-Match` and its relatives, also on the source of a copy. Source: RFC 9110, section 13.

use s3s::dto::{ETag, ETagCondition, Timestamp};
use s3s::{S3Result, s3_error};

use super::record::{ObjectRecord, from_ms};

/// What a request demands of an object.
pub struct Conditions<'a> {
    /// The object must be this version.
    pub if_match: Option<&'a ETagCondition>,
    /// The object must not be this version.
    pub if_none_match: Option<&'a ETagCondition>,
    /// The object must be newer.
    pub if_modified_since: Option<&'a Timestamp>,
    /// The object must not be newer.
    pub if_unmodified_since: Option<&'a Timestamp>,
}

impl Conditions<'_> {
    /// Decides for a read: 412 where the object is not as demanded, 304 where the reader has it already.
    pub fn check_read(&self, record: &ObjectRecord) -> S3Result<()> {
        match (self.if_match, self.if_unmodified_since) {
            (Some(tag), _) if !matches(tag, &record.etag) => return Err(s3_error!(PreconditionFailed)),
            (None, Some(since)) if newer(record, since) => return Err(s3_error!(PreconditionFailed)),
            _ => {}
        }
        match (self.if_none_match, self.if_modified_since) {
            (Some(tag), _) if matches(tag, &record.etag) => Err(s3_error!(NotModified)),
            (None, Some(since)) if !newer(record, since) => Err(s3_error!(NotModified)),
            _ => Ok(()),
        }
    }

    /// Decides for the source of a copy: 412 in every case.
    pub fn check_copy(&self, record: &ObjectRecord) -> S3Result<()> {
        self.check_read(record).map_err(|_| s3_error!(PreconditionFailed))
    }

    /// Decides for a write over what is there now.
    pub fn allow_write(&self, current: Option<&ObjectRecord>) -> bool {
        let matched = |tag: &ETagCondition| current.is_some_and(|current| matches(tag, &current.etag));
        self.if_match.is_none_or(matched) && !self.if_none_match.is_some_and(matched)
    }
}

fn matches(condition: &ETagCondition, etag: &str) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(asked) => asked.value() == etag,
    }
}

/// HTTP dates have whole seconds.
fn newer(record: &ObjectRecord, since: &Timestamp) -> bool {
    let since = time::OffsetDateTime::from(since.clone());
    time::OffsetDateTime::from(from_ms(record.modified_ms)).unix_timestamp() > since.unix_timestamp()
}

/// The entity tag as the protocol spells it.
pub fn etag_of(etag: &str) -> Option<ETag> {
    Some(ETag::Strong(etag.to_owned()))
}

/// The time as the protocol spells it.
pub fn time_of(ms: u64) -> Option<Timestamp> {
    Some(Timestamp::from(from_ms(ms)))
}
