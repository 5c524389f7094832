//! ACLs and links behind extended attributes: `user.s3.acl`, `user.s3.grants`, `user.s3.url`, `user.s3.signed_url`.
//!
//! A store resets the ACL with every new version, so it rides on the request that makes the version. On a store
//! without object ACLs (B2-like) nothing is ever sent unasked: there a wrong `x-amz-acl` would refuse the write.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use crate::error::{Error, Meaning, Result};
use crate::format::acl::{Acl, CANNED_NAMES, parse_lines, same_grants};
use crate::format::xattr::DEFAULT_ACL;
use crate::store::link::LINK_EXPIRES_MAX;
use crate::store::{AclHeaders, AclTarget, Kind, LinkMethod, Location, NewAcl, PresignRequest};
use crate::tree::{AclState, FileKind, Ino, Place, ROOT};

use super::{Caller, Fs};

impl Fs {
    /// The canned name of the ACL, or `custom`.
    pub(crate) async fn canned_acl(&self, ino: Ino) -> Result<String> {
        let sent = self.tree.read(ino, |inode| {
            match (inode.acl(self.config.ttl.min()), inode.local && inode.object.is_none()) {
                (AclState::Sent(headers), true) => Some(headers),
                _ => None,
            }
        });
        match sent.flatten() {
            Some(None) => Ok("private".to_owned()),
            Some(Some(AclHeaders::Canned(name))) => Ok(name),
            Some(Some(AclHeaders::Grants(_))) => Ok("custom".to_owned()),
            None => Ok(self.acl(ino).await?.canned_name().unwrap_or("custom").to_owned()),
        }
    }

    /// The ACL of a bucket or object, from one request per version.
    pub(crate) async fn acl(&self, ino: Ino) -> Result<Arc<Acl>> {
        if let Some(AclState::Known(acl)) = self.tree.read(ino, |inode| inode.acl(self.config.ttl.min())) {
            return Ok(acl);
        }
        self.store_now(ino).await?;
        let acl = Arc::new(self.store.get_acl(&self.acl_target(ino).await?).await.map_err(unsupported_acl)?);
        self.tree.update(ino, |inode| inode.set_acl(AclState::Known(acl.clone())));
        Ok(acl)
    }

    /// Changes the ACL to a canned one.
    pub(crate) async fn set_canned_acl(&self, ino: Ino, name: &str, caller: Caller) -> Result<()> {
        check_canned(name)?;
        let new = NewAcl::Canned(name.to_owned());
        self.set_acl(ino, new, AclHeaders::Canned(name.to_owned()), caller).await
    }

    /// Changes the ACL to these grants, a line each.
    pub(crate) async fn set_grants(&self, ino: Ino, lines: &str, caller: Caller) -> Result<()> {
        let grants = parse_lines(lines).map_err(|why| Error::new(Meaning::InvalidArgument, why.to_string()))?;
        let owner = self.acl(ino).await?;
        let acl = Acl { owner_id: owner.owner_id.clone(), owner_name: owner.owner_name.clone(), grants };
        let headers = acl.as_headers().unwrap_or_else(|| AclHeaders::Canned("private".to_owned()));
        self.set_acl(ino, NewAcl::Full(acl), headers, caller).await
    }

    async fn set_acl(&self, ino: Ino, new: NewAcl, headers: AclHeaders, caller: Caller) -> Result<()> {
        self.check_acl_changeable(ino, caller)?;
        // Only a file's ACL can wait for the file, and only where the store is known to take it then.
        if self.kind(ino) == Some(FileKind::Directory) || self.profile.object_acl() != Some(true) {
            self.store_now(ino).await?;
        }
        let _marker = self.hold_marker_of(ino).await;
        let file = self.files.get(ino);
        let _guard = match &file {
            Some(file) => Some(file.lock.lock().await),
            None => None,
        };
        if self.is_unstored(ino) {
            self.tree.update(ino, |inode| inode.set_acl(AclState::Sent(Some(headers))));
            return Ok(());
        }
        let target = self.acl_target(ino).await?;
        if matches!(target, AclTarget::Object(_)) && self.profile.object_acl() == Some(false) {
            return self.set_bucket_wide_acl(ino, &target, &new).await;
        }
        let stored = self.store.put_acl(&target, &new).await;
        if let Err(error) = &stored
            && error.kind == Kind::Unsupported
            && matches!(target, AclTarget::Object(_))
        {
            self.profile.learn_object_acl(false);
            log::warn!("{}: this store has no object ACLs; change the bucket's ({error})", self.path(ino));
        }
        stored.map_err(unsupported_acl)?;
        self.tree.update(ino, |inode| inode.set_acl(AclState::Unknown));
        if matches!(target, AclTarget::Bucket(_)) && self.profile.object_acl() == Some(false) {
            // It is that of all that the bucket holds.
            self.refresh(ino);
        }
        Ok(())
    }

