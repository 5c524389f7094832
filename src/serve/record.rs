//! What is written to the disk beside the bytes: one JSON line a bucket, object, upload and part.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::acl::Acl;

/// A bucket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BucketRecord {
    /// When it was created, in milliseconds since 1970.
    pub created_ms: u64,
    /// Who may do what in it.
    pub acl: Acl,
}

/// A range of a blob, which is a part of an object's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The blob's file name.
    pub blob: String,
    /// Where in the blob the piece begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

/// What a write gives an object beside its bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attributes {
    /// Who may do what with it.
    pub acl: Acl,
    /// Content headers and `x-amz-meta-*`, names in lower case, values as they came over the wire.
    pub headers: BTreeMap<String, String>,
    /// The storage class, where one was asked for.
    pub storage_class: Option<String>,
    /// Whether an archived object's bytes were asked for.
    #[serde(default)]
    pub restored: bool,
    /// Tags in the order given.
    pub tags: Vec<(String, String)>,
}

impl Attributes {
    /// Whether the bytes are archived, and were not asked for.
    pub fn is_archived(&self) -> bool {
        matches!(self.storage_class.as_deref(), Some("GLACIER" | "DEEP_ARCHIVE")) && !self.restored
    }
}

/// An object. Its bytes are the pieces in order; without pieces they follow the record's line in the same file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// The key.
    pub key: String,
    /// Which write made its bytes. An object made of an upload has the upload's id.
    pub id: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Entity tag without quotes.
    pub etag: String,
    /// When it was stored, in milliseconds since 1970.
    pub modified_ms: u64,
    /// The rest.
    pub attributes: Attributes,
    /// Where its bytes lie.
    pub pieces: Vec<Piece>,
}

/// A multipart upload that is under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UploadRecord {
    /// The key of the object to be.
    pub key: String,
    /// When it began, in milliseconds since 1970.
    pub initiated_ms: u64,
    /// What the object will have.
    pub attributes: Attributes,
}

/// A part of an upload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PartRecord {
    /// Its number, from 1.
    pub number: u32,
    /// Length in bytes.
    pub size_bytes: u64,
    /// The MD5 of its bytes, which is its entity tag too.
    pub md5: [u8; 16],
    /// When it was stored, in milliseconds since 1970.
    pub modified_ms: u64,
    /// Where its bytes lie.
    pub pieces: Vec<Piece>,
}

/// Milliseconds since 1970.
pub fn to_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// The time of so many milliseconds since 1970.
pub fn from_ms(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}
