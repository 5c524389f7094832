//! Names of buckets and objects that are safe to put into a URL, and paths to keys and back.
//!
//! A URL library folds `.` and `..` segments, so that `DELETE /bucket/x/..` deletes the bucket. The types here
//! cannot hold such a key: [`Key::new`] refuses what no path can name, and nothing else makes a [`Key`].

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Bytes of a key at most (S3 API reference, "Object key names").
pub const KEY_BYTES_MAX: usize = 1024;

/// Bytes of one path segment at most (NAME_MAX of Linux).
pub const SEGMENT_BYTES_MAX: usize = 255;

/// Why a name cannot be a key or a bucket's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadName {
    /// Empty, or with an empty segment.
    Empty,
    /// A segment is `.` or `..`.
    DotSegment,
    /// It has a NUL byte.
    Nul,
    /// The key or a segment of it is too long.
    TooLong,
    /// A character that a bucket's name cannot have.
    Character,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadName::Empty => "a name or a segment of it is empty",
            BadName::DotSegment => "a segment is \".\" or \"..\"",
            BadName::Nul => "it holds a NUL byte",
            BadName::TooLong => "it is too long",
            BadName::Character => "bucket names are 3 to 255 letters, digits, dots, dashes and underscores",
        })
    }
}

impl std::error::Error for BadName {}

/// A key that a path can name: no empty, `.` or `..` segment, no NUL, bounded; a closing `/` marks a directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(Arc<str>);

impl Key {
    /// Takes a raw key, or says why no path can name it.
    pub fn new(raw: &str) -> Result<Self, BadName> {
        if raw.len() > KEY_BYTES_MAX {
            return Err(BadName::TooLong);
        }
        let segments = raw.strip_suffix('/').unwrap_or(raw);
        for segment in segments.split('/') {
            check_segment(segment)?;
        }
        Ok(Key(raw.into()))
    }

    /// The key as it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the marker of a directory.
    pub fn is_marker(&self) -> bool {
        self.0.ends_with('/')
    }
}

impl TryFrom<String> for Key {
    type Error = BadName;

    fn try_from(raw: String) -> Result<Self, BadName> {
        Key::new(&raw)
    }
}

impl From<Key> for String {
    fn from(name: Key) -> String {
        name.as_str().to_owned()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Checks one segment of a path.
pub fn check_segment(segment: &str) -> Result<(), BadName> {
    match segment {
        "" => Err(BadName::Empty),
        "." | ".." => Err(BadName::DotSegment),
        _ if segment.len() > SEGMENT_BYTES_MAX => Err(BadName::TooLong),
        _ if segment.contains('\0') => Err(BadName::Nul),
        _ => Ok(()),
    }
}

/// A bucket's name, safe in a URL. Wider than today's rules of S3, since old buckets of Ceph have wider names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BucketName(Arc<str>);

impl BucketName {
    /// Takes a bucket's name, or says why it cannot be one.
    pub fn new(raw: &str) -> Result<Self, BadName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if raw.is_empty() {
            return Err(BadName::Empty);
        }
        if raw.len() < 3 || raw.len() > SEGMENT_BYTES_MAX || !raw.bytes().all(allowed) {
            return Err(BadName::Character);
        }
        Ok(BucketName(raw.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it can be the first part of a host's name (S3 user guide, "Bucket naming rules"). A certificate for
    /// `*.host` holds for names without dots only.
    pub fn fits_host(&self, secure: bool) -> bool {
        let is_label = |label: &str| {
            let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            !label.is_empty() && label.bytes().all(allowed) && !label.starts_with('-') && !label.ends_with('-')
        };
        self.0.len() <= 63 && self.0.split('.').all(is_label) && !(secure && self.0.contains('.'))
    }
}

impl TryFrom<String> for BucketName {
    type Error = BadName;

    fn try_from(raw: String) -> Result<Self, BadName> {
        BucketName::new(&raw)
    }
}

impl From<BucketName> for String {
    fn from(name: BucketName) -> String {
        name.as_str().to_owned()
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The directory that a mount or a verb works below: empty, or a key that ends with `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Prefix(Arc<str>);

impl Prefix {
    /// Takes `a/b` or `a/b/`; empty is the bucket's root.
    pub fn new(raw: &str) -> Result<Self, BadName> {
        let trimmed = raw.trim_end_matches('/');
        if trimmed.is_empty() {
            return Ok(Prefix::default());
        }
        Key::new(&format!("{trimmed}/")).map(|key| Prefix(key.0))
    }

    /// The prefix, with its closing `/` unless it is the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of a file in this directory.
    pub fn file(&self, name: &str) -> Result<Key, BadName> {
        check_segment(name)?;
        if name.contains('/') {
            return Err(BadName::Empty);
        }
        Key::new(&format!("{}{name}", self.0))
    }

    /// A directory in this directory.
    pub fn directory(&self, name: &str) -> Result<Prefix, BadName> {
        self.file(name).and_then(|key| Prefix::new(key.as_str()))
    }

    /// The key of this directory's marker; the root has none.
    pub fn marker(&self) -> Option<Key> {
        if self.0.is_empty() { None } else { Some(Key(self.0.clone())) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_that_no_path_can_name_are_refused() {
        for raw in ["", "/", "a//b", "/a", "a/./b", "../b", "a/..", "a/../", "..", ".", "a\0b", "a//"] {
            assert!(Key::new(raw).is_err(), "{raw:?}");
        }
        assert_eq!(Key::new(&"x".repeat(256)), Err(BadName::TooLong));
        assert_eq!(Key::new(&"xy/".repeat(400)), Err(BadName::TooLong));
        for raw in ["a", "a/", "a/b", "...", "a/.b/..c", " ", "a\nb", "%2e%2e", "a?b#c", "ä/😀"] {
            assert!(Key::new(raw).is_ok(), "{raw:?}");
        }
    }

    #[test]
    fn bucket_names_hold_nothing_that_a_url_could_bend() {
        for raw in ["", "..", "ab", "a/b", "a b", "bücket", "a?b"] {
            assert!(BucketName::new(raw).is_err(), "{raw:?}");
        }
        assert!(BucketName::new("My_old.bucket-1").is_ok());
    }

    #[test]
    fn what_cannot_be_in_a_host_name_stays_in_the_path() {
        let fits = |raw: &str, secure| BucketName::new(raw).expect("plain").fits_host(secure);
        assert!(fits("my-bucket1", true) && fits("my.bucket", false) && !fits("my.bucket", true));
        for raw in ["My-bucket", "my_bucket", "-bucket", "bucket-", "a..b", ".ab", &"x".repeat(64)] {
            assert!(!fits(raw, false), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn a_file_in_a_prefix_splits_back(directory in "[a-z]{1,8}(/[a-z]{1,8}){0,3}", name in "[^/\0]{1,20}") {
            prop_assume!(name != "." && name != "..");
            let prefix = Prefix::new(&directory).expect("plain letters");
            let key = prefix.file(&name).expect("one segment");
            prop_assert_eq!(key.as_str().strip_prefix(prefix.as_str()), Some(name.as_str()));
        }

        #[test]
        fn no_key_has_a_segment_that_a_url_library_folds(raw in ".{0,40}") {
            if let Ok(key) = Key::new(&raw) {
                prop_assert!(key.as_str().split('/').all(|segment| segment != "." && segment != ".."));
            }
        }
    }
}