    fn check_acl_changeable(&self, ino: Ino, caller: Caller) -> Result<()> {
        self.check_writable()?;
        let owner = self.tree.read(ino, |inode| inode.attr.uid);
        if caller.uid != 0 && Some(caller.uid) != owner {
            return Err(Error::new(Meaning::NotPermitted, "only the owner and root may change an ACL"));
        }
        Ok(())
    }

    /// On a store whose objects have their bucket's ACL: nothing is to be done where that is the one that is wanted, and
    /// nothing can be done where it is another.
    async fn set_bucket_wide_acl(&self, ino: Ino, target: &AclTarget, new: &NewAcl) -> Result<()> {
        let present = self.store.get_acl(target).await.map_err(unsupported_acl)?;
        let is_same = match new {
            NewAcl::Canned(name) => present.canned_name() == Some(name),
            NewAcl::Full(acl) => same_grants(&present.grants, &acl.grants),
        };
        if is_same {
            return Ok(());
        }
        log::warn!("{}: on this store objects have the ACL of their bucket: set that of the bucket", self.path(ino));
        Err(Error::new(Meaning::Unsupported, "object ACL"))
    }

    /// Keeps a directory's marker as it is, while what lies beside its headers changes.
    pub(crate) async fn hold_marker_of(&self, ino: Ino) -> Option<OwnedMutexGuard<()>> {
        match self.kind(ino) {
            Some(FileKind::Directory) => Some(self.owed.hold_marker(ino).await),
            _ => None,
        }
    }

    fn is_unstored(&self, ino: Ino) -> bool {
        self.tree.read(ino, |inode| inode.local && inode.object.is_none()).unwrap_or(false)
    }

    /// Stores what was made here and waits to be stored: only what the store has, has an ACL.
    pub(crate) async fn store_now(&self, ino: Ino) -> Result<()> {
        if !self.is_unstored(ino) {
            return Ok(());
        }
        if self.kind(ino) == Some(FileKind::Directory) {
            let attr = self.tree.read(ino, |inode| inode.attr);
            return self.put_marker(ino, &attr.ok_or_else(|| Error::new(Meaning::Stale, self.path(ino)))?).await;
        }
        let file = self.open_file(ino)?;
        let stored = self.commit(&file).await;
        self.forget_file(file);
        stored
    }

    /// Whose ACL an inode's attribute is: a file's, a directory's marker's, a bucket's.
    pub(crate) async fn acl_target(&self, ino: Ino) -> Result<AclTarget> {
        match self.place(ino)? {
            Place::Account => Err(Error::new(Meaning::NoAttribute, "the account has no ACL")),
            Place::Directory { bucket, prefix } if prefix.marker().is_none() => Ok(AclTarget::Bucket(bucket)),
            place => {
                // A directory is known by the keys below it, also where its marker was not looked for yet.
                if self.kind(ino) == Some(FileKind::Directory) {
                    self.known_headers(ino).await?;
                }
                let stored = self.tree.read(ino, |inode| inode.object.is_some()).unwrap_or(false);
                match place.location() {
                    Some(location) if stored => Ok(AclTarget::Object(location)),
                    _ => Err(Error::new(Meaning::NoAttribute, format!("{}: nothing is stored", self.path(ino)))),
                }
            }
        }
    }

