//! Signature Version 4 over exactly what is sent.
//!
//! The pieces come from rust-s3; the canonical request is made here, since rust-s3 sorts whole header lines instead
//! of names and keeps runs of blanks, which breaks signatures as soon as one header's name begins another's. It
//! refuses nothing but what cannot be a header. Source: Amazon S3 API reference, "Authenticating Requests (AWS
//! Signature Version 4)".

use std::sync::{Arc, Mutex, PoisonError};

use hmac::{Hmac, Mac};
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue};
use s3::Region;
use s3::signing;
use sha2::Sha256;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

use super::credentials::Credentials;

/// Stands in the signature for the hash of a body that something else protects.
pub(super) const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// The region that stores without regions are signed for.
const REGION_DEFAULT: &str = "us-east-1";

const TIMESTAMP: &[BorrowedFormatItem<'static>] = format_description!("[year][month][day]T[hour][minute][second]Z");

/// A signing key and the day it is for.
type DayKey = (Date, Arc<[u8]>);

/// Signs with one pair of keys.
pub(super) struct Signer {
    credentials: Credentials,
    region: Region,
    /// The key of the day, since deriving it costs four HMACs.
    day_key: Mutex<Option<DayKey>>,
}

impl Signer {
    /// Signs with these credentials for this region; empty is the default.
    pub(super) fn new(credentials: Credentials, region: &str) -> Self {
        let region = if region.is_empty() { REGION_DEFAULT } else { region };
        let region = Region::Custom { region: region.into(), endpoint: String::new() };
        Signer { credentials, region, day_key: Mutex::new(None) }
    }

    /// What it signs with.
    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Adds host, date, payload hash, token and `Authorization` to the headers of a request.
    pub(super) fn sign(
        &self,
        method: &str,
        url: &Url,
        headers: &mut HeaderMap,
        payload: &str,
        now: OffsetDateTime,
    ) -> Result<(), String> {
        let timestamp = now.format(TIMESTAMP).map_err(|error| error.to_string())?;
        headers.insert(HOST, header_value(&host_of(url))?);
        headers.insert(HeaderName::from_static("x-amz-date"), header_value(&timestamp)?);
        headers.insert(HeaderName::from_static("x-amz-content-sha256"), header_value(payload)?);
        if let Some(token) = &self.credentials.session_token {
            let mut token = header_value(token)?;
            token.set_sensitive(true);
            headers.insert(HeaderName::from_static("x-amz-security-token"), token);
        }
        let (canonical, signed_names) = canonical_request(method, url, headers, payload);
        let signature = self.signature(&canonical, now)?;
        let access_key = &self.credentials.access_key;
        let authorization = signing::authorization_header(access_key, &now, &self.region, &signed_names, &signature)
            .map_err(|error| error.to_string())?;
        let mut authorization = header_value(&authorization)?;
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
        Ok(())
    }

    /// A link that carries its signature in the query.
    pub(super) fn presign(
        &self,
        method: &str,
        url: &Url,
        expires_seconds: u32,
        now: OffsetDateTime,
    ) -> Result<String, String> {
        let Credentials { access_key, session_token, .. } = &self.credentials;
        let token = session_token.as_ref();
        let query =
            signing::authorization_query_params_no_sig(access_key, &now, &self.region, expires_seconds, None, token)
                .map_err(|error| error.to_string())?;
        let query = if url.query().is_some() { query.replacen('?', "&", 1) } else { query };
        let url = Url::parse(&format!("{url}{query}")).map_err(|error| error.to_string())?;
        let headers = HeaderMap::from_iter([(HOST, header_value(&host_of(&url))?)]);
        let (canonical, _) = canonical_request(method, &url, &headers, UNSIGNED_PAYLOAD);
        let signature = self.signature(&canonical, now)?;
        Ok(format!("{url}&X-Amz-Signature={signature}"))
    }

    fn signature(&self, canonical: &str, now: OffsetDateTime) -> Result<String, String> {
        let text = signing::string_to_sign(&now, &self.region, canonical).map_err(|error| error.to_string())?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.day_key(now)?).map_err(|error| error.to_string())?;
        mac.update(text.as_bytes());
        Ok(hex::encode(mac.finalize().into_bytes()))
    }

    fn day_key(&self, now: OffsetDateTime) -> Result<Arc<[u8]>, String> {
        let mut cached = self.day_key.lock().unwrap_or_else(PoisonError::into_inner);
        match cached.as_ref() {
            Some((day, key)) if *day == now.date() => Ok(key.clone()),
            _ => {
                let key = signing::signing_key(&now, &self.credentials.secret_key, &self.region, "s3")
                    .map_err(|error| error.to_string())?;
                let key: Arc<[u8]> = key.into();
                *cached = Some((now.date(), key.clone()));
                Ok(key)
            }
        }
    }
}

