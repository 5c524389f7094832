//! What kind of store this is, learned from its address and its answers, never from hope.
//!
//! One [`Profile`] is shared by the adapter, which teaches it, and by those who decide by it. It starts with nothing
//! known; every fact in it was seen. It refuses to guess: a question without an answer is `None` or the protocol's
//! own rule.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use reqwest::header::HeaderMap;

use crate::format::key::BucketName;

/// The families of stores that differ in what dreamfs does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Family {
    /// Nothing was seen that tells.
    Unknown,
    /// Ceph's RADOS gateway: DreamObjects' first clusters.
    Rgw,
    /// Backblaze B2 and stores built on it: DreamObjects US-East 5.
    B2,
    /// MinIO.
    Minio,
    /// Amazon S3.
    Aws,
}

/// The families by their number in the atomic.
const FAMILIES: [Family; 5] = [Family::Unknown, Family::Rgw, Family::B2, Family::Minio, Family::Aws];

/// `Profile::object_acl` before anything is known; 0 and 1 are no and yes.
const OBJECT_ACL_UNKNOWN: u8 = 2;

/// What is known of a store.
#[derive(Debug)]
pub struct Profile {
    family: AtomicU8,
    object_acl: AtomicU8,
    /// Buckets of which an answer told the id of a version.
    versioned: Mutex<HashSet<BucketName>>,
}

impl Default for Profile {
    fn default() -> Self {
        Profile {
            family: AtomicU8::new(Family::Unknown as u8),
            object_acl: AtomicU8::new(OBJECT_ACL_UNKNOWN),
            versioned: Mutex::default(),
        }
    }
}

impl Profile {
    /// Nothing known yet.
    pub fn new() -> Self {
        Profile::default()
    }

    /// The store's family.
    pub fn family(&self) -> Family {
        FAMILIES[usize::from(self.family.load(Ordering::Relaxed))]
    }

    /// Takes a family as seen; [`Family::Unknown`] teaches nothing.
    pub fn learn(&self, family: Family) {
        if family != Family::Unknown {
            self.family.store(family as u8, Ordering::Relaxed);
        }
    }

    /// Whether objects can have an ACL of their own. `None` as long as nobody tried.
    pub fn object_acl(&self) -> Option<bool> {
        match (self.family(), self.object_acl.load(Ordering::Relaxed)) {
            (Family::Rgw | Family::Aws, _) => Some(true),
            (Family::B2 | Family::Minio, _) => Some(false),
            (Family::Unknown, OBJECT_ACL_UNKNOWN) => None,
            (Family::Unknown, known) => Some(known == 1),
        }
    }

    /// Takes what a request on an object's ACL showed.
    pub fn learn_object_acl(&self, works: bool) {
        self.object_acl.store(u8::from(works), Ordering::Relaxed);
    }

    /// Whether tags ride on every write. RGW 16.2 takes them with a PUT only: on a copy or an upload of parts it keeps the
    /// header as it came, and the object's tags cannot be read any more.
    pub fn tags_ride(&self) -> bool {
        self.family() != Family::Rgw
    }

    /// Whether `If-Match` carries quotes, as RFC 9110 says. RGW 16.2 answers 412 to the quoted form of a tag that
    /// matches.
    pub fn if_match_quoted(&self) -> bool {
        self.family() != Family::Rgw
    }

    /// Whether conditions on writes to a bucket are judged by the present object. RGW 16.2 judges them in a bucket that
    /// keeps versions as if there were none: If-None-Match always holds, and If-Match never.
    pub(super) fn heeds_conditions(&self, bucket: &BucketName) -> bool {
        let versioned = || self.versioned.lock().expect("no panic under this lock").contains(bucket);
        self.family() != Family::Rgw || !versioned()
    }

    /// Learns from the name of the store's host.
    pub(super) fn observe_host(&self, host: &str) {
        self.learn(family_of_host(host));
    }

    /// Learns from the headers of an answer; they outrank the host's name.
    pub(super) fn observe(&self, bucket: Option<&BucketName>, headers: &HeaderMap) {
        self.learn(family_of_headers(headers));
        if let Some(bucket) = bucket.filter(|_| headers.contains_key("x-amz-version-id")) {
            self.versioned.lock().expect("no panic under this lock").insert(bucket.clone());
        }
    }
}

fn family_of_host(host: &str) -> Family {
    let under = |domain: &str| host == domain || host.ends_with(&format!(".{domain}"));
    if under("backblazeb2.com") || (host.starts_with("s3.us-east-") && under("dream.io")) {
        Family::B2
    } else if under("amazonaws.com") || under("amazonaws.com.cn") {
        Family::Aws
    } else {
        Family::Unknown
    }
}

fn family_of_headers(headers: &HeaderMap) -> Family {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let server = text("server");
    let has_rgw_header = headers.keys().any(|name| name.as_str().starts_with("x-rgw-"));
    if has_rgw_header || server.contains("Ceph") || is_rgw_request_id(text("x-amz-request-id")) {
        Family::Rgw
    } else if server.contains("MinIO") {
        Family::Minio
    } else {
        Family::Unknown
    }
}

/// RGW spells request ids `tx` + a long hexadecimal number, and then `-`-parted fields that end with the zone.
fn is_rgw_request_id(id: &str) -> bool {
    let mut fields = id.split('-');
    let number = fields.next().and_then(|first| first.strip_prefix("tx0")).unwrap_or_default();
    number.len() >= 8 && number.bytes().all(|byte| byte.is_ascii_hexdigit()) && fields.count() >= 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    fn seen(name: &'static str, value: &'static str) -> Family {
        family_of_headers(&HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]))
    }

    #[test]
    fn families_are_told_by_evidence() {
        assert_eq!(seen("x-rgw-object-type", "Normal"), Family::Rgw);
        assert_eq!(seen("server", "Ceph Object Gateway (squid)"), Family::Rgw);
        assert_eq!(seen("x-amz-request-id", "tx00000c4f1a2b3c4d5e6f7-0066aabbcc-4137-default"), Family::Rgw);
        assert_eq!(seen("x-amz-request-id", "tx0"), Family::Unknown);
        assert_eq!(seen("x-amz-request-id", "656c76696e6727732072657175657374"), Family::Unknown);
        assert_eq!(seen("server", "MinIO"), Family::Minio);
        assert_eq!(seen("server", "nginx"), Family::Unknown);
        assert_eq!(family_of_host("s3.us-east-005.dream.io"), Family::B2);
        assert_eq!(family_of_host("s3.us-west-002.backblazeb2.com"), Family::B2);
        assert_eq!(family_of_host("objects-us-east-1.dream.io"), Family::Unknown);
        assert_eq!(family_of_host("s3.eu-west-1.amazonaws.com"), Family::Aws);
        assert_eq!(family_of_host("notamazonaws.com"), Family::Unknown);
    }

    #[test]
    fn what_is_not_known_is_not_claimed() {
        let profile = Profile::new();
        assert_eq!((profile.family(), profile.object_acl()), (Family::Unknown, None));
        assert!(profile.if_match_quoted());
        profile.learn_object_acl(false);
        assert_eq!(profile.object_acl(), Some(false));
        profile.learn(Family::Rgw);
        profile.learn(Family::Unknown);
        assert_eq!((profile.family(), profile.object_acl()), (Family::Rgw, Some(true)));
        assert!(!profile.if_match_quoted());
    }

    #[test]
    fn every_family_comes_back_as_learned() {
        for family in FAMILIES {
            let profile = Profile::new();
            profile.learn(family);
            assert_eq!(profile.family(), family);
        }
    }
}
