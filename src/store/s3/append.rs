//! Appends, as Ceph's gateway takes them.

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;

use super::S3Store;
use super::answer::next_append;
use super::request::Request;
use crate::store::append::Append;
use crate::store::operation::APPEND_OBJECT;
use crate::store::profile::Family;
use crate::store::{Kind, Location, ObjectHeaders, Result};

#[async_trait]
impl Append for S3Store {
    async fn append(&self, location: &Location, position: u64, body: Bytes, headers: &ObjectHeaders) -> Result<()> {
        let (client, end) = (&self.client, position + body.len() as u64);
        let request = Request::object(APPEND_OBJECT, Method::PUT, location)
            .query("append", "")
            .query("position", position.to_string())
            .object_headers(headers)?
            .tags(&headers.tags)?
            .body(body);
        let refused = |why: &str| request.error(Kind::Unsupported, why);
        if client.profile.family() != Family::Rgw || !client.profile.heeds_conditions(&location.bucket) {
            return Err(refused("appends are for Ceph, and for buckets that keep no versions"));
        }
        let response = client.send(request.clone()).await?;
        match next_append(response.headers()) {
            Some(next) if next == end => Ok(()),
            Some(_) => Err(request.error(Kind::Malformed, "the object is of another length after the append")),
            None => Err(refused("this store took an append for a PUT")),
        }
    }
}
