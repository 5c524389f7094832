//! Helpers for the tests of this folder. Files over a whole store are tested in `tests/`.

use std::sync::Arc;

use super::{Stored, Version};
use crate::store::{BucketName, ETag, Key, Location};

/// A stored version of so many bytes.
pub(super) fn stored(key: &str, size_bytes: u64) -> Arc<Stored> {
    let location = Location { bucket: BucketName::new("bucket").expect("plain"), key: Key::new(key).expect("plain") };
    Arc::new(Stored::new(Version { location, etag: ETag::new(key), size_bytes, version_id: None }))
}