    /// Where the object behind an inode lies: a file that was renamed while it was being written, where its stored version
    /// lies.
    pub(crate) fn stored_location(&self, ino: Ino) -> Option<Location> {
        let location = self.files.get(ino).and_then(|file| file.bytes.version()).map(|version| version.location);
        location.or_else(|| self.tree.place(ino).and_then(|place| place.location()))
    }

    /// The ACL that must ride on the next version of an inode's object, so that it keeps what it has.
    pub(crate) async fn riding_acl(&self, ino: Ino) -> Result<Option<AclHeaders>> {
        let state = self.tree.read(ino, |inode| inode.acl(self.config.ttl.min())).unwrap_or_default();
        let stored = self.tree.read(ino, |inode| inode.object.is_some()).unwrap_or(false);
        let location = self.stored_location(ino);
        let Some(location) = location.filter(|_| stored || matches!(state, AclState::Sent(_))) else {
            return self.created_acl(self.parent(ino)).await;
        };
        let (riding, learned) = self.riding_acl_of(&state, &AclTarget::Object(location)).await?;
        if let Some(learned) = learned {
            self.tree.update(ino, |inode| inode.set_acl(AclState::Known(learned)));
        }
        Ok(riding)
    }

    /// The same for any object, given what is known of its ACL; also answers what was learned.
    pub(crate) async fn riding_acl_of(
        &self,
        state: &AclState,
        target: &AclTarget,
    ) -> Result<(Option<AclHeaders>, Option<Arc<Acl>>)> {
        if let (AclState::Unknown, AclTarget::Object(location), Some(journal)) = (state, target, &self.journal)
            && let Some(headers) = journal.riding_acl(location)
        {
            // The store could not tell before it has the object.
            return Ok((headers, None));
        }
        let acl = match state {
            AclState::Sent(headers) => return Ok((headers.clone(), None)),
            _ if self.profile.object_acl() == Some(false) => return Ok((self.mounts_acl(), None)),
            AclState::Known(acl) => acl.clone(),
            AclState::Unknown => match self.store.get_acl(target).await {
                Ok(acl) => Arc::new(acl),
                Err(error) if matches!(error.kind, Kind::Unsupported | Kind::AccessDenied | Kind::NotFound) => {
                    log::warn!(
                        "{target}: its ACL cannot be read, so its next version has the store's default: {error}"
                    );
                    return Ok((None, None));
                }
                Err(error) => return Err(error.into()),
            },
        };
        if self.profile.object_acl().is_none() && self.is_bucket_acl(&acl, target).await {
            return Ok((None, Some(acl)));
        }
        Ok((acl.as_headers(), Some(acl)))
    }

    /// The directory that an inode is in.
    pub(crate) fn parent(&self, ino: Ino) -> Ino {
        self.tree.read(ino, |inode| inode.parent_and_name().0).unwrap_or(ROOT)
    }

    /// The ACL of what is made in a directory: that of the nearest directory which has one for it, or else the mount's.
    pub(crate) async fn created_acl(&self, directory: Ino) -> Result<Option<AclHeaders>> {
        let mut at = directory;
        loop {
            if self.tree.read(at, |inode| inode.object.is_some()) == Some(true)
                && let Some(headers) = self.known_headers(at).await?
                && let Some(name) = headers.metadata.get(DEFAULT_ACL)
                && CANNED_NAMES.contains(&name.as_str())
            {
                return Ok(Some(AclHeaders::Canned(name.clone())));
            }
            if at == ROOT {
                return Ok(self.mounts_acl());
            }
            at = self.parent(at);
        }
    }

    fn mounts_acl(&self) -> Option<AclHeaders> {
        self.config.acl.clone().map(AclHeaders::Canned)
    }

