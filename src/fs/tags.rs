//! Tags behind `user.s3.tags`, and how they stay over new versions.
//!
//! Setting them makes no version: they have a request of their own. A new version has those that ride on its write, so
//! they are read before it, where an answer about the object told that it has any.

use crate::error::{Error, Meaning, Result};
use crate::format::tags::{lines, parse_lines};
use crate::store::{AclTarget, Kind, Location, ObjectHeaders, Tags};
use crate::tree::Ino;

use super::Fs;

impl Fs {
    /// The tags of an object, a line each.
    pub(crate) async fn tags(&self, ino: Ino) -> Result<String> {
        let none = || Error::new(Meaning::NoAttribute, "user.s3.tags");
        self.store_now(ino).await?;
        let AclTarget::Object(location) = self.acl_target(ino).await? else { return Err(none()) };
        if self.known_headers(ino).await?.is_some_and(|headers| headers.tags == Tags::None) {
            return Err(none());
        }
        let tags = self.store.get_tags(&location).await?;
        if tags.is_empty() { Err(none()) } else { Ok(lines(&tags)) }
    }

    /// Changes the tags of an object; no line removes them.
    pub(crate) async fn set_tags(&self, ino: Ino, text: &str) -> Result<()> {
        let tags = parse_lines(text).map_err(|why| Error::new(Meaning::InvalidArgument, why.to_string()))?;
        self.store_now(ino).await?;
        let _marker = self.hold_marker_of(ino).await;
        let file = self.files.get(ino);
        let _guard = match &file {
            Some(file) => Some(file.lock.lock().await),
            None => None,
        };
        let AclTarget::Object(location) = self.acl_target(ino).await? else {
            return Err(Error::new(Meaning::Unsupported, "user.s3.tags of a bucket"));
        };
        let headers = self.known_headers(ino).await?;
        self.store.put_tags(&location, &tags).await?;
        if let Some(headers) = headers {
            let tags = Tags::Are(tags).seen();
            self.tree.update(ino, |inode| inode.set_headers(Some(ObjectHeaders { tags, ..(*headers).clone() })));
        }
        Ok(())
    }

    /// What a new version of the object at `location` gets for these tags: told where they were not.
    pub(crate) async fn told_tags(&self, tags: Tags, location: &Location) -> Result<Tags> {
        if tags != Tags::Untold {
            return Ok(tags);
        }
        // The store could not tell before it has the object.
        if let Some(waiting) = self.journal.as_ref().and_then(|journal| journal.riding_tags(location)) {
            return Ok(waiting);
        }
        match self.store.get_tags(location).await {
            Ok(tags) => Ok(Tags::Are(tags)),
            Err(error) if matches!(error.kind, Kind::Unsupported | Kind::AccessDenied | Kind::NotFound) => {
                log::warn!("{location}: its tags cannot be read, so its next version has none: {error}");
                Ok(Tags::None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
