//! The protocol's XML documents: read with tolerance, written with care. Pure.
//!
//! Reading follows the path of element names and ignores namespaces, order and whatever is unknown, since every
//! store leaves out or adds something; only what no caller can do without is an error. Writing refuses nothing: what
//! XML 1.0 cannot carry ([`can_carry`]) the caller must not hand in. Sources: Amazon S3 API reference, the response
//! syntax of each operation.

mod build;
mod tagging;
mod versions;

use std::fmt;
use std::time::SystemTime;

use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::format::acl::{Acl, Grant, Grantee, Permission};
use crate::format::url;

pub use build::{build_acl, build_complete, build_delete, build_location, build_restore, can_carry};
pub use tagging::{build_tagging, parse_tagging};
pub use versions::{
    PartEntry, PartsDocument, UploadsDocument, VersionEntry, VersionsDocument, parse_parts, parse_uploads,
    parse_versions,
};

/// The namespace of S3's documents.
const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// The group of everyone.
const ALL_USERS: &str = "http://acs.amazonaws.com/groups/global/AllUsers";

/// The group of everyone who has an account.
const AUTHENTICATED_USERS: &str = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers";

/// The group of the log writer.
const LOG_DELIVERY: &str = "http://acs.amazonaws.com/groups/s3/LogDelivery";

/// A document that is not what the protocol says, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadDocument(String);

impl fmt::Display for BadDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadDocument {}

/// An `Error` document. What is absent is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorDocument {
    /// S3's name of the error.
    pub code: String,
    /// The store's own words.
    pub message: String,
    /// The region that the bucket lies in, where the store redirects.
    pub region: String,
}

/// A page of `ListObjectsV2`, keys decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListDocument {
    /// The objects, in the store's order.
    pub objects: Vec<ListEntry>,
    /// The folded prefixes, in the store's order.
    pub prefixes: Vec<String>,
    /// How to ask for the next page.
    pub continuation: Option<String>,
}

/// An object in a [`ListDocument`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// The key.
    pub key: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// The entity tag as spelled.
    pub etag: String,
    /// When it was stored, to the second as a HEAD tells it: stores differ in what lies below.
    pub modified: SystemTime,
    /// The storage class, where told.
    pub storage_class: Option<String>,
}

/// A key that `DeleteObjects` could not delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteError {
    /// The key.
    pub key: String,
    /// S3's name of the error.
    pub code: String,
    /// The store's own words.
    pub message: String,
}

/// Reads an error document; `None` when it is another document or no XML.
pub fn parse_error(document: &str) -> Option<ErrorDocument> {
    let mut error = ErrorDocument::default();
    let root = walk(document, |node| {
        if let Node::Close { path, text } = node {
            match path {
                "Code" => error.code = text.into(),
                "Message" => error.message = text.into(),
                "Region" => error.region = text.into(),
                _ => {}
            }
        }
        Ok(())
    });
    root.is_ok_and(|root| root == "Error").then_some(error)
}