/// The canonical request and the list of signed header names: every header that is there, sorted by name.
fn canonical_request(method: &str, url: &Url, headers: &HeaderMap, payload: &str) -> (String, String) {
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let signed_names = names.join(";");
    let mut canonical = format!("{method}\n{}\n{}\n", url.path(), signing::canonical_query_string(url));
    for name in names {
        let values: Vec<String> = headers.get_all(name).iter().map(collapse_blanks).collect();
        canonical.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    canonical.push_str(&format!("\n{signed_names}\n{payload}"));
    (canonical, signed_names)
}

pub(super) fn collapse_blanks(value: &HeaderValue) -> String {
    let text = String::from_utf8_lossy(value.as_bytes());
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// The host as the `Host` header has it.
fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

pub(super) fn header_value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| "a character of it cannot be in a header".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    /// The keys of the examples in Amazon's reference.
    fn signer() -> Signer {
        let credentials = Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            session_token: None,
        };
        Signer::new(credentials, "us-east-1")
    }

    /// Amazon S3 API reference, "Signature Calculations for the Authorization Header", example "GET Object".
    #[test]
    fn the_reference_example_of_a_get_has_the_reference_signature() {
        let url = Url::parse("https://examplebucket.s3.amazonaws.com/test.txt").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("range", HeaderValue::from_static("bytes=0-9"));
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        signer().sign("GET", &url, &mut headers, empty, datetime!(2013-05-24 00:00 UTC)).unwrap();
        let authorization = headers[AUTHORIZATION].to_str().unwrap();
        assert!(authorization.contains("SignedHeaders=host;range;x-amz-content-sha256;x-amz-date"), "{authorization}");
        let signature = "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        assert!(authorization.ends_with(signature), "{authorization}");
    }

    /// The same reference, "Authenticating Requests: Using Query Parameters".
    #[test]
    fn the_reference_example_of_a_link_has_the_reference_signature() {
        let url = Url::parse("https://examplebucket.s3.amazonaws.com/test.txt").unwrap();
        let link = signer().presign("GET", &url, 86400, datetime!(2013-05-24 00:00 UTC)).unwrap();
        let signature = "X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
        assert!(link.ends_with(signature), "{link}");
    }

    #[test]
    fn links_of_temporary_credentials_carry_the_token() {
        let credentials = Credentials { session_token: Some("to/k+en=".into()), ..signer().credentials().clone() };
        let url = Url::parse("https://host/b/k").unwrap();
        let link = Signer::new(credentials, "").presign("GET", &url, 60, datetime!(2013-05-24 00:00 UTC)).unwrap();
        assert!(link.contains("&X-Amz-Security-Token=to%2Fk%2Ben%3D&X-Amz-Signature="), "{link}");
        assert!(link.contains("%2F20130524%2Fus-east-1%2Fs3%2F"), "{link}");
    }

    #[test]
    fn the_key_follows_the_day() {
        let signer = signer();
        let first = signer.day_key(datetime!(2013-05-24 23:59 UTC)).unwrap();
        assert!(Arc::ptr_eq(&first, &signer.day_key(datetime!(2013-05-24 00:00 UTC)).unwrap()));
        assert_ne!(first, signer.day_key(datetime!(2013-05-25 00:00 UTC)).unwrap());
    }

    #[test]
    fn headers_are_sorted_by_name_when_one_name_begins_another() {
        let url = Url::parse("http://h/b/k").unwrap();
        let names = ["x-amz-meta-mtime-ns", "x-amz-meta-mtime", "x-amz-copy-source-range", "x-amz-copy-source"];
        let headers = HeaderMap::from_iter(names.map(|name| (HeaderName::from_static(name), HeaderValue::from(1))));
        let (canonical, signed) = canonical_request("PUT", &url, &headers, "P");
        assert_eq!(signed, "x-amz-copy-source;x-amz-copy-source-range;x-amz-meta-mtime;x-amz-meta-mtime-ns");
        assert_eq!(
            canonical,
            format!(
                "PUT\n/b/k\n\nx-amz-copy-source:1\nx-amz-copy-source-range:1\nx-amz-meta-mtime:1\n\
                 x-amz-meta-mtime-ns:1\n\n{signed}\nP"
            )
        );
    }

    #[test]
    fn runs_of_blanks_are_one_blank_in_the_signature() {
        assert_eq!(collapse_blanks(&HeaderValue::from_static(" a  b \t c ")), "a b c");
    }

    #[test]
    fn debug_shows_no_secret() {
        let credentials = Credentials { session_token: Some("token".into()), ..signer().credentials().clone() };
        let shown = format!("{credentials:?}");
        assert!(!shown.contains("wJalr") && !shown.contains("token\""), "{shown}");
    }
}
