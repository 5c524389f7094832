//! Whose ACL a request is about, and which it is to be.

use std::fmt;

use super::{Acl, BucketName, Location};

/// Whose ACL is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AclTarget {
    /// A bucket's.
    Bucket(BucketName),
    /// An object's.
    Object(Location),
}

impl fmt::Display for AclTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AclTarget::Bucket(bucket) => bucket.fmt(f),
            AclTarget::Object(location) => location.fmt(f),
        }
    }
}

/// A new ACL, canned or in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewAcl {
    /// A canned name, sent as `x-amz-acl`.
    Canned(String),
    /// The whole list, sent as XML.
    Full(Acl),
}
