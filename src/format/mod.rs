//! How a POSIX file lies in a bucket: pure functions without clock, chance or I/O, property-tested.
//!
//! * [`key`]: names of buckets and objects; paths to keys and back.
//! * [`header`]: mode, owner, times and user attributes to `x-amz-meta-*` and back.
//! * [`xattr`]: extended attributes among the metadata, also as s3fs keeps them.
//! * [`acl`]: ACLs: canned names, the grant lines of `user.s3.grants`, request headers.
//! * [`encryption`]: how a store encrypts an object, as text.
//! * [`tags`]: the lines of `user.s3.tags`, and how tags ride on a write.
//! * [`xml`]: the protocol's documents.
//! * [`url`]: percent-encoding and links.

pub mod acl;
pub mod encryption;
pub mod header;
pub mod key;
pub mod tags;
pub mod url;
pub mod xattr;
pub mod xml;
