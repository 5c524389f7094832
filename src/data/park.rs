//! What stays on this machine when a mount ends while a file is not stored: its bytes, and beside them a record of what
//! they are, for a person to recover.

use std::path::PathBuf;

use crate::store::Location;

use super::extents::{Extent, Source};
use super::file::File;

impl File {
    /// The mount ends while this is not stored: its staged bytes stay, with a record of what they are; answers where.
    pub fn park(&self, location: &Location) -> Option<PathBuf> {
        let state = self.lock();
        let stage = state.stage.as_ref()?;
        if stage.given_back_bytes() > 0 {
            log::error!("{location}: too long to be kept here: what of it was sent is given up with its upload");
            return None;
        }
        let extents: Vec<_> = state.extents.iter().map(describe).collect();
        let record = serde_json::json!({
            "bucket": location.bucket.as_str(),
            "key": location.key.as_str(),
            "size_bytes": state.extents.size_bytes(),
            "base_etag": state.base.as_ref().map(|stored| stored.version.etag.as_str().to_owned()),
            "extents": extents,
        });
        match stage.park(&record.to_string()) {
            Ok(path) => Some(path),
            Err(error) => {
                log::error!("{location}: its unsaved bytes could not be parked: {error}");
                None
            }
        }
    }
}

fn describe(extent: &Extent) -> serde_json::Value {
    let source = match &extent.source {
        Source::Object(stored, from) => serde_json::json!({
            "bucket": stored.version.location.bucket.as_str(), "key": stored.version.location.key.as_str(),
            "etag": stored.version.etag.as_str(), "offset": from,
        }),
        Source::Staged => "staged".into(),
        Source::Hole => "zeros".into(),
    };
    serde_json::json!({ "start": extent.range.start, "end": extent.range.end, "from": source })
}