/// Reads one page of a listing. Keys are decoded where the store says that it encoded them; one that is no UTF-8 then
/// is left out, since no request can name it.
pub fn parse_list(document: &str) -> Result<ListDocument, BadDocument> {
    let mut page = ListDocument::default();
    let (mut encoded, mut truncated) = (false, false);
    let mut modified_missing = false;
    expect_root("ListBucketResult", document, |node| {
        match node {
            Node::Open { path: "Contents" } => page.objects.push(ListEntry {
                key: String::new(),
                size_bytes: 0,
                etag: String::new(),
                modified: SystemTime::UNIX_EPOCH,
                storage_class: None,
            }),
            Node::Open { .. } => {}
            Node::Close { path: "EncodingType", text } => encoded = text.eq_ignore_ascii_case("url"),
            Node::Close { path: "IsTruncated", text } => truncated = text.trim() == "true",
            Node::Close { path: "NextContinuationToken", text } => page.continuation = Some(text.into()),
            Node::Close { path: "CommonPrefixes/Prefix", text } => page.prefixes.push(text.into()),
            Node::Close { path, text } => {
                if let (Some(field), Some(entry)) = (path.strip_prefix("Contents/"), page.objects.last_mut()) {
                    match field {
                        "Key" => entry.key = text.into(),
                        "Size" => entry.size_bytes = parse_number(text)?,
                        "ETag" => entry.etag = text.into(),
                        "LastModified" => match parse_time(text) {
                            Some(modified) => entry.modified = modified,
                            None => modified_missing = true,
                        },
                        "StorageClass" => entry.storage_class = Some(text.into()),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    })?;
    if modified_missing {
        return Err(BadDocument("a LastModified is no time of day".into()));
    }
    match (truncated, &page.continuation) {
        (true, None) => return Err(BadDocument("the listing goes on, and does not tell where".into())),
        (true, Some(_)) => {}
        (false, _) => page.continuation = None,
    }
    if encoded {
        page.objects.retain_mut(|entry| replace(&mut entry.key, url::decode_listed));
        page.prefixes.retain_mut(|prefix| replace(prefix, url::decode_listed));
    }
    Ok(page)
}

/// Reads the account's buckets: names and, where told, when each was created.
pub fn parse_buckets(document: &str) -> Result<Vec<(String, Option<SystemTime>)>, BadDocument> {
    let mut buckets: Vec<(String, Option<SystemTime>)> = Vec::new();
    expect_root("ListAllMyBucketsResult", document, |node| {
        match node {
            Node::Open { path: "Buckets/Bucket" } => buckets.push((String::new(), None)),
            Node::Close { path, text } => match (path, buckets.last_mut()) {
                ("Buckets/Bucket/Name", Some(bucket)) => bucket.0 = text.into(),
                ("Buckets/Bucket/CreationDate", Some(bucket)) => bucket.1 = parse_time(text),
                _ => {}
            },
            Node::Open { .. } => {}
        }
        Ok(())
    })?;
    Ok(buckets)
}

/// Reads one field of a small answer, such as the `ETag` of a copy or the `UploadId` of a new upload.
pub fn parse_field(document: &str, root: &str, field: &str) -> Result<String, BadDocument> {
    let mut found = None;
    expect_root(root, document, |node| {
        if let Node::Close { path, text } = node
            && path == field
        {
            found = Some(text.to_owned());
        }
        Ok(())
    })?;
    found.filter(|text| !text.is_empty()).ok_or_else(|| BadDocument(format!("{root} has no {field}")))
}

/// Reads the keys that a `DeleteObjects` could not delete.
pub fn parse_delete_result(document: &str) -> Result<Vec<DeleteError>, BadDocument> {
    let mut errors: Vec<DeleteError> = Vec::new();
    expect_root("DeleteResult", document, |node| {
        match node {
            Node::Open { path: "Error" } => errors.push(DeleteError::default()),
            Node::Close { path, text } => match (path, errors.last_mut()) {
                ("Error/Key", Some(error)) => error.key = text.into(),
                ("Error/Code", Some(error)) => error.code = text.into(),
                ("Error/Message", Some(error)) => error.message = text.into(),
                _ => {}
            },
            Node::Open { .. } => {}
        }
        Ok(())
    })?;
    Ok(errors)
}

/// Reads an ACL. A grantee or permission that dreamfs has no word for is an error: left out, it would be lost when the
/// list is written back.
pub fn parse_acl(document: &str) -> Result<Acl, BadDocument> {
    let mut acl = Acl { owner_id: String::new(), owner_name: None, grants: Vec::new() };
    let (mut grantee, mut permission) = (None, None);
    expect_root("AccessControlPolicy", document, |node| {
        match node {
            Node::Open { path: "AccessControlList/Grant" } => (grantee, permission) = (None, None),
            Node::Open { .. } => {}
            Node::Close { path: "Owner/ID", text } => acl.owner_id = text.into(),
            Node::Close { path: "Owner/DisplayName", text } if !text.is_empty() => acl.owner_name = Some(text.into()),
            Node::Close { path: "AccessControlList/Grant", .. } => match (grantee.take(), permission.take()) {
                (Some(grantee), Some(permission)) => acl.grants.push(Grant { grantee, permission }),
                _ => return Err(BadDocument("a grant has no grantee or no permission".into())),
            },
            Node::Close { path, text } => match path.strip_prefix("AccessControlList/Grant/") {
                Some("Grantee/ID") => grantee = Some(Grantee::Id(text.into())),
                Some("Grantee/EmailAddress") => grantee = Some(Grantee::Email(text.into())),
                Some("Grantee/URI") => grantee = Some(parse_group(text)?),
                Some("Permission") => permission = Some(parse_permission(text)?),
                _ => {}
            },
        }
        Ok(())
    })?;
    Ok(acl)
}

/// What [`walk`] meets. Paths are element names below the root, joined by slashes.
enum Node<'a> {
    Open { path: &'a str },
    Close { path: &'a str, text: &'a str },
}

/// Reads a document whose root must be `root`.
fn expect_root(
    root: &str,
    document: &str,
    visit: impl FnMut(Node<'_>) -> Result<(), BadDocument>,
) -> Result<(), BadDocument> {
    let found = walk(document, visit)?;
    if found == root { Ok(()) } else { Err(BadDocument(format!("expected {root}, got {found:?}"))) }
}

/// Shows every element below the root to `visit` and answers the root's name. Does not recurse, so that no document
/// can exhaust the stack.
fn walk(document: &str, mut visit: impl FnMut(Node<'_>) -> Result<(), BadDocument>) -> Result<String, BadDocument> {
    let bad = |error: &dyn fmt::Display| BadDocument(format!("bad XML: {error}"));
    let mut reader = Reader::from_str(document);
    reader.config_mut().expand_empty_elements = true;
    let (mut root, mut path, mut text) = (None, String::new(), String::new());
    let mut path_lengths = Vec::new();
    loop {
        match reader.read_event().map_err(|error| bad(&error))? {
            Event::Start(start) => {
                text.clear();
                path_lengths.push(path.len());
                if root.is_none() {
                    root = Some(local_name(&start));
                    continue;
                }
                if !path.is_empty() {
                    path.push('/');
                }
                path.push_str(&local_name(&start));
                visit(Node::Open { path: &path })?;
            }
            Event::End(_) => {
                if path_lengths.len() > 1 {
                    visit(Node::Close { path: &path, text: &text })?;
                }
                text.clear();
                path.truncate(path_lengths.pop().unwrap_or(0));
            }
            Event::Text(piece) => text.push_str(&piece.decode().map_err(|error| bad(&error))?),
            Event::CData(piece) => text.push_str(&piece.decode().map_err(|error| bad(&error))?),
            Event::GeneralRef(reference) => push_reference(&reference, &mut text)?,
            Event::Eof if path_lengths.is_empty() => break,
            Event::Eof => return Err(BadDocument("bad XML: it ends early".into())),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    root.ok_or_else(|| BadDocument("bad XML: it is empty".into()))
}

fn push_reference(reference: &BytesRef<'_>, text: &mut String) -> Result<(), BadDocument> {
    let name = reference.decode().map_err(|error| BadDocument(format!("bad XML: {error}")))?;
    let character = reference.resolve_char_ref().map_err(|error| BadDocument(format!("bad XML: {error}")))?;
    match (character, resolve_xml_entity(&name)) {
        (Some(character), _) => text.push(character),
        (None, Some(entity)) => text.push_str(entity),
        (None, None) => return Err(BadDocument(format!("bad XML: unknown entity {name:?}"))),
    }
    Ok(())
}

fn local_name(start: &BytesStart<'_>) -> String {
    String::from_utf8_lossy(start.local_name().into_inner()).into_owned()
}

fn parse_number(text: &str) -> Result<u64, BadDocument> {
    text.trim().parse().map_err(|_| BadDocument(format!("{text:?} is no length")))
}

/// Reads an ISO 8601 time, to the second.
fn parse_time(text: &str) -> Option<SystemTime> {
    let time = OffsetDateTime::parse(text.trim(), &Rfc3339).ok()?;
    time.replace_nanosecond(0).ok().map(SystemTime::from)
}

fn parse_group(uri: &str) -> Result<Grantee, BadDocument> {
    match uri.trim() {
        ALL_USERS => Ok(Grantee::AllUsers),
        AUTHENTICATED_USERS => Ok(Grantee::AuthenticatedUsers),
        LOG_DELIVERY => Ok(Grantee::LogDelivery),
        other => Err(BadDocument(format!("unknown group {other:?}"))),
    }
}

fn parse_permission(text: &str) -> Result<Permission, BadDocument> {
    let all = [Permission::Read, Permission::Write, Permission::ReadAcp, Permission::WriteAcp, Permission::FullControl];
    let known = all.into_iter().find(|&permission| permission.name() == text.trim());
    known.ok_or_else(|| BadDocument(format!("unknown permission {text:?}")))
}

/// Puts the decoded text in place; answers whether there was one.
fn replace(text: &mut String, decode: impl Fn(&str) -> Option<String>) -> bool {
    decode(text).map(|decoded| *text = decoded).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn a_listing_is_read_in_any_order_and_with_fields_missing() {
        let page = parse_list(
            "<?xml version='1.0'?><ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>\
             <CommonPrefixes><Prefix>x%2By/</Prefix></CommonPrefixes>\
             <Contents><Key>a+b%20c%2Bd%0D</Key><Size>7</Size><ETag>&quot;abc&quot;</ETag>\
             <LastModified>2024-01-02T03:04:05.678Z</LastModified></Contents>\
             <CommonPrefixes><Prefix>z/</Prefix></CommonPrefixes>\
             <Contents><Key>%ff</Key></Contents><Contents><Key>e</Key><Size/></Contents>\
             <EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
             <NextContinuationToken>t&amp;&#x41;</NextContinuationToken></ListBucketResult>",
        );
        // An empty Size is no length.
        assert!(page.is_err());
        let page = parse_list(
            "<s:ListBucketResult xmlns:s='x'><s:CommonPrefixes><s:Prefix>x%2By/</s:Prefix></s:CommonPrefixes>\
             <s:Contents><s:Key>a+b%20c%2Bd%0D</s:Key><s:Size>7</s:Size><s:ETag>&quot;abc&quot;</s:ETag>\
             <s:LastModified>2024-01-02T03:04:05.678Z</s:LastModified><s:Owner><s:ID>no</s:ID></s:Owner></s:Contents>\
             <s:CommonPrefixes><s:Prefix>z/</s:Prefix></s:CommonPrefixes>\
             <s:Contents><s:Key>%ff</s:Key></s:Contents>\
             <s:EncodingType>url</s:EncodingType><s:IsTruncated>true</s:IsTruncated>\
             <s:NextContinuationToken>t&amp;&#x41;</s:NextContinuationToken></s:ListBucketResult>",
        )
        .unwrap();
        assert_eq!(page.prefixes, ["x+y/", "z/"]);
        assert_eq!(page.continuation.as_deref(), Some("t&A"));
        assert_eq!(page.objects.len(), 1, "a key that is no UTF-8 is left out");
        assert_eq!(page.objects[0].key, "a b c+d\r");
        assert_eq!(page.objects[0].etag, "\"abc\"");
        assert_eq!(page.objects[0].modified, SystemTime::UNIX_EPOCH + Duration::from_secs(1_704_164_645));
    }

    #[test]
    fn keys_that_were_not_encoded_are_not_decoded() {
        let page = parse_list("<ListBucketResult><Contents><Key>a+%20&lt;</Key></Contents></ListBucketResult>");
        assert_eq!(page.unwrap().objects[0].key, "a+%20<");
    }

    #[test]
    fn a_listing_that_goes_on_nowhere_is_refused() {
        assert!(parse_list("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>").is_err());
        let last = "<ListBucketResult><NextContinuationToken>x</NextContinuationToken></ListBucketResult>";
        assert_eq!(parse_list(last).unwrap().continuation, None);
    }

    #[test]
    fn torn_and_foreign_documents_are_errors() {
        for document in
            ["", "no XML", "<a>", "<ListBucketResult><Contents>", "<Error></Error>", "<a></b>", "<a>&x;</a>"]
        {
            assert!(parse_list(document).is_err(), "{document}");
        }
        assert_eq!(parse_error("<html><Code>x</Code></html>"), None);
        assert_eq!(parse_error("not found"), None);
        let error = parse_error("\n \n<?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code></Error>").unwrap();
        assert_eq!(error, ErrorDocument { code: "SlowDown".into(), ..Default::default() });
    }

    #[test]
    fn buckets_fields_and_delete_results_are_read() {
        let buckets = parse_buckets(
            "<ListAllMyBucketsResult><Owner><ID>o</ID></Owner><Buckets><Bucket><Name>b1</Name>\
             <CreationDate>2020-01-01T00:00:00.5Z</CreationDate></Bucket><Bucket><Name>b2</Name></Bucket></Buckets>\
             </ListAllMyBucketsResult>",
        )
        .unwrap();
        assert_eq!(buckets[0], ("b1".into(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_836_800))));
        assert_eq!(buckets[1], ("b2".into(), None));
        let copy = "   \n<CopyObjectResult><ETag>\"e\"</ETag></CopyObjectResult>";
        assert_eq!(parse_field(copy, "CopyObjectResult", "ETag").unwrap(), "\"e\"");
        assert!(parse_field(copy, "CopyObjectResult", "UploadId").is_err());
        let failed = parse_delete_result(
            "<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>b&amp;</Key><Code>AccessDenied</Code></Error>\
             <Deleted><Key>c</Key></Deleted><Error><Key>d</Key></Error></DeleteResult>",
        )
        .unwrap();
        assert_eq!(failed.iter().map(|error| error.key.as_str()).collect::<Vec<_>>(), ["b&", "d"]);
        assert_eq!(failed[0].code, "AccessDenied");
    }

    #[test]
    fn requests_are_escaped() {
        assert!(build_delete([("a<&>\"'", None)].into_iter()).contains("<Key>a&lt;&amp;&gt;&quot;&apos;</Key>"));
        assert!(build_complete([(1, "ab")].into_iter()).contains("<ETag>&quot;ab&quot;</ETag>"));
        assert!(build_location("eu<").contains("<LocationConstraint>eu&lt;<"));
        assert!(can_carry("a\tb\nc é😀"));
        for text in ["\r", "\u{1}", "\0", "\u{ffff}", "\u{1f}"] {
            assert!(!can_carry(text), "{text:?}");
        }
    }

    #[test]
    fn grants_without_words_for_them_are_refused() {
        let acl = |grantee: &str, permission: &str| {
            parse_acl(&format!(
                "<AccessControlPolicy><Owner><ID>o</ID></Owner><AccessControlList><Grant><Grantee>{grantee}</Grantee>\
                 <Permission>{permission}</Permission></Grant></AccessControlList></AccessControlPolicy>"
            ))
        };
        assert!(acl("<ID>x</ID>", "READ").is_ok());
        assert!(acl("<ID>x</ID>", "FLY").is_err());
        assert!(acl("<URI>http://example.com</URI>", "READ").is_err());
        assert!(acl("", "READ").is_err());
    }

    fn text() -> impl Strategy<Value = String> {
        any::<String>().prop_filter("XML carries it", |text| can_carry(text) && !text.is_empty())
    }

    fn grantee() -> impl Strategy<Value = Grantee> {
        prop_oneof![
            text().prop_map(Grantee::Id),
            text().prop_map(Grantee::Email),
            Just(Grantee::AllUsers),
            Just(Grantee::AuthenticatedUsers),
            Just(Grantee::LogDelivery),
        ]
    }

    fn permission() -> impl Strategy<Value = Permission> {
        prop_oneof![
            Just(Permission::Read),
            Just(Permission::Write),
            Just(Permission::ReadAcp),
            Just(Permission::WriteAcp),
            Just(Permission::FullControl),
        ]
    }

    proptest! {
        #[test]
        fn acls_come_back_as_written(
            owner_id in text(),
            owner_name in proptest::option::of(text()),
            grants in proptest::collection::vec((grantee(), permission()), 0..6),
        ) {
            let grants = grants.into_iter().map(|(grantee, permission)| Grant { grantee, permission }).collect();
            let acl = Acl { owner_id, owner_name, grants };
            prop_assert_eq!(parse_acl(&build_acl(&acl)), Ok(acl));
        }

        #[test]
        fn no_document_panics(document in "[<>/a-zA-Z&;#\"= ]{0,60}|(<(Contents|Grant|Error|Key)/?>){0,9}") {
            let _ = (parse_list(&document), parse_acl(&document), parse_error(&document), parse_delete_result(&document));
        }
    }
}
