//! Growing an object where it lies: Ceph's gateway puts bytes behind the last of an object that was made that way. The third
//! part of [`super::Store`]'s border, under the same contract; and the decorators' part in it, which is to pass on.
//!
//! Such an object is made of the pieces that came one by one, and its tag is a chain over them: see [`etag_after`].
//! What else is known of it was tried on Ceph 16.2: a copy that keeps its headers grows likewise, one that replaces
//! them does not; and what two copies have in common grows under one of the names only.

use async_trait::async_trait;
use bytes::Bytes;
use md5::{Digest, Md5};

use super::fault::Fault;
use super::limit::Limit;
use super::operation::APPEND_OBJECT;
use super::retry::{Repeat, Retry};
use super::trace::Trace;
use super::{ETag, Location, ObjectHeaders, Result};

/// What [`super::Store`] can do to an object that grows.
#[async_trait]
pub trait Append {
    /// Puts bytes behind the last of an object that grows ([`super::ObjectHead::grows`]) and is `position` bytes long;
    /// makes one where nothing is and `position` is 0. These headers replace the object's.
    ///
    /// A store that does not know this request takes it for a PUT, and the piece for the object. So it goes only to what
    /// the store itself says grows, or to a key that is nobody's.
    ///
    /// # Errors
    /// [`super::Kind::PreconditionFailed`] for an object of another length, and for one that does not grow;
    /// [`super::Kind::AlreadyExists`] where a copy of it has grown; [`super::Kind::Unsupported`] by a store without
    /// appends: what lies there now may be the piece.
    async fn append(&self, location: &Location, position: u64, body: Bytes, headers: &ObjectHeaders) -> Result<()>;
}

/// The tag of an object with the tag `former` after this piece was appended to it; the first piece's is its MD5. `None`
/// where the former is no such tag.
pub fn etag_after(former: Option<&ETag>, piece: &[u8]) -> Option<ETag> {
    let own = Md5::digest(piece);
    let Some(former) = former else { return Some(ETag::new(&hex::encode(own))) };
    let (chain, _) = halves(former);
    let chain = hex::decode(chain).ok().filter(|chain| chain.len() == own.len())?;
    let chained = Md5::new().chain_update(chain).chain_update(own).finalize();
    Some(ETag::new(&format!("{}-{}", hex::encode(chained), pieces(former)?.checked_add(1)?)))
}

/// How many pieces an object that grows has, by its tag. An object that was uploaded in parts has a tag of the same form.
pub fn pieces(etag: &ETag) -> Option<u32> {
    halves(etag).1.map_or(Some(1), |count| count.parse().ok())
}

fn halves(etag: &ETag) -> (&str, Option<&str>) {
    etag.as_str().split_once('-').map_or((etag.as_str(), None), |(chain, count)| (chain, Some(count)))
}

#[async_trait]
impl Append for Trace {
    async fn append(&self, location: &Location, position: u64, body: Bytes, headers: &ObjectHeaders) -> Result<()> {
        self.note_acl(headers);
        let bytes = body.len() as u64;
        self.traced(APPEND_OBJECT, location, bytes, self.inner.append(location, position, body, headers)).await
    }
}

#[async_trait]
impl Append for Retry {
    /// The second would find the first: not repeated where that may have been carried out.
    async fn append(&self, location: &Location, position: u64, body: Bytes, headers: &ObjectHeaders) -> Result<()> {
        let request = || self.inner.append(location, position, body.clone(), headers);
        self.run(APPEND_OBJECT, location, Repeat::IfNotDone, request).await
    }
}

#[async_trait]
impl Append for Limit {
    async fn append(&self, location: &Location, position: u64, body: Bytes, headers: &ObjectHeaders) -> Result<()> {
        self.limited(self.inner.append(location, position, body, headers)).await
    }
}

#[async_trait]
impl Append for Fault {
    async fn append(&self, location: &Location, position: u64, body: Bytes, headers: &ObjectHeaders) -> Result<()> {
        self.call(APPEND_OBJECT, self.inner.append(location, position, body, headers)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Ceph 16.2 answered.
    #[test]
    fn tags_are_a_chain_over_the_pieces() {
        let first = etag_after(None, &[b'x'; 4096]).expect("a tag");
        assert_eq!(first.as_str(), "20439f79e4e9dc95be34b21029221f80");
        let second = etag_after(Some(&first), &[b'A'; 1000]).expect("a tag");
        assert_eq!(second.as_str(), "48c0c18a3985eeae1b327de681b45b2e-2");
        let third = etag_after(Some(&second), &[b'B'; 1000]).expect("a tag");
        assert_eq!(third.as_str(), "b016c907a0fc90e866e60286e23fd7ff-3");
        assert_eq!([&first, &second, &third].map(pieces), [Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn what_is_no_such_tag_has_no_next() {
        for spelled in ["", "-2", "zz", "20439f79e4e9dc95be34b21029221f80-x", "20439f79-2"] {
            assert_eq!(etag_after(Some(&ETag::new(spelled)), b"piece"), None, "{spelled}");
        }
    }
}
