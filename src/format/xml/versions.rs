//! Reads listings of versions and of uploads.

use std::time::SystemTime;

use crate::format::url;

use super::{BadDocument, Node, expect_root, parse_number, parse_time, replace};

/// A page of `ListObjectVersions`, keys decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionsDocument {
    /// Versions and delete markers, in the store's order.
    pub versions: Vec<VersionEntry>,
    /// The folded prefixes.
    pub prefixes: Vec<String>,
    /// Where the next page begins: behind a key, and a version of it.
    pub next: Option<(String, Option<String>)>,
}

/// A version in a [`VersionsDocument`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionEntry {
    /// The key.
    pub key: String,
    /// The version's id.
    pub version_id: String,
    /// Whether it is the present one.
    pub is_latest: bool,
    /// Whether it is a delete marker.
    pub is_delete_marker: bool,
    /// Length in bytes.
    pub size_bytes: u64,
    /// The entity tag as spelled.
    pub etag: String,
    /// When it was stored, to the second.
    pub modified: SystemTime,
}

/// A page of `ListMultipartUploads`, keys decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadsDocument {
    /// Keys and ids.
    pub uploads: Vec<(String, String)>,
    /// Where the next page begins: behind a key, and an upload of it.
    pub next: Option<(String, Option<String>)>,
}

/// What both kinds of pages tell of themselves.
#[derive(Default)]
struct Paging {
    encoded: bool,
    truncated: bool,
    next_key: Option<String>,
    next_id: Option<String>,
}

impl Paging {
    fn note(&mut self, path: &str, text: &str) {
        match path {
            "EncodingType" => self.encoded = text.eq_ignore_ascii_case("url"),
            "IsTruncated" => self.truncated = text.trim() == "true",
            "NextKeyMarker" => self.next_key = Some(text.into()),
            "NextVersionIdMarker" | "NextUploadIdMarker" if !text.is_empty() => self.next_id = Some(text.into()),
            _ => {}
        }
    }

    fn next(self) -> Result<Option<(String, Option<String>)>, BadDocument> {
        if !self.truncated {
            return Ok(None);
        }
        let known = self.next_key.filter(|key| !key.is_empty());
        let mut key = known.ok_or_else(|| BadDocument("the listing goes on, and does not tell where".into()))?;
        if self.encoded && !replace(&mut key, url::decode_listed) {
            return Err(BadDocument("the listing goes on behind a key that is not UTF-8".into()));
        }
        Ok(Some((key, self.next_id)))
    }
}

/// Reads one page of versions. A key that is not UTF-8 is left out, since no request can name it.
pub fn parse_versions(document: &str) -> Result<VersionsDocument, BadDocument> {
    let (mut page, mut paging) = (VersionsDocument::default(), Paging::default());
    expect_root("ListVersionsResult", document, |node| {
        match node {
            Node::Open { path: path @ ("Version" | "DeleteMarker") } => page.versions.push(VersionEntry {
                key: String::new(),
                version_id: "null".to_owned(),
                is_latest: false,
                is_delete_marker: path == "DeleteMarker",
                size_bytes: 0,
                etag: String::new(),
                modified: SystemTime::UNIX_EPOCH,
            }),
            Node::Open { .. } => {}
            Node::Close { path: "CommonPrefixes/Prefix", text } => page.prefixes.push(text.into()),
            Node::Close { path, text } => {
                let field = path.strip_prefix("Version/").or_else(|| path.strip_prefix("DeleteMarker/"));
                match (field, page.versions.last_mut()) {
                    (Some("Key"), Some(entry)) => entry.key = text.into(),
                    (Some("VersionId"), Some(entry)) if !text.is_empty() => entry.version_id = text.into(),
                    (Some("IsLatest"), Some(entry)) => entry.is_latest = text.trim() == "true",
                    (Some("Size"), Some(entry)) => entry.size_bytes = parse_number(text)?,
                    (Some("ETag"), Some(entry)) => entry.etag = text.into(),
                    (Some("LastModified"), Some(entry)) => {
                        let time = parse_time(text);
                        entry.modified = time.ok_or_else(|| BadDocument("a LastModified is no time of day".into()))?;
                    }
                    _ => paging.note(path, text),
                }
            }
        }
        Ok(())
    })?;
    if paging.encoded {
        page.versions.retain_mut(|entry| replace(&mut entry.key, url::decode_listed));
        page.prefixes.retain_mut(|prefix| replace(prefix, url::decode_listed));
    }
    page.next = paging.next()?;
    Ok(page)
}

/// Reads one page of uploads. A key that is not UTF-8 is left out, since no request can name it.
pub fn parse_uploads(document: &str) -> Result<UploadsDocument, BadDocument> {
    let (mut page, mut paging) = (UploadsDocument::default(), Paging::default());
    expect_root("ListMultipartUploadsResult", document, |node| {
        match node {
            Node::Open { path: "Upload" } => page.uploads.push(Default::default()),
            Node::Open { .. } => {}
            Node::Close { path, text } => match (path, page.uploads.last_mut()) {
                ("Upload/Key", Some(upload)) => upload.0 = text.into(),
                ("Upload/UploadId", Some(upload)) => upload.1 = text.into(),
                _ => paging.note(path, text),
            },
        }
        Ok(())
    })?;
    if paging.encoded {
        page.uploads.retain_mut(|upload| replace(&mut upload.0, url::decode_listed));
    }
    page.next = paging.next()?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Ceph RGW 16.2 spells it.
    const VERSIONS: &str = "<?xml version=\"1.0\"?><ListVersionsResult><Name>b</Name><EncodingType>url</EncodingType>\
        <IsTruncated>true</IsTruncated><NextKeyMarker>a%20b</NextKeyMarker><NextVersionIdMarker>v1</NextVersionIdMarker>\
        <Version><Key>a%20b</Key><VersionId>v2</VersionId><IsLatest>false</IsLatest>\
        <LastModified>2026-11-24T04:00:00.123Z</LastModified><ETag>&quot;e&quot;</ETag><Size>3</Size></Version>\
        <DeleteMarker><Key>a%20b</Key><VersionId>v3</VersionId><IsLatest>true</IsLatest>\
        <LastModified>2026-11-24T05:00:00.123Z</LastModified></DeleteMarker>\
        <CommonPrefixes><Prefix>d/</Prefix></CommonPrefixes></ListVersionsResult>";

    #[test]
    fn versions_are_read_in_order() {
        let page = parse_versions(VERSIONS).unwrap();
        let read =
            page.versions.iter().map(|v| (&*v.key, &*v.version_id, v.is_latest, v.is_delete_marker, v.size_bytes));
        let read: Vec<_> = read.collect();
        assert_eq!(read, [("a b", "v2", false, false, 3), ("a b", "v3", true, true, 0)]);
        assert_eq!((page.prefixes, page.next), (vec!["d/".to_owned()], Some(("a b".into(), Some("v1".into())))));
        assert!(
            parse_versions(&VERSIONS.replace("NextKeyMarker", "Else")).is_err(),
            "it goes on, and nobody knows where"
        );
        assert!(parse_versions("<ListBucketResult/>").is_err());
    }

    #[test]
    fn uploads_are_read() {
        let document = "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><NextKeyMarker>x</NextKeyMarker>\
            <Upload><Key>a</Key><UploadId>1</UploadId></Upload><Upload><Key>a</Key><UploadId>2</UploadId></Upload>\
            </ListMultipartUploadsResult>";
        let page = parse_uploads(document).unwrap();
        assert_eq!(page.uploads, [("a".into(), "1".into()), ("a".into(), "2".into())]);
        assert_eq!(page.next, None);
    }
}
