//! Signature Version 2, for stores that lack Version 4.
//!
//! It says nothing of the body and little of the query; Version 4 is better wherever the store knows it. Sources: Amazon S3
//! developer guide (2006-03-01), "Signing and Authenticating REST Requests"; Ceph `rgw_auth_s3.cc` for the list of
//! subresources.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue};
use sha1::Sha1;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::credentials::Credentials;
use super::sign::{collapse_blanks, header_value};
use crate::format::url::encode_query;

const HTTP_DATE: &[BorrowedFormatItem<'static>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// The parts of a query that a signature covers, sorted.
const SUBRESOURCES: [&str; 19] = [
    "acl",
    "delete",
    "location",
    "partNumber",
    "policy",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "restore",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "versionId",
    "versioning",
    "versions",
];

/// Adds date, token and `Authorization` to the headers of a request. `path` begins with the bucket, wherever the URL has
/// it.
pub(super) fn sign(
    credentials: &Credentials,
    method: &str,
    (url, path): (&Url, &str),
    headers: &mut HeaderMap,
    now: OffsetDateTime,
) -> Result<(), String> {
    let date = now.to_offset(time::UtcOffset::UTC).format(HTTP_DATE).map_err(|error| error.to_string())?;
    headers.insert(DATE, header_value(&date)?);
    if let Some(token) = &credentials.session_token {
        let mut token = header_value(token)?;
        token.set_sensitive(true);
        headers.insert(HeaderName::from_static("x-amz-security-token"), token);
    }
    let signature = signature(credentials, &string_to_sign(method, &date, headers, &resource(url, path)))?;
    let mut authorization = header_value(&format!("AWS {}:{signature}", credentials.access_key))?;
    authorization.set_sensitive(true);
    headers.insert(AUTHORIZATION, authorization);
    Ok(())
}

/// A link that carries its signature in the query.
pub(super) fn presign(
    credentials: &Credentials,
    method: &str,
    (url, path): (&Url, &str),
    expires_seconds: u32,
    now: OffsetDateTime,
) -> Result<String, String> {
    let expires = (now.unix_timestamp() + i64::from(expires_seconds)).to_string();
    let mut headers = HeaderMap::new();
    let mut link = format!("{url}{}AWSAccessKeyId=", if url.query().is_some() { '&' } else { '?' });
    link.push_str(&encode_query(&credentials.access_key));
    if let Some(token) = &credentials.session_token {
        headers.insert(HeaderName::from_static("x-amz-security-token"), header_value(token)?);
        link.push_str(&format!("&x-amz-security-token={}", encode_query(token)));
    }
    let signature = signature(credentials, &string_to_sign(method, &expires, &headers, &resource(url, path)))?;
    Ok(format!("{link}&Expires={expires}&Signature={}", encode_query(&signature)))
}

fn signature(credentials: &Credentials, text: &str) -> Result<String, String> {
    let mac = Hmac::<Sha1>::new_from_slice(credentials.secret_key.as_bytes()).map_err(|error| error.to_string());
    let mut mac = mac?;
    mac.update(text.as_bytes());
    Ok(STANDARD.encode(mac.finalize().into_bytes()))
}

fn string_to_sign(method: &str, date: &str, headers: &HeaderMap, resource: &str) -> String {
    let one = |name: HeaderName| headers.get(name).map(HeaderValue::as_bytes).map(String::from_utf8_lossy);
    let (md5, kind) = (one(HeaderName::from_static("content-md5")), one(CONTENT_TYPE));
    let mut text = format!("{method}\n{}\n{}\n{date}\n", md5.unwrap_or_default(), kind.unwrap_or_default());
    let mut names: Vec<&str> =
        headers.keys().map(HeaderName::as_str).filter(|name| name.starts_with("x-amz-")).collect();
    names.sort_unstable();
    for name in names {
        let values: Vec<String> = headers.get_all(name).iter().map(collapse_blanks).collect();
        text.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    text.push_str(resource);
    text
}

/// The path with the bucket, and of the query what a signature covers: values as they are, not escaped.
fn resource(url: &Url, path: &str) -> String {
    let mut covered: Vec<String> = url
        .query_pairs()
        .filter(|(name, _)| SUBRESOURCES.contains(&name.as_ref()))
        .map(|(name, value)| if value.is_empty() { name.into_owned() } else { format!("{name}={value}") })
        .collect();
    covered.sort();
    if covered.is_empty() { path.to_owned() } else { format!("{path}?{}", covered.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    /// The keys and requests of the examples in Amazon's guide.
    fn credentials() -> Credentials {
        Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            session_token: None,
        }
    }

    fn signed(url: &str, date: &str) -> String {
        let url = Url::parse(&format!("https://johnsmith.s3.amazonaws.com/{url}")).unwrap();
        let text =
            string_to_sign("GET", date, &HeaderMap::new(), &resource(&url, &format!("/johnsmith{}", url.path())));
        signature(&credentials(), &text).unwrap()
    }

    #[test]
    fn the_guides_examples_have_the_guides_signatures() {
        assert_eq!(signed("photos/puppy.jpg", "Tue, 27 Mar 2007 19:36:42 +0000"), "bWq2s1WEIj+Ydj0vQ697zp+IXMU=");
        let list = "?prefix=photos&max-keys=50&marker=puppy";
        assert_eq!(signed(list, "Tue, 27 Mar 2007 19:42:41 +0000"), "htDYFYduRNen8P9ZfE/s9SuKy0U=");
    }

    #[test]
    fn dates_are_those_of_http_and_tokens_are_signed() {
        let (mut headers, url) = (HeaderMap::new(), Url::parse("http://h/b").unwrap());
        let credentials = Credentials { session_token: Some("token".into()), ..credentials() };
        sign(&credentials, "GET", (&url, "/b"), &mut headers, datetime!(2007-03-07 09:06:02 UTC)).unwrap();
        assert_eq!(headers[DATE], "Wed, 07 Mar 2007 09:06:02 GMT");
        let text = string_to_sign("GET", "d", &headers, "/b");
        assert_eq!(text, "GET\n\n\nd\nx-amz-security-token:token\n/b");
    }

    #[test]
    fn the_guides_link_has_the_guides_signature() {
        let url = Url::parse("https://johnsmith.s3.amazonaws.com/photos/puppy.jpg").unwrap();
        let at = OffsetDateTime::from_unix_timestamp(1_175_139_620 - 60).unwrap();
        let link = presign(&credentials(), "GET", (&url, "/johnsmith/photos/puppy.jpg"), 60, at).unwrap();
        assert!(
            link.ends_with(
                "?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Expires=1175139620&Signature=NpgCjnDzrM%2BWFzoENXmpNDUsSn8%3D"
            ),
            "{link}"
        );
    }
}
