//! What every request needs: who asks, which bucket, and whether that is allowed. The verbs are in the files beside.

use std::io;
use std::sync::Arc;

use hyper::HeaderMap;
use s3s::access::{S3Access, S3AccessContext};
use s3s::dto::{Timestamp, TimestampFormat};
use s3s::{S3Error, S3Request, S3Result, s3_error};

use super::acl::{Acl, Permission};
use super::disk::{Bucket, Disk, Object};
use super::profile::Profile;
use super::users::{ANONYMOUS_ID, Users};
use crate::clock::Clock;

/// How far the date of a request signed by version 2 may lie from ours, in seconds; S3's own limit. The check of
/// version 4 is the signature library's, with the same limit.
const DATE_SKEW_SECONDS_MAX: u64 = 15 * 60;

/// The server without its listener.
#[derive(Clone)]
pub struct Service {
    /// What lies on the disk.
    pub disk: Arc<Disk>,
    /// Who may sign.
    pub users: Arc<Users>,
    /// Which store is played.
    pub profile: Profile,
    /// The largest single copy in bytes.
    pub copy_bytes_max: u64,
    /// The smallest part but the last, in bytes.
    pub part_bytes_min: u64,
    /// Dates what is stored.
    pub clock: Clock,
}

impl Service {
    /// The id of the account that signed; `None` for an unsigned request.
    pub fn caller<'a, T>(&'a self, request: &S3Request<T>) -> Option<&'a str> {
        let access_key = &request.credentials.as_ref()?.access_key;
        self.users.by_access_key(access_key).map(|user| user.id.as_str())
    }

    /// The bucket of this name.
    pub fn bucket(&self, name: &str) -> S3Result<Arc<Bucket>> {
        self.disk.bucket(name).ok_or_else(|| s3_error!(NoSuchBucket, "There is no such bucket."))
    }

    /// The bucket of this name, if the caller may do this with it.
    pub fn bucket_for(&self, name: &str, caller: Option<&str>, permission: Permission) -> S3Result<Arc<Bucket>> {
        let bucket = self.bucket(name)?;
        allow(&bucket.record().acl, caller, permission)?;
        Ok(bucket)
    }

    /// The object of this key, if the caller may do this with it.
    ///
    /// Whether an object is missing is told only to who may list the bucket, as in S3.
    pub fn object_for(
        &self,
        bucket: &Bucket,
        key: &str,
        caller: Option<&str>,
        permission: Permission,
    ) -> S3Result<Arc<Object>> {
        let Some(object) = bucket.object(key) else {
            allow(&bucket.record().acl, caller, Permission::Read)?;
            return Err(s3_error!(NoSuchKey, "There is no such object."));
        };
        allow(&self.acl_of(bucket, &object), caller, permission)?;
        Ok(object)
    }

    /// The ACL that counts for an object.
    pub fn acl_of(&self, bucket: &Bucket, object: &Object) -> Acl {
        if self.profile.objects_have_acls() { object.record.attributes.acl.clone() } else { bucket.record().acl }
    }

    /// The ACL that a write gives an object: what the headers say, else private.
    pub fn new_object_acl(&self, headers: &HeaderMap, caller: Option<&str>, bucket: &Bucket) -> S3Result<Acl> {
        let owner = caller.unwrap_or(ANONYMOUS_ID);
        let bucket_acl = bucket.record().acl;
        let asked = Acl::from_headers(headers, owner, &bucket_acl.owner, &self.users, self.profile)?;
        if !self.profile.objects_have_acls() {
            self.demand_bucket_acl(headers, &bucket_acl)?;
        }
        Ok(asked.unwrap_or_else(|| Acl::private(owner)))
    }

    /// A store without ACLs of objects takes the name of the bucket's ACL and no other.
    pub fn demand_bucket_acl(&self, headers: &HeaderMap, bucket_acl: &Acl) -> S3Result<()> {
        match headers.get("x-amz-acl").and_then(|name| name.to_str().ok()) {
            Some(name) if bucket_acl.canned_name() != Some(name) => Err(super::acl::unsupported_canned(name)),
            _ => Ok(()),
        }
    }
}

/// Refuses what an ACL does not allow.
pub fn allow(acl: &Acl, caller: Option<&str>, permission: Permission) -> S3Result<()> {
    if acl.allows(caller, permission) { Ok(()) } else { Err(s3_error!(AccessDenied, "Access denied.")) }
}

/// Runs disk work off the runtime's threads.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> S3Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(disk_error),
        Err(panic) => Err(S3Error::internal_error(panic)),
    }
}

fn disk_error(error: io::Error) -> S3Error {
    match error.kind() {
        io::ErrorKind::NotFound => s3_error!(error, NoSuchBucket, "The bucket or the data is gone."),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            s3_error!(error, ServiceUnavailable, "The disk is full.")
        }
        _ => {
            log::error!("the data folder fails: {error}");
            S3Error::internal_error(error)
        }
    }
}

/// Lets every request through to its verb, which decides; only the date of a version 2 signature is checked here.
pub struct DateCheck(pub Clock);

#[async_trait::async_trait]
impl S3Access for DateCheck {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let headers = context.headers();
        let version_2 = headers.get("authorization").is_some_and(|value| value.as_bytes().starts_with(b"AWS "));
        if !version_2 {
            return Ok(());
        }
        let date = headers.get("x-amz-date").or_else(|| headers.get("date")).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| Timestamp::parse(TimestampFormat::HttpDate, date).ok());
        let date = date.ok_or_else(|| s3_error!(AccessDenied, "The date of the request cannot be read."))?;
        let date = std::time::SystemTime::from(time::OffsetDateTime::from(date));
        let now = self.0.now();
        let skew = now.duration_since(date).unwrap_or_else(|later| later.duration());
        if skew.as_secs() > DATE_SKEW_SECONDS_MAX {
            return Err(s3_error!(RequestTimeTooSkewed, "The date of the request is too far from the server's."));
        }
        Ok(())
    }
}
