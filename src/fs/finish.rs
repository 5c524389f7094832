//! What no request that makes a version can say is put onto the version right after it: ACLs that do not fit into headers,
//! and tags where the store takes them with few requests.
//!
//! A record in the state folder says so from before the version is made until it is done, so that the next mount does it
//! where this one died in between. It changes nothing that anybody has changed since.

use std::sync::Arc;

use crate::data::state::{Finish, NoteOnDisk};
use crate::error::Result;
use crate::format::acl::{Acl, expand_canned, same_grants};
use crate::store::{AclTarget, Kind, Location, NewAcl, Tag, Tags};

use super::Fs;

/// A finish that is noted on the disk.
#[must_use = "the version that it is for is to be finished"]
pub(crate) struct Noted {
    finish: Finish,
    record: NoteOnDisk,
}

impl Fs {
    /// Notes what the version that is about to be made at `location` needs after it, if anything.
    pub(crate) async fn note_finish(
        &self,
        location: &Location,
        acl: Option<Arc<Acl>>,
        tags: &Tags,
    ) -> Result<Option<Noted>> {
        let acl = acl.filter(|acl| !acl.fits_headers() && self.profile.object_acl() != Some(false));
        let tags = tags.told().filter(|_| !self.profile.tags_ride());
        if acl.is_none() && tags.is_none() {
            return Ok(None);
        }
        let acl = acl.map(|acl| (*acl).clone());
        let finish = Finish { location: location.clone(), acl, tags: tags.map(<[Tag]>::to_vec) };
        let record = self.data.record_finish(&finish).await?;
        Ok(Some(Noted { finish, record }))
    }

    /// Finishes a version that was just made. If that fails, the record stays for the next mount.
    pub(crate) async fn finish(&self, noted: Option<Noted>) -> Result<()> {
        let Some(Noted { finish, record }) = noted else { return Ok(()) };
        if let Some(acl) = finish.acl {
            self.store.put_acl(&AclTarget::Object(finish.location.clone()), &NewAcl::Full(acl)).await?;
        }
        if let Some(tags) = &finish.tags {
            self.store.put_tags(&finish.location, tags).await?;
        }
        self.data.forget_finish(record).await
    }

    /// Finishes what mounts that died have left. What cannot be finished now stays for the next mount.
    pub async fn finish_leftovers(&self, leftovers: Vec<(Finish, NoteOnDisk)>) {
        for (finish, record) in leftovers {
            let location = &finish.location;
            let done = match self.finish_left(&finish).await {
                Err(error) if matches!(error.kind, Kind::NotFound | Kind::NoSuchBucket) => Ok(()),
                done => done,
            };
            match done.map(|()| record.remove()) {
                Ok(Ok(())) => log::info!("{location}: has the ACL and tags that a former mount could not put back"),
                Ok(Err(error)) => log::warn!("{location}: its record stays: {error}"),
                Err(error) => log::warn!("{location}: its ACL or tags are not put back yet: {error}"),
            }
        }
    }

    async fn finish_left(&self, finish: &Finish) -> crate::store::Result<()> {
        let target = AclTarget::Object(finish.location.clone());
        if let Some(acl) = &finish.acl {
            let present = self.store.get_acl(&target).await?;
            let unfinished = match acl.as_headers() {
                Some(headers) => Acl::from_headers(&headers, &present.owner_id, None).ok(),
                None => expand_canned("private", &present.owner_id, None),
            };
            if unfinished.is_some_and(|unfinished| same_grants(&unfinished.grants, &present.grants)) {
                self.store.put_acl(&target, &NewAcl::Full(acl.clone())).await?;
            }
        }
        if let Some(tags) = &finish.tags
            && self.store.get_tags(&finish.location).await?.is_empty()
        {
            self.store.put_tags(&finish.location, tags).await?;
        }
        Ok(())
    }
}
