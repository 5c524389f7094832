//! dreamfs mounts DreamObjects, or any S3-compatible store, as a folder.

pub mod clock;
pub mod error;
pub mod format;
pub mod store;
pub mod tree;