    /// Sets or removes the ACL of what will be made below a directory.
    pub(crate) async fn set_default_acl(&self, ino: Ino, name: Option<&str>, caller: Caller) -> Result<()> {
        self.check_acl_changeable(ino, caller)?;
        if self.kind(ino) != Some(FileKind::Directory) || self.profile.object_acl() == Some(false) {
            return Err(Error::new(Meaning::Unsupported, "user.s3.default_acl, which only directories have"));
        }
        name.map_or(Ok(()), check_canned)?;
        self.change_headers(ino, |headers| match name {
            Some(name) => {
                headers.metadata.insert(DEFAULT_ACL.to_owned(), name.to_owned());
                Ok(())
            }
            None => headers
                .metadata
                .remove(DEFAULT_ACL)
                .map(drop)
                .ok_or_else(|| Error::new(Meaning::NoAttribute, "user.s3.default_acl")),
        })
        .await
    }

    /// The ACL of an inode's object, if the store has told it.
    pub(crate) fn known_acl(&self, ino: Ino) -> Option<Arc<Acl>> {
        match self.tree.read(ino, |inode| inode.acl(Duration::MAX))? {
            AclState::Known(acl) => Some(acl),
            AclState::Sent(_) | AclState::Unknown => None,
        }
    }

    /// On a store of which nothing is known: whether an object's ACL is just its bucket's, as on stores that have
    /// none for objects.
    async fn is_bucket_acl(&self, acl: &Acl, target: &AclTarget) -> bool {
        let AclTarget::Object(location) = target else { return false };
        if acl.as_headers().is_none() {
            return true;
        }
        match self.store.get_acl(&AclTarget::Bucket(location.bucket.clone())).await {
            Ok(bucket) => same_grants(&bucket.grants, &acl.grants),
            Err(_) => false,
        }
    }

    /// The plain link of an object.
    pub(crate) fn url(&self, ino: Ino) -> Result<String> {
        match self.place(ino)? {
            Place::File(location) => Ok(self.store.url(&location)),
            _ => Err(self.no_link(ino)),
        }
    }

    /// Told, though an attribute that is not there mostly is not: whoever asks for a link has one in mind.
    fn no_link(&self, ino: Ino) -> Error {
        log::warn!("{}: only files have links; ask for that of a file in it", self.path(ino));
        Error::new(Meaning::NoAttribute, "only files have links")
    }

    /// A link that works for anyone for a while. It lends the mounter's credentials, so only the mounter gets it.
    pub(crate) fn signed_url(&self, ino: Ino, expires: Duration, caller: Caller) -> Result<String> {
        if caller.uid != 0 && caller.uid != self.config.daemon_uid {
            return Err(Error::new(Meaning::NotPermitted, "signed links are for the user who mounted, and root"));
        }
        match self.place(ino)? {
            Place::File(location) => {
                self.signed_link(&PresignRequest { location, method: LinkMethod::Get, expires, download_name: None })
            }
            _ => Err(self.no_link(ino)),
        }
    }

    /// The same for a name that need not be there, once what was written under it is stored.
    pub async fn link(&self, request: &PresignRequest) -> Result<String> {
        if request.method == LinkMethod::Put {
            self.check_writable()?;
        }
        self.settle(|name| *name == request.location).await?;
        self.signed_link(request)
    }

    fn signed_link(&self, request: &PresignRequest) -> Result<String> {
        if request.expires.is_zero() || request.expires > LINK_EXPIRES_MAX {
            let (seconds, seconds_max) = (request.expires.as_secs(), LINK_EXPIRES_MAX.as_secs());
            let why = format!("a signed link lasts 1 to {seconds_max} seconds, not {seconds}");
            return Err(Error::new(Meaning::InvalidArgument, why));
        }
        Ok(self.store.presign(request)?)
    }
}

fn check_canned(name: &str) -> Result<()> {
    match CANNED_NAMES.contains(&name) {
        true => Ok(()),
        false => {
            let why = format!("{name:?} is no canned ACL; valid are {}", CANNED_NAMES.join(", "));
            Err(Error::new(Meaning::InvalidArgument, why))
        }
    }
}

/// A store that does not know ACLs means EOPNOTSUPP, never EIO or EINVAL.
fn unsupported_acl(error: crate::store::Error) -> Error {
    match error.kind {
        Kind::Unsupported => Error::with_source(Meaning::Unsupported, error.subject.clone(), error),
        _ => error.into(),
    }
}
