//! Appends to objects in memory, as Ceph 16.2 makes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::state::{Object, Pieces, Request};
use super::{MemoryStore, bucket_of};
use crate::store::append::{Append, etag_after};
use crate::store::operation::APPEND_OBJECT;
use crate::store::{Kind, Location, ObjectHeaders, Result};

#[async_trait]
impl Append for MemoryStore {
    async fn append(&self, location: &Location, position: u64, body: Bytes, headers: &ObjectHeaders) -> Result<()> {
        let request = Request::on(APPEND_OBJECT, location);
        self.check_single(body.len() as u64, &request)?;
        let mut buckets = self.lock();
        let objects = &mut bucket_of(&mut buckets, &request)?.objects;
        let former = objects.get(location.key.as_str());
        if former.is_some_and(|former| former.pieces.is_none()) {
            return Err(request.refuse(Kind::PreconditionFailed, "ObjectNotAppendable"));
        }
        if former.map_or(0, |former| former.bytes.len() as u64) != position {
            return Err(request.refuse(Kind::PreconditionFailed, "PositionNotEqualToLength"));
        }
        let pieces = match former.and_then(|former| former.pieces.clone()) {
            None => Pieces { count: 1, made: Arc::new(AtomicU32::new(1)) },
            Some(Pieces { count, made }) => {
                if made.compare_exchange(count, count + 1, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                    return Err(request.refuse(Kind::AlreadyExists, "BucketAlreadyExists: a copy of it has grown"));
                }
                Pieces { count: count + 1, made }
            }
        };
        let etag = etag_after(former.map(|former| &former.etag), &body);
        let mut bytes = BytesMut::from(former.map(|former| former.bytes.as_ref()).unwrap_or_default());
        bytes.extend_from_slice(&body);
        let object = Object::new(bytes.freeze(), etag, headers, self.now(), &request)?;
        objects.insert(location.key.to_string(), Object { pieces: Some(pieces), ..object });
        Ok(())
    }
}
