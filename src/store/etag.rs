//! Entity tags: what a store calls a version of an object's content. Nothing here compares contents.

use std::fmt;
use std::sync::Arc;

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use super::Part;

/// An entity tag without its quotes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ETag(Arc<str>);

impl ETag {
    /// Takes an entity tag as a server spells it, quoted or not.
    pub fn new(spelled: &str) -> Self {
        ETag(spelled.trim().trim_matches('"').into())
    }

    /// The tag without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for ETag {
    fn from(spelled: String) -> Self {
        ETag::new(&spelled)
    }
}

impl From<ETag> for String {
    fn from(etag: ETag) -> String {
        etag.as_str().to_owned()
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The entity tag of an object made of parts: the MD5 of their MD5s, and their number. `None` where the parts' tags are
/// no MD5s.
pub fn etag_of_parts(parts: &[Part]) -> Option<ETag> {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(hex::decode(part.etag.as_str()).ok()?);
    }
    Some(ETag::new(&format!("{}-{}", hex::encode(md5.finalize()), parts.len())))
}
